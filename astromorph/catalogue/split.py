"""The step `split`: which images train, which only measure the loss."""

import hashlib
import heapq
import logging
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path

from astromorph.artefacts import tables as artefacts
from astromorph.artefacts.tables import CONTENTS_COLUMNS, NONE, REJECTED, TEST, TRAIN
from astromorph.atomic import atomic_write
from astromorph.catalogue.summary import MIN_IMAGES, Summary, stop_if_bad
from astromorph.errors import AstromorphError
from astromorph.filelist.duplicates import (
    SAME_CONTENT,
    Key,
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
from astromorph.settings.sections import Settings, SplitSettings

LOG = logging.getLogger(__name__)
RADIUS_WITHOUT_SCALE = 1.0  # arcsec
MAX_RADIUS = 5 * 3600.0  # arcsec; all-sky images are not one object
# Rows of one OBJECT from which on it is taken for the name of a survey or field.
MAX_OBJECT_SHARE = 50
CELL = 4.0  # side of a cell of the sky over the radius
LARGE_GROUP = 0.2  # share of the images from which on a group is worth a warning


def split(
    settings: Settings,
    datafile: str | Path,
    contents: Sequence[str | Path],
    output: str | Path,
) -> None:
    """Give each usable image to the training or to the test set.

    Images of one object go to the same side; which one, a hash of the seed and
    of its name, or of the `image_id` of its first row, decides. One object is:
    what has the same `group` where the list has that column; else what has the
    same OBJECT, or lies within the radius of an earlier image. Rows that are
    appended move none of the old ones. A column `split` of the list is obeyed.

    Parameters
    ----------
    settings : Settings
        `seed`, `split_settings` and `validate_settings` are used.
    datafile : path
        The file list.
    contents : sequence of path
        For each shard, in order, the table of what it really holds; the file's
        stem is the shard's name.
    output : path
        CSV to write: a row per row of the list, with `subset` train, test or
        none, and the reason for none.

    Raises
    ------
    AstromorphError
        Too few images are left, a cell of the column `split` is not known, or
        the tables do not belong together.
    """
    summary, counts = Summary(str(datafile)), Counter[str]()
    rows = summary.watch(_rows(settings, datafile, contents))
    with atomic_write(output) as temporary:
        artefacts.write_csv(temporary, artefacts.SPLIT_COLUMNS, _counted(rows, counts))
        stop_if_bad(summary, settings.validate_settings)
        if counts[TRAIN] < MIN_IMAGES:
            LOG.warning(
                "only %d of %d images fell to the training set; all of them train, "
                "none are held out", counts[TRAIN], summary.usable,
            )  # fmt: skip
            counts[TRAIN], counts[TEST] = counts[TRAIN] + counts[TEST], 0
            artefacts.write_csv(
                temporary,
                artefacts.SPLIT_COLUMNS,
                _all_train(artefacts.read_csv(temporary)),
            )
    LOG.info(
        "%d images train, %d are held out, %d are not used",
        counts[TRAIN], counts[TEST], counts[NONE],
    )  # fmt: skip
    for line in list(summary.lines())[1:]:
        LOG.info("%s", line)


def random_fraction(seed: int, key: str) -> float:
    """A number from 0 to 1 that depends on the seed and the key alone."""
    number = hashlib.sha256(f"{seed}\0{key}".encode()).digest()[:8]
    return int.from_bytes(number, "big") / 2**64


class Groups:
    """Which rows show one object; each row looks at the earlier ones only.

    Parameters
    ----------
    database : sqlite3.Connection
        Empty; holds what is known of earlier rows.
    rules : SplitSettings
        The radius.
    """

    def __init__(self, database: sqlite3.Connection, rules: SplitSettings) -> None:
        self._database = database
        self._radius = rules.group_radius_arcsec
        self._sides: set[float] = set()
        database.execute("CREATE TABLE named (name PRIMARY KEY, key, rows)")
        database.execute("CREATE TABLE near (cell, x, y, z, radius, key)")
        database.execute("CREATE INDEX cells ON near (cell)")
        database.execute("CREATE TABLE groups (key PRIMARY KEY, rows, subset)")
        database.execute("CREATE TABLE keys (row INTEGER PRIMARY KEY, key)")

    def key_of(
        self, row: int, entry: Entry, held: dict[str, str], twin: int | None = None
    ) -> str:
        """What the rows of one object, and no others, have in common.

        A name where there is one, so that it does not depend on other rows; the
        `image_id` of its first row where only the position tells.

        Parameters
        ----------
        row : int
            Number of the row; they come in order.
        entry : Entry
            The row of the list.
        held : dict of str to str
            The same row of the shard's table.
        twin : int, optional
            Number of the earlier row that shows the same image.
        """
        if entry.columns.get(GROUP_COLUMN):
            key = f"group {entry.columns[GROUP_COLUMN]}"
        else:
            key = self._found(entry, held, twin)
        self._database.execute("INSERT INTO keys VALUES (?, ?)", (row, key))
        return key

    def _found(self, entry: Entry, held: dict[str, str], twin: int | None) -> str:
        place, radius = None, self._radius_of(held)
        if held["ra_deg"] and held["dec_deg"] and radius > 0:
            place = float(held["ra_deg"]), float(held["dec_deg"])
        name, key = f"object {held['object']}", self._key_of_row(twin)
        number = self._rows_named(name) if held["object"] else MAX_OBJECT_SHARE
        if key is None and 0 < number < MAX_OBJECT_SHARE:
            key = self._key_named(name)
        if key is None and place:
            key = self._nearest(place, radius)
        if key is None:
            key = name if number == 0 else entry.image_id
        if held["object"]:
            self._count(name, key)
        if place:
            self._add(place, radius, key)
        return key

    def subset_of(self, key: str, otherwise: str) -> str:
        """The side of a group; its first row decides it."""
        found = self._database.execute(
            "INSERT INTO groups VALUES (?, 1, ?) ON CONFLICT (key) DO UPDATE "
            "SET rows = rows + 1 RETURNING subset",
            (key, otherwise),
        )
        return str(found.fetchone()[0])

    def largest(self) -> tuple[str, int]:
        """The group with most rows, by its key, and how many it has."""
        found = self._database.execute(
            "SELECT key, rows FROM groups ORDER BY rows DESC LIMIT 1"
        ).fetchone()
        return (str(found[0]), int(found[1])) if found else ("", 0)

    def _radius_of(self, held: dict[str, str]) -> float:
        if self._radius is not None:
            return self._radius
        half = float(held["field_arcsec"] or 0) / 2
        return min(half or RADIUS_WITHOUT_SCALE, MAX_RADIUS)

    def _rows_named(self, name: str) -> int:
        """How many earlier rows have this OBJECT; told when they become too many."""
        found = self._database.execute(
            "SELECT rows FROM named WHERE name = ?", (name,)
        ).fetchone()
        number = int(found[0]) if found else 0
        if number == MAX_OBJECT_SHARE:
            LOG.warning(
                "%s: more than %d images have this name; it is taken for a field or a "
                "survey, and further ones are grouped by position alone",
                name, MAX_OBJECT_SHARE,
            )  # fmt: skip
        return number

    def _key_of_row(self, row: int | None) -> str | None:
        found = self._database.execute("SELECT key FROM keys WHERE row = ?", (row,))
        key = found.fetchone()
        return str(key[0]) if key else None

    def _key_named(self, name: str) -> str:
        found = self._database.execute(
            "SELECT key FROM named WHERE name = ?", (name,)
        ).fetchone()
        return str(found[0])

    def _count(self, name: str, key: str) -> None:
        self._database.execute(
            "INSERT INTO named VALUES (?, ?, 1) ON CONFLICT (name) DO UPDATE "
            "SET rows = rows + 1",
            (name, key),
        )

    def _nearest(self, place: tuple[float, float], radius: float) -> str | None:
        """The key of the earliest row within the radius of a place."""
        here = unit_vector(*place)
        touched = [
            cell
            for side in sorted(self._sides)
            for cell in _cells(place, min(radius, side), side)
        ]
        # Each cell's rows come in order, and no more of them than are looked at.
        earliest = heapq.merge(
            *(
                self._database.execute(
                    "SELECT rowid, x, y, z, radius, key FROM near WHERE cell = ? "
                    "ORDER BY rowid",
                    (cell,),
                )
                for cell in touched
            )
        )
        for _, x, y, z, other, key in earliest:
            if separation_arcsec(here, (x, y, z)) <= min(radius, other):
                return str(key)
        return None

    def _add(self, place: tuple[float, float], radius: float, key: str) -> None:
        side = 1.0
        while side < radius:
            side *= 4
        self._sides.add(side)
        self._database.executemany(
            "INSERT INTO near VALUES (?, ?, ?, ?, ?, ?)",
            [
                (cell, *unit_vector(*place), radius, key)
                for cell in _cells(place, radius, side)
            ],
        )


def _cells(place: tuple[float, float], reach: float, side: float) -> list[str]:
    """Names of the sky_cells, `CELL` times `side` wide, within reach of a place."""
    found = sky_cells(*place, reach / 3600, CELL * side / 3600)
    return [f"{side:g} {row} {column}" for row, column in found]


def _rows(
    settings: Settings, datafile: str | Path, contents: Sequence[str | Path]
) -> Iterator[dict[str, str]]:
    """The table, a row at a time."""
    drop = settings.validate_settings.on_duplicate == "drop"
    with duplicate_finder() as found, closing(sqlite3.connect("")) as database:
        for number, (_, _, held) in enumerate(_held(datafile, contents)):
            if held["status"] != REJECTED:
                found.add(number, _keys(held), [held["path"]])
        matches = found.matches()
        match = next(matches, None)
        groups, used = Groups(database, settings.split_settings), 0
        for number, (shard, entry, held) in enumerate(_held(datafile, contents)):
            fate = {"status": held["status"], "reason": held["reason"]}
            twin = None
            if match is not None and match.row == number:
                fate = mark_duplicate(held["reason"], match, drop)
                twin = match.first if match.kind == SAME_CONTENT else None
                match = next(matches, None)
            subset, group = NONE, ""
            if fate["status"] != REJECTED:
                key = groups.key_of(number, entry, held, twin)
                subset, group = _subset(settings, groups, entry, key)
                used += 1
            yield {
                "image_id": held["image_id"],
                "path": held["path"],
                **fate,
                "subset": subset,
                "group": group,
                "shard": shard,
                "position": held["position"],
            }
        key, rows = groups.largest()
        if rows > max(1, LARGE_GROUP * used):
            LOG.warning(
                "%d of %d images count as one object (%s) and are on one "
                "side of the split; a column `group` in the list, or "
                "`split_settings.group_radius_arcsec`, says it better",
                rows, used, key,
            )  # fmt: skip


def _keys(held: dict[str, str]) -> list[Key]:
    keys = [text_key(SAME_CONTENT, held["content"])] if held["content"] else []
    if held["ra_deg"] and held["dec_deg"]:
        place = float(held["ra_deg"]), float(held["dec_deg"])
        keys += position_keys(*place, held["band"], float(held["reach_arcsec"]))
    return keys


def _subset(
    settings: Settings, groups: Groups, entry: Entry, key: str
) -> tuple[str, str]:
    """The side of an image, and the key of its group."""
    asked = requested_subset(entry)
    if asked == NONE:
        return NONE, ""
    number = random_fraction(settings.seed, key)
    drawn = TEST if number < settings.split_settings.test_fraction else TRAIN
    side = groups.subset_of(key, asked or drawn)
    return asked or side, key


def _held(
    datafile: str | Path, contents: Iterable[str | Path]
) -> Iterator[tuple[str, Entry, dict[str, str]]]:
    """Shard, row of the list and row of the shard's table, for each row."""
    entries = read_filelist(datafile)
    for table in contents:
        shard = Path(table).stem
        for held in artefacts.read_csv(table, CONTENTS_COLUMNS):
            entry = next(entries, None)
            if entry is None or entry.image_id != held["image_id"]:
                raise AstromorphError(
                    f"{datafile} and the tensors of shard {shard} do not list the same "
                    "images; run preprocess again"
                )
            yield shard, entry, held
    if next(entries, None) is not None:
        raise AstromorphError(
            f"{datafile} lists more images than there are tensors; run preprocess again"
        )


def _counted(
    rows: Iterable[dict[str, str]], counts: Counter[str]
) -> Iterator[dict[str, str]]:
    for row in rows:
        counts[row["subset"]] += 1
        yield row


def _all_train(rows: Iterable[dict[str, str]]) -> Iterator[dict[str, str]]:
    for row in rows:
        yield row if row["subset"] == NONE else row | {"subset": TRAIN}
