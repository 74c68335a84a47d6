# Shared by all rules: the package, the plan of the run, and what the report shows.
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

from astromorph.cli import workflow as astromorph_workflow
from astromorph.cli.steps import TABLE_ENDINGS
from astromorph.errors import AstromorphError

shell.prefix(astromorph_workflow.SHELL_PREFIX)

try:
    RUN = astromorph_workflow.plan_workflow(config, workflow.resource_settings.cores)
except AstromorphError as error:
    raise WorkflowError(str(error)) from None

# The paths of all files of the run.
files = RUN.files
settings = RUN.settings

if astromorph_workflow.metadata_is_lost(files):
    logger.warning(
        "results/ exists, but .snakemake, which records what results depend on, does "
        "not: results count as up to date. If settings, files or code have changed "
        "since then, add --forceall to your snakemake command."
    )


wildcard_constraints:
    shard=r"\d{5,9}",


# If the settings name a model, no rule writes it, so its size and time are a param. The
# run's own model, even if it is named, depends on the inputs of its training.
NAMED_MODEL_STATE = astromorph_workflow.state_of_file(
    None if files.model == files.own_model else settings.trained_network_name
)


def report_unless_large(path, row_bytes, **flags):
    """Mark a table as an item of the report, unless it is too large for browsers."""
    return report(path, **flags) if RUN.is_reported(row_bytes) else path
