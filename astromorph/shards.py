"""The step `preprocess`: the FITS files of one shard become one tensor file."""

import itertools
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from astromorph import artefacts, fits_image
from astromorph.artefacts import CONTENTS_COLUMNS, REJECTED, STATISTICS
from astromorph.cache import TensorShard, write_shard
from astromorph.errors import AstromorphError, FitsImageError
from astromorph.filelist import Entry, read_filelist
from astromorph.preprocess import Prepared, prepare
from astromorph.progress import track
from astromorph.provenance import canonical_json
from astromorph.settings import Settings, part_of

LOG = logging.getLogger(__name__)


def preprocess(
    settings: Settings,
    datafile: str | Path,
    rows: tuple[int, int],
    tensors: str | Path,
    contents: str | Path,
) -> None:
    """Read, prepare and cache the images of some rows of the file list.

    Parameters
    ----------
    settings : Settings
        `data_settings.max_pixels` and `preprocess_settings.size` are used.
    datafile : path
        The file list.
    rows : tuple of int
        First row and the row after the last.
    tensors : path
        The ``.pt`` to write.
    contents : path
        CSV to write: a row for each row, what became of it.

    Raises
    ------
    AstromorphError
        The list is missing or too short. A file that cannot be used is no
        error but a row with a reason.
    """
    start, stop = rows
    listed = itertools.islice(read_filelist(datafile), start, stop)
    shard = _Shard(start)
    table = list(
        _prepare_rows(track(listed, stop - start, "images read"), settings, shard)
    )
    if len(table) != stop - start:
        raise AstromorphError(
            f"{datafile}: rows {start} to {stop} are needed, {len(table)} of them are "
            "there; the list was changed during the run: start it again"
        )
    write_shard(tensors, shard.done(settings))
    artefacts.write_csv(contents, CONTENTS_COLUMNS, table)
    LOG.info("%s: %d images of %d files", tensors, len(shard.images), len(table))


class _Shard:
    """The images of a shard while they come in."""

    def __init__(self, start: int) -> None:
        self.start = start
        self.images: list[Any] = []
        self.image_ids: list[str] = []
        self.rows: list[int] = []
        self.statistics: list[dict[str, float]] = []

    def add(self, image_id: str, row: int, prepared: Prepared) -> int:
        self.images.append(prepared.pixels.astype(np.float16))
        self.image_ids.append(image_id)
        self.rows.append(row)
        self.statistics.append(prepared.statistics)
        return len(self.images) - 1

    def done(self, settings: Settings) -> TensorShard:
        size = settings.preprocess_settings.size
        images = (
            np.stack(self.images)
            if self.images
            else np.empty((0, 1, size, size), np.float16)
        )
        columns = {
            name: torch.tensor([s[name] for s in self.statistics], dtype=torch.float32)
            for name in STATISTICS
        }
        return TensorShard(
            images=torch.from_numpy(images),
            image_ids=tuple(self.image_ids),
            rows=torch.tensor(self.rows, dtype=torch.int64),
            statistics=columns,
            settings=canonical_json(part_of(settings, "preprocess")),
        )


def _prepare_rows(
    listed: Iterator[Entry], settings: Settings, shard: _Shard
) -> Iterator[dict[str, Any]]:
    for row, entry in enumerate(listed, start=shard.start):
        kept: dict[str, Any] = {"image_id": entry.image_id, "path": entry.path}
        try:
            prepared = _prepare_file(entry.path, settings)
        except FitsImageError as error:
            yield kept | {"status": REJECTED, "reason": str(error)}
            continue
        yield kept | {
            "status": "warning" if prepared.warning else "ok",
            "reason": prepared.warning,
            "position": shard.add(entry.image_id, row, prepared),
            **prepared.statistics,
        }


def _prepare_file(path: str, settings: Settings) -> Prepared:
    image = fits_image.read(path, settings.data_settings.max_pixels)
    return prepare(image, settings.preprocess_settings.size)
