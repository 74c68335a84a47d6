"""The steps one after the other, without Snakemake, with the same files.

Snakemake's rules name their own files; here the same names serve the command
line. Tensors that fit the settings and the files are used again.
"""

import itertools
import json
import logging
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

from astromorph.artefacts.run_files import RunFiles
from astromorph.artefacts.tables import SPLIT_COLUMNS, read_csv
from astromorph.atomic import atomic_write
from astromorph.catalogue.split import split
from astromorph.catalogue.validate import validate
from astromorph.errors import AstromorphError
from astromorph.filelist.entries import read_filelist, read_paths
from astromorph.filelist.file_states import file_states
from astromorph.filelist.shards import HEAD_ROWS, Shard, plan_shards
from astromorph.provenance import canonical_json, code_digest, digest
from astromorph.settings.loading import required_datafile
from astromorph.settings.sections import Settings
from astromorph.settings.steps import needs_head, part_of

if TYPE_CHECKING:
    from astromorph.analysis.similar import Run

LOG = logging.getLogger(__name__)


def run_train(
    settings: Settings, results: str | Path, source: str, processes: int
) -> Path:
    """From FITS files to a model.

    Parameters
    ----------
    settings : Settings
        All of them; `trained_network_name` names the model file to write, by
        default ``model/model.pt`` in `results`.
    results : path
        Folder for everything that is written.
    source : str
        Where the settings are from, for messages.
    processes : int
        How many processes read files, and how many threads train.

    Returns
    -------
    Path
        The model file.
    """
    from astromorph.export.history_figure import plot_history
    from astromorph.training.train import train

    layout = RunFiles(Path(results))
    shards = _prepare(settings, layout, source, processes)
    model = Path(settings.trained_network_name or layout.own_model)
    tensors = [layout.tensors(s.name) for s in shards]
    train(
        settings,
        layout.split,
        tensors,
        model,
        layout.history,
        layout.scalars,
        processes,
    )
    plot_history(layout.history, layout.history_figure)
    return model


def run_infer(
    settings: Settings, results: str | Path, source: str, processes: int
) -> None:
    """From FITS files and a model to embeddings and exports.

    Parameters
    ----------
    settings : Settings
        All of them; `trained_network_name` names the model file to read, by
        default ``model/model.pt`` in `results`.
    results : path
        Folder for everything that is written.
    source : str
        Where the settings are from, for messages.
    processes : int
        How many processes read files, and how many threads infer.
    """
    from astromorph.analysis.analyse import analyse
    from astromorph.byol.build import load_model
    from astromorph.embedding.evaluate import evaluate
    from astromorph.embedding.infer import infer

    layout = RunFiles(Path(results))
    model = Path(settings.trained_network_name or layout.own_model)
    load_model(model)  # a wrong file is better known before the images are read
    shards = _prepare(settings, layout, source, processes)
    tensors = [layout.tensors(s.name) for s in shards]
    embeddings = [layout.embeddings(s.name) for s in shards]
    for shard, output in zip(tensors, embeddings, strict=True):
        infer(settings, model, shard, output, processes)
    if settings.evaluation_settings.images:
        evaluate(
            settings,
            model,
            tensors,
            embeddings,
            (layout.catalogue, layout.split),
            layout.evaluation,
            layout.evaluation.with_suffix(".html"),
            processes,
        )
    analyse(
        settings,
        layout.catalogue,
        layout.split,
        embeddings,
        layout.analysis,
        layout.analysis.with_suffix(".json"),
        layout.analysis.with_suffix(".html"),
        processes,
    )
    files = RunFiles(layout.results, tuple(s.name for s in shards))
    _tables(settings, files)
    _pages(settings, files, tensors, model)


def _tables(settings: Settings, files: RunFiles) -> None:
    """What other programs read."""
    from astromorph.export.tables.csv import export_csv
    from astromorph.export.tables.fits import export_fits
    from astromorph.export.tables.parquet import export_parquet
    from astromorph.export.tables.votable import export_votable

    if settings.export_to_csv:
        export_csv(files, settings.export_settings.csv_separator)
    writers = {
        "parquet": export_parquet, "fits": export_fits, "votable": export_votable,
    }  # fmt: skip
    made_with = canonical_json(part_of(settings, "export_tables"))
    for form in settings.export_settings.tables:
        writers[form](files, made_with)


def _pages(
    settings: Settings, files: RunFiles, tensors: list[Path], model: Path
) -> None:
    """What people look at."""
    from astromorph.export.gallery.gallery import export_gallery
    from astromorph.export.html_map.html_map import export_map
    from astromorph.export.settings_page import write_settings_page
    from astromorph.export.tensorboard import export_tensorboard

    rules = settings.export_settings
    export_tensorboard(files, rules.thumbnail_size)
    if rules.map:
        verdict = bool(settings.evaluation_settings.images)
        export_map(files, rules.map_thumbnail_size, rules.map_one_file, verdict)
    if rules.gallery:
        export_gallery(
            settings,
            str(settings.datafile),
            files.catalogue,
            files.analysis,
            tensors,
            model,
            files.gallery,
        )
    write_settings_page(settings, model, files.settings_page)


def finished_run(results: str | Path, model: str | None = None) -> "Run":
    """The files of a run that has an analysis.

    Parameters
    ----------
    results : path
        The folder of its results.
    model : str, optional
        The model file, where it is not ``model/model.pt`` in that folder.

    Raises
    ------
    AstromorphError
        The run is not there, or not finished.
    """
    from astromorph.analysis.similar import Run

    layout = RunFiles(Path(results))
    summary = layout.analysis.with_suffix(".json")
    for path in (layout.catalogue, layout.split, layout.analysis, summary):
        if not path.exists():
            raise AstromorphError(
                f"{path}: no such file; name the folder of a finished run with "
                "--results, or run `snakemake` or `astromorph infer` first"
            )
    fates = read_csv(layout.split, SPLIT_COLUMNS)
    shards = dict.fromkeys(fate["shard"] for fate in fates)
    return Run(
        layout.catalogue,
        layout.split,
        Path(model or layout.own_model),
        layout.analysis,
        summary,
        tuple(layout.tensors(shard) for shard in shards),
        tuple(layout.embeddings(shard) for shard in shards),
    )


def _prepare(
    settings: Settings, layout: RunFiles, source: str, processes: int
) -> tuple[Shard, ...]:
    """Validate the list, cache what is not cached yet, and split."""
    datafile = required_datafile(settings, source)
    validate(settings, datafile, layout.catalogue, layout.validation_page, processes)
    size = settings.preprocess_settings.shard_size
    shards = plan_shards(read_filelist(datafile), size)
    keys = dict(zip(shards, _keys(settings, shards), strict=True))
    waiting = [s for s in shards if not _is_fresh(layout, s, keys[s])]
    if len(waiting) < len(shards):
        done = len(shards) - len(waiting)
        LOG.info("%d of %d shards of tensors are used again", done, len(shards))
    if processes > 1 and len(waiting) > 1:
        with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
            jobs = [
                pool.submit(_preprocess, settings, layout, s, keys[s]) for s in waiting
            ]
            for job in jobs:
                job.result()
    else:
        for shard in waiting:
            _preprocess(settings, layout, shard, keys[shard])
    contents = [layout.contents(s.name) for s in shards]
    split(settings, datafile, contents, layout.split)
    return shards


def _preprocess(settings: Settings, layout: RunFiles, shard: Shard, key: str) -> None:
    from astromorph.preprocessing.preprocess import preprocess

    tensors, contents = layout.tensors(shard.name), layout.contents(shard.name)
    rows = (shard.start, shard.stop)
    preprocess(settings, str(settings.datafile), rows, tensors, contents)
    with atomic_write(_key_file(layout, shard)) as temporary:
        temporary.write_text(json.dumps({"made_from": key}), encoding="utf-8")


def _keys(settings: Settings, shards: tuple[Shard, ...]) -> Iterator[str]:
    """For each shard a digest of what its tensors are made from."""
    common = (
        canonical_json(part_of(settings, "preprocess")),
        code_digest("preprocessing.preprocess"),
    )
    paths = read_paths(str(settings.datafile))
    head: list[str] = []
    if needs_head(settings):
        head = [
            *file_states(
                itertools.islice(read_paths(str(settings.datafile)), HEAD_ROWS)
            )
        ]
    for shard in shards:
        rows = itertools.islice(paths, shard.stop - shard.start)
        yield digest([*common, *head, shard.digest, *file_states(rows)])


def _is_fresh(layout: RunFiles, shard: Shard, key: str) -> bool:
    if not layout.tensors(shard.name).exists():
        return False
    if not layout.contents(shard.name).exists():
        return False
    try:
        text = _key_file(layout, shard).read_text(encoding="utf-8")
        return bool(json.loads(text).get("made_from") == key)
    except (OSError, ValueError, AttributeError):
        return False


def _key_file(layout: RunFiles, shard: Shard) -> Path:
    return layout.tensors(shard.name).with_suffix(".json")
