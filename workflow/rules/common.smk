# What all rules share: the settings, the shards, the code that jobs run.
import os
import sys
from pathlib import Path

HERE = Path(workflow.current_basedir)
ROOT = HERE.parents[1]

# Each job parses this file too, so that what is set here holds wherever it runs:
# the package beside this workflow, and the Python that runs Snakemake.
if (ROOT / "astromorph").is_dir():
    sys.path.insert(0, str(ROOT))
    paths = [str(ROOT), os.getenv("PYTHONPATH")]
    os.environ.update(PYTHONPATH=os.pathsep.join(filter(None, paths)))
paths = [str(Path(sys.executable).parent), os.getenv("PATH", os.defpath)]
os.environ.update(PATH=os.pathsep.join(paths))

# Modules, not names: Snakemake keeps names of its own here, such as `parse`.
from astromorph import filelist, provenance, settings
from astromorph.errors import AstromorphError
from astromorph.provenance import code_digest

CONFIG_FILE = "settings (config/config.yaml, --configfile, --config)"
try:
    SETTINGS = settings.parse(config, CONFIG_FILE)
    DATAFILE = settings.required_datafile(SETTINGS, CONFIG_FILE)
    # One reading of the list gives its shards and two digests.
    CONTENT = filelist.ContentDigest()
    GROUPS = filelist.ContentDigest([filelist.GROUP, filelist.SPLIT])
    SHARDS = {
        shard.name: shard
        for shard in filelist.plan_shards(
            CONTENT.watch(GROUPS.watch(filelist.read_filelist(DATAFILE))),
            SETTINGS.preprocess_settings.shard_size,
        )
    }
    # Where all images have something in common, the head of the list decides it.
    HEAD = ""
    if settings.needs_head(SETTINGS):
        HEAD = filelist.head_digest(filelist.read_filelist(DATAFILE))
except AstromorphError as error:
    raise WorkflowError(str(error)) from None

MODEL = SETTINGS.trained_network_name or "results/model/model.pt"
# The cores of this machine's run; a cluster, which has no such number, gives 8.
CORES = SETTINGS.core_limit or workflow.resource_settings.cores or 8


wildcard_constraints:
    shard=r"\d{5}",


def part(step):
    """The settings of a step as one canonical string."""
    return provenance.canonical_json(settings.part_of(SETTINGS, step))


def every(pattern):
    """The file of each shard."""
    return expand(pattern, shard=list(SHARDS))


def targets():
    """What a run is asked for. The analyses of the embeddings join here."""
    wanted = [
        "results/validation.html",
        "results/split.csv",
        "results/export/tensorboard",
        *every("results/embeddings/{shard}.parquet"),
    ]
    if SETTINGS.evaluation_settings.images:
        wanted.append("results/evaluation.html")
    if SETTINGS.export_to_csv:
        wanted.append("results/export/embeddings.csv")
    return wanted
