"""The file list: the listed images, their ids and their further columns."""

import csv
import functools
import hashlib
import io
import logging
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO, NamedTuple, TextIO

from astromorph.artefacts.columns import EMBED, NONE, TEST, TRAIN
from astromorph.errors import AstromorphError, describe_file_error
from astromorph.filelist.list_header import (
    OBJECT_COLUMN,
    Header,
    find_delimiter,
    make_header,
)
from astromorph.system.files import is_read_once, open_file
from astromorph.system.logs import UNDECODABLE, printable

# Images with the same value in this column are in the same subset.
GROUP_COLUMN = "group"
# The column that assigns an image to a subset.
SPLIT_COLUMN = "split"
# The HDU of an image. The catalogue has a column `hdu`, so this one gets the prefix.
HDU_COLUMN = "listed_hdu"
IMAGE_STARTS = (b"SIMPLE  =", b"\x1f\x8b", b"\x89PNG", b"\xff\xd8")
NOT_TEXT = "this is not UTF-8 text; give a list of FITS files, not an image"
UTF_16 = ("\udcff\udcfe", "\udcfe\udcff")  # byte order marks, read as `UNDECODABLE`
MAX_NOTED = 100  # lines that may be names of files
HOW_TO_LIST = "create a list with `find FOLDER -name '*.fits*' | sort > filelist.csv`"
# The filter that finds repeated paths (Bloom 1970) uses three bits for each path. With
# 10^7 paths, 1 in 20 is reported as repeated although it is not.
FILTER_BITS = 2**26
FILTER_SHIFTS = (0, 19, 38)
FILTER_CHUNK = 2**15


class Entry(NamedTuple):
    """One row of the file list.

    Attributes
    ----------
    image_id : str
        16 hexadecimal digits, computed from the listed path: adding or removing other
        rows does not change them.
    listed_path : str
        The path as it is written in the list.
    path : str
        The path, relative to the list's folder unless it is absolute.
    columns : dict of str to str
        Further columns of a CSV list.
    other_paths : tuple of str
        The files of the second and later channels, where a CSV list has the columns
        `path_g`, `path_r`, ...
    """

    image_id: str
    listed_path: str
    path: str
    columns: Mapping[str, str] = MappingProxyType({})
    other_paths: tuple[str, ...] = ()

    @property
    def paths(self) -> tuple[str, ...]:
        """All files of the image, one per channel."""
        return (self.path, *self.other_paths)


def read_filelist(datafile: str | Path) -> Iterator[Entry]:
    """Read a file list row by row.

    A text list has one path per line. A CSV list (comma, semicolon or tab) has a
    `path` column, or several columns `path_g`, `path_r`, ..., whose files are the
    channels of one image, or a column with a similar name, such as `filename`. Every
    row has as many cells as the header. Empty lines and lines that begin with ``#`` are
    skipped, except inside a quoted cell: a file whose name begins so is ``./#x.fits``.
    A column whose name the catalogue already uses gets the prefix `listed_`, except
    `object`, which takes precedence over the header. A column `hdu` is added to each
    path of its row, as in ``a.fits[SCI,2]``, so that each image of a file has its own
    row and id. A name of a file that is not UTF-8 has surrogate characters, like those
    that `os.listdir` returns; other cells must be UTF-8.

    Parameters
    ----------
    datafile : path
        The list. Relative paths in it are relative to its folder.

    Yields
    ------
    Entry
        One per row, in the order of the list.

    Raises
    ------
    AstromorphError
        The list is missing, is a folder, is not text or names no file, a quote in it
        is not closed, or a row has more or fewer cells than the header.
    """
    datafile = Path(datafile)
    folder = os.path.dirname(datafile)
    empty = True
    with _open_list(datafile) as file:
        status = os.fstat(file.fileno())
        repeated = _repeated_in_list(str(datafile), status.st_size, status.st_mtime_ns)
        occurrences: dict[str, int] = {}
        for listed_paths, columns in read_rows(file):
            name, number, empty = "\0".join(listed_paths), 1, False
            if repeated and hash(name) in repeated:
                number = occurrences[name] = occurrences.get(name, 0) + 1
            first, *others = resolve_paths(folder, listed_paths)
            image_id = _image_id(name, number)
            yield Entry(image_id, listed_paths[0], first, columns, tuple(others))
    if empty:
        raise AstromorphError(
            f"{datafile}: the file list names no file; write one path per line, or CSV "
            "with a `path` column"
        )


def read_paths(datafile: str | Path) -> Iterator[tuple[str, ...]]:
    """Read only the paths of each row, in about half the time of `read_filelist`.

    Parameters
    ----------
    datafile : path
        A list that `read_filelist` can read.

    Yields
    ------
    tuple of str
        The same as `Entry.paths`: one file, or one per channel.

    Raises
    ------
    AstromorphError
        The list is missing, is a folder or is not text, or a quote in it is not closed.
    """
    folder = os.path.dirname(datafile)
    with _open_list(datafile) as file:
        for listed_paths, _ in read_rows(file):
            yield resolve_paths(folder, listed_paths)


def entries_from_paths(
    paths: Iterable[str | Path | Sequence[str | Path]],
) -> list[Entry]:
    """Make entries for files without a file list.

    Parameters
    ----------
    paths : iterable of path or of sequence of path
        One file per image, or several files, one per channel. Relative paths are
        relative to the working directory.

    Returns
    -------
    list of Entry
        In the given order.

    Raises
    ------
    AstromorphError
        No path is given.

    Examples
    --------
    >>> entries = entries_from_paths(["a.fits", ("g.fits", "r.fits")])
    >>> [entry.paths for entry in entries]
    [('a.fits',), ('g.fits', 'r.fits')]
    """
    entries, occurrences = [], dict[str, int]()
    for image_paths in paths:
        files = [image_paths] if isinstance(image_paths, str | Path) else image_paths
        first, *others = texts = [str(path) for path in files]
        name = "\0".join(texts)
        number = occurrences[name] = occurrences.get(name, 0) + 1
        image_id = _image_id(name, number)
        entries.append(Entry(image_id, first, first, other_paths=tuple(others)))
    if not entries:
        raise AstromorphError(f"found no file to read; {HOW_TO_LIST}")
    return entries


def object_name(entry: Entry, in_header: str) -> str:
    """The name of the object of an image: that of the list, or else OBJECT."""
    return " ".join(entry.columns.get(OBJECT_COLUMN, "").split()) or in_header


def requested_subset(entry: Entry) -> str:
    """The subset that the list's column `split` requests; empty if none.

    Raises
    ------
    AstromorphError
        The cell is not ``train``, ``test``, ``embed``, ``none`` or empty.
    """
    subset = entry.columns.get(SPLIT_COLUMN, "").lower()
    if subset not in ("", TRAIN, TEST, EMBED, NONE):
        raise AstromorphError(
            f"{printable(entry.path)}: the column `{SPLIT_COLUMN}` of the list "
            f"contains {entry.columns[SPLIT_COLUMN]!r}; allowed are "
            f"{TRAIN}, {TEST}, {EMBED}, {NONE} and an empty cell"
        )
    return subset


def list_columns(entries: Iterable[Entry]) -> list[str]:
    """Names of the further columns, in order."""
    first = next(iter(entries), None)
    return list(first.columns) if first else []


def repeated_names(names: Iterable[str]) -> frozenset[int]:
    """Hashes of names that occur more than once and, in long lists, of a few others.

    Fewer than `FILTER_CHUNK` names are counted. Of more, only a filter of 8 MB is kept.

    Parameters
    ----------
    names : iterable of str
        The names, which are read once.

    Returns
    -------
    frozenset of int
        Values of `hash` in this process. A name whose hash is missing occurs once.
    """
    remaining = map(hash, names)
    chunk = list(islice(remaining, FILTER_CHUNK))
    if len(chunk) < FILTER_CHUNK:
        return frozenset(value for value, n in Counter(chunk).items() if n > 1)
    return _filtered(chain(chunk, remaining))


def _filtered(values: Iterator[int]) -> frozenset[int]:
    """The values that the filter finds repeated."""
    import numpy as np  # takes a third of the time in which a step starts

    bits, repeated = np.zeros(FILTER_BITS // 8, np.uint8), set[int]()
    shifts = np.array(FILTER_SHIFTS, np.uint64)
    while chunk := list(islice(values, FILTER_CHUNK)):
        hashes, counts = np.unique(np.array(chunk, np.int64), return_counts=True)
        positions = hashes.view(np.uint64)[:, None] >> shifts
        positions &= np.uint64(FILTER_BITS - 1)
        byte, bit = positions >> np.uint64(3), positions & np.uint64(7)
        bit = np.left_shift(1, bit).astype(np.uint8)
        known = (bits[byte] & bit != 0).all(axis=1)
        repeated.update(hashes[known | (counts > 1)].tolist())
        np.bitwise_or.at(bits, byte, bit)
    return frozenset(repeated)


@contextmanager
def _open_list(datafile: str | Path) -> Iterator[TextIO]:
    """Open a list; errors while it is read name the list and the remedy."""
    try:
        stream = open_file(datafile)
        with open_text(stream) as file:
            # An image can have gigabytes without a line break.
            if stream.peek(1).startswith(IMAGE_STARTS):
                raise csv.Error(NOT_TEXT)
            yield file
    except (OSError, csv.Error) as error:
        raise AstromorphError(explain_unreadable(datafile, error)) from None


def open_text(stream: BinaryIO) -> TextIO:
    """The text of a list, in which bytes that are not UTF-8 are kept as they are."""
    return io.TextIOWrapper(stream, "utf-8-sig", errors="surrogateescape", newline="")


@functools.lru_cache(maxsize=4)
def _repeated_in_list(datafile: str, size: int, mtime_ns: int) -> frozenset[int]:
    """`repeated_names` of a list, determined in a separate pass."""
    with open_text(open_file(datafile)) as file:
        return repeated_names("\0".join(paths) for paths, _ in read_rows(file))


def resolve_paths(folder: str, paths: Sequence[str]) -> tuple[str, ...]:
    """Join relative paths to a folder; absolute and empty ones are not changed.

    ``~``, ``~name`` and ``$NAME`` are replaced as by a shell, unless a file has exactly
    the listed name.
    """
    # The same as os.path.join in a quarter of the time.
    prefix = folder if not folder or folder.endswith("/") else f"{folder}/"
    joined = [p if p.startswith("/") or not p else prefix + p for p in paths]
    for k, path in enumerate(paths):
        if ("$" in path or path[:1] == "~") and not os.path.lexists(joined[k]):
            joined[k] = _expand(path, prefix)
    return tuple(joined)


def _expand(path: str, prefix: str) -> str:
    expanded = os.path.expanduser(os.path.expandvars(path))
    return expanded if expanded.startswith("/") else prefix + expanded


def _image_id(name: str, number: int) -> str:
    """The id of the `number`-th row (from 1) with these paths."""
    name = name if number == 1 else f"{name}\0{number}"
    return hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:16]


def read_rows(
    file: TextIO, notes: "ListNotes | None" = None
) -> Iterator[tuple[list[str], dict[str, str]]]:
    """Read an open list in one pass.

    Parameters
    ----------
    file : text file
        The list, opened as by `open_text`.
    notes : ListNotes, optional
        Filled while the list is read.

    Yields
    ------
    paths : list of str
        The listed paths of a row, one per channel.
    columns : dict of str to str
        Its further columns.

    Raises
    ------
    csv.Error
        The file is not text, a quote is not closed, there is no column of paths, or a
        row has more or fewer cells than the header.
    """
    notes = ListNotes() if notes is None else notes
    content = ((k, line) for k, line in enumerate(file) if _has_content(line, notes))
    lines_before, first = next(content, (0, ""))
    _check_text(first)
    delimiter = find_delimiter(first)
    if delimiter is None:
        for line in chain([first], file):
            if _has_content(line, notes):
                yield [line.strip()], {}
        return
    rows = _read_csv(chain([first], file), delimiter, lines_before, notes)
    _, cells = next(rows)
    header = make_header(cells, delimiter)
    notes.path_columns = [cells[k].strip() for k in header.path_columns]
    for line_number, cells in rows:
        yield _split_cells(cells, header, line_number)


@dataclass
class ListNotes:
    """What a user should know about a list that can be read.

    Attributes
    ----------
    path_columns : list of str
        Names of the columns with paths; empty for a text list.
    comments : int
        Number of lines that begin with ``#`` and are not read.
    possible_files : list of str
        Such lines without a space after ``#``, at most `MAX_NOTED`; they may be names
        of files.
    """

    path_columns: list[str] = field(default_factory=list)
    comments: int = 0
    possible_files: list[str] = field(default_factory=list)

    def add_comment(self, line: str) -> None:
        """Count a line that begins with ``#``."""
        self.comments += 1
        if not line[1:2].isspace() and len(self.possible_files) < MAX_NOTED:
            self.possible_files.append(line.strip())


def inspect_list(datafile: str | Path) -> Iterator[tuple[int, str]]:
    """What a user should know about a list that can be read.

    Parameters
    ----------
    datafile : path
        The list.

    Yields
    ------
    level : int
        `logging.INFO` or `logging.WARNING`.
    message : str
        One line, which begins with the name of the list.
    """
    notes = ListNotes()
    with _open_list(datafile) as file:
        for _ in read_rows(file, notes):
            pass
    if notes.path_columns and notes.path_columns[0].partition("_")[0] != "path":
        yield (
            logging.INFO,
            f"{datafile}: it has no column `path`; the paths are taken from the column "
            f"`{notes.path_columns[0]}`",
        )
    if notes.comments:
        lines = "line begins" if notes.comments == 1 else "lines begin"
        yield (
            logging.INFO,
            f"{datafile}: {notes.comments} {lines} with # and list no file",
        )
    folder = os.path.dirname(datafile)
    for name in notes.possible_files:
        name = name if notes.path_columns == [] else re.split("[,;\t]", name)[0]
        if os.path.lexists(os.path.join(folder, name)):
            yield (
                logging.WARNING,
                f"{datafile}: the line {name!r} is read as a comment, but a file has "
                f"this name; to list the file, write ./{name}",
            )


def _has_content(line: str, notes: ListNotes) -> bool:
    """Whether a line is neither empty nor a comment, which is noted."""
    if line.startswith("#"):
        notes.add_comment(line)
        return False
    return bool(line.strip())


def _check_text(line: str) -> None:
    """Raise an error if the first line of a list shows that it is not UTF-8 text."""
    if line.startswith(UTF_16) or line[1:4:2] == "\0\0":
        raise csv.Error(
            "this is UTF-16 text; convert it with `iconv -f UTF-16 -t UTF-8`"
        )
    binary = line.encode("utf-8", "surrogateescape").startswith(IMAGE_STARTS)
    if binary or ("\0" in line and UNDECODABLE.search(line)):
        raise csv.Error(NOT_TEXT)
    if "\0" in line and not line.endswith(("\n", "\r")):
        raise csv.Error(
            "its paths are separated by NUL characters; write one path per line, "
            "without -print0 of `find`"
        )


def _read_csv(
    lines: Iterable[str], delimiter: str, lines_before: int, notes: ListNotes
) -> Iterator[tuple[int, list[str]]]:
    """The number of the first line of each row, and its cells.

    `csv` does not support comments, so they are removed first. `pandas` is no
    alternative: it cuts every cell at a ``#``, and if a quote is closed only in a later
    row, it reads the rows in between as one cell without an error.
    """
    in_row, row_start = False, 0

    def content_lines() -> Iterator[str]:
        nonlocal in_row, row_start
        for number, line in enumerate(lines, start=lines_before + 1):
            if in_row:  # a quoted cell that spans lines: nothing in it is a comment
                yield line
            elif _has_content(line, notes):
                in_row, row_start = True, number
                yield line

    try:
        # Strict: otherwise, a quote that is not closed swallows the following rows.
        for cells in csv.reader(content_lines(), delimiter=delimiter, strict=True):
            in_row = False
            yield row_start, cells
    except csv.Error as error:
        raise csv.Error(
            f'line {row_start}: {error}; a cell that begins with a quote (") must end '
            "with one, and a quote within it must be doubled"
        ) from None


def _split_cells(
    cells: Sequence[str], header: Header, line_number: int
) -> tuple[list[str], dict[str, str]]:
    """Paths and further columns of a row."""
    names, path_columns = header.names, header.path_columns
    if len(cells) != len(names):
        raise csv.Error(
            f"line {line_number} has {len(cells)} "
            f"cell{'s' if len(cells) > 1 else ''}, but the header has "
            f"{len(names)}; a cell that contains {_name(header.delimiter)} must be "
            'written in quotes ("...")'
        )
    values = [cell.strip() for cell in cells]
    columns = {
        name: value
        for k, (name, value) in enumerate(zip(names, values, strict=True))
        if k not in path_columns and name
    }
    if not "".join(cells).isascii():
        for name, value in columns.items():
            if match := UNDECODABLE.search(value):
                raise csv.Error(
                    f"line {line_number} is not UTF-8 text: the column `{name}` has "
                    f"the byte 0x{ord(match[0]) - 0xDC00:02x}; convert the list, for "
                    "example with `iconv -f LATIN1 -t UTF-8`"
                )
    paths = [values[k] for k in path_columns]
    if hdu := columns.get(HDU_COLUMN):
        paths = [f"{path}[{hdu}]" if path else path for path in paths]
    return paths, columns


def _name(delimiter: str) -> str:
    return {",": "a comma", ";": "a semicolon"}.get(delimiter, "a tab")


def explain_unreadable(datafile: str | Path, error: Exception) -> str:
    """Why a list cannot be read, and what to do.

    Parameters
    ----------
    datafile : path
        The list.
    error : OSError or csv.Error
        The error that reading it raised.
    """
    if isinstance(error, FileNotFoundError) and not os.path.islink(datafile):
        return f"{datafile}: there is no such file list; {HOW_TO_LIST}"
    if isinstance(error, IsADirectoryError):
        return f"{datafile}: this is a folder, not a file list; {HOW_TO_LIST}"
    if isinstance(error, OSError) and is_read_once(datafile):
        return (
            f"{datafile}: this is a pipe, which can be read only once, but the list is "
            "read by several steps; write it to a file and give that file, or give the "
            "pipe to the command `astromorph` with the option -d, which copies it"
        )
    if isinstance(error, OSError):
        reason = describe_file_error(error, datafile)
        return f"{datafile}: the file list cannot be read ({reason}); {HOW_TO_LIST}"
    text = str(error)
    if text.startswith("this is "):
        return f"{datafile}: {text}; {HOW_TO_LIST}"
    return f"{datafile}: this CSV cannot be read: {text}"
