"""Whether the files of a list are still those that results were made from."""

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

# Files are looked at in turn where that is fast, and at once where the answer
# comes over a network.
CHUNK, THREADS, SLOW = 512, 16, 1e-4


def file_state(paths: Sequence[str]) -> str:
    """Sizes and times of the files of a row; empty where one is none.

    A file that was replaced under its name differs in one of them.
    """
    found = []
    try:
        for path in paths:
            status = os.stat(path)
            if not stat.S_ISREG(status.st_mode):
                return ""
            found.append(f"{status.st_size} {status.st_mtime_ns}")
    except (OSError, ValueError):
        return ""
    return " ".join(found)


def file_states(paths: Iterable[Sequence[str]]) -> Iterator[str]:
    """The state of each row, in order.

    Parameters
    ----------
    paths : iterable of sequence of str
        The files of each row.

    Yields
    ------
    str
        As `file_state` gives it.
    """
    rows = iter(paths)
    begun = time.perf_counter()
    first = [file_state(row) for row in itertools.islice(rows, CHUNK)]
    slow = time.perf_counter() - begun > SLOW * max(len(first), 1)
    yield from first
    if not slow:
        yield from map(file_state, rows)
        return
    with ThreadPoolExecutor(THREADS) as pool:
        while chunk := list(itertools.islice(rows, THREADS * CHUNK)):
            yield from pool.map(file_state, chunk, chunksize=CHUNK)


class ShardStates:
    """The state of each shard's files, looked at when it is asked for.

    A job that needs one shard looks at the files of that one; who asks for a
    second one gets all in one reading of the list.

    Parameters
    ----------
    datafile : path
        The list.
    shards : sequence of Shard
        How it is cut.
    """

    def __init__(self, datafile: str | Path, shards: Sequence[Shard]) -> None:
        self._datafile = datafile
        self._shards = shards
        self._known: dict[str, str] = {}

    def of(self, name: str) -> str:
        """16 hexadecimal digits; others where a file of the shard was replaced."""
        if name not in self._known:
            wanted = [s for s in self._shards if s.name == name]
            self._look(self._shards if self._known else wanted)
        return self._known[name]

    def all(self) -> str:
        """The same for the whole list."""
        if len(self._known) < len(self._shards):
            self._look(self._shards)
        return digest(self._known[shard.name] for shard in self._shards)

    def _look(self, shards: Sequence[Shard]) -> None:
        paths = read_paths(self._datafile)
        at = 0
        for shard in shards:
            rows = itertools.islice(paths, shard.start - at, shard.stop - at)
            self._known[shard.name] = digest(file_states(rows))
            at = shard.stop


def head_file_states(datafile: str | Path, number: int) -> str:
    """16 hexadecimal digits from the files of the first rows of a list."""
    return digest(file_states(itertools.islice(read_paths(datafile), number)))
