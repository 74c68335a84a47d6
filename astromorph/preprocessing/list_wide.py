"""What the first images of a list decide for all of them.

Shards are made by jobs that know nothing of each other; the head of the list is
what all of them can look at, and rows that are appended do not change it.
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
from astromorph.preprocessing.prepare import (
    Scale,
    ScaleMeasures,
    common_scale,
    measure_scale,
)
from astromorph.settings.sections import DataSettings, Settings
from astromorph.settings.steps import fixed_channels

HEAD_IMAGES = 16  # images whose sizes stand for those of all


@dataclass(frozen=True, slots=True)
class ListReference:
    """What every image of a run has in common.

    Attributes
    ----------
    channels : int
        Channels of each image, before any are repeated.
    scale : Scale or None
        The brightness scale of all; None where each has its own.
    """

    channels: int
    scale: Scale | None = None


def find_reference(settings: Settings, datafile: str | Path) -> ListReference:
    """Look at the head of the list, as far as the settings ask for it.

    Parameters
    ----------
    settings : Settings
        `data_settings` and `preprocess_settings` are used.
    datafile : path
        The file list.

    Returns
    -------
    Reference

    Raises
    ------
    AstromorphError
        None of the first 256 files has an image.
    """
    head = list(itertools.islice(read_filelist(datafile), HEAD_ROWS))
    return make_reference(settings, head, datafile)


def native_side(settings: Settings, datafile: str | Path) -> int | None:
    """The side of the largest of the first 16 images, by their headers.

    Parameters
    ----------
    settings : Settings
        `data_settings` is used.
    datafile : path
        The file list.

    Returns
    -------
    int or None
        In pixels, of a square of as many; None where no file can be read.

    Raises
    ------
    AstromorphError
        The list cannot be read.
    """
    areas = []
    for entry in itertools.islice(read_filelist(datafile), HEAD_IMAGES):
        try:
            facts = fits_image.describe_image(entry.paths, settings.data_settings)
        except FitsImageError:
            continue  # what is wrong with it is for `validate` to say
        areas.append(facts.width * facts.height)
    return math.ceil(math.sqrt(max(areas))) if areas else None


def make_reference(
    settings: Settings, head: Sequence[Entry], source: str | Path
) -> ListReference:
    """The same where the first rows are at hand.

    Parameters
    ----------
    settings : Settings
        As above.
    head : sequence of Entry
        The first 256 rows, or all.
    source : str or path
        Where they are from; begins the message of an error.

    Returns
    -------
    Reference

    Raises
    ------
    AstromorphError
        None of them has an image.
    """
    rules = settings.data_settings
    channels = fixed_channels(rules.planes, len(head[0].paths))
    if channels is None:
        channels = _first_channels(head, rules, source)
    if settings.preprocess_settings.stretch_scope == "image":
        return ListReference(channels)
    measures = list(_measures(head, settings, channels))
    if not measures:
        raise AstromorphError(_nothing(source, "preprocess_settings.stretch_scope"))
    return ListReference(channels, common_scale(measures, settings.preprocess_settings))


def check_channels(channels: int, reference: ListReference) -> None:
    """Only images with the channels of the others go on.

    Raises
    ------
    FitsImageError
        This one has more or fewer.
    """
    if channels != reference.channels:
        raise FitsImageError(
            f"it has {channels} channels where the first image of the list has "
            f"{reference.channels}; choose as many with `data_settings.planes`"
        )


def _first_channels(
    head: Sequence[Entry], rules: DataSettings, source: str | Path
) -> int:
    for entry in head:
        try:
            return fits_image.describe_image(entry.paths, rules).channels
        except FitsImageError:
            continue
    raise AstromorphError(_nothing(source, "data_settings.planes"))


def _measures(
    head: Iterable[Entry], settings: Settings, channels: int
) -> Iterator[ScaleMeasures]:
    """Of the images that can be used, one in memory at a time."""
    for entry in head:
        try:
            facts, image = fits_image.read_image(entry.paths, settings.data_settings)
            if facts.channels == channels:
                yield measure_scale(image, settings.preprocess_settings)
        except FitsImageError:
            continue


def _nothing(source: str | Path, setting: str) -> str:
    return (
        f"{source}: none of the first {HEAD_ROWS} files has an image, on which "
        f"`{setting}` depends; list one that can be read first"
    )
