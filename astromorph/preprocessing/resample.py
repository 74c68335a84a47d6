"""Cropping and resizing, in which bad pixels have no weight."""

import functools
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from astromorph.fits.pixels import Image, Pixels
from astromorph.settings.sections import PreprocessSettings

MIN_WEIGHT = 1e-3  # share of valid pixels below which a resized pixel is not valid
MARGIN = 1.2  # side of the crop around a source divided by that of its emission
MIN_CROP = 16  # pixels
VALUES_AT_ONCE = 2**22  # size of the parts of an image that are converted at once
# Sides of images of native size are padded to multiples of NATIVE_STEP.
NATIVE_STEP, MIN_NATIVE_SIDE = 16, 32


def resize(
    image: Image,
    height: int,
    width: int,
    background: Pixels | None = None,
    dtype: type[np.floating] | None = None,
) -> tuple[Pixels, NDArray[np.bool_]]:
    """Resize an image, or its difference from a background; bad pixels have no weight.

    Large images are converted in strips: no copy of a whole image is made.

    Parameters
    ----------
    image : Image
        Pixels `(C, H, W)` and mask `(H, W)`.
    height, width : int
        Height and width of the result, h and w.
    background : ndarray, shape (C, 1, 1), float32 or float64, optional
        Subtracted from the pixels; by default 0.
    dtype : dtype, optional
        Type of the differences and of the result; by default that of the pixels.

    Returns
    -------
    pixels : ndarray, shape (C, h, w)
        Weighted means of the valid pixels; 0 if there are none.
    valid : ndarray, shape (h, w), bool
        True if valid pixels contribute.
    """
    result_type = np.dtype(dtype or image.pixels.dtype)
    old_height, old_width = image.mask.shape
    any_masked = bool(image.mask.any())

    def difference(part: slice) -> Pixels:
        pixels = image.pixels[:, part]
        with np.errstate(over="ignore"):  # of bad pixels
            if background is not None:
                pixels = pixels - background
            converted: Any = pixels.astype(result_type, copy=any_masked)
        if any_masked:
            converted[:, image.mask[part]] = 0
        return cast("Pixels", converted)

    if (height, width) == (old_height, old_width):
        return difference(slice(None)), ~image.mask
    rows: NDArray[np.float32] = _resampling_matrix(old_height, height)
    columns = _resampling_matrix(old_width, width).T
    total: Any = np.float32(0)
    weight: Any = np.float32(0)
    step = max(1, VALUES_AT_ONCE // (old_width * len(image.pixels)))
    for start in range(0, old_height, step):
        part = slice(start, start + step)
        total = total + rows[:, part] @ difference(part) @ columns
        if any_masked:
            mask = (~image.mask[part]).astype(np.float32)
            weight = weight + rows[:, part] @ mask @ columns
    if not any_masked:
        return total, np.ones((height, width), np.bool_)
    valid = np.asarray(weight > MIN_WEIGHT)
    means = total / np.where(valid, weight, np.float32(1))
    return np.where(valid, means, total.dtype.type(0)), valid


@functools.lru_cache(maxsize=64)
def _resampling_matrix(old: int, new: int) -> NDArray[np.float32]:
    """Matrix `(new, old)` of a triangle filter that is wide enough to avoid aliasing.

    It interpolates linearly to enlarge an image; to shrink it, each new pixel is a
    weighted mean over twice its own extent.
    """
    ratio = old / new
    half_width = max(ratio, 1.0)
    centres = (np.arange(new) + 0.5) * ratio - 0.5
    distance = np.abs(np.arange(old)[None, :] - centres[:, None])
    weights = np.maximum(0, 1 - distance / half_width)
    matrix: NDArray[np.float32] = np.asarray(
        weights / weights.sum(axis=1, keepdims=True), dtype=np.float32
    )
    return matrix


def central_crop(image: Image, fraction: float) -> Image:
    """The central part of an image: a fraction of each side."""
    height, width = image.mask.shape
    rows, columns = max(1, round(height * fraction)), max(1, round(width * fraction))
    top, left = (height - rows) // 2, (width - columns) // 2
    part = (slice(top, top + rows), slice(left, left + columns))
    return Image(image.pixels[(slice(None), *part)], image.mask[part])


def emission_box(
    image: Image, measured: NDArray[np.float64], sigmas: float
) -> tuple[int, int, int] | None:
    """Top, left and side of a square around the emission; None if there is none.

    A bright pixel counts as emission if it has two bright neighbours, which a hot pixel
    or a cosmic ray does not have.
    """
    threshold = (measured[:, 0] + sigmas * measured[:, 1])[:, None, None]
    bright = ((image.pixels > threshold) & ~image.mask).any(axis=0)
    padded = np.pad(bright, 1).astype(np.int8)
    height, width = bright.shape
    rows = padded[:-2] + padded[1:-1] + padded[2:]
    counts = rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:]  # including the pixel itself
    y, x = np.nonzero(bright & (counts >= 3))
    if len(y) == 0:
        return None
    side = round(MARGIN * (1 + max(int(np.ptp(y)), int(np.ptp(x)))))
    side = min(max(side, MIN_CROP), max(height, width))
    top = (int(y.min()) + int(y.max()) + 1 - side) // 2
    left = (int(x.min()) + int(x.max()) + 1 - side) // 2
    return top, left, side


def crop_box(image: Image, box: tuple[int, int, int]) -> Image:
    """A square part of an image; pixels beyond the edge of the image are bad."""
    top, left, side = box
    height, width = image.mask.shape
    pixels = np.zeros((len(image.pixels), side, side), image.pixels.dtype)
    mask = np.ones((side, side), np.bool_)
    rows = slice(max(top, 0), min(top + side, height))
    columns = slice(max(left, 0), min(left + side, width))
    target = (
        slice(rows.start - top, rows.stop - top),
        slice(columns.start - left, columns.stop - left),
    )
    pixels[(slice(None), *target)] = image.pixels[:, rows, columns]
    mask[target] = image.mask[rows, columns]
    return Image(pixels, mask)


def target_shape(shape: tuple[int, ...], rules: PreprocessSettings) -> tuple[int, int]:
    """Height and width to which an image is resized."""
    height, width = shape
    if rules.size == "native":
        return height, width
    if rules.fit == "squeeze":
        return rules.size, rules.size
    scale = rules.size / (max if rules.fit == "pad" else min)(height, width)
    return max(1, round(height * scale)), max(1, round(width * scale))


def canvas_shape(shape: tuple[int, ...], rules: PreprocessSettings) -> tuple[int, int]:
    """Height and width of the prepared image, including padding."""
    if rules.size != "native":
        return rules.size, rules.size
    rows, columns = (
        max(MIN_NATIVE_SIDE, -(-length // NATIVE_STEP) * NATIVE_STEP)
        for length in shape
    )
    return rows, columns


def crop_centre(
    pixels: Pixels, valid: NDArray[np.bool_], size: int
) -> tuple[Pixels, NDArray[np.bool_]]:
    """The central part of a resized image, at most `size` along each side."""
    height, width = valid.shape
    top, left = max(0, height - size) // 2, max(0, width - size) // 2
    part = (slice(top, top + size), slice(left, left + size))
    return pixels[(slice(None), *part)], valid[part]


def prepared_pixel_scale(
    width: int,
    height: int,
    pixel_scale_arcsec: float,
    preprocessing: PreprocessSettings,
) -> float | None:
    """Pixel scale of a prepared image along x.

    Parameters
    ----------
    width, height : int
        Size of the image in its file, in pixels.
    pixel_scale_arcsec : float
        Pixel scale of the file.
    preprocessing : PreprocessSettings
        Settings that the image was prepared with.

    Returns
    -------
    float or None
        Arcseconds per pixel. None if the image was cropped to its emission, because
        the size of the crop is not recorded.
    """
    if preprocessing.crop == "source":
        return None
    rows, columns = (
        max(1, round(length * preprocessing.crop_fraction))
        for length in (height, width)
    )
    new_columns = target_shape((rows, columns), preprocessing)[1]
    return pixel_scale_arcsec * columns / new_columns
