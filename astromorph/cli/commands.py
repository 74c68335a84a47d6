"""The subcommands: each reads its options, then executes steps.

The modules of steps are imported where they are called, so that no step loads the
dependencies of another.
"""

import argparse
import json
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from astromorph.artefacts.records import Inputs
from astromorph.artefacts.run_files import RunFiles
from astromorph.cli.execute import execute
from astromorph.cli.steps import STEPS, Job
from astromorph.errors import AstromorphError
from astromorph.filelist.list_copy import reusable_list
from astromorph.filelist.list_state import ListState
from astromorph.filelist.shards import Shard
from astromorph.settings.loading import load, parse
from astromorph.settings.sections import Settings
from astromorph.system.logs import printable

LOG = logging.getLogger(__name__)
DEFAULT_TOP = 12  # images that `similar` finds


def single_step(name: str) -> Callable[[argparse.Namespace], None]:
    """The command that executes one step.

    Parameters
    ----------
    name : str
        A key of `astromorph.cli.steps.STEPS`.
    """
    return lambda options: execute(STEPS[name], read_job(options))


def init(options: argparse.Namespace) -> None:
    """Prepare a folder for a run of the workflow."""
    from astromorph.cli.init import init_run

    for line in init_run(
        options.folder, options.images, options.force, options.large_images
    ):
        print(printable(line))


def run_workflow(options: argparse.Namespace) -> None:
    """Run the workflow with Snakemake."""
    from astromorph.cli.run_workflow import run_workflow

    if {"-h", "--help"}.isdisjoint(options.options):
        run_workflow(options.options)
    else:
        print(options.help(), end="")


def simulate(options: argparse.Namespace) -> None:
    """Write simulated images."""
    from astromorph.sky.simulate import simulate

    simulate(options.output, options.number, options.seed)


def train(options: argparse.Namespace) -> None:
    """Train; without a number of shards, after all steps before it."""
    job = read_job(options)
    if options.shards is not None:
        execute(STEPS["train"], job)
        return
    from astromorph.cli.pipeline import run_train

    run_train(job)


def infer(options: argparse.Namespace) -> None:
    """Embed; without a shard, with all steps before and after it."""
    job = read_job(options)
    if options.shard is not None:
        execute(STEPS["infer"], job)
        return
    from astromorph.cli.pipeline import run_infer

    run_infer(job)


def status(options: argparse.Namespace) -> None:
    """Print what is up to date in a results folder."""
    from astromorph.cli.run_workflow import find_settings, no_settings
    from astromorph.cli.status import MISSING, job_states, left_over, summary

    if options.config_file is None:
        found = find_settings(Path())
        options.config_file = found and str(found)
    if not (options.config_file or options.settings or options.datafile):
        raise no_settings(Path())
    job = read_job(options)
    settings = job.settings
    state = ListState(job.datafile, settings.preprocess_settings.shard_size)
    files = RunFiles.of_run(
        options.results, len(state.shards), settings.trained_network_name
    )
    states = job_states(settings, files, state)
    for line in _aligned(summary(states)):
        print(line)
    trained = all(s.state != MISSING for s in states if s.step == "train")
    if not trained and any(files.checkpoints.glob("*/step-*.pt")):
        print(
            f"\nThere are checkpoints in {files.checkpoints}: training with the "
            "settings and images that they were made with resumes from the last one."
        )
    if others := left_over(states, files, STEPS["train"].is_wanted(settings)):
        print("\nNot part of a run with these settings:")
        for path in others:
            print(f"  {printable(str(path))}")
    if all(state.is_up_to_date for state in states):
        print("\nAll results are up to date.")
    elif all(state.state == MISSING for state in states):
        print("\nThere are no results yet; `astromorph run` makes them.")
    else:
        print("\nRun the same command as before to bring all results up to date.")


def similar(options: argparse.Namespace) -> None:
    """Print the images that are similar to given ones, or nearest to a position."""
    from astromorph.cli.pipeline import finished_run

    for name, allowed in (
        ("unlike", options.to),
        ("radius", options.at),
        ("output", options.to),
    ):
        if getattr(options, name) not in (None, []) and not allowed:
            needed = "--at" if name == "radius" else "--to"
            raise AstromorphError(f"--{name}: it needs {needed}; leave it out")
    if options.config_file:
        settings = parse(load(options.config_file), options.config_file)
        options.datafile = options.datafile or settings.datafile
        options.trained_network_name = (
            options.trained_network_name or settings.trained_network_name
        )
    files = finished_run(options.results, options.trained_network_name)
    if options.at:
        rows = _images_at(files, options)
    elif options.list:
        rows = _similar_to_list(files, options)
    else:
        rows = _similar_to_images(files, options)
    for line in _aligned(rows) if rows else ():
        print(line)


def _similar_to_images(
    files: RunFiles, options: argparse.Namespace
) -> list[dict[str, str]]:
    from astromorph.analysis.similar import Examples, similar

    examples = Examples(
        options.to, options.unlike, options.weight, options.files_per_image
    )
    return similar(
        files,
        examples,
        options.top or DEFAULT_TOP,
        options.output,
        options.table,
        options.datafile,
    )


def _similar_to_list(
    files: RunFiles, options: argparse.Namespace
) -> list[dict[str, str]]:
    """The rows to print: none if they are written to a table, which can be long."""
    from astromorph.analysis.similar import list_columns_of, similar_to_list
    from astromorph.artefacts.tables import write_csv

    rows = similar_to_list(
        files, options.list, options.top or DEFAULT_TOP, options.datafile
    )
    if not options.table:
        return list(rows)
    write_csv(options.table, list_columns_of(files), rows)
    LOG.info("%s: the images similar to each file of the list", options.table)
    return []


def _images_at(files: RunFiles, options: argparse.Namespace) -> list[dict[str, str]]:
    from astromorph.analysis.positions import images_at
    from astromorph.fits.celestial import parse_position

    try:
        ra_deg, dec_deg = parse_position(*options.at)
    except ValueError as error:
        raise AstromorphError(f"--at: {error}") from None
    count = options.top or (None if options.radius is not None else DEFAULT_TOP)
    rows = images_at(files, ra_deg, dec_deg, options.radius, count, options.table)
    if options.table:
        LOG.info("%s: %d rows", options.table, len(rows))
    return rows


def send(options: argparse.Namespace) -> None:
    """Send images of a run to TOPCAT, Aladin or other programs."""
    from astromorph.cli.pipeline import finished_run
    from astromorph.export.samp import send

    send(finished_run(options.results), options.to, options.rows)


def export_model(options: argparse.Namespace) -> None:
    """Write a trained model for other people and programs."""
    from astromorph.cli.pipeline import files_of_run, no_finished_run

    named = options.trained_network_name
    has_run = options.results is not None or named is None
    files = files_of_run(options.results or "results", named)
    if named is None and not files.model.exists():
        raise no_finished_run(files.model)
    from astromorph.export.model.model import export_model

    if not (has_run or options.output):
        raise AstromorphError("--output: name the folder to write the model to")
    export_model(
        files,
        options.output or files.exported_model,
        has_run=has_run,
        datafile=options.datafile,
        symmetry=options.symmetry,
    )


def rank(options: argparse.Namespace) -> None:
    """Rank by marks; without a number of shards, the files of a finished run."""
    job = read_job(options)
    if options.shards is not None:
        execute(STEPS["rank"], job)
        return
    from astromorph.cli.pipeline import finished_run

    files = finished_run(options.results, job.settings.trained_network_name)
    execute(STEPS["rank"], replace(job, files=files))
    print(files.ranking_page)


def print_completion(options: argparse.Namespace) -> None:
    """Print the script that lets a shell complete commands and options."""
    from argcomplete.shell_integration import shellcode

    print(shellcode(["astromorph"], True, options.shell))


def read_job(options: argparse.Namespace) -> Job:
    """The job that the options of a subcommand describe.

    Parameters
    ----------
    options : Namespace
        Options of any subcommand with ``--settings`` and ``--results``.

    Returns
    -------
    Job

    Raises
    ------
    AstromorphError
        A setting is unknown or not allowed.
    """
    settings = read_settings(options)
    shards = getattr(options, "shards", None) or 0
    return Job(
        settings,
        RunFiles.of_run(options.results, shards, settings.trained_network_name),
        options.config_file or "command line",
        _threads(settings, options),
        _shard(options),
        getattr(options, "evaluation", False),
        _inputs(options),
    )


def read_settings(options: argparse.Namespace) -> Settings:
    """Settings from the file, overridden by the string, overridden by options."""
    values: dict[str, Any] = {}
    if options.config_file:
        values = load(options.config_file)
    if options.settings:
        values |= _json_object(options.settings)
    for name in ("datafile", "trained_network_name", "marks"):
        if getattr(options, name, None):
            values[name] = getattr(options, name)
    if isinstance(values.get("datafile"), str):
        copy = RunFiles.of_run(options.results).list_copy
        values["datafile"] = reusable_list(values["datafile"], copy)
    return parse(values, options.config_file or "command line")


def _json_object(text: str) -> dict[str, Any]:
    """The settings in the option ``--settings``."""
    example = "give a JSON object, such as '{\"epochs\": 3}'"
    try:
        values = json.loads(text)
    except ValueError as error:
        raise AstromorphError(f"--settings: not JSON ({error}); {example}") from None
    if not isinstance(values, dict):
        raise AstromorphError(f"--settings: found {values!r}; {example}")
    return values


def _inputs(options: argparse.Namespace) -> Inputs | None:
    text = getattr(options, "inputs", None)
    try:
        return Inputs.from_json(text) if text else None
    except ValueError as error:
        raise AstromorphError(f"--inputs: {error}") from None


def _shard(options: argparse.Namespace) -> Shard | None:
    name = getattr(options, "shard", None)
    start, stop = getattr(options, "rows", None) or (0, 0)
    return None if name is None else Shard(name, start, stop, "")


def _threads(settings: Settings, options: argparse.Namespace) -> int:
    """The requested number, or all cores of this process; at most `core_limit`."""
    threads = options.threads or len(os.sched_getaffinity(0))
    return min(threads, settings.core_limit) if settings.core_limit else threads


def _aligned(rows: Sequence[dict[str, str]]) -> list[str]:
    """A table as lines of text."""
    cells = [list(rows[0]), *(list(row.values()) for row in rows)]
    safe = [[printable(cell) for cell in row] for row in cells]
    widths = [max(map(len, column)) for column in zip(*safe, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in safe]
