# For a long list the thumbnails are in a folder beside the page.
# The page is not in the report: a report in one file passes its pages to the browser as
# data URLs, and Chromium shows nothing if one is longer than 2 MB.
rule export_map:
    """Write the map as an interactive HTML page."""
    input:
        **({"evaluation": files.evaluation} if RUN.has_evaluation else {}),
        catalogue=files.catalogue,
        split=files.split,
        analysis=files.analysis,
        summary=files.analysis_summary,
        embeddings=files.all_embeddings,
        tensors=files.all_tensors,
    output:
        **({"folder": directory(files.map_pictures)} if RUN.has_map_folder else {}),
        page=files.map,
    log:
        files.log("export", "map"),
    benchmark:
        files.benchmark("export", "map")
    conda:
        "../../envs/astromorph.yaml"
    threads: 1
    resources:
        **RUN.resources("export_map"),
    params:
        **RUN.params("export_map", files.map),
        shards=len(files.shards),
        evaluation="--evaluation" if RUN.has_evaluation else "",
    shell:
        "python -m astromorph export map --settings {params.settings:q}"
        " --inputs {params.inputs:q} --results {params.results:q} --shards {params.shards} {params.evaluation}"
        " 2> {log:q}"
