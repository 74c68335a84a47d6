"""What each subcommand does: hand its options to the step.

Steps are imported where they are called, so that none loads what another one needs.
"""

import argparse
import json
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from astromorph.artefacts.run_files import RunFiles
from astromorph.errors import AstromorphError
from astromorph.provenance import canonical_json
from astromorph.settings.loading import load, parse, required_datafile
from astromorph.settings.sections import Settings
from astromorph.settings.steps import part_of

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


def old_training(options: argparse.Namespace) -> None:
    """`training` of version 0.1."""
    LOG.warning("`astromorph training` is now `astromorph train`")
    options.config_file = options.configfile
    # There it never named the model that is written.
    old = _old_defaults(options) | {"trained_network_name": None}
    options.settings = json.dumps(old)
    options.datafile = _list_from_here(options)
    train(options)


def old_inference(options: argparse.Namespace) -> None:
    """`inference` of version 0.1."""
    LOG.warning("`astromorph inference` is now `astromorph infer`")
    if options.maskfile:
        raise AstromorphError(
            f"--maskfile {options.maskfile}: masks are not used, as they never were; "
            "leave it out"
        )
    options.config_file = options.configfile
    options.settings = json.dumps(_old_defaults(options))
    options.datafile = _list_from_here(options)
    infer(options)


def _old_defaults(options: argparse.Namespace) -> dict[str, Any]:
    """What version 0.1 did where its settings said nothing: hold a fifth out."""
    values = load(options.config_file) if options.config_file else {}
    if "split_settings" in values:
        return {}
    LOG.info("a fifth of the images is held out, as in version 0.1")
    return {"split_settings": {"test_fraction": 0.2}}


def _list_from_here(options: argparse.Namespace) -> str | None:
    """The list with whole paths, where its own count from the working folder."""
    from astromorph.atomic import atomic_write
    from astromorph.filelist.entries import read_filelist

    settings = _settings(options)
    datafile = required_datafile(settings, _source(options))
    entries = list(read_filelist(datafile))
    if os.path.exists(entries[0].path) or not os.path.exists(entries[0].listed):
        return datafile
    found = os.path.join(options.results, "filelist.txt")
    with atomic_write(found) as temporary:
        lines = (f"{os.path.abspath(entry.listed)}\n" for entry in entries)
        temporary.write_text("".join(lines), encoding="utf-8")
    LOG.info("%s lists the files by their whole paths", found)
    return found


def convert(options: argparse.Namespace) -> None:
    """Bring the weights of a model of version 0.1 over."""
    from astromorph.convert import convert

    convert(options.state, options.model)


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

    separator = _settings(options).export_settings.csv_separator
    export_csv(_files(options), separator)


def export_parquet(options: argparse.Namespace) -> None:
    """Write the table as Parquet."""
    from astromorph.export.tables.parquet import export_parquet

    export_parquet(_files(options), _made_with(options))


def export_fits(options: argparse.Namespace) -> None:
    """Write the table as FITS."""
    from astromorph.export.tables.fits import export_fits

    export_fits(_files(options), _made_with(options))


def export_votable(options: argparse.Namespace) -> None:
    """Write the table as VOTable."""
    from astromorph.export.tables.votable import export_votable

    export_votable(_files(options), _made_with(options))


def export_tensorboard(options: argparse.Namespace) -> None:
    """Write the folder of the projector."""
    from astromorph.export.tensorboard import export_tensorboard

    thumbnail_size = _settings(options).export_settings.thumbnail_size
    export_tensorboard(_files(options), thumbnail_size)


def _files(options: argparse.Namespace) -> RunFiles:
    """The files of the run whose catalogue is named."""
    shards = getattr(options, "embeddings", None) or options.tensors
    results = Path(options.catalogue).parent
    return RunFiles(results, tuple(Path(shard).stem for shard in shards))


def _made_with(options: argparse.Namespace) -> str:
    """The settings that are written into tables."""
    return canonical_json(part_of(_settings(options), "export_tables"))


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

    side = _settings(options).export_settings.map_thumbnail_size
    max_one_file = -1 if options.pictures else sys.maxsize
    export_map(_files(options), side, max_one_file, options.evaluation is not None)


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
