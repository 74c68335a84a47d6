"""The options of the command line, subcommand by subcommand."""

import argparse
from collections.abc import Callable
from typing import Any

from astromorph import compat
from astromorph.cli import commands

Command = Callable[[argparse.Namespace], None]

# Form, command, ending, summary.
TABLES: tuple[tuple[str, Command, str, str], ...] = (
    ("csv", commands.export_csv, "csv", "One table: facts, analysis and embeddings."),
    ("parquet", commands.export_parquet, "parquet", "With types, as Parquet."),
    ("fits", commands.export_fits, "fits", "With units, as a FITS table."),
    ("votable", commands.export_votable, "vot", "With units, as a VOTable."),
)


def parser() -> argparse.ArgumentParser:
    """The parser of all subcommands; each sets `command`, which takes the options."""
    parser = argparse.ArgumentParser(
        prog="astromorph",
        description="Embed FITS images without labels: objects that look alike lie "
        "together.",
        epilog="`snakemake --cores all` runs all steps; `astromorph train` and "
        "`astromorph infer` with -c run them without Snakemake.",
    )
    steps = parser.add_subparsers(title="steps", required=True, metavar="STEP")
    _add_simulate(steps)
    _add_validate(steps)
    _add_preprocess(steps)
    _add_split(steps)
    _add_train(steps)
    _add_infer(steps)
    _add_evaluate(steps)
    _add_analyse(steps)
    _add_similar(steps)
    _add_export(steps)
    _add_report(steps)
    compat.add_commands(steps, run)
    return parser


def _add(steps: Any, name: str, command: Command, summary: str) -> Any:
    step = steps.add_parser(name, help=summary, description=summary)
    step.set_defaults(command=command)
    return step


def _add_step(steps: Any, name: str, command: Command, summary: str) -> Any:
    """A subcommand that takes settings."""
    step = _add(steps, name, command, summary)
    step.add_argument(
        "-c", "--config-file", metavar="FILE", help="settings, TOML or YAML"
    )
    step.add_argument(
        "--settings", metavar="JSON", help="settings as one string; over those of FILE"
    )
    step.add_argument("--threads", type=int, default=0, help="cores; 0 for all")
    return step


def _add_simulate(steps: Any) -> None:
    step = _add(
        steps,
        "simulate",
        commands.simulate,
        "Write simulated FITS images of known kinds.",
    )
    step.add_argument(
        "--output", required=True, metavar="DIR", help="folder to write to"
    )
    step.add_argument("--number", type=int, default=210, help="images (%(default)s)")
    step.add_argument("--seed", type=int, default=0, help="start of the random numbers")


def _add_validate(steps: Any) -> None:
    step = _add_step(
        steps,
        "validate",
        commands.validate,
        "Say of each listed file what it is, or why not.",
    )
    _add_datafile(step)
    step.add_argument("--catalogue", default="results/catalogue.csv", help="to write")
    step.add_argument("--page", default="results/validation.html", help="to write")


def _add_preprocess(steps: Any) -> None:
    step = _add_step(
        steps,
        "preprocess",
        commands.preprocess,
        "Turn the FITS files of a shard into tensors.",
    )
    _add_datafile(step)
    step.add_argument(
        "--rows", type=int, nargs=2, required=True, metavar=("FROM", "TO"),
        help="rows of the list, from 0, the last not included",
    )  # fmt: skip
    step.add_argument("--tensors", required=True, metavar="PT", help="to write")
    step.add_argument("--contents", required=True, metavar="CSV", help="to write")


def _add_split(steps: Any) -> None:
    step = _add_step(steps, "split", commands.split, "Hold images out of training.")
    _add_datafile(step)
    step.add_argument(
        "--contents", nargs="+", required=True, metavar="CSV",
        help="tables that preprocess wrote, in order",
    )  # fmt: skip
    step.add_argument("--output", default="results/split.csv", help="to write")


def _add_train(steps: Any) -> None:
    step = _add_step(
        steps,
        "train",
        commands.train,
        "Train a network by itself. With -c, all steps from FITS files to a model; "
        "with --tensors, this step alone.",
    )
    _add_datafile(step)
    _add_model(step, "the model file to write")
    _add_results(step)
    step.add_argument("--tensors", nargs="+", metavar="PT", help="all shards, in order")
    step.add_argument("--split", metavar="CSV", help="with --tensors: to read")
    step.add_argument("--history", metavar="CSV", help="with --tensors: to write")
    step.add_argument("--log-dir", metavar="DIR", help="with --tensors: to write")


def _add_infer(steps: Any) -> None:
    step = _add_step(
        steps,
        "infer",
        commands.infer,
        "Embed images with a trained network. With -c, all steps from FITS files to "
        "tables; with --tensors, this step alone.",
    )
    _add_datafile(step)
    _add_model(step, "the model file to read")
    _add_results(step)
    step.add_argument("--tensors", metavar="PT", help="one shard")
    step.add_argument("--output", metavar="PARQUET", help="with --tensors: to write")


def _add_evaluate(steps: Any) -> None:
    step = _add_step(
        steps,
        "evaluate",
        commands.evaluate,
        "Say whether an embedding is better than that of an untrained network.",
    )
    _add_model(step, "the model")
    _add_embeddings(step)
    step.add_argument(
        "--tensors", nargs="+", required=True, metavar="PT", help="all shards, in order"
    )
    step.add_argument("--output", default="results/evaluation.json", help="to write")
    step.add_argument("--page", default="results/evaluation.html", help="to write")


def _add_analyse(steps: Any) -> None:
    step = _add_step(
        steps,
        "analyse",
        commands.analyse,
        "Find clusters, a map, neighbours, near-duplicates and outliers.",
    )
    _add_embeddings(step)
    step.add_argument("--output", default="results/analysis.parquet", help="to write")
    step.add_argument("--summary", default="results/analysis.json", help="to write")
    step.add_argument("--page", default="results/analysis.html", help="to write")


def _add_similar(steps: Any) -> None:
    step = _add(
        steps,
        "similar",
        commands.similar,
        "Show the images of a finished run that are most like any FITS image.",
    )
    step.add_argument(
        "--to", nargs="+", required=True, metavar="FITS",
        help="the image, in the list or not; with several channels, a file for each",
    )  # fmt: skip
    step.add_argument(
        "--top", type=_positive, default=12, help="how many (%(default)s)"
    )
    _add_results(step)
    _add_model(step, "the run's model (model/model.pt in its folder)")
    _add_datafile(step)
    step.add_argument("--output", metavar="PNG", help="pictures to write")
    step.add_argument("--table", metavar="CSV", help="the table to write")


def _positive(text: str) -> int:
    """A whole number from 1."""
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


def _add_export(steps: Any) -> None:
    export = steps.add_parser(
        "export",
        help="Write embeddings in the form of other programs.",
        description="Write embeddings in the form of other programs.",
    )
    forms = export.add_subparsers(title="forms", required=True, metavar="FORM")
    for form, command, ending, summary in TABLES:
        table = _add_step(forms, form, command, summary)
        _add_embeddings(table)
        _add_analysis(table)
        table.add_argument(
            "--output", default=f"results/export/embeddings.{ending}", help="to write"
        )
    _add_board(forms)
    _add_gallery(forms)
    _add_export_map(forms)


def _add_board(forms: Any) -> None:
    board = _add_step(
        forms,
        "tensorboard",
        commands.export_tensorboard,
        "A folder for TensorBoard's projector.",
    )
    _add_embeddings(board)
    _add_analysis(board)
    board.add_argument(
        "--tensors", nargs="+", required=True, metavar="PT", help="all shards, in order"
    )
    board.add_argument(
        "--output", default="results/export/tensorboard", help="to write"
    )


def _add_gallery(forms: Any) -> None:
    gallery = _add_step(
        forms, "gallery", commands.export_gallery,
        "Contact sheets of clusters, outliers, neighbours and views.",
    )  # fmt: skip
    _add_datafile(gallery)
    _add_model(gallery, "the model; its settings make the views")
    gallery.add_argument("--catalogue", default="results/catalogue.csv", help="to read")
    gallery.add_argument(
        "--analysis", default="results/analysis.parquet", help="to read"
    )
    gallery.add_argument(
        "--tensors", nargs="+", required=True, metavar="PT", help="all shards, in order"
    )
    gallery.add_argument("--output", default="results/export/gallery", help="to write")


def _add_report(steps: Any) -> None:
    summary = "Write figures and pages for the report of a run."
    report = steps.add_parser("report", help=summary, description=summary)
    parts = report.add_subparsers(title="parts", required=True, metavar="PART")
    history = _add(
        parts,
        "history",
        commands.report_history,
        "Losses and embedding measures by epoch.",
    )
    history.add_argument(
        "--history", default="results/model/history.csv", help="to read"
    )
    history.add_argument(
        "--output", default="results/model/history.png", help="to write"
    )
    page = _add_step(
        parts, "settings", commands.report_settings,
        "All settings, those that are not the defaults, and versions.",
    )  # fmt: skip
    _add_datafile(page)
    _add_model(page, "the model")
    page.add_argument(
        "--output", default="results/report/settings.html", help="to write"
    )


def _add_export_map(forms: Any) -> None:
    page = _add_step(
        forms, "map", commands.export_map, "One page: the map in a browser."
    )
    page.add_argument("--catalogue", default="results/catalogue.csv", help="to read")
    page.add_argument("--split", default="results/split.csv", help="to read")
    page.add_argument("--analysis", default="results/analysis.parquet", help="to read")
    page.add_argument(
        "--tensors", nargs="+", required=True, metavar="PT", help="all shards, in order"
    )
    page.add_argument(
        "--evaluation", metavar="JSON", help="to read: its verdict stands on the page"
    )
    page.add_argument("--output", default="results/export/map.html", help="to write")
    page.add_argument(
        "--pictures", metavar="DIR",
        help="to write, beside the page; without it the pictures are in the page",
    )  # fmt: skip


def run(arguments: list[str]) -> None:
    """Run one subcommand, given with its options."""
    options = parser().parse_args(arguments)
    options.command(options)


def _add_datafile(step: Any) -> None:
    step.add_argument(
        "-d", "--datafile", metavar="LIST", help="the file list; over the settings'"
    )


def _add_model(step: Any, summary: str) -> None:
    step.add_argument("-n", "--trained-network-name", metavar="PT", help=summary)


def _add_results(step: Any) -> None:
    step.add_argument(
        "--results", default="results", metavar="DIR", help="folder (%(default)s)"
    )


def _add_analysis(step: Any) -> None:
    step.add_argument("--analysis", default="results/analysis.parquet", help="to read")


def _add_embeddings(step: Any) -> None:
    step.add_argument("--catalogue", default="results/catalogue.csv", help="to read")
    step.add_argument("--split", default="results/split.csv", help="to read")
    step.add_argument(
        "--embeddings", nargs="+", required=True, metavar="PARQUET",
        help="all shards, in order",
    )  # fmt: skip
