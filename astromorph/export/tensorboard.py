"""The export `tensorboard`: a folder for the TensorBoard projector.

The formats are those of the projector: `tensors.tsv`, `map.tsv` and `pca.tsv` with one
point per line, `metadata.tsv` with a header, a sprite of square thumbnails, and
`projector_config.pbtxt`, which names these files.
"""

import json
import logging
from collections.abc import Collection, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from astromorph.artefacts.column_types import ANALYSED, PLACED
from astromorph.artefacts.columns import EXPORT_COLUMNS
from astromorph.artefacts.embeddings import vector_lines
from astromorph.artefacts.run_files import RunFiles, ShardFile
from astromorph.artefacts.run_table import (
    all_tensors,
    embedding_blocks,
    listed_columns,
    run_table,
)
from astromorph.artefacts.tensor_shard import read_shard
from astromorph.atomic import atomic_folder
from astromorph.errors import without_tensorboard_tracebacks
from astromorph.pages.pictures import thumbnail

LOG = logging.getLogger(__name__)
MAX_POINTS = 100_000  # the projector reads no more rows of a table
MAX_SPRITE = 8192  # pixels; the largest side of a texture that browsers accept
MIN_THUMBNAIL = 16  # pixels; the smallest side of a recognisable thumbnail
MAX_OUTLIERS = 1000  # outliers that a sample always contains
SEED = 0
# Without lists of ids: the projector finds nearest neighbours itself.
COLUMNS = tuple(column.name for column in (*PLACED, *ANALYSED) if column.kind != "ids")
# Name in the projector, and file. The projector draws no points with two coordinates,
# so the map and the components have a third, which is 0.
TENSORS = (
    ("embeddings", "tensors.tsv"),
    ("map", "map.tsv"),
    ("pca", "pca.tsv"),
)
CONFIG = """\
embeddings {{
  tensor_name: "{name}"
  tensor_path: "{file}"
  metadata_path: "metadata.tsv"
  sprite {{
    image_path: "sprite.png"
    single_image_dim: {side}
    single_image_dim: {side}
  }}
}}
"""


def export_tensorboard(files: RunFiles, thumbnail_size: int) -> None:
    """Write the folder: points, thumbnails, metadata, and the map as a second view.

    If there are more images than the projector can show, the folder contains a sample.

    Parameters
    ----------
    files : RunFiles
        Catalogue, split, embeddings, analysis and tensors are read; the folder
        ``projector`` is replaced.
    thumbnail_size : int
        The side of a thumbnail in pixels; smaller if there are many.

    Raises
    ------
    AstromorphError
        A file is missing, or the files do not match.
    """
    # The projector labels points by the first column, so the user's columns are first.
    facts = [*listed_columns(files).values(), *EXPORT_COLUMNS]
    table = run_table(files, [*facts, *COLUMNS])
    columns = [name for name in (*facts, *COLUMNS) if name in table]
    chosen = stratified_sample(
        table["cluster"].to_numpy(),
        table["outlier_rank"].to_numpy(),
        (table["role"] != "").to_numpy(),
        min(MAX_POINTS, max_thumbnails(thumbnail_size)),
    )
    number = int(chosen.sum())
    if number < len(chosen):
        LOG.info(
            "%s: a sample of %d of %d images, by cluster, including representatives "
            "and the most unusual images; TensorBoard cannot show more",
            files.projector,
            number,
            len(chosen),
        )
    with atomic_folder(files.projector) as folder:
        _write_points(folder, files, table[chosen], columns)
        sheet, side = make_sprite(
            all_tensors(files), set(table["image_id"][chosen]), thumbnail_size
        )
        if side < thumbnail_size:
            LOG.info(
                "%s: thumbnails have %d pixels instead of %d, so that the sheet does "
                "not exceed %d",
                files.projector,
                side,
                thumbnail_size,
                MAX_SPRITE,
            )
        Image.fromarray(sheet).save(folder / "sprite.png")
        config = "".join(
            CONFIG.format(name=name, file=file, side=side) for name, file in TENSORS
        )
        (folder / "projector_config.pbtxt").write_text(config, encoding="utf-8")
        # TensorBoard recognises a run by its event file, even if it is empty.
        with without_tensorboard_tracebacks():
            EventFileWriter(str(folder)).close()
    LOG.info(
        "%s: %d points with thumbnails of %d pixels", files.projector, number, side
    )


def _write_points(
    folder: Path, files: RunFiles, table: Any, columns: Sequence[str]
) -> None:
    """Write points and metadata of the rows of a table."""
    with ExitStack() as stack:

        def create(name: str) -> Any:
            return stack.enter_context(open(folder / name, "w", encoding="utf-8"))

        tensors, places, components = (create(file) for _, file in TENSORS)
        metadata = create("metadata.tsv")
        # The projector expects a header if there are at least two columns.
        metadata.write("\t".join(map(one_cell, columns)) + "\n")
        for rows, vectors in embedding_blocks(files, table):
            for file, points in (
                (tensors, vectors),
                (places, _in_space(rows[["x", "y"]])),
                (components, _in_space(rows[["pca_1", "pca_2"]])),
            ):
                file.writelines(f"{line}\n" for line in vector_lines(points, "\t"))
            cells = [_cells(rows[name]) for name in columns]
            metadata.writelines(
                "\t".join(row) + "\n" for row in zip(*cells, strict=True)
            )


def _in_space(points: Any) -> NDArray[np.float32]:
    """Points `(N, 2)` with a third coordinate 0."""
    return np.pad(points.to_numpy(np.float32), ((0, 0), (0, 1)))


def _cells(values: Any) -> list[str]:
    """A column of the metadata."""
    cell = one_cell if values.dtype == "str" else str
    return [cell(value) for value in values.to_numpy()]


def one_cell(text: str) -> str:
    """Text with tabs and line breaks as spaces and control characters escaped."""
    if text.isprintable():
        return text
    quoted = json.dumps(text, ensure_ascii=False)
    spaced = (" " if c.isspace() else c for c in quoted)
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in spaced)[1:-1]


def max_thumbnails(side: int) -> int:
    """Number of thumbnails that fit on a sheet, at 16 pixels or `side` if smaller."""
    return (MAX_SPRITE // min(side, MIN_THUMBNAIL)) ** 2


def make_sprite(
    tensors: Sequence[ShardFile], image_ids: Collection[str], side: int
) -> tuple[NDArray[np.uint8], int]:
    """Draw thumbnails on one sheet, row by row, as TensorBoard expects them.

    Parameters
    ----------
    tensors : sequence of path
        All shards, in order.
    image_ids : set of str
        The images to draw: at least one, at most `max_thumbnails`.
    side : int
        Side of a thumbnail in pixels; reduced if the sheet would exceed 8192 pixels.

    Returns
    -------
    sheet : ndarray, shape (n S, n S), uint8
        n by n thumbnails; n is the square root of their number, rounded up.
    side : int
        S.
    """
    per_row = int(np.ceil(np.sqrt(len(image_ids))))
    side = max(1, min(side, MAX_SPRITE // per_row))
    sheet = np.zeros((per_row * side, per_row * side), np.uint8)
    k = 0
    for path in tensors:
        shard = read_shard(path)
        for image_id, image in zip(shard.image_ids, shard.image_list(), strict=True):
            if image_id not in image_ids:
                continue
            top, left = k // per_row * side, k % per_row * side
            sheet[top : top + side, left : left + side] = thumbnail(
                image.float().numpy(), side
            )
            k += 1
    return sheet, side


def stratified_sample(
    cluster: NDArray[np.int32],
    rank: NDArray[np.int32],
    preferred: NDArray[np.bool_],
    max_rows: int,
) -> NDArray[np.bool_]:
    """Choose rows by cluster, in proportion to the sizes of clusters.

    Parameters
    ----------
    cluster : ndarray, shape (N,), int32
        The strata.
    rank : ndarray, shape (N,), int32
        1 is the most unusual. The first thousand are chosen, or a tenth of the sample
        if that is fewer.
    preferred : ndarray, shape (N,), bool
        Rows that are chosen before all others, such as representatives of clusters.
    max_rows : int
        Maximum number of rows in the sample, at least 1.

    Returns
    -------
    ndarray, shape (N,), bool
        All rows if there are at most `max_rows`, else exactly `max_rows`. The same
        every time.
    """
    number = len(cluster)
    if number <= max_rows:
        return np.ones(number, bool)
    first = preferred | (rank <= min(MAX_OUTLIERS, max_rows // 10))
    key = np.random.default_rng(SEED).random(number)
    # Within a cluster, the order is random, and the k-th of n has the place
    # (k + 1/2) / n. The first rows by place therefore contain each cluster in
    # proportion to its size, to within one row.
    by_cluster = np.lexsort((key, cluster))
    _, starts, counts = np.unique(
        cluster[by_cluster], return_index=True, return_counts=True
    )
    within = np.arange(number) - np.repeat(starts, counts)
    place = np.empty(number)
    place[by_cluster] = (within + 0.5) / np.repeat(counts, counts)
    chosen = np.zeros(number, bool)
    chosen[np.lexsort((key, place, ~first))[:max_rows]] = True
    return chosen
