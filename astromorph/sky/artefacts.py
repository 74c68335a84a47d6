"""Painters of what instruments and satellites add to images."""

import math

import numpy as np

from astromorph.sky.canvas import Canvas, Plane, gaussian, soft_edge


def trail(canvas: Canvas, rng: np.random.Generator) -> Plane:
    """The straight trail of a satellite or meteor, sometimes dashed."""
    plane = np.zeros_like(canvas.x)
    for _ in range(rng.integers(1, 3)):
        width = canvas.pixel * rng.uniform(0.4, 2)
        turn = rng.normal(0, 0.3)
        across = canvas.y - math.tan(turn) * canvas.x - rng.normal(0, 0.3)
        line = np.exp(-0.5 * (across / width) ** 2)
        dashes = 1 + rng.choice([0, 0.9]) * np.sin(rng.uniform(5, 20) * canvas.x)
        low, high = np.sort(rng.uniform(-6, 6, 2))
        ends = (canvas.x > low) & (canvas.x < high) if high - low > 2 else 1
        plane += rng.uniform(0.4, 1) * line * dashes * ends
    return np.asarray(plane, dtype=np.float64)


def spikes(canvas: Canvas, rng: np.random.Generator) -> Plane:
    """A bright star with the diffraction spikes of a telescope, often saturated."""
    r = np.hypot(canvas.x, canvas.y)
    core = (1 + (r / rng.uniform(0.08, 0.2)) ** 2) ** -rng.uniform(1.5, 2.5)
    width, length = canvas.pixel * rng.uniform(0.5, 1), rng.uniform(0.2, 0.6)
    plane, number = core, rng.choice([2, 3])
    for k in range(number):
        turn = np.pi * k / number
        along = canvas.x * np.cos(turn) + canvas.y * np.sin(turn)
        across = canvas.y * np.cos(turn) - canvas.x * np.sin(turn)
        line = np.exp(-np.abs(along) / length - 0.5 * (across / width) ** 2)
        plane = plane + rng.uniform(0.1, 0.6) * line
    level = rng.uniform(0.1, 1) * float(plane.max())
    return np.asarray(np.minimum(plane, level), dtype=np.float64)


def cosmic_rays(canvas: Canvas, rng: np.random.Generator) -> Plane:
    """Sharp dots and short tracks of particles in a detector."""
    plane = np.zeros_like(canvas.x)
    width = canvas.pixel * 0.35
    for _ in range(rng.integers(1, 7)):
        x, y = rng.normal(0, 0.7, 2)
        turn, length = rng.uniform(0, np.pi), canvas.pixel * rng.uniform(0.3, 8)
        dx, dy = canvas.x - x, canvas.y - y
        along = np.abs(dx * np.cos(turn) + dy * np.sin(turn))
        across = dy * np.cos(turn) - dx * np.sin(turn)
        excess = np.clip(along - length, 0, None)
        squared = (excess / width) ** 2 + (across / width) ** 2
        plane += rng.uniform(0.3, 1) * np.exp(-0.5 * squared)
    return np.asarray(plane, dtype=np.float64)


def residual(canvas: Canvas, rng: np.random.Generator) -> Plane:
    """The difference of two images of a star that do not match, with negative parts."""
    width = max(rng.uniform(0.15, 0.4), canvas.pixel)
    shift, size = rng.uniform(0.2, 1) * width, rng.uniform(0.8, 1.3)
    other = size * width
    plane = gaussian(canvas, 0, 0, width, width)
    flux = rng.uniform(0.8, 1.2) / size**2
    return plane - flux * gaussian(canvas, shift, 0, other, other)


def sidelobes(canvas: Canvas, rng: np.random.Generator) -> Plane:
    """A source in rings or spokes, which an imperfect deconvolution leaves."""
    r, phi = np.hypot(canvas.x, canvas.y), np.arctan2(canvas.y, canvas.x)
    period = rng.uniform(0.25, 0.7)
    rings = np.cos(2 * np.pi * r / period) * np.exp(-r / rng.uniform(0.5, 1.5))
    spokes = np.cos(rng.integers(3, 7) * phi) * np.exp(-r / rng.uniform(0.5, 1.5))
    mixture = rng.uniform(0, 1)
    waves = mixture * rings + (1 - mixture) * spokes
    width = rng.uniform(0.08, 0.2)
    return np.asarray(
        gaussian(canvas, 0, 0, width, width) + rng.uniform(0.1, 0.4) * waves
    )


def edge(canvas: Canvas, rng: np.random.Generator) -> Plane:
    """A step or a slope of the background, as at the edge of a mosaic."""
    steepness = 10 ** rng.uniform(-0.5, 1.5)
    slope = soft_edge(-canvas.x, 1 / steepness)
    return np.asarray(slope + rng.choice([0, 1]) * gaussian(canvas, 0, 0, 0.1, 0.1))
