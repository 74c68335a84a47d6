# Only the paths and groups of the list count: correcting a label does not retrain.
rule split:
    """Divide the images into a training set and a test set."""
    input:
        datafile=ancient(file_list),
        contents=files.all_contents,
    output:
        split=report_unless_large(
            files.split,
            astromorph_workflow.SPLIT_ROW_BYTES,
            caption="../report/split.rst",
            category="Data",
            labels={"item": "Training and test sets: split.csv"},
        ),
    log:
        files.log("split"),
    conda:
        "../../envs/astromorph.yaml"
    threads: 1
    resources:
        **RUN.resources("split"),
    params:
        **RUN.params("split", files.split),
        datafile=lambda wildcards: RUN.datafile,
        shards=len(files.shards),
    shell:
        "python -m astromorph split --settings {params.settings:q}"
        " --inputs {params.inputs:q} --results {params.results:q} --datafile {params.datafile:q}"
        " --shards {params.shards} 2> {log:q}"
