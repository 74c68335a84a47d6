"""The command line: one subcommand per step, and `simulate`.

Only this module configures logging and exits.
"""

import argparse
import json
import logging
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from astromorph.errors import AstromorphError
from astromorph.settings import Settings, load, parse, required_datafile
from astromorph.trouble import explained

LOG = logging.getLogger("astromorph")
Command = Callable[[argparse.Namespace], None]


class OneLine(logging.Formatter):
    """A line per record: names of files can hold what ends lines or moves cursors."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, with such signs spelled out."""
        text = super().format(record)
        if text.isprintable():
            return text
        return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one subcommand.

    Exit codes: 0 done, 1 an error that the message explains, 2 wrong usage, 130
    interrupted.
    """
    options = _parser().parse_args(arguments)
    # Of several processes that train together the first one speaks for all.
    first = int(os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0"))) == 0
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(OneLine("%(asctime)s %(levelname)s %(message)s", "%H:%M:%S"))
    logging.basicConfig(
        level=logging.INFO if first else logging.ERROR, handlers=[handler]
    )
    try:
        options.command(options)
    except AstromorphError as error:
        for line in str(error).splitlines():
            LOG.error("%s", line)
        sys.exit(1)
    except KeyboardInterrupt:
        LOG.error("interrupted; what was complete before is kept")
        sys.exit(130)
    except Exception as error:
        said = explained(error)
        if said is None:
            raise
        LOG.error("%s", said)
        sys.exit(1)


def _simulate(options: argparse.Namespace) -> None:
    from astromorph.simulate import simulate

    simulate(options.output, options.number, options.seed)


def _validate(options: argparse.Namespace) -> None:
    from astromorph.validate import validate

    settings = _settings(options)
    datafile = required_datafile(settings, _source(options))
    cores = _cores(settings, options)
    validate(settings, datafile, options.catalogue, options.page, cores)


def _preprocess(options: argparse.Namespace) -> None:
    from astromorph.shards import preprocess

    settings = _settings(options)
    preprocess(
        settings,
        required_datafile(settings, _source(options)),
        tuple(options.rows),
        options.tensors,
        options.contents,
    )


def _split(options: argparse.Namespace) -> None:
    from astromorph.split import split

    settings = _settings(options)
    datafile = required_datafile(settings, _source(options))
    split(settings, datafile, options.contents, options.output)


def _train(options: argparse.Namespace) -> None:
    settings = _settings(options)
    if options.tensors is None:
        from astromorph.pipeline import run_train

        cores = _cores(settings, options)
        run_train(settings, options.results, _source(options), cores)
        return
    from astromorph.train import train

    model = options.trained_network_name
    threads = _cores(settings, options)
    _require(options, "split", "trained_network_name", "history", "log_dir")
    train(
        settings, options.split, options.tensors, model, options.history,
        options.log_dir, threads,
    )  # fmt: skip


def _infer(options: argparse.Namespace) -> None:
    settings = _settings(options)
    cores = _cores(settings, options)
    if options.tensors is None:
        from astromorph.pipeline import run_infer

        run_infer(settings, options.results, _source(options), cores)
        return
    from astromorph.infer import infer

    _require(options, "trained_network_name", "output")
    infer(
        settings, options.trained_network_name, options.tensors, options.output, cores
    )


def _old_training(options: argparse.Namespace) -> None:
    LOG.warning("`astromorph training` is now `astromorph train`")
    options.config_file = options.configfile
    # There it never named the model that is written.
    old = _old_defaults(options) | {"trained_network_name": None}
    options.settings = json.dumps(old)
    options.datafile = _list_from_here(options)
    _train(options)


def _old_inference(options: argparse.Namespace) -> None:
    LOG.warning("`astromorph inference` is now `astromorph infer`")
    if options.maskfile:
        raise AstromorphError(
            f"--maskfile {options.maskfile}: masks are not used, as they never were; "
            "leave it out"
        )
    options.config_file = options.configfile
    options.settings = json.dumps(_old_defaults(options))
    options.datafile = _list_from_here(options)
    _infer(options)


def _old_defaults(options: argparse.Namespace) -> dict[str, Any]:
    """What version 0.1 did where its settings said nothing: hold a fifth out."""
    values = load(options.config_file) if options.config_file else {}
    if "split_settings" in values:
        return {}
    LOG.info("a fifth of the images is held out, as in version 0.1")
    return {"split_settings": {"test_fraction": 0.2}}


def _list_from_here(options: argparse.Namespace) -> str | None:
    """The list with whole paths, where its own count from the working folder."""
    from astromorph.artefacts import replacing
    from astromorph.filelist import read_filelist

    settings = _settings(options)
    datafile = required_datafile(settings, _source(options))
    entries = list(read_filelist(datafile))
    if os.path.exists(entries[0].path) or not os.path.exists(entries[0].listed):
        return datafile
    found = os.path.join(options.results, "filelist.txt")
    with replacing(found) as temporary:
        lines = (f"{os.path.abspath(entry.listed)}\n" for entry in entries)
        temporary.write_text("".join(lines), encoding="utf-8")
    LOG.info("%s lists the files by their whole paths", found)
    return found


def _convert(options: argparse.Namespace) -> None:
    from astromorph.convert import convert

    convert(options.state, options.model)


def _evaluate(options: argparse.Namespace) -> None:
    from astromorph.evaluate import evaluate

    settings = _settings(options)
    _require(options, "trained_network_name")
    evaluate(
        settings, options.trained_network_name, options.tensors, options.embeddings,
        (options.catalogue, options.split), options.output, options.page,
        _cores(settings, options),
    )  # fmt: skip


def _analyse(options: argparse.Namespace) -> None:
    from astromorph.analyse import analyse

    settings = _settings(options)
    analyse(
        settings, options.catalogue, options.split, options.embeddings, options.output,
        options.summary, options.page, _cores(settings, options),
    )  # fmt: skip


def _similar(options: argparse.Namespace) -> None:
    from astromorph.pipeline import finished_run
    from astromorph.similar import similar

    run = finished_run(options.results, options.trained_network_name)
    rows = similar(
        run, options.to, options.top, options.output, options.table, options.datafile
    )
    for line in _aligned(rows):
        print(line)


def _aligned(rows: Sequence[dict[str, str]]) -> list[str]:
    """A table as lines of text."""
    cells = [list(rows[0]), *(list(row.values()) for row in rows)]
    safe = [
        [
            "".join(c if c.isprintable() else ascii(c)[1:-1] for c in cell)
            for cell in row
        ]
        for row in cells
    ]
    widths = [max(map(len, column)) for column in zip(*safe, strict=True)]
    return [
        "  ".join(map(str.ljust, row, widths)).rstrip() for row in safe
    ]  # fmt: skip


def _export_csv(options: argparse.Namespace) -> None:
    from astromorph.export_csv import export_csv

    export_csv(_settings(options), _inputs(options), options.output)


def _export_parquet(options: argparse.Namespace) -> None:
    from astromorph.export_parquet import export_parquet

    export_parquet(_settings(options), _inputs(options), options.output)


def _export_fits(options: argparse.Namespace) -> None:
    from astromorph.export_fits import export_fits

    export_fits(_settings(options), _inputs(options), options.output)


def _export_votable(options: argparse.Namespace) -> None:
    from astromorph.export_votable import export_votable

    export_votable(_settings(options), _inputs(options), options.output)


def _export_tensorboard(options: argparse.Namespace) -> None:
    from astromorph.export_tensorboard import export_tensorboard

    export_tensorboard(
        _settings(options), _inputs(options), options.tensors, options.output
    )


def _inputs(options: argparse.Namespace) -> Any:
    """The files that exports are made from."""
    from astromorph.table_rows import Inputs

    return Inputs(
        options.catalogue, options.split, tuple(options.embeddings), options.analysis
    )


def _export_gallery(options: argparse.Namespace) -> None:
    from astromorph.export_gallery import export_gallery

    settings = _settings(options)
    _require(options, "trained_network_name")
    export_gallery(
        settings, required_datafile(settings, _source(options)), options.catalogue,
        options.analysis, options.tensors, options.trained_network_name,
        options.output,
    )  # fmt: skip


def _report_history(options: argparse.Namespace) -> None:
    from astromorph.plot_history import plot_history

    plot_history(options.history, options.output)


def _report_settings(options: argparse.Namespace) -> None:
    from astromorph.settings_page import write_settings_page

    _require(options, "trained_network_name")
    write_settings_page(
        _settings(options), options.trained_network_name, options.output
    )


def _export_map(options: argparse.Namespace) -> None:
    from astromorph.export_map import export_map

    export_map(
        _settings(options), options.catalogue, options.split, options.analysis,
        options.tensors, options.output, options.pictures, options.evaluation,
    )  # fmt: skip


def _settings(options: argparse.Namespace) -> Settings:
    """Settings of the file or the string, with what the command line says instead."""
    values: dict[str, Any] = {}
    if options.config_file:
        values = load(options.config_file)
    if options.settings:
        try:
            values |= json.loads(options.settings)
        except (ValueError, TypeError) as error:
            raise AstromorphError(f"--settings: not a JSON object: {error}") from None
    for name in ("datafile", "trained_network_name"):
        if getattr(options, name, None):
            values[name] = getattr(options, name)
    return parse(values, _source(options))


def _source(options: argparse.Namespace) -> str:
    return options.config_file or "command line"


def _cores(settings: Settings, options: argparse.Namespace) -> int:
    """Cores to use: those that are there or asked for, within `core_limit`."""
    cores = options.threads or len(os.sched_getaffinity(0))
    return min(cores, settings.core_limit) if settings.core_limit else cores


def _require(options: argparse.Namespace, *names: str) -> None:
    for name in names:
        if getattr(options, name) is None:
            flag = name.replace("_", "-")
            raise AstromorphError(f"--{flag} is needed where --tensors is given")


def _parser() -> argparse.ArgumentParser:
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
    _add_old(steps)
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
        steps, "simulate", _simulate, "Write simulated FITS images of known kinds."
    )
    step.add_argument(
        "--output", required=True, metavar="DIR", help="folder to write to"
    )
    step.add_argument("--number", type=int, default=210, help="images (%(default)s)")
    step.add_argument("--seed", type=int, default=0, help="start of the random numbers")


def _add_validate(steps: Any) -> None:
    step = _add_step(
        steps, "validate", _validate, "Say of each listed file what it is, or why not."
    )
    _add_datafile(step)
    step.add_argument("--catalogue", default="results/catalogue.csv", help="to write")
    step.add_argument("--page", default="results/validation.html", help="to write")


def _add_preprocess(steps: Any) -> None:
    step = _add_step(
        steps, "preprocess", _preprocess, "Turn the FITS files of a shard into tensors."
    )
    _add_datafile(step)
    step.add_argument(
        "--rows", type=int, nargs=2, required=True, metavar=("FROM", "TO"),
        help="rows of the list, from 0, the last not included",
    )  # fmt: skip
    step.add_argument("--tensors", required=True, metavar="PT", help="to write")
    step.add_argument("--contents", required=True, metavar="CSV", help="to write")


def _add_split(steps: Any) -> None:
    step = _add_step(steps, "split", _split, "Hold images out of training.")
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
        _train,
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
        _infer,
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
        _evaluate,
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
        _analyse,
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
        _similar,
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
    for form, command, ending, summary in (
        ("csv", _export_csv, "csv", "One table: facts, analysis and embeddings."),
        ("parquet", _export_parquet, "parquet", "The same with types, as Parquet."),
        ("fits", _export_fits, "fits", "The same with units, as a FITS table."),
        ("votable", _export_votable, "vot", "The same with units, as a VOTable."),
    ):
        table = _add_step(forms, form, command, summary)
        _add_embeddings(table)
        _add_analysis(table)
        table.add_argument(
            "--output", default=f"results/export/embeddings.{ending}", help="to write"
        )
    board = _add_step(
        forms,
        "tensorboard",
        _export_tensorboard,
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
    _add_gallery(forms)
    _add_export_map(forms)


def _add_gallery(forms: Any) -> None:
    gallery = _add_step(
        forms, "gallery", _export_gallery,
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
        parts, "history", _report_history, "Losses and embedding measures by epoch."
    )
    history.add_argument(
        "--history", default="results/model/history.csv", help="to read"
    )
    history.add_argument(
        "--output", default="results/model/history.png", help="to write"
    )
    page = _add_step(
        parts, "settings", _report_settings,
        "All settings, those that are not the defaults, and versions.",
    )  # fmt: skip
    _add_datafile(page)
    _add_model(page, "the model")
    page.add_argument(
        "--output", default="results/report/settings.html", help="to write"
    )


def _add_export_map(forms: Any) -> None:
    page = _add_step(forms, "map", _export_map, "One page: the map in a browser.")
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


def _add_old(steps: Any) -> None:
    """What version 0.1 had, and how to bring its models over."""
    convert = _add(
        steps,
        "convert",
        _convert,
        "Make a model file of a model of version 0.1. Its own files are pickles and "
        "are never read: where it was made, write its tensors with python -c "
        '"import torch; '
        "torch.save(torch.load('old.pt', weights_only=False).state_dict(), "
        "'state.pt')\".",
    )
    convert.add_argument("state", metavar="STATE", help="the tensors, state.pt")
    convert.add_argument("model", metavar="MODEL", help="the model file to write")
    training = steps.add_parser("training")
    training.add_argument("-c", "--configfile", "--config-file", required=True)
    training.set_defaults(
        command=_old_training, tensors=None, results="results", threads=0,
        datafile=None, trained_network_name=None,
    )  # fmt: skip
    inference = steps.add_parser("inference")
    inference.add_argument("-c", "--configfile", "--config-file")
    inference.add_argument("-d", "--datafile")
    inference.add_argument("-m", "--maskfile")
    inference.add_argument("-n", "--trained_network_name", "--trained-network-name")
    inference.set_defaults(
        command=_old_inference, tensors=None, results="results", threads=0, settings=""
    )


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
