"""The figure of the command `similar`: images side by side."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from astromorph.atomic import atomic_write
from astromorph.pages.pictures import thumbnail
from astromorph.pages.scale_bar import choose_scale_bar

Pixels = NDArray[np.float32]

PANELS_PER_ROW = 7
THUMBNAIL_SIDE = 192  # pixels
MAX_CHARACTERS = 24  # in a line below a panel
PANEL_INCHES, DOTS_PER_INCH = 1.9, 120
FOUND, LIKE, UNLIKE = "#d8dee4", "#d55e00", "#0072b2"  # colours of frames


@dataclass(frozen=True, slots=True)
class Panel:
    """A picture of one image, and the lines below it.

    Attributes
    ----------
    pixels : ndarray, shape (C, H, W), float32
        From 0 to 1.
    lines : tuple of str
        Shortened in the middle if they are too long.
    frame : str
        Colour of the frame: `FOUND`, or `LIKE` or `UNLIKE` for the given images.
    arcsec_per_pixel : float or None
        Pixel scale along x, for a scale bar; None if it is not known.
    """

    pixels: Pixels
    lines: tuple[str, ...]
    frame: str = FOUND
    arcsec_per_pixel: float | None = None


def draw_panels(path: str | Path, panels: Sequence[Panel]) -> None:
    """Write panels side by side as PNG, in frames and with scale bars.

    Parameters
    ----------
    path : path
        The file to write.
    panels : sequence of Panel
        At least one; seven panels per row.
    """
    from matplotlib.figure import Figure

    columns = min(PANELS_PER_ROW, len(panels))
    rows = -(-len(panels) // columns)
    height = 1.0 + 0.13 * max(len(panel.lines) for panel in panels)
    figure = Figure(
        figsize=(PANEL_INCHES * columns, PANEL_INCHES * rows * height),
        layout="constrained",
    )
    all_axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in all_axes:
        axes.set_axis_off()
    for axes, panel in zip(all_axes, panels, strict=False):
        picture = thumbnail(panel.pixels, THUMBNAIL_SIDE)
        axes.imshow(picture, cmap="gray", vmin=0, vmax=255)
        _draw_scale_bar(axes, panel, picture.shape)
        axes.set_axis_on()
        axes.set(xticks=[], yticks=[])
        for edge in axes.spines.values():
            edge.set(color=panel.frame)
            edge.set_linewidth(1 if panel.frame == FOUND else 3)
        text = "\n".join(map(shorten, panel.lines))
        axes.set_xlabel(text, fontsize=8, parse_math=False)
    with atomic_write(path) as temporary:
        figure.savefig(temporary, format="png", dpi=DOTS_PER_INCH)


def _draw_scale_bar(axes: Any, panel: Panel, shape: tuple[int, ...]) -> None:
    """A white bar with a dark edge at the lower left, and its length above it."""
    from matplotlib.patheffects import withStroke

    height, width = shape
    scale = panel.arcsec_per_pixel
    # The picture has other pixels than the image, of the same shape.
    if scale is not None:
        scale *= panel.pixels.shape[2] / width
    bar = choose_scale_bar(scale, width)
    if bar is None:
        return
    x, y = 0.05 * width, 0.94 * height
    edge = [withStroke(linewidth=3, foreground="black")]
    line = {"color": "white", "linewidth": 1.5, "solid_capstyle": "butt"}
    axes.plot([x, x + bar.pixels], [y, y], path_effects=edge, **line)
    axes.text(
        *(x, y - 0.03 * height, bar.label),
        color="white",
        fontsize=7,
        path_effects=edge,
        parse_math=False,
    )


def shorten(text: str) -> str:
    """Cut the middle of a long line, since the ends of file names distinguish them."""
    printable = "".join(c if c.isprintable() else "?" for c in text)
    if len(printable) <= MAX_CHARACTERS:
        return printable
    number = MAX_CHARACTERS - 1
    return f"{printable[: number // 3]}…{printable[-(number - number // 3) :]}"
