"""A simulated sky: small images of known kinds, for samples, tests and training.

The physics is simple, the variety is not: every shape, flux, size, angle,
brightness profile, beam and noise is drawn anew. Arrays are `(ny, nx)`, lengths
are pixels, brightness is in units of the noise until the observer scales it.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Plane = NDArray[np.float64]
    Painter = Callable[["Canvas", np.random.Generator], Plane]

BEAM_TO_SIGMA = 1 / math.sqrt(8 * math.log(2))  # FWHM of a Gaussian


@dataclass(frozen=True, slots=True)
class Canvas:
    """Coordinates of an image, turned, tilted and centred on the object.

    Attributes
    ----------
    x, y : ndarray, shape (ny, nx), float64
        Coordinates in the object's own frame, in units of its radius.
    pixel : float
        Size of a pixel in units of the radius.
    """

    x: "Plane"
    y: "Plane"
    pixel: float


@dataclass(frozen=True, slots=True)
class Drawing:
    """A simulated image.

    Attributes
    ----------
    pixels : ndarray, shape (ny, nx), float32
        Brightness with noise of standard deviation 1.
    kind : str
        One of `KINDS`.
    beam : float
        Full width at half maximum of the beam, in pixels.
    """

    pixels: "NDArray[np.float32]"
    kind: str
    beam: float


def draw(kind: str, shape: tuple[int, int], rng: np.random.Generator) -> Drawing:
    """Draw one object of a kind, seen by a random telescope.

    Parameters
    ----------
    kind : str
        One of `KINDS`.
    shape : tuple of int
        ``(ny, nx)``, at least 8 each.
    rng : numpy.random.Generator
        All randomness.

    Returns
    -------
    Drawing
    """
    painter = KINDS[kind]
    beam = rng.uniform(1.5, 4.5)
    radius = min(shape) * rng.uniform(0.16, 0.36)
    offset = rng.normal(0, 0.04, 2) * min(shape)
    canvas = _canvas(shape, radius, offset, _tilt(kind, rng), rng.uniform(0, 2 * np.pi))
    brightness = smooth(painter(canvas, rng), beam)
    noise = smooth(rng.standard_normal(shape), beam)
    noise /= noise.std()
    peak = brightness.max()
    signal = 10 ** rng.uniform(0.9, 2.2)  # peak over noise, 8 to 160
    scaled = brightness * (signal / peak) if peak > 0 else brightness
    return Drawing((scaled + noise).astype(np.float32), kind, beam)


def smooth(plane: "Plane", beam: float) -> "Plane":
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


def _tilt(kind: str, rng: np.random.Generator) -> float:
    """Cosine of the inclination: flat objects are seen from any side."""
    return rng.uniform(0.35, 1.0) if kind in FLAT else 1.0


def _canvas(
    shape: tuple[int, int],
    radius: float,
    offset: "Plane",
    tilt: float,
    angle: float,
) -> Canvas:
    y, x = np.indices(shape, dtype=np.float64)
    y = (y - (shape[0] - 1) / 2 - offset[0]) / radius
    x = (x - (shape[1] - 1) / 2 - offset[1]) / radius
    turned_x = x * math.cos(angle) + y * math.sin(angle)
    turned_y = (y * math.cos(angle) - x * math.sin(angle)) / tilt
    return Canvas(turned_x, turned_y, 1 / radius)


def _blob(
    canvas: Canvas, x: float, y: float, major: float, minor: float, angle: float = 0.0
) -> "Plane":
    """An elliptical Gaussian of peak 1; widths are standard deviations."""
    dx, dy = canvas.x - x, canvas.y - y
    along = dx * math.cos(angle) + dy * math.sin(angle)
    across = dy * math.cos(angle) - dx * math.sin(angle)
    square = (along / major) ** 2 + (across / minor) ** 2
    return np.asarray(np.exp(-0.5 * square), dtype=np.float64)


def _disk(canvas: Canvas, rng: np.random.Generator) -> "Plane":
    """A smooth disk, sometimes with a core and a lopsided side."""
    r = np.hypot(canvas.x, canvas.y)
    profile = np.exp(-((r / rng.uniform(0.5, 0.9)) ** rng.uniform(1.0, 2.5)))
    lopsided = 1 + rng.uniform(0, 0.3) * canvas.x / np.maximum(r, 0.3)
    core = rng.uniform(0, 1) * np.exp(-((r / 0.15) ** 2))
    return np.asarray(profile * lopsided + core, dtype=np.float64)


def _ring(canvas: Canvas, rng: np.random.Generator) -> "Plane":
    """One to three concentric rings with azimuthal brightness, an empty inside."""
    r, phi = np.hypot(canvas.x, canvas.y), np.arctan2(canvas.y, canvas.x)
    plane = np.zeros_like(r)
    for place in rng.uniform(0.55, 1.1) + 0.45 * np.arange(rng.integers(1, 4)):
        width = rng.uniform(0.07, 0.16)
        arc = 1 + rng.uniform(0, 0.7) * np.cos(phi - rng.uniform(0, 2 * np.pi))
        plane += rng.uniform(0.5, 1) * arc * np.exp(-0.5 * ((r - place) / width) ** 2)
    return plane


def _spiral(canvas: Canvas, rng: np.random.Generator) -> "Plane":
    """Two to four logarithmic arms on a faint disk around a bulge."""
    r, phi = np.hypot(canvas.x, canvas.y), np.arctan2(canvas.y, canvas.x)
    arms, sense = rng.integers(2, 5), rng.choice([-1, 1])
    pitch = math.tan(math.radians(rng.uniform(12, 32)))
    phase = arms * (phi - sense * np.log(np.maximum(r, 0.05)) / pitch)
    contrast = rng.uniform(1.5, 4)
    ridges = np.exp(contrast * (np.cos(phase + rng.uniform(0, 2 * np.pi)) - 1))
    disk = np.exp(-r / rng.uniform(0.6, 1.0))
    bulge = rng.uniform(0.3, 1.2) * np.exp(-((r / rng.uniform(0.12, 0.25)) ** 2))
    return np.asarray(disk * (0.15 + ridges) + bulge, dtype=np.float64)


def _filament(canvas: Canvas, rng: np.random.Generator) -> "Plane":
    """A bent ridge with beads, sometimes forked, that runs out of the image."""
    bend, wave = rng.uniform(-0.5, 0.5), rng.uniform(0.1, 0.35)
    width = rng.uniform(0.08, 0.2)
    phase, pace = rng.uniform(0, 2 * np.pi), rng.uniform(1.5, 3.5)
    ridge = bend * canvas.x**2 / 2 + wave * np.sin(pace * canvas.x + phase)
    beads = 1 + rng.uniform(0, 0.8) * np.sin(rng.uniform(3, 8) * canvas.x + phase)
    plane = beads * np.exp(-0.5 * ((canvas.y - ridge) / width) ** 2)
    if rng.random() < 0.4:
        slope = rng.choice([-1, 1]) * rng.uniform(0.5, 1.2)
        fork = np.exp(-0.5 * ((canvas.y - ridge - slope * canvas.x) / width) ** 2)
        plane += rng.uniform(0.3, 0.8) * fork * (canvas.x > 0)
    return plane


def _jets(canvas: Canvas, rng: np.random.Generator) -> "Plane":
    """Two opposite jets from a core, bright at their ends or near the centre."""
    edge_brightened = rng.random() < 0.5
    plane = rng.uniform(0.1, 0.8) * _blob(canvas, 0, 0, 0.08, 0.08)
    bend = rng.uniform(-0.25, 0.25)
    for side in (-1, 1):
        length, power = rng.uniform(0.8, 1.3), rng.uniform(0.4, 1.0)
        along = np.clip(side * canvas.x / length, 0, None)
        fade = np.exp(-2.5 * along) if not edge_brightened else 0.25 + 0 * along
        width = 0.07 + 0.22 * along * (not edge_brightened)
        ridge = bend * canvas.x**2
        inside = (side * canvas.x > 0) / (1 + np.exp((along - 1) / 0.05))
        jet = fade * inside * np.exp(-0.5 * ((canvas.y - ridge) / width) ** 2)
        plane += power * jet
        if edge_brightened:
            end = side * length
            plane += power * _blob(canvas, end, bend * length**2, 0.12, 0.12)
            lobe = _blob(canvas, 0.75 * end, 0.56 * bend * length**2, 0.3, 0.2)
            plane += 0.35 * power * lobe
    return plane


def _clumps(canvas: Canvas, rng: np.random.Generator) -> "Plane":
    """Four to fourteen knots of different size strewn over a field."""
    plane = np.zeros_like(canvas.x)
    for _ in range(rng.integers(4, 15)):
        x, y = rng.normal(0, 0.75, 2)
        major = rng.uniform(0.06, 0.22)
        minor = major * rng.uniform(0.5, 1)
        angle = rng.uniform(0, np.pi)
        plane += rng.uniform(0.2, 1) * _blob(canvas, x, y, major, minor, angle)
    return plane


def _none(canvas: Canvas, rng: np.random.Generator) -> "Plane":
    """Nothing but the noise that every image gets."""
    return np.zeros_like(canvas.x)


KINDS: "dict[str, Painter]" = {
    "disk": _disk,
    "ring": _ring,
    "spiral": _spiral,
    "filament": _filament,
    "jets": _jets,
    "clumps": _clumps,
    "none": _none,
}
FLAT = frozenset({"disk", "ring", "spiral"})
