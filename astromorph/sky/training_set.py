"""Simulated images with known kinds and shapes, similar to the data."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from astromorph.fits.pixels import Image
from astromorph.preprocessing.image_to_tensor import prepare
from astromorph.progress import track
from astromorph.settings.sections import PreprocessSettings
from astromorph.sky import draw as sky
from astromorph.sky.morphologies import MORPHOLOGIES
from astromorph.system.workers import process_pool

CHUNK = 256  # images that a process draws at a time
SERIAL_BELOW = 1000  # images; more processes take longer to start than they save
# Ratio of the sides of image and tensor, if the appearance of the data is unknown.
SIDE_RATIOS = (0.75, 1.9)
TRAINING_RADII = (0.07, 0.5)  # of an object, relative to the side of its image
JITTER = 0.3  # standard deviation of the logarithm of beam and signal around the data
COLOURS = 0.5  # standard deviation of the logarithm of the brightness of a channel
Plane = NDArray[np.float64]
MULTIPOLES = (1, 2, 3, 4)
MEASURES = (
    "axis_ratio",
    "concentration",
    "asymmetry",
    "gini",
    "m20",
    "peak_distance",
    "emptiness",
    *(f"multipole_{m}" for m in MULTIPOLES),
)
MIN_BRIGHTNESS = 1e-3  # relative to the peak; fainter pixels are set to 0
M20_SHARE = 0.2  # of the flux


@dataclass(frozen=True, slots=True)
class Appearance:
    """Properties of the data that simulated images reproduce.

    Attributes
    ----------
    signals : tuple of float
        Ratio of peak to noise of a sample of images.
    beams : tuple of float
        Full width at half maximum of the correlation of the noise in their tensors, in
        pixels; 0 for white noise.
    """

    signals: tuple[float, ...]
    beams: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class LabelledImages:
    """Simulated images with labels.

    Attributes
    ----------
    images : ndarray, shape (N, C, S, S), float16
        Values from 0 to 1.
    morphologies : ndarray, shape (N,), int64
        Index of the morphology in `MORPHOLOGIES`.
    shapes : ndarray, shape (N, K), float32
        `MEASURES`, standardised to mean 0 and standard deviation 1; NaN for an image
        without an object.
    """

    images: NDArray[np.float16]
    morphologies: NDArray[np.int64]
    shapes: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.images)


@dataclass(frozen=True, slots=True)
class DrawingRules:
    """The properties of the images that are drawn.

    Attributes
    ----------
    seed : int
        Random seed; each image depends only on it and on its own number.
    size : int
        Side of an image, S.
    channels : int
        Channels, C.
    preprocessing : PreprocessSettings
        How images are prepared; settings of sizes and crops are ignored.
    appearance : Appearance or None
        Properties of the data; None for random properties.
    """

    seed: int
    size: int
    channels: int = 1
    preprocessing: PreprocessSettings = field(default_factory=PreprocessSettings)
    appearance: Appearance | None = None
    morphologies: tuple[str, ...] = tuple(MORPHOLOGIES)


def draw_labelled_images(
    rules: DrawingRules, number: int, processes: int = 1
) -> LabelledImages:
    """Draw simulated images of all morphologies, in turn.

    Parameters
    ----------
    rules : DrawingRules
        Properties of the images.
    number : int
        Number of images, N, at least 1.
    processes : int
        Number of processes that draw in parallel; it does not affect the images.

    Returns
    -------
    LabelledImages
    """
    images = np.empty(
        (number, rules.channels, rules.size, rules.size), dtype=np.float16
    )
    shapes = np.empty((number, len(MEASURES)), dtype=np.float32)
    spans = [(k, min(k + CHUNK, number)) for k in range(0, number, CHUNK)]
    processes = processes if number > SERIAL_BELOW else 1
    drawn = _map_spans(partial(_draw_span, rules), spans, processes)
    for (start, stop), (span_images, span_shapes) in zip(spans, drawn, strict=True):
        images[start:stop], shapes[start:stop] = span_images, span_shapes
    morphologies = np.arange(number, dtype=np.int64) % len(rules.morphologies)
    measured = ~np.isnan(shapes).any(axis=1)
    if measured.any():
        mean, deviation = shapes[measured].mean(axis=0), shapes[measured].std(axis=0)
        shapes = (shapes - mean) / np.maximum(deviation, 1e-6)
    return LabelledImages(images, morphologies, shapes.astype(np.float32))


def measure_appearance(
    images: NDArray[np.floating],
    signals: NDArray[np.floating],
    noise: NDArray[np.floating],
) -> Appearance:
    """Measure the properties of the data that simulated images reproduce.

    Parameters
    ----------
    images : ndarray, shape (N, S, S)
        One channel of a sample of tensors, from 0 to 1.
    signals : ndarray, shape (N,)
        Ratio of peak to noise of each image.
    noise : ndarray, shape (N,)
        Standard deviation of the noise in each tensor.

    Returns
    -------
    Appearance
    """
    beams = [
        _noise_beam(image.astype(np.float64), float(sigma))
        for image, sigma in zip(images, noise, strict=True)
    ]
    low, high = sky.SIGNALS
    clipped = np.clip(np.nan_to_num(signals, nan=low), low, high)
    return Appearance(tuple(float(s) for s in clipped), tuple(beams))


def _noise_beam(image: NDArray[np.float64], sigma: float) -> float:
    """FWHM of the noise in pixels, from the correlation of neighbouring pixels.

    White noise convolved with a Gaussian of standard deviation s pixels has the
    autocorrelation exp(-1 / (4 s^2)) at a distance of one pixel.
    """
    if sigma <= 0:
        return 0.0
    level = float(np.median(image))
    faint = np.abs(image - level) < 3 * sigma
    pairs = faint[:, 1:] & faint[:, :-1]
    if np.count_nonzero(pairs) < image.size // 8:
        return 0.0
    left, right = image[:, :-1][pairs] - level, image[:, 1:][pairs] - level
    product = float(np.sqrt((left**2).mean() * (right**2).mean()))
    correlation = float((left * right).mean()) / product if product > 0 else 0.0
    if correlation < 0.15:
        return 0.0
    return math.sqrt(-1 / (4 * math.log(min(correlation, 0.98)))) / sky.BEAM_TO_SIGMA


def _map_spans(
    work: partial[tuple[NDArray[np.float16], NDArray[np.float32]]],
    spans: list[tuple[int, int]],
    processes: int,
) -> Iterator[tuple[NDArray[np.float16], NDArray[np.float32]]]:
    """Apply `work` to spans of image numbers, in order."""
    if processes < 2:
        yield from (work(span) for span in track(spans, len(spans), "parts simulated"))
        return
    with process_pool(processes) as pool:
        yield from track(pool.map(work, spans), len(spans), "parts simulated")


def _draw_span(
    rules: DrawingRules, span: tuple[int, int]
) -> tuple[NDArray[np.float16], NDArray[np.float32]]:
    drawn = [_draw_one(rules, k) for k in range(*span)]
    images, shapes = zip(*drawn, strict=True)
    return np.stack(images), np.stack(shapes)


def _draw_one(
    rules: DrawingRules, k: int
) -> tuple[NDArray[np.float16], NDArray[np.float32]]:
    """The k-th image and its shape."""
    rng = np.random.default_rng([rules.seed, k])
    morphology = rules.morphologies[k % len(rules.morphologies)]
    side = rules.size
    if rules.appearance is None:
        low, high = SIDE_RATIOS
        side = int(rng.integers(int(low * side), int(high * side) + 1))
    telescope = _choose_telescope(rules.appearance, rng)
    drawing = sky.draw_morphology(
        morphology, (side, side), rng, telescope, TRAINING_RADII
    )
    pixels = [drawing.pixels]
    for channel in range(1, rules.channels):
        colour = math.exp(COLOURS * rng.normal())
        # The first channels have the same noise in different orientations.
        noise = np.rot90(drawing.pixels - drawing.noiseless, channel)
        noise = noise[::-1] if channel & 4 else noise
        pixels.append((drawing.noiseless * colour + noise).astype(np.float32))
    image = Image(np.stack(pixels), np.zeros((side, side), dtype=bool))
    preprocessing = rules.preprocessing.model_copy(
        update={"size": rules.size, "crop_fraction": 1.0, "stretch_scope": "image"}
    )
    prepared = prepare(image, preprocessing)
    shape = measure_shape(drawing.source)
    return prepared.pixels.astype(np.float16), shape.astype(np.float32)


def _choose_telescope(
    appearance: Appearance | None, rng: np.random.Generator
) -> sky.Telescope:
    """A telescope similar to that of the data, or a random one."""
    if appearance is None:
        return sky.random_telescope(rng)
    beam = float(rng.choice(appearance.beams))
    signal = float(rng.choice(appearance.signals))
    white = beam == 0
    beam = float(rng.uniform(*sky.BEAMS)) if white else beam
    jitter = np.exp(JITTER * rng.normal(size=2))
    signal = float(np.clip(signal * jitter[0], *sky.SIGNALS))
    return sky.Telescope(float(np.clip(beam * jitter[1], 1.0, 12.0)), signal, white)


def measure_shape(plane: Plane) -> Plane:
    """Compute the measures `MEASURES` for an image of one object.

    Parameters
    ----------
    plane : ndarray, shape (ny, nx), float64
        Brightness above a background of 0, without noise.

    Returns
    -------
    ndarray, shape (K,), float64
        All NaN for an empty image.
        `axis_ratio`: from the second moments, 0 to 1. `concentration`: log of the ratio
        of the radii that contain 80 and 20 % of the flux. `asymmetry`: difference
        from the image rotated by 180 degrees, 0 to 1. `gini`: Gini coefficient, 0 to 1.
        `m20`: log of the second moment of the brightest 20 % over that of all, below 0.
        `peak_distance`: distance of the brightest pixel from the centroid over the 80 %
        radius. `emptiness`: share of the flux outside half that radius.
        `multipole_m`: strength of the m-fold symmetry, 0 to 1.
    """
    light = np.where(plane > MIN_BRIGHTNESS * max(float(plane.max()), 0.0), plane, 0.0)
    total = float(light.sum())
    if total <= 0:
        return np.full(len(MEASURES), np.nan)
    y, x = np.indices(light.shape, dtype=np.float64)
    x0, y0 = float((light * x).sum()) / total, float((light * y).sum()) / total
    radius, angle = np.hypot(x - x0, y - y0), np.arctan2(y - y0, x - x0)
    radius_20, radius_80 = _enclosing_radii(light, radius, (0.2, 0.8))
    values = [
        _axis_ratio(light, (x - x0, y - y0)),
        np.log(radius_80 / radius_20),
        _asymmetry(light, x0, y0),
        _gini(light[radius <= 1.5 * radius_80]),
        _m20(light, radius),
        radius.flat[int(light.argmax())] / radius_80,
        float(light[radius > radius_80 / 2].sum()) / total,
    ]
    for m in MULTIPOLES:
        values.append(abs(complex((light * np.exp(1j * m * angle)).sum())) / total)
    return np.array(values, dtype=np.float64)


def _enclosing_radii(
    light: Plane, radius: Plane, shares: tuple[float, ...]
) -> list[float]:
    """Radii that contain shares of the flux, each at least one pixel."""
    order = np.argsort(radius, axis=None)
    flux = np.cumsum(light.ravel()[order])
    indices = np.searchsorted(flux, np.array(shares) * flux[-1])
    return [max(1.0, float(radius.ravel()[order[k]])) for k in indices]


def _axis_ratio(light: Plane, offsets: tuple[Any, Any]) -> float:
    total, (dx, dy) = light.sum(), offsets
    xx, yy = (light * dx**2).sum() / total, (light * dy**2).sum() / total
    xy = (light * dx * dy).sum() / total
    half, root = (xx + yy) / 2, np.hypot((xx - yy) / 2, xy)
    return float(np.sqrt(max(half - root, 0.0) / max(half + root, 1e-12)))


def _asymmetry(light: Plane, x0: float, y0: float) -> float:
    """Half the difference from the image rotated about the pixel of the centroid."""
    ny, nx = light.shape
    row, column = round(y0), round(x0)
    half_y, half_x = min(row, ny - 1 - row), min(column, nx - 1 - column)
    inner = light[
        row - half_y : row + half_y + 1, column - half_x : column + half_x + 1
    ]
    # Pixels without a counterpart inside the image are completely different.
    outside = light.sum() - inner.sum()
    difference = 0.5 * np.abs(inner - inner[::-1, ::-1]).sum() + outside
    return float(difference / light.sum())


def _gini(values: Plane) -> float:
    ordered = np.sort(values)
    number = len(ordered)
    if number < 2 or ordered.sum() <= 0:
        return 0.0
    weights = 2 * np.arange(1, number + 1) - number - 1
    return float((weights * ordered).sum() / (ordered.mean() * number * (number - 1)))


def _m20(light: Plane, radius: Plane) -> float:
    order = np.argsort(light, axis=None)[::-1]
    flux = np.cumsum(light.ravel()[order])
    bright = order[: 1 + int(np.searchsorted(flux, M20_SHARE * flux[-1]))]
    moments = (light * radius**2).ravel()
    return float(np.log10(max(moments[bright].sum(), 1e-9) / max(moments.sum(), 1e-9)))
