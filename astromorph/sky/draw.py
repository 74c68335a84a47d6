"""The simulated sky: small images of known kinds, and functions that draw them."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from astromorph.sky.canvas import Canvas, Plane, gaussian
from astromorph.sky.morphologies import KINDS, MORPHOLOGIES

BEAM_TO_SIGMA = 1 / math.sqrt(8 * math.log(2))  # from FWHM to standard deviation
BEAMS = (1.5, 4.5)  # pixels
SIGNALS = (8.0, 1500.0)  # ratio of peak to noise
RADII = (0.06, 0.38)  # of an object, relative to the shorter side
# Fractions of images with neighbours, with white noise and with stripes.
WITH_NEIGHBOURS, WITH_WHITE_NOISE, WITH_STRIPES = 0.3, 0.3, 0.25
MAX_NEIGHBOURS = 4


@dataclass(frozen=True, slots=True)
class Telescope:
    """The properties of an observation.

    Attributes
    ----------
    beam : float
        Full width at half maximum, in pixels.
    signal : float
        Ratio of peak to noise.
    white : bool
        Whether the noise of neighbouring pixels is independent, like that of a CCD;
        otherwise it is correlated over the beam, like that of an interferometer.
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
        Label of the object.
    morphology : str
        One of `MORPHOLOGIES`.
    beam : float
        Full width at half maximum of the beam, in pixels.
    source : ndarray, shape (ny, nx), float64
        The object alone, convolved with the beam, without noise and neighbours.
    noiseless : ndarray, shape (ny, nx), float64
        The object with its neighbours, without noise.
    """

    pixels: NDArray[np.float32]
    kind: str
    morphology: str
    beam: float
    source: Plane
    noiseless: Plane


def draw(
    kind: str,
    shape: tuple[int, int],
    rng: np.random.Generator,
    telescope: Telescope | None = None,
) -> Drawing:
    """Draw one object of a kind, observed by a telescope.

    Parameters
    ----------
    kind : str
        One of `KINDS`.
    shape : tuple of int
        ``(ny, nx)``, at least 8 each.
    rng : numpy.random.Generator
        Source of all random numbers.
    telescope : Telescope, optional
        The telescope; by default a random one.

    Returns
    -------
    Drawing
    """
    return draw_morphology(str(rng.choice(KINDS[kind])), shape, rng, telescope)


def draw_morphology(
    name: str,
    shape: tuple[int, int],
    rng: np.random.Generator,
    telescope: Telescope | None = None,
    radii: tuple[float, float] = RADII,
) -> Drawing:
    """Draw one object of a morphology; see `draw`.

    Parameters
    ----------
    name : str
        One of `MORPHOLOGIES`.
    shape, rng, telescope
        See `draw`.
    radii : tuple of float
        Least and largest radius of the object, relative to the shorter side.
    """
    morphology = MORPHOLOGIES[name]
    telescope = telescope or random_telescope(rng)
    beam, signal = telescope.beam, telescope.signal
    canvas = random_canvas(shape, rng, morphology.flat, radii)
    painted = morphology.paint(canvas, rng)
    source = painted if morphology.sharp else convolve_beam(painted, beam)
    noiseless, peak = source, float(source.max())
    if peak > 0:
        source = source * (signal / peak)
        noiseless = source + convolve_beam(_neighbours(canvas, rng), beam) * signal
    noise = rng.standard_normal(shape)
    noise = noise if telescope.white else convolve_beam(noise, beam)
    noise += _stripes(canvas, rng) * noise.std()
    noise /= noise.std()
    pixels = (noiseless + noise).astype(np.float32)
    return Drawing(pixels, morphology.kind, name, beam, source, noiseless)


def random_telescope(rng: np.random.Generator) -> Telescope:
    """A telescope with random properties."""
    low, high = np.log10(SIGNALS)
    return Telescope(
        rng.uniform(*BEAMS),
        10 ** rng.uniform(low, high),
        bool(rng.random() < WITH_WHITE_NOISE),
    )


def random_canvas(
    shape: tuple[int, int],
    rng: np.random.Generator,
    inclined: bool,
    radii: tuple[float, float] = RADII,
) -> Canvas:
    """Coordinates for an object with random position, size, angle and inclination."""
    radius = min(shape) * math.exp(rng.uniform(*np.log(radii)))
    offset = rng.normal(0, 0.04, 2) * min(shape)
    cos_inclination = rng.uniform(0.35, 1.0) if inclined else 1.0
    angle = rng.uniform(0, 2 * np.pi)
    y, x = np.indices(shape, dtype=np.float64)
    y = (y - (shape[0] - 1) / 2 - offset[0]) / radius
    x = (x - (shape[1] - 1) / 2 - offset[1]) / radius
    along = x * math.cos(angle) + y * math.sin(angle)
    across = (y * math.cos(angle) - x * math.sin(angle)) / cos_inclination
    return Canvas(along, across, 1 / radius)


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
    """Waves across the image, an artefact of imperfect calibration; mostly none."""
    plane = np.zeros_like(canvas.x)
    if rng.random() >= WITH_STRIPES:
        return plane
    for _ in range(rng.integers(1, 5)):
        angle, phase = rng.uniform(0, np.pi), rng.uniform(0, 2 * np.pi)
        length = canvas.pixel * rng.uniform(4, 20)
        along = canvas.x * math.cos(angle) + canvas.y * math.sin(angle)
        wave = np.sin(2 * np.pi * along / length + phase)
        plane += rng.uniform(0.2, 1.2) * wave
    return plane


def _neighbours(canvas: Canvas, rng: np.random.Generator) -> Plane:
    """Compact sources at random positions in the field; mostly none."""
    plane = np.zeros_like(canvas.x)
    if rng.random() >= WITH_NEIGHBOURS:
        return plane
    for _ in range(rng.integers(1, MAX_NEIGHBOURS + 1)):
        row, column = (int(rng.integers(n)) for n in plane.shape)
        x, y = float(canvas.x[row, column]), float(canvas.y[row, column])
        width = canvas.pixel * rng.uniform(0.5, 2)
        plane += 10 ** rng.uniform(-1.5, 0) * gaussian(canvas, x, y, width, width)
    return plane
