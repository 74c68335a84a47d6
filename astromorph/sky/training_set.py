"""Simulated images whose shapes are known, drawn to look like the data at hand."""

import math
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import get_context

import numpy as np
from numpy.typing import NDArray

from astromorph.fits.pixels import Image
from astromorph.preprocessing.prepare import prepare
from astromorph.progress import track
from astromorph.settings.sections import PreprocessSettings
from astromorph.sky import draw as sky
from astromorph.sky.objects import SORTS
from astromorph.sky.shapes import MEASURES, measure_shape

CHUNK = 256  # images that a process draws at a time
SERIAL_BELOW = 1000  # images that one process draws before others have started
NATIVE_SIDES = (0.75, 1.9)  # of an image over the tensor's, without a likeness
JITTER = 0.3  # spread of the logarithm of beam and signal around the data's
COLOURS = 0.5  # spread of the logarithm of a channel's brightness


@dataclass(frozen=True, slots=True)
class Appearance:
    """What simulated images have in common with the data.

    Attributes
    ----------
    signals : tuple of float
        Peak over noise of some images.
    beams : tuple of float
        Full width at half maximum of the noise's correlation in some tensors,
        in pixels; 0 where the noise is white.
    """

    signals: tuple[float, ...]
    beams: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class LabelledImages:
    """Simulated images and what they show.

    Attributes
    ----------
    images : ndarray, shape (N, C, S, S), float16
        From 0 to 1.
    sorts : ndarray, shape (N,), int64
        Number of the sort in `SORTS`.
    shapes : ndarray, shape (N, K), float32
        `MEASURES`, less their mean and over their standard deviation; NaN where
        nothing is shown.
    """

    images: NDArray[np.float16]
    sorts: NDArray[np.int64]
    shapes: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.images)


@dataclass(frozen=True, slots=True)
class DrawingRules:
    """What is to be drawn.

    Attributes
    ----------
    seed : int
        Each image depends on it and on its own number alone.
    size : int
        S.
    channels : int
        C.
    rules : PreprocessSettings
        How images become tensors; what concerns sizes is passed over.
    like : Likeness or None
        The data; None for every telescope there may be.
    """

    seed: int
    size: int
    channels: int = 1
    rules: PreprocessSettings = field(default_factory=PreprocessSettings)
    like: Appearance | None = None


def draw_labelled_images(
    draft: DrawingRules, number: int, processes: int = 1
) -> LabelledImages:
    """Draw simulated images; sorts take turns.

    Parameters
    ----------
    draft : Draft
        What they are like.
    number : int
        N, at least 1.
    processes : int
        How many draw at the same time; no influence on what is drawn.

    Returns
    -------
    Lessons
    """
    images = np.empty(
        (number, draft.channels, draft.size, draft.size), dtype=np.float16
    )
    shapes = np.empty((number, len(MEASURES)), dtype=np.float32)
    spans = [(k, min(k + CHUNK, number)) for k in range(0, number, CHUNK)]
    work = partial(_draw_span, draft)
    for (start, stop), (drawn, measured) in zip(
        spans, _each(work, spans, processes if number > SERIAL_BELOW else 1),
        strict=True,
    ):  # fmt: skip
        images[start:stop], shapes[start:stop] = drawn, measured
    sorts = np.arange(number, dtype=np.int64) % len(SORTS)
    seen = ~np.isnan(shapes).any(axis=1)
    if seen.any():
        mean, spread = shapes[seen].mean(axis=0), shapes[seen].std(axis=0)
        shapes = (shapes - mean) / np.maximum(spread, 1e-6)
    return LabelledImages(images, sorts, shapes.astype(np.float32))


def measure_appearance(
    images: NDArray[np.floating],
    signals: NDArray[np.floating],
    noise: NDArray[np.floating],
) -> Appearance:
    """Measure what the data look like.

    Parameters
    ----------
    images : ndarray, shape (N, S, S)
        A channel of some tensors, from 0 to 1.
    signals : ndarray, shape (N,)
        Their peaks over their noise.
    noise : ndarray, shape (N,)
        Standard deviations of the noise in the tensors.

    Returns
    -------
    Likeness
    """
    beams = [
        _noise_beam(image.astype(np.float64), float(sigma))
        for image, sigma in zip(images, noise, strict=True)
    ]
    low, high = sky.SIGNALS
    within = np.clip(np.nan_to_num(signals, nan=low), low, high)
    return Appearance(tuple(float(s) for s in within), tuple(beams))


def _noise_beam(image: NDArray[np.float64], sigma: float) -> float:
    """Width of what is faint, from how alike neighbouring pixels are.

    Gaussian noise convolved with a Gaussian of standard deviation s pixels has
    the autocorrelation exp(-1 / (4 s^2)) at a distance of one pixel.
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
    alike = float((left * right).mean()) / product if product > 0 else 0.0
    if alike < 0.15:
        return 0.0
    return math.sqrt(-1 / (4 * math.log(min(alike, 0.98)))) / sky.BEAM_TO_SIGMA


def _each(
    work: partial[tuple[NDArray[np.float16], NDArray[np.float32]]],
    spans: list[tuple[int, int]],
    processes: int,
) -> Iterator[tuple[NDArray[np.float16], NDArray[np.float32]]]:
    if processes < 2:
        yield from (work(span) for span in track(spans, len(spans), "parts simulated"))
        return
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        yield from track(pool.map(work, spans), len(spans), "parts simulated")


def _draw_span(
    draft: DrawingRules, span: tuple[int, int]
) -> tuple[NDArray[np.float16], NDArray[np.float32]]:
    drawn = [_draw_one(draft, k) for k in range(*span)]
    return np.stack([i for i, _ in drawn]), np.stack([m for _, m in drawn])


def _draw_one(
    draft: DrawingRules, k: int
) -> tuple[NDArray[np.float16], NDArray[np.float32]]:
    rng = np.random.default_rng([draft.seed, k])
    sort = list(SORTS)[k % len(SORTS)]
    side = draft.size
    if draft.like is None:
        low, high = NATIVE_SIDES
        side = int(rng.integers(int(low * side), int(high * side) + 1))
    seen = _telescope(draft.like, rng)
    drawing = sky.draw(SORTS[sort][0], (side, side), rng, seen, sort)
    pixels = [drawing.pixels]
    for channel in range(1, draft.channels):
        colour = math.exp(COLOURS * rng.normal())
        noise = np.rot90(drawing.pixels - drawing.crowd, channel)
        noise = noise[::-1] if channel & 4 else noise
        pixels.append((drawing.crowd * colour + noise).astype(np.float32))
    image = Image(np.stack(pixels), np.zeros((side, side), dtype=bool))
    rules = draft.rules.model_copy(
        update={"size": draft.size, "crop_fraction": 1.0, "stretch_scope": "image"}
    )
    made = prepare(image, rules)
    shape = measure_shape(drawing.clean)
    return made.pixels.astype(np.float16), shape.astype(np.float32)


def _telescope(like: Appearance | None, rng: np.random.Generator) -> sky.Telescope:
    if like is None:
        return sky.random_telescope(rng)
    beam, signal = float(rng.choice(like.beams)), float(rng.choice(like.signals))
    white = beam == 0
    beam = float(rng.uniform(*sky.BEAMS)) if white else beam
    jitter = np.exp(JITTER * rng.normal(size=2))
    signal = float(np.clip(signal * jitter[0], *sky.SIGNALS))
    return sky.Telescope(float(np.clip(beam * jitter[1], 1.0, 12.0)), signal, white)
