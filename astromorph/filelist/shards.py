"""Shards: parts of the file list that are worked on one by one."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from astromorph.filelist.entries import Entry
from astromorph.provenance import digest

# Rows that decide what all images have in common.
HEAD_ROWS = 256
# Rows whose texts enter a digest at once.
CHUNK = 1024
# Shards grow with the row number: SHARDS_PER_SIZE of each size, then of the last.
SHARD_SIZES = (1024, 2048, 4096, 8192, 16384)
SHARDS_PER_SIZE = 16


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
    rows, shards, start = iter(entries), list[Shard](), 0
    while True:
        sha, stop = hashlib.sha256(), start
        end = start + (shard_size or _growing_size(len(shards)))
        while texts := [
            f"{image_id}\0{first}\0" + "".join([f"{path}\0" for path in more])
            for image_id, _, first, _, more in islice(rows, min(CHUNK, end - stop))
        ]:
            sha.update("".join(texts).encode())
            stop += len(texts)
        if stop == start:
            return tuple(shards)
        shards.append(Shard(f"{len(shards):05d}", start, stop, sha.hexdigest()[:16]))
        start = stop


def head_digest(entries: Iterable[Entry]) -> str:
    """A digest of the paths of the first 256 rows."""
    sha = hashlib.sha256()
    for entry in islice(entries, HEAD_ROWS):
        sha.update("\0".join([*entry.paths, "\n"]).encode())
    return sha.hexdigest()[:16]


class CellsDigest:
    """Digests of what the further columns of a list say, taken while it passes by.

    Parameters
    ----------
    *columns : sequence of str or None
        For each digest the columns that count; None for all of them.
    """

    def __init__(self, *columns: Sequence[str] | None) -> None:
        self._columns = columns
        self._shas = [hashlib.sha256() for _ in columns]

    def watch(self, entries: Iterable[Entry]) -> Iterator[Entry]:
        """Pass the entries through, unchanged."""
        rows = iter(entries)
        while chunk := list(islice(rows, CHUNK)):
            for chosen, sha in zip(self._columns, self._shas, strict=True):
                cells = [
                    _cells(e.columns, chosen) if e.columns else "\n" for e in chunk
                ]
                sha.update("".join(cells).encode())
            yield from chunk

    def values(self, shards: Iterable[Shard]) -> list[str]:
        """One per digest; differs where a path or a cell that counts does.

        Parameters
        ----------
        shards : iterable of Shard
            The same list cut: what is known of its paths.

        Returns
        -------
        list of str
            16 hexadecimal digits each.
        """
        paths = [shard.digest for shard in shards]
        return [digest([*paths, sha.hexdigest()]) for sha in self._shas]


def _cells(columns: Mapping[str, str], chosen: Sequence[str] | None) -> str:
    names = columns if chosen is None else chosen
    # The row counts too: `x` in the first is not `x` in the second.
    cells = [f"{name}={columns[name]}\0" for name in names if name in columns]
    return "".join(cells) + "\n"


def _growing_size(number: int) -> int:
    return SHARD_SIZES[min(number // SHARDS_PER_SIZE, len(SHARD_SIZES) - 1)]
