# Part of a run only if the settings name a file of marks. Its content is in the params, so
# that its modification time does not count; a name with braces would be a wildcard.
rule rank:
    """Rank all images by their similarity to marked ones."""
    input:
        **(
            {"marks": ancient(settings.marks)}
            if settings.marks and "{" not in settings.marks
            else {}
        ),
        catalogue=files.catalogue,
        split=files.split,
        analysis=files.analysis,
        summary=files.analysis_summary,
        embeddings=files.all_embeddings,
        tensors=files.all_tensors,
    output:
        ranking=files.ranking,
        page=report(
            files.ranking_page,
            caption="../report/ranking.rst",
            category="Ranking",
            labels={"item": "Images like those marked"},
        ),
        sheets=report(
            directory(files.ranking_sheets),
            patterns=["{sheet}.png"],
            caption="../report/ranking_sheet.rst",
            category="Ranking",
            labels=lambda wildcards: {
                "item": astromorph_workflow.sheet_title(wildcards.sheet)
            },
        ),
    log:
        files.log("rank"),
    benchmark:
        files.benchmark("rank")
    conda:
        "../../envs/astromorph.yaml"
    threads: 1
    resources:
        **RUN.resources("rank"),
    params:
        **RUN.params("rank", files.ranking),
        shards=len(files.shards),
    shell:
        "python -m astromorph rank --settings {params.settings:q}"
        " --inputs {params.inputs:q} --results {params.results:q} --shards {params.shards} 2> {log:q}"
