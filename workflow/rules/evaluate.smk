# Uses all cores: the untrained network embeds the sampled images in this step.
rule evaluate:
    """Compare the embedding with those of an untrained network and of simple references."""
    input:
        model=files.model,
        catalogue=files.catalogue,
        split=files.split,
        tensors=files.all_tensors,
        embeddings=files.all_embeddings,
    output:
        evaluation=files.evaluation,
        page=report(
            files.evaluation_page,
            caption="../report/evaluation.rst",
            category="Evaluation",
            labels={"item": "Embedding quality"},
        ),
    log:
        files.log("evaluate"),
    benchmark:
        files.benchmark("evaluate")
    conda:
        "../../envs/astromorph.yaml"
    threads: RUN.cores
    resources:
        **RUN.resources("evaluate", RUN.cores),
    params:
        **RUN.params("evaluate", files.evaluation),
        shards=len(files.shards),
    shell:
        "python -m astromorph evaluate --settings {params.settings:q}"
        " --inputs {params.inputs:q} --results {params.results:q} --shards {params.shards}"
        " --trained-network-name {input.model:q} --threads {threads}"
        " 2> {log:q}"
