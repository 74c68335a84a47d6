"""Rows that show the same image as an earlier row, found in constant memory."""

import hashlib
import math
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import Any

from astromorph.artefacts.columns import REJECTED
from astromorph.system.files import split_hdu
from astromorph.system.temporary import temporary_database

SAME_FILE, SAME_CONTENT, SAME_POSITION = 0, 1, 2
DESCRIPTIONS = {
    SAME_FILE: "the same file as",
    SAME_CONTENT: "the same content as",
    SAME_POSITION: "the same position and band, within the beam, as",
}
DUPLICATE = "duplicate: "
DROPPED = f"{DUPLICATE}left out, "
CELL_FACTOR = 8.0  # side of a sky cell divided by the match radius
PIXELS_WITHOUT_BEAM = 2.0
ARCSEC_WITHOUT_SCALE = 1.0
MAX_MATCH_RADIUS = 36_000.0  # arcsec; a beam or pixel above 10 degrees is an error
INSERT_CHUNK = 4096  # rows
READ_CHUNK = 2**20  # bytes
PATH_SEPARATOR = "\0"  # cannot occur in a path
# Of each file at most so many bytes are compared: a file up to this size completely, of
# a longer one parts of equal length, evenly spaced from its first byte to its last.
MAX_COMPARED_BYTES = 2**28
COMPARED_PARTS = 1024

ContentId = Callable[[Sequence[str]], str | None]
Key = tuple[int, int, float, float, float, float]  # kind, hash, x, y, z, radius
Vector = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Match:
    """A row that repeats an earlier one.

    Attributes
    ----------
    row, first : int
        Row numbers in the list; `first` is the earlier one.
    kind : int
        `SAME_FILE`, `SAME_CONTENT` or `SAME_POSITION`.
    first_path : str
        The file of the earlier row.
    """

    row: int
    first: int
    kind: int
    first_path: str


class DuplicateFinder:
    """Finds repeated rows; their keys are stored in a temporary file.

    Examples
    --------
    >>> with duplicate_finder() as finder:
    ...     for row, text in enumerate(["a", "b", "a"]):
    ...         finder.add(row, [text_key(SAME_CONTENT, text)], [f"{row}.fits"])
    ...     [(match.row, match.first) for match in finder.matches()]
    [(2, 0)]
    """

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database
        self._pending_keys: list[tuple[Any, ...]] = []
        self._pending_paths: list[tuple[int, bytes]] = []
        database.execute("CREATE TABLE keys (kind, key, row, x, y, z, radius)")
        database.execute("CREATE TABLE paths (row INTEGER PRIMARY KEY, path)")
        database.execute(
            "CREATE TABLE duplicates (row INTEGER PRIMARY KEY, first, kind)"
        )
        database.execute("CREATE TABLE originals (key, row, x, y, z, radius)")
        database.execute("CREATE INDEX original_keys ON originals (key)")

    def add(self, row: int, keys: Iterable[Key], paths: Sequence[str]) -> None:
        """Store the keys and files of a row; a row without keys has no duplicates."""
        values = [(kind, key, row, *rest) for kind, key, *rest in keys]
        if values:
            # As bytes: a path need not be UTF-8, but a text in SQLite must be.
            joined = os.fsencode(PATH_SEPARATOR.join(paths))
            self._pending_paths.append((row, joined))
            self._pending_keys += values
        if len(self._pending_keys) >= INSERT_CHUNK:
            self._insert_pending()

    def matches(self, content_id: ContentId | None = None) -> Iterator[Match]:
        """The rows that repeat an earlier one, in order.

        Parameters
        ----------
        content_id : callable, optional
            ``content_id(paths)``, such as `content_digest`, called once for each row
            whose keys suggest `SAME_CONTENT`, unless its file is listed before. Rows
            have the same content if its results are equal; a row with None equals no
            other.

        Yields
        ------
        Match
            One per row: the strongest kind, with the earliest row, which itself
            repeats no other.
        """
        self._insert_pending()
        for kind in (SAME_FILE, SAME_CONTENT):
            for _, group in groupby(self._shared_keys(kind, "key, row"), itemgetter(0)):
                rows = [row for _, row, *_ in group]
                self._store(self._equal_rows(rows, kind, content_id), kind)
        positions = self._shared_keys(SAME_POSITION, "row")
        for row, row_positions in groupby(positions, itemgetter(1)):
            self._store(self._near_row(row, list(row_positions)), SAME_POSITION)
        for row, first, kind, paths in self._database.execute(
            "SELECT duplicates.row, first, kind, path FROM duplicates JOIN paths "
            "ON paths.row = first ORDER BY duplicates.row"
        ):
            first_path = os.fsdecode(paths).partition(PATH_SEPARATOR)[0]
            yield Match(row, first, kind, first_path)

    def _shared_keys(self, kind: int, order: str) -> Iterable[tuple[Any, ...]]:
        """The keys of a kind that several rows have."""
        return self._database.execute(
            "SELECT key, row, x, y, z, radius FROM keys WHERE kind = ? AND key IN "
            "(SELECT key FROM keys WHERE kind = ? GROUP BY key HAVING COUNT(*) > 1) "
            f"ORDER BY {order}",
            (kind, kind),
        )

    def _store(self, pairs: Iterable[tuple[int, int]], kind: int) -> None:
        self._database.executemany(
            "INSERT OR IGNORE INTO duplicates VALUES (?, ?, ?)",
            [(*pair, kind) for pair in pairs],
        )

    def _equal_rows(
        self, rows: Iterable[int], kind: int, content_id: ContentId | None
    ) -> Iterator[tuple[int, int]]:
        """Pairs of a row and the earlier one that it repeats, of rows with one key."""
        firsts: dict[str, int] = {}
        for row in rows:
            if kind == SAME_CONTENT and self._is_duplicate(row):
                continue  # the same file as an earlier row, which has the same key
            content: str | None = ""
            if kind == SAME_CONTENT and content_id is not None:
                content = content_id(self._paths(row))
            if content is not None and firsts.setdefault(content, row) != row:
                yield row, firsts[content]

    def _near_row(
        self, row: int, positions: Sequence[tuple[Any, ...]]
    ) -> list[tuple[int, int]]:
        """The row and the earliest nearby row that itself repeats no other."""
        if self._is_duplicate(row):
            return []
        firsts = []
        for key, _, *vector, radius in positions:
            for first, *other_vector, other_radius in self._database.execute(
                "SELECT row, x, y, z, radius FROM originals WHERE key = ? "
                "ORDER BY rowid",
                (key,),
            ):
                if separation_arcsec(vector, other_vector) <= min(radius, other_radius):
                    firsts.append(first)
                    break
        if firsts:
            return [(row, min(firsts))]
        self._database.executemany(
            "INSERT INTO originals VALUES (?, ?, ?, ?, ?, ?)", positions
        )
        return []

    def _is_duplicate(self, row: int) -> bool:
        known = self._database.execute("SELECT 1 FROM duplicates WHERE row = ?", (row,))
        return known.fetchone() is not None

    def _paths(self, row: int) -> list[str]:
        result = self._database.execute("SELECT path FROM paths WHERE row = ?", (row,))
        return os.fsdecode(result.fetchone()[0]).split(PATH_SEPARATOR)

    def _insert_pending(self) -> None:
        self._database.executemany(
            "INSERT INTO keys VALUES (?, ?, ?, ?, ?, ?, ?)", self._pending_keys
        )
        self._database.executemany(
            "INSERT INTO paths VALUES (?, ?)", self._pending_paths
        )
        self._pending_keys.clear()
        self._pending_paths.clear()


@contextmanager
def duplicate_finder() -> Iterator[DuplicateFinder]:
    """A `DuplicateFinder` whose temporary file is removed afterwards."""
    with temporary_database() as database:
        yield DuplicateFinder(database)


def mark_duplicate(reason: str, match: Match, drop: bool) -> dict[str, str]:
    """Status and reason of a row that repeats an earlier one.

    Parameters
    ----------
    reason : str
        The reason that the row already has.
    match : Match
        The row that it repeats.
    drop : bool
        Whether it is left out.
    """
    description = f"{DESCRIPTIONS[match.kind]} {match.first_path}"
    if drop:
        return {"status": REJECTED, "reason": DROPPED + description}
    prefix = f"{reason}; " if reason else ""
    return {"status": "warning", "reason": prefix + DUPLICATE + description}


def text_key(kind: int, text: str) -> Key:
    """The key of rows that are equal if their texts are equal."""
    return kind, _hash(text), 0.0, 0.0, 0.0, 0.0


def content_digest(paths: Sequence[str]) -> str | None:
    """A digest of the sizes, contents and listed HDUs of files.

    A file of up to `MAX_COMPARED_BYTES` (256 MiB) is read completely. Of a longer one,
    1024 parts of 256 KiB are read, evenly spaced and including its beginning and its
    end: two such files with equal digests have the same size and agree in these parts,
    which include the header, but may differ elsewhere.

    Parameters
    ----------
    paths : sequence of str
        The files of a row.

    Returns
    -------
    str or None
        None if a file cannot be read.
    """
    digests = []
    try:
        for path in paths:
            name, hdu = split_hdu(path)
            with open(name, "rb", buffering=0) as file:
                size = os.fstat(file.fileno()).st_size
                sha = hashlib.blake2b(f"{size} {hdu}".encode())
                for start, length in _compared_ranges(size):
                    _hash_range(file.fileno(), start, length, sha)
                digests.append(sha.hexdigest())
    except OSError:
        return None
    return " ".join(digests)


def _compared_ranges(size: int) -> Iterator[tuple[int, int]]:
    """First byte and length of the parts of a file that are compared."""
    if size <= MAX_COMPARED_BYTES:
        yield 0, size
        return
    length = MAX_COMPARED_BYTES // COMPARED_PARTS
    for part in range(COMPARED_PARTS):
        yield part * (size - length) // (COMPARED_PARTS - 1), length


def _hash_range(file: int, start: int, length: int, sha: Any) -> None:
    """Add a part of a file to a digest; a file that has become shorter ends it."""
    while length > 0 and (data := os.pread(file, min(length, READ_CHUNK), start)):
        sha.update(data)
        start, length = start + len(data), length - len(data)


def match_radius(beam_arcsec: float | None, pixel_scale_arcsec: float | None) -> float:
    """The separation in arcseconds up to which positions count as equal.

    This is the beam, or two pixels.
    """
    radius = beam_arcsec or PIXELS_WITHOUT_BEAM * (pixel_scale_arcsec or 0)
    return min(radius or ARCSEC_WITHOUT_SCALE, MAX_MATCH_RADIUS)


def position_keys(
    ra_deg: float | None,
    dec_deg: float | None,
    band: str,
    radius_arcsec: float,
    plane: str = "",
) -> list[Key]:
    """The keys of a position: one for each cell of the sky within the match radius.

    Two rows share a cell if their bands are known and the same, their planes (Stokes
    parameter, spectral coordinate and time) are the same, and neither match radius is
    more than 1.4 times the other.
    """
    if ra_deg is None or dec_deg is None or not band:
        return []
    x, y, z = unit_vector(ra_deg, dec_deg)
    radius_arcsec = min(max(radius_arcsec, 1e-3), MAX_MATCH_RADIUS)
    octave = math.log2(radius_arcsec)
    keys: list[Key] = []
    for grid, level in ((0, math.floor(octave)), (1, math.floor(octave + 0.5))):
        side_deg = CELL_FACTOR * 2.0 ** (level + 1) / 3600
        name = f"{band}\0{plane}\0{grid} {level}"
        keys += [
            (SAME_POSITION, _hash(f"{name} {cell}"), x, y, z, radius_arcsec)
            for cell in sky_cells(ra_deg, dec_deg, radius_arcsec / 3600, side_deg)
        ]
    return keys


def sky_cells(
    ra_deg: float, dec_deg: float, radius_deg: float, side_deg: float
) -> Iterator[tuple[int, int]]:
    """Cells of the sky, about `side_deg` wide, that a circle overlaps.

    Yields
    ------
    row, column : int
        Counted in declination from the south pole and in right ascension from 0.
    """
    bands = max(1, math.floor(180 / side_deg))
    first_row = _declination_band(dec_deg - radius_deg, bands)
    last_row = _declination_band(dec_deg + radius_deg, bands)
    for row in range(first_row, last_row + 1):
        edges_deg = (180 * row / bands - 90, 180 * (row + 1) / bands - 90)
        cosine = max(0.0, min(math.cos(math.radians(edge)) for edge in edges_deg))
        columns_in_row = max(1, math.floor(360 * cosine / side_deg))
        # Meridians converge: in right ascension the circle is widest where it is
        # closest to the pole.
        max_dec = max(abs(dec_deg - radius_deg), abs(dec_deg + radius_deg))
        cosine = math.cos(math.radians(min(90.0, max_dec)))
        half_width = radius_deg / max(cosine, 1e-9)
        if columns_in_row == 1 or half_width >= 180:
            yield from ((row, column) for column in range(columns_in_row))
            continue
        left = math.floor((ra_deg - half_width) / 360 * columns_in_row)
        right = math.floor((ra_deg + half_width) / 360 * columns_in_row)
        columns = {column % columns_in_row for column in range(left, right + 1)}
        yield from ((row, column) for column in sorted(columns))


def unit_vector(ra_deg: float, dec_deg: float) -> Vector:
    """The unit vector of a position."""
    ra, dec = math.radians(ra_deg), math.radians(dec_deg)
    cosine = math.cos(dec)
    return cosine * math.cos(ra), cosine * math.sin(ra), math.sin(dec)


def separation_arcsec(first: Sequence[float], second: Sequence[float]) -> float:
    """Angle between two unit vectors in arcseconds, accurate for small angles."""
    chord = math.dist(first, second)
    return math.degrees(2 * math.asin(min(1.0, chord / 2))) * 3600


def _declination_band(dec_deg: float, bands: int) -> int:
    return min(bands - 1, max(0, math.floor((dec_deg + 90) / 180 * bands)))


def _hash(text: str) -> int:
    """A hash that is the same in every process, as a signed 64-bit integer."""
    data = hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=8)
    return int.from_bytes(data.digest(), "big", signed=True)
