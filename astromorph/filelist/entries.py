"""The file list: which images there are, under which ids, in which shards."""

import csv
import functools
import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple, TextIO

from astromorph.artefacts.tables import CATALOGUE_COLUMNS, NONE, TEST, TRAIN
from astromorph.errors import AstromorphError
from astromorph.filelist.repeated_names import repeated_names

# The column that keeps images of one object on one side of the split.
GROUP = "group"
# The column that says on which side of the split an image is.
SPLIT = "split"
PATH = re.compile(r"path(_\w+)?")
HOW_TO_LIST = "list one with `find FOLDER -name '*.fits*' | sort > filelist.txt`"


class Entry(NamedTuple):
    """One row of the list.

    Attributes
    ----------
    image_id : str
        16 hexadecimal digits from the path as listed: rows that come or go do
        not change it.
    listed : str
        The path as the list has it.
    path : str
        The same, counted from the list's folder where it is relative.
    columns : dict of str to str
        Further columns of a CSV list.
    more : tuple of str
        Where a CSV list has columns `path_g`, `path_r`, ...: the files behind
        the first, each a channel.
    """

    image_id: str
    listed: str
    path: str
    columns: Mapping[str, str] = MappingProxyType({})
    more: tuple[str, ...] = ()

    @property
    def paths(self) -> tuple[str, ...]:
        """All files of the image, one per channel."""
        return (self.path, *self.more)


def read_filelist(datafile: str | Path) -> Iterator[Entry]:
    """Read a file list, a row at a time.

    A text list has a path a line; a CSV list (comma, semicolon or tab) is known
    by a `path` column, or by several, `path_g`, `path_r`, ..., whose files are
    the channels of one image. Lines that begin with ``#`` and empty lines are passed
    over, but not within a quoted cell. A column with a name that the catalogue uses
    gets `listed_` before it.

    Parameters
    ----------
    datafile : path
        The list. Relative paths in it count from its folder.

    Yields
    ------
    Entry
        One per row, in the order of the list.

    Raises
    ------
    AstromorphError
        The list is missing, a folder, not text, or names no file; a quote in it is
        not closed.
    """
    datafile = Path(datafile)
    folder = os.path.dirname(datafile)
    empty = True
    with _opened(datafile) as file:
        status = os.stat(datafile)
        several = _repeated(str(datafile), status.st_size, status.st_mtime_ns)
        occurrences: dict[str, int] = {}
        for listed, columns in _rows(file):
            name, number, empty = "\0".join(listed), 1, False
            if several and hash(name) in several:
                number = occurrences[name] = occurrences.get(name, 0) + 1
            first, *more = _placed(folder, listed)
            image_id = _image_id(name, number)
            yield Entry(image_id, listed[0], first, columns, tuple(more))
    if empty:
        raise AstromorphError(
            f"{datafile}: the file list names no file; write a path a line, or CSV "
            "with a `path` column"
        )


def read_paths(datafile: str | Path) -> Iterator[tuple[str, ...]]:
    """The files of each row, as `Entry.paths` has them; half the work of all.

    Parameters
    ----------
    datafile : path
        A list that `read_filelist` can read.

    Yields
    ------
    tuple of str
        One file, or one per channel.

    Raises
    ------
    AstromorphError
        The list is missing, a folder, not text, or a quote in it is not closed.
    """
    folder = os.path.dirname(datafile)
    with _opened(datafile) as file:
        for listed, _ in _rows(file):
            yield _placed(folder, listed)


def entries_from_paths(
    paths: Iterable[str | Path | Sequence[str | Path]],
) -> list[Entry]:
    """Rows for files that no list names.

    Parameters
    ----------
    paths : iterable of path or of sequence of path
        A file an image, or several, each a channel. Relative paths count from the
        working folder.

    Returns
    -------
    list of Entry
        In their order.

    Raises
    ------
    AstromorphError
        There is none.

    Examples
    --------
    >>> [entry.paths for entry in entries_of(["a.fits", ("g.fits", "r.fits")])]
    [('a.fits',), ('g.fits', 'r.fits')]
    """
    found, occurrences = [], dict[str, int]()
    for one in paths:
        files = [one] if isinstance(one, str | Path) else one
        first, *more = listed = [str(path) for path in files]
        name = "\0".join(listed)
        number = occurrences[name] = occurrences.get(name, 0) + 1
        found.append(Entry(_image_id(name, number), first, first, more=tuple(more)))
    if not found:
        raise AstromorphError(f"found no file to read; {HOW_TO_LIST}")
    return found


def requested_subset(entry: Entry) -> str:
    """What the column `split` of the list asks for; empty where nothing.

    Raises
    ------
    AstromorphError
        The cell is none of ``train``, ``test``, ``none`` and nothing.
    """
    asked = entry.columns.get(SPLIT, "").lower()
    if asked not in ("", TRAIN, TEST, NONE):
        raise AstromorphError(
            f"{entry.path}: the column `{SPLIT}` of the list has "
            f"{entry.columns[SPLIT]!r}; allowed are {TRAIN}, {TEST}, {NONE} and nothing"
        )
    return asked


def list_columns(entries: Iterable[Entry]) -> list[str]:
    """Names of the further columns, in the order of the list."""
    first = next(iter(entries), None)
    return list(first.columns) if first else []


@contextmanager
def _opened(datafile: str | Path) -> Iterator[TextIO]:
    """Open a list; what goes wrong while it is read says which, and what to do."""
    try:
        with open(datafile, newline="", encoding="utf-8-sig") as file:
            yield file
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise AstromorphError(_why_unreadable(datafile, error)) from None


@functools.lru_cache(maxsize=4)
def _repeated(datafile: str, size: int, time: int) -> frozenset[int]:
    """Hashes of all names that the list has more than once: a first reading."""
    with open(datafile, newline="", encoding="utf-8-sig") as file:
        return repeated_names("\0".join(listed) for listed, _ in _rows(file))


def _placed(folder: str, listed: Sequence[str]) -> tuple[str, ...]:
    """Paths of a row, counted from the list's folder where they are relative."""
    if not folder:
        return tuple(listed)
    # As os.path.join does it, at a quarter of its time.
    before = folder if folder.endswith("/") else f"{folder}/"
    return tuple([p if p.startswith("/") or not p else before + p for p in listed])


def _image_id(listed: str, number: int) -> str:
    name = listed if number == 1 else f"{listed}\0{number}"
    return hashlib.sha256(name.encode()).hexdigest()[:16]


def _rows(file: TextIO) -> Iterator[tuple[list[str], dict[str, str]]]:
    lines = enumerate(file)
    wanted = ((k, n) for k, n in lines if n.strip() and not n.startswith("#"))
    before, first = next(wanted, (0, ""))
    delimiter = max(",;\t", key=first.count)
    if not _path_columns(next(csv.reader([first], delimiter=delimiter), [])):
        if first:
            yield [first.strip()], {}
        for line in file:
            if line.strip() and not line.startswith("#"):
                yield [line.strip()], {}
        return
    records = _records(chain([first], file), delimiter, before)
    header = [cell.strip() for cell in next(records)]
    if not (at := _path_columns(header)):
        raise csv.Error("its header has no column `path`")
    names = [f"listed_{name}" if name in CATALOGUE_COLUMNS else name for name in header]
    for cells in records:
        yield _csv_row(cells, names, at)


def _path_columns(header: Sequence[str]) -> list[int]:
    header = [name.strip() for name in header]
    if "path" in header:
        return [header.index("path")]
    return [k for k, name in enumerate(header) if PATH.fullmatch(name)]


def _records(lines: Iterable[str], delimiter: str, before: int) -> Iterator[list[str]]:
    """Cells of each row; a quoted cell may span lines, which are then no comments."""
    within, start = False, 0

    def wanted() -> Iterator[str]:
        nonlocal within, start
        for number, line in enumerate(lines, start=before + 1):
            if within:
                yield line
            elif line.strip() and not line.startswith("#"):
                within, start = True, number
                yield line

    try:
        # Strict, or a quote that is not closed takes the rows behind it.
        for cells in csv.reader(wanted(), delimiter=delimiter, strict=True):
            within = False
            yield cells
    except csv.Error as error:
        raise csv.Error(
            f'line {start}: {error}; a cell that begins with a quote (") must end with '
            "one, and a quote within it is written twice"
        ) from None


def _csv_row(
    cells: Sequence[str], names: Sequence[str], at: Sequence[int]
) -> tuple[list[str], dict[str, str]]:
    values = [cell.strip() for cell in cells] + [""] * (len(names) - len(cells))
    further = {
        name: value
        for k, (name, value) in enumerate(zip(names, values, strict=False))
        if k not in at and name
    }
    return [values[k] for k in at], further


def _why_unreadable(datafile: str | Path, error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return f"{datafile}: there is no such file list; {HOW_TO_LIST}"
    if isinstance(error, IsADirectoryError):
        return f"{datafile}: this is a folder, not a file list; {HOW_TO_LIST}"
    if isinstance(error, OSError):
        return f"{datafile}: the file list cannot be read ({error.strerror})"
    if isinstance(error, UnicodeDecodeError):
        return (
            f"{datafile}: this is no text in UTF-8 (byte {error.start}); give a list "
            f"of FITS files, not an image; {HOW_TO_LIST}"
        )
    return f"{datafile}: this CSV cannot be read: {error}"
