"""The map as a picture: points by class, pictures of examples, a legend.

Points are painted one part after the other, so that any number of them takes the same
memory. Everything is painted twice as large and made smaller, for smooth edges.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageColor, ImageDraw

from astromorph.export.gallery.contact_sheet import (
    GAP,
    SIDE,
    TITLE,
    TITLE_POINTS,
    TextWriter,
    paint_picture,
)
from astromorph.export.gallery.map_contents import (
    MAX_CLASSES,
    NONE,
    OTHERS,
    MapExample,
    MapSheet,
)
from astromorph.export.gallery.pictures import Picture
from astromorph.pages.palette import (
    COLOURS,
    MARKERS,
    NONE_COLOUR,
    OTHERS_COLOUR,
    point_size,
)

FIELD, MARGIN, LEGEND, ROW, COUNT = 840, 30, 270, 24, 80  # pixels
PICTURE, FRAME, STEP = SIDE // 2, 3, 8
FINE = 2  # painted pixels per pixel
WITH_RIMS = 5000  # points; of more, the rims would cover the others
RIM = 255
LEGEND_POINTS = 9.0
LEGEND_MARKER = 10.0  # pixels
INK = "#1b1f24"


def draw_map(
    path: str | Path, drawn: MapSheet, pictures: Sequence[Picture | None]
) -> None:
    """Draw the map.

    Parameters
    ----------
    path : path
        PNG to write.
    drawn : MapSheet
        Points, classes and examples.
    pictures : sequence of Picture or None
        One per example.
    """
    width, height = FIELD + LEGEND, TITLE + FIELD + GAP
    canvas = _Canvas(width, height)
    view = _View.of(drawn.limits)
    rims = drawn.number <= WITH_RIMS
    for places, codes in drawn.points():
        x, y = view.at(places[:, 0], places[:, 1])
        canvas.paint(x, y, codes, point_size(drawn.number), rims)
    spots = [
        (float(x), float(y)) for x, y in (view.at(e.x, e.y) for e in drawn.examples)
    ]
    frames = place_pictures(canvas.covered(), spots)
    for k, entry in enumerate(drawn.classes):
        x, y = np.array([FIELD + GAP + 8.0]), np.array([_legend_row(k)])
        canvas.paint(x, y, np.array([entry.code]), LEGEND_MARKER, False)
    paper = canvas.picture(spots, frames)
    for example, picture, frame in zip(drawn.examples, pictures, frames, strict=True):
        if frame is not None and picture is not None:
            _put(paper, example, picture, *frame)
    with TextWriter.on(width, height) as text:
        text.write(GAP, TITLE / 2, drawn.sheet.title, TITLE_POINTS, width - 2 * GAP)
        for example, frame in zip(drawn.examples, frames, strict=True):
            if frame is not None:
                text.over(frame[0] + 4, frame[1] + 9, example.name, PICTURE - 8)
        _write_legend(text, drawn)
        text.save(paper, path)


def _legend_row(k: int) -> float:
    return TITLE + 44 + ROW * k


def _write_legend(text: TextWriter, drawn: MapSheet) -> None:
    left, width = FIELD + GAP, LEGEND - 2 * GAP
    text.write(left, TITLE + 16, drawn.by, LEGEND_POINTS + 1, width - COUNT)
    text.write(left + width - COUNT + 8, TITLE + 16, "images", LEGEND_POINTS, COUNT)
    for k, entry in enumerate(drawn.classes):
        y = _legend_row(k)
        text.write(left + 24, y, entry.name, LEGEND_POINTS, width - 24 - COUNT)
        text.write(left + width - COUNT + 8, y, str(entry.size), LEGEND_POINTS, COUNT)


@dataclass(frozen=True, slots=True)
class _View:
    """From places on the map to pixels of the sheet, one scale for both axes."""

    scale: float
    left: float
    top: float

    @classmethod
    def of(cls, limits: tuple[float, float, float, float]) -> "_View":
        low, high, bottom, top = limits
        room = FIELD - 2 * MARGIN
        scale = room / (max(high - low, top - bottom) or 1)
        middle = FIELD / 2
        return cls(
            scale,
            middle - scale * (low + high) / 2,
            TITLE + middle + scale * (bottom + top) / 2,
        )

    def at(
        self, x: NDArray[np.float32] | float, y: NDArray[np.float32] | float
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Pixels from the left and from the top."""
        return (
            self.left + self.scale * np.asarray(x, np.float64),
            self.top - self.scale * np.asarray(y, np.float64),
        )


class _Canvas:
    """A sheet on which each painted pixel holds the code of a point, plus one.

    What is in no class lies under the others.
    """

    def __init__(self, width: int, height: int) -> None:
        self._over, self._under = np.zeros((2, FINE * height, FINE * width), np.uint8)

    def paint(
        self,
        x: NDArray[np.float64],
        y: NDArray[np.float64],
        codes: NDArray[np.int64],
        size: float,
        rims: bool,
    ) -> None:
        """Paint points of some diameter in pixels; later ones lie on top."""
        column = np.round(FINE * x).astype(np.int64)
        row = np.round(FINE * y).astype(np.int64)
        for marker in range(len(MARKERS)):
            chosen = (codes < MAX_CLASSES) & (codes // len(COLOURS) == marker)
            self._paint(self._over, row, column, codes, chosen, marker, size, rims)
        gray = codes >= MAX_CLASSES
        self._paint(self._under, row, column, codes, gray, 0, size, False)

    def _paint(
        self,
        layer: NDArray[np.uint8],
        row: NDArray[np.int64],
        column: NDArray[np.int64],
        codes: NDArray[np.int64],
        chosen: NDArray[np.bool_],
        marker: int,
        size: float,
        rims: bool,
    ) -> None:
        shape, rim = marker_stamp(MARKERS[marker], size * FINE / 2, FINE if rims else 0)
        where = np.concatenate([rim, shape])
        ink = np.arange(len(where)) >= len(rim)
        down = row[chosen, None] + where[:, 0]
        across = column[chosen, None] + where[:, 1]
        values = np.where(ink, 1 + codes[chosen, None], RIM).astype(np.uint8)
        inside = (down >= 0) & (down < layer.shape[0])
        inside &= (across >= 0) & (across < layer.shape[1])
        # Of a pixel that is named several times the last value stays: the last point's.
        layer[down[inside], across[inside]] = values[inside]

    def covered(self) -> NDArray[np.float64]:
        """How much of each pixel of the map is painted, from 0 to 1."""
        painted = (self._over > 0) | (self._under > 0)
        field = painted[FINE * TITLE : FINE * (TITLE + FIELD), : FINE * FIELD]
        blocks = field.reshape(FIELD, FINE, FIELD, FINE)
        covered: NDArray[np.float64] = blocks.mean(axis=(1, 3))
        return covered

    def picture(
        self,
        spots: Sequence[tuple[float, float]],
        frames: Sequence[tuple[int, int] | None],
    ) -> NDArray[np.uint8]:
        """The sheet `(H, W, 3)`, with lines from the spots to their frames."""
        codes = np.where(self._over > 0, self._over, self._under)
        large = Image.fromarray(_palette()[codes])
        pen = ImageDraw.Draw(large)
        for (x, y), frame in zip(spots, frames, strict=True):
            if frame is None:
                continue
            ends = [x, y, frame[0] + PICTURE / 2, frame[1] + PICTURE / 2]
            line = [round(FINE * end) for end in ends]
            pen.line(line, "white", width=7)
            pen.line(line, INK, width=3)
            pen.circle(line[:2], 9, fill=INK, outline="white", width=2)
        height, width = codes.shape
        size = width // FINE, height // FINE
        return np.array(large.resize(size, Image.Resampling.BOX))


def marker_stamp(
    marker: str, radius: float, rim: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pixels of a marker, and of a rim around it, as steps down and across.

    Parameters
    ----------
    marker : str
        One of `MARKERS`; all have about the same area.
    radius : float
        Of the circle, in pixels.
    rim : int
        Its width in pixels; 0 is none.

    Returns
    -------
    shape, rim : ndarray, shape (P, 2), int64
    """
    reach = math.ceil(1.5 * radius) + rim
    down, across = np.mgrid[-reach : reach + 1, -reach : reach + 1]

    def inside(r: float) -> NDArray[np.bool_]:
        if marker == "square":
            within = np.maximum(abs(down), abs(across)) <= 0.88 * r
        elif marker == "diamond":
            within = abs(down) + abs(across) <= 1.25 * r
        elif marker == "triangle":
            within = (down <= 0.8 * r) & (abs(across) <= 0.58 * (down + 1.35 * r))
        else:
            within = down**2 + across**2 <= r**2
        return np.asarray(within, np.bool_)

    def steps(mask: NDArray[np.bool_]) -> NDArray[np.int64]:
        return np.stack([down[mask], across[mask]], axis=1)

    shape = inside(radius)
    return steps(shape), steps(inside(radius + rim) & ~shape)


def _palette() -> NDArray[np.uint8]:
    """The colour `(256, 3)` of what a canvas holds."""
    colours = np.full((256, 3), 255, np.uint8)
    for code in (*range(MAX_CLASSES), OTHERS, NONE):
        colours[1 + code] = class_colour(code)
    return colours


def class_colour(code: int) -> tuple[int, int, int]:
    """Red, green and blue of a class."""
    gray = {OTHERS: OTHERS_COLOUR, NONE: NONE_COLOUR}
    name = gray.get(code) or COLOURS[code % len(COLOURS)]
    red, green, blue = ImageColor.getrgb(name)[:3]
    return red, green, blue


def place_pictures(
    covered: NDArray[np.float64], spots: Sequence[tuple[float, float]]
) -> list[tuple[int, int] | None]:
    """Find room for a picture near each spot.

    None lies on another; each lies where it covers few points and its way is short.

    Parameters
    ----------
    covered : ndarray, shape (FIELD, FIELD), float64
        How much of a pixel is painted.
    spots : sequence of tuple of float
        Pixels of the sheet, from the left and the top.

    Returns
    -------
    list of tuple of int, or None
        Left and top of each picture on the sheet; None where there is no room.
    """
    side = PICTURE + 2 * FRAME
    sums = np.pad(covered.cumsum(axis=0).cumsum(axis=1), ((1, 0), (1, 0)))
    starts = np.arange(0, FIELD - side, STEP)
    top, left = (grid.ravel() for grid in np.meshgrid(starts, starts, indexing="ij"))
    under = sums[top + side, left + side] - sums[top, left + side]
    under += sums[top, left] - sums[top + side, left]
    free = np.ones(len(top), np.bool_)
    found: list[tuple[int, int] | None] = []
    for x, y in spots:
        away = np.hypot(left + side / 2 - x, top + side / 2 + TITLE - y)
        hides = away < side * 0.75
        cost = 15 * under / side**2 + away / side + 100 * hides
        if not free.any():
            found.append(None)
            continue
        best = int(np.argmin(np.where(free, cost, np.inf)))
        found.append((int(left[best]) + FRAME, int(top[best]) + FRAME + TITLE))
        near = np.maximum(abs(left - left[best]), abs(top - top[best]))
        free &= near >= side + STEP // 2
    return found


def _put(
    paper: NDArray[np.uint8], example: MapExample, picture: Picture, left: int, top: int
) -> None:
    """A picture in a frame of its class's colour."""
    frame = np.zeros((SIDE, SIDE, 3), np.uint8)
    paint_picture(frame, picture, 0, 0)
    outer = slice(top - FRAME, top + PICTURE + FRAME)
    paper[outer, left - FRAME : left + PICTURE + FRAME] = class_colour(example.code)
    small = Image.fromarray(frame).resize((PICTURE, PICTURE), Image.Resampling.BOX)
    paper[top : top + PICTURE, left : left + PICTURE] = np.asarray(small)
