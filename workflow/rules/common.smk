# What all rules share: the settings, the shards, the code that jobs run.
import functools
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

# A step that the system kills can say nothing itself. What Snakemake sets without a
# prefix stands before it: a step that fails in front of a `| tee` has failed. The shell
# waits for a step that was told to end: training has a checkpoint to write.
shell.prefix(
    "set -euo pipefail; trap : TERM USR1; trap 'test $? -ne 137 || echo \"astromorph: killed, most likely because memory ran"
    " out; give the step more (mem_mb), or set a smaller batch_size,"
    " preprocess_settings.size or shard_size, then run the same again\" >&2' EXIT; "
)

# Modules, not names: Snakemake keeps names of its own here, such as `parse`.
from astromorph import provenance
from astromorph.cli import failed_jobs, resources
from astromorph.filelist import entries, file_states, shards
from astromorph.settings import loading, steps
from astromorph.errors import AstromorphError
from astromorph.provenance import code_digest

CONFIG_FILE = "settings (config/config.yaml, --configfile, --config)"
try:
    SETTINGS = loading.parse(config, CONFIG_FILE)
    DATAFILE = loading.required_datafile(SETTINGS, CONFIG_FILE)
    # One reading of the list gives its shards and two digests: of all that it says,
    # and of that which decides the split.
    CELLS = shards.ColumnDigests(None, [entries.GROUP_COLUMN, entries.SPLIT_COLUMN])
    SHARDS = {
        shard.name: shard
        for shard in shards.plan_shards(
            CELLS.pass_through(entries.read_filelist(DATAFILE)),
            SETTINGS.preprocess_settings.shard_size,
        )
    }
    CONTENT, GROUPS = CELLS.digests(SHARDS.values())
    # All their paths stand in one command, of which Linux takes 128 KiB.
    if len(SHARDS) > 2000:
        raise AstromorphError(
            f"`preprocess_settings.shard_size`: {DATAFILE} gives {len(SHARDS)} shards "
            "so; allowed are 2000, set it larger"
        )
    # Where all images have something in common, the head of the list decides it.
    HEAD = ""
    if steps.needs_head(SETTINGS):
        HEAD = shards.head_digest(entries.read_filelist(DATAFILE))
        HEAD += file_states.head_file_states(DATAFILE, shards.HEAD_ROWS)
except AstromorphError as error:
    raise WorkflowError(str(error)) from None

# Whether files were replaced under their names: known when a job asks for it.
STATES = file_states.ShardStates(DATAFILE, list(SHARDS.values()))

# What results were made from is in Snakemake's own memory.
MEMORY = (Path(".snakemake/metadata.db"), *Path(".snakemake/metadata").glob("*"))
if Path("results/catalogue.csv").exists() and not any(p.exists() for p in MEMORY):
    logger.warning(
        "results/ is there, but .snakemake, which remembers what it was made from, is "
        "not: results are taken as they are. Where settings, files or code have "
        "changed since then, run `snakemake --forceall` with your other options."
    )


# Snakemake takes braces in a name for wildcards, and cannot be told otherwise. The list
# need not be an input, as each job knows by params what it has of it.
LISTED = [] if "{" in DATAFILE else DATAFILE
OWN_MODEL = "results/model/model.pt"
MODEL = SETTINGS.trained_network_name or OWN_MODEL
if "{" in MODEL:
    raise WorkflowError(
        f"`trained_network_name`: found {MODEL!r}; the workflow allows no braces in it, "
        "rename the file"
    )
# The cores of this machine's run; a cluster, which has no such number, gives 8.
CORES = SETTINGS.core_limit or workflow.resource_settings.cores or 8
IMAGES = max(shard.stop for shard in SHARDS.values())
# Bytes of a table up to which the report holds it: browsers have to open the report.
MAX_REPORTED = 20_000_000


wildcard_constraints:
    shard=r"\d{5}",


def part(step):
    """The settings of a step as one canonical string.

    As a function, since Snakemake takes braces in a text for wildcards.
    """
    text = provenance.canonical_json(steps.part_of(SETTINGS, step))
    return lambda wildcards: text


def every(pattern):
    """The file of each shard."""
    return expand(pattern, shard=list(SHARDS))


@functools.cache
def native_side():
    """The side that images have which keep their size; looked at when a job asks."""
    if SETTINGS.preprocess_settings.size != "native":
        return resources.NATIVE
    from astromorph.preprocessing import list_wide

    return list_wide.native_side(DATAFILE, SETTINGS.data_settings) or resources.NATIVE


def asked(step, cores=1):
    """Memory and time of a job, more at each attempt; what a cluster is asked for."""

    def at(wildcards, attempt):
        shard = SHARDS.get(wildcards.get("shard"))
        images = shard.stop - shard.start if shard else IMAGES
        first = resources.resources_for(step, SETTINGS, images, cores, native_side())
        return first.at(attempt)

    return {
        "mem_mb": lambda wildcards, attempt: at(wildcards, attempt).mem_mb,
        "runtime": lambda wildcards, attempt: at(wildcards, attempt).minutes,
    }


def stands(path):
    """Size and time of a file that settings name; one that is replaced is another."""
    return lambda wildcards: file_states.file_state([path]) if path else ""


# Of a model that is named; the workflow's own is known by what made it.
GIVEN_MODEL = stands(None if MODEL == OWN_MODEL else MODEL)


def table(path, row_bytes, name, caption, category):
    """A table that the report holds, unless so many images make it too large."""
    if IMAGES * row_bytes > MAX_REPORTED:
        return path
    return report(path, caption=caption, category=category, labels={"item": name})


def titled(sheet):
    """The name of a sheet as the report lists it: Cluster 00."""
    return sheet.replace("_", " ").capitalize()


def category_of(sheet):
    """Pictures of the map stand by themselves."""
    return "Map" if sheet.startswith("map_") else "Galleries"


def targets():
    """What a run is asked for. The analyses of the embeddings join here."""
    wanted = [
        "results/validation.html",
        "results/split.csv",
        "results/analysis.html",
        "results/export/tensorboard",
        "results/report/settings.html",
        *every("results/embeddings/{shard}.parquet"),
    ]
    if SETTINGS.evaluation_settings.images:
        wanted.append("results/evaluation.html")
    if not SETTINGS.trained_network_name:
        wanted.append("results/model/history.png")
    if SETTINGS.export_settings.gallery:
        wanted.append("results/export/gallery")
    if SETTINGS.export_to_csv:
        wanted.append("results/export/embeddings.csv")
    endings = {"parquet": "parquet", "fits": "fits", "votable": "vot"}
    wanted += [
        f"results/export/embeddings.{endings[form]}"
        for form in dict.fromkeys(SETTINGS.export_settings.tables)
    ]
    if SETTINGS.export_settings.map:
        wanted.append("results/export/map.html")
    return wanted
