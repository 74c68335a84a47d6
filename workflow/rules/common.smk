# Shared by all rules: the package, the plan of the run, and what the report shows.
import atexit
import functools
import os
import sys
from pathlib import Path

# Each job parses this file too. Jobs import the package beside this workflow and use the
# Python that runs Snakemake. A workflow that Snakemake reads from a git repository is in
# no folder: its jobs import the installed package.
if isinstance(workflow.current_basedir, os.PathLike):
    root = Path(workflow.current_basedir).parents[1]
    if (root / "astromorph").is_dir():
        sys.path.insert(0, str(root))
        paths = [str(root), os.getenv("PYTHONPATH")]
        os.environ.update(PYTHONPATH=os.pathsep.join(filter(None, paths)))
paths = [str(Path(sys.executable).parent), os.getenv("PATH", os.defpath)]
os.environ.update(PATH=os.pathsep.join(paths))

try:
    from astromorph.cli import job_watch
    from astromorph.cli import workflow as astromorph_workflow
except ModuleNotFoundError as error:
    raise WorkflowError(
        f"the package astromorph cannot be imported ({error}); install the version of "
        "this workflow in the environment of Snakemake, as docs/modules.md describes"
    ) from None
from astromorph.cli.closing import closing_lines
from astromorph.cli.steps import TABLE_ENDINGS
from astromorph.errors import AstromorphError

shell.prefix(astromorph_workflow.SHELL_PREFIX)

# Of a `module` statement, Snakemake ignores `onstart` and `onsuccess` unless its own
# Snakefile calls them.
IS_MODULE = not workflow.modifier.is_main_snakefile()


def print_closing_lines():
    """Say last what the run has made; Snakemake has more to say before."""
    if not (workflow.dag_settings.targets or job_watch.is_silent(workflow)):
        # Relative to the folder of the user, not to that of --directory.
        folder = workflow.overwrite_workdir or ""
        try:
            lines = closing_lines(RUN.placed_files, settings, folder)
        except AstromorphError as error:  # the run has succeeded
            lines = [str(error)]
        atexit.register(print, *lines, sep="\n", file=sys.stderr)


job_watch.watch_jobs(workflow, logger, print_closing_lines)


try:
    if workflow.is_main_process and not IS_MODULE:
        astromorph_workflow.check_config_files(workflow.configfiles)
    RUN = astromorph_workflow.plan_workflow(
        config,
        workflow.resource_settings.cores,
        workflow.modifier.path_modifier.replace_prefix,
    )
    if not workflow.storage_settings.default_storage_provider:
        astromorph_workflow.check_model(RUN)
except AstromorphError as error:
    raise WorkflowError(str(error)) from None

# The paths of all files of the run.
files = RUN.files
settings = RUN.settings


wildcard_constraints:
    shard=r"\d{5,9}",


@functools.cache
def force_outdated():
    """Make Snakemake run the jobs of existing results that are outdated.

    Its own records may be lost, or older than the results; those of the package are not.
    Only the first Snakemake compares them, not its jobs.
    """
    if workflow.is_main_process and astromorph_workflow.compares_records(
        workflow.dag_settings, workflow.storage_settings
    ):
        outdated, reasons = astromorph_workflow.outdated_results(
            RUN, workflow.dag_settings.targets
        )
        for reason in reasons:
            logger.info(reason, extra={"astromorph": True})
        workflow.dag.forcefiles.update(outdated)
        if not (workflow.dryrun or IS_MODULE):
            if lock := astromorph_workflow.explain_lock(RUN):
                logger.warning(lock)


# Every job depends on the result of one of these two functions. Snakemake calls them
# after it has read the command line and before it decides which jobs to run.
def file_list(wildcards):
    force_outdated()
    return RUN.declared_list


def model_file(wildcards):
    force_outdated()
    return files.model


def report_unless_large(path, row_bytes, **flags):
    """Mark a table as an item of the report, unless it is too large for browsers."""
    return report(path, **flags) if RUN.is_reported(row_bytes) else path
