# Of the list only paths and groups count: a corrected label retrains nothing.
rule split:
    input:
        datafile=ancient(LISTED),
        contents=every("results/tensors/{shard}.csv"),
    output:
        split=table(
            "results/split.csv",
            200,
            "Training and test: split.csv",
            caption="../report/split.rst",
            category="Data",
        ),
    log:
        "results/logs/split/split.log",
    conda:
        "../../envs/astromorph.yaml"
    threads: 1
    resources:
        **asked("split"),
    params:
        datafile=lambda wildcards: DATAFILE,
        settings=part("split"),
        code=code_digest("catalogue.split"),
        rows=GROUPS,
    shell:
        "python -m astromorph split --settings {params.settings:q}"
        " --datafile {params.datafile:q} --contents {input.contents:q}"
        " --output {output.split:q}"
        " 2> {log:q}"
