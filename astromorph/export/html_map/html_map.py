"""The export `map`: an HTML page for exploring the embedding.

It opens in a browser without a server or a network connection. The scripts of the page
are in the folder `scripts`, one for each topic; those of several pages are beside the
templates of pages. `chunks` describes how they get data.
"""

import base64
import contextlib
import json
import logging
import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.compute as pc
from numpy.typing import NDArray

from astromorph.analysis.components import leading_components
from astromorph.analysis.embedded_images import read_analysed_images
from astromorph.artefacts.analysis_table import REPRESENTATIVE
from astromorph.artefacts.column_types import (
    DISTANCES,
    FACTS,
    is_listed,
    list_lengths,
    padded_lists,
    typed_columns,
)
from astromorph.artefacts.columns import CATALOGUE_COLUMNS
from astromorph.artefacts.run_files import RunFiles
from astromorph.artefacts.run_table import (
    all_tensors,
    list_digest,
    number_of_listed,
    run_table,
)
from astromorph.artefacts.tables import arrow_array
from astromorph.atomic import atomic_folder, atomic_write
from astromorph.errors import AstromorphError
from astromorph.export.html_map.chunks import FACT_ROWS, NAME_ROWS, Chunks
from astromorph.export.html_map.packing import (
    PIXEL_STATISTICS,
    PackedColumn,
    ShardPictures,
    SheetLayout,
    pack_categories,
    pack_column,
    pack_numbers,
)
from astromorph.export.palette import COLOURS, MARKERS, NONE_COLOUR, point_size
from astromorph.pages.html import link_to, render_template, script_of
from astromorph.provenance import digest

LOG = logging.getLogger(__name__)
# In the order in which the page runs them.
SCRIPTS = (
    "basics.js",
    "marks_file.js",
    "scripts/data.js",
    "scripts/elements.js",
    "scripts/scatter.js",
    "scripts/edges.js",
    "scripts/pictures.js",
    "scripts/scales.js",
    "scripts/labels.js",
    "scripts/legend.js",
    "scripts/search.js",
    "scripts/image.js",
    "scripts/list.js",
    "scripts/samp.js",
    "scripts/votable.js",
    "scripts/tools.js",
    "scripts/ranking.js",
    "scripts/marks.js",
    "scripts/main.js",
)
NAMES = ("object", "path", "image_id")  # columns that are searched
CLUSTERINGS = ("cluster", "cluster_kmeans", "cluster_hdbscan")
ANALYSED = (
    *CLUSTERINGS, "outlier_score", "outlier_rank", "novelty", "role", "near_duplicates",
)  # fmt: skip
NEW = "new"  # a column of bool or uint8: images to be drawn above all others
NOVELTY = "novelty"
MAX_ENTRIES = len(COLOURS) * len(MARKERS)  # of a legend, without those in gray
LARGE_PAGE = 200  # megabytes


def export_map(
    files: RunFiles,
    thumbnail_size: int,
    max_one_file: int,
    with_evaluation: bool,
    with_gallery: bool = False,
) -> None:
    """Write the page.

    Parameters
    ----------
    files : RunFiles
        Catalogue, split, embeddings, analysis, its summary and tensors are read, and
        the evaluation if its verdict is shown; `map` and, if needed, the folder
        `map_pictures` are written.
    thumbnail_size : int
        The side of a picture in pixels.
    max_one_file : int
        Pictures and columns of up to this many listed images are in the page, else in
        the folder.
    with_evaluation : bool
        Whether to show the verdict of the evaluation.
    with_gallery : bool
        Whether to link the contact sheets.

    Raises
    ------
    AstromorphError
        A file is missing, the files do not match, or the evaluation cannot be read.
    """
    table = run_table(files)
    verdict = _read_verdict(files.evaluation) if with_evaluation else None
    listed = number_of_listed(files)
    with contextlib.ExitStack() as stack:
        folder = None
        if listed > max_one_file:
            folder = stack.enter_context(atomic_folder(files.map_pictures))
        chunks = Chunks(folder, _stamp(table))
        page = _write_chunks(chunks, files, table, thumbnail_size)
    page |= {
        "chunks": None if folder is None else _relative(files.map_pictures, files.map),
        "stamp": chunks.stamp,
        "folder": str(Path.cwd()),
        "marks": list_digest(files),
    }
    text = render_template(
        "map.html",
        files.identity,
        home=link_to(files.home, files.map),
        gallery=link_to(files.gallery / "index.html", files.map)
        if with_gallery
        else None,
        page=page,
        chunks=chunks.in_page,
        verdict=verdict,
        script=script_of(SCRIPTS, __package__),
    )
    with atomic_write(files.map) as temporary:
        temporary.write_text(text, encoding="utf-8")
    size = len(text) / 1e6
    LOG.info("%s: %d images, %.1f MB", files.map, len(table), size)
    if size > LARGE_PAGE and folder is None:
        LOG.warning(
            "%s has %.0f MB and may open slowly; with a value of "
            "`export_settings.map_one_file` below %d, most of it is written to %s",
            files.map, size, listed, files.map_pictures,
        )  # fmt: skip


def _write_chunks(
    chunks: Chunks, files: RunFiles, table: pd.DataFrame, thumbnail_size: int
) -> dict[str, Any]:
    """Write all data of the page except its description, which is returned."""
    nearest, distances, duplicates = _relations(table)
    layout = SheetLayout.for_side(thumbnail_size)
    pictures = ShardPictures(all_tensors(files), list(table["image_id"]))
    typical = _representatives(table)
    typical_rows = sorted({row for rows in typical.values() for row in rows.values()})
    kept: dict[int, NDArray[np.uint8]] = {}
    drawn = _keep(pictures.thumbnails(layout.side), typical_rows, kept)
    for k, sheet in enumerate(layout.draw(drawn)):
        chunks.add(f"pictures-{k}", base64.b64encode(sheet).decode())
    if chunks.folder is None:
        typical_rows = []
    for sheet in layout.draw(kept[row] for row in typical_rows):
        chunks.add("pictures-typical", base64.b64encode(sheet).decode(), at_once=True)
    statistics = [
        pack_numbers(name, np.array(values, np.float32))
        for name, values in pictures.statistics.items()
    ]
    columns = [
        column
        for column in (*_columns(table), *statistics)
        if column.name in NAMES or not column.is_empty
    ]
    first = _first(columns)
    chunks.add_columns(columns, first)
    names = [next(c for c in columns if c.name == name) for name in NAMES]
    facts = [column for column in columns if column.name not in NAMES]
    places = table[["x", "y"]].to_numpy(np.float32)
    components = table[["pca_1", "pca_2"]].to_numpy(np.float32)
    facts += [
        PackedColumn(name, "text", False, numbers)
        for name, numbers in zip(("x", "y"), places.T, strict=True)
    ]
    chunks.add_rows(names, facts, nearest, distances, duplicates)
    groups = {"map": chunks.add_layout("map", places, at_once=True)}
    if not np.array_equal(places, components):
        groups["pca"] = chunks.add_layout("pca", components)
    groups["components"] = _add_components(chunks, files)
    return {
        "number": len(table),
        "columns": [
            column.description() | {"unit": _unit(column, table)} for column in columns
        ],
        "typical": typical,
        "typical_sheet": typical_rows,
        "names": NAMES,
        "facts": [column.name for column in facts],
        "rows": {"names": NAME_ROWS, "facts": FACT_ROWS},
        "neighbours": nearest.shape[1],
        "groups": groups,
        "first": first,
        "new": NEW if _has_new(table) else None,
        "analysed": ANALYSED,
        "clusterings": CLUSTERINGS,
        "sheets": {
            "side": layout.side,
            "cell": layout.cell,
            "across": layout.across,
        },
        "colours": COLOURS,
        "markers": MARKERS,
        "none": NONE_COLOUR,
        "ramp": _ramp(),
        "size": point_size(len(table)),
    }


def _add_components(chunks: Chunks, files: RunFiles) -> dict[str, Any]:
    """Add the components by which the page ranks images."""
    images, space = read_analysed_images(files)
    leading = leading_components(images.vectors, space)
    return chunks.add_group("components", leading.codes, leading.scales.tolist())


def _columns(table: pd.DataFrame) -> Iterator[PackedColumn]:
    """Columns of the file list, of the analysis and of the catalogue."""
    if _has_new(table):
        yield pack_categories(
            table[NEW].astype(bool).map({True: NEW, False: ""}).astype("str")
        )
        table = table.drop(columns=NEW)
    columns, typed = typed_columns(table, 0)
    for name in (column.name for column in columns if is_listed(column)):
        yield pack_column(table[name], typed[name], listed=True)
    for name in CLUSTERINGS:
        words = table[name].astype("str").where(table[name] >= 0, "")
        yield pack_categories(words)
    for name in ("outlier_score", "outlier_rank"):
        yield pack_numbers(name, table[name].to_numpy())
    if NOVELTY in table:
        yield pack_numbers(NOVELTY, table[NOVELTY].to_numpy())
    yield pack_categories(table["role"])
    duplicates = pd.Series(list_lengths(table["duplicate_ids"]).astype(str))
    yield pack_categories(duplicates.rename("near_duplicates"))
    for name in (*CATALOGUE_COLUMNS, "subset"):
        yield pack_column(table[name], typed[name], listed=False)


def _has_new(table: pd.DataFrame) -> bool:
    """Whether there are new images; columns of the file list are texts."""
    return NEW in table and table[NEW].dtype in (np.bool_, np.uint8)


def _representatives(table: pd.DataFrame) -> dict[str, dict[str, int]]:
    """The rows of the representatives of the largest clusters.

    Returns
    -------
    dict of str to dict of str to int
        Column of clusters to cluster to row. Only of the clusters that the analysis
        shows, and of the method that they are from.
    """
    numbers = table["cluster"].to_numpy()
    is_typical = (table["role"] == REPRESENTATIVE).to_numpy(bool)
    rows = np.flatnonzero(is_typical & (numbers >= 0) & (numbers < MAX_ENTRIES))
    found = {str(numbers[row]): row for row in rows.tolist()}
    same = (name for name in CLUSTERINGS if np.array_equal(table[name], numbers))
    return dict.fromkeys(same, found)


def _keep(
    pictures: Iterable[NDArray[np.uint8]],
    rows: Collection[int],
    kept: dict[int, NDArray[np.uint8]],
) -> Iterator[NDArray[np.uint8]]:
    """Yield all pictures, and add those of some rows to `kept`."""
    for row, picture in enumerate(pictures):
        if row in rows:
            kept[row] = picture
        yield picture


def _unit(column: PackedColumn, table: pd.DataFrame) -> str:
    """The unit of a column as in the tables; pixel statistics have that of files."""
    if column.listed:
        return ""
    if column.name in PIXEL_STATISTICS:
        units = table["unit"].unique()
        return str(units[0]) if len(units) == 1 else ""
    return next((fact.unit for fact in FACTS if fact.name == column.name), "")


def _first(columns: Sequence[PackedColumn]) -> str:
    """The column that initially colours the map: clusters, if there are any."""
    return next(
        (c.name for c in columns if c.name in ANALYSED and c.kind == "category"),
        "outlier_score",
    )


def _relations(
    table: pd.DataFrame,
) -> tuple[NDArray[np.int32], NDArray[np.float32], dict[int, list[int]]]:
    """Rows of the neighbours, their distances, and near-duplicates by row.

    Neighbours and distances are removed from the table to save memory.
    """
    ids = arrow_array(table["image_id"])
    near, lengths = _rows(table.pop("neighbour_ids"), ids)
    number = int(lengths.max(initial=0))
    distances = padded_lists(table.pop(DISTANCES.name), number)
    nearest = np.full(distances.shape, -1, np.int32)
    nearest[np.arange(number) < lengths[:, None]] = near
    same, lengths = _rows(table["duplicate_ids"], ids)
    groups = np.split(same, np.cumsum(lengths)[:-1])
    duplicates = {
        row: [k for k in groups[row].tolist() if k >= 0]
        for row in np.flatnonzero(lengths).tolist()
    }
    return nearest, distances, duplicates


def _rows(lists: pd.Series, ids: Any) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Rows of the ids in all lists, -1 for unknown ids; lengths of the lists."""
    flat = pc.list_flatten(arrow_array(lists)).cast(ids.type)
    rows = pc.index_in(flat, value_set=ids).fill_null(-1)
    return rows.to_numpy(), list_lengths(lists)


def _stamp(table: pd.DataFrame) -> str:
    """A digest of the images and their positions."""
    places = table[["x", "y"]].to_numpy(np.float32).tobytes()
    return digest([*table["image_id"], places.hex()])


def _ramp() -> list[str]:
    """The 256 colours of viridis, from dark to bright."""
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    return [to_hex(colour) for colour in colormaps["viridis"](np.arange(256))]


def _relative(path: Path, page: Path) -> str:
    """The path of a file relative to the page."""
    return Path(os.path.relpath(path, page.parent)).as_posix()


def _read_verdict(evaluation: Path) -> dict[str, Any]:
    try:
        verdict = json.loads(evaluation.read_text(encoding="utf-8"))["verdict"]
        return {
            "better": bool(verdict["better"]),
            "summary": str(verdict["summary"]),
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise AstromorphError(
            f"{evaluation}: the evaluation cannot be read ({error!r}); run `evaluate` "
            "again, or omit --evaluation"
        ) from None
