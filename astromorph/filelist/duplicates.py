"""Rows that show what an earlier row shows, found without holding them in memory."""

import hashlib
import math
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import Any

from astromorph.artefacts.tables import REJECTED

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
MAX_MATCH_RADIUS = 36_000.0  # arcsec; a beam or pixel larger than 10 degrees is wrong
ROWS_AT_ONCE = 4096
BETWEEN = "\0"  # paths; none has it

Identify = Callable[[Sequence[str]], str | None]
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
    ...         found.add(row, [key_of(SAME_CONTENT, text)], [f"{row}.fits"])
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
        database.execute("CREATE TABLE kept (key, row, x, y, z, reach)")
        database.execute("CREATE INDEX kept_keys ON kept (key)")

    def add(self, row: int, keys: Iterable[Key], paths: Sequence[str]) -> None:
        """Note the keys and the files of a row; one without keys repeats nothing."""
        waiting = [(kind, key, row, *rest) for kind, key, *rest in keys]
        if waiting:
            self._paths.append((row, BETWEEN.join(paths)))
            self._waiting += waiting
        if len(self._waiting) >= ROWS_AT_ONCE:
            self._flush()

    def matches(self, identify: Identify | None = None) -> Iterator[Match]:
        """The rows that repeat an earlier one, in order.

        Parameters
        ----------
        identify : callable, optional
            ``identify(paths)``, asked once for each row whose keys make
            `SAME_CONTENT` likely: rows are alike where what it gives is; with
            None a row is like no other.

        Yields
        ------
        Match
            One per row: the strongest kind, with the earliest row, which repeats
            none itself.
        """
        self._flush()
        for kind in (SAME_FILE, SAME_CONTENT):
            for _, group in groupby(self._shared(kind, "key, row"), itemgetter(0)):
                alike = self._alike([row for _, row, *_ in group], kind, identify)
                self._note(alike, kind)
        for row, cells_of in groupby(self._shared(SAME_PLACE, "row"), itemgetter(1)):
            self._note(self._near(row, list(cells_of)), SAME_PLACE)
        for found in self._database.execute(
            "SELECT found.row, first, kind, path FROM found JOIN paths "
            "ON paths.row = first ORDER BY found.row"
        ):
            row, first, kind, paths = found
            yield Match(row, first, kind, paths.partition(BETWEEN)[0])

    def _shared(self, kind: int, order: str) -> Iterable[tuple[Any, ...]]:
        """The keys of a kind that several rows have."""
        return self._database.execute(
            "SELECT key, row, x, y, z, reach FROM keys WHERE kind = ? AND key IN "
            "(SELECT key FROM keys WHERE kind = ? GROUP BY key HAVING COUNT(*) > 1) "
            f"ORDER BY {order}",
            (kind, kind),
        )

    def _note(self, pairs: Iterable[tuple[int, int]], kind: int) -> None:
        self._database.executemany(
            "INSERT OR IGNORE INTO found VALUES (?, ?, ?)",
            [(*pair, kind) for pair in pairs],
        )

    def _alike(
        self, rows: Iterable[int], kind: int, identify: Identify | None
    ) -> Iterator[tuple[int, int]]:
        """Of the rows with one key, those that repeat an earlier one, with it."""
        firsts: dict[str, int] = {}
        for row in rows:
            name: str | None = ""
            if kind == SAME_CONTENT and identify is not None:
                name = identify(self._paths_of(row))
            if name is not None and firsts.setdefault(name, row) != row:
                yield row, firsts[name]

    def _near(
        self, row: int, places: Sequence[tuple[Any, ...]]
    ) -> list[tuple[int, int]]:
        """The row with the earliest that is close and repeats none itself."""
        known = self._database.execute("SELECT 1 FROM found WHERE row = ?", (row,))
        if known.fetchone():
            return []
        firsts = []
        for key, _, *here, reach in places:
            for first, *there, other in self._database.execute(
                "SELECT row, x, y, z, reach FROM kept WHERE key = ? ORDER BY rowid",
                (key,),
            ):
                if _arcsec(here, there) <= min(reach, other):
                    firsts.append(first)
                    break
        if firsts:
            return [(row, min(firsts))]
        self._database.executemany("INSERT INTO kept VALUES (?, ?, ?, ?, ?, ?)", places)
        return []

    def _paths_of(self, row: int) -> list[str]:
        found = self._database.execute("SELECT path FROM paths WHERE row = ?", (row,))
        return str(found.fetchone()[0]).split(BETWEEN)

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


def mark_duplicate(reason: str, match: Match, drop: bool) -> dict[str, str]:
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


def text_key(kind: int, text: str) -> Key:
    """The key of rows that are alike where their text is."""
    return kind, _hash(text), 0.0, 0.0, 0.0, 0.0


def match_radius(beam_arcsec: float | None, pixel_scale_arcsec: float | None) -> float:
    """How close two positions are one, in arcseconds: the beam, or two pixels."""
    reach = beam_arcsec or PIXELS_WITHOUT_BEAM * (pixel_scale_arcsec or 0)
    return min(reach or ARCSEC_WITHOUT_SCALE, MAX_MATCH_RADIUS)


def position_keys(
    ra_deg: float | None, dec_deg: float | None, band: str, reach_arcsec: float
) -> list[Key]:
    """The keys of a position: of each cell of the sky that is within reach.

    Two rows meet in a cell where their bands are the same and one reach is less
    than 1.4 times the other.
    """
    if ra_deg is None or dec_deg is None:
        return []
    x, y, z = vector(ra_deg, dec_deg)
    reach_arcsec = min(max(reach_arcsec, 1e-3), MAX_MATCH_RADIUS)
    octave = math.log2(reach_arcsec)
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
    return _arcsec(one, other)


def _arcsec(one: Sequence[float], other: Sequence[float]) -> float:
    chord = math.dist(one, other)
    return math.degrees(2 * math.asin(min(1.0, chord / 2))) * 3600


def _band(dec_deg: float, bands: int) -> int:
    return min(bands - 1, max(0, math.floor((dec_deg + 90) / 180 * bands)))


def _hash(text: str) -> int:
    data = hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=8)
    return int.from_bytes(data.digest(), "big", signed=True)
