"""The command `similar`: find the images of a run most similar to given images."""

import itertools
import json
import logging
import os
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from astromorph.analysis.embedded_images import read_analysed_images
from astromorph.analysis.neighbours import MAX_ROUNDING, nearest_among
from astromorph.analysis.new_images import NewImages, find_first_shard
from astromorph.analysis.panels import (
    LIKE,
    UNLIKE,
    Panel,
    draw_panels,
)
from astromorph.artefacts.analysis_table import OLD_SUFFIX
from astromorph.artefacts.run_files import RunFiles
from astromorph.artefacts.run_table import (
    all_tensors,
    find_in_catalogue,
    listed_columns,
    run_table,
)
from astromorph.artefacts.tables import write_csv
from astromorph.errors import AstromorphError, FitsImageError
from astromorph.filelist.entries import Entry, read_filelist
from astromorph.pages.thumbnails import read_images
from astromorph.preprocessing.resample import prepared_pixel_scale
from astromorph.settings.loading import parse
from astromorph.system.files import split_hdu
from astromorph.system.logs import escape_undecodable, printable

Points = NDArray[np.float32]
Pixels = NDArray[np.float32]
Row = dict[str, str]
Rows = list[Row]

LOG = logging.getLogger(__name__)
DEFAULT_WEIGHT = 0.3  # measured in docs/analysis.md
MIN_LENGTH = 1e-3  # of the searched direction; shorter ones are only rounding errors
IMAGE_ID = re.compile(rf"[0-9a-f]{{16}}({OLD_SUFFIX})?")
IMAGES_AT_A_TIME = 256  # that are read and embedded together
QUERY_COLUMNS = ("query", "query_path", "status", "reason")
RESULT_COLUMNS = ("rank", "distance", "image_id", "path", "object", "cluster")


@dataclass(frozen=True, slots=True)
class Examples:
    """The images that a search begins with.

    Attributes
    ----------
    like : sequence of str
        Images that the results resemble, at least one: FITS files, in the list of the
        run or not, or ids or listed paths of images of the run.
    unlike : sequence of str
        Images that the results do not resemble.
    weight : float
        Weight of the images in `unlike`, at least 0.
    files_per_image : int
        Files of each image, one per channel, which are given one after another.
    """

    like: Sequence[str]
    unlike: Sequence[str] = ()
    weight: float = DEFAULT_WEIGHT
    files_per_image: int = 1


@dataclass(frozen=True, slots=True)
class _Example:
    """One given image.

    Attributes
    ----------
    name, frame : str
        As given; `LIKE` or `UNLIKE`.
    image_id : str
        Its id, if it is an image of the run; else empty.
    pixels : ndarray or None, shape (C, H, W)
        None if only the run has them.
    point : ndarray, shape (K,)
        In the space of the analysis.
    arcsec_per_pixel : float or None
        Of `pixels`; None if it is not known.
    """

    name: str
    frame: str
    image_id: str
    pixels: Pixels | None
    point: Points
    arcsec_per_pixel: float | None = None


class _SearchedRun:
    """The images of a run as points, and the means to add further ones."""

    def __init__(self, files: RunFiles) -> None:
        self.files = files
        self.images, self.space = read_analysed_images(files)
        self.points = self.space.project(self.images.vectors)

    def row_of_id(self, name: str) -> int | None:
        """The row of an image id."""
        if not IMAGE_ID.fullmatch(name) or name not in self.images.image_ids:
            return None
        return self.images.image_ids.index(name)

    def row_of_path(self, path: str) -> int | None:
        """The row of a listed file, whose name need not be UTF-8."""
        name = escape_undecodable(path)
        end = os.path.basename(name)
        where = None
        for row, listed in enumerate(self.images.paths):
            if listed == name:
                return row
            if listed.endswith(end) and os.path.basename(listed) == end:
                where = where or escape_undecodable(os.path.realpath(path))
                if os.path.realpath(listed) == where:
                    return row
        return None


def similar(
    files: RunFiles,
    examples: Examples,
    count: int,
    output: str | Path | None = None,
    table: str | Path | None = None,
    datafile: str | None = None,
) -> Rows:
    """Find the images of a run that are most similar to some images.

    Files are read, prepared and embedded in the same way as those of the run, and
    distances are measured in the space of `analyse`, from the point

        q = mean(like) - weight * mean(unlike)

    of Rocchio (1971), scaled to length 1 if distances are cosine distances, so that the
    order of the images is that of their cosine with q. With one image and none in
    `unlike`, q is that image. If several images are given, those of the run are not
    among the results.

    Parameters
    ----------
    files : RunFiles
        A finished run.
    examples : Examples
        The given images.
    count : int
        Number of images to find, at least 1.
    output : path or None
        PNG to write: the given images, followed by those similar to them.
    table : path or None
        CSV to write: the returned rows.
    datafile : str, optional
        The file list; see `NewImages`.

    Returns
    -------
    list of dict of str to str
        A row for each image, the nearest first: `rank`, `distance`, `image_id`, `path`,
        `object`, `cluster` and the columns of the file list.

    Raises
    ------
    AstromorphError
        An image cannot be used, or results are missing or do not match.

    References
    ----------
    .. [1] Rocchio 1971, in The SMART Retrieval System, ed. Salton, 313
    """
    run = _SearchedRun(files)
    given = _read_examples(run, examples, datafile)
    target = _rocchio(given, examples.weight, run.space.angular)
    own = {g.image_id for g in given} if len(given) > 1 else set()
    found, lengths = nearest_among(target[None], run.points, count + len(own))
    distances = {
        run.images.image_ids[k]: distance
        for k, distance in zip(found[0].tolist(), lengths[0].tolist(), strict=True)
    }
    image_ids = [image_id for image_id in distances if image_id not in own][:count]
    if not image_ids:
        raise AstromorphError(
            f"{files.analysis}: all {len(run.points)} images of the run are given with "
            "--to or --unlike; give fewer"
        )
    rows = _Facts(files).rows(image_ids, [distances[name] for name in image_ids])
    if len(given) == 1:
        _log_if_listed(given[0], rows)
    if table is not None:
        write_csv(table, list(rows[0]), rows)
        LOG.info("%s: %d rows", table, len(rows))
    if output is not None:
        panels = _make_panels(run, given, rows)
        draw_panels(output, panels)
        LOG.info("%s: %d images", output, len(panels))
    return rows


def similar_to_list(
    files: RunFiles, filelist: str | Path, count: int, datafile: str | None = None
) -> Iterator[Row]:
    """Find the images of a run that are most similar to each file of a list.

    Parameters
    ----------
    files : RunFiles
        A finished run.
    filelist : path
        A file list as for a run: text or CSV, with one row per image.
    count : int
        Number of images to find for each, at least 1.
    datafile : str, optional
        The file list of the run; see `NewImages`.

    Yields
    ------
    dict of str to str
        A row for each file of the list and each image similar to it, the nearest
        first: `query` (the row of the list, from 0), `query_path`, `status` (``ok`` or
        ``rejected``), `reason`, and the columns of `similar`. A rejected file has one
        row, in which these are empty.

    Raises
    ------
    AstromorphError
        The list cannot be read, or results are missing or do not match.
    """
    run, facts = _SearchedRun(files), _Facts(files)
    entries = enumerate(read_filelist(filelist))
    reader = NewImages(files, datafile)
    while part := list(itertools.islice(entries, IMAGES_AT_A_TIME)):
        yield from _search_part(run, facts, reader, part, count)


def list_columns_of(files: RunFiles) -> list[str]:
    """The columns of the rows of `similar_to_list`."""
    return [*QUERY_COLUMNS, *RESULT_COLUMNS, *listed_columns(files).values()]


def _search_part(
    run: _SearchedRun,
    facts: "_Facts",
    reader: NewImages,
    entries: Sequence[tuple[int, Entry]],
    count: int,
) -> Iterator[Row]:
    pixels: list[Pixels] = []
    reasons: list[str] = []
    for _, entry in entries:
        try:
            pixels.append(reader.read(entry.paths))
            reasons.append("")
        except FitsImageError as error:
            reasons.append(str(error))
    results: Iterator[tuple[NDArray[np.int64], Points]] = iter(())
    if pixels:
        points = run.space.project(reader.embed(pixels))
        results = zip(*nearest_among(points, run.points, count), strict=True)
    for (number, entry), reason in zip(entries, reasons, strict=True):
        query = {"query": str(number), "query_path": " ".join(entry.paths)}
        if reason:
            LOG.warning("%s: rejected: %s", query["query_path"], reason)
            blank = dict.fromkeys(facts.columns, "")
            yield query | {"status": "rejected", "reason": reason} | blank
            continue
        indices, distances = next(results)
        image_ids = [run.images.image_ids[k] for k in indices.tolist()]
        for row in facts.rows(image_ids, distances.tolist()):
            yield query | {"status": "ok", "reason": ""} | row


def _read_examples(
    run: _SearchedRun, examples: Examples, datafile: str | None
) -> list[_Example]:
    """The given images; those that are files are read and embedded together."""
    given: list[_Example] = []
    reader: NewImages | None = None
    for frame, names in ((LIKE, examples.like), (UNLIKE, examples.unlike)):
        for paths in _group(names, examples.files_per_image, run):
            name = paths[0]
            row = run.row_of_id(name)
            if row is None or os.path.exists(name):
                row = run.row_of_path(name)
            image_id = "" if row is None else run.images.image_ids[row]
            if row is not None and not os.path.exists(split_hdu(name)[0]):
                if name != image_id:
                    LOG.info("%s: no such file; its embedding in the run is used", name)
                given.append(_Example(name, frame, image_id, None, run.points[row]))
                continue
            reader = reader or NewImages(run.files, datafile)
            try:
                pixels = reader.read(paths)
            except FitsImageError as error:
                raise AstromorphError(_explain(paths, error)) from None
            point = run.space.project(reader.embed([pixels]))[0]
            scale = reader.pixel_scale(paths)
            given.append(_Example(name, frame, image_id, pixels, point, scale))
    return given


def _explain(paths: Sequence[str], error: FitsImageError) -> str:
    text = f"{' '.join(paths)}: {error}"
    if os.path.exists(split_hdu(paths[0])[0]):
        return text
    return f"{text}, and no analysed image of the run has this id or listed path"


def _group(
    names: Sequence[str], files_per_image: int, run: _SearchedRun
) -> Iterator[tuple[str, ...]]:
    """The files of each image; an id is one image."""
    waiting: list[str] = []
    for name in names:
        if not waiting and run.row_of_id(name) is not None:
            yield (name,)
            continue
        waiting.append(name)
        if len(waiting) == files_per_image:
            yield tuple(waiting)
            waiting = []
    if waiting:
        raise AstromorphError(
            f"--files-per-image: found {files_per_image}, but {waiting[0]} is followed "
            f"by {len(waiting) - 1} other files; give all files of each image"
        )


def _rocchio(given: Sequence[_Example], weight: float, angular: bool) -> Points:
    """The point `(K,)` from which distances are measured."""
    like = [g.point for g in given if g.frame == LIKE]
    unlike = [g.point for g in given if g.frame == UNLIKE]
    if len(given) == 1:
        return like[0]
    target = np.mean(like, axis=0, dtype=np.float64)
    if unlike:
        target = target - weight * np.mean(unlike, axis=0, dtype=np.float64)
    if angular:
        length = float(np.linalg.norm(target))
        if length < MIN_LENGTH:
            raise AstromorphError(
                "--to, --unlike: the given images cancel each other, so that no "
                "direction is left; give other images, or a smaller --weight"
            )
        target = target / length
    return np.asarray(target, np.float32)


class _Facts:
    """What the table of results says of each image of a run."""

    def __init__(self, files: RunFiles) -> None:
        self._names = ["path", "object", "cluster", *listed_columns(files).values()]
        self._table = run_table(files, self._names).set_index("image_id")

    @property
    def columns(self) -> list[str]:
        """The columns of each row."""
        return ["rank", "distance", "image_id", *self._names]

    def rows(self, image_ids: Sequence[str], distances: Sequence[float]) -> Rows:
        """A row for each of some images, in their order, with facts and cluster."""
        facts = self._table.loc[list(image_ids), self._names].to_dict("records")
        return [
            {"rank": str(rank), "distance": f"{distance:.4f}", "image_id": image_id}
            | {name: str(cell) for name, cell in row.items()}
            for rank, (image_id, distance, row) in enumerate(
                zip(image_ids, distances, facts, strict=True), start=1
            )
        ]


def _log_if_listed(given: _Example, rows: Rows) -> None:
    """Log whether the image is in the run."""
    for row in rows:
        if row["image_id"] == given.image_id:
            LOG.info(
                "%s is in the file list, as %s, at distance %s",
                printable(given.name),
                row["image_id"],
                row["distance"],
            )
            return
    if float(rows[0]["distance"]) <= MAX_ROUNDING:
        name = printable(given.name)
        LOG.info("%s has the same embedding as %s", name, rows[0]["path"])


def _make_panels(
    run: _SearchedRun, given: Sequence[_Example], rows: Rows
) -> list[Panel]:
    """Panels of the given images, then of those that were found."""
    shown = {example.image_id for example in given if example.pixels is None}
    shown |= {row["image_id"] for row in rows}
    pixels = dict(read_images(all_tensors(run.files), shown))
    scales = _pixel_scales(run.files, shown)
    names = {LIKE: "the given image" if len(given) == 1 else "like", UNLIKE: "unlike"}
    panels = [
        Panel(
            pixels[example.image_id] if example.pixels is None else example.pixels,
            (Path(example.name).name, names[example.frame]),
            example.frame,
            scales.get(example.image_id)
            if example.pixels is None
            else example.arcsec_per_pixel,
        )
        for example in given
    ]
    return panels + [
        Panel(
            pixels[row["image_id"]],
            (Path(row["path"]).name, f"distance {float(row['distance']):.3g}"),
            arcsec_per_pixel=scales.get(row["image_id"]),
        )
        for row in rows
    ]


def _pixel_scales(files: RunFiles, image_ids: Collection[str]) -> dict[str, float]:
    """Arcseconds per pixel of the prepared images of a run whose scale is known."""
    shard = find_first_shard(files)
    rules = parse(json.loads(shard.settings), str(files.all_tensors[0]))
    columns = ["width", "height", "pixel_scale_arcsec"]
    table = find_in_catalogue(files, list(image_ids), columns)
    scales = {}
    for row in table.to_dict("records"):
        if all(row[name] for name in columns):
            scales[row["image_id"]] = prepared_pixel_scale(
                int(row["width"]),
                int(row["height"]),
                float(row["pixel_scale_arcsec"]),
                rules.preprocess_settings,
            )
    return {name: scale for name, scale in scales.items() if scale is not None}
