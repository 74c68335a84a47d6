rule export_csv:
    input:
        catalogue="results/catalogue.csv",
        split="results/split.csv",
        embeddings=every("results/embeddings/{shard}.parquet"),
        analysis="results/analysis.parquet",
    output:
        csv=table(
            "results/export/embeddings.csv",
            300 + 12 * (SETTINGS.byol_settings.representation_size or resources.FEATURES),
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
        code=code_digest("export.tables.csv"),
    shell:
        "python -m astromorph export csv --settings {params.settings:q}"
        " --catalogue {input.catalogue:q} --split {input.split:q}"
        " --embeddings {input.embeddings:q} --analysis {input.analysis:q}"
        " --output {output.csv:q}"
        " 2> {log:q}"


rule export_parquet:
    input:
        catalogue="results/catalogue.csv",
        split="results/split.csv",
        embeddings=every("results/embeddings/{shard}.parquet"),
        analysis="results/analysis.parquet",
    output:
        table="results/export/embeddings.parquet",
    log:
        "results/logs/export/parquet.log",
    benchmark:
        "results/benchmarks/export/parquet.tsv"
    conda:
        "../../envs/astromorph.yaml"
    threads: 1
    resources:
        **asked("export"),
    params:
        settings=part("export_tables"),
        code=code_digest("export.tables.parquet"),
    shell:
        "python -m astromorph export parquet --settings {params.settings:q}"
        " --catalogue {input.catalogue:q} --split {input.split:q}"
        " --embeddings {input.embeddings:q} --analysis {input.analysis:q}"
        " --output {output.table:q}"
        " 2> {log:q}"


rule export_fits:
    input:
        catalogue="results/catalogue.csv",
        split="results/split.csv",
        embeddings=every("results/embeddings/{shard}.parquet"),
        analysis="results/analysis.parquet",
    output:
        table="results/export/embeddings.fits",
    log:
        "results/logs/export/fits.log",
    benchmark:
        "results/benchmarks/export/fits.tsv"
    conda:
        "../../envs/astromorph.yaml"
    threads: 1
    resources:
        **asked("export"),
    params:
        settings=part("export_tables"),
        code=code_digest("export.tables.fits"),
    shell:
        "python -m astromorph export fits --settings {params.settings:q}"
        " --catalogue {input.catalogue:q} --split {input.split:q}"
        " --embeddings {input.embeddings:q} --analysis {input.analysis:q}"
        " --output {output.table:q}"
        " 2> {log:q}"


rule export_votable:
    input:
        catalogue="results/catalogue.csv",
        split="results/split.csv",
        embeddings=every("results/embeddings/{shard}.parquet"),
        analysis="results/analysis.parquet",
    output:
        table="results/export/embeddings.vot",
    log:
        "results/logs/export/votable.log",
    benchmark:
        "results/benchmarks/export/votable.tsv"
    conda:
        "../../envs/astromorph.yaml"
    threads: 1
    resources:
        **asked("export"),
    params:
        settings=part("export_tables"),
        code=code_digest("export.tables.votable"),
    shell:
        "python -m astromorph export votable --settings {params.settings:q}"
        " --catalogue {input.catalogue:q} --split {input.split:q}"
        " --embeddings {input.embeddings:q} --analysis {input.analysis:q}"
        " --output {output.table:q}"
        " 2> {log:q}"


rule export_tensorboard:
    input:
        catalogue="results/catalogue.csv",
        split="results/split.csv",
        embeddings=every("results/embeddings/{shard}.parquet"),
        analysis="results/analysis.parquet",
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
        code=code_digest("export.tensorboard"),
    shell:
        "python -m astromorph export tensorboard --settings {params.settings:q}"
        " --catalogue {input.catalogue:q} --split {input.split:q}"
        " --embeddings {input.embeddings:q} --analysis {input.analysis:q}"
        " --tensors {input.tensors:q} --output {output.projector:q}"
        " 2> {log:q}"
