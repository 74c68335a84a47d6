"""The simulated sky: small images of known kinds, and functions that draw them."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Plane = NDArray[np.float64]
BEAM_TO_SIGMA = 1 / math.sqrt(8 * math.log(2))  # from FWHM to standard deviation
BEAMS = (1.5, 4.5)  # pixels
SIGNALS = (8.0, 1500.0)  # ratio of peak to noise
RADII = (0.06, 0.38)  # of an object, relative to the shorter side
# Fractions of images with neighbours, with white noise and with stripes.
WITH_NEIGHBOURS, WITH_WHITE_NOISE, WITH_STRIPES = 0.3, 0.3, 0.25
MAX_NEIGHBOURS = 4
Painter = Callable[["Canvas", np.random.Generator], Plane]


@dataclass(frozen=True, slots=True)
class Canvas:
    """Coordinates of an image, rotated, inclined and centred on the object.

    Attributes
    ----------
    x, y : ndarray, shape (ny, nx), float64
        Coordinates in the frame of the object, in units of its radius.
    pixel : float
        Size of a pixel in units of the radius.
    """

    x: Plane
    y: Plane
    pixel: float


def gaussian(
    canvas: Canvas, x: float, y: float, major: float, minor: float, angle: float = 0.0
) -> Plane:
    """An elliptical Gaussian with a peak of 1; widths are standard deviations."""
    dx, dy = canvas.x - x, canvas.y - y
    along = dx * math.cos(angle) + dy * math.sin(angle)
    across = dy * math.cos(angle) - dx * math.sin(angle)
    square = (along / major) ** 2 + (across / minor) ** 2
    return np.asarray(np.exp(-0.5 * square), dtype=np.float64)


def _disk(canvas: Canvas, rng: np.random.Generator) -> Plane:
    """A smooth, slightly lopsided disk with a core."""
    r = np.hypot(canvas.x, canvas.y)
    profile = np.exp(-((r / rng.uniform(0.5, 0.9)) ** rng.uniform(1.0, 2.5)))
    lopsided = 1 + rng.uniform(0, 0.3) * canvas.x / np.maximum(r, 0.3)
    core = rng.uniform(0, 1) * np.exp(-((r / 0.15) ** 2))
    return np.asarray(profile * lopsided + core, dtype=np.float64)


def _ring(canvas: Canvas, rng: np.random.Generator) -> Plane:
    """One to three concentric rings, brighter on one side, empty inside."""
    r, phi = np.hypot(canvas.x, canvas.y), np.arctan2(canvas.y, canvas.x)
    plane = np.zeros_like(r)
    for radius in rng.uniform(0.55, 1.1) + 0.45 * np.arange(rng.integers(1, 4)):
        width = rng.uniform(0.07, 0.16)
        arc = 1 + rng.uniform(0, 0.7) * np.cos(phi - rng.uniform(0, 2 * np.pi))
        plane += rng.uniform(0.5, 1) * arc * np.exp(-0.5 * ((r - radius) / width) ** 2)
    return plane


def _spiral(canvas: Canvas, rng: np.random.Generator) -> Plane:
    """Two to four logarithmic spiral arms on a faint disk with a bulge."""
    r, phi = np.hypot(canvas.x, canvas.y), np.arctan2(canvas.y, canvas.x)
    arms, direction = rng.integers(2, 5), rng.choice([-1, 1])
    pitch = math.tan(math.radians(rng.uniform(12, 32)))
    phase = arms * (phi - direction * np.log(np.maximum(r, 0.05)) / pitch)
    contrast = rng.uniform(1.5, 4)
    ridges = np.exp(contrast * (np.cos(phase + rng.uniform(0, 2 * np.pi)) - 1))
    disk = np.exp(-r / rng.uniform(0.6, 1.0))
    bulge = rng.uniform(0.3, 1.2) * np.exp(-((r / rng.uniform(0.12, 0.25)) ** 2))
    return np.asarray(disk * (0.15 + ridges) + bulge, dtype=np.float64)


def _filament(canvas: Canvas, rng: np.random.Generator) -> Plane:
    """A curved ridge with beads, sometimes forked, that crosses the image."""
    curvature, wave = rng.uniform(-0.5, 0.5), rng.uniform(0.1, 0.35)
    width = rng.uniform(0.08, 0.2)
    phase, frequency = rng.uniform(0, 2 * np.pi), rng.uniform(1.5, 3.5)
    ridge = curvature * canvas.x**2 / 2 + wave * np.sin(frequency * canvas.x + phase)
    beads = 1 + rng.uniform(0, 0.8) * np.sin(rng.uniform(3, 8) * canvas.x + phase)
    plane = beads * np.exp(-0.5 * ((canvas.y - ridge) / width) ** 2)
    if rng.random() < 0.4:
        slope = rng.choice([-1, 1]) * rng.uniform(0.5, 1.2)
        fork = np.exp(-0.5 * ((canvas.y - ridge - slope * canvas.x) / width) ** 2)
        plane += rng.uniform(0.3, 0.8) * fork * (canvas.x > 0)
    return plane


def _edge_jets(canvas: Canvas, rng: np.random.Generator) -> Plane:
    """Two opposite jets that end in hot spots and lobes.

    Class II of Fanaroff & Riley (1974).
    """
    plane = (
        rng.choice([0, 1]) * rng.uniform(0.05, 0.6) * gaussian(canvas, 0, 0, 0.08, 0.08)
    )
    curvature, twist = rng.normal(0, 0.1), rng.normal(0, 0.15)
    spot, lobe = rng.uniform(0.06, 0.18), rng.uniform(0.15, 0.35)
    lobe_flux, bridge_flux = rng.uniform(0, 1.2), rng.uniform(0.1, 0.8)
    for side in (-1, 1):
        length, power = rng.uniform(0.75, 1.15), 10 ** rng.uniform(-0.6, 0)
        end = side * length
        height = curvature * length**2 + side * twist * length
        plane += (
            power * rng.uniform(0.5, 1.5) * gaussian(canvas, end, height, spot, spot)
        )
        back = rng.uniform(0.55, 0.9)
        plane += (
            power
            * lobe_flux
            * gaussian(
                canvas, back * end, back * height, lobe, lobe * rng.uniform(0.4, 0.9)
            )
        )
        along = np.clip(side * canvas.x / length, 0, None)
        inside = (side * canvas.x > 0) / (1 + np.exp((along - 1) / 0.05))
        ridge = curvature * canvas.x**2 + twist * canvas.x
        width = rng.uniform(0.05, 0.15)
        bridge = inside * np.exp(-0.5 * ((canvas.y - ridge) / width) ** 2)
        plane += 0.3 * bridge_flux * power * bridge
    return np.asarray(plane, dtype=np.float64)


def _core_jets(canvas: Canvas, rng: np.random.Generator) -> Plane:
    """Two jets that are brightest near the core, and fade, widen and bend.

    Class I of Fanaroff & Riley (1974), including tails that are bent to one side.
    """
    plane = rng.uniform(0.05, 0.8) * gaussian(canvas, 0, 0, 0.09, 0.09)
    curvature = rng.choice([rng.normal(0, 0.15), rng.uniform(-1.1, 1.1)])
    wave, frequency = rng.uniform(0, 0.12), rng.uniform(2, 5)
    core_width, widening = rng.uniform(0.06, 0.14), rng.uniform(0.1, 0.4)
    decay, gap = rng.uniform(0.8, 3.5), rng.uniform(0, 0.25)
    for side in (-1, 1):
        length, power = rng.uniform(0.6, 1.3), 10 ** rng.uniform(-0.5, 0)
        along = np.clip(side * canvas.x / length, 0, None)
        ridge = curvature * canvas.x**2 + wave * np.sin(frequency * canvas.x)
        fade = np.exp(-decay * np.abs(along - gap))
        width = core_width + widening * along
        inside = (side * canvas.x > 0) / (1 + np.exp((along - 1) / 0.1))
        plane += (
            power * fade * inside * np.exp(-0.5 * ((canvas.y - ridge) / width) ** 2)
        )
    return np.asarray(plane, dtype=np.float64)


def _clumps(canvas: Canvas, rng: np.random.Generator) -> Plane:
    """Four to fourteen knots of different sizes in a field."""
    plane = np.zeros_like(canvas.x)
    for _ in range(rng.integers(4, 15)):
        x, y = rng.normal(0, 0.75, 2)
        major = rng.uniform(0.06, 0.22)
        minor = major * rng.uniform(0.5, 1)
        angle = rng.uniform(0, np.pi)
        plane += rng.uniform(0.2, 1) * gaussian(canvas, x, y, major, minor, angle)
    return plane


def _none(canvas: Canvas, rng: np.random.Generator) -> Plane:
    """An empty field; noise is added later, as for every image."""
    return np.zeros_like(canvas.x)


# Each morphology belongs to a kind, which is the label of a simulated image.
MORPHOLOGIES: dict[str, tuple[str, Painter]] = {
    "disk": ("disk", _disk),
    "ring": ("ring", _ring),
    "spiral": ("spiral", _spiral),
    "filament": ("filament", _filament),
    "edge-brightened jets": ("jets", _edge_jets),
    "core-brightened jets": ("jets", _core_jets),
    "clumps": ("clumps", _clumps),
    "none": ("none", _none),
}


KINDS: dict[str, tuple[str, ...]] = {
    kind: tuple(name for name, (k, _) in MORPHOLOGIES.items() if k == kind)
    for kind in dict.fromkeys(kind for kind, _ in MORPHOLOGIES.values())
}


FLAT_KINDS = frozenset({"disk", "ring", "spiral"})


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
        One of `KINDS`.
    morphology : str
        One of `MORPHOLOGIES`, a subdivision of the kind.
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
    morphology: str | None = None,
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
    morphology : str, optional
        One of the morphologies of the kind; by default a random one.

    Returns
    -------
    Drawing
    """
    morphology = morphology or str(rng.choice(KINDS[kind]))
    telescope = telescope or random_telescope(rng)
    beam, signal = telescope.beam, telescope.signal
    canvas = random_canvas(shape, rng, inclined=kind in FLAT_KINDS)
    _, paint = MORPHOLOGIES[morphology]
    source = convolve_beam(paint(canvas, rng), beam)
    noiseless, peak = source, float(source.max())
    if peak > 0:
        source = source * (signal / peak)
        noiseless = source + convolve_beam(_neighbours(canvas, rng), beam) * signal
    noise = rng.standard_normal(shape)
    noise = noise if telescope.white else convolve_beam(noise, beam)
    noise += _stripes(canvas, rng) * noise.std()
    noise /= noise.std()
    pixels = (noiseless + noise).astype(np.float32)
    return Drawing(pixels, kind, morphology, beam, source, noiseless)


def random_telescope(rng: np.random.Generator) -> Telescope:
    """A telescope with random properties."""
    low, high = np.log10(SIGNALS)
    return Telescope(
        rng.uniform(*BEAMS),
        10 ** rng.uniform(low, high),
        bool(rng.random() < WITH_WHITE_NOISE),
    )


def random_canvas(
    shape: tuple[int, int], rng: np.random.Generator, inclined: bool
) -> Canvas:
    """Coordinates for an object with random position, size, angle and inclination."""
    radius = min(shape) * math.exp(rng.uniform(*np.log(RADII)))
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
