"""The file list: which images there are, under which ids, in which shards."""

import csv
import functools
import hashlib
import itertools
import os
import re
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from astromorph.artefacts import CATALOGUE_COLUMNS, NONE, TEST, TRAIN
from astromorph.errors import AstromorphError

# Shards grow with the row number: SHARDS_PER_SIZE of each size, then of the last.
SHARD_SIZES = (1024, 2048, 4096, 8192, 16384)
SHARDS_PER_SIZE = 16
# The column that keeps images of one object on one side of the split.
GROUP = "group"
# The column that says on which side of the split an image is.
SPLIT = "split"
PATH = re.compile(r"path(_\w+)?")
# Rows that decide what all images have in common.
HEAD = 256
# Bloom (1970): with 10^7 names 1 in 60 is taken for a repeated one, and counted.
BLOOM_BITS, BLOOM_WORDS = 2**26, struct.Struct("<3I")
HOW_TO_LIST = "list one with `find FOLDER -name '*.fits*' | sort > filelist.txt`"


@dataclass(frozen=True, slots=True)
class Entry:
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
    columns: dict[str, str] = field(default_factory=dict)
    more: tuple[str, ...] = ()

    @property
    def paths(self) -> tuple[str, ...]:
        """All files of the image, one per channel."""
        return (self.path, *self.more)


@dataclass(frozen=True, slots=True)
class Shard:
    """Rows that are cached and embedded together by one job.

    Attributes
    ----------
    name : str
        Five digits.
    start, stop : int
        First row and the row after the last.
    digest : str
        16 hexadecimal digits from the paths of these rows.
    """

    name: str
    start: int
    stop: int
    digest: str


def read_filelist(datafile: str | Path) -> Iterator[Entry]:
    """Read a file list, a row at a time.

    A text list has a path a line; a CSV list (comma, semicolon or tab) is known
    by a `path` column, or by several, `path_g`, `path_r`, ..., whose files are
    the channels of one image. Lines that begin with ``#`` and empty lines are passed
    over. A column with a name that the catalogue uses gets `listed_` before it.

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
        The list is missing, a folder, not text, or names no file.
    """
    datafile = Path(datafile)
    folder = os.path.dirname(datafile)
    empty = True
    try:
        status = os.stat(datafile)
        repeated = _repeated(str(datafile), status.st_size, status.st_mtime_ns)
        occurrences: dict[str, int] = {}
        with open(datafile, newline="", encoding="utf-8-sig") as file:
            for listed, columns in _rows(file):
                name, number, empty = "\0".join(listed), 1, False
                if repeated and _hash(name) in repeated:
                    number = occurrences[name] = occurrences.get(name, 0) + 1
                first, *more = _placed(folder, listed)
                yield Entry(
                    image_id=_image_id(name, number),
                    listed=listed[0],
                    path=first,
                    columns=columns,
                    more=tuple(more),
                )
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise AstromorphError(_why_unreadable(datafile, error)) from None
    if empty:
        raise AstromorphError(
            f"{datafile}: the file list names no file; write a path a line, or CSV "
            "with a `path` column"
        )


def entries_of(paths: Iterable[str | Path | Sequence[str | Path]]) -> list[Entry]:
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
    """
    folder = os.path.dirname(datafile)
    with open(datafile, newline="", encoding="utf-8-sig") as file:
        for listed, _ in _rows(file):
            yield _placed(folder, listed)


def asked_subset(entry: Entry) -> str:
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


def plan_shards(
    entries: Iterable[Entry], shard_size: int | None = None
) -> tuple[Shard, ...]:
    """Cut the list into shards.

    The cuts depend on the row number alone, so that appended rows change the
    last shard and add new ones.

    Parameters
    ----------
    entries : iterable of Entry
        The list; only a shard's digest is kept of it.
    shard_size : int, optional
        Rows per shard. By default 16 shards of 1024, 16 of 2048 and so on up to
        16384: 1,000 images are one job, 10,000,000 are about 660.

    Returns
    -------
    tuple of Shard
        In the order of the list.
    """
    shards: list[Shard] = []
    start, sha = 0, hashlib.sha256()
    stop = 0
    for stop, entry in enumerate(entries, start=1):
        paths = "\0".join(entry.paths)
        sha.update(f"{entry.image_id}\0{paths}\0".encode())
        if stop - start == (shard_size or _growing_size(len(shards))):
            shards.append(_shard(len(shards), start, stop, sha.hexdigest()))
            start, sha = stop, hashlib.sha256()
    if stop > start:
        shards.append(_shard(len(shards), start, stop, sha.hexdigest()))
    return tuple(shards)


def head_digest(entries: Iterable[Entry]) -> str:
    """A digest of the paths of the first 256 rows."""
    sha = hashlib.sha256()
    for entry in itertools.islice(entries, HEAD):
        sha.update("\0".join([*entry.paths, "\n"]).encode())
    return sha.hexdigest()[:16]


class ContentDigest:
    """A digest of what a list says, taken while it passes by.

    Parameters
    ----------
    columns : sequence of str, optional
        The further columns that count; by default all of them.
    """

    def __init__(self, columns: Sequence[str] | None = None) -> None:
        self._columns = columns
        self._sha = hashlib.sha256()

    def watch(self, entries: Iterable[Entry]) -> Iterator[Entry]:
        """Pass the entries through, unchanged."""
        for entry in entries:
            chosen = entry.columns if self._columns is None else self._columns
            cells = [f"{name}={entry.columns.get(name, '')}" for name in chosen]
            self._sha.update("\0".join([*entry.paths, *cells, "\n"]).encode())
            yield entry

    @property
    def value(self) -> str:
        """16 hexadecimal digits; differ where a path or a cell that counts does."""
        return self._sha.hexdigest()[:16]


@functools.lru_cache(maxsize=4)
def _repeated(datafile: str, size: int, time: int) -> frozenset[bytes]:
    """Hashes of all names that the list has more than once, and of a few others.

    A first reading of the list; the names themselves are not kept, so that ten
    million rows take no more memory than a thousand.
    """
    seen, found = bytearray(BLOOM_BITS // 8), set[bytes]()
    with open(datafile, newline="", encoding="utf-8-sig") as file:
        for listed, _ in _rows(file):
            known, new = _hash("\0".join(listed)), False
            for word in BLOOM_WORDS.unpack(known):
                at, mask = word % BLOOM_BITS >> 3, 1 << (word & 7)
                if not seen[at] & mask:
                    new = True
                    seen[at] |= mask
            if not new:
                found.add(known)
    return frozenset(found)


def _hash(name: str) -> bytes:
    data = name.encode("utf-8", "surrogateescape")
    return hashlib.blake2b(data, digest_size=BLOOM_WORDS.size).digest()


def _growing_size(number: int) -> int:
    return SHARD_SIZES[min(number // SHARDS_PER_SIZE, len(SHARD_SIZES) - 1)]


def _shard(number: int, start: int, stop: int, digest: str) -> Shard:
    return Shard(f"{number:05d}", start, stop, digest[:16])


def _placed(folder: str, listed: Sequence[str]) -> tuple[str, ...]:
    """Paths of a row, counted from the list's folder where they are relative."""
    if not folder:
        return tuple(listed)
    return tuple([os.path.join(folder, path) if path else "" for path in listed])


def _image_id(listed: str, number: int) -> str:
    name = listed if number == 1 else f"{listed}\0{number}"
    return hashlib.sha256(name.encode()).hexdigest()[:16]


def _rows(file: TextIO) -> Iterator[tuple[list[str], dict[str, str]]]:
    lines = (line for line in file if line.strip() and not line.startswith("#"))
    first = next(lines, "")
    delimiter = max(",;\t", key=first.count)
    header = [
        cell.strip() for cell in next(csv.reader([first], delimiter=delimiter), [])
    ]
    at = [k for k, name in enumerate(header) if PATH.fullmatch(name)]
    if "path" in header:
        at = [header.index("path")]
    if not at:
        if first:
            yield [first.strip()], {}
        for line in lines:
            yield [line.strip()], {}
        return
    names = [f"listed_{name}" if name in CATALOGUE_COLUMNS else name for name in header]
    for cells in csv.reader(lines, delimiter=delimiter):
        yield _csv_row(cells, names, at)


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


def _why_unreadable(datafile: Path, error: Exception) -> str:
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
