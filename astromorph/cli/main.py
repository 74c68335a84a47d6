"""The command line: the options of each subcommand, and exit codes.

Only this module exits.
"""

import argparse
import logging
import math
import os
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any

from astromorph import compat
from astromorph.errors import AstromorphError, explain_error
from astromorph.parent_watch import end_with_starter
from astromorph.processes import started_rank
from astromorph.progress import INTERRUPTED, show_bars_in_log
from astromorph.system.cache_folders import check_folders
from astromorph.system.logs import set_up_logging

Command = Callable[[argparse.Namespace], None]
# Name and help text of each table export.
TABLES = (
    ("csv", "Write the table of facts, analysis and embeddings as CSV."),
    ("parquet", "Write the same table as Parquet, with types."),
    ("fits", "Write the same table as FITS, with units."),
    ("votable", "Write the same table as VOTable, with units."),
)
LOG = logging.getLogger("astromorph")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one subcommand.

    Exit codes: 0 success, 1 an error that is explained in the log, 2 wrong usage, 130
    interrupted.

    Parameters
    ----------
    arguments : sequence of str, optional
        By default, those of the process.
    """
    if "_ARGCOMPLETE" in os.environ:  # a shell asks how a command can go on
        import argcomplete

        argcomplete.autocomplete(parser(with_old_names=False))
    options = parser().parse_args(arguments)
    if options.version:
        from astromorph import __version__

        print(f"astromorph {__version__}")
        return
    if options.command is None:
        parser().print_help()
        return
    # If several processes train together, only the first one logs information.
    first = started_rank() == 0
    set_up_logging(logging.INFO if first else logging.ERROR)
    for handler in logging.getLogger().handlers:
        show_bars_in_log(handler)
    end_with_starter()
    try:
        check_folders()
        options.command(options)
    except AstromorphError as error:
        # Empty in all but one of several processes that were interrupted together.
        for line in filter(None, str(error).split("\n")):
            LOG.error("%s", line)
        sys.exit(1)
    except KeyboardInterrupt as interruption:
        if first:
            LOG.error("%s", str(interruption) or INTERRUPTED)
        sys.exit(130)
    except Exception as error:
        explanation = explain_error(error)
        if explanation is None:
            raise
        LOG.error("%s", explanation)
        sys.exit(1)


def parser(with_old_names: bool = True) -> argparse.ArgumentParser:
    """The parser of all subcommands; each sets `command`, which takes the options.

    Parameters
    ----------
    with_old_names : bool
        Whether it has the subcommands of the releases before this one.
    """
    parser = argparse.ArgumentParser(
        prog="astromorph",
        description="Embed FITS images without labels: images of similar objects get "
        "similar embeddings.",
        epilog="To start: `astromorph init my_run --images FOLDER`, `cd my_run`, "
        "`astromorph run`. `astromorph train -c FILE` and `astromorph infer -c FILE` "
        "run the steps without Snakemake.",
    )
    parser.add_argument(
        "--version", action="store_true", help="print the version and end"
    )
    parser.set_defaults(command=None)
    steps = parser.add_subparsers(title="steps", metavar="STEP")
    _add_init(steps)
    _add_run(steps)
    _add_simulate(steps)
    _add_validate(steps)
    _add_preprocess(steps)
    _add_split(steps)
    _add_train(steps)
    _add_infer(steps)
    _add_evaluate(steps)
    _add_analyse(steps)
    _add_similar(steps)
    _add_rank(steps)
    _add_send(steps)
    _add_status(steps)
    _add_export(steps)
    _add_report(steps)
    _add_completion(steps)
    if with_old_names:
        compat.add_commands(steps, run)
    return parser


def _command(name: str) -> Command:
    """A function of `astromorph.cli.commands`, which is imported when it is called.

    Otherwise ``--help`` would wait for numpy and pydantic.
    """

    def call(options: argparse.Namespace) -> None:
        from astromorph.cli import commands

        getattr(commands, name)(options)

    return call


def _single_step(name: str) -> Command:
    """The command that executes one step, imported when it is called."""

    def call(options: argparse.Namespace) -> None:
        from astromorph.cli import commands

        commands.single_step(name)(options)

    return call


def _add(steps: Any, name: str, command: Command, summary: str) -> Any:
    step = steps.add_parser(name, help=summary, description=summary)
    step.set_defaults(command=command)
    return step


def _add_step(
    steps: Any, name: str, summary: str, command: Command | None = None, of: str = ""
) -> Any:
    """Add a subcommand with settings; by default, it executes the step of its name."""
    single = _single_step(f"{of}{name}") if command is None else command
    step = _add(steps, name, single, summary)
    _add_config_file(step, "settings, TOML or YAML")
    step.add_argument(
        "--settings",
        metavar="JSON",
        help="settings as a JSON object; they override those in FILE",
    )
    step.add_argument(
        "--threads", type=int, default=0, help="CPU cores to use; 0 for all"
    )
    step.add_argument(
        "--inputs",
        metavar="JSON",
        help="digests of what the step depends on, computed by the workflow",
    )
    _add_results(step)
    return step


def _add_init(steps: Any) -> None:
    step = _add(
        steps,
        "init",
        _command("init"),
        "Prepare a folder for a run: find FITS files, and write a file list, settings "
        "that suit them and a Snakefile.",
    )
    step.add_argument("folder", metavar="DIR", help="folder of the run, new or not")
    step.add_argument(
        "--images",
        nargs="+",
        required=True,
        metavar="FOLDER",
        help="folders with FITS files; columns of a labels.csv in them are used",
    )
    step.add_argument("--force", action="store_true", help="overwrite existing files")
    step.add_argument(
        "--large-images",
        action="store_true",
        help="accept images of more than 4096 pixels a side, which are most likely "
        "mosaics of many objects",
    )


def _add_run(steps: Any) -> None:
    summary = (
        "Run the workflow in this folder: the same as `snakemake --cores all`, with "
        "the workflow of the package if the folder has no Snakefile."
    )
    # No argument begins with this character: all are passed to Snakemake.
    step = steps.add_parser(
        "run",
        help=summary,
        description=summary,
        prefix_chars="\0",
        add_help=False,
        usage="astromorph run [--cores N] [option or target of Snakemake ...]",
        epilog="Frequent options: `--cores 4`, number of CPU cores; `-n`, only show "
        "what would run; `--config epochs=3`, another value of a setting; "
        "`results/validation.html`, only this file and what it needs; `--quiet host`, "
        "show Snakemake's own messages about each job; `--unlock`, after a crash.",
    )
    step.add_argument("options", nargs="*", help="passed to Snakemake")
    step.set_defaults(command=_command("run_workflow"), help=step.format_help)


def _add_simulate(steps: Any) -> None:
    step = _add(
        steps,
        "simulate",
        _command("simulate"),
        "Write simulated FITS images of known kinds.",
    )
    step.add_argument(
        "--output", required=True, metavar="DIR", help="folder to write to"
    )
    step.add_argument(
        "--number", type=int, default=210, help="number of images (%(default)s)"
    )
    step.add_argument(
        "--seed", type=int, default=0, help="seed of the random numbers (%(default)s)"
    )


def _add_validate(steps: Any) -> None:
    step = _add_step(
        steps,
        "validate",
        "Check the file list: what each file contains, or why it is rejected.",
    )
    _add_datafile(step)


def _add_preprocess(steps: Any) -> None:
    step = _add_step(
        steps,
        "preprocess",
        "Prepare the images of one shard and write them as tensors.",
    )
    _add_datafile(step)
    _add_shard(step, required=True)
    step.add_argument(
        "--rows",
        type=int,
        nargs=2,
        required=True,
        metavar=("START", "STOP"),
        help="rows of the file list in the shard, from 0; STOP is excluded",
    )


def _add_split(steps: Any) -> None:
    step = _add_step(
        steps, "split", "Divide the images into a training set and a test set."
    )
    _add_datafile(step)
    _add_shards(step)


def _add_train(steps: Any) -> None:
    step = _add_step(
        steps,
        "train",
        "Train a network without labels. With -c, execute all steps from FITS files "
        "to a model; with --shards, only this step.",
        _command("train"),
    )
    _add_datafile(step)
    _add_model(step, "model file to write")
    _add_shards(step, required=False)


def _add_infer(steps: Any) -> None:
    step = _add_step(
        steps,
        "infer",
        "Embed images with a trained network. With -c, execute all steps from FITS "
        "files to tables; with --shard, only this step.",
        _command("infer"),
    )
    _add_datafile(step)
    _add_model(step, "model file to read")
    _add_shard(step, required=False)


def _add_evaluate(steps: Any) -> None:
    step = _add_step(
        steps,
        "evaluate",
        "Compare the embedding with those of an untrained network and of simple "
        "references.",
    )
    _add_model(step, "model file to read")
    _add_shards(step)


def _add_analyse(steps: Any) -> None:
    step = _add_step(
        steps,
        "analyse",
        "Find clusters, neighbours, near-duplicates and outliers, and lay out the map.",
    )
    _add_shards(step)


def _add_similar(steps: Any) -> None:
    step = _add(
        steps,
        "similar",
        _command("similar"),
        "Find the images of a finished run that are most similar to given images, or "
        "nearest to a position.",
    )
    # Declinations such as -05:23:28 are values, not options.
    step._negative_number_matcher = re.compile(r"-[0-9.]")
    query = step.add_mutually_exclusive_group(required=True)
    query.add_argument(
        "--to",
        nargs="+",
        metavar="IMAGE",
        help="FITS files, in the file list or not, or image ids; with several, images "
        "that resemble their mean are found",
    )
    query.add_argument(
        "--list",
        metavar="LIST",
        help="file list of images; each is searched for separately",
    )
    query.add_argument(
        "--at",
        nargs=2,
        metavar=("RA", "DEC"),
        help="find images by position: ICRS, degrees or sexagesimal (hours for RA)",
    )
    step.add_argument(
        "--unlike",
        nargs="+",
        default=[],
        metavar="IMAGE",
        help="with --to: images that the results do not resemble",
    )
    step.add_argument(
        "--weight",
        type=_not_negative,
        default=0.3,
        help="weight of the images of --unlike (%(default)s)",
    )
    step.add_argument(
        "--files-per-image",
        type=_positive,
        default=1,
        metavar="NUMBER",
        help="with --to: files of each image, one per channel (%(default)s)",
    )
    step.add_argument(
        "--radius",
        type=_not_negative,
        metavar="ARCSEC",
        help="with --at: find all images within this distance",
    )
    step.add_argument(
        "--top",
        type=_positive,
        help="number of images to find (12; with --radius, all)",
    )
    _add_config_file(
        step,
        "settings of the run, for the names of its model file and its file list; files "
        "are read with the settings that the run recorded",
    )
    _add_results(step)
    _add_model(step, "model file of the run")
    _add_datafile(
        step,
        "file list of the run; needed with one brightness scale for all images or "
        "several files per image",
    )
    step.add_argument("--output", metavar="PNG", help="with --to: figure to write")
    step.add_argument("--table", metavar="CSV", help="table to write")


def _add_rank(steps: Any) -> None:
    step = _add_step(
        steps,
        "rank",
        "Rank the images of a finished run by their similarity to those that are "
        "marked in a file, such as marks.csv of the map.",
        _command("rank"),
    )
    step.add_argument(
        "--marks", metavar="CSV", help="file of marks; overrides that in the settings"
    )
    _add_datafile(step)
    _add_model(step, "model file of the run")
    _add_shards(step, required=False)


def _add_send(steps: Any) -> None:
    step = _add(
        steps,
        "send",
        _command("send"),
        "Send images of a finished run to TOPCAT, Aladin or other programs (SAMP).",
    )
    step.add_argument(
        "--to",
        default="all",
        metavar="PROGRAM",
        help="topcat, aladin, another name, or all (%(default)s)",
    )
    step.add_argument(
        "--rows",
        "--table",
        metavar="CSV",
        help="table with a column `image_id`, such as a list saved from the map; by "
        "default all images are sent",
    )
    _add_results(step)


def _add_status(steps: Any) -> None:
    step = _add_step(
        steps,
        "status",
        "List what is up to date in a results folder, what is older than the settings, "
        "the file list, the files or the code, and what is missing.",
        _command("status"),
    )
    _add_datafile(step)
    _add_model(step, "model file of the run, if another run has trained it")


def _positive(text: str) -> int:
    """An integer of at least 1."""
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


def _not_negative(text: str) -> float:
    """A finite number of at least 0."""
    number = float(text)
    if not 0 <= number < math.inf:
        raise ValueError(text)
    return number


def _add_export(steps: Any) -> None:
    summary = (
        "Write tables, an interactive map, contact sheets, a projector folder or a "
        "model for others."
    )
    export = steps.add_parser("export", help=summary, description=summary)
    forms = export.add_subparsers(title="forms", required=True, metavar="FORM")
    for form, text in TABLES:
        _add_shards(_add_step(forms, form, text, of="export_"))
    board = _add_step(
        forms,
        "tensorboard",
        "Write a folder for the TensorBoard projector.",
        of="export_",
    )
    _add_shards(board)
    page = _add_step(
        forms, "map", "Write the map as an interactive HTML page.", of="export_"
    )
    _add_shards(page)
    _add_evaluation(page)
    gallery = _add_step(
        forms,
        "gallery",
        "Write contact sheets of clusters, outliers, neighbours and views.",
        of="export_",
    )
    _add_datafile(gallery)
    _add_model(gallery, "model file; its settings determine the augmented views")
    _add_shards(gallery)
    _add_export_model(forms)


def _add_export_model(forms: Any) -> None:
    model = _add(
        forms,
        "model",
        _command("export_model"),
        "Write a trained model for others: safetensors, ONNX, the preparation of an "
        "image, and a model card.",
    )
    model.add_argument(
        "--results",
        metavar="DIR",
        help="folder of the run (results; without a run if -n is given alone)",
    )
    _add_model(model, "model file to read")
    model.add_argument(
        "--output",
        metavar="FOLDER",
        help="folder to write (export/model in the results folder)",
    )
    model.add_argument(
        "--symmetry",
        choices=("d4", "none"),
        help="whether embeddings in ONNX are averages over flips and rotations (as in "
        "the run; d4 without a run)",
    )
    _add_datafile(
        model,
        "file list of the run; needed with one brightness scale for all images, if "
        "there is no run or an image has several files",
    )


def _add_report(steps: Any) -> None:
    summary = "Write figures and pages for the report of a run."
    report = steps.add_parser("report", help=summary, description=summary)
    parts = report.add_subparsers(title="parts", required=True, metavar="PART")
    _add_step(
        parts, "history", "Draw losses and embedding measures by epoch.", of="report_"
    )
    page = _add_step(
        parts,
        "settings",
        "List all settings, highlight changed ones, and list versions.",
        of="report_",
    )
    _add_datafile(page)
    _add_model(page, "model file to read")
    home = _add_step(
        parts,
        "home",
        "Write the page that shows the run and leads to all its results.",
        of="report_",
    )
    _add_model(home, "model file of the run")
    _add_shards(home)
    _add_evaluation(home)


def _add_completion(steps: Any) -> None:
    step = _add(
        steps,
        "completion",
        _command("print_completion"),
        "Print a script for a shell, which then completes commands and options when "
        "TAB is pressed.",
    )
    step.add_argument(
        "shell",
        choices=("bash", "zsh", "fish"),
        help='the shell; for bash: eval "$(astromorph completion bash)"',
    )


def _add_results(step: Any) -> None:
    step.add_argument(
        "--results",
        default="results",
        metavar="DIR",
        help="folder for all files of the run (%(default)s)",
    )


def run(arguments: list[str]) -> None:
    """Run the subcommand that the arguments specify."""
    options = parser().parse_args(arguments)
    options.command(options)


def _add_config_file(step: Any, text: str) -> None:
    step.add_argument("-c", "--config-file", "--configfile", metavar="FILE", help=text)


def _add_datafile(
    step: Any, text: str = "file list; overrides that in the settings"
) -> None:
    step.add_argument("-d", "--datafile", metavar="LIST", help=text)


def _add_model(step: Any, meaning: str) -> None:
    step.add_argument(
        "-n",
        "--trained-network-name",
        metavar="PT",
        help=f"{meaning} (model/model.pt in the results folder)",
    )


def _add_evaluation(step: Any) -> None:
    step.add_argument(
        "--evaluation",
        action="store_true",
        help="show the verdict of the evaluation on the page",
    )


def _add_shards(step: Any, required: bool = True) -> None:
    step.add_argument(
        "--shards",
        type=_positive,
        required=required,
        metavar="NUMBER",
        help="number of shards of the run",
    )


def _add_shard(step: Any, required: bool) -> None:
    step.add_argument(
        "--shard",
        required=required,
        metavar="NAME",
        help="the shard to work on, such as 00000",
    )
