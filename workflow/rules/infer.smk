rule infer:
    """Embed the images of one shard with the trained network."""
    input:
        model=files.model,
        tensors=files.tensors("{shard}"),
    output:
        embeddings=files.embeddings("{shard}"),
    log:
        files.log("infer", "{shard}"),
    benchmark:
        files.benchmark("infer", "{shard}")
    conda:
        "../../envs/astromorph.yaml"
    threads: 1
    resources:
        **RUN.resources("infer"),
    params:
        **RUN.params("infer", files.embeddings("{shard}")),
    shell:
        "python -m astromorph infer --settings {params.settings:q}"
        " --inputs {params.inputs:q} --results {params.results:q} --shard {wildcards.shard}"
        " --trained-network-name {input.model:q} --threads {threads} 2> {log:q}"
