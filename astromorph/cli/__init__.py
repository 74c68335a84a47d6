"""The command line, and the pipeline without Snakemake."""
