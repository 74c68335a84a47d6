# The file list is only read if the pictures are drawn from the FITS files.
rule export_gallery:
    """Write contact sheets of clusters, outliers, neighbours and views."""
    input:
        datafile=ancient(file_list),
        model=files.model,
        catalogue=files.catalogue,
        analysis=files.analysis,
        tensors=files.all_tensors,
    output:
        gallery=report(
            directory(files.gallery),
            patterns=["{sheet}.png"],
            caption="../report/gallery.rst",
            category=lambda wildcards: astromorph_workflow.sheet_category(
                wildcards.sheet
            ),
            labels=lambda wildcards: {
                "sheet": astromorph_workflow.sheet_title(wildcards.sheet)
            },
        ),
    log:
        files.log("export", "gallery"),
    benchmark:
        files.benchmark("export", "gallery")
    conda:
        "../../envs/astromorph.yaml"
    threads: 1
    resources:
        **RUN.resources("export_gallery"),
    params:
        **RUN.params("export_gallery", files.gallery),
        datafile=lambda wildcards: RUN.datafile,
        shards=len(files.shards),
    shell:
        "python -m astromorph export gallery --settings {params.settings:q}"
        " --inputs {params.inputs:q} --results {params.results:q} --datafile {params.datafile:q}"
        " --shards {params.shards} --trained-network-name {input.model:q} 2> {log:q}"
