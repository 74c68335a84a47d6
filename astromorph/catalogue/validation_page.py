"""The page of the step `validate`: counts, histograms and a sample of the images."""

import heapq
import itertools
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from astromorph.artefacts.run_files import RunFiles
from astromorph.catalogue.histogram import Histogram
from astromorph.catalogue.summary import Summary
from astromorph.errors import FitsImageError
from astromorph.filelist.entries import Entry, read_filelist
from astromorph.fits import image as fits_image
from astromorph.pages.charts import HistogramPlot, plot_histogram
from astromorph.pages.html import write_page
from astromorph.pages.pictures import PageImage, picture_url
from astromorph.preprocessing.image_to_tensor import Prepared, prepare
from astromorph.preprocessing.list_reference import ListReference
from astromorph.settings.sections import DataSettings, PreprocessSettings
from astromorph.system.logs import printable, shortened

MAX_THUMBNAILS = 36
MIN_BLANK_SHARE = 0.5  # minimum share of bad pixels of a mostly blank image


class RowSample:
    """A random sample of rows that does not depend on their order.

    The rows with the smallest ids, which are hashes, are chosen.

    Parameters
    ----------
    size : int
        Number of rows to choose.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._heap: list[tuple[int, int]] = []

    def add(self, image_id: str, row: int) -> None:
        """Choose a row if its id is among the smallest so far."""
        heapq.heappush(self._heap, (-int(image_id, 16), row))
        if len(self._heap) > self._size:
            heapq.heappop(self._heap)

    @property
    def rows(self) -> list[int]:
        """Row numbers, in order."""
        return sorted(row for _, row in self._heap)


@dataclass
class SampledImages:
    """Results from the pixels of the sampled images.

    Attributes
    ----------
    thumbnails : list of tuple of PageImage and str
        Some of the images, and the warning of each.
    number : int
        Number of images that were read.
    bad : list of tuple of str
        Path and reason of images that could not be read.
    blank : int
        Number of images of which at least half of the pixels are bad, or all are equal.
    bad_pixels, dynamic_range : Histogram
        Share of bad pixels; peak above the background in units of the noise.
    """

    thumbnails: list[tuple[PageImage, str]] = field(default_factory=list)
    number: int = 0
    bad: list[tuple[str, str]] = field(default_factory=list)
    blank: int = 0
    bad_pixels: Histogram = field(
        default_factory=lambda: Histogram(
            "Share of bad pixels", "sampled images", fraction=True, min_step=0.01
        )
    )
    dynamic_range: Histogram = field(
        default_factory=lambda: Histogram(
            "Peak above the background, in units of the noise", "sampled images"
        )
    )

    def add(self, path: str, prepared: Prepared | str, with_thumbnail: bool) -> None:
        """Add an image, or the reason why it could not be read."""
        path = shortened(printable(path))
        if isinstance(prepared, str):
            self.bad.append((path, printable(prepared)))
            return
        statistics = prepared.statistics
        self.number += 1
        self.bad_pixels.add(1 - statistics["valid_fraction"])
        peak, noise = statistics["maximum"], statistics["noise"]
        self.dynamic_range.add(
            (peak - statistics["background"]) / noise if noise else None
        )
        constant = prepared.warning.startswith("all valid pixels")
        self.blank += statistics["valid_fraction"] <= 1 - MIN_BLANK_SHARE or constant
        if with_thumbnail:
            image = PageImage(path, picture_url(prepared.pixels))
            self.thumbnails.append((image, prepared.warning))


def inspect_sample(
    sample: RowSample,
    datafile: str | Path,
    reference: ListReference,
    data: DataSettings,
    preprocessing: PreprocessSettings,
    pool: Executor | None,
) -> SampledImages:
    """Read and prepare the sampled images in the same way as the step `preprocess`.

    Parameters
    ----------
    sample : RowSample
        The rows.
    datafile : path
        The file list.
    reference : ListReference
        Properties that all images of the list share.
    data : DataSettings
        How images are read.
    preprocessing : PreprocessSettings
        How they are prepared.
    pool : Executor or None
        The processes that read the images; None for this process.

    Returns
    -------
    SampledImages
    """
    images = SampledImages()
    entries = list(_select_rows(read_filelist(datafile), sample.rows))
    step = -(-len(entries) // MAX_THUMBNAILS) if entries else 1
    work = partial(_prepare, reference, data, preprocessing)
    results = map(work, entries) if pool is None else pool.map(work, entries)
    for number, (entry, prepared) in enumerate(zip(entries, results, strict=True)):
        images.add(entry.path, prepared, with_thumbnail=number % step == 0)
    return images


def write_validation_page(
    files: RunFiles,
    summary: Summary,
    header_histograms: Sequence[Histogram],
    images: SampledImages,
    preprocessing: PreprocessSettings,
    remarks: Sequence[str] = (),
) -> None:
    """Write the page as one self-contained HTML file.

    Parameters
    ----------
    files : RunFiles
        `validation_page` is written.
    summary : Summary
        Counts by status and reason.
    header_histograms : sequence of Histogram
        Distributions of values from the headers.
    images : SampledImages
        Results from the pixels of the sampled images.
    preprocessing : PreprocessSettings
        How the images were prepared.
    remarks : sequence of str
        What a user should know about the list, one line each.
    """
    histograms = [*header_histograms, images.bad_pixels, images.dynamic_range]
    write_page(
        files.validation_page,
        "validation.html",
        files,
        summary=summary,
        without_spread=[one for one in histograms if one.common_value is not None],
        plots=_plot_all(one for one in histograms if one.common_value is None),
        pictures=images,
        rules=preprocessing,
        remarks=[shortened(printable(remark)) for remark in remarks],
    )


def _plot_all(histograms: Iterable[Histogram]) -> list[tuple[Histogram, HistogramPlot]]:
    """Plots of the histograms that have values."""
    plots = []
    for histogram in histograms:
        if bins := histogram.bins:
            edges = [bins[0].low, *(one.high for one in bins)]
            counts = [one.count for one in bins]
            plot = plot_histogram(edges, counts, histogram.logarithmic)
            plots.append((histogram, plot))
    return plots


def _select_rows(entries: Iterator[Entry], rows: Sequence[int]) -> Iterator[Entry]:
    next_row = 0
    for row in rows:
        entry = next(itertools.islice(entries, row - next_row, None), None)
        next_row = row + 1
        if entry is not None:
            yield entry


def _prepare(
    reference: ListReference,
    data: DataSettings,
    preprocessing: PreprocessSettings,
    entry: Entry,
) -> Prepared | str:
    """The prepared image of a row, or the reason why it cannot be read."""
    try:
        _, image = fits_image.read_image(entry.paths, data)
        return prepare(image, preprocessing, reference.scale)
    except FitsImageError as error:
        return str(error)
