"""Painters of clouds, nebulae and groups of sources."""

import numpy as np

from astromorph.sky.canvas import Canvas, Plane, gaussian, power_law_field, soft_edge


def filament(canvas: Canvas, rng: np.random.Generator) -> Plane:
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


def clumps(canvas: Canvas, rng: np.random.Generator) -> Plane:
    """Four to fourteen knots of different sizes in a field."""
    plane = np.zeros_like(canvas.x)
    for _ in range(rng.integers(4, 15)):
        x, y = rng.normal(0, 0.75, 2)
        major = rng.uniform(0.06, 0.22)
        minor = major * rng.uniform(0.5, 1)
        angle = rng.uniform(0, np.pi)
        plane += rng.uniform(0.2, 1) * gaussian(canvas, x, y, major, minor, angle)
    return plane


def none(canvas: Canvas, rng: np.random.Generator) -> Plane:
    """An empty field; noise is added later, as for every image."""
    return np.zeros_like(canvas.x)


def cluster(canvas: Canvas, rng: np.random.Generator) -> Plane:
    """Many stars, denser towards a common centre, over diffuse light."""
    r = np.hypot(canvas.x, canvas.y)
    plane = rng.uniform(0, 0.6) * np.exp(-((r / 0.5) ** 2))
    width = canvas.pixel * 0.6
    for _ in range(rng.integers(25, 80)):
        distance, angle = rng.gamma(2, rng.uniform(0.12, 0.3)), rng.uniform(0, 6.3)
        x, y = distance * np.cos(angle), distance * np.sin(angle)
        plane += 10 ** rng.uniform(-1.5, 0) * gaussian(canvas, x, y, width, width)
    return np.asarray(plane, dtype=np.float64)


def bubble(canvas: Canvas, rng: np.random.Generator) -> Plane:
    """A thin shell that is bright at its limb, often broken or filled."""
    r, phi = np.hypot(canvas.x, canvas.y), np.arctan2(canvas.y, canvas.x)
    dents = sum(
        rng.normal(0, 0.12 / m) * np.cos(m * phi + rng.uniform(0, 6.3))
        for m in (2, 3, 4, 5)
    )
    radius, thickness = rng.uniform(0.7, 1) * (1 + dents), rng.uniform(0.05, 0.2)
    inner, outer = radius * (1 - thickness), radius
    path = np.sqrt(np.clip(outer**2 - r**2, 0, None))  # through a hollow sphere
    plane = path - np.sqrt(np.clip(inner**2 - r**2, 0, None))
    plane /= max(float(plane.max()), 1e-9)
    patches = np.exp(rng.uniform(0, 1) * power_law_field(canvas, rng, 2.5))
    broken = 1 + rng.uniform(0, 0.9) * np.cos(phi - rng.uniform(0, 6.3))
    return np.asarray(plane * patches * broken, dtype=np.float64)


def bipolar(canvas: Canvas, rng: np.random.Generator) -> Plane:
    """Two lobes on opposite sides of a bright waist, like an hourglass."""
    plane = rng.uniform(0.1, 1) * gaussian(canvas, 0, 0, 0.07, 0.07)
    along, waist = np.abs(canvas.x), rng.uniform(0.05, 0.2)
    opening, length = rng.uniform(0.3, 0.9), rng.uniform(0.7, 1.2)
    width = waist + opening * np.sqrt(np.clip(along * (1 - along / length), 0, None))
    inside = (along < length) * soft_edge(np.abs(canvas.y) - width, 0.04)
    limb = np.exp(-0.5 * ((np.abs(canvas.y) - width) / 0.07) ** 2) * (along < length)
    faintness = np.exp(-rng.uniform(0.3, 1.5) * along)
    return np.asarray(
        plane + faintness * (rng.uniform(0.1, 0.8) * inside + rng.uniform(0, 1) * limb)
    )


def comet(canvas: Canvas, rng: np.random.Generator) -> Plane:
    """A round head and a straight fan-shaped tail, sometimes with a second tail."""
    r = np.hypot(canvas.x, canvas.y)
    plane = np.exp(-r / rng.uniform(0.06, 0.2))
    for _ in range(rng.integers(1, 3)):
        turn = rng.normal(0, 0.2)
        along = canvas.x * np.cos(turn) + canvas.y * np.sin(turn)
        across = canvas.y * np.cos(turn) - canvas.x * np.sin(turn)
        back = np.clip(along, 0, None)
        width = rng.uniform(0.05, 0.1) + rng.uniform(0.1, 0.5) * back
        tail = np.exp(-rng.uniform(0.7, 2.5) * back - 0.5 * (across / width) ** 2)
        plane += rng.uniform(0.2, 0.6) * (along > 0) * tail
    return np.asarray(plane, dtype=np.float64)


def cirrus(canvas: Canvas, rng: np.random.Generator) -> Plane:
    """Clouds that fill the image, with structure on all scales."""
    field = power_law_field(canvas, rng, rng.uniform(2, 4))
    return np.asarray(np.exp(rng.uniform(0.5, 1.6) * field), dtype=np.float64)


def web(canvas: Canvas, rng: np.random.Generator) -> Plane:
    """A network of thin filaments that fills the image."""
    plane = np.zeros_like(canvas.x)
    for _ in range(rng.integers(1, 4)):
        field = power_law_field(canvas, rng, rng.uniform(3, 4.5))
        ridges = np.exp(-np.abs(field) / rng.uniform(0.04, 0.15))
        plane += rng.uniform(0.4, 1) * ridges
    return plane
