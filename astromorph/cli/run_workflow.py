"""The command `run`: Snakemake for those who do not know it."""

import argparse
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from astromorph.cli.workflow import snakefile, workflow_files
from astromorph.errors import AstromorphError
from astromorph.settings.loading import load

# Where Snakemake looks for a workflow.
SNAKEFILES = ("Snakefile", "snakefile", "workflow/Snakefile", "workflow/snakefile")
YAML_ENDINGS = (".yaml", ".yml")
SETTINGS = ("config/config.yaml", "config.yaml")
# Snakemake only reports problems: `astromorph.cli.job_watch` says what the jobs do.
BRIEF = ["--quiet", "rules", "host"]
# Options of Snakemake that ask for something else than a run, or for more details.
OWN_OUTPUT = (
    ("--dry-run", "--dryrun", "-n"),
    ("--printshellcmds", "-p"),
    ("--verbose",),
    ("--debug-dag",),
    ("--lint",),
    ("--unlock",),
    ("--touch", "-t"),
    ("--delete-all-output",),
)
# In a profile, what says how many cores there are.
HAS_CORES = re.compile(r"^(cores|jobs|executor)\s*:", re.MULTILINE)


def run_workflow(options: Sequence[str]) -> None:
    """Replace this process by Snakemake, whose exit code and signals are then its own.

    Parameters
    ----------
    options : sequence of str
        See `snakemake_command`.

    Raises
    ------
    AstromorphError
        The folder has no settings, or a file of settings is not valid YAML.
    """
    command = snakemake_command(options)
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(command[0], command)


def snakemake_command(options: Sequence[str]) -> list[str]:
    """The command that runs the workflow in the present folder.

    Parameters
    ----------
    options : sequence of str
        Options and targets of Snakemake. Unless they, or the profile of the folder, say
        otherwise, all cores are used; without a Snakefile in the folder, the one of
        the package; without `config/config.yaml`, the settings in `config.yaml`; a
        report has the style of the package; and Snakemake only reports problems, except
        in a dry run.

    Returns
    -------
    list of str
        The Python that runs this program, and its arguments.

    Raises
    ------
    AstromorphError
        The folder has no settings, or a file of settings is not valid YAML.
    """
    given = _given(options)
    folder = Path(given.directory or ".")
    # Snakemake does not say which file is not valid, and in which line.
    for path in (find_settings(folder), *map(Path, given.configfile or ())):
        if path is not None and path.suffix in YAML_ENDINGS and path.is_file():
            load(path)
    added: list[str] = []
    if not given.snakefile and not any(map(os.path.isfile, SNAKEFILES)):
        added += ["--snakefile", snakefile()]
        settings = find_settings(folder)
        if given.configfile is None and settings != folder / SETTINGS[0]:
            if settings is None:
                raise no_settings(folder)
            added += ["--configfile", str(settings.absolute())]
        if not (given.workflow_profile or Path("profiles/default").is_dir()):
            profile = workflow_files() / "profiles" / "default"
            added += ["--workflow-profile", str(profile)]
    decided = (given.cores, given.jobs, given.executor, given.profile)
    if all(value is None for value in decided) and not _profile_has_cores():
        added += ["--cores", "all"]
    if given.report and not given.report_stylesheet:
        style = workflow_files() / "workflow" / "report" / "style.css"
        added += ["--report-stylesheet", str(style)]
    brief = [] if _has_own_output(given) or "--" in options else BRIEF
    # Last, since --quiet takes all words up to the next option.
    return [sys.executable, "-m", "snakemake", *added, *options, *brief]


def find_settings(folder: Path) -> Path | None:
    """`config/config.yaml` of a folder, otherwise `config.yaml`, if there is one."""
    paths = (folder / name for name in SETTINGS)
    return next((path for path in paths if path.is_file()), None)


def no_settings(folder: Path) -> AstromorphError:
    """The error of a folder without settings."""
    return AstromorphError(
        f"{folder.absolute()}: there are no settings ({' or '.join(SETTINGS)}) in this "
        "folder; prepare one with `astromorph init DIR --images FOLDER`, and go there "
        "with `cd DIR`"
    )


def _given(options: Sequence[str]) -> argparse.Namespace:
    """Those of the options of Snakemake on which the command depends."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("-s", "--snakefile")
    parser.add_argument("-d", "--directory")
    parser.add_argument("-c", "--cores", nargs="?", const="all")
    parser.add_argument("-j", "--jobs", nargs="?", const="all")
    parser.add_argument("-e", "--executor")
    parser.add_argument("--profile", default=os.environ.get("SNAKEMAKE_PROFILE"))
    parser.add_argument("--workflow-profile")
    parser.add_argument("--configfile", "--configfiles", nargs="+")
    parser.add_argument("--quiet", "-q", nargs="*")
    parser.add_argument("--report", nargs="?", const="report.html")
    parser.add_argument("--report-stylesheet")
    for option in OWN_OUTPUT:
        parser.add_argument(*option, dest="has_own_output", action="store_true")
    return parser.parse_known_args(list(options))[0]


def _has_own_output(given: argparse.Namespace) -> bool:
    """Whether the user asks for what Snakemake itself writes."""
    return bool(given.quiet is not None or given.report or given.has_own_output)


def _profile_has_cores() -> bool:
    """Whether the profile of the folder sets the cores."""
    profiles = sorted(Path("profiles/default").glob("config*.yaml"))
    return any(HAS_CORES.search(path.read_text(errors="replace")) for path in profiles)
