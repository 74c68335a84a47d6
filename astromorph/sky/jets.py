"""Painters of radio sources: jets, lobes, tails."""

import math

import numpy as np

from astromorph.sky.canvas import Canvas, Plane, gaussian, power_law_field, soft_edge


def edge_jets(canvas: Canvas, rng: np.random.Generator) -> Plane:
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
        inside = (side * canvas.x > 0) * soft_edge(along - 1, 0.05)
        ridge = curvature * canvas.x**2 + twist * canvas.x
        width = rng.uniform(0.05, 0.15)
        bridge = inside * np.exp(-0.5 * ((canvas.y - ridge) / width) ** 2)
        plane += 0.3 * bridge_flux * power * bridge
    return np.asarray(plane, dtype=np.float64)


def core_jets(canvas: Canvas, rng: np.random.Generator) -> Plane:
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
        inside = (side * canvas.x > 0) * soft_edge(along - 1, 0.1)
        plane += (
            power * fade * inside * np.exp(-0.5 * ((canvas.y - ridge) / width) ** 2)
        )
    return np.asarray(plane, dtype=np.float64)


def point(canvas: Canvas, rng: np.random.Generator) -> Plane:
    """One compact source, a little larger than a pixel at most."""
    width = canvas.pixel * rng.uniform(0.3, 1.2)
    return gaussian(canvas, 0, 0, width, width * rng.uniform(0.7, 1))


def double(canvas: Canvas, rng: np.random.Generator) -> Plane:
    """Two separate compact sources of different size and brightness."""
    plane = np.zeros_like(canvas.x)
    distance = rng.uniform(0.4, 1.6)
    for side in (-1, 1):
        width = max(rng.uniform(0.04, 0.22), 0.4 * canvas.pixel)
        ratio, angle = rng.uniform(0.6, 1), rng.uniform(0, np.pi)
        x = side * distance / 2
        source = gaussian(canvas, x, 0, width, width * ratio, angle)
        plane += 10 ** rng.uniform(-1, 0) * source
    return plane


def bent_tails(canvas: Canvas, rng: np.random.Generator) -> Plane:
    """A head with two tails that are swept back, or a single one."""
    plane = rng.uniform(0.2, 1) * gaussian(canvas, 0, 0, 0.09, 0.09)
    opening, power = rng.uniform(0.15, 1.1), rng.uniform(0.4, 0.9)
    length, decay = rng.uniform(0.7, 1.6), rng.uniform(0.3, 2)
    back = np.clip(canvas.x, 0, None)
    sides = (-1, 1) if rng.random() < 0.8 else (1,)
    for side in sides:
        ridge = side * opening * back**power
        width = rng.uniform(0.06, 0.12) + rng.uniform(0.05, 0.25) * back
        fade = np.exp(-decay * back) * soft_edge(back - length, 0.1)
        tail = fade * np.exp(-0.5 * ((canvas.y - ridge) / width) ** 2)
        plane += rng.uniform(0.3, 1) * (canvas.x > -0.05) * tail
    return np.asarray(plane, dtype=np.float64)


def one_sided_jet(canvas: Canvas, rng: np.random.Generator) -> Plane:
    """A bright core with a knotty jet on one side."""
    plane = gaussian(canvas, 0, 0, 0.08, 0.08)
    curvature, width = rng.normal(0, 0.3), rng.uniform(0.04, 0.1)
    for along in np.sort(rng.uniform(0.1, 1.3, rng.integers(3, 9))):
        knot = 10 ** rng.uniform(-1.2, -0.1) * math.exp(-0.5 * float(along))
        size = width * rng.uniform(0.8, 1.8)
        at = curvature * float(along) ** 2
        plane += knot * gaussian(canvas, float(along), at, 1.5 * size, size)
    return plane


def crossed_lobes(canvas: Canvas, rng: np.random.Generator) -> Plane:
    """Two pairs of lobes along different axes, as in X-shaped radio galaxies."""
    plane = rng.uniform(0, 0.5) * gaussian(canvas, 0, 0, 0.08, 0.08)
    first, between = rng.uniform(0, np.pi), rng.uniform(0.7, 2.4)
    for angle in (first, first + between):
        length, flux = rng.uniform(0.5, 1.1), rng.uniform(0.4, 1)
        width, ends = rng.uniform(0.07, 0.18), rng.uniform(0, 1)
        for side in (-1, 1):
            x, y = side * length * np.cos(angle), side * length * np.sin(angle)
            lobe = gaussian(canvas, x / 2, y / 2, length / 2.5, width, angle)
            plane += flux * (lobe + ends * gaussian(canvas, x, y, width, width))
    return np.asarray(plane, dtype=np.float64)


def relic(canvas: Canvas, rng: np.random.Generator) -> Plane:
    """A diffuse patch or a long arc with ragged edges and without a core."""
    ragged = np.exp(rng.uniform(0.2, 0.7) * power_law_field(canvas, rng, 3))
    ridge = rng.uniform(-0.8, 0.8) * canvas.x**2
    length, width = rng.uniform(0.3, 1), rng.uniform(0.12, 0.5)
    squared = (canvas.x / length) ** 2 + ((canvas.y - ridge) / width) ** 2
    return np.asarray(np.exp(-0.5 * squared) * ragged, dtype=np.float64)
