rule report_history:
    """Draw losses and embedding measures by epoch."""
    input:
        history=files.history,
    output:
        figure=report(
            files.history_figure,
            caption="../report/history.rst",
            category="Training",
            labels={"item": "Losses and measures by epoch"},
        ),
    log:
        files.log("report", "history"),
    conda:
        "../../envs/astromorph.yaml"
    threads: 1
    resources:
        **RUN.resources("report_history"),
    params:
        **RUN.params("report_history", files.history_figure),
    shell:
        "python -m astromorph report history --inputs {params.inputs:q}"
        " --results {params.results:q} 2> {log:q}"
