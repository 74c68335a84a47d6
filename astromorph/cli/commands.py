"""What each subcommand does: hand its options to the step.

Steps are imported where they are called, so that none loads what another one needs.
"""

import argparse
import json
import logging
import os
from collections.abc import Sequence
from typing import Any

from astromorph.errors import AstromorphError
from astromorph.settings.loading import load, parse, required_datafile
from astromorph.settings.sections import Settings

LOG = logging.getLogger(__name__)


def simulate(options: argparse.Namespace) -> None:
    """Write simulated images."""
    from astromorph.sky.simulate import simulate

    simulate(options.output, options.number, options.seed)


def validate(options: argparse.Namespace) -> None:
    """Look at the listed files."""
    from astromorph.catalogue.validate import validate

    settings = _settings(options)
    datafile = required_datafile(settings, _source(options))
    cores = _cores(settings, options)
    validate(settings, datafile, options.catalogue, options.page, cores)


def preprocess(options: argparse.Namespace) -> None:
    """Make the tensors of some rows."""
    from astromorph.preprocessing.preprocess import preprocess

    settings = _settings(options)
    preprocess(
        settings,
        required_datafile(settings, _source(options)),
        tuple(options.rows),
        options.tensors,
        options.contents,
    )


def split(options: argparse.Namespace) -> None:
    """Hold images out."""
    from astromorph.catalogue.split import split

    settings = _settings(options)
    datafile = required_datafile(settings, _source(options))
    split(settings, datafile, options.contents, options.output)


def train(options: argparse.Namespace) -> None:
    """Train, with all steps before it unless tensors are named."""
    settings = _settings(options)
    if options.tensors is None:
        from astromorph.cli.pipeline import run_train

        cores = _cores(settings, options)
        run_train(settings, options.results, _source(options), cores)
        return
    from astromorph.training.train import train

    model = options.trained_network_name
    threads = _cores(settings, options)
    _require(options, "split", "trained_network_name", "history", "log_dir")
    train(
        settings, options.split, options.tensors, model, options.history,
        options.log_dir, threads,
    )  # fmt: skip


def infer(options: argparse.Namespace) -> None:
    """Embed, with all steps around it unless tensors are named."""
    settings = _settings(options)
    cores = _cores(settings, options)
    if options.tensors is None:
        from astromorph.cli.pipeline import run_infer

        run_infer(settings, options.results, _source(options), cores)
        return
    from astromorph.embedding.infer import infer

    _require(options, "trained_network_name", "output")
    infer(
        settings, options.trained_network_name, options.tensors, options.output, cores
    )


def evaluate(options: argparse.Namespace) -> None:
    """Hold the embedding against its references."""
    from astromorph.embedding.evaluate import evaluate

    settings = _settings(options)
    _require(options, "trained_network_name")
    evaluate(
        settings, options.trained_network_name, options.tensors, options.embeddings,
        (options.catalogue, options.split), options.output, options.page,
        _cores(settings, options),
    )  # fmt: skip


def analyse(options: argparse.Namespace) -> None:
    """Find clusters, map, neighbours and outliers."""
    from astromorph.analysis.analyse import analyse

    settings = _settings(options)
    analyse(
        settings, options.catalogue, options.split, options.embeddings, options.output,
        options.summary, options.page, _cores(settings, options),
    )  # fmt: skip


def similar(options: argparse.Namespace) -> None:
    """Print the images most like one."""
    from astromorph.analysis.similar import similar
    from astromorph.cli.pipeline import finished_run

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


def export_csv(options: argparse.Namespace) -> None:
    """Write the table as CSV."""
    from astromorph.export.tables.csv import export_csv

    export_csv(_settings(options), _inputs(options), options.output)


def export_parquet(options: argparse.Namespace) -> None:
    """Write the table as Parquet."""
    from astromorph.export.tables.parquet import export_parquet

    export_parquet(_settings(options), _inputs(options), options.output)


def export_fits(options: argparse.Namespace) -> None:
    """Write the table as FITS."""
    from astromorph.export.tables.fits import export_fits

    export_fits(_settings(options), _inputs(options), options.output)


def export_votable(options: argparse.Namespace) -> None:
    """Write the table as VOTable."""
    from astromorph.export.tables.votable import export_votable

    export_votable(_settings(options), _inputs(options), options.output)


def export_tensorboard(options: argparse.Namespace) -> None:
    """Write the folder of the projector."""
    from astromorph.export.tensorboard import export_tensorboard

    export_tensorboard(
        _settings(options), _inputs(options), options.tensors, options.output
    )


def _inputs(options: argparse.Namespace) -> Any:
    """The files that exports are made from."""
    from astromorph.artefacts.table_rows import Inputs

    return Inputs(
        options.catalogue, options.split, tuple(options.embeddings), options.analysis
    )


def export_gallery(options: argparse.Namespace) -> None:
    """Draw the contact sheets."""
    from astromorph.export.gallery.gallery import export_gallery

    settings = _settings(options)
    _require(options, "trained_network_name")
    export_gallery(
        settings, required_datafile(settings, _source(options)), options.catalogue,
        options.analysis, options.tensors, options.trained_network_name,
        options.output,
    )  # fmt: skip


def report_history(options: argparse.Namespace) -> None:
    """Draw the losses."""
    from astromorph.export.history_figure import plot_history

    plot_history(options.history, options.output)


def report_settings(options: argparse.Namespace) -> None:
    """Write the page of settings."""
    from astromorph.export.settings_page import write_settings_page

    _require(options, "trained_network_name")
    write_settings_page(
        _settings(options), options.trained_network_name, options.output
    )


def export_map(options: argparse.Namespace) -> None:
    """Write the map's page."""
    from astromorph.export.html_map.html_map import export_map

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
