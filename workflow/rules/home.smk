# Runs last: the page leads to all results, and shows only those that exist.
rule report_home:
    """Write the page that leads to all results."""
    input:
        results=[path for path in RUN.targets() if path != files.home],
        model=files.model,
    output:
        page=files.home,
    log:
        files.log("report", "home"),
    conda:
        "../../envs/astromorph.yaml"
    threads: 1
    resources:
        **RUN.resources("report_home"),
    params:
        **RUN.params("report_home", files.home),
        shards=len(files.shards),
        evaluation="--evaluation" if RUN.has_evaluation else "",
    shell:
        "python -m astromorph report home --settings {params.settings:q}"
        " --inputs {params.inputs:q} --results {params.results:q} --shards {params.shards}"
        " --trained-network-name {input.model:q} {params.evaluation} 2> {log:q}"
