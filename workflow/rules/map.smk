# Of a long list the pictures lie beside the page.
# The report does not hold the page: a report in one file gives its pages to the browser
# as addresses, and Chromium shows nothing where one is longer than 2 MB.
MAP_PICTURES = {}
if IMAGES > SETTINGS.export_settings.map_one_file:
    MAP_PICTURES = {"pictures": directory("results/export/map_files")}
MAP_EVALUATION = {}
if SETTINGS.evaluation_settings.images:
    MAP_EVALUATION = {"evaluation": "results/evaluation.json"}


rule export_map:
    input:
        **MAP_EVALUATION,
        catalogue="results/catalogue.csv",
        split="results/split.csv",
        analysis="results/analysis.parquet",
        embeddings=every("results/embeddings/{shard}.parquet"),
        tensors=every("results/tensors/{shard}.pt"),
    output:
        **MAP_PICTURES,
        page="results/export/map.html",
    log:
        "results/logs/export/map.log",
    benchmark:
        "results/benchmarks/export/map.tsv"
    conda:
        "../../envs/astromorph.yaml"
    threads: 1
    resources:
        **asked("export"),
    params:
        settings=part("export_map"),
        code=code_digest("export.html_map.html_map"),
        further=lambda wildcards, input, output: [
            f"--{name}={path}"
            for name, path in (
                ("evaluation", input.get("evaluation")),
                ("pictures", output.get("pictures")),
            )
            if path
        ],
    shell:
        "python -m astromorph export map --settings {params.settings:q}"
        " --catalogue {input.catalogue:q} --split {input.split:q}"
        " --analysis {input.analysis:q} --tensors {input.tensors:q}"
        " --output {output.page:q} {params.further:q}"
        " 2> {log:q}"
