"""Groups of images that show one object and must be on one side of the split."""

import heapq
import logging
import sqlite3
from dataclasses import dataclass

from astromorph.filelist.duplicates import separation_arcsec, sky_cells, unit_vector
from astromorph.filelist.entries import GROUP_COLUMN, Entry
from astromorph.settings.sections import SplitSettings

LOG = logging.getLogger(__name__)
RADIUS_WITHOUT_SCALE = 1.0  # arcsec
MAX_RADIUS = 5 * 3600.0  # arcsec; images of the whole sky do not show one object
# An OBJECT of so many rows is considered the name of a survey or field.
MAX_ROWS_PER_OBJECT = 50
CELL_FACTOR = 4.0  # side of a sky cell over the radius


@dataclass(frozen=True, slots=True)
class Position:
    """A position on the sky and the radius within which images form a group."""

    ra_deg: float
    dec_deg: float
    radius_arcsec: float

    @property
    def vector(self) -> tuple[float, float, float]:
        """The unit vector."""
        return unit_vector(self.ra_deg, self.dec_deg)


class Groups:
    """Assigns rows to groups; each assignment depends on earlier rows only.

    Parameters
    ----------
    database : sqlite3.Connection
        An empty database, which stores the earlier rows.
    rules : SplitSettings
        The radius.
    """

    def __init__(self, database: sqlite3.Connection, rules: SplitSettings) -> None:
        self._database = database
        self._radius = rules.group_radius_arcsec
        self._cell_sides: set[float] = set()
        database.execute("CREATE TABLE objects (name PRIMARY KEY, key, rows)")
        database.execute("CREATE TABLE positions (cell, x, y, z, radius, key)")
        database.execute("CREATE INDEX cells ON positions (cell)")
        database.execute("CREATE TABLE groups (key PRIMARY KEY, rows, subset)")
        database.execute("CREATE TABLE keys (row INTEGER PRIMARY KEY, key)")

    def assign(
        self,
        row: int,
        entry: Entry,
        contents: dict[str, str],
        duplicate_of: int | None = None,
    ) -> str:
        """Find the group of a row.

        Parameters
        ----------
        row : int
            Number of the row; rows are assigned in order.
        entry : Entry
            The row of the file list.
        contents : dict of str to str
            The same row in the contents of the shard.
        duplicate_of : int, optional
            Number of the earlier row with the same image.

        Returns
        -------
        str
            The key of the group: its name if it has one, so that the key does not
            depend on other rows; or else the `image_id` of its first row.
        """
        if entry.columns.get(GROUP_COLUMN):
            key = f"group {entry.columns[GROUP_COLUMN]}"
        else:
            key = self._find_group(entry, contents, duplicate_of)
        self._database.execute("INSERT INTO keys VALUES (?, ?)", (row, key))
        return key

    def subset(self, key: str, default: str) -> str:
        """The side of a group, which its first row sets to `default`."""
        result = self._database.execute(
            "INSERT INTO groups VALUES (?, 1, ?) ON CONFLICT (key) DO UPDATE "
            "SET rows = rows + 1 RETURNING subset",
            (key, default),
        )
        return str(result.fetchone()[0])

    def largest(self) -> tuple[str, int]:
        """Key and number of rows of the largest group."""
        result = self._database.execute(
            "SELECT key, rows FROM groups ORDER BY rows DESC LIMIT 1"
        ).fetchone()
        return (str(result[0]), int(result[1])) if result else ("", 0)

    def _find_group(
        self, entry: Entry, contents: dict[str, str], duplicate_of: int | None
    ) -> str:
        position = self._position(contents)
        has_name = bool(contents["object"])
        name, key = f"object {contents['object']}", self._key_of_row(duplicate_of)
        rows = self._count_rows(name) if has_name else MAX_ROWS_PER_OBJECT
        if key is None and 0 < rows < MAX_ROWS_PER_OBJECT:
            key = self._key_of_object(name)
        if key is None and position:
            key = self._key_near(position)
        if key is None:
            key = name if rows == 0 else entry.image_id
        if has_name:
            self._add_object(name, key)
        if position:
            self._add_position(position, key)
        return key

    def _position(self, contents: dict[str, str]) -> Position | None:
        """The position of an image; None without one or with a radius of 0."""
        radius = self._radius
        if radius is None:
            half_field = float(contents["field_arcsec"] or 0) / 2
            radius = min(half_field or RADIUS_WITHOUT_SCALE, MAX_RADIUS)
        if not (contents["ra_deg"] and contents["dec_deg"] and radius > 0):
            return None
        return Position(float(contents["ra_deg"]), float(contents["dec_deg"]), radius)

    def _count_rows(self, name: str) -> int:
        """Number of earlier rows with this OBJECT; logs once if there are too many."""
        result = self._database.execute(
            "SELECT rows FROM objects WHERE name = ?", (name,)
        ).fetchone()
        rows = int(result[0]) if result else 0
        if rows == MAX_ROWS_PER_OBJECT:
            LOG.warning(
                "%s: more than %d images have this name; it is considered the name of "
                "a field or survey, and further images are grouped by position alone",
                name,
                MAX_ROWS_PER_OBJECT,
            )
        return rows

    def _key_of_row(self, row: int | None) -> str | None:
        result = self._database.execute("SELECT key FROM keys WHERE row = ?", (row,))
        key = result.fetchone()
        return str(key[0]) if key else None

    def _key_of_object(self, name: str) -> str:
        result = self._database.execute(
            "SELECT key FROM objects WHERE name = ?", (name,)
        )
        return str(result.fetchone()[0])

    def _add_object(self, name: str, key: str) -> None:
        self._database.execute(
            "INSERT INTO objects VALUES (?, ?, 1) ON CONFLICT (name) DO UPDATE "
            "SET rows = rows + 1",
            (name, key),
        )

    def _key_near(self, position: Position) -> str | None:
        """The key of the earliest row within the radius."""
        vector, radius = position.vector, position.radius_arcsec
        cells = [
            cell
            for side in sorted(self._cell_sides)
            for cell in _cell_names(position, min(radius, side), side)
        ]
        # The rows of each cell are read in order and only as far as necessary.
        earliest = heapq.merge(
            *(
                self._database.execute(
                    "SELECT rowid, x, y, z, radius, key FROM positions WHERE cell = ? "
                    "ORDER BY rowid",
                    (cell,),
                )
                for cell in cells
            )
        )
        for _, x, y, z, other_radius, key in earliest:
            if separation_arcsec(vector, (x, y, z)) <= min(radius, other_radius):
                return str(key)
        return None

    def _add_position(self, position: Position, key: str) -> None:
        radius, side = position.radius_arcsec, 1.0
        while side < radius:
            side *= 4
        self._cell_sides.add(side)
        self._database.executemany(
            "INSERT INTO positions VALUES (?, ?, ?, ?, ?, ?)",
            [
                (cell, *position.vector, radius, key)
                for cell in _cell_names(position, radius, side)
            ],
        )


def _cell_names(position: Position, radius_arcsec: float, side: float) -> list[str]:
    """Names of the cells, `CELL_FACTOR` times `side` wide, within a radius."""
    cells = sky_cells(
        position.ra_deg,
        position.dec_deg,
        radius_arcsec / 3600,
        CELL_FACTOR * side / 3600,
    )
    return [f"{side:g} {row} {column}" for row, column in cells]
