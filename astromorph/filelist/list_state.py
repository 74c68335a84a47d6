"""Digests of the rows of a file list and of its files, as steps depend on them."""

import functools
from itertools import islice
from pathlib import Path

from astromorph.filelist.entries import (
    GROUP_COLUMN,
    SPLIT_COLUMN,
    read_filelist,
    read_paths,
)
from astromorph.filelist.shards import (
    HEAD_ROWS,
    ColumnDigests,
    Shard,
    ShardStates,
    file_states,
    head_digest,
    plan_shards,
)
from astromorph.provenance import digest


class ListState:
    """Digests of a file list and of the files in it; each is computed when needed.

    All digests are 16 hexadecimal digits. They depend on the name of the list, as
    relative paths in it are relative to its folder.

    Parameters
    ----------
    datafile : path
        The file list.
    shard_size : int, optional
        Rows per shard; see `astromorph.filelist.shards.plan_shards`.
    """

    def __init__(self, datafile: str | Path, shard_size: int | None = None) -> None:
        self._datafile = str(datafile)
        self._shard_size = shard_size

    @functools.cached_property
    def shards(self) -> dict[str, Shard]:
        """The shards by name, in the order of the list."""
        return {shard.name: shard for shard in self._rows[0]}

    @property
    def rows(self) -> str:
        """Changes with any cell of the list."""
        return digest([self._datafile, self._rows[1]])

    @property
    def groups(self) -> str:
        """Changes with the paths and the cells that determine the split."""
        return digest([self._datafile, self._rows[2]])

    @functools.cached_property
    def head_rows(self) -> str:
        """Changes with the paths of the first 256 rows."""
        return digest([self._datafile, head_digest(read_filelist(self._datafile))])

    @functools.cached_property
    def head_files(self) -> str:
        """Changes if a file of the first 256 rows is replaced."""
        return digest(file_states(islice(read_paths(self._datafile), HEAD_ROWS)))

    def shard_rows(self, shard: Shard) -> str:
        """Changes with the paths of the rows of a shard.

        Parameters
        ----------
        shard : Shard
            One of `shards`, or rows of the list without a digest.
        """
        known = shard.digest or self._shard_at(shard).digest
        return digest([self._datafile, str(shard.start), str(shard.stop), known])

    def shard_files(self, shard: Shard) -> str:
        """Changes if a file of a shard is replaced."""
        if shard.digest:
            return self._states.shard_digest(shard.name)
        rows = islice(read_paths(self._datafile), shard.start, shard.stop)
        return digest(file_states(rows))

    @property
    def files(self) -> str:
        """Changes if any file of the list is replaced."""
        return self._states.list_digest()

    def _shard_at(self, shard: Shard) -> Shard:
        rows = islice(read_filelist(self._datafile), shard.start, shard.stop)
        planned = plan_shards(rows, max(shard.stop - shard.start, 1))
        return planned[0] if planned else shard

    @functools.cached_property
    def _rows(self) -> tuple[tuple[Shard, ...], str, str]:
        """The shards, and digests of all cells and of those for the split."""
        # The list is read once for its shards and for both digests.
        columns = ColumnDigests(None, [GROUP_COLUMN, SPLIT_COLUMN])
        entries = columns.pass_through(read_filelist(self._datafile))
        shards = plan_shards(entries, self._shard_size)
        all_cells, cells_for_split = columns.digests(shards)
        return shards, all_cells, cells_for_split

    @functools.cached_property
    def _states(self) -> ShardStates:
        return ShardStates(self._datafile, self._rows[0])
