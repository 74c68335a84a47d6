"""The step `validate`: the contents of each listed file, or why it is rejected."""

import contextlib
import hashlib
import itertools
import logging
import os
import shutil
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from astromorph.artefacts import tables as artefacts
from astromorph.artefacts.column_types import describe_fits_names
from astromorph.artefacts.columns import CATALOGUE_COLUMNS, REJECTED
from astromorph.artefacts.labels import WITHOUT_LABELS, Labels, missing_column
from astromorph.artefacts.run_files import RunFiles
from astromorph.atomic import atomic_write
from astromorph.catalogue.histogram import Histogram
from astromorph.catalogue.summary import (
    TOO_FEW_IMAGES,
    Summary,
    few_images_warning,
    stop_if_bad,
)
from astromorph.catalogue.validation_page import (
    RowSample,
    inspect_sample,
    write_validation_page,
)
from astromorph.errors import AstromorphError, FitsImageError, describe_file_error
from astromorph.filelist.duplicates import (
    SAME_CONTENT,
    SAME_FILE,
    DuplicateFinder,
    Key,
    content_digest,
    duplicate_finder,
    mark_duplicate,
    match_radius,
    position_keys,
    text_key,
)
from astromorph.filelist.entries import (
    Entry,
    inspect_list,
    list_columns,
    object_name,
    read_filelist,
    requested_subset,
)
from astromorph.filelist.list_header import OBJECT_COLUMN
from astromorph.fits import image as fits_image
from astromorph.fits.facts import ImageFacts
from astromorph.preprocessing.list_reference import (
    ListReference,
    check_channels,
    find_reference,
)
from astromorph.progress import track
from astromorph.settings.sections import (
    DataSettings,
    PreprocessSettings,
    ValidateSettings,
)
from astromorph.system.files import split_hdu
from astromorph.system.workers import process_pool

LOG = logging.getLogger(__name__)
CHUNK = 128  # rows that are sent to a process at a time
MAX_PENDING_CHUNKS = 32  # keeps the memory for results constant
SERIAL_BELOW = 500  # rows; more processes take longer to start than they save
SAMPLE_SIZE = 144  # images whose pixels are read
MAX_SAMPLED_PIXELS = 2**24  # of one image
# Two files of equal size can have the same content only if these parts agree.
COMPARED_PARTS, PART_BYTES = 5, 2048
HEADER_PREFIX = "header_"


@dataclass(frozen=True, slots=True)
class _Row:
    """A row of the catalogue, as a worker process returns it."""

    text: str
    status: str
    reason: str
    path: str
    paths: tuple[str, ...]
    image_id: str
    label: str
    pixels: int
    width: int
    height: int
    pixel_scale_arcsec: float | None
    keys: list[Key]


class _Statistics:
    """Counts, histograms and a sample of the rows, in constant memory."""

    def __init__(self, datafile: str | Path, label_column: str) -> None:
        self.labels = Labels(label_column)
        self.summary = Summary(str(datafile))
        self.sample = RowSample(SAMPLE_SIZE)
        self.sizes = Histogram("Longer side, pixels", "files", min_step=1)
        self.scales = Histogram("Pixel scale, arcsec per pixel", "files")

    def add(self, number: int, row: _Row) -> None:
        self.summary.add(row.status, row.reason, row.path)
        self.sizes.add(max(row.width, row.height) or None)
        self.scales.add(row.pixel_scale_arcsec)
        if row.status != REJECTED:
            self.labels.add(row.label)
        if row.status != REJECTED and row.pixels <= MAX_SAMPLED_PIXELS:
            self.sample.add(row.image_id, number)


def validate(
    datafile: str | Path,
    files: RunFiles,
    data: DataSettings,
    rules: ValidateSettings,
    preprocessing: PreprocessSettings,
    processes: int = 1,
    label: str = "",
) -> None:
    """Read the header of every listed file and write the catalogue.

    Parameters
    ----------
    datafile : path
        The file list.
    files : RunFiles
        Writes `catalogue`, a CSV with a row for each row of the list in the same order,
        and `validation_page`, HTML with counts, histograms and a sample of images.
    data : DataSettings
        How images are read.
    rules : ValidateSettings
        How bad files and duplicates are treated.
    preprocessing : PreprocessSettings
        How the sampled images are prepared.
    processes : int
        Number of processes that read headers in parallel.
    label : str
        The column of labels, of which is said whether the evaluation can use it.

    Raises
    ------
    AstromorphError
        The list cannot be read, or too few of its files can be used.
    """
    total = sum(1 for _ in read_filelist(datafile))
    reference = find_reference(datafile, data, preprocessing)
    columns = _catalogue_columns(datafile, data)
    statistics = _Statistics(datafile, label)
    summary = statistics.summary
    with (
        atomic_write(files.catalogue) as temporary,
        duplicate_finder() as duplicates,
        _pool_if_several(processes if total > SERIAL_BELOW else 1) as pool,
    ):
        work = partial(_describe_rows, reference, data, columns, label)
        entries = track(read_filelist(datafile), total, "headers read")
        with open(temporary, "w", newline="", encoding="utf-8") as file:
            file.write(artefacts.csv_line(columns))
            for number, row in enumerate(_map_chunks(work, entries, pool)):
                file.write(row.text)
                duplicates.add(number, row.keys, row.paths)
                statistics.add(number, row)
        drop = rules.on_duplicate == "drop"
        _mark_duplicates(temporary, duplicates, summary, drop)
        images = inspect_sample(
            statistics.sample, datafile, reference, data, preprocessing, pool
        )
    remarks = [
        *_list_remarks(datafile, columns, statistics.labels),
        *_number_remarks(datafile, summary.usable),
    ]
    histograms = [statistics.sizes, statistics.scales]
    write_validation_page(
        files,
        summary,
        histograms,
        images,
        preprocessing,
        [message for _, message in remarks],
    )
    for level, message in remarks:
        LOG.log(level, "%s", message)
    for line in summary.lines():
        LOG.info("%s", line)
    try:
        stop_if_bad(summary, rules)
    except AstromorphError as error:
        page = _keep_for_inspection(files)
        raise AstromorphError(f"{error}\n{page} shows all reasons") from None


def _keep_for_inspection(files: RunFiles) -> Path:
    """The page about the files, where it stays although the step fails.

    Snakemake removes the outputs of a failed step; copies beside its log remain.
    """
    folder = files.log("validate").parent
    if not folder.is_dir():
        return files.validation_page
    for path in (files.catalogue, files.validation_page):
        shutil.copyfile(path, folder / path.name)
    return folder / files.validation_page.name


def _catalogue_columns(datafile: str | Path, data: DataSettings) -> tuple[str, ...]:
    """The columns of the catalogue; their names differ."""
    from_headers = [HEADER_PREFIX + name for name in data.header_columns]
    listed = list_columns(read_filelist(datafile))
    # A column of objects takes the place of that of the catalogue.
    from_list = [name for name in listed if name != OBJECT_COLUMN]
    if repeated := sorted(set(from_headers) & set(from_list)):
        raise AstromorphError(
            f"{datafile}: the column {repeated[0]!r} has the name of a column that "
            "`data_settings.header_columns` adds to the catalogue; rename it, or leave "
            f"out {repeated[0].removeprefix(HEADER_PREFIX)} in that setting"
        )
    return (*CATALOGUE_COLUMNS, *from_headers, *from_list)


def _list_remarks(
    datafile: str | Path, columns: Sequence[str], labels: Labels
) -> Iterator[tuple[int, str]]:
    """What a user should know about a list before its run; levels and messages."""
    yield from inspect_list(datafile)
    for remark in describe_fits_names(columns[len(CATALOGUE_COLUMNS) :]):
        yield logging.WARNING, f"{datafile}: {remark}"
    if not labels.column:
        return
    if labels.column not in columns:
        if problem := missing_column(labels.column, columns):
            yield logging.WARNING, f"{datafile}: {problem}; {WITHOUT_LABELS}"
    elif problem := labels.problem():
        yield (
            logging.WARNING,
            f"{datafile}: {problem}; {WITHOUT_LABELS}; {labels.advice()}",
        )
    else:
        yield logging.INFO, f"{datafile}: {labels.describe()}"
        if caution := labels.caution():
            yield logging.WARNING, f"{datafile}: {caution}"


def _number_remarks(datafile: str | Path, usable: int) -> Iterator[tuple[int, str]]:
    """What to expect of a list with few usable images; level and message."""
    if warning := few_images_warning(usable):
        level = logging.WARNING if usable < TOO_FEW_IMAGES else logging.INFO
        yield level, f"{datafile}: {warning}"


def describe_entry(
    entry: Entry, reference: ListReference, data: DataSettings
) -> tuple[ImageFacts, list[Key], int]:
    """Read the headers of one row of the list.

    Parameters
    ----------
    entry : Entry
        The row.
    reference : ListReference
        Properties that all images of the list share.
    data : DataSettings
        How images are read.

    Returns
    -------
    facts : ImageFacts
        Facts from the header.
    keys : list of Key
        Keys for finding duplicates of the image.
    size : int
        Size of its files in bytes.

    Raises
    ------
    FitsImageError
        The row cannot be used.
    """
    facts = fits_image.describe_image(entry.paths, data)
    check_channels(facts.channels, reference)
    try:
        keys, size = _content_keys(entry.paths)
    except OSError as error:
        raise FitsImageError(describe_file_error(error)) from None
    radius = match_radius(facts.beam_major_arcsec, facts.pixel_scale_arcsec)
    keys += position_keys(facts.ra_deg, facts.dec_deg, facts.band, radius, facts.plane)
    return facts, keys, size


def _map_chunks(
    work: Callable[[Sequence[Entry]], list[_Row]],
    entries: Iterator[Entry],
    pool: Executor | None,
) -> Iterator[_Row]:
    """Apply `work` to chunks of entries, and yield the rows in order."""
    chunks = iter(lambda: list(itertools.islice(entries, CHUNK)), [])
    if pool is None:
        for chunk in chunks:
            yield from work(chunk)
        return
    pending: deque[Future[list[_Row]]] = deque()
    for chunk in chunks:
        pending.append(pool.submit(work, chunk))
        if len(pending) >= MAX_PENDING_CHUNKS:
            yield from pending.popleft().result()
    while pending:
        yield from pending.popleft().result()


def _describe_rows(
    reference: ListReference,
    data: DataSettings,
    columns: Sequence[str],
    label: str,
    entries: Sequence[Entry],
) -> list[_Row]:
    return [_describe_row(reference, data, columns, label, entry) for entry in entries]


def _describe_row(
    reference: ListReference,
    data: DataSettings,
    columns: Sequence[str],
    label: str,
    entry: Entry,
) -> _Row:
    requested_subset(entry)  # raises for an invalid cell before many images are read
    row: dict[str, Any] = {"image_id": entry.image_id, "path": entry.path}
    row |= {"status": "ok", "reason": "", **entry.columns}
    facts, keys = None, list[Key]()
    try:
        facts, keys, row["file_bytes"] = describe_entry(entry, reference, data)
    except FitsImageError as error:
        row |= {"status": REJECTED, "reason": str(error)}
    else:
        if facts.warning:
            row |= {"status": "warning", "reason": facts.warning}
        row = _fact_columns(facts) | row
        row["object"] = object_name(entry, facts.object_name)
    return _Row(
        text=artefacts.csv_line(row.get(name, "") for name in columns),
        status=row["status"],
        reason=row["reason"],
        path=entry.path,
        paths=entry.paths,
        image_id=entry.image_id,
        label=str(row.get(label) or ""),
        pixels=facts.width * facts.height * facts.channels if facts else 0,
        width=facts.width if facts else 0,
        height=facts.height if facts else 0,
        pixel_scale_arcsec=facts.pixel_scale_arcsec if facts else None,
        keys=keys,
    )


def _fact_columns(facts: ImageFacts) -> dict[str, Any]:
    return {
        "hdu": facts.hdu,
        "images": facts.images,
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
        **{HEADER_PREFIX + name: text for name, text in facts.keywords.items()},
    }


def _content_keys(paths: Sequence[str]) -> tuple[list[Key], int]:
    """Keys of the files and of parts of their content, and their total size in bytes.

    Only parts of the content are read here; `content_digest` confirms equal keys.
    """
    sha, inodes, total = hashlib.blake2b(digest_size=8), [], 0
    for path in paths:
        name, hdu = split_hdu(path)
        with open(name, "rb", buffering=0) as file:
            status = os.fstat(file.fileno())
            # Two HDUs of a file are two images.
            inodes.append(f"{status.st_dev}:{status.st_ino}:{hdu}")
            sha.update(str(hdu).encode())
            total += status.st_size
            step = max(PART_BYTES, status.st_size // COMPARED_PARTS)
            for offset in range(0, status.st_size, step):
                sha.update(os.pread(file.fileno(), PART_BYTES, offset))
    names = " ".join(inodes)
    content = f"{total} {sha.hexdigest()}"
    return [text_key(SAME_FILE, names), text_key(SAME_CONTENT, content)], total


def _mark_duplicates(
    catalogue: Path, duplicates: DuplicateFinder, summary: Summary, drop: bool
) -> None:
    """Mark the rows of the catalogue that repeat an earlier one."""
    matches = duplicates.matches(content_digest)
    match = next(matches, None)
    if match is None:
        return
    marked = catalogue.with_name(catalogue.name + ".marked")
    columns = artefacts.csv_columns(catalogue)
    with open(marked, "w", newline="", encoding="utf-8") as file:
        file.write(artefacts.csv_line(columns))
        for number, row in enumerate(artefacts.read_csv(catalogue)):
            if match is not None and match.row == number:
                summary.statuses[row["status"]] -= 1
                row |= mark_duplicate(row["reason"], match, drop)
                summary.add(row["status"], row["reason"], row["path"])
                match = next(matches, None)
            file.write(artefacts.csv_line(row[name] for name in columns))
    summary.statuses += type(summary.statuses)()  # removes counts of zero
    os.replace(marked, catalogue)


@contextlib.contextmanager
def _pool_if_several(processes: int) -> Iterator[Executor | None]:
    """A pool of processes; None for a single process."""
    if processes < 2:
        yield None
        return
    with process_pool(processes) as pool:
        yield pool
