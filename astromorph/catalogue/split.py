"""The step `split`: which images are used for training and which for testing."""

import hashlib
import logging
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path

from astromorph.artefacts import tables as artefacts
from astromorph.artefacts.run_files import RunFiles
from astromorph.artefacts.tables import CONTENTS_COLUMNS, NONE, REJECTED, TEST, TRAIN
from astromorph.atomic import atomic_write
from astromorph.catalogue.groups import Groups
from astromorph.catalogue.summary import MIN_IMAGES, Summary, stop_if_bad
from astromorph.errors import AstromorphError
from astromorph.filelist.duplicates import (
    SAME_CONTENT,
    Key,
    Match,
    duplicate_finder,
    mark_duplicate,
    position_keys,
    text_key,
)
from astromorph.filelist.entries import Entry, read_filelist, requested_subset
from astromorph.settings.sections import SplitSettings, ValidateSettings

LOG = logging.getLogger(__name__)
LARGE_GROUP = 0.2  # share of the images from which on a group causes a warning


def split(
    datafile: str | Path,
    files: RunFiles,
    rules: SplitSettings,
    validation: ValidateSettings,
    seed: int,
) -> None:
    """Assign each usable image to the training set or the test set.

    All images of one object are on the same side, which is determined by a hash of the
    seed and of the name of the group, or of the `image_id` of its first row. Images
    show one object if they have the same `group`, where the list has this column, or
    else if they have the same OBJECT or are within the radius of an earlier image.
    Appended rows do not change the side of earlier ones. A column `split` of the list
    takes precedence.

    Parameters
    ----------
    datafile : path
        The file list.
    files : RunFiles
        Reads `all_contents`, the usable images of each shard, and writes `split`, a CSV
        with a row for each row of the list: `subset` is train, test or none, and
        `reason` says why it is none.
    rules : SplitSettings
        Fraction of the test set and radius of groups.
    validation : ValidateSettings
        What happens to bad files and duplicates.
    seed : int
        Seed of the assignment.

    Raises
    ------
    AstromorphError
        Too few images remain, a cell of the column `split` is invalid, or the contents
        do not belong to the list.
    """
    summary, counts = Summary(str(datafile)), Counter[str]()
    drop = validation.on_duplicate == "drop"
    rows = _assign_rows(datafile, files, rules, drop, seed)
    rows = _count_subsets(summary.pass_through(rows), counts)
    with atomic_write(files.split) as temporary:
        artefacts.write_csv(temporary, artefacts.SPLIT_COLUMNS, rows)
        stop_if_bad(summary, validation)
        if counts[TRAIN] < MIN_IMAGES:
            LOG.warning(
                "only %d of %d images were assigned to the training set; all images "
                "are used for training and none for testing",
                counts[TRAIN],
                summary.usable,
            )
            counts[TRAIN], counts[TEST] = counts[TRAIN] + counts[TEST], 0
            rows = _move_to_training(artefacts.read_csv(temporary))
            artefacts.write_csv(temporary, artefacts.SPLIT_COLUMNS, rows)
    LOG.info(
        "%d images for training, %d for testing, %d not used",
        counts[TRAIN],
        counts[TEST],
        counts[NONE],
    )
    for line in list(summary.lines())[1:]:
        LOG.info("%s", line)


def random_fraction(seed: int, key: str) -> float:
    """A number from 0 to 1 that depends only on the seed and the key."""
    number = hashlib.sha256(f"{seed}\0{key}".encode()).digest()[:8]
    return int.from_bytes(number, "big") / 2**64


def _assign_rows(
    datafile: str | Path, files: RunFiles, rules: SplitSettings, drop: bool, seed: int
) -> Iterator[dict[str, str]]:
    """The rows of the split, one at a time."""
    with duplicate_finder() as duplicates, closing(sqlite3.connect("")) as database:
        for number, (_, _, contents) in enumerate(_read_rows(datafile, files)):
            if contents["status"] != REJECTED:
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
    """The side of an image, and the key of its group."""
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
            "%d of %d images count as one object (%s) and are on one side of the "
            "split; if they show several, add a column `group` to the list, or set "
            "`split_settings.group_radius_arcsec`",
            rows,
            usable,
            key,
        )


def _duplicate_keys(contents: dict[str, str]) -> list[Key]:
    """Keys by which duplicates of an image are found."""
    keys = []
    if contents["content"]:
        keys.append(text_key(SAME_CONTENT, contents["content"]))
    if contents["ra_deg"] and contents["dec_deg"]:
        position = float(contents["ra_deg"]), float(contents["dec_deg"])
        radius = float(contents["reach_arcsec"])
        keys += position_keys(*position, contents["band"], radius)
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
