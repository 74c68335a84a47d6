"""Drawing on a sheet with matplotlib, in pixels from its top left corner.

The same input gives the same bytes: the fonts come with matplotlib, its settings are
the defaults, and the PNG contains no date.
"""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from astromorph.atomic import atomic_write
from astromorph.export.gallery.pictures import Picture

DPI = 100
POINTS_PER_PIXEL = 72 / DPI
DARK, GRAY = "#1b1f24", "#57606a"
# Background, and text and lines, of a light and of a dark sheet; as on the pages.
LIGHT_SCHEME, DARK_SCHEME = ("#ffffff", DARK), ("#14181d", "#e6e9ec")
BAD_PIXEL = (52, 73, 107)  # red, green, blue
TEXT_POINTS, SMALL_POINTS, TITLE_POINTS = 8.0, 7.5, 12.0
REPLACEMENT = "□"  # for characters that the font lacks
MAX_CHARACTERS = 500  # only these are measured; longer text is shortened in any case


class Canvas:
    """A sheet to draw on; created by `new_canvas`.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
        Axes that fill a figure and whose coordinates are its pixels.
    dark : bool
        Light text and lines on a dark background.
    """

    def __init__(self, axes: Any, dark: bool) -> None:
        from matplotlib.font_manager import FontProperties

        self._axes = axes
        self.dark = dark
        self.paper, self.ink = DARK_SCHEME if dark else LIGHT_SCHEME
        self._font = FontProperties(fname=font_file())

    def save(self, path: str | Path) -> None:
        """Write the sheet as PNG."""
        with atomic_write(path) as temporary:
            temporary.write_bytes(self.png())

    def png(self) -> bytes:
        """The sheet as PNG."""
        buffer = io.BytesIO()
        self._axes.figure.savefig(
            buffer, format="png", dpi=DPI, metadata={"Software": None}
        )
        return buffer.getvalue()

    def picture(
        self, picture: Picture, left: int, top: int, side: int, layer: float = 1
    ) -> None:
        """Draw a picture in the centre of a square frame, the first row at the bottom.

        Parameters
        ----------
        picture : Picture
            At most `side` pixels along each side; each becomes one pixel of the sheet.
        left, top, side : int
            The frame.
        layer : float
            Order of drawing; a higher layer covers a lower one.
        """
        self.rectangle(left, top, side, side, DARK, layer)
        if picture.pixels is None:
            return
        height, width = picture.pixels.shape
        x, y = left + (side - width) // 2, top + (side - height) // 2
        self._axes.imshow(
            _to_rgb(picture.pixels),
            extent=(x, x + width, y + height, y),
            origin="lower",
            interpolation="none",
            aspect="auto",
            zorder=layer,
        )

    def rectangle(
        self,
        left: float,
        top: float,
        width: float,
        height: float,
        colour: str,
        layer: float = 0,
    ) -> None:
        """Draw a filled rectangle."""
        from matplotlib.patches import Rectangle

        self._axes.add_patch(
            Rectangle(
                (left, top),
                width,
                height,
                facecolor=colour,
                linewidth=0,
                antialiased=False,
                zorder=layer,
            )
        )

    def outline(self, left: int, top: int, side: int, colour: str, style: Any) -> None:
        """Draw a coloured line around a square frame."""
        from matplotlib.patches import Rectangle

        self._axes.add_patch(
            Rectangle(
                (left - 2, top - 2),
                side + 4,
                side + 4,
                fill=False,
                edgecolor=colour,
                linestyle=style,
                linewidth=2.6,
                zorder=2,
            )
        )

    def points(
        self,
        x: ArrayLike,
        y: ArrayLike,
        marker: str,
        size: float,
        colour: str,
        rim: float = 0,
        layer: float = 0,
    ) -> None:
        """Draw points of one class.

        Parameters
        ----------
        x, y : array_like of float
            Positions in pixels.
        marker : str
            A matplotlib marker.
        size : float
            Diameter in pixels.
        colour : str
            Hexadecimal.
        rim : float
            Width in pixels of a rim around each point, in the colour of the background.
        layer : float
            Order of drawing.
        """
        self._axes.plot(
            x,
            y,
            linestyle="",
            marker=marker,
            markersize=(size + rim) * POINTS_PER_PIXEL,
            markerfacecolor=colour,
            markeredgecolor=self.paper if rim else "none",
            markeredgewidth=rim * POINTS_PER_PIXEL,
            zorder=layer,
        )

    def leader(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        """Draw a line with a dot at its start and a rim, visible on points."""
        from matplotlib.patheffects import withStroke

        rim = [withStroke(linewidth=2.6, foreground=self.paper)]
        x, y = zip(start, end, strict=True)
        self._axes.plot(x, y, color=self.ink, linewidth=1.1, path_effects=rim, zorder=2)
        self.points([start[0]], [start[1]], "o", 9, self.ink, rim=1, layer=2)

    def scale_bar(self, x: float, y: float, length: float, label: str) -> None:
        """Draw a white bar with a dark edge, readable on any picture."""
        from matplotlib.patheffects import withStroke

        self._axes.plot(
            [x, x + length],
            [y, y],
            color="white",
            linewidth=1.8,
            solid_capstyle="butt",
            path_effects=[withStroke(linewidth=4, foreground="black")],
            zorder=3,
        )
        self._text(x, y - 10, label, SMALL_POINTS, "white", outlined=True)

    def text(
        self,
        x: float,
        y: float,
        text: str,
        points: float,
        max_width: float,
        colour: str | None = None,
    ) -> None:
        """Write one line, shortened in the middle if it is too wide."""
        shortened = shorten_to_width(printable(text), points, max_width)
        self._text(x, y, shortened, points, colour or self.ink)

    def text_on_picture(self, x: float, y: float, text: str, max_width: float) -> None:
        """Write one white line with a dark edge, readable on any picture."""
        shortened = shorten_to_width(printable(text), TEXT_POINTS, max_width)
        self._text(x, y, shortened, TEXT_POINTS, "white", outlined=True)

    def _text(
        self,
        x: float,
        y: float,
        text: str,
        points: float,
        colour: str,
        outlined: bool = False,
    ) -> None:
        from matplotlib.patheffects import withStroke

        edge = [withStroke(linewidth=2, foreground="black")] if outlined else None
        self._axes.text(
            x,
            y,
            text,
            font=self._font,
            fontsize=points,
            color=colour,
            va="center",
            path_effects=edge,
            parse_math=False,
            zorder=4,
        )


@contextmanager
def new_canvas(width: int, height: int, dark: bool = False) -> Iterator[Canvas]:
    """A white or dark sheet of a size in pixels, with the defaults of matplotlib."""
    from matplotlib import style
    from matplotlib.figure import Figure

    with style.context("default"):
        paper, _ = DARK_SCHEME if dark else LIGHT_SCHEME
        size = (width / DPI, height / DPI)
        figure = Figure(figsize=size, dpi=DPI, facecolor=paper)
        axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0))
        axes.axis("off")
        yield Canvas(axes, dark)


def _to_rgb(pixels: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Colours `(H, W, 3)` of pixels from 0 to 1; NaN becomes `BAD_PIXEL`."""
    known = np.isfinite(pixels)
    gray = np.round(255 * np.where(known, pixels, 0)).astype(np.uint8)
    return np.where(known[..., None], gray[..., None], np.array(BAD_PIXEL, np.uint8))


def font_file() -> str:
    """The font that comes with matplotlib, the same on every machine."""
    import matplotlib

    return str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf")


def printable(text: str) -> str:
    """One line in characters of the font; others become `REPLACEMENT`."""
    from matplotlib.font_manager import get_font

    known = get_font(font_file()).get_charmap()
    return "".join(
        c if c.isprintable() and ord(c) in known else REPLACEMENT for c in text
    )


def shorten_to_width(text: str, points: float, max_width: float) -> str:
    """Text that fits a width in pixels, if necessary with an ellipsis in its middle."""
    if text_width(text[:MAX_CHARACTERS], points) <= max_width:
        return text[:MAX_CHARACTERS]
    head, tail = text[:40], text[-40:]
    while head and text_width(f"{head}…{tail}", points) > max_width:
        if len(tail) > len(head):
            tail = tail[1:]
        else:
            head = head[:-1]
    return f"{head}…{tail}"


def text_width(text: str, points: float) -> float:
    """Width of a line in pixels of the sheet."""
    from matplotlib.font_manager import get_font

    font = get_font(font_file())
    font.set_size(points, DPI)
    font.set_text(text, 0.0)
    return float(font.get_width_height()[0]) / 64
