"""The export `tensorboard`: a folder that TensorBoard's projector opens.

The formats are the projector's: `tensors.tsv`, `map.tsv` and `pca.tsv` with a point a
line, `metadata.tsv` with a header, one sprite of square thumbnails, and
`projector_config.pbtxt` that names them.
"""

import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from astromorph.artefacts.cells import lines
from astromorph.artefacts.table_columns import ANALYSED
from astromorph.artefacts.table_rows import Block, Inputs, blocks, columns_of_list
from astromorph.artefacts.tables import EXPORT_COLUMNS
from astromorph.atomic import atomic_folder
from astromorph.export import sprites as thumbnails
from astromorph.export.sprites import make_sprite, max_thumbnails
from astromorph.export.stratified import choose_shown
from astromorph.settings.sections import Settings

LOG = logging.getLogger(__name__)
MAX_POINTS = 100_000  # the projector asks for no more of a table
# Nearest images the projector finds itself.
COLUMNS = tuple(c for c in ANALYSED if c.kind != "ids")
# Name in the projector, file. Of points with two coordinates it draws none: the map
# gets a third, which is 0.
TENSORS = (
    ("embeddings", "tensors.tsv"), ("map", "map.tsv"), ("pca", "pca.tsv"),
)  # fmt: skip
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


def export_tensorboard(
    settings: Settings,
    inputs: Inputs,
    tensors: Sequence[str | Path],
    output: str | Path,
) -> None:
    """Write the folder: points, thumbnails, facts, and the map as a second view.

    Parameters
    ----------
    settings : Settings
        `export_settings.thumbnail_size` is used.
    inputs : Inputs
        What it is made from.
    tensors : sequence of path
        All shards of images, in the order of the list.
    output : path
        Folder to write anew. Of more than 100,000 images it holds a sample.

    Raises
    ------
    AstromorphError
        The files do not belong together, or there are no images.
    """
    wanted = settings.export_settings.thumbnail_size
    chosen = choose_shown(inputs.analysis, min(MAX_POINTS, max_thumbnails(wanted)))
    number = int(chosen.sum())
    if number < len(chosen):
        LOG.info(
            "%s: a sample of %d of %d images, by cluster, with the representatives and "
            "the oddest; TensorBoard shows no more", output, number, len(chosen),
        )  # fmt: skip
    with atomic_folder(output) as folder:
        image_ids = _write_points(folder, inputs, chosen)
        sheet, side = make_sprite(tensors, image_ids, wanted)
        if side < wanted:
            LOG.info(
                "%s: thumbnails have %d pixels in place of %d, so that their sheet "
                "stays within %d", output, side, wanted, thumbnails.MAX_SPRITE,
            )  # fmt: skip
        Image.fromarray(sheet).save(folder / "sprite.png")
        config = "".join(
            CONFIG.format(name=name, file=file, side=side) for name, file in TENSORS
        )
        (folder / "projector_config.pbtxt").write_text(config, encoding="utf-8")
        # An event file, though empty, makes the folder a run in TensorBoard's eyes.
        EventFileWriter(str(folder)).close()
    LOG.info("%s: %d points with thumbnails of %d pixels", output, number, side)


def _write_points(folder: Path, inputs: Inputs, chosen: NDArray[np.bool_]) -> set[str]:
    """Write points and facts of the chosen rows; the ids of their images."""
    # The projector labels points by the first column: what the user wrote goes first.
    facts = (*columns_of_list(inputs.catalogue), *EXPORT_COLUMNS)
    image_ids: set[str] = set()
    start = 0
    with ExitStack() as stack:

        def opened(name: str) -> Any:
            return stack.enter_context(open(folder / name, "w", encoding="utf-8"))

        files = [opened(file) for _, file in TENSORS]
        metadata = opened("metadata.tsv")
        # A header is a header to the projector where there are two columns or more.
        header = (*facts, *(column.name for column in COLUMNS))
        metadata.write("\t".join(map(one_cell, header)) + "\n")
        for block in blocks(inputs):
            kept = np.flatnonzero(chosen[start : start + len(block)])
            start += len(block)
            found = block.analysis
            for file, points in zip(
                files, (block.vectors, _flat(found.map), _flat(found.pca)), strict=True
            ):
                file.writelines(f"{line}\n" for line in lines(points[kept], "\t"))
            rows = list(_cells(block, facts))
            metadata.writelines("\t".join(rows[k]) + "\n" for k in kept)
            image_ids.update(found.image_ids[k] for k in kept)
    return image_ids


def _flat(points: NDArray[np.float32]) -> NDArray[np.float32]:
    """Points `(N, 2)` with a third coordinate 0."""
    return np.pad(points, ((0, 0), (0, 1)))


def _cells(block: Block, facts: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """The row of the metadata, for each row."""
    columns: list[Any] = [map(one_cell, block.cells(name)) for name in facts]
    for column in COLUMNS:
        if column.kind == "text":
            columns.append(block.cells(column.name))
        else:
            columns.append(map(str, block.values(column)))
    yield from zip(*columns, strict=True)


def one_cell(text: str) -> str:
    """Text without what would end a cell or a line; control signs are spelled out."""
    if text.isprintable():
        return text
    told = (" " if c.isspace() else c for c in json.dumps(text, ensure_ascii=False))
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in told)[1:-1]
