"""Crops and resizing in which bad pixels have no weight."""

import functools

import numpy as np
from numpy.typing import NDArray

from astromorph.fits.pixels import Image
from astromorph.settings.sections import PreprocessSettings

MIN_WEIGHT = 1e-3  # share of valid pixels below which a pixel has no value
MARGIN = 1.2  # side of a source's crop over that of its emission
MIN_CROP = 16  # pixels
NATIVE_STEP, NATIVE_LEAST = 16, 32  # sides that images of their own size are padded to


def resize(
    image: Image, height: int, width: int
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Resize an image; bad pixels have no weight.

    Parameters
    ----------
    image : Image
        Pixels `(C, H, W)` and mask `(H, W)`.
    height, width : int
        Of the result, h and w.

    Returns
    -------
    pixels : ndarray, shape (C, h, w), float32
        Weighted means of the valid pixels; 0 where there are none.
    seen : ndarray, shape (h, w), bool
        True where at least one valid pixel contributes.
    """
    if (height, width) == image.mask.shape:
        return image.pixels, ~image.mask
    rows: NDArray[np.float32] = _resampling(image.mask.shape[0], height)
    columns = _resampling(image.mask.shape[1], width).T
    if not image.mask.any():
        everything: NDArray[np.bool_] = np.ones((height, width), np.bool_)
        return np.asarray(rows @ image.pixels @ columns, np.float32), everything
    weight = rows @ (~image.mask).astype(np.float32) @ columns
    seen: NDArray[np.bool_] = np.asarray(weight > MIN_WEIGHT)
    total = rows @ np.where(image.mask, np.float32(0), image.pixels) @ columns
    means = total / np.where(seen, weight, np.float32(1))
    return np.where(seen, means, np.float32(0)).astype(np.float32), seen


@functools.lru_cache(maxsize=64)
def _resampling(old: int, new: int) -> NDArray[np.float32]:
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


def central_crop(image: Image, fraction: float) -> Image:
    """The middle of an image: a share of each side."""
    height, width = image.mask.shape
    rows, columns = max(1, round(height * fraction)), max(1, round(width * fraction))
    top, left = (height - rows) // 2, (width - columns) // 2
    part = (slice(top, top + rows), slice(left, left + columns))
    return Image(image.pixels[(slice(None), *part)], image.mask[part])


def emission_box(
    image: Image, measured: NDArray[np.float64], sigmas: float
) -> tuple[int, int, int] | None:
    """Top, left and side of a square around the emission; None without any.

    A pixel counts with two bright neighbours: a hot one or a cosmic ray's does
    not.
    """
    threshold = (measured[:, 0] + sigmas * measured[:, 1])[:, None, None]
    bright = ((image.pixels > threshold) & ~image.mask).any(axis=0)
    edge = np.pad(bright, 1).astype(np.int8)
    height, width = bright.shape
    rows = edge[:-2] + edge[1:-1] + edge[2:]
    near = rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:]
    y, x = np.nonzero(bright & (near >= 3))
    if len(y) == 0:
        return None
    side = round(MARGIN * (1 + max(int(np.ptp(y)), int(np.ptp(x)))))
    side = min(max(side, MIN_CROP), max(height, width))
    top = (int(y.min()) + int(y.max()) + 1 - side) // 2
    left = (int(x.min()) + int(x.max()) + 1 - side) // 2
    return top, left, side


def crop_box(image: Image, box: tuple[int, int, int]) -> Image:
    """A square of an image; bad where it reaches over the edge."""
    top, left, side = box
    height, width = image.mask.shape
    pixels = np.zeros((len(image.pixels), side, side), np.float32)
    mask = np.ones((side, side), np.bool_)
    rows = slice(max(top, 0), min(top + side, height))
    columns = slice(max(left, 0), min(left + side, width))
    at = (
        slice(rows.start - top, rows.stop - top),
        slice(columns.start - left, columns.stop - left),
    )
    pixels[(slice(None), *at)] = image.pixels[:, rows, columns]
    mask[at] = image.mask[rows, columns]
    return Image(pixels, mask)


def target_shape(shape: tuple[int, ...], rules: PreprocessSettings) -> tuple[int, int]:
    """Height and width that an image is resized to."""
    height, width = shape
    if rules.size == "native":
        return height, width
    if rules.fit == "squeeze":
        return rules.size, rules.size
    scale = rules.size / (max if rules.fit == "pad" else min)(height, width)
    return max(1, round(height * scale)), max(1, round(width * scale))


def canvas_shape(shape: tuple[int, ...], rules: PreprocessSettings) -> tuple[int, int]:
    """Height and width of the result."""
    if rules.size != "native":
        return rules.size, rules.size
    rows, columns = (
        max(NATIVE_LEAST, -(-length // NATIVE_STEP) * NATIVE_STEP) for length in shape
    )
    return rows, columns


def centre_of(
    pixels: NDArray[np.float32], seen: NDArray[np.bool_], size: int
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """The middle of a resized image, at most `size` along each side."""
    height, width = seen.shape
    top, left = max(0, height - size) // 2, max(0, width - size) // 2
    part = (slice(top, top + size), slice(left, left + size))
    return pixels[(slice(None), *part)], seen[part]
