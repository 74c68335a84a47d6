"""From an image to a tensor: crop, resize, and stretch to the range 0 to 1.

Bad pixels have no weight in any of these operations.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from astromorph.errors import FitsImageError
from astromorph.fits.pixels import Image, zeros_at_edge
from astromorph.preprocessing.resample import (
    canvas_shape,
    central_crop,
    crop_box,
    crop_centre,
    emission_box,
    resize,
    target_shape,
)
from astromorph.settings.sections import PreprocessSettings

SOFTENING = 3.0  # asinh and log are linear up to about this many times the noise
MIN_SIGMAS = 5.0  # times the noise below the background: lowest start of the scale
CLIP_SIGMAS, MAX_CLIPS = 3.0, 5
MAX_VALUES = 2**12  # pixels from which background and noise are measured
# Images are resized in float32, relative to their background, if their noise and the
# distance of all pixels from the background are between these values.
FLOAT32_RANGE = (1e-30, 1e37)
# Distances whose squares neither overflow nor vanish in float64.
SQUARE_RANGE = (1e-100, 1e100)
# A repeated extreme value is reported if it is so many times the noise below the
# background, or if it is so many times the range of all other pixels above them: a
# saturated star is neither.
MARKER_SIGMAS, MARKER_RANGES = 100, 100
MAX_MARKERS = 3  # different ones in a channel
# Zeros at an edge are reported if they are at least this fraction of the pixels, at
# most that fraction of the others is 0, and these look like noise: so many are
# negative, or their background is so many times their noise.
MIN_ZEROS_AT_EDGE, MAX_OTHER_ZEROS = 0.01, 0.01
MIN_NEGATIVE, MIN_BACKGROUND = 0.001, 3.0
MAX_VALUE = 1e300  # also in units of the noise


@dataclass(frozen=True, slots=True)
class Prepared:
    """An image in the form that the network receives.

    Attributes
    ----------
    pixels : ndarray, shape (C, H, W), float32
        From 0 to 1; all 0 for a constant image. H and W equal `size`; if it is native,
        they are multiples of 16 and at least 32.
    valid : ndarray, shape (H, W), bool
        False for pixels without valid data, which are set to the background.
    statistics : dict of str to float
        Means over the channels: `background` and `noise` (sigma-clipped median and
        standard deviation), `minimum` and `maximum` of the valid pixels, in the unit of
        the file; `valid_fraction`, the fraction of valid pixels;
        `stretched_background` and `stretched_noise`, the same for `pixels`.
    warning : str
        Why the image may be unsuitable; empty if there is no reason.
    """

    pixels: NDArray[np.float32]
    valid: NDArray[np.bool_]
    statistics: dict[str, float]
    warning: str


@dataclass(frozen=True, slots=True)
class Scale:
    """The limits of the brightness scale of each channel.

    Attributes
    ----------
    background, noise : ndarray, shape (C,), float64
        In the unit of the file.
    low, high : ndarray, shape (C,), float64
        Values that are scaled to 0 and 1. With the interval `noise`, they are in units
        of the noise above the background, otherwise in the unit of the file.
    """

    background: NDArray[np.float64]
    noise: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class _ResizedImage:
    pixels: NDArray[np.float64]
    valid: NDArray[np.bool_]
    measured: NDArray[np.float64]  # (C, 4): background, noise, minimum, maximum
    valid_fraction: float
    warning: str

    def values(self, channel: int) -> NDArray[np.float64]:
        """The valid pixels of a channel as a 1-D array."""
        plane: NDArray[np.float64] = self.pixels[channel]
        return plane.ravel() if self.valid.all() else plane[self.valid]


def prepare(
    image: Image, rules: PreprocessSettings, scale: Scale | None = None
) -> Prepared:
    """Crop, resize and stretch one image.

    Parameters
    ----------
    image : Image
        Pixels `(C, H, W)` and mask `(H, W)`.
    rules : PreprocessSettings
        How the image is prepared.
    scale : Scale, optional
        The brightness scale; by default that of the image itself.

    Returns
    -------
    Prepared

    Raises
    ------
    FitsImageError
        No pixel is valid, or values exceed the range of 64-bit floating point.
    """
    resized = _crop_and_resize(image, rules)
    scale = scale or _own_scale(resized, rules)
    height, width = canvas_shape(resized.valid.shape, rules)
    pixels = np.zeros((len(resized.pixels), height, width), np.float32)
    valid = np.zeros((height, width), np.bool_)
    measured = resized.measured.tolist()
    statistics = {
        name: sum(channel[k] for channel in measured) / len(measured)
        for k, name in enumerate(("background", "noise", "minimum", "maximum"))
    } | {"valid_fraction": resized.valid_fraction}
    noise, background = [0.0] * len(pixels), [0.0] * len(pixels)
    rows, columns = resized.valid.shape
    top, left = (height - rows) // 2, (width - columns) // 2
    inner = (slice(top, top + rows), slice(left, left + columns))
    valid[inner] = resized.valid
    constant = [
        not (scale.noise[c] > 0 and scale.high[c] > scale.low[c] and m[1] > 0)
        for c, m in enumerate(resized.measured)
    ]
    for c, plane in enumerate(resized.pixels):
        if constant[c]:
            continue
        level, sigma = sigma_clip(resized.values(c), MAX_VALUES // 4)
        levels = np.array([scale.background[c], level, level + sigma])
        fill, background[c], above = _stretch(levels, scale, c, rules).tolist()
        noise[c] = above - background[c]
        pixels[c] = fill
        stretched = _stretch(plane, scale, c, rules)
        pixels[c][inner] = np.where(resized.valid, stretched, fill)
    statistics["stretched_background"] = sum(background) / len(pixels)
    statistics["stretched_noise"] = sum(noise) / len(pixels)
    warning = _combine_warnings(constant, resized.warning)
    return Prepared(pixels, valid, statistics, warning)


@dataclass(frozen=True, slots=True)
class ScaleMeasures:
    """Measures of one image that contribute to a common scale.

    Attributes
    ----------
    measured : ndarray, shape (C, 4), float64
        Background, noise, minimum and maximum, in the unit of the file.
    scale : Scale
        The scale of this image alone.
    """

    measured: NDArray[np.float64]
    scale: Scale


def measure_scale(image: Image, rules: PreprocessSettings) -> ScaleMeasures:
    """Measure an image for `common_scale`; raises the same errors as `prepare`."""
    resized = _crop_and_resize(image, rules)
    return ScaleMeasures(resized.measured, _own_scale(resized, rules))


def common_scale(measures: Sequence[ScaleMeasures], rules: PreprocessSettings) -> Scale:
    """Determine one brightness scale for a data set from some of its images.

    Background, noise and lower limit are medians over the images. The upper limit is
    the 99th percentile of their upper limits, so that few images are clipped. With the
    interval `minmax`, the limits are the extremes.

    Parameters
    ----------
    measures : sequence of ScaleMeasures
        Measures of at least one image; all have the same number of channels.
    rules : PreprocessSettings
        How images are prepared.

    Returns
    -------
    Scale
    """
    backgrounds, noises = np.stack([m.measured for m in measures]).T[:2]
    noise = np.median(noises, axis=1)
    background = np.median(backgrounds, axis=1)
    if rules.interval == "noise":
        maxima = np.stack([m.measured[:, 3] for m in measures])
        highs = (maxima - background) / np.where(noise > 0, noise, 1)
        lows = np.full_like(highs, -MIN_SIGMAS)
    else:
        lows = np.stack([m.scale.low for m in measures])
        highs = np.stack([m.scale.high for m in measures])
    if rules.interval == "minmax":
        return Scale(background, noise, lows.min(axis=0), highs.max(axis=0))
    low, high = np.median(lows, axis=0), np.percentile(highs, 99, axis=0)
    return Scale(background, noise, low, high)


def _combine_warnings(constant: Sequence[bool], other: str) -> str:
    if not any(constant):
        return other
    warning = "all valid pixels have the same value"
    if all(constant):
        return warning
    return f"{warning} in {sum(constant)} of {len(constant)} channels"


def _crop_and_resize(image: Image, rules: PreprocessSettings) -> _ResizedImage:
    valid_fraction = 1 - np.count_nonzero(image.mask) / image.mask.size
    if rules.crop_fraction < 1:
        image = central_crop(image, rules.crop_fraction)
    measured = _measure(image)
    warnings = _marker_warnings(image, measured)
    if valid_fraction < rules.min_valid_fraction:
        warnings.append(
            f"only {valid_fraction:.2g} of its pixels are valid, less than "
            f"`preprocess_settings.min_valid_fraction`, {rules.min_valid_fraction:g}"
        )
    if rules.crop == "source":
        box = emission_box(image, measured, rules.crop_sigma)
        if box is None:
            warnings.append(
                f"nothing is brighter than {rules.crop_sigma:g} times the noise; "
                "not cropped"
            )
        else:
            image = crop_box(image, box)
    if _is_out_of_range(measured):
        raise FitsImageError(
            "its values are too large for 64-bit floating point; if they mark bad "
            "pixels, list them in `data_settings.bad_values`"
        )
    shape, dtype = target_shape(image.mask.shape, rules), _range_dtype(measured)
    # Rounded as the pixels, so that their difference is exact.
    in_which = image.pixels.dtype if dtype == np.float32 else dtype
    background: Any = measured[:, 0, None, None].astype(in_which)
    pixels, valid = resize(image, *shape, background, dtype)
    if rules.fit == "crop" and rules.size != "native":
        pixels, valid = crop_centre(pixels, valid, rules.size)
    if not valid.any():
        raise FitsImageError("all pixels that remain after cropping are bad")
    resized = pixels + background.astype(np.float64)
    return _ResizedImage(resized, valid, measured, valid_fraction, "; ".join(warnings))


def _marker_warnings(image: Image, measured: NDArray[np.float64]) -> list[str]:
    """Describe values that seem to mark pixels without data."""
    markers: dict[float, int] = {}
    valid = ~image.mask if image.mask.any() else None
    for plane, limits in zip(image.pixels, measured[:, 2:].tolist(), strict=True):
        values = plane.ravel() if valid is None else plane[valid]
        found = _find_markers(values, limits)
        if all(value != 0 for value, _ in found):
            found += _find_zero_border(plane, image.mask, [v for v, _ in found])
        for value, number in found:
            markers[value] = max(number, markers.get(value, 0))
    return [
        f"{number} pixels have the value {value:.8g}, {REMARKS[value == 0]}; if it "
        "marks pixels without data, "
        + ("set `data_settings.zeros_at_edge`, or " if value == 0 else "")
        + "add it to `data_settings.bad_values`"
        for value, number in markers.items()
    ]


REMARKS = {False: "far from all others", True: "unlike all others"}


def _find_zero_border(
    plane: NDArray[Any], mask: NDArray[np.bool_], markers: Sequence[float]
) -> list[tuple[float, int]]:
    """0 and how many pixels have it, if zeros seem to surround an image with noise.

    Where the background is about 0, they are not far from other values, but noise is
    not exactly 0. Images without noise and counts of photons often are.
    """
    edges = (plane[0], plane[-1], plane[:, 0], plane[:, -1])
    if all(edge.all() for edge in edges):
        return []
    edge = zeros_at_edge((plane == 0) & ~mask)
    number = 0 if edge is None else int(np.count_nonzero(edge))
    if edge is None or number < MIN_ZEROS_AT_EDGE * plane.size:
        return []
    rest = plane[~edge & ~mask]
    rest = rest[~np.isin(rest, markers)]
    if rest.size < 2 or np.count_nonzero(rest == 0) > MAX_OTHER_ZEROS * rest.size:
        return []
    background, noise = sigma_clip(rest)
    negative = np.count_nonzero(rest < 0) > MIN_NEGATIVE * rest.size
    if noise > 0 and (negative or background > MIN_BACKGROUND * noise):
        return [(0.0, number)]
    return []


def _find_markers(
    values: NDArray[Any], limits: Sequence[float]
) -> list[tuple[float, int]]:
    """Repeated extreme values that no plausible noise or source has, and how often.

    The lowest and highest values are removed as long as they are repeated and far from
    the next one; then they are compared with the noise of the remaining pixels.
    """
    rest, candidates = values, list[tuple[float, int]]()
    while len(candidates) < MAX_MARKERS and (found := _isolated_extreme(rest, limits)):
        candidates.append(found)
        rest = rest[rest != found[0]]
        limits = (float(rest.min()), float(rest.max()))
    if not candidates:
        return []
    background, noise = sigma_clip(rest)
    lowest, highest = limits
    below = min(background - MARKER_SIGMAS * noise, lowest - noise)
    above = highest + MARKER_RANGES * (highest - lowest)
    return [
        (value, number)
        for value, number in candidates
        if noise > 0 and not below <= value <= above
    ]


def _isolated_extreme(
    values: NDArray[Any], limits: Sequence[float]
) -> tuple[float, int] | None:
    """The lowest or highest value and its number, if it is repeated and isolated."""
    some = _sample(values)
    for extreme in limits:
        # Evenly spaced values suffice to exclude most extremes: between them and the
        # extreme there can only be more values.
        near = some[some != extreme]
        if near.size and not _is_isolated(extreme, near):
            continue
        same = values == extreme
        number = int(np.count_nonzero(same))
        if not 2 <= number < values.size:
            continue
        others = values[~same]
        ends = [others.min(), others.max()]
        if _is_isolated(extreme, np.sort(np.append(_sample(others), ends))):
            return extreme, number
    return None


def _sample(values: NDArray[Any]) -> NDArray[Any]:
    """Evenly spaced values, at most `MAX_VALUES`, in ascending order."""
    step = -(-values.size // MAX_VALUES)
    return np.sort(values[:: step + (step % 2 == 0)])


def _is_isolated(extreme: float, ordered: NDArray[Any]) -> bool:
    """Whether the gap to the next value exceeds its distance from the median."""
    nearest = float(ordered[0] if extreme < ordered[0] else ordered[-1])
    return abs(extreme - nearest) > abs(float(ordered[len(ordered) // 2]) - nearest)


def _is_out_of_range(measured: NDArray[np.float64]) -> bool:
    """Whether the brightness scale of an image cannot be computed."""
    for background, noise, minimum, maximum in measured.tolist():
        if not (math.isfinite(background) and math.isfinite(noise)):
            return True
        unit = min(noise, 1) if noise > 0 else 1
        if max(maximum, -minimum) > MAX_VALUE * unit:
            return True
    return False


def _range_dtype(measured: NDArray[np.float64]) -> type[np.float32 | np.float64]:
    """The type of differences from the background: float32 where its range allows.

    This loses no precision, whereas the rounding errors of the pixels themselves can
    exceed the noise.
    """
    smallest, largest = FLOAT32_RANGE
    in_range = all(
        max(maximum - background, background - minimum) < largest
        and (noise > smallest or noise == 0)
        for background, noise, minimum, maximum in measured.tolist()
    )
    return np.float32 if in_range else np.float64


def _measure(image: Image) -> NDArray[np.float64]:
    """Background, noise, minimum and maximum of each channel's valid pixels."""
    valid = ~image.mask if image.mask.any() else None
    if valid is not None and not valid.any():
        raise FitsImageError("all pixels are NaN, infinite or blank")
    measured = []
    for plane in image.pixels:
        values = plane.ravel() if valid is None else plane[valid]
        background, noise = sigma_clip(values)
        minimum, maximum = float(values.min()), float(values.max())
        measured.append((background, noise, minimum, maximum))
    return np.array(measured, dtype=np.float64)


def _own_scale(resized: _ResizedImage, rules: PreprocessSettings) -> Scale:
    """The brightness scale of an image alone."""
    background, noise = resized.measured[:, 0].copy(), resized.measured[:, 1].copy()
    values = [resized.values(c) for c in range(len(resized.pixels))]
    if rules.interval == "noise":
        unit = np.where(noise > 0, noise, 1)
        minima = (np.array([v.min() for v in values]) - background) / unit
        maxima = (np.array([v.max() for v in values]) - background) / unit
        # One range for all channels, in units of the noise of each, preserves colours.
        low = np.full_like(noise, max(float(minima.min()), -MIN_SIGMAS))
        return Scale(background, noise, low, np.full_like(noise, float(maxima.max())))
    limits = np.array([_interval_limits(v, rules) for v in values], dtype=np.float64)
    return Scale(background, noise, limits[:, 0], limits[:, 1])


def _interval_limits(
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


def _stretch(
    values: NDArray[np.float64], scale: Scale, channel: int, rules: PreprocessSettings
) -> NDArray[np.float64]:
    """Values on the brightness scale, from 0 to 1."""
    low, high = float(scale.low[channel]), float(scale.high[channel])
    if rules.interval != "noise":
        from astropy import visualization

        stretch = getattr(visualization, STRETCHES[rules.stretch])()
        return np.asarray(stretch(np.clip((values - low) / (high - low), 0, 1)))
    units = (values - scale.background[channel]) / scale.noise[channel]
    stretch = NOISE_STRETCHES[rules.stretch]
    ends = stretch(np.array([low, high]), low)
    stretched: NDArray[np.float64] = stretch(np.maximum(units, low), low)
    stretched -= ends[0]
    stretched /= ends[1] - ends[0]
    return np.clip(stretched, 0, 1, out=stretched)


STRETCHES = {
    "linear": "LinearStretch",
    "sqrt": "SqrtStretch",
    "log": "LogStretch",
    "asinh": "AsinhStretch",
}


# Stretches of values in units of the noise, above the lower limit of the scale. asinh
# and log change from linear to logarithmic at SOFTENING.
NOISE_STRETCHES: dict[str, Any] = {
    "linear": lambda z, low: z - low,
    "sqrt": lambda z, low: np.sqrt(z - low),
    "log": lambda z, low: np.log1p((z - low) / SOFTENING),
    "asinh": lambda z, low: np.arcsinh(z / SOFTENING),
}


def sigma_clip(
    values: NDArray[Any], max_values: int = MAX_VALUES
) -> tuple[float, float]:
    """Median and standard deviation after sigma clipping.

    The results equal those of ``astropy.stats.sigma_clipped_stats(values)``: values
    more than 3 standard deviations from the median are removed, up to 5 times. The
    values are sorted once, and each iteration is a search in the sorted array, which
    makes it several times faster. If there are more than `max_values`, evenly spaced
    values are used; with 4096 values, background and noise have errors of about 0.02
    and 0.01 times the noise.

    Parameters
    ----------
    values : ndarray, shape (N,)
        Finite, N at least 1.
    max_values : int
        Approximate maximum number of values that are used.

    Returns
    -------
    background, noise : float
        The clipped deviation can be 0 if most values are equal (simulations, sums with
        a floor, a faint source on an empty background); then the deviation of all
        values is returned. It is 0 if all values are equal.
    """
    # An odd step, since an even one could select the same columns in every row.
    step = -(-values.size // max_values)
    step += step % 2 == 0
    ordered = np.sort(values[::step])
    reference = float(ordered[len(ordered) // 2])
    with np.errstate(over="ignore"):
        distance = ordered.astype(np.float64) - reference
    if not (math.isfinite(distance[0]) and math.isfinite(distance[-1])):
        return reference, math.inf
    first, last = 0, len(distance)
    median, deviation = _median_and_deviation(distance)
    unclipped_deviation = deviation
    for _ in range(MAX_CLIPS):
        limit = CLIP_SIGMAS * deviation
        new_first = int(distance.searchsorted(median - limit, "left"))
        new_last = int(distance.searchsorted(median + limit, "right"))
        new_first, new_last = max(first, new_first), min(last, new_last)
        if (new_first, new_last) == (first, last) or new_first >= new_last:
            break
        first, last = new_first, new_last
        median, deviation = _median_and_deviation(distance[first:last])
    noise = deviation or unclipped_deviation
    if not noise and step > 1:
        with np.errstate(over="ignore"):
            distance = np.sort(values.astype(np.float64) - reference)
        noise = _median_and_deviation(distance)[1]
    return reference + median, noise


def _median_and_deviation(ordered: NDArray[np.float64]) -> tuple[float, float]:
    """Median and standard deviation of sorted values."""
    number = len(ordered)
    median = 0.5 * float(ordered[(number - 1) // 2] + ordered[number // 2])
    if ordered[0] == ordered[-1]:
        return median, 0.0
    unit, largest = 1.0, max(abs(float(ordered[0])), abs(float(ordered[-1])))
    if not SQUARE_RANGE[0] < largest < SQUARE_RANGE[1]:
        unit, ordered = largest, ordered / largest
    mean = float(ordered.sum()) / number
    variance = float(ordered @ ordered) / number - mean * mean
    return median, unit * math.sqrt(max(0.0, variance))
