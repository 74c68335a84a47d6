"""The export `map`: an HTML file for exploring the embedding.

It opens in a browser without a server or a network connection. The user interface is
HTML with the script next to the template; Bokeh draws the points.
"""

import base64
import json
import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.compute as pc
from bokeh.embed import json_item
from bokeh.models import (
    BoxSelectTool,
    BoxZoomTool,
    CDSView,
    ColumnDataSource,
    CustomJS,
    HoverTool,
    IndexFilter,
    LassoSelectTool,
    LinearColorMapper,
    PanTool,
    Range1d,
    SaveTool,
    TapTool,
    WheelZoomTool,
)
from bokeh.models.annotations import ColorBar
from bokeh.palettes import Viridis256
from bokeh.plotting import figure
from bokeh.resources import Resources
from markupsafe import Markup
from numpy.typing import NDArray

from astromorph.artefacts.column_types import (
    DISTANCES,
    is_listed,
    list_lengths,
    padded_lists,
    typed_columns,
)
from astromorph.artefacts.columns import CATALOGUE_COLUMNS
from astromorph.artefacts.run_files import RunFiles
from astromorph.artefacts.run_table import run_table
from astromorph.artefacts.tables import arrow_array, read_table
from astromorph.atomic import atomic_folder, atomic_write
from astromorph.errors import AstromorphError
from astromorph.export.html_map.packing import (
    PackedColumn,
    ShardPictures,
    SheetLayout,
    pack_array,
    pack_categories,
    pack_column,
    pack_numbers,
)
from astromorph.export.palette import COLOURS, MARKERS, NONE_COLOUR, point_size
from astromorph.pages.html import link_to, render_template, template_source

LOG = logging.getLogger(__name__)
SEARCHED = ("object", "path", "image_id")  # columns that are always included
CLUSTERINGS = ("cluster", "cluster_kmeans", "cluster_hdbscan")
ANALYSED = (*CLUSTERINGS, "outlier_score", "outlier_rank", "role", "near_duplicates")
MAX_TEXT = 16_000_000  # bytes of one column; larger ones make the page slow to open
MAX_COLUMNS = 64_000_000  # bytes of all columns
RAMP = Viridis256[:245]  # without its yellow end, which is faint on white
INK = "#1b1f24"


def export_map(
    files: RunFiles, thumbnail_size: int, max_one_file: int, with_evaluation: bool
) -> None:
    """Write the page.

    Parameters
    ----------
    files : RunFiles
        Catalogue, split, embeddings, analysis and tensors are read, and the evaluation
        if its verdict is shown; `map` and, if needed, the folder `map_pictures` are
        written.
    thumbnail_size : int
        The side of a picture in pixels.
    max_one_file : int
        Pictures of up to this many listed images are in the page, else in the folder.
    with_evaluation : bool
        Whether to show the verdict of the evaluation.

    Raises
    ------
    AstromorphError
        A file is missing, the files do not match, or the evaluation cannot be read.
    """
    table = run_table(files)
    verdict = _read_verdict(files.evaluation) if with_evaluation else None
    listed = len(read_table(files.catalogue, ["image_id"]))
    layout = SheetLayout.for_side(thumbnail_size)
    pictures = ShardPictures(files.all_tensors, list(table["image_id"]))
    sheets = layout.draw(pictures.thumbnails(layout.side))
    in_page: list[str] = []
    if listed <= max_one_file:
        in_page = [base64.b64encode(sheet).decode() for sheet in sheets]
    else:
        with atomic_folder(files.map_pictures) as folder:
            for k, sheet in enumerate(sheets):
                (folder / f"{k}.jpg").write_bytes(sheet)
    statistics = [
        pack_numbers(name, np.array(values, np.float32))
        for name, values in pictures.statistics.items()
    ]
    columns, left_out = _within_limits([*_columns(table), *statistics])
    places = table[["x", "y"]].to_numpy(np.float32)
    components = table[["pca_1", "pca_2"]].to_numpy(np.float32)
    relations, neighbours = _relations(table)
    page: dict[str, Any] = {
        "number": len(table),
        "columns": [column.description() for column in columns],
        "first": _first(columns),
        "analysed": ANALYSED,
        "layouts": not np.array_equal(places, components),
        "sheets": {
            "side": layout.side,
            "cell": layout.cell,
            "across": layout.across,
        },
        "pictures": None if in_page else _relative(files.map_pictures, files.map),
        "colours": COLOURS,
        "markers": MARKERS,
        "none": NONE_COLOUR,
        "ramp": RAMP,
        "folder": str(Path.cwd()),
        "neighbours": neighbours,
    }
    text = render_template(
        "map.html",
        files.identity,
        home=link_to(files.home, files.map),
        page=page,
        data=[column.data() for column in columns],
        relations=relations,
        plot=make_plot(places, components),
        sheets=in_page,
        left_out=left_out,
        verdict=verdict,
        bokeh=Markup(bokeh_script()),
        script=template_source("map.js"),
    )
    with atomic_write(files.map) as temporary:
        temporary.write_text(text, encoding="utf-8")
    LOG.info("%s: %d images, %.1f MB", files.map, len(table), len(text) / 1e6)


def _columns(table: pd.DataFrame) -> Iterator[PackedColumn]:
    """Columns of the file list, of the analysis and of the catalogue."""
    columns, typed = typed_columns(table, 0)
    for name in (column.name for column in columns if is_listed(column)):
        yield pack_column(table[name], typed[name], listed=True)
    for name in CLUSTERINGS:
        words = table[name].astype("str").where(table[name] >= 0, "")
        yield pack_categories(words)
    for name in ("outlier_score", "outlier_rank"):
        yield pack_numbers(name, table[name].to_numpy())
    yield pack_categories(table["role"])
    duplicates = pd.Series(list_lengths(table["duplicate_ids"]).astype(str))
    yield pack_categories(duplicates.rename("near_duplicates"))
    for name in (*CATALOGUE_COLUMNS, "subset"):
        yield pack_column(table[name], typed[name], listed=False)


def _within_limits(
    columns: Sequence[PackedColumn],
) -> tuple[list[PackedColumn], list[str]]:
    """Non-empty columns that fit into the page; names of those that do not fit."""
    fitting: list[PackedColumn] = []
    left_out: list[str] = []
    total = sum(column.size for column in columns if column.name in SEARCHED)
    for column in columns:
        if column.name in SEARCHED:
            fitting.append(column)
        elif not column.is_empty:
            if column.size <= min(MAX_TEXT, MAX_COLUMNS - total):
                total += column.size
                fitting.append(column)
            else:
                left_out.append(column.name)
    return fitting, left_out


def _first(columns: Sequence[PackedColumn]) -> str:
    """The column that initially colours the map: clusters, if there are any."""
    return next(
        (c.name for c in columns if c.name in ANALYSED and c.kind == "category"),
        "outlier_score",
    )


def _relations(table: pd.DataFrame) -> tuple[dict[str, Any], int]:
    """Neighbours, distances and near-duplicates by row; the number of neighbours."""
    ids = arrow_array(table["image_id"])
    near, lengths = _rows(table["neighbour_ids"], ids)
    number = int(lengths.max(initial=0))
    distances = padded_lists(table[DISTANCES.name], number)
    nearest = np.full(distances.shape, -1, np.int32)
    nearest[np.arange(number) < lengths[:, None]] = near
    same, lengths = _rows(table["duplicate_ids"], ids)
    groups = np.split(same, np.cumsum(lengths)[:-1])
    return {
        "nearest": pack_array(nearest.ravel()),
        "distances": pack_array(distances.ravel()),
        "duplicates": {
            row: [k for k in groups[row].tolist() if k >= 0]
            for row in np.flatnonzero(lengths).tolist()
        },
    }, number


def _rows(lists: pd.Series, ids: Any) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Rows of the ids in all lists, -1 for unknown ids; lengths of the lists."""
    flat = pc.list_flatten(arrow_array(lists)).cast(ids.type)
    rows = pc.index_in(flat, value_set=ids).fill_null(-1)
    return rows.to_numpy(), list_lengths(lists)


def _relative(path: Path, page: Path) -> str:
    """The path of a file relative to the page."""
    return Path(os.path.relpath(path, page.parent)).as_posix()


def _read_verdict(evaluation: Path) -> dict[str, Any]:
    try:
        verdict = json.loads(evaluation.read_text(encoding="utf-8"))["verdict"]
        return {
            "better": bool(verdict["better"]),
            "sentence": str(verdict["sentence"]),
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise AstromorphError(
            f"{evaluation}: the evaluation cannot be read ({error!r}); run `evaluate` "
            "again, or omit --evaluation"
        ) from None


def make_plot(
    places: NDArray[np.float32], components: NDArray[np.float32]
) -> dict[str, Any]:
    """The plot in the form that Bokeh's script expects.

    Parameters
    ----------
    places : ndarray, shape (N, 2), float32
        Positions on the map.
    components : ndarray, shape (N, 2), float32
        The first two principal components of the same images.

    Returns
    -------
    dict
        For `Bokeh.embed.embed_item`.
    """
    number = len(places)
    source = ColumnDataSource(
        {
            "x": places[:, 0],
            "y": places[:, 1],
            "pca_1": components[:, 0],
            "pca_2": components[:, 1],
            "value": np.zeros(number, np.float32),
        },
        name="points",
    )
    plot = _figure()
    mapper = LinearColorMapper(
        palette=list(COLOURS), low=0, high=1, nan_color=NONE_COLOUR, name="mapper"
    )
    size = point_size(number)
    # One glyph per marker: Bokeh's WebGL draws selections of mixed ones incorrectly.
    shown = [
        IndexFilter(indices=[] if k else None, name=f"shown-{k}")
        for k in range(len(MARKERS))
    ]
    points = [
        plot.scatter(
            "x",
            "y",
            source=source,
            marker=marker,
            size=size,
            line_color=None,
            fill_color={"field": "value", "transform": mapper},
            fill_alpha=0.85,
            nonselection_fill_alpha=0.12,
            nonselection_line_color=None,
            name=f"points-{k}",
            view=CDSView(filter=shown[k]),
        )
        for k, marker in enumerate(MARKERS)
    ]
    _add_marks(plot, size)
    plot.add_layout(
        ColorBar(color_mapper=mapper, width=12, padding=6, visible=False, name="bar"),
        "right",
    )
    _add_tools(plot, points)
    return dict(json_item(plot))


def bokeh_script() -> str:
    """Bokeh's scripts, for a page that works offline."""
    resources = Resources(mode="inline", components=["bokeh", "bokeh-gl"])
    return "\n".join(resources.js_raw)


def _figure() -> figure:
    plot = figure(
        name="map",
        tools="",
        output_backend="webgl",
        sizing_mode="stretch_both",
        x_range=Range1d(start=0, end=1),
        y_range=Range1d(start=0, end=1),
        toolbar_location="above",
        min_border=0,
        outline_line_color="#d0d7de",
    )
    plot.toolbar.logo = None
    plot.grid.visible = False
    plot.axis.visible = False
    return plot


def _add_marks(plot: figure, size: float) -> None:
    """Add marks over the points: search results, an image and its neighbours."""
    lines = ColumnDataSource({k: [] for k in ("x0", "y0", "x1", "y1")}, name="lines")
    plot.segment("x0", "y0", "x1", "y1", source=lines, color=INK, line_alpha=0.5)
    for name, grown, width in (("found", 6, 2), ("near", 5, 1.5), ("here", 11, 3)):
        source = ColumnDataSource({"x": [], "y": []}, name=name)
        plot.scatter(
            "x",
            "y",
            source=source,
            size=size + grown,
            fill_color=None,
            line_color=INK,
            line_width=width,
        )


def _add_tools(plot: figure, points: list[Any]) -> None:
    pan, wheel, lasso = PanTool(), WheelZoomTool(), LassoSelectTool(renderers=points)
    lasso.continuous = False
    hover = HoverTool(
        renderers=points,
        tooltips=None,
        callback=CustomJS(code="astromorphMap.hovered(cb_data)"),
    )
    tap = TapTool(
        renderers=points,
        behavior="inspect",
        callback=CustomJS(code="astromorphMap.tapped(cb_data)"),
    )
    box = BoxSelectTool(renderers=points, continuous=False)
    zoom = BoxZoomTool(match_aspect=True)
    plot.add_tools(pan, lasso, box, zoom, wheel, SaveTool(filename="map"), tap, hover)
    hover.visible = tap.visible = False
    plot.toolbar.active_drag = pan
    plot.toolbar.active_scroll = wheel
