"""The export `tensorboard`: a folder that TensorBoard's projector opens.

The formats are the projector's: `tensors.tsv`, `metadata.tsv` with a header,
one sprite of square thumbnails, and `projector_config.pbtxt` that names them.
"""

import json
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from astromorph import artefacts
from astromorph.artefacts import EXPORT_COLUMNS
from astromorph.errors import AstromorphError
from astromorph.settings import Settings
from astromorph.thumbnails import sprite

LOG = logging.getLogger(__name__)
CONFIG = """\
embeddings {{
  tensor_name: "embeddings"
  tensor_path: "tensors.tsv"
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
    catalogue: str | Path,
    split: str | Path,
    embeddings: Sequence[str | Path],
    tensors: Sequence[str | Path],
    output: str | Path,
) -> None:
    """Write the folder: points, thumbnails and facts.

    Parameters
    ----------
    settings : Settings
        `export_settings.thumbnail_size` is used.
    catalogue, split : path
        What `validate` and `split` wrote.
    embeddings, tensors : sequence of path
        All shards, in the order of the list.
    output : path
        Folder to write anew.

    Raises
    ------
    AstromorphError
        Catalogue and embeddings do not belong together, or there are none.
    """
    # The projector labels points by the first column: what the user wrote goes first.
    facts = (*artefacts.list_columns(catalogue), *EXPORT_COLUMNS)
    with artefacts.replacing_folder(output) as folder:
        rows = artefacts.embedded_rows(catalogue, split, embeddings)
        image_ids = _write_points(folder, rows, facts)
        number = len(image_ids)
        if number == 0:
            raise AstromorphError(f"{catalogue}: no image has an embedding to show")
        wanted = settings.export_settings.thumbnail_size
        sheet, side = sprite(tensors, image_ids, wanted)
        if side < wanted:
            LOG.info("%d thumbnails were shrunk to %d pixels each", number, side)
        Image.fromarray(sheet).save(folder / "sprite.png")
        config = CONFIG.format(side=side)
        (folder / "projector_config.pbtxt").write_text(config, encoding="utf-8")
        # An event file, though empty, makes the folder a run in TensorBoard's eyes.
        EventFileWriter(str(folder)).close()
    LOG.info("%s: %d points with thumbnails of %d pixels", output, number, side)


def _write_points(
    folder: Path,
    rows: Iterable[tuple[dict[str, str], Any]],
    facts: Sequence[str],
) -> set[str]:
    """Write the points and their facts; the ids of the images."""
    image_ids: set[str] = set()
    with (
        open(folder / "tensors.tsv", "w", encoding="utf-8") as points,
        open(folder / "metadata.tsv", "w", encoding="utf-8") as metadata,
    ):
        metadata.write("\t".join(map(one_cell, facts)) + "\n")
        for row, vector in rows:
            points.write("\t".join(f"{x:.6g}" for x in vector) + "\n")
            metadata.write("\t".join(one_cell(row[name]) for name in facts) + "\n")
            image_ids.add(row["image_id"])
    return image_ids


def one_cell(text: str) -> str:
    """Text without what would end a cell or a line; control signs are spelled out."""
    if text.isprintable():
        return text
    told = (" " if c.isspace() else c for c in json.dumps(text, ensure_ascii=False))
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in told)[1:-1]
