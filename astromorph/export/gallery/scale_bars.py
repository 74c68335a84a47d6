"""How long a scale bar is: a round angle, in pixels of the picture."""

import math
from dataclasses import dataclass

from astromorph.preprocessing.resample import target_shape
from astromorph.settings.sections import PreprocessSettings

MAX_SHARE = 0.4  # of the picture's width that a bar may take
UNITS = ((3600.0, "°"), (60.0, "\N{PRIME}"), (1.0, "\N{DOUBLE PRIME}"), (1e-3, " mas"))
ROUND = (1.0, 2.0, 5.0, 10.0, 20.0, 30.0)
LARGER = (50.0, 100.0, 200.0, 500.0)


@dataclass(frozen=True, slots=True)
class ScaleBar:
    """A scale bar.

    Attributes
    ----------
    arcsec : float
        Its length on the sky.
    label : str
        The same, with its unit: ``30″``.
    pixels : float
        Its length in pixels of the picture.
    """

    arcsec: float
    label: str
    pixels: float


def prepared_pixel_scale(
    width: int, height: int, pixel_scale_arcsec: float, rules: PreprocessSettings
) -> float | None:
    """Arcseconds along x of a pixel of the prepared image.

    Parameters
    ----------
    width, height : int
        Pixels of the image in its file.
    pixel_scale_arcsec : float
        Their size.
    rules : PreprocessSettings
        How the image was prepared.

    Returns
    -------
    float or None
        None where the image was cropped to its emission: how far, is not kept.
    """
    if rules.crop == "source":
        return None
    rows, columns = (
        max(1, round(length * rules.crop_fraction)) for length in (height, width)
    )
    return pixel_scale_arcsec * columns / target_shape((rows, columns), rules)[1]


def choose_scale_bar(arcsec_per_pixel: float | None, width: int) -> ScaleBar | None:
    """The longest bar of a round length that takes up to 0.4 of the width.

    Parameters
    ----------
    arcsec_per_pixel : float or None
        The scale; without one there is no bar.
    width : int
        Of the picture, in pixels.
    """
    if arcsec_per_pixel is None or not 0 < arcsec_per_pixel < math.inf:
        return None
    longest = MAX_SHARE * width * arcsec_per_pixel
    for unit, sign in UNITS:
        lengths = (*ROUND, *LARGER) if unit in (3600.0, 1e-3) else ROUND
        fitting = [n for n in lengths if n * unit <= longest]
        if fitting:
            arcsec = fitting[-1] * unit
            return ScaleBar(arcsec, f"{fitting[-1]:g}{sign}", arcsec / arcsec_per_pixel)
    return None
