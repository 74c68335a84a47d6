"""Rows that show what an earlier row shows, found without holding them in memory."""

import hashlib
import math
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import Any

from astromorph.artefacts import REJECTED

SAME_FILE, SAME_CONTENT, SAME_PLACE = 0, 1, 2
WORDS = {
    SAME_FILE: "the same file as",
    SAME_CONTENT: "the same content as",
    SAME_PLACE: "the same position and band, within the beam, as",
}
DUPLICATE = "duplicate: "
DROPPED = f"{DUPLICATE}left out, "
CELL = 8.0  # side of a cell of the sky over the distance that matters
PIXELS_WITHOUT_BEAM = 2.0
ARCSEC_WITHOUT_SCALE = 1.0
ROWS_AT_ONCE = 4096

Confirm = Callable[[str, str], bool]
Key = tuple[int, int, float, float, float, float]  # kind, key, x, y, z, reach


@dataclass(frozen=True, slots=True)
class Match:
    """A row that repeats an earlier one.

    Attributes
    ----------
    row, first : int
        Row numbers of the list; `first` is the earlier one.
    kind : int
        `SAME_FILE`, `SAME_CONTENT` or `SAME_PLACE`.
    first_path : str
        The earlier row's file.
    """

    row: int
    first: int
    kind: int
    first_path: str


class Finder:
    """Finds repeated rows; holds their keys in a temporary file.

    Examples
    --------
    >>> with finder() as found:
    ...     for row, text in enumerate(["a", "b", "a"]):
    ...         found.add(row, [key_of(SAME_CONTENT, text)], f"{row}.fits")
    ...     [(match.row, match.first) for match in found.matches()]
    [(2, 0)]
    """

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database
        self._waiting: list[tuple[Any, ...]] = []
        self._paths: list[tuple[int, str]] = []
        database.execute("CREATE TABLE keys (kind, key, row, x, y, z, reach)")
        database.execute("CREATE TABLE paths (row INTEGER PRIMARY KEY, path)")
        database.execute("CREATE TABLE found (row INTEGER PRIMARY KEY, first, kind)")

    def add(self, row: int, keys: Iterable[Key], path: str) -> None:
        """Note the keys and the file of a row."""
        self._paths.append((row, path))
        self._waiting += [(kind, key, row, *rest) for kind, key, *rest in keys]
        if len(self._waiting) >= ROWS_AT_ONCE:
            self._flush()

    def matches(self, confirm: Confirm | None = None) -> Iterator[Match]:
        """The rows that repeat an earlier one, in order.

        Parameters
        ----------
        confirm : callable, optional
            ``confirm(path, first_path)``, asked where equal keys make
            `SAME_CONTENT` only likely.

        Yields
        ------
        Match
            One per row: the strongest kind, with the earliest row.
        """
        self._flush()
        for kind in (SAME_FILE, SAME_CONTENT, SAME_PLACE):
            rows = self._database.execute(
                "SELECT key, row, x, y, z, reach FROM keys WHERE kind = ? AND key IN "
                "(SELECT key FROM keys WHERE kind = ? GROUP BY key HAVING COUNT(*) > 1)"
                " ORDER BY key, row",
                (kind, kind),
            )
            for _, group in groupby(rows, itemgetter(0)):
                self._database.executemany(
                    "INSERT INTO found VALUES (?, ?, ?) ON CONFLICT (row) DO UPDATE "
                    "SET first = min(first, excluded.first) WHERE kind = excluded.kind",
                    [(*pair, kind) for pair in self._alike(group, kind, confirm)],
                )
        for found in self._database.execute(
            "SELECT found.row, first, kind, path FROM found JOIN paths "
            "ON paths.row = first ORDER BY found.row"
        ):
            yield Match(*found)

    def _alike(
        self, group: Iterable[Any], kind: int, confirm: Confirm | None
    ) -> Iterator[tuple[int, int]]:
        """Of the rows with one key, those that repeat an earlier one, with it."""
        kept: list[tuple[int, tuple[float, float, float], float]] = []
        for _, row, x, y, z, reach in group:
            here = (x, y, z)
            for first, there, other in kept:
                if kind == SAME_PLACE:
                    same = arcsec_between(here, there) <= min(reach, other)
                elif kind == SAME_CONTENT and confirm is not None:
                    same = confirm(self._path(row), self._path(first))
                else:
                    same = True
                if same:
                    yield row, first
                    break
            else:
                kept.append((row, here, reach))

    def _path(self, row: int) -> str:
        found = self._database.execute("SELECT path FROM paths WHERE row = ?", (row,))
        return str(found.fetchone()[0])

    def _flush(self) -> None:
        self._database.executemany(
            "INSERT INTO keys VALUES (?, ?, ?, ?, ?, ?, ?)", self._waiting
        )
        self._database.executemany("INSERT INTO paths VALUES (?, ?)", self._paths)
        self._waiting.clear()
        self._paths.clear()


@contextmanager
def finder() -> Iterator[Finder]:
    """A `Finder`; what it wrote is gone afterwards."""
    database = sqlite3.connect("")  # a temporary file, once it outgrows the cache
    try:
        database.execute("PRAGMA temp_store = FILE")
        yield Finder(database)
    finally:
        database.close()


def mark(reason: str, match: Match, drop: bool) -> dict[str, str]:
    """Status and reason of a row that repeats an earlier one.

    Parameters
    ----------
    reason : str
        What was odd about the row before.
    match : Match
        What it repeats.
    drop : bool
        Whether it is left out.
    """
    words = f"{WORDS[match.kind]} {match.first_path}"
    if drop:
        return {"status": REJECTED, "reason": DROPPED + words}
    before = f"{reason}; " if reason else ""
    return {"status": "warning", "reason": before + DUPLICATE + words}


def key_of(kind: int, text: str) -> Key:
    """The key of rows that are alike where their text is."""
    return kind, _hash(text), 0.0, 0.0, 0.0, 0.0


def reach_of(beam_arcsec: float | None, pixel_scale_arcsec: float | None) -> float:
    """How close two positions are one, in arcseconds: the beam, or two pixels."""
    if beam_arcsec:
        return beam_arcsec
    if pixel_scale_arcsec:
        return PIXELS_WITHOUT_BEAM * pixel_scale_arcsec
    return ARCSEC_WITHOUT_SCALE


def place_keys(
    ra_deg: float | None, dec_deg: float | None, band: str, reach_arcsec: float
) -> list[Key]:
    """The keys of a position: of each cell of the sky that is within reach.

    Two rows meet in a cell where their bands are the same and one reach is less
    than 1.4 times the other.
    """
    if ra_deg is None or dec_deg is None:
        return []
    x, y, z = vector(ra_deg, dec_deg)
    octave = math.log2(max(reach_arcsec, 1e-3))
    found: list[Key] = []
    for grid, level in ((0, math.floor(octave)), (1, math.floor(octave + 0.5))):
        side_deg = CELL * 2.0 ** (level + 1) / 3600
        name = f"{band} {grid} {level}"
        found += [
            (SAME_PLACE, _hash(f"{name} {cell}"), x, y, z, reach_arcsec)
            for cell in cells(ra_deg, dec_deg, reach_arcsec / 3600, side_deg)
        ]
    return found


def cells(
    ra_deg: float, dec_deg: float, reach_deg: float, side_deg: float
) -> Iterator[tuple[int, int]]:
    """Cells of the sky, about `side_deg` wide, that a circle touches."""
    bands = max(1, math.floor(180 / side_deg))
    first = _band(dec_deg - reach_deg, bands)
    for row in range(first, _band(dec_deg + reach_deg, bands) + 1):
        edges = (180 * row / bands - 90, 180 * (row + 1) / bands - 90)
        across = max(0.0, min(math.cos(math.radians(edge)) for edge in edges))
        number = max(1, math.floor(360 * across / side_deg))
        # Meridians converge: the circle is wider in right ascension, at the most
        # where it is closest to the pole.
        far = min(90.0, max(abs(dec_deg - reach_deg), abs(dec_deg + reach_deg)))
        wide = reach_deg / max(math.cos(math.radians(far)), 1e-9)
        if number == 1 or wide >= 180:
            yield from ((row, column) for column in range(number))
            continue
        left = math.floor((ra_deg - wide) / 360 * number)
        right = math.floor((ra_deg + wide) / 360 * number)
        columns = {column % number for column in range(left, right + 1)}
        yield from ((row, column) for column in sorted(columns))


def vector(ra_deg: float, dec_deg: float) -> tuple[float, float, float]:
    """The unit vector of a position."""
    ra, dec = math.radians(ra_deg), math.radians(dec_deg)
    cosine = math.cos(dec)
    return cosine * math.cos(ra), cosine * math.sin(ra), math.sin(dec)


def arcsec_between(
    one: tuple[float, float, float], other: tuple[float, float, float]
) -> float:
    """Angle between unit vectors, exact for small ones too."""
    chord = math.dist(one, other)
    return math.degrees(2 * math.asin(min(1.0, chord / 2))) * 3600


def _band(dec_deg: float, bands: int) -> int:
    return min(bands - 1, max(0, math.floor((dec_deg + 90) / 180 * bands)))


def _hash(text: str) -> int:
    data = hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=8)
    return int.from_bytes(data.digest(), "big", signed=True)
