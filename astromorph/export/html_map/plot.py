"""The plot of `map.html`: points, tools and colour bar, drawn by Bokeh.

No text of a header or a list is in it. The page's script finds the parts by name.
"""

from typing import Any

import numpy as np
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
from numpy.typing import NDArray

from astromorph.pages.pictures import COLOURS, MARKERS, NONE_COLOUR, point_size

RAMP = Viridis256[:245]  # its yellow end is faint on white
INK = "#1b1f24"


def make_plot(
    places: NDArray[np.float32], components: NDArray[np.float32]
) -> dict[str, Any]:
    """The plot as Bokeh's script takes it.

    Parameters
    ----------
    places : ndarray, shape (N, 2), float32
        On the map.
    components : ndarray, shape (N, 2), float32
        The same images by principal components.

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
    # One glyph per marker: with mixed ones Bokeh's WebGL draws a selection wrongly.
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
    """Bokeh's own scripts, for a page that works without a network."""
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
    """Marks over the points: results of a search, an image and its neighbours."""
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
