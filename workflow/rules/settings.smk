rule report_settings:
    """List all settings, highlight changed ones, and list versions."""
    input:
        model=model_file,
    output:
        page=report(
            files.settings_page,
            caption="../report/settings.rst",
            category="Settings",
            labels={"item": "Settings and versions"},
        ),
    log:
        files.log("report", "settings"),
    conda:
        "../../envs/astromorph.yaml"
    threads: 1
    resources:
        **RUN.resources("report_settings"),
    params:
        **RUN.params("report_settings", files.settings_page),
    shell:
        "python -m astromorph report settings --settings {params.settings:q}"
        " --inputs {params.inputs:q} --results {params.results:q} --trained-network-name {input.model:q}"
        " 2> {log:q}"
