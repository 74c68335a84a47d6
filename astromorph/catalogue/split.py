"""The step `split`: which images are used for training and which for testing."""

import hashlib
import heapq
import logging
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from astromorph.artefacts import tables as artefacts
from astromorph.artefacts.columns import (
    CONTENTS_COLUMNS,
    EMBED,
    NONE,
    REJECTED,
    SPLIT_COLUMNS,
    TEST,
    TRAIN,
)
from astromorph.artefacts.run_files import RunFiles
from astromorph.atomic import atomic_write
from astromorph.catalogue.summary import MIN_IMAGES, Summary, stop_if_bad
from astromorph.errors import AstromorphError
from astromorph.filelist.duplicates import (
    SAME_CONTENT,
    Key,
    Match,
    duplicate_finder,
    mark_duplicate,
    position_keys,
    separation_arcsec,
    sky_cells,
    text_key,
    unit_vector,
)
from astromorph.filelist.entries import (
    GROUP_COLUMN,
    Entry,
    read_filelist,
    requested_subset,
)
from astromorph.settings.sections import SplitSettings, ValidateSettings
from astromorph.system.temporary import temporary_database

LOG = logging.getLogger(__name__)
LARGE_GROUP = 0.2  # share of the images above which a group causes a warning
RADIUS_WITHOUT_SCALE = 1.0  # arcsec
MAX_RADIUS = 5 * 3600.0  # arcsec; images of the whole sky do not show one object
# An OBJECT with this many rows is considered the name of a survey or field.
MAX_ROWS_PER_OBJECT = 50
CELL_FACTOR = 4.0  # side of a sky cell divided by the radius


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
        """The subset of a group, which its first row sets to `default`."""
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
        # The rows of each cell are read in order, and no further than necessary.
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


def split(
    datafile: str | Path,
    files: RunFiles,
    rules: SplitSettings,
    validation: ValidateSettings,
    seed: int,
) -> None:
    """Assign each usable image to the training set or the test set.

    All images of one object are in the same subset, which is determined by a hash of
    the seed and of the name of the group, or of the `image_id` of its first row. Images
    show one object if they have the same `group`, if the list has this column, or
    otherwise if they have the same name or are within the radius of an earlier image.
    Appended rows do not change the subset of earlier ones. A column `split` of the list
    takes precedence.

    Images that add nothing to the training are only embedded: those in which all pixels
    have the same value, and those that repeat an earlier image pixel by pixel.

    Parameters
    ----------
    datafile : path
        The file list.
    files : RunFiles
        Reads `all_contents`, the usable images of each shard, and writes `split`, a CSV
        with a row for each row of the list: `subset` is train, test, embed or
        none, and `reason` says why it is `embed` or `none`.
    rules : SplitSettings
        Fraction of the test set and radius of groups.
    validation : ValidateSettings
        How bad files and duplicates are treated.
    seed : int
        Seed of the assignment.

    Raises
    ------
    AstromorphError
        Too few images remain, a cell of the column `split` is invalid, or the contents
        do not match the list.
    """
    summary, counts = Summary(str(datafile)), Counter[str]()
    drop = validation.on_duplicate == "drop"
    rows = _assign_rows(datafile, files, rules, drop, seed)
    rows = _count_subsets(summary.pass_through(rows), counts)
    with atomic_write(files.split) as temporary:
        artefacts.write_csv(temporary, SPLIT_COLUMNS, rows)
        stop_if_bad(summary, validation)
        if counts[TRAIN] < MIN_IMAGES:
            LOG.warning(
                "only %d of %d images were assigned to the training set; all images "
                "are used for training and none for testing",
                counts[TRAIN],
                summary.usable,
            )
            counts[TRAIN] += counts[TEST] + counts[EMBED]
            counts[TEST] = counts[EMBED] = 0
            rows = _move_to_training(artefacts.read_csv(temporary))
            artefacts.write_csv(temporary, SPLIT_COLUMNS, rows)
    LOG.info(
        "%d images for training, %d for testing, %d only embedded, %d not used",
        counts[TRAIN],
        counts[TEST],
        counts[EMBED],
        counts[NONE],
    )
    for line in list(summary.lines())[1:]:
        LOG.info("%s", line)


def random_fraction(seed: int, key: str) -> float:
    """A number from 0 to below 1 that depends only on the seed and the key."""
    number = hashlib.sha256(f"{seed}\0{key}".encode()).digest()[:8]
    return int.from_bytes(number, "big") / 2**64


def _assign_rows(
    datafile: str | Path, files: RunFiles, rules: SplitSettings, drop: bool, seed: int
) -> Iterator[dict[str, str]]:
    """The rows of the split, one at a time."""
    with duplicate_finder() as duplicates, temporary_database() as database:
        for number, (_, entry, contents) in enumerate(_read_rows(datafile, files)):
            # A copy of an image that the list excludes is used like any other image.
            if contents["status"] != REJECTED and requested_subset(entry) != NONE:
                duplicates.add(number, _duplicate_keys(contents), [contents["path"]])
        groups, usable = Groups(database, rules), 0
        rows = _with_matches(_read_rows(datafile, files), duplicates.matches())
        for number, ((shard, entry, contents), match) in enumerate(rows):
            state = {"status": contents["status"], "reason": contents["reason"]}
            duplicate_of = None
            if match is not None:
                state = mark_duplicate(contents["reason"], match, drop)
                duplicate_of = match.first if match.kind == SAME_CONTENT else None
            subset, group = NONE, ""
            if state["status"] != REJECTED:
                key = groups.assign(number, entry, contents, duplicate_of)
                subset, group = _choose_subset(entry, groups, key, rules, seed)
                repeats = duplicate_of is not None
                if subset != NONE and (repeats or not contents["content"]):
                    subset = requested_subset(entry) or EMBED
                usable += 1
            yield {
                "image_id": contents["image_id"],
                "path": contents["path"],
                **state,
                "subset": subset,
                "group": group,
                "shard": shard,
                "position": contents["position"],
            }
        _warn_of_large_group(groups, usable)


def _choose_subset(
    entry: Entry, groups: Groups, key: str, rules: SplitSettings, seed: int
) -> tuple[str, str]:
    """The subset of an image, and the key of its group."""
    requested = requested_subset(entry)
    if requested == NONE:
        return NONE, ""
    random = TEST if random_fraction(seed, key) < rules.test_fraction else TRAIN
    subset = groups.subset(key, requested or random)
    return requested or subset, key


def _warn_of_large_group(groups: Groups, usable: int) -> None:
    key, rows = groups.largest()
    if rows > max(1, LARGE_GROUP * usable):
        LOG.warning(
            "%d of %d images count as one object (%s) and are in one subset; if they "
            "show several objects, add a column `group` to the list, or set "
            "`split_settings.group_radius_arcsec`",
            rows,
            usable,
            key,
        )


def _duplicate_keys(contents: dict[str, str]) -> list[Key]:
    """Keys for finding duplicates of an image."""
    keys = []
    if contents["content"]:
        keys.append(text_key(SAME_CONTENT, contents["content"]))
    if contents["ra_deg"] and contents["dec_deg"]:
        position = float(contents["ra_deg"]), float(contents["dec_deg"])
        radius = float(contents["reach_arcsec"])
        keys += position_keys(*position, contents["band"], radius, contents["plane"])
    return keys


def _read_rows(
    datafile: str | Path, files: RunFiles
) -> Iterator[tuple[str, Entry, dict[str, str]]]:
    """Shard, row of the list and row of the contents, for each row."""
    entries = read_filelist(datafile)
    for shard in files.shards:
        for contents in artefacts.read_csv(files.contents(shard), CONTENTS_COLUMNS):
            entry = next(entries, None)
            if entry is None or entry.image_id != contents["image_id"]:
                raise AstromorphError(
                    f"{datafile} and the tensors of shard {shard} do not list the same "
                    "images; run preprocess again"
                )
            yield shard, entry, contents
    if next(entries, None) is not None:
        raise AstromorphError(
            f"{datafile} lists more images than there are tensors; run preprocess again"
        )


def _with_matches(
    rows: Iterable[tuple[str, Entry, dict[str, str]]], matches: Iterator[Match]
) -> Iterator[tuple[tuple[str, Entry, dict[str, str]], Match | None]]:
    """Each row with the match that marks it as a duplicate, if there is one."""
    match = next(matches, None)
    for number, row in enumerate(rows):
        if match is not None and match.row == number:
            yield row, match
            match = next(matches, None)
        else:
            yield row, None


def _count_subsets(
    rows: Iterable[dict[str, str]], counts: Counter[str]
) -> Iterator[dict[str, str]]:
    for row in rows:
        counts[row["subset"]] += 1
        yield row


def _move_to_training(rows: Iterable[dict[str, str]]) -> Iterator[dict[str, str]]:
    for row in rows:
        yield row if row["subset"] == NONE else row | {"subset": TRAIN}
