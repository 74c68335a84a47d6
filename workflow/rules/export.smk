rule export_csv:
    input:
        catalogue="results/catalogue.csv",
        split="results/split.csv",
        embeddings=every("results/embeddings/{shard}.parquet"),
    output:
        csv=table(
            "results/export/embeddings.csv",
            300 + 12 * (SETTINGS.byol_settings.representation_size or needs.FEATURES),
            "Facts and embeddings: embeddings.csv",
            caption="../report/embeddings.rst",
            category="Tables",
        ),
    log:
        "results/logs/export/csv.log",
    benchmark:
        "results/benchmarks/export/csv.tsv"
    conda:
        "../../envs/astromorph.yaml"
    threads: 1
    resources:
        **asked("export"),
    params:
        settings=part("export_csv"),
        code=code_digest("export_csv"),
    shell:
        "python -m astromorph export csv"
        " --catalogue {input.catalogue:q} --split {input.split:q}"
        " --embeddings {input.embeddings:q}"
        " --output {output.csv:q}"
        " 2> {log:q}"


rule export_tensorboard:
    input:
        catalogue="results/catalogue.csv",
        split="results/split.csv",
        embeddings=every("results/embeddings/{shard}.parquet"),
        tensors=every("results/tensors/{shard}.pt"),
    output:
        projector=directory("results/export/tensorboard"),
    log:
        "results/logs/export/tensorboard.log",
    benchmark:
        "results/benchmarks/export/tensorboard.tsv"
    conda:
        "../../envs/astromorph.yaml"
    threads: 1
    resources:
        **asked("export"),
    params:
        settings=part("export_tensorboard"),
        code=code_digest("export_tensorboard"),
    shell:
        "python -m astromorph export tensorboard --settings {params.settings:q}"
        " --catalogue {input.catalogue:q} --split {input.split:q}"
        " --embeddings {input.embeddings:q}"
        " --tensors {input.tensors:q} --output {output.projector:q}"
        " 2> {log:q}"
