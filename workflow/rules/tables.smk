# The table of metadata, analysis and embeddings, with a rule for each format. The report
# contains only the CSV: browsers cannot show the others.
for form, ending in TABLE_ENDINGS.items():

    rule:
        """Write the table of all images, in the format that the name says."""
        name:
            f"export_{form}"
        input:
            catalogue=files.catalogue,
            split=files.split,
            embeddings=files.all_embeddings,
            analysis=files.analysis,
        output:
            table=(
                report_unless_large(
                    files.table(ending),
                    RUN.table_row_bytes,
                    caption="../report/embeddings.rst",
                    category="Tables",
                    labels={"item": "Metadata and embeddings: embeddings.csv"},
                )
                if form == "csv"
                else files.table(ending)
            ),
        log:
            files.log("export", form),
        benchmark:
            files.benchmark("export", form)
        conda:
            "../../envs/astromorph.yaml"
        threads: 1
        resources:
            **RUN.resources(f"export_{form}"),
        params:
            **RUN.params(f"export_{form}", files.table(ending)),
            form=form,
            shards=len(files.shards),
        shell:
            "python -m astromorph export {params.form} --settings {params.settings:q}"
            " --inputs {params.inputs:q} --results {params.results:q} --shards {params.shards} 2> {log:q}"
