# The untrained network embeds the sampled images here, hence the cores.
rule evaluate:
    input:
        model=MODEL,
        catalogue="results/catalogue.csv",
        split="results/split.csv",
        tensors=every("results/tensors/{shard}.pt"),
        embeddings=every("results/embeddings/{shard}.parquet"),
    output:
        evaluation="results/evaluation.json",
        page=report(
            "results/evaluation.html",
            caption="../report/evaluation.rst",
            category="Evaluation",
            labels={"item": "Embedding quality"},
        ),
    log:
        "results/logs/evaluate/evaluate.log",
    benchmark:
        "results/benchmarks/evaluate/evaluate.tsv"
    conda:
        "../../envs/astromorph.yaml"
    threads: CORES
    resources:
        **asked("evaluate", CORES),
    params:
        settings=part("evaluate"),
        code=code_digest("embedding.evaluate"),
    shell:
        "python -m astromorph evaluate --settings {params.settings:q}"
        " --threads {threads} --trained-network-name {input.model:q}"
        " --catalogue {input.catalogue:q} --split {input.split:q}"
        " --tensors {input.tensors:q} --embeddings {input.embeddings:q}"
        " --output {output.evaluation:q} --page {output.page:q}"
        " 2>&1 | tee {log:q} >&2"
