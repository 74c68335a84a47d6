"""The step `preprocess`: the FITS files of one shard become one tensor file."""

import hashlib
import itertools
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from astromorph.artefacts import tables as artefacts
from astromorph.artefacts.tables import CONTENTS_COLUMNS, REJECTED, STATISTICS
from astromorph.artefacts.tensor_file import (
    SHARD_FORMAT,
    SHARD_VERSION,
    Joined,
    save_tensors,
)
from astromorph.atomic import keep_previous
from astromorph.errors import AstromorphError, FitsImageError
from astromorph.filelist.duplicates import match_radius
from astromorph.filelist.entries import Entry, read_filelist
from astromorph.fits import image as fits_image
from astromorph.fits.facts import ImageFacts
from astromorph.preprocessing.list_wide import (
    ListReference,
    check_channels,
    find_reference,
)
from astromorph.preprocessing.prepare import Prepared, prepare
from astromorph.progress import track
from astromorph.provenance import canonical_json
from astromorph.settings.sections import Settings
from astromorph.settings.steps import part_of

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
        `data_settings` and `preprocess_settings` are used.
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
    shard = _Shard(settings, find_reference(settings, datafile), rows)
    table = _prepare_rows(track(listed, stop - start, "images read"), shard)
    artefacts.write_csv(contents, CONTENTS_COLUMNS, _all_of(table, datafile, rows))
    shard.write(tensors)
    keep_previous(contents)
    keep_previous(tensors)
    LOG.info("%s: %d images of %d files", tensors, len(shard.shapes), stop - start)


def prepare_entry(
    entry: Entry, settings: Settings, reference: ListReference
) -> tuple[ImageFacts, Prepared]:
    """Read and prepare the image of a row.

    Parameters
    ----------
    entry : Entry
        The row.
    settings : Settings
        `data_settings` and `preprocess_settings` are used.
    reference : Reference
        What it has in common with the others.

    Returns
    -------
    facts : ImageFacts
        What the header says.
    prepared : Prepared
        What the network sees, before it is kept in `preprocess_settings.dtype`.

    Raises
    ------
    FitsImageError
        The file cannot be used; the message says why.
    """
    facts, image = fits_image.read_image(entry.paths, settings.data_settings)
    check_channels(facts.channels, reference)
    return facts, prepare(image, settings.preprocess_settings, reference.scale)


class _Shard:
    """The images of a shard while they come in."""

    def __init__(
        self, settings: Settings, reference: ListReference, rows: tuple[int, int]
    ) -> None:
        self.settings = settings
        self.reference = reference
        self.start = rows[0]
        rules = settings.preprocess_settings
        self.natives: list[Any] = []
        # Filled row by row: a second copy of a large shard would cost memory.
        shape: tuple[int, ...] = (0,)
        if rules.size != "native":
            shape = (rows[1] - rows[0], reference.channels, rules.size, rules.size)
        self.images = np.empty(shape, rules.dtype)
        self.shapes: list[tuple[int, ...]] = []
        self.valid: list[Any] = []
        self.image_ids: list[str] = []
        self.rows: list[int] = []
        self.statistics: list[dict[str, float]] = []

    def take(self, entry: Entry, row: int) -> dict[str, Any]:
        """Read and keep the image of an entry; what became of it."""
        rules = self.settings.preprocess_settings
        facts, prepared = prepare_entry(entry, self.settings, self.reference)
        pixels = prepared.pixels.astype(rules.dtype)
        if rules.size == "native":
            self.natives.append(pixels.ravel())
        else:
            self.images[len(self.shapes)] = pixels
        self.shapes.append(pixels.shape[1:])
        self.valid.append(np.packbits(prepared.valid))
        self.image_ids.append(entry.image_id)
        self.rows.append(row)
        self.statistics.append(prepared.statistics)
        return {
            "status": "warning" if prepared.warning else "ok",
            "reason": prepared.warning,
            "position": len(self.shapes) - 1,
            "height": prepared.pixels.shape[1],
            "width": prepared.pixels.shape[2],
            "content": _content(pixels, prepared),
            "object": facts.object_name,
            "ra_deg": facts.ra_deg,
            "dec_deg": facts.dec_deg,
            "band": facts.band,
            "reach_arcsec": match_radius(
                facts.beam_major_arcsec, facts.pixel_scale_arcsec
            ),
            "field_arcsec": min(facts.width, facts.height)
            * (facts.pixel_scale_arcsec or 0),
            **prepared.statistics,
        }

    def write(self, path: str | Path) -> None:
        """Write all of it; see `astromorph.artefacts.tensor_shard.TensorShard`."""
        rules = self.settings.preprocess_settings
        images: Any = self.images[: len(self.shapes)]
        if rules.size == "native":
            images = Joined(self.natives, rules.dtype)
        statistics = {
            name: np.array([s[name] for s in self.statistics], dtype=np.float32)
            for name in STATISTICS
        }
        save_tensors(
            path,
            {
                "format": SHARD_FORMAT,
                "format_version": SHARD_VERSION,
                "images": images,
                "shapes": np.array(self.shapes, dtype=np.int32).reshape(-1, 2),
                "channels": self.reference.channels,
                "valid": Joined(self.valid, "uint8"),
                "image_ids": self.image_ids,
                "rows": np.array(self.rows, dtype=np.int64),
                "statistics": statistics,
                "settings": canonical_json(part_of(self.settings, "preprocess")),
            },
        )


def _all_of(
    table: Iterator[dict[str, Any]], datafile: str | Path, rows: tuple[int, int]
) -> Iterator[dict[str, Any]]:
    """Pass the rows through; there must be as many as were asked for."""
    start, stop = rows
    number = 0
    for row in table:
        number += 1
        yield row
    if number != stop - start:
        raise AstromorphError(
            f"{datafile}: rows {start} to {stop} are needed, {number} of them are "
            "there; the list was changed during the run: start it again"
        )


def _content(pixels: Any, prepared: Prepared) -> str:
    """Digest of pixels and statistics; empty where there is nothing to see."""
    if not pixels.any():
        return ""
    sha = hashlib.blake2b(pixels, digest_size=8)
    sha.update(np.array(list(prepared.statistics.values())).tobytes())
    return sha.hexdigest()


def _prepare_rows(listed: Iterator[Entry], shard: _Shard) -> Iterator[dict[str, Any]]:
    for row, entry in enumerate(listed, start=shard.start):
        kept: dict[str, Any] = {"image_id": entry.image_id, "path": entry.path}
        try:
            yield kept | shard.take(entry, row)
        except FitsImageError as error:
            yield kept | {"status": REJECTED, "reason": str(error)}
