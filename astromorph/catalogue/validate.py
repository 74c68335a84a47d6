"""The step `validate`: what each listed file is, or why it cannot be used."""

import contextlib
import hashlib
import itertools
import logging
import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from astromorph.artefacts import tables as artefacts
from astromorph.artefacts.tables import CATALOGUE_COLUMNS, REJECTED
from astromorph.atomic import atomic_write
from astromorph.catalogue.summary import Histogram, Summary, stop_if_bad
from astromorph.catalogue.validation_page import (
    Sample,
    take_sample,
    write_validation_page,
)
from astromorph.errors import FitsImageError
from astromorph.filelist.duplicates import (
    SAME_CONTENT,
    SAME_FILE,
    DuplicateFinder,
    Key,
    duplicate_finder,
    mark_duplicate,
    match_radius,
    position_keys,
    text_key,
)
from astromorph.filelist.entries import (
    Entry,
    list_columns,
    read_filelist,
    requested_subset,
)
from astromorph.fits import image as fits_image
from astromorph.fits.facts import ImageFacts
from astromorph.preprocessing.list_wide import (
    ListReference,
    check_channels,
    find_reference,
)
from astromorph.progress import track
from astromorph.settings.sections import Settings

LOG = logging.getLogger(__name__)
CHUNK = 128  # rows that a process is given at a time
IN_FLIGHT = 32  # chunks that are waited for: memory stays constant
SERIAL_BELOW = 500  # rows that one process reads before others have started
SAMPLED = 144  # images whose pixels are looked at
MAX_SAMPLED = 2**24  # pixels
PIECES, PIECE = 5, 2048  # of a file, that tell whether its content is known
HEADER_COLUMN = "header_"


@dataclass(frozen=True, slots=True)
class _Row:
    """What the main process needs to know of a row that another has read."""

    text: str
    status: str
    reason: str
    path: str
    paths: tuple[str, ...]
    image_id: str
    pixels: int
    width: int
    height: int
    pixel_scale_arcsec: float | None
    keys: list[Key]


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
        `data_settings`, `validate_settings` and, for the sample of pictures,
        `preprocess_settings`.
    datafile : path
        The file list.
    catalogue : path
        CSV to write: a row per row of the list, in its order.
    page : path
        HTML to write: counts, histograms, pictures.
    processes : int
        How many read headers at the same time.

    Raises
    ------
    AstromorphError
        The list cannot be read, or too few of its files can be used.
    """
    total = sum(1 for _ in read_filelist(datafile))
    reference = find_reference(settings, datafile)
    columns = (
        *CATALOGUE_COLUMNS,
        *(HEADER_COLUMN + name for name in settings.data_settings.header_columns),
        *list_columns(read_filelist(datafile)),
    )
    summary, sample = Summary(str(datafile)), Sample(SAMPLED)
    sizes = Histogram("Longer side, pixels", 10)
    scales = Histogram("Pixel scale, arcsec", 4)
    with (
        atomic_write(catalogue) as temporary,
        duplicate_finder() as found,
        _pool(processes if total > SERIAL_BELOW else 1) as pool,
    ):
        with open(temporary, "w", newline="", encoding="utf-8") as file:
            file.write(artefacts.csv_line(columns))
            work = partial(_examine, settings, reference, columns)
            entries = track(read_filelist(datafile), total, "headers read")
            for number, row in enumerate(_rows(work, entries, pool)):
                file.write(row.text)
                found.add(number, row.keys, row.paths)
                summary.add(row.status, row.reason, row.path)
                sizes.add(max(row.width, row.height) or None)
                scales.add(row.pixel_scale_arcsec)
                if row.status != REJECTED and row.pixels <= MAX_SAMPLED:
                    sample.offer(row.image_id, number)
        drop = settings.validate_settings.on_duplicate == "drop"
        _mark_duplicates(temporary, found, summary, drop)
        pictures = take_sample(sample, datafile, settings, reference, pool)
    write_validation_page(summary, [sizes, scales], pictures, settings, page)
    for line in summary.lines():
        LOG.info("%s", line)
    stop_if_bad(summary, settings.validate_settings)


def describe_entry(
    entry: Entry, settings: Settings, reference: ListReference
) -> tuple[ImageFacts, list[Key], int]:
    """What the headers of one row say, the keys of its content, its bytes.

    Raises
    ------
    FitsImageError
        The row cannot be used.
    """
    facts = fits_image.describe_image(entry.paths, settings.data_settings)
    check_channels(facts.channels, reference)
    try:
        keys, size = _content_keys(entry.paths)
    except OSError as error:
        raise FitsImageError(f"the file cannot be read ({error.strerror})") from None
    reach = match_radius(facts.beam_major_arcsec, facts.pixel_scale_arcsec)
    keys += position_keys(facts.ra_deg, facts.dec_deg, facts.band, reach)
    return facts, keys, size


def _rows(work: Any, entries: Iterator[Entry], pool: Executor | None) -> Iterator[_Row]:
    """What `work` makes of the entries, in order, some at a time."""
    chunks = iter(lambda: list(itertools.islice(entries, CHUNK)), [])
    if pool is None:
        for chunk in chunks:
            yield from work(chunk)
        return
    waiting: deque[Future[list[_Row]]] = deque()
    for chunk in chunks:
        waiting.append(pool.submit(work, chunk))
        if len(waiting) >= IN_FLIGHT:
            yield from waiting.popleft().result()
    while waiting:
        yield from waiting.popleft().result()


def _examine(
    settings: Settings,
    reference: ListReference,
    columns: Sequence[str],
    entries: Sequence[Entry],
) -> list[_Row]:
    return [_examine_one(settings, reference, columns, entry) for entry in entries]


def _examine_one(
    settings: Settings, reference: ListReference, columns: Sequence[str], entry: Entry
) -> _Row:
    requested_subset(entry)  # a wrong cell is better known before the images are read
    row: dict[str, Any] = {"image_id": entry.image_id, "path": entry.path}
    row |= {"status": "ok", "reason": "", **entry.columns}
    facts, keys = None, list[Key]()
    try:
        facts, keys, row["file_bytes"] = describe_entry(entry, settings, reference)
    except FitsImageError as error:
        row |= {"status": REJECTED, "reason": str(error)}
    else:
        row = _columns_of(facts) | row
    return _Row(
        text=artefacts.csv_line(row.get(name, "") for name in columns),
        status=row["status"],
        reason=row["reason"],
        path=entry.path,
        paths=entry.paths,
        image_id=entry.image_id,
        pixels=facts.width * facts.height * facts.channels if facts else 0,
        width=facts.width if facts else 0,
        height=facts.height if facts else 0,
        pixel_scale_arcsec=facts.pixel_scale_arcsec if facts else None,
        keys=keys,
    )


def _columns_of(facts: ImageFacts) -> dict[str, Any]:
    return {
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
        "date_obs": facts.date_obs,
        "band": facts.band,
        "rest_frequency_hz": facts.rest_frequency_hz,
        "beam_major_arcsec": facts.beam_major_arcsec,
        "beam_minor_arcsec": facts.beam_minor_arcsec,
        "beam_angle_deg": facts.beam_angle_deg,
        "channels": facts.channels,
        **{HEADER_COLUMN + name: text for name, text in facts.keywords.items()},
    }


def _content_keys(paths: Sequence[str]) -> tuple[list[Key], int]:
    """Keys of the files themselves and of pieces of what is in them; their bytes.

    Files with the same pieces are compared whole before they are called the
    same.
    """
    sha, numbers, total = hashlib.blake2b(digest_size=8), [], 0
    for path in paths:
        with open(path, "rb", buffering=0) as file:
            status = os.fstat(file.fileno())
            numbers.append(f"{status.st_dev}:{status.st_ino}")
            total += status.st_size
            step = max(PIECE, status.st_size // PIECES)
            for at in range(0, status.st_size, step):
                sha.update(os.pread(file.fileno(), PIECE, at))
    names = " ".join(numbers)
    content = f"{total} {sha.hexdigest()}"
    return [text_key(SAME_FILE, names), text_key(SAME_CONTENT, content)], total


def _mark_duplicates(
    catalogue: Path, found: DuplicateFinder, summary: Summary, drop: bool
) -> None:
    """Write into the catalogue which rows repeat an earlier one."""
    matches = found.matches(_all_bytes)
    match = next(matches, None)
    if match is None:
        return
    marked = catalogue.with_name(catalogue.name + ".marked")
    columns = artefacts.csv_columns(catalogue)
    with open(marked, "w", newline="", encoding="utf-8") as new:
        new.write(artefacts.csv_line(columns))
        for number, row in enumerate(artefacts.read_csv(catalogue)):
            if match is not None and match.row == number:
                row |= mark_duplicate(row["reason"], match, drop)
                summary.add(row["status"], row["reason"], row["path"])
                summary.statuses["ok"] -= 1
                match = next(matches, None)
            new.write(artefacts.csv_line(row[name] for name in columns))
    summary.statuses += type(summary.statuses)()  # drops what is zero
    os.replace(marked, catalogue)


def _all_bytes(paths: Sequence[str]) -> str | None:
    """A digest of everything in some files; None where one cannot be read."""
    digests = []
    try:
        for path in paths:
            with open(path, "rb") as file:
                digests.append(hashlib.file_digest(file, "blake2b").hexdigest())
    except OSError:
        return None
    return " ".join(digests)


@contextlib.contextmanager
def _pool(processes: int) -> Iterator[Executor | None]:
    if processes < 2:
        yield None
        return
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        yield pool
