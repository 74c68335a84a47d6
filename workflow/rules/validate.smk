rule validate:
    input:
        datafile=ancient(LISTED),
    output:
        catalogue=table(
            "results/catalogue.csv",
            300,
            "Listed files: catalogue.csv",
            caption="../report/catalogue.rst",
            category="Data",
        ),
        page=report(
            "results/validation.html",
            caption="../report/validation.rst",
            category="Data",
            labels={"item": "What the files are"},
        ),
    log:
        "results/logs/validate/validate.log",
    benchmark:
        "results/benchmarks/validate/validate.tsv"
    # Before the tensors: a list that is no good ends the run early.
    priority: 100
    conda:
        "../../envs/astromorph.yaml"
    threads: CORES
    resources:
        **asked("validate", CORES),
    params:
        datafile=lambda wildcards: DATAFILE,
        settings=part("validate"),
        code=code_digest("catalogue.validate"),
        rows=CONTENT,
        files=lambda wildcards: STATES.all(),
    shell:
        "python -m astromorph validate --settings {params.settings:q}"
        " --threads {threads} --datafile {params.datafile:q}"
        " --catalogue {output.catalogue:q} --page {output.page:q}"
        " 2>&1 | tee {log:q} >&2"
