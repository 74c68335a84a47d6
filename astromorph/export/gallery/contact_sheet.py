"""Contact sheets: frames with pictures, names, notes and scale bars.

Matplotlib draws pictures and text. Positions are computed here, because each pixel of
a picture has to become one pixel of the sheet.
"""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from astromorph.artefacts.analysis_table import ODD, REPRESENTATIVE
from astromorph.export.gallery.drawing import (
    GRAY,
    SMALL_POINTS,
    TEXT_POINTS,
    TITLE_POINTS,
    Canvas,
    new_canvas,
    printable,
)
from astromorph.export.gallery.pictures import Picture
from astromorph.export.gallery.sheets import Sheet
from astromorph.pages.scale_bar import choose_scale_bar

SIDE, GAP, CAPTION, TITLE = 160, 12, 38, 40  # pixels
GROUP_COLOUR = "#e8ecf1"
# Okabe & Ito (2008), safe for colour-blind readers; the line styles differ, too.
MARKS = {REPRESENTATIVE: ("#0072b2", "solid"), ODD: ("#d55e00", (0, (3, 1.5)))}
CHARACTERS_PER_LINE, MAX_LINES = 24, 7  # of the reason for a missing picture


@dataclass(frozen=True, slots=True)
class Layout:
    """Positions of the frames on a sheet, in pixels from the top left.

    Attributes
    ----------
    columns : int
        Frames in a row.
    group_size : int
        Number of adjacent frames that belong together; gaps between groups are wider.
    frames : int
        Number of frames.
    """

    columns: int
    group_size: int
    frames: int

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the sheet."""
        columns = max(self.columns, 3)  # so that the title fits
        rows = -(-self.frames // self.columns)
        width = GAP + columns * (SIDE + GAP) + self._extra_gap(self.columns - 1)
        return width, TITLE + rows * (SIDE + CAPTION + GAP)

    def position(self, frame: int) -> tuple[int, int]:
        """Left and top of a frame."""
        row, column = divmod(frame, self.columns)
        return (
            GAP + column * (SIDE + GAP) + self._extra_gap(column),
            TITLE + row * (SIDE + CAPTION + GAP),
        )

    def _extra_gap(self, column: int) -> int:
        """Width of the additional gaps left of a column."""
        return column // self.group_size * GAP if self.group_size > 1 else 0


def draw_sheet(
    path: str | Path,
    sheet: Sheet,
    pictures: Sequence[Picture | None],
    names: Sequence[str],
) -> None:
    """Draw a contact sheet.

    Parameters
    ----------
    path : path
        PNG to write.
    sheet : Sheet
        Title, columns, and a note and a mark for each of N frames.
    pictures : sequence of Picture or None
        N pictures of at most `SIDE` pixels along each side; None for an empty
        position.
    names : sequence of str
        N names, with any characters.
    """
    layout = Layout(sheet.columns, sheet.group_size, len(sheet.frames))
    width, height = layout.size
    with new_canvas(width, height) as canvas:
        canvas.text(GAP, TITLE / 2, sheet.title, TITLE_POINTS, width - 2 * GAP)
        _shade_groups(canvas, layout)
        for k, picture in enumerate(pictures):
            if picture is not None:
                left, top = layout.position(k)
                canvas.picture(picture, left, top, SIDE)
                _draw_caption(canvas, sheet, k, names[k], left, top)
                _draw_over_picture(canvas, picture, left, top)
        canvas.save(path)


def _shade_groups(canvas: Canvas, layout: Layout) -> None:
    """Shade the background of frames that belong together."""
    if layout.group_size < 2:
        return
    for first in range(0, layout.frames, layout.group_size):
        left, top = layout.position(first)
        last = min(first + layout.group_size, layout.frames) - 1
        right = layout.position(last)[0] + SIDE
        canvas.rectangle(
            left - GAP // 2,
            top - GAP // 2,
            right - left + GAP,
            SIDE + CAPTION + GAP // 2,
            GROUP_COLOUR,
        )


def _draw_caption(
    canvas: Canvas, sheet: Sheet, k: int, name: str, left: int, top: int
) -> None:
    """Name and note below a frame, and its mark."""
    frame, below = sheet.frames[k], top + SIDE
    canvas.text(left, below + 12, name, TEXT_POINTS, SIDE)
    canvas.text(left, below + 27, frame.note, SMALL_POINTS, SIDE, GRAY)
    if frame.mark in MARKS:
        canvas.outline(left, top, SIDE, *MARKS[frame.mark])


def _draw_over_picture(canvas: Canvas, picture: Picture, left: int, top: int) -> None:
    """The scale bar, or the reason for a missing picture."""
    if picture.pixels is None:
        lines = textwrap.wrap(printable(picture.problem), CHARACTERS_PER_LINE)
        for n, line in enumerate(lines[:MAX_LINES]):
            y = top + 24 + 17 * n
            canvas.text(left + 8, y, line, SMALL_POINTS, SIDE - 16, "white")
        return
    height, width = picture.pixels.shape
    if bar := choose_scale_bar(picture.arcsec_per_pixel, width):
        x = left + (SIDE - width) // 2 + 8
        y = top + (SIDE + height) // 2 - 9
        canvas.scale_bar(x, y, bar.pixels, bar.label)
