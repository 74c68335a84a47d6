"""The step `split`: which images train, which only measure the loss."""

import hashlib
import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from astromorph import artefacts
from astromorph.artefacts import CONTENTS_COLUMNS, NONE, REJECTED, TEST, TRAIN
from astromorph.errors import AstromorphError
from astromorph.filelist import GROUP, Entry, read_filelist
from astromorph.settings import Settings
from astromorph.validate import FEWEST_IMAGES, Summary, require_images

LOG = logging.getLogger(__name__)


def split(
    settings: Settings,
    datafile: str | Path,
    contents: Sequence[str | Path],
    output: str | Path,
) -> None:
    """Give each usable image to the training or to the test set.

    An image is drawn by a hash of the seed and its `image_id` (or, where the
    list has a column `group`, of its group: images of one group are never on
    both sides). Files that come or go move none of the others.

    Parameters
    ----------
    settings : Settings
        `seed` and `split_settings` are used.
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
        Fewer than two images are left, or the tables do not belong together.
    """
    rows = list(_rows(settings, datafile, contents))
    summary = Summary(str(datafile))
    counts = Counter(row["subset"] for row in summary.watch(rows))
    require_images(summary.usable, len(rows), summary.reasons, str(datafile))
    if counts[TRAIN] < FEWEST_IMAGES:
        LOG.warning(
            "only %d of %d images fell to the training set; all of them train, none "
            "are held out", counts[TRAIN], summary.usable,
        )  # fmt: skip
        rows = [r if r["subset"] == NONE else r | {"subset": TRAIN} for r in rows]
        counts = Counter(row["subset"] for row in rows)
    artefacts.write_csv(output, artefacts.SPLIT_COLUMNS, rows)
    LOG.info(
        "%d images train, %d are held out, %d cannot be used",
        counts[TRAIN], counts[TEST], counts[NONE],
    )  # fmt: skip
    for line in list(summary.lines())[1:]:
        LOG.info("%s", line)


def draw(seed: int, key: str) -> float:
    """A number from 0 to 1 that depends on the seed and the key alone."""
    number = hashlib.sha256(f"{seed}\0{key}".encode()).digest()[:8]
    return int.from_bytes(number, "big") / 2**64


def _rows(
    settings: Settings, datafile: str | Path, contents: Sequence[str | Path]
) -> Iterator[dict[str, str]]:
    entries = read_filelist(datafile)
    for shard, held in _held(contents):
        entry = next(entries, None)
        if entry is None or entry.image_id != held["image_id"]:
            raise AstromorphError(
                f"{datafile} and the tensors of shard {shard} do not list the same "
                "images; run preprocess again"
            )
        yield {
            "image_id": held["image_id"],
            "path": held["path"],
            "status": held["status"],
            "reason": held["reason"],
            "subset": _subset(settings, entry, held["status"]),
            "shard": shard,
            "position": held["position"],
        }
    if next(entries, None) is not None:
        raise AstromorphError(
            f"{datafile} lists more images than there are tensors; run preprocess again"
        )


def _subset(settings: Settings, entry: Entry, status: str) -> str:
    if status == REJECTED:
        return NONE
    number = draw(settings.seed, entry.columns.get(GROUP) or entry.image_id)
    return TEST if number < settings.split_settings.test_fraction else TRAIN


def _held(contents: Iterable[str | Path]) -> Iterator[tuple[str, dict[str, str]]]:
    for table in contents:
        for row in artefacts.read_csv(table, CONTENTS_COLUMNS):
            yield Path(table).stem, row
