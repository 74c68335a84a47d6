"""What is in a simulated sky: a painter for each sort of object.

Each takes the coordinates of an image in the object's own frame, in units of its
radius, and draws every size, angle and brightness anew. What comes out has no
unit yet; no beam and no noise.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Plane = NDArray[np.float64]
Painter = Callable[["Canvas", np.random.Generator], Plane]


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

    x: Plane
    y: Plane
    pixel: float


def gaussian(
    canvas: Canvas, x: float, y: float, major: float, minor: float, angle: float = 0.0
) -> Plane:
    """An elliptical Gaussian of peak 1; widths are standard deviations."""
    dx, dy = canvas.x - x, canvas.y - y
    along = dx * math.cos(angle) + dy * math.sin(angle)
    across = dy * math.cos(angle) - dx * math.sin(angle)
    square = (along / major) ** 2 + (across / minor) ** 2
    return np.asarray(np.exp(-0.5 * square), dtype=np.float64)


def _disk(canvas: Canvas, rng: np.random.Generator) -> Plane:
    """A smooth disk, sometimes with a core and a lopsided side."""
    r = np.hypot(canvas.x, canvas.y)
    profile = np.exp(-((r / rng.uniform(0.5, 0.9)) ** rng.uniform(1.0, 2.5)))
    lopsided = 1 + rng.uniform(0, 0.3) * canvas.x / np.maximum(r, 0.3)
    core = rng.uniform(0, 1) * np.exp(-((r / 0.15) ** 2))
    return np.asarray(profile * lopsided + core, dtype=np.float64)


def _ring(canvas: Canvas, rng: np.random.Generator) -> Plane:
    """One to three concentric rings with azimuthal brightness, an empty inside."""
    r, phi = np.hypot(canvas.x, canvas.y), np.arctan2(canvas.y, canvas.x)
    plane = np.zeros_like(r)
    for place in rng.uniform(0.55, 1.1) + 0.45 * np.arange(rng.integers(1, 4)):
        width = rng.uniform(0.07, 0.16)
        arc = 1 + rng.uniform(0, 0.7) * np.cos(phi - rng.uniform(0, 2 * np.pi))
        plane += rng.uniform(0.5, 1) * arc * np.exp(-0.5 * ((r - place) / width) ** 2)
    return plane


def _spiral(canvas: Canvas, rng: np.random.Generator) -> Plane:
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


def _filament(canvas: Canvas, rng: np.random.Generator) -> Plane:
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


def _edge_jets(canvas: Canvas, rng: np.random.Generator) -> Plane:
    """Two opposite jets that end in bright spots and lobes.

    Type II of Fanaroff & Riley (1974).
    """
    plane = (
        rng.choice([0, 1]) * rng.uniform(0.05, 0.6) * gaussian(canvas, 0, 0, 0.08, 0.08)
    )
    bend, twist = rng.normal(0, 0.1), rng.normal(0, 0.15)
    spot, lobe = rng.uniform(0.06, 0.18), rng.uniform(0.15, 0.35)
    faded, filled = rng.uniform(0, 1.2), rng.uniform(0.1, 0.8)
    for side in (-1, 1):
        length, power = rng.uniform(0.75, 1.15), 10 ** rng.uniform(-0.6, 0)
        end = side * length
        height = bend * length**2 + side * twist * length
        plane += (
            power * rng.uniform(0.5, 1.5) * gaussian(canvas, end, height, spot, spot)
        )
        back = rng.uniform(0.55, 0.9)
        plane += (
            power
            * faded
            * gaussian(
                canvas, back * end, back * height, lobe, lobe * rng.uniform(0.4, 0.9)
            )
        )
        along = np.clip(side * canvas.x / length, 0, None)
        inside = (side * canvas.x > 0) / (1 + np.exp((along - 1) / 0.05))
        ridge = bend * canvas.x**2 + twist * canvas.x
        width = rng.uniform(0.05, 0.15)
        bridge = inside * np.exp(-0.5 * ((canvas.y - ridge) / width) ** 2)
        plane += 0.3 * filled * power * bridge
    return np.asarray(plane, dtype=np.float64)


def _core_jets(canvas: Canvas, rng: np.random.Generator) -> Plane:
    """Two jets that are brightest near the core and fade, widen and bend.

    Type I of Fanaroff & Riley (1974), up to tails on one side.
    """
    plane = rng.uniform(0.05, 0.8) * gaussian(canvas, 0, 0, 0.09, 0.09)
    bend = rng.choice([rng.normal(0, 0.15), rng.uniform(-1.1, 1.1)])
    wave, pace = rng.uniform(0, 0.12), rng.uniform(2, 5)
    slim, wide = rng.uniform(0.06, 0.14), rng.uniform(0.1, 0.4)
    decay, gap = rng.uniform(0.8, 3.5), rng.uniform(0, 0.25)
    for side in (-1, 1):
        length, power = rng.uniform(0.6, 1.3), 10 ** rng.uniform(-0.5, 0)
        along = np.clip(side * canvas.x / length, 0, None)
        ridge = bend * canvas.x**2 + wave * np.sin(pace * canvas.x)
        fade = np.exp(-decay * np.abs(along - gap))
        width = slim + wide * along
        inside = (side * canvas.x > 0) / (1 + np.exp((along - 1) / 0.1))
        plane += (
            power * fade * inside * np.exp(-0.5 * ((canvas.y - ridge) / width) ** 2)
        )
    return np.asarray(plane, dtype=np.float64)


def _clumps(canvas: Canvas, rng: np.random.Generator) -> Plane:
    """Four to fourteen knots of different size strewn over a field."""
    plane = np.zeros_like(canvas.x)
    for _ in range(rng.integers(4, 15)):
        x, y = rng.normal(0, 0.75, 2)
        major = rng.uniform(0.06, 0.22)
        minor = major * rng.uniform(0.5, 1)
        angle = rng.uniform(0, np.pi)
        plane += rng.uniform(0.2, 1) * gaussian(canvas, x, y, major, minor, angle)
    return plane


def _none(canvas: Canvas, rng: np.random.Generator) -> Plane:
    """Nothing but the noise that every image gets."""
    return np.zeros_like(canvas.x)


SORTS: "dict[str, tuple[str, Painter]]" = {
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
    kind: tuple(sort for sort, (of, _) in SORTS.items() if of == kind)
    for kind in dict.fromkeys(kind for kind, _ in SORTS.values())
}
FLAT = frozenset({"disk", "ring", "spiral"})
