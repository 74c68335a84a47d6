"""Pictures of FITS files for people, in the stretches of astropy.visualization."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from astromorph.errors import FitsImageError
from astromorph.fits import image as fits_image
from astromorph.fits.pixels import Image
from astromorph.preprocessing.resample import resize
from astromorph.settings.sections import DataSettings

PERCENTILES = (0.5, 99.5)
STRETCHES = {
    "linear": "LinearStretch",
    "sqrt": "SqrtStretch",
    "asinh": "AsinhStretch",
    "log": "LogStretch",
    "zscale": "LinearStretch",
}


@dataclass(frozen=True, slots=True)
class Picture:
    """What stands in a frame.

    Attributes
    ----------
    pixels : ndarray, shape (H, W), float32, or None
        From 0 to 1, the first row at the bottom; NaN where nothing was observed.
        None where there is no picture.
    arcsec_per_pixel : float or None
        Along x; None where it is not known.
    problem : str
        Why there is no picture; empty where there is one.
    """

    pixels: NDArray[np.float32] | None
    arcsec_per_pixel: float | None = None
    problem: str = ""


def picture_from_fits(
    paths: Sequence[str | Path], rules: DataSettings, stretch: str, side: int
) -> Picture:
    """Read an image in full resolution, stretch it, and fit it to a frame.

    Parameters
    ----------
    paths : sequence of path
        One file, or one per channel.
    rules : DataSettings
        What is taken of them.
    stretch : str
        A key of `STRETCHES`.
    side : int
        Of the frame, in pixels.

    Returns
    -------
    Picture
        Without pixels, but with a reason, where the file cannot be read.
    """
    try:
        facts, image = fits_image.read_image(paths, rules)
    except FitsImageError as error:
        return Picture(None, problem=str(error))
    if image.mask.all():
        return Picture(None, problem="all pixels are NaN, infinite or blank")
    return fit_into_frame(
        apply_stretch(image, stretch), image.mask, facts.pixel_scale_arcsec, side
    )


def apply_stretch(image: Image, stretch: str) -> NDArray[np.float32]:
    """Brightness as astropy.visualization maps it.

    Parameters
    ----------
    image : Image
        Pixels `(C, H, W)` and mask `(H, W)`.
    stretch : str
        ``zscale``: linear between the limits of `ZScaleInterval`; the others between
        the percentiles 0.5 and 99.5 of the valid pixels, each channel by itself.

    Returns
    -------
    ndarray, shape (H, W), float32
        From 0 to 1, the mean of the channels; bad pixels have no meaning.
    """
    from astropy import visualization

    interval = (
        visualization.ZScaleInterval()
        if stretch == "zscale"
        else visualization.AsymmetricPercentileInterval(*PERCENTILES)
    )
    bend = getattr(visualization, STRETCHES[stretch])()
    total = np.zeros(image.mask.shape, np.float64)
    for plane in image.pixels:
        low, high = interval.get_limits(plane[~image.mask].astype(np.float64))
        if high > low:
            total += bend(np.clip((plane - low) / (high - low), 0, 1))
    return (total / len(image.pixels)).astype(np.float32)


def fit_into_frame(
    pixels: NDArray[np.float32],
    mask: NDArray[np.bool_] | None,
    arcsec_per_pixel: float | None,
    side: int,
) -> Picture:
    """A picture that fills a frame along its longer side.

    Parameters
    ----------
    pixels : ndarray, shape (H, W), float32
        From 0 to 1.
    mask : ndarray, shape (H, W), bool, or None
        True where a pixel is bad; it gets no weight.
    arcsec_per_pixel : float or None
        Along x.
    side : int
        Of the frame, in pixels.

    Returns
    -------
    Picture
    """
    height, width = pixels.shape
    largest = max(height, width)
    new = (
        max(1, round(side * height / largest)),
        max(1, round(side * width / largest)),
    )
    bad = np.zeros(pixels.shape, np.bool_) if mask is None else mask
    shown, seen = resize(Image(pixels[None], bad), *new)
    plane = np.where(seen, np.clip(shown[0], 0, 1), np.float32(np.nan))
    scale = arcsec_per_pixel * width / new[1] if arcsec_per_pixel else None
    return Picture(plane.astype(np.float32), scale)
