"""A row of pictures: one image and those that are like it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from astromorph.atomic import atomic_write
from astromorph.pages.thumbnail import thumbnail

PER_ROW = 7
SIDE = 192  # pixels of a picture
LETTERS = 24  # of a line below it
INCHES, DOTS_PER_INCH = 1.9, 120


@dataclass(frozen=True, slots=True)
class StripPanel:
    """One picture and the lines below it.

    Attributes
    ----------
    pixels : ndarray, shape (C, H, W), float32
        From 0 to 1.
    lines : tuple of str
        Shortened in the middle where they are too long.
    """

    pixels: NDArray[np.float32]
    lines: tuple[str, ...]


def draw_strip(path: str | Path, panels: Sequence[StripPanel]) -> None:
    """Write pictures side by side as PNG, the first one framed.

    Parameters
    ----------
    path : path
        The file to write, whole or not at all.
    panels : sequence of Panel
        At least one; more than seven begin another row.
    """
    from matplotlib.figure import Figure

    columns = min(PER_ROW, len(panels))
    rows = -(-len(panels) // columns)
    height = 1.0 + 0.13 * max(len(panel.lines) for panel in panels)
    figure = Figure(
        figsize=(INCHES * columns, INCHES * rows * height), layout="constrained"
    )
    places = figure.subplots(rows, columns, squeeze=False).ravel()
    for place in places:
        place.set_axis_off()
    for number, (place, panel) in enumerate(zip(places, panels, strict=False)):
        place.imshow(thumbnail(panel.pixels, SIDE), cmap="gray", vmin=0, vmax=255)
        place.set_axis_on()
        place.set(xticks=[], yticks=[])
        for edge in place.spines.values():
            edge.set(color="#d55e00" if number == 0 else "#d8dee4")
            edge.set_linewidth(3 if number == 0 else 1)
        text = "\n".join(map(shorten, panel.lines))
        place.set_xlabel(text, fontsize=8, parse_math=False)
    with atomic_write(path) as temporary:
        figure.savefig(temporary, format="png", dpi=DOTS_PER_INCH)


def shorten(text: str) -> str:
    """A line that fits below a picture; its end tells files apart and stays."""
    shown = "".join(c if c.isprintable() else "?" for c in text)
    if len(shown) <= LETTERS:
        return shown
    kept = LETTERS - 1
    return f"{shown[: kept // 3]}…{shown[-(kept - kept // 3) :]}"
