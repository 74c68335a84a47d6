"""The command `similar`: find the images of a run most similar to a FITS image."""

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from astromorph.analysis.analyse import read_embedded_images
from astromorph.analysis.components import read_analysis_settings
from astromorph.analysis.neighbours import MAX_ROUNDING, nearest_to_point
from astromorph.analysis.space import fit_space
from astromorph.artefacts.embeddings import read_embeddings
from astromorph.artefacts.model_file import ModelFile
from astromorph.artefacts.run_files import RunFiles
from astromorph.artefacts.run_table import listed_columns, run_table
from astromorph.artefacts.tables import write_csv
from astromorph.artefacts.tensor_shard import TensorShard, read_shard
from astromorph.atomic import atomic_write
from astromorph.byol.build import load_model, training_settings_of
from astromorph.byol.byol import BYOL
from astromorph.datasets.tensor_datasets import CachedDataset, ImageSet, NativeDataset
from astromorph.embedding.embed import embed
from astromorph.errors import AstromorphError
from astromorph.pages.pictures import thumbnail
from astromorph.preprocessing.preparation import Preparation, run_reference
from astromorph.settings.loading import parse
from astromorph.settings.sections import InferenceSettings

Vectors = NDArray[np.float32]
Pixels = NDArray[np.float32]
Rows = list[dict[str, str]]

LOG = logging.getLogger(__name__)
SYMMETRIES: tuple[Literal["d4", "none"], ...] = ("d4", "none")
TOLERANCE = 1e-3  # relative; machines and batch sizes cause smaller differences
PANELS_PER_ROW = 7
THUMBNAIL_SIDE = 192  # pixels
MAX_CHARACTERS = 24  # in a line below a panel
PANEL_INCHES, DOTS_PER_INCH = 1.9, 120


@dataclass(frozen=True, slots=True)
class Panel:
    """A picture of one image, and the lines below it.

    Attributes
    ----------
    pixels : ndarray, shape (C, H, W), float32
        From 0 to 1.
    lines : tuple of str
        Shortened in the middle if they are too long.
    """

    pixels: Pixels
    lines: tuple[str, ...]


def similar(
    files: RunFiles,
    paths: Sequence[str],
    count: int,
    output: str | Path | None,
    table: str | Path | None,
    datafile: str | None = None,
) -> Rows:
    """Find the images of a run that are most similar to one image.

    The image is read, prepared and embedded in the same way as those of the run, and
    its distances are measured in the space of `analyse`.

    Parameters
    ----------
    files : RunFiles
        A finished run.
    paths : sequence of str
        The FITS file, or one per channel. It need not be in the file list.
    count : int
        Number of images to find, at least 1.
    output : path or None
        PNG to write: the image, followed by those similar to it.
    table : path or None
        CSV to write: the returned rows.
    datafile : str, optional
        The file list; needed if the run has several files per image and one brightness
        scale for all of them. Otherwise the catalogue is used.

    Returns
    -------
    list of dict of str to str
        A row for each image, the nearest first: `rank`, `distance`, `image_id`, `path`,
        `object`, `cluster` and the columns of the file list.

    Raises
    ------
    AstromorphError
        The image cannot be used, or results are missing or do not match.
    """
    shard = find_first_shard(files)
    settings = parse(json.loads(shard.settings), str(files.all_tensors[0]))
    reference = run_reference(files, settings, datafile, shard.channels)
    pixels = Preparation(settings, reference).prepare(paths)
    vector = _embed_like_run(files, shard, pixels)
    images = read_embedded_images(files)
    rules = read_analysis_settings(files.analysis_summary)
    space = fit_space(images.vectors, rules.whiten, rules.components)
    indices, distances = nearest_to_point(
        space.project(vector)[0], space.project(images.vectors), count
    )
    image_ids = [images.image_ids[k] for k in indices.tolist()]
    rows = _make_rows(files, image_ids, distances.tolist())
    _log_if_listed(paths, rows)
    if table is not None:
        write_csv(table, list(rows[0]), rows)
    if output is not None:
        panels = [Panel(pixels, (Path(paths[0]).name, "the given image"))]
        draw_panels(output, panels + _read_panels(files, rows))
    return rows


def find_first_shard(files: RunFiles) -> TensorShard:
    """The first shard that contains an image; an error if none does."""
    shards = (read_shard(path) for path in files.all_tensors)
    shard = next((shard for shard in shards if len(shard)), None)
    if shard is None:
        raise AstromorphError(f"{files.split}: no image has an embedding")
    return shard


def _embed_like_run(files: RunFiles, shard: TensorShard, pixels: Pixels) -> Vectors:
    """The embedding `(1, D)`, with the symmetry that the run was embedded with."""
    byol, model = load_model(files.model)
    symmetry = find_symmetry(files, shard, byol, model)
    stacksize = training_settings_of(model).stacksize
    image = _make_image_set(torch.from_numpy(pixels), stacksize)
    return embed(byol, image, InferenceSettings(symmetry=symmetry))


def find_symmetry(
    files: RunFiles, shard: TensorShard, byol: BYOL, model: ModelFile
) -> Literal["d4", "none"]:
    """The symmetry that the images of a run were embedded with.

    No file records it; it is found by embedding the first image again.

    Parameters
    ----------
    files : RunFiles
        The `all_embeddings` are read.
    shard : TensorShard
        A shard of the run with at least one image.
    byol : BYOL
        The networks of the model.
    model : ModelFile
        The rest of the model file.

    Returns
    -------
    str
        A value of `inference_settings.symmetry`.

    Raises
    ------
    AstromorphError
        The embeddings are not from this model.
    """
    stacksize = training_settings_of(model).stacksize
    if shard.channels * stacksize != model.in_channels:
        raise AstromorphError(
            f"{files.model}: this model expects images with {model.in_channels} "
            f"channels, but those in {files.all_tensors[0]} have {shard.channels}; "
            "give the model of the run"
        )
    first_image = _make_image_set(shard.image_list()[0].float(), stacksize)
    expected = _read_vector(files, shard.image_ids[0])
    tolerance = TOLERANCE * max(float(np.linalg.norm(expected)), 1e-6)
    for symmetry in SYMMETRIES:
        vector = embed(byol, first_image, InferenceSettings(symmetry=symmetry))[0]
        if len(vector) != len(expected):
            break
        if np.linalg.norm(vector - expected) <= tolerance:
            return symmetry
    raise AstromorphError(
        f"{files.model}: the embeddings in {files.all_embeddings[0].parent} are not "
        "from this model; give the right model with --trained-network-name, or run "
        "`infer` again"
    )


def _make_image_set(image: torch.Tensor, stacksize: int) -> ImageSet:
    if image.shape[1] == image.shape[2]:
        return CachedDataset(image[None], stacksize)
    return NativeDataset([image], stacksize)


def _read_vector(files: RunFiles, image_id: str) -> Vectors:
    """The embedding `(D,)` of an image of the run."""
    for path in files.all_embeddings:
        embeddings = read_embeddings(path)
        if image_id in embeddings.image_ids:
            row: Vectors = embeddings.vectors[embeddings.image_ids.index(image_id)]
            return row
    raise AstromorphError(
        f"{files.all_embeddings[0].parent}: there is no embedding of {image_id}; run "
        "`infer` again"
    )


def _make_rows(
    files: RunFiles, image_ids: Sequence[str], distances: Sequence[float]
) -> Rows:
    """A row for each of some images, in their order, with facts and cluster."""
    names = ["path", "object", "cluster", *listed_columns(files).values()]
    table = run_table(files, names).set_index("image_id")
    facts = table.loc[list(image_ids), names].to_dict("records")
    return [
        {"rank": str(rank), "distance": f"{distance:.4f}", "image_id": image_id}
        | {name: str(cell) for name, cell in row.items()}
        for rank, (image_id, distance, row) in enumerate(
            zip(image_ids, distances, facts, strict=True), start=1
        )
    ]


def _log_if_listed(paths: Sequence[str], rows: Rows) -> None:
    """Log whether the image is in the run."""
    path = Path(paths[0]).resolve()
    for row in rows:
        if Path(row["path"]).resolve() == path:
            LOG.info(
                "%s is in the file list, as %s, at distance %s",
                paths[0],
                row["image_id"],
                row["distance"],
            )
            return
    if float(rows[0]["distance"]) <= MAX_ROUNDING:
        LOG.info("%s has the same embedding as %s", paths[0], rows[0]["path"])


def _read_panels(files: RunFiles, rows: Rows) -> list[Panel]:
    image_ids = {row["image_id"] for row in rows}
    pixels: dict[str, Pixels] = {}
    for path in files.all_tensors:
        shard = read_shard(path)
        if image_ids.isdisjoint(shard.image_ids):
            continue
        for image_id, image in zip(shard.image_ids, shard.image_list(), strict=True):
            if image_id in image_ids:
                pixels[image_id] = image.float().numpy()
    return [
        Panel(pixels[row["image_id"]], (Path(row["path"]).name, row["distance"]))
        for row in rows
    ]


def draw_panels(path: str | Path, panels: Sequence[Panel]) -> None:
    """Write panels side by side as PNG, the first one framed in colour.

    Parameters
    ----------
    path : path
        The file to write.
    panels : sequence of Panel
        At least one; seven panels per row.
    """
    from matplotlib.figure import Figure

    columns = min(PANELS_PER_ROW, len(panels))
    rows = -(-len(panels) // columns)
    height = 1.0 + 0.13 * max(len(panel.lines) for panel in panels)
    figure = Figure(
        figsize=(PANEL_INCHES * columns, PANEL_INCHES * rows * height),
        layout="constrained",
    )
    all_axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in all_axes:
        axes.set_axis_off()
    for number, (axes, panel) in enumerate(zip(all_axes, panels, strict=False)):
        axes.imshow(
            thumbnail(panel.pixels, THUMBNAIL_SIDE), cmap="gray", vmin=0, vmax=255
        )
        axes.set_axis_on()
        axes.set(xticks=[], yticks=[])
        for edge in axes.spines.values():
            edge.set(color="#d55e00" if number == 0 else "#d8dee4")
            edge.set_linewidth(3 if number == 0 else 1)
        text = "\n".join(map(shorten, panel.lines))
        axes.set_xlabel(text, fontsize=8, parse_math=False)
    with atomic_write(path) as temporary:
        figure.savefig(temporary, format="png", dpi=DOTS_PER_INCH)


def shorten(text: str) -> str:
    """Cut the middle of a long line, since the ends of file names distinguish them."""
    printable = "".join(c if c.isprintable() else "?" for c in text)
    if len(printable) <= MAX_CHARACTERS:
        return printable
    number = MAX_CHARACTERS - 1
    return f"{printable[: number // 3]}…{printable[-(number - number // 3) :]}"
