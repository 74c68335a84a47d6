"""A simulated sky: small images of known kinds, for samples, tests and training.

The physics is simple, the variety is not: every shape, flux, size, angle,
brightness profile, beam, noise and neighbour is drawn anew. Arrays are
`(ny, nx)`, lengths are pixels, brightness is in units of the noise.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from astromorph.sky.objects import FLAT, KINDS, SORTS, Canvas, gaussian

Plane = NDArray[np.float64]

BEAM_TO_SIGMA = 1 / math.sqrt(8 * math.log(2))  # FWHM of a Gaussian
BEAMS = (1.5, 4.5)  # pixels
SIGNALS = (8.0, 1500.0)  # peak over noise
RADII = (0.06, 0.38)  # of an object over the shorter side
NEIGHBOURED, WHITE, STRIPED = 0.3, 0.3, 0.25  # shares of images
MAX_NEIGHBOURS = 4


@dataclass(frozen=True, slots=True)
class Telescope:
    """How an object is seen.

    Attributes
    ----------
    beam : float
        Full width at half maximum, in pixels.
    signal : float
        Peak over noise.
    white : bool
        The noise of neighbouring pixels is independent, as that of a CCD; else
        it is as wide as the beam, as that of an interferometer.
    """

    beam: float
    signal: float
    white: bool = False


@dataclass(frozen=True, slots=True)
class Drawing:
    """A simulated image.

    Attributes
    ----------
    pixels : ndarray, shape (ny, nx), float32
        Brightness with noise of standard deviation 1.
    kind : str
        One of `KINDS`.
    sort : str
        One of `SORTS`, finer than `kind`.
    beam : float
        Full width at half maximum of the beam, in pixels.
    clean : ndarray, shape (ny, nx), float64
        The object alone, seen with the beam: no noise, no neighbours.
    crowd : ndarray, shape (ny, nx), float64
        The object with its neighbours, without noise.
    """

    pixels: NDArray[np.float32]
    kind: str
    sort: str
    beam: float
    clean: Plane
    crowd: Plane


def draw(
    kind: str,
    shape: tuple[int, int],
    rng: np.random.Generator,
    telescope: Telescope | None = None,
    sort: str | None = None,
) -> Drawing:
    """Draw one object of a kind, seen by a telescope.

    Parameters
    ----------
    kind : str
        One of `KINDS`.
    shape : tuple of int
        ``(ny, nx)``, at least 8 each.
    rng : numpy.random.Generator
        All randomness.
    telescope : Telescope, optional
        By default a random one.
    sort : str, optional
        One of the kind's; by default a random one.

    Returns
    -------
    Drawing
    """
    sort = sort or str(rng.choice(KINDS[kind]))
    seen = telescope or random_telescope(rng)
    canvas = random_canvas(shape, rng, kind in FLAT)
    clean = convolve_beam(SORTS[sort][1](canvas, rng), seen.beam)
    crowd, peak = clean, float(clean.max())
    if peak > 0:
        clean = clean * (seen.signal / peak)
        crowd = clean + convolve_beam(_neighbours(canvas, rng), seen.beam) * seen.signal
    noise = rng.standard_normal(shape)
    noise = noise if seen.white else convolve_beam(noise, seen.beam)
    noise += _stripes(canvas, rng) * noise.std()
    noise /= noise.std()
    pixels = (crowd + noise).astype(np.float32)
    return Drawing(pixels, kind, sort, seen.beam, clean, crowd)


def random_telescope(rng: np.random.Generator) -> Telescope:
    """A telescope with random properties."""
    low, high = np.log10(SIGNALS)
    return Telescope(
        rng.uniform(*BEAMS), 10 ** rng.uniform(low, high), bool(rng.random() < WHITE)
    )


def random_canvas(
    shape: tuple[int, int], rng: np.random.Generator, flat: bool
) -> Canvas:
    """A random place, size and angle; flat objects are tilted as well."""
    radius = min(shape) * math.exp(rng.uniform(*np.log(RADII)))
    offset = rng.normal(0, 0.04, 2) * min(shape)
    tilt = rng.uniform(0.35, 1.0) if flat else 1.0
    angle = rng.uniform(0, 2 * np.pi)
    y, x = np.indices(shape, dtype=np.float64)
    y = (y - (shape[0] - 1) / 2 - offset[0]) / radius
    x = (x - (shape[1] - 1) / 2 - offset[1]) / radius
    turned_x = x * math.cos(angle) + y * math.sin(angle)
    turned_y = (y * math.cos(angle) - x * math.sin(angle)) / tilt
    return Canvas(turned_x, turned_y, 1 / radius)


def convolve_beam(plane: Plane, beam: float) -> Plane:
    """Convolve with a Gaussian beam of `beam` pixels FWHM, by Fourier transform."""
    ny, nx = plane.shape
    sigma = beam * BEAM_TO_SIGMA
    padding = math.ceil(4 * sigma)
    padded = np.pad(plane, padding)
    fy = np.fft.fftfreq(ny + 2 * padding)[:, None]
    fx = np.fft.rfftfreq(nx + 2 * padding)[None, :]
    transfer = np.exp(-2 * (np.pi * sigma) ** 2 * (fx**2 + fy**2))
    smoothed = np.fft.irfft2(np.fft.rfft2(padded) * transfer, padded.shape)
    return smoothed[padding : padding + ny, padding : padding + nx]


def _stripes(canvas: Canvas, rng: np.random.Generator) -> Plane:
    """Waves across the image, as badly calibrated interferometers and CCDs leave."""
    plane = np.zeros_like(canvas.x)
    if rng.random() >= STRIPED:
        return plane
    for _ in range(rng.integers(1, 5)):
        angle, phase = rng.uniform(0, np.pi), rng.uniform(0, 2 * np.pi)
        length = canvas.pixel * rng.uniform(4, 20)
        along = canvas.x * math.cos(angle) + canvas.y * math.sin(angle)
        wave = np.sin(2 * np.pi * along / length + phase)
        plane += rng.uniform(0.2, 1.2) * wave
    return plane


def _neighbours(canvas: Canvas, rng: np.random.Generator) -> Plane:
    """Other, compact sources somewhere in the field; mostly none."""
    plane = np.zeros_like(canvas.x)
    if rng.random() >= NEIGHBOURED:
        return plane
    for _ in range(rng.integers(1, MAX_NEIGHBOURS + 1)):
        row, column = (int(rng.integers(n)) for n in plane.shape)
        x, y = float(canvas.x[row, column]), float(canvas.y[row, column])
        width = canvas.pixel * rng.uniform(0.5, 2)
        plane += 10 ** rng.uniform(-1.5, 0) * gaussian(canvas, x, y, width, width)
    return plane
