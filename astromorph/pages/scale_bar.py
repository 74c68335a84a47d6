"""Scale bars of a round length on the sky, for pictures of images."""

import math
from dataclasses import dataclass

MAX_BAR_SHARE = 0.4  # of the width of the picture
UNITS = ((3600.0, "°"), (60.0, "\N{PRIME}"), (1.0, "\N{DOUBLE PRIME}"), (1e-3, " mas"))
ROUND_LENGTHS = (1.0, 2.0, 5.0, 10.0, 20.0, 30.0)
# Also for degrees and milliarcseconds, next to which there is no other unit.
LARGE_LENGTHS = (50.0, 100.0, 200.0, 500.0)


@dataclass(frozen=True, slots=True)
class ScaleBar:
    """A scale bar.

    Attributes
    ----------
    arcsec : float
        Length on the sky.
    label : str
        The length with a unit, such as ``30″``.
    pixels : float
        Length in pixels of the picture.
    """

    arcsec: float
    label: str
    pixels: float


def choose_scale_bar(arcsec_per_pixel: float | None, width: int) -> ScaleBar | None:
    """Choose the longest bar of a round length that fits a picture.

    Parameters
    ----------
    arcsec_per_pixel : float or None
        Pixel scale of the picture; without one, there is no bar.
    width : int
        Width of the picture in pixels; the bar takes at most 0.4 of it.

    Returns
    -------
    ScaleBar or None
    """
    if arcsec_per_pixel is None or not 0 < arcsec_per_pixel < math.inf:
        return None
    max_arcsec = MAX_BAR_SHARE * width * arcsec_per_pixel
    for unit, symbol in UNITS:
        at_end = unit in (UNITS[0][0], UNITS[-1][0])
        lengths = (*ROUND_LENGTHS, *LARGE_LENGTHS) if at_end else ROUND_LENGTHS
        fitting = [n for n in lengths if n * unit <= max_arcsec]
        if fitting:
            arcsec = fitting[-1] * unit
            label = f"{fitting[-1]:g}{symbol}"
            return ScaleBar(arcsec, label, arcsec / arcsec_per_pixel)
    return None
