rule validate:
    """Check the file list: what each file contains, or why it is rejected."""
    input:
        datafile=ancient(file_list),
    output:
        catalogue=report_unless_large(
            files.catalogue,
            astromorph_workflow.CATALOGUE_ROW_BYTES,
            caption="../report/catalogue.rst",
            category="Data",
            labels={"item": "Listed files: catalogue.csv"},
        ),
        page=report(
            files.validation_page,
            caption="../report/validation.rst",
            category="Data",
            labels={"item": "Validation of the files"},
        ),
    log:
        files.log("validate"),
    benchmark:
        files.benchmark("validate")
    # Runs before preprocessing, so a list with too many bad files stops the run early.
    priority: 100
    conda:
        "../../envs/astromorph.yaml"
    threads: RUN.cores
    resources:
        **RUN.resources("validate", RUN.cores),
    params:
        **RUN.params("validate", files.catalogue),
        datafile=lambda wildcards: RUN.datafile,
    shell:
        "python -m astromorph validate --settings {params.settings:q}"
        " --inputs {params.inputs:q} --results {params.results:q} --datafile {params.datafile:q}"
        " --threads {threads} 2> {log:q}"
