"""The export `map`: one HTML file in which the embedding can be looked at.

It opens by double click, without a server or a network. What a person reads or
types is HTML and the script beside the template; points are drawn by Bokeh.
"""

import base64
import json
import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from astromorph.artefacts import tables as artefacts
from astromorph.artefacts.analysis_file import Analysis, read_analysis
from astromorph.artefacts.tables import CATALOGUE_COLUMNS, NONE, SPLIT_COLUMNS
from astromorph.artefacts.tensor_shard import TensorShard, read_shard
from astromorph.atomic import atomic_folder, atomic_write
from astromorph.errors import AstromorphError
from astromorph.export.html_map.columns import Cells, Column, number_column, pack_array
from astromorph.export.html_map.picture_sheets import Sheets
from astromorph.export.html_map.plot import RAMP, make_plot, script
from astromorph.pages.html import render_template, template_source
from astromorph.pages.palette import COLOURS, MARKERS, NONE_COLOUR
from astromorph.pages.thumbnail import thumbnail
from astromorph.progress import track
from astromorph.settings.sections import Settings

LOG = logging.getLogger(__name__)
NAMES = ("object", "path", "image_id")  # what the page searches; never left out
ANALYSED = (
    "cluster", "cluster_kmeans", "cluster_hdbscan", "outlier_score", "outlier_rank",
    "role", "near_duplicates",
)  # fmt: skip
# What the pixels say, of the statistics that the shards hold.
PIXELS = ("background", "noise", "minimum", "maximum", "valid_fraction")
MAX_TEXT = 16_000_000  # bytes of one column; larger ones make the page slow to open
MAX_COLUMNS = 64_000_000  # bytes of all of them


def export_map(
    settings: Settings,
    catalogue: str | Path,
    split: str | Path,
    analysis: str | Path,
    tensors: Sequence[str | Path],
    output: str | Path,
    pictures: str | Path | None = None,
    evaluation: str | Path | None = None,
) -> None:
    """Write the page.

    Parameters
    ----------
    settings : Settings
        `export_settings.map_thumbnail_size` is used.
    catalogue, split, analysis : path
        What `validate`, `split` and `analyse` wrote.
    tensors : sequence of path
        All shards, in the order of the list.
    output : path
        HTML to write.
    pictures : path, optional
        Folder to write anew, beside the page, for the pictures. By default they are
        in the page.
    evaluation : path, optional
        What `evaluate` wrote; its verdict is shown.

    Raises
    ------
    AstromorphError
        The files do not belong together, or `evaluation` is no evaluation.
    """
    found = read_analysis(analysis)
    sheets = Sheets.of(settings.export_settings.map_thumbnail_size)
    listed = list(_listed_columns(catalogue, split, found))
    own = [column for column in listed if column.listed]
    facts = [column for column in listed if not column.listed]
    columns = [*own, *_found_columns(found), *facts]
    pixels = _Pixels(found.image_ids)
    drawn = sheets.drawn(pixels.thumbnails(tensors, sheets.side))
    inside: list[str] = []
    if pictures is None:
        inside = [base64.b64encode(sheet).decode() for sheet in drawn]
    else:
        with atomic_folder(pictures) as folder:
            for k, sheet in enumerate(drawn):
                (folder / f"{k}.jpg").write_bytes(sheet)
    kept, left_out = _within_limits([*columns, *pixels.columns()])
    page: dict[str, Any] = {
        "number": len(found),
        "columns": [column.description() for column in kept],
        "first": _first(kept),
        "analysed": ANALYSED,
        "layouts": not np.array_equal(found.map, found.pca),
        "sheets": {"side": sheets.side, "cell": sheets.cell, "across": sheets.across},
        "pictures": None if pictures is None else _beside(pictures, output),
        "colours": COLOURS, "markers": MARKERS, "none": NONE_COLOUR, "ramp": RAMP,
        "folder": str(Path.cwd()),
        "neighbours": found.distances.shape[1],
    }  # fmt: skip
    text = _rendered(
        page=page,
        data=[column.data() for column in kept],
        relations=_relations(found),
        plot=make_plot(found.map, found.pca),
        sheets=inside,
        left_out=left_out,
        verdict=_verdict(evaluation),
    )
    with atomic_write(output) as temporary:
        temporary.write_text(text, encoding="utf-8")
    LOG.info("%s: %d images, %.1f MB", output, len(found), len(text) / 1e6)


def _found_columns(found: Analysis) -> Iterator[Column]:
    """What the analysis says, as columns."""
    words = {
        "cluster": found.cluster,
        "cluster_kmeans": found.kmeans,
        "cluster_hdbscan": found.hdbscan,
    }
    for name, values in words.items():
        yield _words(name, ["" if v < 0 else str(v) for v in values.tolist()])
    yield number_column("outlier_score", found.outlier_score)
    yield number_column("outlier_rank", found.outlier_rank)
    yield _words("role", found.roles)
    yield _words("near_duplicates", [str(len(ids)) for ids in found.duplicates])


def _words(name: str, cells: Sequence[str]) -> Column:
    gathered = Cells(name)
    for cell in cells:
        gathered.add(cell)
    return gathered.category()


def _listed_columns(
    catalogue: str | Path, split: str | Path, found: Analysis
) -> Iterator[Column]:
    """What the catalogue and the list say of these images, and their subset."""
    listed = artefacts.list_columns(catalogue)
    names = [*listed, *CATALOGUE_COLUMNS]
    cells = {name: Cells(name, name in listed) for name in names}
    subsets = Cells("subset")
    waiting = iter(found.image_ids)
    wanted = next(waiting, None)
    for row, fate in zip(
        artefacts.read_csv(catalogue, CATALOGUE_COLUMNS),
        artefacts.read_csv(split, SPLIT_COLUMNS),
        strict=False,
    ):
        if row["image_id"] != wanted or fate["subset"] == NONE:
            continue
        for name in names:
            cells[name].add(row[name] or "")
        subsets.add(fate["subset"])
        wanted = next(waiting, None)
    if wanted is not None:
        raise AstromorphError(
            f"{catalogue}: {wanted}, which was analysed, is not in it and {split}, or "
            "not in this order; run `analyse` again"
        )
    for gathered in (*cells.values(), subsets):
        yield gathered.column()


class _Pixels:
    """What the tensors hold of the images: pictures and statistics."""

    def __init__(self, image_ids: Sequence[str]) -> None:
        self._wanted = image_ids
        self._statistics: dict[str, list[float]] = {name: [] for name in PIXELS}

    def thumbnails(
        self, tensors: Sequence[str | Path], side: int
    ) -> Iterator[NDArray[np.uint8]]:
        """The picture of each image, in order; the statistics are kept by the way."""
        done = 0
        for image, facts in track(
            self._each(tensors), len(self._wanted), "pictures of the map"
        ):
            for name, values in self._statistics.items():
                values.append(facts[name])
            yield thumbnail(image, side)
            done += 1
        if done < len(self._wanted):
            raise AstromorphError(
                f"{tensors[-1]}: {self._wanted[done]}, which was analysed, is in none "
                "of the tensors, or not in this order; run preprocess, infer and "
                "analyse again"
            )

    def _each(
        self, tensors: Sequence[str | Path]
    ) -> Iterator[tuple[NDArray[np.float32], dict[str, float]]]:
        waiting = iter(self._wanted)
        wanted = next(waiting, None)
        for path in tensors:
            shard = read_shard(path)
            statistics = _statistics(shard)
            for k, image in enumerate(shard.each()):
                if shard.image_ids[k] == wanted:
                    yield (
                        image.float().numpy(),
                        {n: v[k] for n, v in statistics.items()},
                    )
                    wanted = next(waiting, None)

    def columns(self) -> Iterator[Column]:
        """The statistics, once all thumbnails were taken."""
        for name, values in self._statistics.items():
            yield number_column(name, np.array(values, np.float32))


def _statistics(shard: TensorShard) -> dict[str, list[float]]:
    absent = [float("nan")] * len(shard)
    given = shard.statistics
    return {n: given[n].tolist() if n in given else absent for n in PIXELS}


def _within_limits(columns: Sequence[Column]) -> tuple[list[Column], list[str]]:
    """Columns that say something and fit into the page; names of what does not fit."""
    kept: list[Column] = []
    left_out: list[str] = []
    total = sum(column.size for column in columns if column.name in NAMES)
    for column in columns:
        if column.name in NAMES:
            kept.append(column)
        elif not column.is_empty:
            if column.size <= min(MAX_TEXT, MAX_COLUMNS - total):
                total += column.size
                kept.append(column)
            else:
                left_out.append(column.name)
    return kept, left_out


def _first(columns: Sequence[Column]) -> str:
    """What colours the map at first: the clusters, where there are any."""
    return next(
        (c.name for c in columns if c.name in ANALYSED and c.kind == "category"),
        "outlier_score",
    )


def _relations(found: Analysis) -> dict[str, Any]:
    """Neighbours with distances and near-duplicates, by row number."""
    rows = {image_id: row for row, image_id in enumerate(found.image_ids)}
    nearest = np.full(found.distances.shape, -1, np.int32)
    for row, ids in enumerate(found.neighbours):
        nearest[row, : len(ids)] = [rows.get(image_id, -1) for image_id in ids]
    return {
        "nearest": pack_array(nearest.ravel()),
        "distances": pack_array(found.distances.ravel()),
        "duplicates": {
            row: [rows[image_id] for image_id in ids if image_id in rows]
            for row, ids in enumerate(found.duplicates)
            if ids
        },
    }


def _beside(pictures: str | Path, output: str | Path) -> str:
    """The folder of the pictures as the page names it."""
    return Path(os.path.relpath(pictures, Path(output).parent)).as_posix()


def _verdict(evaluation: str | Path | None) -> dict[str, Any] | None:
    if evaluation is None:
        return None
    try:
        said = json.loads(Path(evaluation).read_text(encoding="utf-8"))["verdict"]
        return {"better": bool(said["better"]), "sentence": str(said["sentence"])}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise AstromorphError(
            f"{evaluation}: no evaluation can be read here ({error!r}); run `evaluate` "
            "again, or leave it out"
        ) from None


def _rendered(**parts: Any) -> str:
    return render_template(
        "map.html", **parts, bokeh=Markup(script()), script=template_source("map.js")
    )
