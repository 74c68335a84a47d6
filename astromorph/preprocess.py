"""How an image becomes a tensor: resize by valid pixels, stretch, scale to 0 to 1."""

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from astromorph.errors import FitsImageError
from astromorph.fits_image import Image

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAD_TO_SIGMA = 1.482602218505602  # of a normal distribution
SOFTENING = 3.0  # the stretch is linear up to about this many times the noise
LEAST_WEIGHT = 1e-3  # share of valid pixels below which a pixel has no value


@dataclass(frozen=True, slots=True)
class Prepared:
    """An image as the network sees it.

    Attributes
    ----------
    pixels : ndarray, shape (C, S, S), float32
        From 0 to 1; all 0 for a constant image.
    statistics : dict of str to float
        Of the valid pixels in the file's unit: `background` (median), `noise`
        (1.4826 times the median absolute deviation), `minimum`, `maximum`; and
        `valid_fraction`, the share of pixels that are not bad.
    warning : str
        What is odd about the image; empty where nothing is.
    """

    pixels: "NDArray[np.float32]"
    statistics: dict[str, float]
    warning: str


def prepare(image: Image, size: int) -> Prepared:
    """Resize, stretch and scale one image.

    The longer side becomes `size`, the shorter keeps the aspect and is padded
    with background. The stretch is asinh in units of the image's own noise
    (Lupton, Gunn & Szalay 1999), so that faint extended emission and bright
    cores are both seen, and then runs from 0 at the lowest pixel to 1 at the
    highest.

    Parameters
    ----------
    image : Image
        Pixels `(C, H, W)` and mask `(H, W)`.
    size : int
        Side S of the result.

    Returns
    -------
    Prepared

    Raises
    ------
    FitsImageError
        No pixel is valid.
    """
    valid = image.pixels[:, ~image.mask]
    if valid.size == 0:
        raise FitsImageError("all pixels are NaN, infinite or blank")
    statistics = measure(valid) | {"valid_fraction": float(1 - image.mask.mean())}
    background, noise = statistics["background"], statistics["noise"]
    resized, seen = resize(image, size)
    with np.errstate(over="ignore"):
        stretched = np.arcsinh((resized - background) / (SOFTENING * noise or 1.0))
    lowest, highest = stretched[:, seen].min(), stretched[:, seen].max()
    if not np.isfinite(highest - lowest):
        raise FitsImageError("its values are too large for 32-bit floating point")
    square = np.zeros((len(resized), size, size), np.float32)
    if noise == 0 or not highest > lowest:
        return Prepared(square, statistics, "all valid pixels have the same value")
    # In stretched units the background is 0: what is not seen, and the padding.
    height, width = seen.shape
    top, left = (size - height) // 2, (size - width) // 2
    square[:, top : top + height, left : left + width] = np.where(seen, stretched, 0)
    return Prepared(
        np.clip((square - lowest) / (highest - lowest), 0, 1), statistics, ""
    )


def measure(valid: "NDArray[np.float32]") -> dict[str, float]:
    """Background, noise and range of pixels, all of them valid.

    Where more than half of the pixels are alike (simulations, sums with a
    floor), the standard deviation stands in for the noise.
    """
    values = valid.astype(np.float64)
    background = float(np.median(values))
    noise = MAD_TO_SIGMA * float(np.median(np.abs(values - background)))
    return {
        "background": background,
        "noise": noise or float(values.std()),
        "minimum": float(values.min()),
        "maximum": float(values.max()),
    }


def resize(
    image: Image, size: int
) -> tuple["NDArray[np.float32]", "NDArray[np.bool_]"]:
    """Resize the longer side to `size`; bad pixels have no weight.

    Parameters
    ----------
    image : Image
        Pixels `(C, H, W)` and mask `(H, W)`.
    size : int
        The longer side of the result.

    Returns
    -------
    pixels : ndarray, shape (C, h, w), float32
        Weighted means of the valid pixels; 0 where there are none.
    seen : ndarray, shape (h, w), bool
        True where at least one valid pixel contributes.
    """
    height, width = image.mask.shape
    scale = size / max(height, width)
    rows: NDArray[np.float32] = _resampling(height, max(1, round(height * scale)))
    columns = _resampling(width, max(1, round(width * scale))).T
    if not image.mask.any():
        everything: NDArray[np.bool_] = np.ones((len(rows), columns.shape[1]), np.bool_)
        return np.asarray(rows @ image.pixels @ columns, np.float32), everything
    weight = rows @ (~image.mask).astype(np.float32) @ columns
    seen: NDArray[np.bool_] = np.asarray(weight > LEAST_WEIGHT)
    total = rows @ np.where(image.mask, np.float32(0), image.pixels) @ columns
    means = total / np.where(seen, weight, np.float32(1))
    return np.where(seen, means, np.float32(0)).astype(np.float32), seen


@functools.lru_cache(maxsize=64)
def _resampling(old: int, new: int) -> "NDArray[np.float32]":
    """Matrix `(new, old)` of a triangle filter, wide enough not to alias.

    Enlarging, it interpolates linearly; shrinking, each new pixel is a weighted
    mean over twice its own extent.
    """
    ratio = old / new
    reach = max(ratio, 1.0)
    centres = (np.arange(new) + 0.5) * ratio - 0.5
    distance = np.abs(np.arange(old)[None, :] - centres[:, None])
    weights = np.maximum(0, 1 - distance / reach)
    matrix: NDArray[np.float32] = np.asarray(
        weights / weights.sum(axis=1, keepdims=True), dtype=np.float32
    )
    return matrix
