# Uses all cores to find neighbours; the rest runs on one core.
rule analyse:
    """Find clusters, neighbours, near-duplicates and outliers, and lay out the map."""
    input:
        catalogue=files.catalogue,
        split=files.split,
        embeddings=files.all_embeddings,
        tensors=files.all_tensors,
    output:
        analysis=files.analysis,
        summary=files.analysis_summary,
        page=report(
            files.analysis_page,
            caption="../report/analysis.rst",
            category="Analysis",
            labels={"item": "Clusters, duplicates and outliers"},
        ),
    log:
        files.log("analyse"),
    benchmark:
        files.benchmark("analyse")
    conda:
        "../../envs/astromorph.yaml"
    threads: RUN.cores
    resources:
        **RUN.resources("analyse", RUN.cores),
    params:
        **RUN.params("analyse", files.analysis),
        shards=len(files.shards),
    shell:
        "python -m astromorph analyse --settings {params.settings:q}"
        " --inputs {params.inputs:q} --results {params.results:q} --shards {params.shards}"
        " --threads {threads} 2> {log:q}"
