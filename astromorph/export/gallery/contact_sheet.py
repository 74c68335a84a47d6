"""Contact sheets: frames with pictures, names and scale bars, drawn by matplotlib.

Pixels of the pictures are pixels of the sheet. The same input gives the same bytes:
fonts are those that come with matplotlib, settings its defaults, and no date is kept.
"""

import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from astromorph.artefacts.analysis_table import ODD, REPRESENTATIVE
from astromorph.atomic import atomic_write
from astromorph.export.gallery.choice import Sheet
from astromorph.export.gallery.fits_pictures import Picture
from astromorph.export.gallery.scale_bars import choose_scale_bar

SIDE, GAP, LINES, TITLE = 160, 12, 38, 40  # pixels
DPI = 100
PAPER, GROUPED, EMPTY, BAD = (255,) * 3, (232, 236, 241), (27, 31, 36), (52, 73, 107)
INK, FAINT = "#1b1f24", "#57606a"
# Okabe & Ito (2008): told apart by all kinds of colour vision; the line differs too.
MARKS = {REPRESENTATIVE: ("#0072b2", "solid"), ODD: ("#d55e00", (0, (3, 1.5)))}
NAME_POINTS, NOTE_POINTS, TITLE_POINTS = 8.0, 7.5, 12.0
UNKNOWN = "□"  # stands for a sign that the font lacks
LETTERS_IN_A_LINE, MAX_LINES = 24, 7


@dataclass(frozen=True, slots=True)
class Layout:
    """Where frames lie on a sheet, in pixels from the top left."""

    columns: int
    group: int
    number: int

    @property
    def gaps(self) -> int:
        """Wider gaps between groups of a row."""
        return (self.columns // self.group - 1) * GAP if self.group > 1 else 0

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the sheet."""
        columns = max(self.columns, 3)
        rows = -(-self.number // self.columns)
        width = GAP + columns * (SIDE + GAP) + self.gaps
        return width, TITLE + rows * (SIDE + LINES + GAP)

    def place(self, k: int) -> tuple[int, int]:
        """Left and top of a frame."""
        row, column = divmod(k, self.columns)
        wider = column // self.group * GAP if self.group > 1 else 0
        return (
            GAP + column * (SIDE + GAP) + wider,
            TITLE + row * (SIDE + LINES + GAP),
        )


def draw_sheet(
    path: str | Path,
    sheet: Sheet,
    pictures: Sequence[Picture | None],
    names: Sequence[str],
) -> None:
    """Draw a sheet.

    Parameters
    ----------
    path : path
        PNG to write.
    sheet : Sheet
        Title, columns, and for each of N frames a note and a mark.
    pictures : sequence of Picture or None
        N of them, at most `SIDE` along each side; None leaves a gap.
    names : sequence of str
        N of them, of any text.
    """
    layout = Layout(sheet.columns, sheet.group, len(sheet.frames))
    width, height = layout.size
    paper = np.full((height, width, 3), PAPER, np.uint8)
    with TextWriter.on(width, height) as text:
        text.write(GAP, TITLE / 2, sheet.title, TITLE_POINTS, width - 2 * GAP)
        _paint_groups(paper, layout)
        for k, picture in enumerate(pictures):
            if picture is not None:
                left, top = layout.place(k)
                paint_picture(paper, picture, left, top)
                _write_frame(text, sheet, k, names[k], picture, left, top)
        text.save(paper, path)


def _paint_groups(paper: NDArray[np.uint8], layout: Layout) -> None:
    """A shade behind frames that belong together."""
    if layout.group < 2:
        return
    for first in range(0, layout.number, layout.group):
        left, top = layout.place(first)
        right = layout.place(min(first + layout.group, layout.number) - 1)[0]
        rows = slice(top - GAP // 2, top + SIDE + LINES)
        paper[rows, left - GAP // 2 : right + SIDE + GAP // 2] = GROUPED


def paint_picture(
    paper: NDArray[np.uint8], picture: Picture, left: int, top: int
) -> None:
    """Put a picture in the middle of its frame, the first row at the bottom.

    Parameters
    ----------
    paper : ndarray, shape (H, W, 3), uint8
        Changed in place.
    picture : Picture
        At most `SIDE` pixels along each side.
    left, top : int
        Of the frame, in pixels.
    """
    frame = paper[top : top + SIDE, left : left + SIDE]
    frame[:] = EMPTY
    if picture.pixels is None:
        return
    height, width = picture.pixels.shape
    upright = picture.pixels[::-1]
    seen = np.isfinite(upright)
    gray = np.round(255 * np.where(seen, upright, 0)).astype(np.uint8)
    y, x = (SIDE - height) // 2, (SIDE - width) // 2
    inner = np.where(seen[..., None], gray[..., None], np.array(BAD, np.uint8))
    frame[y : y + height, x : x + width] = inner


def _write_frame(
    text: "TextWriter",
    sheet: Sheet,
    k: int,
    name: str,
    picture: Picture,
    left: int,
    top: int,
) -> None:
    """Name, note, mark and scale bar of a frame."""
    frame, below = sheet.frames[k], top + SIDE
    text.write(left, below + 12, name, NAME_POINTS, SIDE)
    text.write(left, below + 27, frame.note, NOTE_POINTS, SIDE, FAINT)
    if frame.mark in MARKS:
        text.outline(left, top, *MARKS[frame.mark])
    if picture.pixels is None:
        lines = textwrap.wrap(printable(picture.problem), LETTERS_IN_A_LINE)
        for n, line in enumerate(lines[:MAX_LINES]):
            text.write(left + 8, top + 24 + 17 * n, line, NOTE_POINTS, SIDE - 16, "w")
        return
    bar = choose_scale_bar(picture.arcsec_per_pixel, picture.pixels.shape[1])
    if bar:
        x = left + (SIDE - picture.pixels.shape[1]) // 2 + 8
        y = top + (SIDE + picture.pixels.shape[0]) // 2 - 9
        text.bar(x, y, bar.pixels, bar.label)


class TextWriter:
    """What is drawn over the pixels of a sheet.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
        Its coordinates are pixels of the sheet.
    """

    def __init__(self, axes: Any) -> None:
        from matplotlib.font_manager import FontProperties

        self._axes = axes
        self._font = FontProperties(fname=font_file())

    @classmethod
    @contextmanager
    def on(cls, width: int, height: int) -> "Iterator[TextWriter]":
        """A sheet of some size, whatever the settings of this user's matplotlib."""
        from matplotlib import style
        from matplotlib.figure import Figure

        with style.context("default"):
            figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI)
            axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0))
            axes.axis("off")
            axes.set_zorder(1)
            yield cls(axes)

    def save(self, paper: NDArray[np.uint8], path: str | Path) -> None:
        """Write the PNG: what was drawn, over the pixels `(H, W, 3)`."""
        figure = self._axes.figure
        figure.figimage(paper, origin="upper", zorder=-1)
        with atomic_write(path) as temporary:
            figure.savefig(
                temporary, format="png", dpi=DPI, metadata={"Software": None}
            )

    def write(
        self,
        x: float,
        y: float,
        words: str,
        points: float,
        width: float,
        colour: str = INK,
    ) -> None:
        """One line, shortened in its middle where it is too long."""
        self._text(
            x, y, shorten_to_width(printable(words), points, width), points, colour
        )

    def over(self, x: float, y: float, words: str, width: float) -> None:
        """One white line with a dark edge, to be read on any picture."""
        self._edged(
            x, y, shorten_to_width(printable(words), NAME_POINTS, width), NAME_POINTS
        )

    def outline(self, left: int, top: int, colour: str, line: Any) -> None:
        """A coloured line around a frame."""
        from matplotlib.patches import Rectangle

        self._axes.add_patch(
            Rectangle(
                (left - 2, top - 2), SIDE + 4, SIDE + 4, fill=False,
                edgecolor=colour, linestyle=line, linewidth=2.6,
            )
        )  # fmt: skip

    def bar(self, x: float, y: float, length: float, label: str) -> None:
        """A white bar with a dark edge, to be seen on any picture."""
        from matplotlib.patheffects import withStroke

        edge = [withStroke(linewidth=4, foreground="black")]
        self._axes.plot(
            [x, x + length], [y, y], color="white", linewidth=1.8,
            solid_capstyle="butt", path_effects=edge,
        )  # fmt: skip
        self._edged(x, y - 10, label, NOTE_POINTS)

    def _edged(self, x: float, y: float, words: str, points: float) -> None:
        from matplotlib.patheffects import withStroke

        edge = [withStroke(linewidth=2, foreground="black")]
        self._text(x, y, words, points, "white", edge)

    def _text(
        self,
        x: float,
        y: float,
        words: str,
        points: float,
        colour: str,
        effects: Any = None,
    ) -> None:
        self._axes.text(
            x, y, words, font=self._font, fontsize=points, color=colour, va="center",
            path_effects=effects, parse_math=False,
        )  # fmt: skip


def font_file() -> str:
    """The font that comes with matplotlib, whatever this machine has."""
    import matplotlib

    return str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf")


def printable(text: str) -> str:
    """Text of one line in signs that the font has; others become `UNKNOWN`."""
    from matplotlib.font_manager import get_font

    known = get_font(font_file()).get_charmap()
    return "".join(c if c.isprintable() and ord(c) in known else UNKNOWN for c in text)


def shorten_to_width(text: str, points: float, width: float) -> str:
    """Text that fits a width in pixels; what lies in its middle goes."""
    if _width(text[:500], points) <= width:
        return text[:500]
    head, tail = text[:40], text[-40:]
    while head and _width(f"{head}…{tail}", points) > width:
        if len(tail) > len(head):
            tail = tail[1:]
        else:
            head = head[:-1]
    return f"{head}…{tail}"


def _width(text: str, points: float) -> float:
    """Of a line, in pixels of the sheet."""
    from matplotlib.font_manager import get_font

    font = get_font(font_file())
    font.set_size(points, DPI)
    font.set_text(text, 0.0)
    return float(font.get_width_height()[0]) / 64
