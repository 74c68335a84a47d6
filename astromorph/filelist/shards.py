"""Shards: parts of the file list, and whether their files have changed."""

import hashlib
import itertools
import os
import stat
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from astromorph.filelist.entries import Entry, read_paths
from astromorph.provenance import digest
from astromorph.system.files import split_hdu

# Number of rows at the start of the list that determine the common properties.
HEAD_ROWS = 256
# Rows that are added to a digest at a time.
CHUNK = 1024
# Shards grow with the row number: SHARDS_PER_SIZE of each size, the rest of the last.
SHARD_SIZES = (1024, 2048, 4096, 8192, 16384)
SHARDS_PER_SIZE = 16
FILES_AT_A_TIME = 512  # that one thread reads
THREADS = 16
# Threads are used above this time per row, in seconds: on a network file system they
# wait in parallel, but on a local disk they only cost time.
SLOW = 1e-4


@dataclass(frozen=True, slots=True)
class Shard:
    """Rows of the file list that one job prepares and embeds.

    Attributes
    ----------
    name : str
        Five digits.
    start, stop : int
        First row and the row after the last.
    digest : str
        16 hexadecimal digits, computed from the paths of these rows.
    """

    name: str
    start: int
    stop: int
    digest: str = ""


def plan_shards(
    entries: Iterable[Entry], shard_size: int | None = None
) -> tuple[Shard, ...]:
    """Divide the file list into shards.

    The boundaries depend only on the row number: appended rows change the last shard
    and add new ones.

    Parameters
    ----------
    entries : iterable of Entry
        The list, which is not kept in memory.
    shard_size : int, optional
        Rows per shard. By default 16 shards of 1024, 16 of 2048 and so on up to
        16384: 1,000 images are one shard, 10,000,000 are about 660.

    Returns
    -------
    tuple of Shard
        In the order of the list.
    """
    rows, shards, start = iter(entries), list[Shard](), 0
    while True:
        sha, stop = hashlib.sha256(), start
        end = start + (shard_size or _growing_size(len(shards)))
        while texts := [
            f"{image_id}\0{first}\0" + "".join([f"{path}\0" for path in others])
            for image_id, _, first, _, others in islice(rows, min(CHUNK, end - stop))
        ]:
            sha.update("".join(texts).encode("utf-8", "surrogateescape"))
            stop += len(texts)
        if stop == start:
            return tuple(shards)
        shards.append(Shard(f"{len(shards):05d}", start, stop, sha.hexdigest()[:16]))
        start = stop


def head_digest(entries: Iterable[Entry]) -> str:
    """A digest of the paths of the first 256 rows."""
    sha = hashlib.sha256()
    for entry in islice(entries, HEAD_ROWS):
        text = "\0".join([*entry.paths, "\n"])
        sha.update(text.encode("utf-8", "surrogateescape"))
    return sha.hexdigest()[:16]


class ColumnDigests:
    """Digests of the further columns of a list, computed while it is read.

    Parameters
    ----------
    *selections : sequence of str or None
        For each digest the columns that it depends on; None for all columns.
    """

    def __init__(self, *selections: Sequence[str] | None) -> None:
        self._selections = selections
        self._shas = [hashlib.sha256() for _ in selections]

    def pass_through(self, entries: Iterable[Entry]) -> Iterator[Entry]:
        """Update the digests and yield the entries unchanged."""
        rows = iter(entries)
        while chunk := list(islice(rows, CHUNK)):
            for names, sha in zip(self._selections, self._shas, strict=True):
                texts = [
                    _row_text(e.columns, names) if e.columns else "\n" for e in chunk
                ]
                sha.update("".join(texts).encode())
            yield from chunk

    def digests(self, shards: Iterable[Shard]) -> list[str]:
        """The digests; each changes if a path or a selected cell changes.

        Parameters
        ----------
        shards : iterable of Shard
            The shards of the same list, which represent its paths.

        Returns
        -------
        list of str
            16 hexadecimal digits each.
        """
        paths = [shard.digest for shard in shards]
        return [digest([*paths, sha.hexdigest()]) for sha in self._shas]


def _row_text(columns: Mapping[str, str], selection: Sequence[str] | None) -> str:
    names = columns if selection is None else selection
    # The line break separates rows: `x` in row 1 differs from `x` in row 2.
    cells = [f"{name}={columns[name]}\0" for name in names if name in columns]
    return "".join(cells) + "\n"


def _growing_size(number: int) -> int:
    """Rows of the shard with this number."""
    return SHARD_SIZES[min(number // SHARDS_PER_SIZE, len(SHARD_SIZES) - 1)]


def file_state(paths: Sequence[str]) -> str:
    """Sizes and modification times of the files of a row.

    Replacing a file changes at least one of them. The result is empty if a path is not
    a regular file.
    """
    states = []
    try:
        for path in paths:
            status = os.stat(split_hdu(path)[0])
            if not stat.S_ISREG(status.st_mode):
                return ""
            states.append(f"{status.st_size} {status.st_mtime_ns}")
    except (OSError, ValueError):
        return ""
    return " ".join(states)


def file_states(paths: Iterable[Sequence[str]]) -> Iterator[str]:
    """The state of each row, in order.

    Parameters
    ----------
    paths : iterable of sequence of str
        The files of each row.

    Yields
    ------
    str
        The result of `file_state`.
    """
    rows = iter(paths)
    start = time.perf_counter()
    first = [file_state(row) for row in itertools.islice(rows, FILES_AT_A_TIME)]
    slow = time.perf_counter() - start > SLOW * max(len(first), 1)
    yield from first
    if not slow:
        yield from map(file_state, rows)
        return
    with ThreadPoolExecutor(THREADS) as pool:
        while chunk := list(itertools.islice(rows, THREADS * FILES_AT_A_TIME)):
            yield from pool.map(file_state, chunk, chunksize=FILES_AT_A_TIME)


class ShardStates:
    """Digests of the file states of each shard, computed on demand.

    The first request reads the files of one shard only, which is all that the job of
    one shard needs. The second reads the files of all shards in one pass.

    Parameters
    ----------
    datafile : path
        The file list.
    shards : sequence of Shard
        Its shards.
    """

    def __init__(self, datafile: str | Path, shards: Sequence[Shard]) -> None:
        self._datafile = datafile
        self._shards = shards
        self._digests: dict[str, str] = {}

    def shard_digest(self, name: str) -> str:
        """16 hexadecimal digits that change if a file of the shard is replaced."""
        if name not in self._digests:
            named = [shard for shard in self._shards if shard.name == name]
            self._compute(self._shards if self._digests else named)
        return self._digests[name]

    def list_digest(self) -> str:
        """16 hexadecimal digits that change if any listed file is replaced."""
        if len(self._digests) < len(self._shards):
            self._compute(self._shards)
        return digest(self._digests[shard.name] for shard in self._shards)

    def _compute(self, shards: Sequence[Shard]) -> None:
        paths = read_paths(self._datafile)
        next_row = 0
        for shard in shards:
            rows = itertools.islice(
                paths, shard.start - next_row, shard.stop - next_row
            )
            self._digests[shard.name] = digest(file_states(rows))
            next_row = shard.stop
