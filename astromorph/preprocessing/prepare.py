"""How an image becomes a tensor: crop, resize by valid pixels, stretch to 0 to 1.

Bad pixels have no weight anywhere.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from astromorph.errors import FitsImageError
from astromorph.fits.pixels import Image
from astromorph.preprocessing.background import MAX_MEASURED, sigma_clip
from astromorph.preprocessing.resample import (
    canvas_shape,
    central_crop,
    centre_of,
    crop_box,
    emission_box,
    resize,
    target_shape,
)
from astromorph.settings.sections import PreprocessSettings

SOFTENING = 3.0  # asinh and log are linear up to about this many times the noise
LOWEST = 5.0  # times the noise below the background where the scale begins


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

    pixels: NDArray[np.float32]
    valid: NDArray[np.bool_]
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

    background: NDArray[np.float64]
    noise: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class _Resized:
    pixels: NDArray[np.float64]
    seen: NDArray[np.bool_]
    measured: NDArray[np.float64]  # (C, 4): background, noise, minimum, maximum
    valid_fraction: float
    warning: str

    def values(self, channel: int) -> NDArray[np.float64]:
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
    height, width = canvas_shape(resized.seen.shape, rules)
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
        level, sigma = sigma_clip(resized.values(c), MAX_MEASURED // 4)
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


@dataclass(frozen=True, slots=True)
class ScaleMeasures:
    """What one image adds to a scale that it shares with others.

    Attributes
    ----------
    measured : ndarray, shape (C, 4), float64
        Background, noise, minimum and maximum, in the file's unit.
    scale : Scale
        The image's own.
    """

    measured: NDArray[np.float64]
    scale: Scale


def measure_scale(image: Image, rules: PreprocessSettings) -> ScaleMeasures:
    """Measure an image for `common_scale`; errors as those of `prepare`."""
    resized = _resized(image, rules)
    return ScaleMeasures(resized.measured, _scale_of(resized, rules))


def common_scale(measures: Sequence[ScaleMeasures], rules: PreprocessSettings) -> Scale:
    """One brightness scale for a whole data set, from some of its images.

    Background, noise and lower end are medians; the upper end is the 99th
    percentile of the images' own, so that few are cut off. With `minmax`, the
    extremes.

    Parameters
    ----------
    measures : sequence of Measures
        Of at least one image; all with the same number of channels.
    rules : PreprocessSettings
        What is done to each.

    Returns
    -------
    Scale
    """
    backgrounds, noises = np.stack([m.measured for m in measures]).T[:2]
    noise = np.median(noises, axis=1)
    background = np.median(backgrounds, axis=1)
    if rules.interval == "noise":
        highest = np.stack([m.measured[:, 3] for m in measures])
        highs = (highest - background) / np.where(noise > 0, noise, 1)
        lows = np.full_like(highs, -LOWEST)
    else:
        lows = np.stack([m.scale.low for m in measures])
        highs = np.stack([m.scale.high for m in measures])
    if rules.interval == "minmax":
        return Scale(background, noise, lows.min(axis=0), highs.max(axis=0))
    low, high = np.median(lows, axis=0), np.percentile(highs, 99, axis=0)
    return Scale(background, noise, low, high)


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
        image = central_crop(image, rules.crop_fraction)
    measured = _measure(image)
    warning = ""
    if rules.crop == "source":
        box = emission_box(image, measured, rules.crop_sigma)
        if box is None:
            warning = (
                f"nothing is brighter than {rules.crop_sigma:g} times the noise; "
                "not cropped"
            )
        else:
            image = crop_box(image, box)
    with np.errstate(over="ignore", invalid="ignore"):
        pixels, seen = resize(image, *target_shape(image.mask.shape, rules))
    if rules.fit == "crop" and rules.size != "native":
        pixels, seen = centre_of(pixels, seen, rules.size)
    if not seen.any():
        raise FitsImageError("all pixels that are left after cropping are bad")
    if not np.isfinite(pixels).all() or not np.isfinite(measured).all():
        raise FitsImageError("its values are too large for 32-bit floating point")
    return _Resized(pixels.astype(np.float64), seen, measured, valid_fraction, warning)


def _measure(image: Image) -> NDArray[np.float64]:
    """Background, noise, minimum and maximum of each channel's valid pixels."""
    keep = ~image.mask if image.mask.any() else None
    if keep is not None and not keep.any():
        raise FitsImageError("all pixels are NaN, infinite or blank")
    found = []
    for plane in image.pixels:
        values = plane.ravel() if keep is None else plane[keep]
        with np.errstate(over="ignore", invalid="ignore"):
            background, noise = sigma_clip(values)
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
    values: NDArray[np.float64], rules: PreprocessSettings
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
    values: NDArray[np.float64], scale: Scale, channel: int, rules: PreprocessSettings
) -> NDArray[np.float64]:
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
