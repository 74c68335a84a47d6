"""The step `validate`: what each listed file is, or why it cannot be used."""

import contextlib
import itertools
import logging
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from astromorph import artefacts, fits_image
from astromorph.artefacts import CATALOGUE_COLUMNS, REJECTED
from astromorph.errors import AstromorphError, FitsImageError
from astromorph.filelist import Entry, list_columns, read_filelist
from astromorph.progress import track
from astromorph.settings import Settings

LOG = logging.getLogger(__name__)
BLOCK = 4096  # rows in flight: memory stays constant however long the list
SERIAL_BELOW = 500  # rows that one process reads before others have started
EXAMPLES = 3
LISTED_PROBLEMS = 200
FEWEST_IMAGES = 2


def validate(
    settings: Settings,
    datafile: str | Path,
    catalogue: str | Path,
    page: str | Path,
    processes: int = 1,
) -> None:
    """Read the header of every listed file and write the catalogue.

    Parameters
    ----------
    settings : Settings
        `data_settings.max_pixels` is used.
    datafile : path
        The file list.
    catalogue : path
        CSV to write: a row per row of the list, in its order.
    page : path
        HTML to write: counts by status and reason.
    processes : int
        How many read headers at the same time.

    Raises
    ------
    AstromorphError
        The list cannot be read, or fewer than two of its files can be used.
    """
    total = sum(1 for _ in read_filelist(datafile))
    columns = list_columns(read_filelist(datafile))
    summary = Summary(str(datafile))
    rows = catalogue_rows(
        read_filelist(datafile), settings.data_settings.max_pixels, total, processes
    )
    artefacts.write_csv(catalogue, (*CATALOGUE_COLUMNS, *columns), summary.watch(rows))
    write_page(summary, page)
    for line in summary.lines():
        LOG.info("%s", line)
    require_images(summary.usable, total, summary.reasons, str(datafile))


def catalogue_rows(
    entries: Iterable[Entry], max_pixels: int, total: int, processes: int = 1
) -> Iterator[dict[str, Any]]:
    """A row of the catalogue for each entry, in order."""
    entries = iter(track(entries, total, "headers read"))
    work = partial(catalogue_row, max_pixels=max_pixels)
    with _pool(processes if total > SERIAL_BELOW else 1) as pool:
        while block := list(itertools.islice(entries, BLOCK)):
            if pool is None:
                yield from map(work, block)
            else:
                yield from pool.map(work, block, chunksize=64)


def catalogue_row(entry: Entry, max_pixels: int) -> dict[str, Any]:
    """What one listed file is, by its header."""
    row: dict[str, Any] = {
        "image_id": entry.image_id,
        "path": entry.path,
        "status": "ok",
        **entry.columns,
    }
    try:
        facts = fits_image.describe(entry.path, max_pixels)
        row["file_bytes"] = os.path.getsize(entry.path)
    except (FitsImageError, OSError) as error:
        return row | {"status": REJECTED, "reason": str(error)}
    return row | {
        "hdu": facts.hdu,
        "shape": "x".join(str(n) for n in facts.shape),
        "dtype": facts.dtype,
        "width": facts.width,
        "height": facts.height,
        "ra_deg": facts.ra_deg,
        "dec_deg": facts.dec_deg,
        "pixel_scale_arcsec": facts.pixel_scale_arcsec,
        "object": facts.object_name,
        "telescope": facts.telescope,
        "unit": facts.unit,
        "rest_frequency_hz": facts.rest_frequency_hz,
    }


class Summary:
    """Counts of what passed by, in constant memory.

    Parameters
    ----------
    source : str
        What was checked; the title.
    """

    def __init__(self, source: str) -> None:
        self.source = source
        self.statuses: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()
        self.sizes: Counter[str] = Counter()
        self.examples: dict[str, list[str]] = {}
        self.problems: list[dict[str, Any]] = []

    @property
    def usable(self) -> int:
        """Rows that were not rejected."""
        return self.statuses.total() - self.statuses[REJECTED]

    def watch(self, rows: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """Count rows of a table with `status`, `reason` and `path`, unchanged."""
        for row in rows:
            self.statuses[row["status"]] += 1
            if row.get("width"):
                self.sizes[f"{row['width']} x {row['height']}"] += 1
            if reason := row.get("reason"):
                kind = kind_of(reason)
                self.reasons[kind] += 1
                examples = self.examples.setdefault(kind, [])
                if len(examples) < EXAMPLES:
                    examples.append(row["path"])
                if len(self.problems) < LISTED_PROBLEMS:
                    self.problems.append(row)
            yield row

    def lines(self) -> Iterator[str]:
        """The summary as at most ten lines of text."""
        counts = ", ".join(f"{n} {status}" for status, n in self.statuses.items())
        yield f"{self.source}: {self.statuses.total()} files: {counts}"
        for reason, n in self.reasons.most_common(8):
            yield f"  {n} times: {reason}; such as {self.examples[reason][0]}"


def kind_of(reason: str) -> str:
    """A reason without the numbers and details that differ from file to file."""
    if reason.startswith("the file "):
        reason = reason.partition(": ")[0]
    return re.sub(r"\d+(x\d+)*", "N", reason)


def require_images(usable: int, total: int, reasons: Counter[str], source: str) -> None:
    """Stop where fewer than two images are left.

    Raises
    ------
    AstromorphError
        With the most frequent reasons.
    """
    if usable >= FEWEST_IMAGES:
        return
    why = "; ".join(f"{n} times: {reason}" for reason, n in reasons.most_common(3))
    raise AstromorphError(
        f"{source}: {usable} of {total} listed files can be used, training needs at "
        f"least {FEWEST_IMAGES}. {why or 'The list is too short'}"
    )


def write_page(summary: Summary, page: str | Path) -> None:
    """Write the summary as one HTML file without references to others."""
    environment = Environment(
        loader=PackageLoader("astromorph"), autoescape=True, undefined=StrictUndefined
    )
    html = environment.get_template("validation.html").render(summary=summary)
    with artefacts.replacing(page) as temporary:
        temporary.write_text(html, encoding="utf-8")


@contextlib.contextmanager
def _pool(processes: int) -> Iterator[Executor | None]:
    if processes < 2:
        yield None
        return
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        yield pool
