"""How an image becomes a tensor: crop, resize by valid pixels, stretch to 0 to 1.

Bad pixels have no weight anywhere.
"""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from astromorph.errors import FitsImageError
from astromorph.fits_image import Image
from astromorph.settings import PreprocessSettings

if TYPE_CHECKING:
    from numpy.typing import NDArray

CLIP, CLIPS = 3.0, 5  # sigma clipping: how far, how often at most
MOST_MEASURED = 2**12  # pixels that background and noise are taken from
SOFTENING = 3.0  # asinh and log are linear up to about this many times the noise
LOWEST = 5.0  # times the noise below the background where the scale begins
LEAST_WEIGHT = 1e-3  # share of valid pixels below which a pixel has no value
MARGIN = 1.2  # side of a source's crop over that of its emission
LEAST_CROP = 16  # pixels
NATIVE_STEP, NATIVE_LEAST = 16, 32  # sides that images of their own size are padded to


@dataclass(frozen=True, slots=True)
class Prepared:
    """An image as the network sees it.

    Attributes
    ----------
    pixels : ndarray, shape (C, H, W), float32
        From 0 to 1; all 0 for a constant image. H and W are `size`, or where it
        is native multiples of 16, at least 32.
    valid : ndarray, shape (H, W), bool
        False where nothing was observed and the background stands in.
    statistics : dict of str to float
        Mean over the channels. Of the valid pixels in the file's unit:
        `background` and `noise` (sigma-clipped median and standard deviation),
        `minimum`, `maximum`; `valid_fraction`, the share of pixels that are not
        bad; background and noise of `pixels`, `stretched_background` and
        `stretched_noise`.
    warning : str
        What is odd about the image; empty where nothing is.
    """

    pixels: "NDArray[np.float32]"
    valid: "NDArray[np.bool_]"
    statistics: dict[str, float]
    warning: str


@dataclass(frozen=True, slots=True)
class Scale:
    """Where the brightness scale of each channel begins and ends.

    Attributes
    ----------
    background, noise : ndarray, shape (C,), float64
        In the file's unit.
    low, high : ndarray, shape (C,), float64
        Values that become 0 and 1; for the interval `noise` in units of the
        noise above the background, else in the file's unit.
    """

    background: "NDArray[np.float64]"
    noise: "NDArray[np.float64]"
    low: "NDArray[np.float64]"
    high: "NDArray[np.float64]"


@dataclass(frozen=True, slots=True)
class _Resized:
    pixels: "NDArray[np.float64]"
    seen: "NDArray[np.bool_]"
    measured: "NDArray[np.float64]"  # (C, 4): background, noise, minimum, maximum
    valid_fraction: float
    warning: str

    def values(self, channel: int) -> "NDArray[np.float64]":
        """The pixels of a channel that have a value, in one row."""
        plane: NDArray[np.float64] = self.pixels[channel]
        return plane.ravel() if self.seen.all() else plane[self.seen]


def prepare(
    image: Image, rules: PreprocessSettings, scale: Scale | None = None
) -> Prepared:
    """Crop, resize and stretch one image.

    Parameters
    ----------
    image : Image
        Pixels `(C, H, W)` and mask `(H, W)`.
    rules : PreprocessSettings
        What is done.
    scale : Scale, optional
        The brightness scale; by default the image's own.

    Returns
    -------
    Prepared

    Raises
    ------
    FitsImageError
        No pixel is valid, or values are beyond 32-bit floating point.
    """
    resized = _resized(image, rules)
    own = scale or _scale_of(resized, rules)
    height, width = _canvas(resized.seen.shape, rules)
    pixels = np.zeros((len(resized.pixels), height, width), np.float32)
    valid = np.zeros((height, width), np.bool_)
    measured = resized.measured.tolist()
    statistics = {
        name: sum(channel[k] for channel in measured) / len(measured)
        for k, name in enumerate(("background", "noise", "minimum", "maximum"))
    } | {"valid_fraction": resized.valid_fraction}
    noise, background = [0.0] * len(pixels), [0.0] * len(pixels)
    rows, columns = resized.seen.shape
    top, left = (height - rows) // 2, (width - columns) // 2
    inner = (slice(top, top + rows), slice(left, left + columns))
    valid[inner] = resized.seen
    alike = [
        not (own.noise[c] > 0 and own.high[c] > own.low[c] and m[1] > 0)
        for c, m in enumerate(resized.measured)
    ]
    for c, plane in enumerate(resized.pixels):
        if alike[c]:
            continue
        level, sigma = clipped(resized.values(c), MOST_MEASURED // 4)
        levels = np.array([own.background[c], level, level + sigma])
        empty, background[c], above = _stretched(levels, own, c, rules).tolist()
        noise[c] = above - background[c]
        pixels[c] = empty
        pixels[c][inner] = np.where(
            resized.seen, _stretched(plane, own, c, rules), empty
        )
    statistics["stretched_background"] = sum(background) / len(pixels)
    statistics["stretched_noise"] = sum(noise) / len(pixels)
    return Prepared(pixels, valid, statistics, _warning(alike, resized.warning))


def common_scale(images: Sequence[Image], rules: PreprocessSettings) -> Scale:
    """One brightness scale for a whole data set, from some of its images.

    Background, noise and lower end are medians; the upper end is the 99th
    percentile of the images' own, so that few are cut off. With `minmax`, the
    extremes.

    Parameters
    ----------
    images : sequence of Image
        At least one; all with the same number of channels.
    rules : PreprocessSettings
        What is done to each.

    Returns
    -------
    Scale
    """
    resized = [_resized(image, rules) for image in images]
    backgrounds, noises = np.stack([r.measured for r in resized]).T[:2]
    noise = np.median(noises, axis=1)
    background = np.median(backgrounds, axis=1)
    if rules.interval == "noise":
        highest = np.stack([r.measured[:, 3] for r in resized])
        highs = (highest - background) / np.where(noise > 0, noise, 1)
        lows = np.full_like(highs, -LOWEST)
    else:
        scales = [_scale_of(r, rules) for r in resized]
        lows, highs = (
            np.stack([s.low for s in scales]),
            np.stack([s.high for s in scales]),
        )
    if rules.interval == "minmax":
        return Scale(background, noise, lows.min(axis=0), highs.max(axis=0))
    low, high = np.median(lows, axis=0), np.percentile(highs, 99, axis=0)
    return Scale(background, noise, low, high)


def clipped(values: "NDArray[Any]", most: int = MOST_MEASURED) -> tuple[float, float]:
    """Median and standard deviation after sigma clipping.

    The same numbers as ``astropy.stats.sigma_clipped_stats(values)``: values
    more than 3 standard deviations from the median are left out, up to 5 times.
    After one sorting, every pass is a search in it, which makes it several
    times faster. Of more than `most` values, evenly spaced ones are taken; with
    4096 this leaves errors of about 0.02 and 0.01 times the noise.

    Parameters
    ----------
    values : ndarray, shape (N,)
        Finite, N at least 1.
    most : int
        About how many of them are looked at.

    Returns
    -------
    background, noise : float
        Where more than half of the values are alike (simulations, sums with a
        floor) the clipped deviation can be 0; that of all values then stands in.
    """
    # An odd step does not walk along the same columns again and again.
    step = -(-values.size // most)
    step += step % 2 == 0
    ordered = np.sort(values[::step])
    reference = ordered[len(ordered) // 2]
    distance = ordered.astype(np.float64) - float(reference)
    first, last = 0, len(distance)
    middle, deviation = _middle(distance)
    everything = deviation
    for _ in range(CLIPS):
        reach = CLIP * deviation
        new_first = int(distance.searchsorted(middle - reach, "left"))
        new_last = int(distance.searchsorted(middle + reach, "right"))
        new_first, new_last = max(first, new_first), min(last, new_last)
        if (new_first, new_last) == (first, last) or new_first >= new_last:
            break
        first, last = new_first, new_last
        middle, deviation = _middle(distance[first:last])
    return float(reference) + middle, deviation or everything


def _middle(ordered: "NDArray[np.float64]") -> tuple[float, float]:
    """Median and standard deviation of sorted values."""
    number = len(ordered)
    median = 0.5 * float(ordered[(number - 1) // 2] + ordered[number // 2])
    if ordered[0] == ordered[-1]:
        return median, 0.0
    mean = float(ordered.sum()) / number
    variance = float(ordered @ ordered) / number - mean * mean
    return median, math.sqrt(max(0.0, variance))


def _warning(alike: Sequence[bool], other: str) -> str:
    if not any(alike):
        return other
    if all(alike):
        return "all valid pixels have the same value"
    return (
        f"all valid pixels have the same value in {sum(alike)} of {len(alike)} channels"
    )


def _resized(image: Image, rules: PreprocessSettings) -> _Resized:
    valid_fraction = 1 - np.count_nonzero(image.mask) / image.mask.size
    if rules.crop_fraction < 1:
        image = _middle_of(image, rules.crop_fraction)
    measured = _measure(image)
    warning = ""
    if rules.crop == "source":
        box = _emission(image, measured, rules.crop_sigma)
        if box is None:
            warning = (
                f"nothing is brighter than {rules.crop_sigma:g} times the noise; "
                "not cropped"
            )
        else:
            image = _cut(image, box)
    with np.errstate(over="ignore", invalid="ignore"):
        pixels, seen = resize(image, *_target(image.mask.shape, rules))
    if rules.fit == "crop" and rules.size != "native":
        pixels, seen = _centre(pixels, seen, rules.size)
    if not seen.any():
        raise FitsImageError("all pixels that are left after cropping are bad")
    if not np.isfinite(pixels).all() or not np.isfinite(measured).all():
        raise FitsImageError("its values are too large for 32-bit floating point")
    return _Resized(pixels.astype(np.float64), seen, measured, valid_fraction, warning)


def _measure(image: Image) -> "NDArray[np.float64]":
    """Background, noise, minimum and maximum of each channel's valid pixels."""
    keep = ~image.mask if image.mask.any() else None
    if keep is not None and not keep.any():
        raise FitsImageError("all pixels are NaN, infinite or blank")
    found = []
    for plane in image.pixels:
        values = plane.ravel() if keep is None else plane[keep]
        with np.errstate(over="ignore", invalid="ignore"):
            background, noise = clipped(values)
        found.append((background, noise, float(values.min()), float(values.max())))
    return np.array(found, dtype=np.float64)


def _scale_of(resized: _Resized, rules: PreprocessSettings) -> Scale:
    """An image's own brightness scale."""
    background, noise = resized.measured[:, 0].copy(), resized.measured[:, 1].copy()
    seen = [resized.values(c) for c in range(len(resized.pixels))]
    if rules.interval == "noise":
        unit = np.where(noise > 0, noise, 1)
        lowest = (np.array([v.min() for v in seen]) - background) / unit
        highest = (np.array([v.max() for v in seen]) - background) / unit
        # One range for all channels, in units of each one's noise, keeps colours.
        low = np.full_like(noise, max(float(lowest.min()), -LOWEST))
        return Scale(background, noise, low, np.full_like(noise, float(highest.max())))
    limits = np.array([_limits(values, rules) for values in seen], dtype=np.float64)
    return Scale(background, noise, limits[:, 0], limits[:, 1])


def _limits(
    values: "NDArray[np.float64]", rules: PreprocessSettings
) -> tuple[float, float]:
    from astropy import visualization

    if rules.interval == "percentile":
        interval = visualization.PercentileInterval(rules.percentile)
    elif rules.interval == "zscale":
        interval = visualization.ZScaleInterval()
    else:
        interval = visualization.MinMaxInterval()
    low, high = interval.get_limits(values)
    return float(low), float(high)


def _stretched(
    values: "NDArray[np.float64]", scale: Scale, channel: int, rules: PreprocessSettings
) -> "NDArray[np.float64]":
    """Values on the brightness scale, from 0 to 1."""
    low, high = float(scale.low[channel]), float(scale.high[channel])
    if rules.interval != "noise":
        from astropy import visualization

        stretch = getattr(visualization, STRETCHES[rules.stretch])()
        return np.asarray(stretch(np.clip((values - low) / (high - low), 0, 1)))
    units = (values - scale.background[channel]) / scale.noise[channel]
    bend = BENDS[rules.stretch]
    ends = bend(np.array([low, high]), low)
    shown: NDArray[np.float64] = bend(np.maximum(units, low), low)
    shown -= ends[0]
    shown /= ends[1] - ends[0]
    return np.clip(shown, 0, 1, out=shown)


STRETCHES = {
    "linear": "LinearStretch",
    "sqrt": "SqrtStretch",
    "log": "LogStretch",
    "asinh": "AsinhStretch",
}
# The same in units of the noise, from the lowest value shown; asinh and log bend
# at SOFTENING.
BENDS: dict[str, Any] = {
    "linear": lambda z, low: z - low,
    "sqrt": lambda z, low: np.sqrt(z - low),
    "log": lambda z, low: np.log1p((z - low) / SOFTENING),
    "asinh": lambda z, low: np.arcsinh(z / SOFTENING),
}


def _middle_of(image: Image, fraction: float) -> Image:
    """The middle of an image: a share of each side."""
    height, width = image.mask.shape
    rows, columns = max(1, round(height * fraction)), max(1, round(width * fraction))
    top, left = (height - rows) // 2, (width - columns) // 2
    part = (slice(top, top + rows), slice(left, left + columns))
    return Image(image.pixels[(slice(None), *part)], image.mask[part])


def _emission(
    image: Image, measured: "NDArray[np.float64]", sigmas: float
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
    side = min(max(side, LEAST_CROP), max(height, width))
    top = (int(y.min()) + int(y.max()) + 1 - side) // 2
    left = (int(x.min()) + int(x.max()) + 1 - side) // 2
    return top, left, side


def _cut(image: Image, box: tuple[int, int, int]) -> Image:
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


def _target(shape: tuple[int, ...], rules: PreprocessSettings) -> tuple[int, int]:
    """Height and width that an image is resized to."""
    height, width = shape
    if rules.size == "native":
        return height, width
    if rules.fit == "squeeze":
        return rules.size, rules.size
    scale = rules.size / (max if rules.fit == "pad" else min)(height, width)
    return max(1, round(height * scale)), max(1, round(width * scale))


def _canvas(shape: tuple[int, ...], rules: PreprocessSettings) -> tuple[int, int]:
    """Height and width of the result."""
    if rules.size != "native":
        return rules.size, rules.size
    rows, columns = (
        max(NATIVE_LEAST, -(-length // NATIVE_STEP) * NATIVE_STEP) for length in shape
    )
    return rows, columns


def _centre(
    pixels: "NDArray[np.float32]", seen: "NDArray[np.bool_]", size: int
) -> "tuple[NDArray[np.float32], NDArray[np.bool_]]":
    height, width = seen.shape
    top, left = max(0, height - size) // 2, max(0, width - size) // 2
    part = (slice(top, top + size), slice(left, left + size))
    return pixels[(slice(None), *part)], seen[part]


def resize(
    image: Image, height: int, width: int
) -> tuple["NDArray[np.float32]", "NDArray[np.bool_]"]:
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
