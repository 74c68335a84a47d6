"""The steps one after the other, without Snakemake, with the same files.

Snakemake's rules name their own files; here the same names serve the command
line. Tensors that fit the settings and the files are used again.
"""

import itertools
import json
import logging
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

from astromorph.artefacts import replacing
from astromorph.filelist import HEAD, Shard, plan_shards, read_filelist, read_paths
from astromorph.provenance import canonical_json, code_digest, digest
from astromorph.settings import Settings, needs_head, part_of, required_datafile
from astromorph.sources import states
from astromorph.split import split
from astromorph.validate import validate

LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the files of a run lie.

    Attributes
    ----------
    results : Path
        The folder of all of them.
    """

    results: Path

    @property
    def catalogue(self) -> Path:
        """What the files are."""
        return self.results / "catalogue.csv"

    @property
    def page(self) -> Path:
        """The same to look at."""
        return self.results / "validation.html"

    @property
    def split(self) -> Path:
        """What became of each file."""
        return self.results / "split.csv"

    @property
    def model(self) -> Path:
        """The trained network."""
        return self.results / "model" / "model.pt"

    @property
    def history(self) -> Path:
        """Losses by epoch."""
        return self.results / "model" / "history.csv"

    @property
    def scalars(self) -> Path:
        """Losses for TensorBoard."""
        return self.results / "tensorboard" / "train"

    @property
    def evaluation(self) -> Path:
        """How good the embedding is."""
        return self.results / "evaluation.json"

    @property
    def csv(self) -> Path:
        """The table of embeddings."""
        return self.results / "export" / "embeddings.csv"

    @property
    def projector(self) -> Path:
        """The folder for TensorBoard's projector."""
        return self.results / "export" / "tensorboard"

    def tensors(self, shard: str) -> Path:
        """One shard's images."""
        return self.results / "tensors" / f"{shard}.pt"

    def contents(self, shard: str) -> Path:
        """What one shard really holds."""
        return self.results / "tensors" / f"{shard}.csv"

    def embeddings(self, shard: str) -> Path:
        """One shard's embeddings."""
        return self.results / "embeddings" / f"{shard}.parquet"


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
    from astromorph.train import train

    layout = Layout(Path(results))
    shards = _prepare(settings, layout, source, processes)
    model = Path(settings.trained_network_name or layout.model)
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
    from astromorph.checkpoint import load_model
    from astromorph.evaluate import evaluate
    from astromorph.export_csv import export_csv
    from astromorph.export_tensorboard import export_tensorboard
    from astromorph.infer import infer

    layout = Layout(Path(results))
    model = Path(settings.trained_network_name or layout.model)
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
    export_tensorboard(
        settings,
        layout.catalogue,
        layout.split,
        embeddings,
        tensors,
        layout.projector,
    )
    if settings.export_to_csv:
        export_csv(layout.catalogue, layout.split, embeddings, layout.csv)


def _prepare(
    settings: Settings, layout: Layout, source: str, processes: int
) -> tuple[Shard, ...]:
    """Validate the list, cache what is not cached yet, and split."""
    datafile = required_datafile(settings, source)
    validate(settings, datafile, layout.catalogue, layout.page, processes)
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


def _preprocess(settings: Settings, layout: Layout, shard: Shard, key: str) -> None:
    from astromorph.shards import preprocess

    tensors, contents = layout.tensors(shard.name), layout.contents(shard.name)
    rows = (shard.start, shard.stop)
    preprocess(settings, str(settings.datafile), rows, tensors, contents)
    with replacing(_key_file(layout, shard)) as temporary:
        temporary.write_text(json.dumps({"made_from": key}), encoding="utf-8")


def _keys(settings: Settings, shards: tuple[Shard, ...]) -> Iterator[str]:
    """For each shard a digest of what its tensors are made from."""
    common = (
        canonical_json(part_of(settings, "preprocess")),
        code_digest("shards"),
    )
    paths = read_paths(str(settings.datafile))
    head: list[str] = []
    if needs_head(settings):
        head = [*states(itertools.islice(read_paths(str(settings.datafile)), HEAD))]
    for shard in shards:
        rows = itertools.islice(paths, shard.stop - shard.start)
        yield digest([*common, *head, shard.digest, *states(rows)])


def _is_fresh(layout: Layout, shard: Shard, key: str) -> bool:
    if not layout.tensors(shard.name).exists():
        return False
    if not layout.contents(shard.name).exists():
        return False
    try:
        text = _key_file(layout, shard).read_text(encoding="utf-8")
        return bool(json.loads(text).get("made_from") == key)
    except (OSError, ValueError, AttributeError):
        return False


def _key_file(layout: Layout, shard: Shard) -> Path:
    return layout.tensors(shard.name).with_suffix(".json")
