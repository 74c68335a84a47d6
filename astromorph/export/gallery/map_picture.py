"""Pictures of the map: points coloured by class, examples of clusters, a legend.

Matplotlib draws the points of each class in one call for each of `LAYERS` layers.
Where classes overlap, each is therefore visible in proportion, and the last one does
not cover the others. A single call with a colour for each point would look the same,
but takes three to four times as long for a million points.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from astromorph.artefacts.analysis_table import (
    REPRESENTATIVE,
    Analysis,
    read_analysis_parts,
)
from astromorph.artefacts.run_files import RunFiles
from astromorph.artefacts.run_table import find_in_catalogue
from astromorph.artefacts.tables import list_columns
from astromorph.atomic import atomic_write
from astromorph.export.gallery.contact_sheet import GAP, SIDE, TITLE
from astromorph.export.gallery.drawing import TITLE_POINTS, Canvas, new_canvas
from astromorph.export.gallery.pictures import Picture
from astromorph.export.gallery.sheets import MAX_CLUSTERS, NO_CLUSTER, Frame, Sheet
from astromorph.export.palette import (
    BLACK,
    COLOURS,
    MARKERS,
    NONE_COLOUR,
    OTHERS_COLOUR,
    WHITE,
    point_size,
)

CLUSTER = "cluster"
MAX_CLASSES = len(COLOURS) * len(MARKERS)
# Matplotlib markers, and the size at which their area is that of a circle of size 1.
MARKER_SHAPES = {
    "circle": ("o", 1.0),
    "triangle": ("^", math.sqrt(math.pi / 2)),
    "square": ("s", math.sqrt(math.pi / 4)),
    "diamond": ("D", math.sqrt(math.pi / 4)),
}
FIELD, MARGIN, LEGEND, ROW, COUNT = 840, 30, 270, 24, 80  # pixels
PICTURE, BORDER = SIDE // 2, 3  # pixels; side and border of the picture of an example
CELL = 8  # pixels; pictures are placed on a grid of cells
CELLS = FIELD // CELL
PICTURE_CELLS = -(-(PICTURE + 2 * BORDER) // CELL)
LAYERS = 16
MAX_POINTS_WITH_RIMS = 5000  # with more points, their rims would cover other points
LEGEND_POINTS = 9.0
LEGEND_MARKER = 10.0  # pixels


@dataclass(frozen=True, slots=True)
class MapClass:
    """A class of points and its entry in the legend.

    Attributes
    ----------
    name : str
        A cluster, a label, or a description of the points without one.
    size : int
        Number of its points.
    colour : str
        Hexadecimal.
    marker : str
        One of `MARKERS`.
    in_background : bool
        Drawn below all others.
    """

    name: str
    size: int
    colour: str
    marker: str = MARKERS[0]
    in_background: bool = False


@dataclass(frozen=True, slots=True)
class MapExample:
    """The representative of a cluster.

    Attributes
    ----------
    point : int
        Index of its point.
    name : str
        Its cluster or label.
    map_class : MapClass
        The class of its point.
    """

    point: int
    name: str
    map_class: MapClass


@dataclass(frozen=True, slots=True)
class MapContents:
    """The contents of a picture of the map.

    Attributes
    ----------
    sheet : Sheet
        Name and title, and a frame for each of `examples`.
    coloured_by : str
        `cluster` or a column of the file list.
    positions : ndarray, shape (N, 2), float32
        Positions of the points on the map.
    classes : tuple of MapClass
        Clusters by number, or labels by size; then those without their own colour.
    class_of_point : ndarray, shape (N,), int16
        Index in `classes` for each point.
    examples : tuple of MapExample
        Representatives of the largest clusters.
    """

    sheet: Sheet
    coloured_by: str
    positions: NDArray[np.float32]
    classes: tuple[MapClass, ...]
    class_of_point: NDArray[np.int16]
    examples: tuple[MapExample, ...]


def choose_maps(files: RunFiles, label: str | None) -> list[MapContents]:
    """Choose the contents of the pictures of the map.

    Parameters
    ----------
    files : RunFiles
        `analysis` and `catalogue` are read.
    label : str or None
        A column that the file list may have.

    Returns
    -------
    list of MapContents
        The map coloured by cluster, and by label if any image has one.

    Raises
    ------
    AstromorphError
        The files do not belong together.
    """
    points = _read_points(files.analysis)
    clusters, class_of_point = np.unique(points.clusters, return_inverse=True)
    names = ["" if c == NO_CLUSTER else str(c) for c in clusters.tolist()]
    maps = [_contents(points, "map_clusters", CLUSTER, names, class_of_point)]
    # A column `cluster` of the file list is not the clusters of the analysis.
    if label == CLUSTER or label not in ("object", *list_columns(files.catalogue)):
        return maps
    labels = find_in_catalogue(files, points.image_ids, [label])[label]
    numbers, names = pd.factorize(labels)
    if any(names):
        maps.append(_contents(points, "map_label", label, list(names), numbers))
    return maps


@dataclass
class _Points:
    """The points of the map, as read from the analysis."""

    image_ids: list[str]
    positions: NDArray[np.float32]
    clusters: NDArray[np.int32]
    representatives: dict[int, tuple[str, int]]


def _read_points(analysis: Path) -> _Points:
    """Read positions and clusters, part by part."""
    points = _Points([], np.empty((0, 2), np.float32), np.empty(0, np.int32), {})
    positions, clusters = [], []
    for part in read_analysis_parts(analysis):
        points.representatives |= _representatives(part, len(points.image_ids))
        points.image_ids += part.image_ids
        positions.append(part.map)
        clusters.append(part.cluster)
    points.positions = np.concatenate(positions)
    points.clusters = np.concatenate(clusters)
    return points


def _representatives(part: Analysis, first: int) -> dict[int, tuple[str, int]]:
    """Id and index of the representative of each of the largest clusters."""
    return {
        int(part.cluster[k]): (part.image_ids[k], first + k)
        for k, role in enumerate(part.roles)
        if role == REPRESENTATIVE and part.cluster[k] < MAX_CLUSTERS
    }


def _contents(
    points: _Points,
    sheet_name: str,
    coloured_by: str,
    names: Sequence[str],
    numbers: NDArray[np.integer],
) -> MapContents:
    """Assign a colour and a marker to each class; `numbers` are indices in `names`."""
    classes, class_of_name = _choose_classes(coloured_by, names, numbers)
    class_of_point = class_of_name[numbers]
    representatives = [
        points.representatives[cluster] for cluster in sorted(points.representatives)
    ]
    total = len(numbers)
    title = f"Map coloured by {coloured_by}: {total:,} image" + "s" * (total != 1)
    title += "; pictures: representatives of clusters" if representatives else ""
    frames = tuple(Frame(i, mark=REPRESENTATIVE) for i, _ in representatives)
    return MapContents(
        sheet=Sheet(sheet_name, "map", title, 1, frames),
        coloured_by=coloured_by,
        positions=points.positions,
        classes=classes,
        class_of_point=class_of_point,
        examples=tuple(
            MapExample(k, names[numbers[k]], classes[class_of_point[k]])
            for _, k in representatives
        ),
    )


def _choose_classes(
    coloured_by: str, names: Sequence[str], numbers: NDArray[np.integer]
) -> tuple[tuple[MapClass, ...], NDArray[np.int16]]:
    """Classes of the legend, and for each name the index of its class."""
    sizes = np.bincount(numbers, minlength=len(names)).tolist()
    ranked = [k for k, name in enumerate(names) if name]
    if coloured_by != CLUSTER:
        ranked.sort(key=lambda k: (-sizes[k], names[k]))
    classes = [
        MapClass(names[k], sizes[k], COLOURS[rank % len(COLOURS)], marker)
        for marker, some in _by_marker(ranked)
        for rank, k in enumerate(some)
    ]
    class_of_name = np.full(len(names), len(classes), np.int16)
    class_of_name[ranked[:MAX_CLASSES]] = np.arange(len(classes))
    if others := ranked[MAX_CLASSES:]:
        size = sum(sizes[k] for k in others)
        name = f"{len(others)} other" + "s" * (len(others) != 1)
        classes.append(MapClass(name, size, OTHERS_COLOUR, in_background=True))
    if "" in names:
        without = list(names).index("")
        class_of_name[without] = len(classes)
        name = f"no {coloured_by}"
        classes.append(MapClass(name, sizes[without], NONE_COLOUR, in_background=True))
    return tuple(classes), class_of_name


def _by_marker(ranked: Sequence[int]) -> list[tuple[str, Sequence[int]]]:
    """Markers, each with its names: as many as there are colours."""
    step = len(COLOURS)
    return [(m, ranked[k * step : (k + 1) * step]) for k, m in enumerate(MARKERS)]


def draw_map(
    path: str | Path, contents: MapContents, pictures: Sequence[Picture | None]
) -> None:
    """Write a picture of the map.

    Parameters
    ----------
    path : path
        PNG to write.
    contents, pictures
        See `map_png`.
    """
    png = map_png(contents, pictures)
    with atomic_write(path) as temporary:
        temporary.write_bytes(png)


def map_png(
    contents: MapContents, pictures: Sequence[Picture | None], dark: bool = False
) -> bytes:
    """Draw a picture of the map.

    Parameters
    ----------
    contents : MapContents
        Points, classes and examples.
    pictures : sequence of Picture or None
        One for each example, of at most `PICTURE` pixels along each side.
    dark : bool
        For pages with a dark background: there, the black class is white.

    Returns
    -------
    bytes
        PNG.
    """
    width, height = FIELD + LEGEND, TITLE + FIELD + GAP
    x, y = _to_pixels(contents.positions)
    points = [e.point for e in contents.examples]
    spots = list(zip(x[points].tolist(), y[points].tolist(), strict=True))
    corners = place_pictures(_occupied_cells(x, y), spots)
    with new_canvas(width, height, dark) as canvas:
        title = contents.sheet.title
        canvas.text(GAP, TITLE / 2, title, TITLE_POINTS, width - 2 * GAP)
        _draw_points(canvas, contents, x, y)
        _draw_legend(canvas, contents)
        for example, picture, spot, corner in zip(
            contents.examples, pictures, spots, corners, strict=True
        ):
            if corner is not None and picture is not None:
                _draw_example(canvas, example, picture, spot, corner)
        return canvas.png()


def _to_pixels(
    positions: NDArray[np.float32],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Pixels of the sheet, from the left and the top; both axes have the same scale."""
    low = positions.min(axis=0).astype(np.float64)
    high = positions.max(axis=0).astype(np.float64)
    scale = (FIELD - 2 * MARGIN) / (float((high - low).max()) or 1)
    x, y = (scale * (positions - (low + high) / 2)).T
    return FIELD / 2 + x, TITLE + FIELD / 2 - y


def _occupied_cells(
    x: NDArray[np.float64], y: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """Whether each cell `(CELLS, CELLS)` of the map contains a point."""
    occupied = np.zeros((CELLS, CELLS), np.bool_)
    occupied[((y - TITLE) // CELL).astype(int), (x // CELL).astype(int)] = True
    return occupied


def place_pictures(
    occupied: NDArray[np.bool_], spots: Sequence[tuple[float, float]]
) -> list[tuple[int, int] | None]:
    """Find a position for a picture near each spot.

    Pictures do not overlap; each covers few points and is close to its spot.

    Parameters
    ----------
    occupied : ndarray, shape (CELLS, CELLS), bool
        Whether each cell of the map contains a point.
    spots : sequence of tuple of float
        Positions on the sheet, from the left and the top.

    Returns
    -------
    list of tuple of int, or None
        Left and top of each picture on the sheet; None if there is no room.
    """
    window = (PICTURE_CELLS, PICTURE_CELLS)
    windows = np.lib.stride_tricks.sliding_window_view(occupied, window)
    covered = windows.mean(axis=(2, 3))
    rows, columns = np.indices(covered.shape)
    side = PICTURE_CELLS * CELL
    free = np.ones(covered.shape, np.bool_)
    corners: list[tuple[int, int] | None] = []
    for x, y in spots:
        across = columns * CELL + side / 2 - x
        down = rows * CELL + side / 2 + TITLE - y
        distance = np.hypot(across, down) / side
        cost = 15 * covered + distance + 100 * (distance < 0.75)
        if not free.any():
            corners.append(None)
            continue
        row, column = divmod(int(np.where(free, cost, np.inf).argmin()), cost.shape[1])
        corners.append((column * CELL + BORDER, row * CELL + BORDER + TITLE))
        apart = np.maximum(abs(columns - column), abs(rows - row))
        free &= apart > PICTURE_CELLS
    return corners


def _draw_points(
    canvas: Canvas,
    contents: MapContents,
    x: NDArray[np.float64],
    y: NDArray[np.float64],
) -> None:
    size = point_size(len(x))
    rim = 1.0 if len(x) <= MAX_POINTS_WITH_RIMS else 0.0
    for start in range(LAYERS):
        layer = np.arange(start, len(x), LAYERS)
        codes = contents.class_of_point[layer]
        for code in np.unique(codes).tolist():
            some = layer[codes == code]
            _draw_class(canvas, contents.classes[code], x[some], y[some], size, rim)


def _draw_class(
    canvas: Canvas,
    map_class: MapClass,
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    size: float,
    rim: float = 0.0,
) -> None:
    marker, factor = MARKER_SHAPES[map_class.marker]
    background = map_class.in_background
    canvas.points(
        x,
        y,
        marker,
        size * factor,
        _visible(map_class.colour, canvas),
        rim=0.0 if background else rim,
        layer=0.0 if background else 1.0,
    )


def _visible(colour: str, canvas: Canvas) -> str:
    """The colour of a class; black would not be seen on a dark sheet."""
    return WHITE if canvas.dark and colour == BLACK else colour


def _draw_legend(canvas: Canvas, contents: MapContents) -> None:
    left, right = FIELD + GAP, FIELD + LEGEND - GAP
    y = TITLE + 16.0
    heading = contents.coloured_by
    name_width = right - COUNT - left
    canvas.text(left, y, heading, LEGEND_POINTS + 1, name_width)
    canvas.text(right - COUNT + 8, y, "images", LEGEND_POINTS, COUNT)
    for k, entry in enumerate(contents.classes):
        y = TITLE + 44.0 + ROW * k
        marker = np.array([left + 8.0]), np.array([y])
        _draw_class(canvas, entry, *marker, LEGEND_MARKER)
        canvas.text(left + 24, y, entry.name, LEGEND_POINTS, name_width - 24)
        canvas.text(right - COUNT + 8, y, f"{entry.size:,}", LEGEND_POINTS, COUNT)


def _draw_example(
    canvas: Canvas,
    example: MapExample,
    picture: Picture,
    spot: tuple[float, float],
    corner: tuple[int, int],
) -> None:
    """A picture with a border in the colour of its class, and a line to its point."""
    left, top = corner
    canvas.leader(spot, (left + PICTURE / 2, top + PICTURE / 2))
    side = PICTURE + 2 * BORDER
    colour = _visible(example.map_class.colour, canvas)
    canvas.rectangle(left - BORDER, top - BORDER, side, side, colour, layer=3)
    canvas.picture(picture, left, top, PICTURE, layer=3)
    canvas.text_on_picture(left + 4, top + 9, example.name, PICTURE - 8)
