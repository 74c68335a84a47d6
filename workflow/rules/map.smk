# Of a long list the thumbnails lie beside the page.
# The report does not hold the page: a report in one file gives its pages to the browser
# as addresses, and Chromium shows nothing where one is longer than 2 MB.
rule export_map:
    input:
        **({"evaluation": files.evaluation} if RUN.has_evaluation else {}),
        catalogue=files.catalogue,
        split=files.split,
        analysis=files.analysis,
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
        " --results {params.results:q} --shards {params.shards} {params.evaluation}"
        " 2> {log:q}"
