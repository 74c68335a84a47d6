"""The step `preprocess`: the FITS files of one shard become one tensor file."""

import hashlib
import itertools
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from astromorph.artefacts import tables as artefacts
from astromorph.artefacts.columns import CONTENTS_COLUMNS, REJECTED, STATISTICS
from astromorph.artefacts.run_files import RunFiles
from astromorph.artefacts.shard_writer import (
    SHARD_FORMAT,
    SHARD_VERSION,
    FlatArrays,
    save_tensors,
)
from astromorph.atomic import keep_previous
from astromorph.errors import AstromorphError, FitsImageError
from astromorph.filelist.duplicates import match_radius
from astromorph.filelist.entries import Entry, object_name, read_filelist
from astromorph.filelist.shards import Shard
from astromorph.fits import image as fits_image
from astromorph.fits.facts import ImageFacts
from astromorph.preprocessing.image_to_tensor import Prepared, prepare
from astromorph.preprocessing.list_reference import (
    ListReference,
    check_channels,
    find_reference,
)
from astromorph.progress import track
from astromorph.provenance import canonical_json
from astromorph.settings.sections import DataSettings, PreprocessSettings, Settings
from astromorph.settings.steps import part_of

LOG = logging.getLogger(__name__)


def preprocess(
    datafile: str | Path,
    shard: Shard,
    files: RunFiles,
    data: DataSettings,
    preprocessing: PreprocessSettings,
) -> None:
    """Read and prepare the images of one shard and write them as tensors.

    Parameters
    ----------
    datafile : path
        The file list.
    shard : Shard
        Its name and its rows.
    files : RunFiles
        Writes `tensors` and `contents` of the shard: the images, and a CSV with a row
        for each listed file that says whether it is usable.
    data : DataSettings
        How images are read.
    preprocessing : PreprocessSettings
        How they are prepared.

    Raises
    ------
    AstromorphError
        The list is missing or too short. A file that cannot be used is not an error;
        its row of the contents gives the reason.
    """
    n_rows = shard.stop - shard.start
    tensors, contents = files.tensors(shard.name), files.contents(shard.name)
    entries = itertools.islice(read_filelist(datafile), shard.start, shard.stop)
    reference = find_reference(datafile, data, preprocessing)
    images = _ShardImages(n_rows, reference, data, preprocessing)
    rows = _prepare_rows(track(entries, n_rows, "images read"), shard.start, images)
    artefacts.write_csv(
        contents, CONTENTS_COLUMNS, _check_number_of_rows(rows, datafile, shard)
    )
    images.write(tensors)
    keep_previous(contents)
    keep_previous(tensors)
    LOG.info("%s: %d images from %d files", tensors, len(images), n_rows)


def prepare_entry(
    entry: Entry,
    reference: ListReference,
    data: DataSettings,
    preprocessing: PreprocessSettings,
) -> tuple[ImageFacts, Prepared]:
    """Read and prepare the image of one row of the list.

    Parameters
    ----------
    entry : Entry
        The row.
    reference : ListReference
        Properties that all images of the list share.
    data : DataSettings
        How images are read.
    preprocessing : PreprocessSettings
        How they are prepared.

    Returns
    -------
    facts : ImageFacts
        Facts from the header.
    prepared : Prepared
        The image as float32, before it is stored as `preprocess_settings.dtype`.

    Raises
    ------
    FitsImageError
        The file cannot be used; the message gives the reason.
    """
    facts, image = fits_image.read_image(entry.paths, data)
    check_channels(facts.channels, reference)
    return facts, prepare(image, preprocessing, reference.scale)


class _ShardImages:
    """The images of a shard, collected row by row.

    Parameters
    ----------
    n_rows : int
        Number of rows of the shard, and maximum number of images.
    reference : ListReference
        Properties that all images of the list share.
    data : DataSettings
        How images are read.
    preprocessing : PreprocessSettings
        How they are prepared.
    """

    def __init__(
        self,
        n_rows: int,
        reference: ListReference,
        data: DataSettings,
        preprocessing: PreprocessSettings,
    ) -> None:
        self._reference, self._data = reference, data
        self._rules = rules = preprocessing
        self._native_images: list[Any] = []
        # Filled row by row: stacking would need twice the memory of a large shard.
        shape: tuple[int, ...] = (0,)
        if rules.size != "native":
            shape = (n_rows, reference.channels, rules.size, rules.size)
        self._images = np.empty(shape, rules.dtype)
        self._shapes: list[tuple[int, ...]] = []
        self._valid: list[Any] = []
        self._image_ids: list[str] = []
        self._rows: list[int] = []
        self._statistics: list[dict[str, float]] = []

    def __len__(self) -> int:
        return len(self._shapes)

    def add(self, entry: Entry, row: int) -> dict[str, Any]:
        """Read and store the image of an entry.

        Returns
        -------
        dict
            Columns of the contents, starting with `status`.
        """
        facts, prepared = prepare_entry(entry, self._reference, self._data, self._rules)
        pixels = prepared.pixels.astype(self._rules.dtype)
        if self._rules.size == "native":
            self._native_images.append(pixels.ravel())
        else:
            self._images[len(self)] = pixels
        self._shapes.append(pixels.shape[1:])
        self._valid.append(np.packbits(prepared.valid))
        self._image_ids.append(entry.image_id)
        self._rows.append(row)
        self._statistics.append(prepared.statistics)
        warnings = [text for text in (facts.warning, prepared.warning) if text]
        return {
            "status": "warning" if warnings else "ok",
            "reason": "; ".join(warnings),
            "position": len(self) - 1,
            "height": prepared.pixels.shape[1],
            "width": prepared.pixels.shape[2],
            "content": _content_digest(pixels, prepared),
            "object": object_name(entry, facts.object_name),
            "ra_deg": facts.ra_deg,
            "dec_deg": facts.dec_deg,
            "band": facts.band,
            "plane": facts.plane,
            "reach_arcsec": match_radius(
                facts.beam_major_arcsec, facts.pixel_scale_arcsec
            ),
            "field_arcsec": min(facts.width, facts.height)
            * (facts.pixel_scale_arcsec or 0),
            **prepared.statistics,
        }

    def write(self, path: str | Path) -> None:
        """Write a file that `astromorph.artefacts.tensor_shard` can read."""
        images: Any = self._images[: len(self)]
        if self._rules.size == "native":
            images = FlatArrays(self._native_images, self._rules.dtype)
        statistics = {
            name: np.array([s[name] for s in self._statistics], dtype=np.float64)
            for name in STATISTICS
        }
        settings = Settings(data_settings=self._data, preprocess_settings=self._rules)
        save_tensors(
            path,
            {
                "format": SHARD_FORMAT,
                "format_version": SHARD_VERSION,
                "images": images,
                "shapes": np.array(self._shapes, dtype=np.int32).reshape(-1, 2),
                "channels": self._reference.channels,
                "valid": FlatArrays(self._valid, "uint8"),
                "image_ids": self._image_ids,
                "rows": np.array(self._rows, dtype=np.int64),
                "statistics": statistics,
                "settings": canonical_json(part_of(settings, "preprocess")),
            },
        )


def _prepare_rows(
    entries: Iterator[Entry], start: int, images: _ShardImages
) -> Iterator[dict[str, Any]]:
    """Add all images, and yield the rows of the contents."""
    for row, entry in enumerate(entries, start=start):
        names: dict[str, Any] = {"image_id": entry.image_id, "path": entry.path}
        try:
            yield names | images.add(entry, row)
        except FitsImageError as error:
            yield names | {"status": REJECTED, "reason": str(error)}


def _check_number_of_rows(
    rows: Iterator[dict[str, Any]], datafile: str | Path, shard: Shard
) -> Iterator[dict[str, Any]]:
    """Yield the rows unchanged, and check that their number is that of the shard."""
    number = 0
    for row in rows:
        number += 1
        yield row
    if number != shard.stop - shard.start:
        raise AstromorphError(
            f"{datafile}: rows {shard.start} to {shard.stop} are needed, but only "
            f"{number} of them exist; the list was changed during the run: start the "
            "run again"
        )


def _content_digest(pixels: Any, prepared: Prepared) -> str:
    """Digest of pixels and statistics; empty if all pixels are 0."""
    if not pixels.any():
        return ""
    sha = hashlib.blake2b(pixels, digest_size=8)
    sha.update(np.array(list(prepared.statistics.values())).tobytes())
    return sha.hexdigest()
