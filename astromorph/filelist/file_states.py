"""Whether listed files have changed since results were computed from them."""

import itertools
import os
import stat
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from astromorph.filelist.entries import read_paths
from astromorph.filelist.shards import Shard
from astromorph.provenance import digest

CHUNK = 512  # rows
THREADS = 16
# Seconds per row from which on threads are used: on a network file system they wait
# together, on a local disk they would only cost time.
SLOW = 1e-4


def file_state(paths: Sequence[str]) -> str:
    """Sizes and modification times of the files of a row.

    Replacing a file changes at least one of them. The result is empty if a path is not
    a regular file.
    """
    states = []
    try:
        for path in paths:
            status = os.stat(path)
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
    first = [file_state(row) for row in itertools.islice(rows, CHUNK)]
    slow = time.perf_counter() - start > SLOW * max(len(first), 1)
    yield from first
    if not slow:
        yield from map(file_state, rows)
        return
    with ThreadPoolExecutor(THREADS) as pool:
        while chunk := list(itertools.islice(rows, THREADS * CHUNK)):
            yield from pool.map(file_state, chunk, chunksize=CHUNK)


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

    def of(self, name: str) -> str:
        """16 hexadecimal digits that change if a file of the shard is replaced."""
        if name not in self._digests:
            named = [shard for shard in self._shards if shard.name == name]
            self._compute(self._shards if self._digests else named)
        return self._digests[name]

    def all(self) -> str:
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


def head_file_states(datafile: str | Path, rows: int) -> str:
    """16 hexadecimal digits, computed from the files of the first rows of a list."""
    return digest(file_states(itertools.islice(read_paths(datafile), rows)))
