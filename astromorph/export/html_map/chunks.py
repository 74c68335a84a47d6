"""Chunks: the data of the map in parts that the page loads when it needs them.

A chunk has a key. The page has it as ``<script type="application/json" id="KEY">``, or
it is the file ``KEY.js`` of the folder `map_files`, which calls
``astromorphMap.receive``: pages that were opened from a disk may run scripts of the
same disk, but not read other files.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from astromorph.export.html_map.packing import PackedColumn, pack_array
from astromorph.pages.html import script_json

NAME_ROWS = 2048  # rows of a chunk with names, all of which a search loads
FACT_ROWS = 1024  # rows of a chunk with all other columns
GROUP_ROWS = 262_144  # rows of a chunk of a group
MISSING = 65_535  # a position that is not finite


@dataclass(frozen=True, slots=True)
class Chunks:
    """Chunks of one map.

    Attributes
    ----------
    folder : Path or None
        Where chunks are written as files; None to keep all of them for the page.
    stamp : str
        Letters and digits that differ between maps: the page refuses the files of
        another one.
    in_page : dict of str to Markup
        Key to JSON of the chunks that belong into the page.
    """

    folder: Path | None
    stamp: str
    in_page: dict[str, Markup] = field(default_factory=dict)

    def add(self, key: str, data: Any, at_once: bool = False) -> None:
        """Add a chunk.

        Parameters
        ----------
        key : str
            Letters, digits and hyphens.
        data : dict, list or str
            Its content, for `json`.
        at_once : bool
            Whether the page needs it to open, so that it is never in the folder.
        """
        if self.folder is None or at_once:
            self.in_page[key] = script_json(data)
            return
        text = json.dumps(data, allow_nan=False, separators=(",", ":"))
        script = f'astromorphMap.receive("{self.stamp}","{key}",{text});\n'
        (self.folder / f"{key}.js").write_text(script, encoding="utf-8")

    def add_columns(self, columns: Sequence[PackedColumn], first: str) -> None:
        """Add all columns that can colour the map, `first` at once."""
        for k, column in enumerate(columns):
            if column.kind != "text":
                self.add(f"column-{k}", column.data(), column.name == first)

    def add_rows(
        self,
        names: Sequence[PackedColumn],
        facts: Sequence[PackedColumn],
        nearest: NDArray[np.int32],
        distances: NDArray[np.float32],
        duplicates: dict[int, list[int]],
    ) -> None:
        """Add what the page shows of single images.

        Parameters
        ----------
        names : sequence of PackedColumn
            Columns that are searched; N rows.
        facts : sequence of PackedColumn
            All other columns.
        nearest : ndarray, shape (N, K), int32
            Rows of the nearest images, -1 for none.
        distances : ndarray, shape (N, K), float32
            Their distances.
        duplicates : dict of int to list of int
            Rows of the near-duplicates of some rows.
        """
        number = len(nearest)
        for k, rows in enumerate(_slices(number, NAME_ROWS)):
            self.add(f"names-{k}", [column.part(rows).data() for column in names])
        for k, rows in enumerate(_slices(number, FACT_ROWS)):
            some = range(rows.start, min(rows.stop, number))
            content = {
                "columns": [column.part(rows).data() for column in facts],
                "nearest": pack_array(nearest[rows].ravel()),
                "distances": pack_array(distances[rows].ravel()),
                "duplicates": {r: duplicates[r] for r in some if r in duplicates},
            }
            self.add(f"facts-{k}", content)

    def add_group(
        self,
        name: str,
        values: NDArray[Any],
        scales: Iterable[float],
        offsets: Iterable[float] | None = None,
        at_once: bool = False,
    ) -> dict[str, Any]:
        """Add several numbers for each row, which stand for `offset + scale * value`.

        Parameters
        ----------
        name : str
            Letters and digits.
        values : ndarray, shape (N, K), integer or float
            For example the components of the embeddings as int8.
        scales : iterable of float
            K factors.
        offsets : iterable of float, optional
            K offsets; by default 0.
        at_once : bool
            Whether the page needs the group to open.

        Returns
        -------
        dict
            For ``page.groups[name]``, by which ``loadGroup(name)`` finds the chunks.
        """
        parts = list(_slices(len(values), GROUP_ROWS))
        for k, rows in enumerate(parts):
            self.add(f"group-{name}-{k}", pack_array(values[rows].ravel()), at_once)
        return {
            "type": values.dtype.name,
            "width": values.shape[1],
            "parts": len(parts),
            "scales": list(map(float, scales)),
            "offsets": [0.0] * values.shape[1] if offsets is None else list(offsets),
        }

    def add_layout(
        self, name: str, places: NDArray[np.float32], at_once: bool = False
    ) -> dict[str, Any]:
        """Add positions `(N, 2)` as a group of uint16; `MISSING` is not finite."""
        missing = ~np.isfinite(places).all(axis=1)
        known = places[~missing].astype(np.float64)
        low = known.min(axis=0) if len(known) else np.zeros(2)
        span = known.max(axis=0) - low if len(known) else np.ones(2)
        scale = np.where(span > 0, span, 1) / (MISSING - 1)
        values = np.full(places.shape, MISSING, np.uint16)
        values[~missing] = np.round((known - low) / scale).astype(np.uint16)
        return self.add_group(name, values, scale, low.tolist(), at_once)


def _slices(number: int, step: int) -> Iterator[slice]:
    return (slice(start, start + step) for start in range(0, number, step))
