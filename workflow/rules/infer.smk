rule infer:
    input:
        model=MODEL,
        tensors="results/tensors/{shard}.pt",
    output:
        embeddings="results/embeddings/{shard}.parquet",
    log:
        "results/logs/infer/{shard}.log",
    benchmark:
        "results/benchmarks/infer/{shard}.tsv"
    conda:
        "../../envs/astromorph.yaml"
    threads: 1
    resources:
        **asked("infer"),
    params:
        settings=part("infer"),
        code=code_digest("embedding.infer"),
        model=GIVEN_MODEL,
    shell:
        "python -m astromorph infer --settings {params.settings:q}"
        " --threads {threads} --trained-network-name {input.model:q}"
        " --tensors {input.tensors:q} --output {output.embeddings:q}"
        " 2> {log:q}"
