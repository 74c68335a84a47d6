# Of a long list the pictures lie beside the page.
# A report is one file: it holds the map where the map is one, too.
MAP_PICTURES = {}
MAP_PAGE = report(
    "results/export/map.html",
    caption="../report/map.rst",
    category="Map",
    labels={"item": "All images in two dimensions"},
)
if IMAGES > SETTINGS.export_settings.map_one_file:
    MAP_PICTURES = {"pictures": directory("results/export/map_files")}
    MAP_PAGE = "results/export/map.html"
MAP_EVALUATION = {}
if SETTINGS.evaluation_settings.images:
    MAP_EVALUATION = {"evaluation": "results/evaluation.json"}


rule export_map:
    input:
        **MAP_EVALUATION,
        catalogue="results/catalogue.csv",
        split="results/split.csv",
        analysis="results/analysis.parquet",
        tensors=every("results/tensors/{shard}.pt"),
    output:
        **MAP_PICTURES,
        page=MAP_PAGE,
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
        code=code_digest("export_map"),
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
