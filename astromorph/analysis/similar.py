"""The command `similar`: the images of a run that are most like any FITS image."""

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from astromorph.analysis.analyse import read_embedded
from astromorph.analysis.neighbours import SAME, nearest_to_point
from astromorph.analysis.space import fit_space
from astromorph.analysis.strip import StripPanel, draw_strip
from astromorph.artefacts import tables as artefacts
from astromorph.artefacts.analysis_table import read_analysis
from astromorph.artefacts.embeddings import read_embeddings
from astromorph.artefacts.tensor_shard import TensorShard, read_shard
from astromorph.byol.build import load_model
from astromorph.datasets.tensor_datasets import CachedDataset, ImageSet, NativeDataset
from astromorph.embedding.embed import embed
from astromorph.errors import AstromorphError, FitsImageError
from astromorph.filelist.entries import Entry
from astromorph.filelist.shards import HEAD_ROWS
from astromorph.fits import image as fits_image
from astromorph.preprocessing.list_wide import (
    ListReference,
    check_channels,
    find_reference,
    make_reference,
)
from astromorph.preprocessing.prepare import prepare
from astromorph.settings.loading import parse
from astromorph.settings.sections import InferenceSettings, Settings

Vectors = NDArray[np.float32]

LOG = logging.getLogger(__name__)
ALIKE = 1e-3  # of an embedding's length, by which machines and batches differ
FACTS = ("rank", "distance", "image_id", "path", "object", "cluster")


@dataclass(frozen=True, slots=True)
class Run:
    """The files of a finished run.

    Attributes
    ----------
    catalogue, split, model, analysis, summary : Path
        What the steps wrote.
    tensors, embeddings : tuple of Path
        All shards, in order.
    """

    catalogue: Path
    split: Path
    model: Path
    analysis: Path
    summary: Path
    tensors: tuple[Path, ...]
    embeddings: tuple[Path, ...]


def similar(
    run: Run,
    paths: Sequence[str],
    top: int,
    output: str | Path | None,
    table: str | Path | None,
    datafile: str | None = None,
) -> list[dict[str, str]]:
    """Find the images of a run that are most like one image.

    It is read, prepared and embedded as those of the run were, and its distances are
    taken in the space of `analyse`.

    Parameters
    ----------
    run : Run
        A finished run.
    paths : sequence of str
        The FITS file, or one per channel. It need not be in the list.
    top : int
        How many are wanted.
    output : path or None
        PNG to write: the image, then those like it.
    table : path or None
        CSV to write: what is returned.
    datafile : str, optional
        The file list, for a run of several files per image in which all have one
        brightness scale; else the catalogue serves.

    Returns
    -------
    list of dict of str to str
        A row for each, the nearest first: `FACTS` and the list's own columns.

    Raises
    ------
    AstromorphError
        The image cannot be used, results are missing, or they do not belong together.
    """
    first = _first_shard(run)
    settings = parse(json.loads(first.settings), str(run.tensors[0]))
    reference = _reference(settings, run, paths, datafile, first.channels)
    pixels = _prepared(paths, settings, reference)
    vector = _embedded(run, first, pixels)
    embedded = read_embedded(run.catalogue, run.split, run.embeddings)
    rules = _analysis_settings(run.summary).analysis_settings
    space = fit_space(embedded.vectors, rules.whiten, rules.components)
    points = space.place(embedded.vectors)
    indices, distances = nearest_to_point(space.place(vector)[0], points, top)
    found = [embedded.image_ids[k] for k in indices.tolist()]
    rows = _rows(run, found, distances.tolist())
    _say_itself(paths, rows)
    if table is not None:
        artefacts.write_csv(table, list(rows[0]), rows)
    if output is not None:
        _draw(output, paths, pixels, run, rows)
    return rows


def _first_shard(run: Run) -> TensorShard:
    """The first shard that holds an image."""
    shards = (read_shard(path) for path in run.tensors)
    first = next((shard for shard in shards if len(shard)), None)
    if first is None:
        raise AstromorphError(f"{run.split}: no image is left that has an embedding")
    return first


def _reference(
    settings: Settings,
    run: Run,
    paths: Sequence[str],
    datafile: str | None,
    channels: int,
) -> ListReference:
    """What all images of the run have in common."""
    if settings.preprocess_settings.stretch_scope == "image":
        return ListReference(channels)
    if datafile:
        return find_reference(settings, datafile)
    if len(paths) > 1:
        raise AstromorphError(
            "all images of this run have one brightness scale, which is found from its "
            "file list: name the list with --datafile"
        )
    rows = islice(artefacts.read_csv(run.catalogue), HEAD_ROWS)
    head = [Entry(row["image_id"], row["path"], row["path"]) for row in rows]
    return make_reference(settings, head, run.catalogue)


def _prepared(
    paths: Sequence[str], settings: Settings, reference: ListReference
) -> Vectors:
    """The image `(C, H, W)` as a shard of the run would hold it."""
    rules = settings.preprocess_settings
    try:
        facts, image = fits_image.read_image(paths, settings.data_settings)
        check_channels(facts.channels, reference)
        prepared = prepare(image, rules, reference.scale)
    except FitsImageError as error:
        raise AstromorphError(f"{' '.join(paths)}: {error}") from None
    if prepared.warning:
        LOG.warning("%s: %s", paths[0], prepared.warning)
    return prepared.pixels.astype(rules.dtype).astype(np.float32)


def _embedded(run: Run, first: TensorShard, pixels: Vectors) -> Vectors:
    """The embedding `(1, D)`, found as those of the run were.

    Whether they are averages over flips and turns is seen by embedding the run's first
    image again.
    """
    byol, made = load_model(run.model)
    stacksize = int(made.settings["data_settings"]["stacksize"])
    if first.channels * stacksize != made.in_channels:
        raise AstromorphError(
            f"{run.model}: this model takes images of {made.in_channels} channels, "
            f"those of {run.tensors[0]} have {first.channels}; name the run's own model"
        )
    known = _known_vector(run, first.image_ids[0])
    size = max(float(np.linalg.norm(known)), 1e-6)
    for symmetry in ("d4", "none"):
        rules = InferenceSettings(symmetry=symmetry)
        again = embed(byol, _set_of(first.each()[0].float(), stacksize), rules)[0]
        if np.linalg.norm(again - known) <= ALIKE * size:
            return embed(byol, _set_of(torch.from_numpy(pixels), stacksize), rules)
    raise AstromorphError(
        f"{run.model}: this model did not make the embeddings in "
        f"{run.embeddings[0].parent}; name the one that did with "
        "--trained-network-name, or run `infer` again"
    )


def _set_of(image: torch.Tensor, stacksize: int) -> ImageSet:
    if image.shape[1] == image.shape[2]:
        return CachedDataset(image[None], stacksize)
    return NativeDataset([image], stacksize)


def _known_vector(run: Run, image_id: str) -> Vectors:
    """The embedding that `infer` wrote of an image."""
    for path in run.embeddings:
        shard = read_embeddings(path)
        if image_id in shard.image_ids:
            vector: Vectors = shard.vectors[shard.image_ids.index(image_id)]
            return vector
    raise AstromorphError(
        f"{run.embeddings[0].parent}: there is no embedding of {image_id}; run `infer` "
        "again"
    )


def _analysis_settings(summary: Path) -> Settings:
    try:
        values = json.loads(summary.read_text(encoding="utf-8"))["settings"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise AstromorphError(
            f"{summary}: the settings of the analysis cannot be read here ({error}); "
            "run `analyse` first"
        ) from None
    return parse(values, str(summary))


def _rows(
    run: Run, found: Sequence[str], distances: Sequence[float]
) -> list[dict[str, str]]:
    """The rows of the answer, in its order."""
    analysis = read_analysis(run.analysis)
    cluster = dict(zip(analysis.image_ids, analysis.cluster.tolist(), strict=True))
    further = artefacts.list_columns(run.catalogue)
    facts = {
        row["image_id"]: row
        for row in artefacts.read_csv(run.catalogue, artefacts.CATALOGUE_COLUMNS)
        if row["image_id"] in set(found)
    }
    rows = []
    for rank, (image_id, distance) in enumerate(
        zip(found, distances, strict=True), start=1
    ):
        row = facts[image_id]
        rows.append(
            {
                "rank": str(rank),
                "distance": f"{distance:.4f}",
                "image_id": image_id,
                "path": row["path"],
                "object": row["object"],
                "cluster": str(cluster.get(image_id, "")),
            }
            | {name: row[name] for name in further}
        )
    return rows


def _say_itself(paths: Sequence[str], rows: Sequence[dict[str, str]]) -> None:
    own = Path(paths[0]).resolve()
    for row in rows:
        if Path(row["path"]).resolve() == own:
            LOG.info(
                "%s is in the list itself, as %s, at distance %s",
                paths[0], row["image_id"], row["distance"],
            )  # fmt: skip
            return
    if float(rows[0]["distance"]) <= SAME:
        LOG.info("%s has the embedding of %s", paths[0], rows[0]["path"])


def _draw(
    output: str | Path,
    paths: Sequence[str],
    pixels: Vectors,
    run: Run,
    rows: Sequence[dict[str, str]],
) -> None:
    wanted = {row["image_id"] for row in rows}
    images: dict[str, Any] = {}
    for path in run.tensors:
        shard = read_shard(path)
        if wanted.isdisjoint(shard.image_ids):
            continue
        for image_id, image in zip(shard.image_ids, shard.each(), strict=True):
            if image_id in wanted:
                images[image_id] = image.float().numpy()
    panels = [StripPanel(pixels, (Path(paths[0]).name, "the image asked for"))]
    for row in rows:
        name, distance = Path(row["path"]).name, row["distance"]
        panels.append(StripPanel(images[row["image_id"]], (name, f"{distance}")))
    draw_strip(output, panels)
