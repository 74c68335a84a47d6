# The workflow itself is in workflow/; this file lets `snakemake` find it here.
include: "workflow/Snakefile"


rule everything:
    """Make all results of the run."""
    default_target: True
    input:
        rules.all.input,
