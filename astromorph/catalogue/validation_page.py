"""The page on the input: what was counted, and a sample of it to look at."""

import heapq
import itertools
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from astromorph.catalogue.summary import Histogram, Summary
from astromorph.errors import FitsImageError
from astromorph.filelist.entries import Entry, read_filelist
from astromorph.fits import image as fits_image
from astromorph.pages.html import write_page
from astromorph.pages.thumbnail import data_url, thumbnail
from astromorph.preprocessing.list_wide import ListReference
from astromorph.preprocessing.prepare import Prepared, prepare
from astromorph.settings.sections import Settings

SHOWN = 36  # pictures
SIDE = 96  # pixels
BLANK_FROM = 0.5  # share of bad pixels from which an image counts as mostly blank


class Sample:
    """The rows with the smallest ids: as good as drawn by lot, and always the same.

    Parameters
    ----------
    size : int
        How many are kept.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._heap: list[tuple[int, int]] = []

    def offer(self, image_id: str, row: int) -> None:
        """Keep a row if its id is among the smallest so far."""
        heapq.heappush(self._heap, (-int(image_id, 16), row))
        if len(self._heap) > self._size:
            heapq.heappop(self._heap)

    @property
    def rows(self) -> list[int]:
        """Row numbers, in order."""
        return sorted(row for _, row in self._heap)


@dataclass
class Pictures:
    """What the sample's pixels show.

    Attributes
    ----------
    shown : list of tuple of str
        Path, picture as a data URL, and what is odd about it.
    number : int
        Images that were read.
    bad : list of tuple of str
        Path and reason of those that could not be.
    histograms : list of Histogram
        Share of bad pixels; dynamic range.
    blank : int
        Images of which half or more is bad, or all of it alike.
    """

    shown: list[tuple[str, str, str]] = field(default_factory=list)
    number: int = 0
    bad: list[tuple[str, str]] = field(default_factory=list)
    blank: int = 0
    nan: Histogram = field(
        default_factory=lambda: Histogram("Share of bad pixels", 20, logarithmic=False)
    )
    dynamic_range: Histogram = field(
        default_factory=lambda: Histogram("Peak above background over noise", 4)
    )


def take_sample(
    sample: Sample,
    datafile: str | Path,
    settings: Settings,
    reference: ListReference,
    pool: Executor | None,
) -> Pictures:
    """Read and prepare the sampled images as `preprocess` will.

    Parameters
    ----------
    sample : Sample
        Which rows.
    datafile : path
        The file list.
    settings : Settings
        `data_settings` and `preprocess_settings` are used.
    reference : Reference
        As the other steps have it.
    pool : Executor or None
        Who reads.

    Returns
    -------
    Pictures
    """
    pictures = Pictures()
    entries = list(_chosen(read_filelist(datafile), sample.rows))
    step = -(-len(entries) // SHOWN) if entries else 1
    work = partial(_prepare, settings, reference)
    results = map(work, entries) if pool is None else pool.map(work, entries)
    for number, (entry, prepared) in enumerate(zip(entries, results, strict=True)):
        if isinstance(prepared, str):
            pictures.bad.append((entry.path, prepared))
            continue
        facts = prepared.statistics
        pictures.number += 1
        pictures.nan.add(1 - facts["valid_fraction"])
        above = facts["maximum"] - facts["background"]
        pictures.dynamic_range.add(above / facts["noise"] if facts["noise"] else None)
        alike = prepared.warning.startswith("all valid pixels")
        pictures.blank += facts["valid_fraction"] <= 1 - BLANK_FROM or alike
        if number % step == 0:
            picture = data_url(thumbnail(prepared.pixels, SIDE))
            pictures.shown.append((entry.path, picture, prepared.warning))
    return pictures


def write_validation_page(
    summary: Summary,
    headers: Sequence[Histogram],
    pictures: Pictures,
    settings: Settings,
    page: str | Path,
) -> None:
    """Write all of it as one HTML file without references to others.

    Parameters
    ----------
    summary : Summary
        Counts by status and reason.
    headers : sequence of Histogram
        Of what the headers say.
    pictures : Pictures
        Of the sample.
    settings : Settings
        `preprocess_settings` are named.
    page : path
        To write.
    """
    write_page(
        page,
        "validation.html",
        summary=summary,
        histograms=[*headers, pictures.nan, pictures.dynamic_range],
        pictures=pictures,
        rules=settings.preprocess_settings,
    )


def _chosen(entries: Iterator[Entry], rows: Sequence[int]) -> Iterator[Entry]:
    place = 0
    for row in rows:
        entry = next(itertools.islice(entries, row - place, None), None)
        place = row + 1
        if entry is not None:
            yield entry


def _prepare(
    settings: Settings, reference: ListReference, entry: Entry
) -> Prepared | str:
    """The image as the network sees it, or why it cannot be."""
    try:
        _, image = fits_image.read_image(entry.paths, settings.data_settings)
        return prepare(image, settings.preprocess_settings, reference.scale)
    except FitsImageError as error:
        return str(error)
