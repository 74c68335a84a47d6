# The file list is read where the pictures are drawn from the files themselves.
rule export_gallery:
    input:
        datafile=ancient(LISTED),
        model=MODEL,
        catalogue="results/catalogue.csv",
        analysis="results/analysis.parquet",
        tensors=every("results/tensors/{shard}.pt"),
    output:
        gallery=report(
            directory("results/export/gallery"),
            patterns=["{sheet}.png"],
            caption="../report/gallery.rst",
            category=lambda wildcards: category_of(wildcards.sheet),
            labels=lambda wildcards: {"sheet": titled(wildcards.sheet)},
        ),
    log:
        "results/logs/export/gallery.log",
    benchmark:
        "results/benchmarks/export/gallery.tsv"
    conda:
        "../../envs/astromorph.yaml"
    threads: 1
    resources:
        **asked("gallery"),
    params:
        datafile=lambda wildcards: DATAFILE,
        settings=part("export_gallery"),
        code=code_digest("export.gallery.gallery"),
    shell:
        "python -m astromorph export gallery --settings {params.settings:q}"
        " --datafile {params.datafile:q} --trained-network-name {input.model:q}"
        " --catalogue {input.catalogue:q} --analysis {input.analysis:q}"
        " --tensors {input.tensors:q} --output {output.gallery:q}"
        " 2> {log:q}"
