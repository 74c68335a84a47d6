# What the report shows and no other step needs.
rule report_settings:
    input:
        model=MODEL,
    output:
        page=report(
            "results/report/settings.html",
            caption="../report/settings.rst",
            category="Settings",
            labels={"item": "Settings and versions"},
        ),
    log:
        "results/logs/report/settings.log",
    conda:
        "../../envs/astromorph.yaml"
    threads: 1
    resources:
        **asked("report"),
    params:
        settings=part("report_settings"),
        code=code_digest("export.settings_page"),
        model=GIVEN_MODEL,
    shell:
        "python -m astromorph report settings --settings {params.settings:q}"
        " --trained-network-name {input.model:q} --output {output.page:q}"
        " 2> {log:q}"


if not SETTINGS.trained_network_name:

    rule report_history:
        input:
            history="results/model/history.csv",
        output:
            figure=report(
                "results/model/history.png",
                caption="../report/history.rst",
                category="Training",
                labels={"item": "Losses and measures by epoch"},
            ),
        log:
            "results/logs/report/history.log",
        conda:
            "../../envs/astromorph.yaml"
        threads: 1
        resources:
            **asked("export"),
        params:
            code=code_digest("export.history_figure"),
        shell:
            "python -m astromorph report history"
            " --history {input.history:q} --output {output.figure:q}"
            " 2> {log:q}"
