"""Properties that all images of a list share, determined from its first images.

Shards are prepared by independent jobs. All of them can read the first rows of the
list, which do not change when rows are appended.
"""

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from astromorph.errors import AstromorphError, FitsImageError
from astromorph.filelist.entries import Entry, read_filelist
from astromorph.filelist.shards import HEAD_ROWS
from astromorph.fits import image as fits_image
from astromorph.preprocessing.image_to_tensor import (
    Scale,
    ScaleMeasures,
    common_scale,
    measure_scale,
)
from astromorph.settings.presets import fixed_channels
from astromorph.settings.sections import DataSettings, PreprocessSettings

SIZE_ROWS = 16  # rows from which the typical size of an image is estimated


@dataclass(frozen=True, slots=True)
class ListReference:
    """Properties that all images of a run share.

    Attributes
    ----------
    channels : int
        Channels of each image, before `data_settings.stacksize` repeats them.
    scale : Scale or None
        The common brightness scale; None if each image has its own.
    """

    channels: int
    scale: Scale | None = None


def find_reference(
    datafile: str | Path, data: DataSettings, preprocessing: PreprocessSettings
) -> ListReference:
    """Determine the common properties from a file list.

    Only as many files at its start are read as the settings require.

    Parameters
    ----------
    datafile : path
        The file list.
    data : DataSettings
        How images are read.
    preprocessing : PreprocessSettings
        How they are prepared.

    Returns
    -------
    ListReference

    Raises
    ------
    AstromorphError
        None of the first 256 files contains a usable image.
    """
    head = list(itertools.islice(read_filelist(datafile), HEAD_ROWS))
    return make_reference(head, datafile, data, preprocessing)


def make_reference(
    head: Sequence[Entry],
    source: str | Path,
    data: DataSettings,
    preprocessing: PreprocessSettings,
) -> ListReference:
    """Determine the common properties from the first rows of a list.

    Parameters
    ----------
    head : sequence of Entry
        The first 256 rows, or all rows of a shorter list.
    source : str or path
        Origin of the rows, which begins error messages.
    data : DataSettings
        How images are read.
    preprocessing : PreprocessSettings
        How they are prepared.

    Returns
    -------
    ListReference

    Raises
    ------
    AstromorphError
        None of the rows contains a usable image.
    """
    channels = fixed_channels(data.planes, len(head[0].paths))
    if channels is None:
        channels = _first_channels(head, data, source)
    if preprocessing.stretch_scope == "image":
        return ListReference(channels)
    measures = list(_measure_scales(head, channels, data, preprocessing))
    if not measures:
        raise AstromorphError(
            _no_image_message(source, "preprocess_settings.stretch_scope")
        )
    return ListReference(channels, common_scale(measures, preprocessing))


def native_side(datafile: str | Path, data: DataSettings) -> int | None:
    """Side of the largest of the first 16 images, from their headers.

    Parameters
    ----------
    datafile : path
        The file list.
    data : DataSettings
        How images are read.

    Returns
    -------
    int or None
        Side in pixels of a square with the same number of pixels; None if none of the
        files can be read.

    Raises
    ------
    AstromorphError
        The list cannot be read.
    """
    areas = []
    for entry in itertools.islice(read_filelist(datafile), SIZE_ROWS):
        try:
            facts = fits_image.describe_image(entry.paths, data)
        except FitsImageError:
            continue  # the step `validate` reports it
        areas.append(facts.width * facts.height)
    return math.ceil(math.sqrt(max(areas))) if areas else None


def check_channels(channels: int, reference: ListReference) -> None:
    """Compare the number of channels of an image with that of the list.

    Raises
    ------
    FitsImageError
        The numbers differ.
    """
    if channels != reference.channels:
        raise FitsImageError(
            f"it has {channels} channels, but the first image of the list has "
            f"{reference.channels}; select that number with `data_settings.planes`"
        )


def _first_channels(
    head: Sequence[Entry], data: DataSettings, source: str | Path
) -> int:
    """Channels of the first usable image."""
    for entry in head:
        try:
            return fits_image.describe_image(entry.paths, data).channels
        except FitsImageError:
            continue
    raise AstromorphError(_no_image_message(source, "data_settings.planes"))


def _measure_scales(
    head: Iterable[Entry],
    channels: int,
    data: DataSettings,
    preprocessing: PreprocessSettings,
) -> Iterator[ScaleMeasures]:
    """Measure all usable images, with one image in memory at a time."""
    for entry in head:
        try:
            facts, image = fits_image.read_image(entry.paths, data)
            if facts.channels == channels:
                yield measure_scale(image, preprocessing)
        except FitsImageError:
            continue


def _no_image_message(source: str | Path, setting: str) -> str:
    return (
        f"{source}: none of the first {HEAD_ROWS} files contains a usable image, which "
        f"`{setting}` requires; put a readable file at the start of the list"
    )
