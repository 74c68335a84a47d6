# Shared by all rules: the package, the plan of the run, and what the report shows.
import atexit
import functools
import os
import sys
from pathlib import Path

ROOT = Path(workflow.current_basedir).parents[1]

# Each job parses this file too. Jobs import the package beside this workflow and use the
# Python that runs Snakemake.
if (ROOT / "astromorph").is_dir():
    sys.path.insert(0, str(ROOT))
    paths = [str(ROOT), os.getenv("PYTHONPATH")]
    os.environ.update(PYTHONPATH=os.pathsep.join(filter(None, paths)))
paths = [str(Path(sys.executable).parent), os.getenv("PATH", os.defpath)]
os.environ.update(PATH=os.pathsep.join(paths))

from astromorph.cli import job_watch
from astromorph.cli import workflow as astromorph_workflow
from astromorph.cli.closing import closing_lines
from astromorph.cli.steps import TABLE_ENDINGS
from astromorph.errors import AstromorphError

shell.prefix(astromorph_workflow.SHELL_PREFIX)


def print_closing_lines():
    """Say last what the run has made; Snakemake has more to say before."""
    if not (workflow.dag_settings.targets or job_watch.is_silent(workflow)):
        # Relative to the folder of the user, not to that of --directory.
        folder = workflow.overwrite_workdir or ""
        try:
            lines = closing_lines(files, settings, folder)
        except AstromorphError as error:  # the run has succeeded
            lines = [str(error)]
        atexit.register(print, *lines, sep="\n", file=sys.stderr)


job_watch.watch_jobs(workflow, logger, print_closing_lines)


try:
    RUN = astromorph_workflow.plan_workflow(config, workflow.resource_settings.cores)
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
        if not workflow.dryrun and (lock := astromorph_workflow.explain_lock(RUN)):
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
