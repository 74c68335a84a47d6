# Neighbours are looked for on all cores, the rest runs on one.
rule analyse:
    input:
        catalogue="results/catalogue.csv",
        split="results/split.csv",
        embeddings=every("results/embeddings/{shard}.parquet"),
    output:
        analysis="results/analysis.parquet",
        summary="results/analysis.json",
        page=report(
            "results/analysis.html",
            caption="../report/analysis.rst",
            category="Analysis",
            labels={"item": "Clusters, duplicates and outliers"},
        ),
    log:
        "results/logs/analyse/analyse.log",
    benchmark:
        "results/benchmarks/analyse/analyse.tsv"
    conda:
        "../../envs/astromorph.yaml"
    threads: CORES
    resources:
        **asked("analyse", CORES),
    params:
        settings=part("analyse"),
        code=code_digest("analysis.analyse"),
    shell:
        "python -m astromorph analyse --settings {params.settings:q}"
        " --threads {threads}"
        " --catalogue {input.catalogue:q} --split {input.split:q}"
        " --embeddings {input.embeddings:q}"
        " --output {output.analysis:q} --summary {output.summary:q}"
        " --page {output.page:q}"
        " 2> {log:q}"
