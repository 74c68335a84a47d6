"""Painters of galaxies and disks."""

import math

import numpy as np

from astromorph.sky.canvas import Canvas, Plane, gaussian, power_law_field, soft_edge


def disk(canvas: Canvas, rng: np.random.Generator) -> Plane:
    """A smooth, slightly lopsided disk with a core."""
    r = np.hypot(canvas.x, canvas.y)
    profile = np.exp(-((r / rng.uniform(0.5, 0.9)) ** rng.uniform(1.0, 2.5)))
    lopsided = 1 + rng.uniform(0, 0.3) * canvas.x / np.maximum(r, 0.3)
    core = rng.uniform(0, 1) * np.exp(-((r / 0.15) ** 2))
    return np.asarray(profile * lopsided + core, dtype=np.float64)


def ring(canvas: Canvas, rng: np.random.Generator) -> Plane:
    """One to three concentric rings, brighter on one side, empty inside."""
    r, phi = np.hypot(canvas.x, canvas.y), np.arctan2(canvas.y, canvas.x)
    plane = np.zeros_like(r)
    for radius in rng.uniform(0.55, 1.1) + 0.45 * np.arange(rng.integers(1, 4)):
        width = rng.uniform(0.07, 0.16)
        arc = 1 + rng.uniform(0, 0.7) * np.cos(phi - rng.uniform(0, 2 * np.pi))
        plane += rng.uniform(0.5, 1) * arc * np.exp(-0.5 * ((r - radius) / width) ** 2)
    return plane


def spiral(canvas: Canvas, rng: np.random.Generator) -> Plane:
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


def sersic(
    canvas: Canvas, x: float, y: float, radius: float, index: float, ratio: float = 1.0
) -> Plane:
    """A galaxy with the profile of Sersic (1968), 1 at its effective radius.

    The brightness within half a pixel of the centre is that at half a pixel.
    """
    squared = (canvas.x - x) ** 2 + ((canvas.y - y) / ratio) ** 2
    r = np.sqrt(squared + (0.5 * canvas.pixel) ** 2)
    b = 2 * index - 1 / 3
    return np.asarray(np.exp(-b * ((r / radius) ** (1 / index) - 1)), dtype=np.float64)


def elliptical(canvas: Canvas, rng: np.random.Generator) -> Plane:
    """A smooth elliptical galaxy, from round to flat, without a disk."""
    index, ratio = rng.uniform(1.5, 5), rng.uniform(0.35, 1)
    return sersic(canvas, 0, 0, rng.uniform(0.3, 0.7), index, ratio)


def edge_on(canvas: Canvas, rng: np.random.Generator) -> Plane:
    """A disk seen from its edge, often with a bulge, a dust lane or a warp."""
    bend = rng.choice([0, rng.normal(0, 0.2)])
    height = canvas.y - bend * np.sign(canvas.x) * canvas.x**2
    thickness, length = rng.uniform(0.04, 0.14), rng.uniform(0.3, 0.6)
    across = np.clip(height / thickness, -50, 50)
    plane = np.exp(-np.abs(canvas.x) / length) / np.cosh(across) ** 2
    bulge = rng.choice([0, rng.uniform(0.2, 1.5)])
    plane += bulge * gaussian(canvas, 0, 0, 0.16, 0.16 * rng.uniform(0.6, 1))
    if rng.random() < 0.5:
        lane = (height - rng.normal(0, 0.3) * thickness) / (0.35 * thickness)
        plane *= 1 - rng.uniform(0.5, 0.95) * np.exp(-0.5 * lane**2)
    return np.asarray(plane, dtype=np.float64)


def barred(canvas: Canvas, rng: np.random.Generator) -> Plane:
    """A bar in a disk, with two arms or a ring that begin at its ends."""
    r, phi = np.hypot(canvas.x, canvas.y), np.arctan2(canvas.y, canvas.x)
    length, width = rng.uniform(0.3, 0.55), rng.uniform(0.06, 0.13)
    bar = np.exp(-((np.abs(canvas.x) / length) ** 4) - 0.5 * (canvas.y / width) ** 2)
    plane = rng.uniform(0.5, 1.5) * bar
    if rng.random() < 0.6:
        pitch = rng.choice([-1, 1]) * math.tan(math.radians(rng.uniform(10, 28)))
        phase = 2 * (phi - np.log(np.maximum(r, length) / length) / pitch)
        arms = np.exp(rng.uniform(2, 5) * (np.cos(phase) - 1)) * np.exp(-r / 0.7)
        plane += rng.uniform(0.8, 2) * arms * (r > 0.8 * length)
    else:
        ring_ = np.exp(-0.5 * ((r - 1.1 * length) / rng.uniform(0.05, 0.1)) ** 2)
        plane += rng.uniform(0.3, 0.8) * ring_
    plane += rng.uniform(0.05, 0.3) * np.exp(-r / rng.uniform(0.4, 0.8))
    return np.asarray(plane + gaussian(canvas, 0, 0, 0.09, 0.09), dtype=np.float64)


def merger(canvas: Canvas, rng: np.random.Generator) -> Plane:
    """Two galaxies close to each other, with tidal tails or a bridge."""
    plane = np.zeros_like(canvas.x)
    distance, direction = rng.uniform(0.2, 0.9), rng.choice([-1, 1])
    for side in (-1, 1):
        flux, x = 10 ** rng.uniform(-0.6, 0), side * distance / 2
        radius, ratio = rng.uniform(0.1, 0.25), rng.uniform(0.4, 1)
        y = rng.normal(0, 0.05)
        plane += flux * sersic(canvas, x, y, radius, rng.uniform(0.8, 2), ratio)
        start, span = rng.uniform(0, 2 * np.pi), rng.uniform(1, 3.5)
        along = np.linspace(0, 1, 24)
        angle = start + direction * span * along
        reach = 0.15 + rng.uniform(0.4, 1.1) * along
        width = rng.uniform(0.04, 0.1)
        tail = rng.uniform(0.1, 0.6) * flux
        for k in range(len(along)):
            plane += (
                tail
                * math.exp(-1.5 * float(along[k]))
                * gaussian(
                    canvas,
                    x + float(reach[k] * np.cos(angle[k])),
                    float(reach[k] * np.sin(angle[k])),
                    width,
                    width,
                )
            )
    return np.asarray(plane, dtype=np.float64)


def shells(canvas: Canvas, rng: np.random.Generator) -> Plane:
    """An elliptical galaxy with sharp arcs of light on alternating sides."""
    r, phi = np.hypot(canvas.x, canvas.y), np.arctan2(canvas.y, canvas.x)
    plane = sersic(canvas, 0, 0, rng.uniform(0.2, 0.4), rng.uniform(1.5, 4))
    side, opening = rng.uniform(0, 2 * np.pi), rng.uniform(1, 3)
    for k, radius in enumerate(np.sort(rng.uniform(0.3, 1.2, rng.integers(2, 6)))):
        arc = np.exp(opening * (np.cos(phi - side - np.pi * k) - 1))
        width = rng.uniform(0.05, 0.15)
        inside = (r < radius) * np.exp(np.minimum(r - radius, 0) / width)
        plane += rng.uniform(0.2, 0.7) * arc * inside
    return np.asarray(plane, dtype=np.float64)


def irregular(canvas: Canvas, rng: np.random.Generator) -> Plane:
    """A patchy galaxy without symmetry."""
    r = np.hypot(canvas.x, canvas.y / rng.uniform(0.5, 1))
    patches = np.exp(rng.uniform(0.7, 1.5) * power_law_field(canvas, rng, 2.5))
    return np.asarray(np.exp(-((r / rng.uniform(0.4, 0.8)) ** 2)) * patches)


def gapped_disk(canvas: Canvas, rng: np.random.Generator) -> Plane:
    """A bright disk with one to three dark gaps, or with an empty centre."""
    r = np.hypot(canvas.x, canvas.y)
    plane = np.exp(-((r / rng.uniform(0.6, 0.9)) ** rng.uniform(1, 4)))
    for radius in rng.uniform(0.2, 0.9, rng.integers(1, 4)):
        gap = np.exp(-0.5 * ((r - radius) / rng.uniform(0.04, 0.1)) ** 2)
        plane *= 1 - rng.uniform(0.4, 1) * gap
    if rng.random() < 0.3:
        hole = soft_edge(r - rng.uniform(0.15, 0.4), 0.04)
        plane *= 1 - rng.uniform(0.7, 1) * hole
    return np.asarray(plane, dtype=np.float64)


def crescent(canvas: Canvas, rng: np.random.Generator) -> Plane:
    """An arc of a disk, sometimes with a faint inner ring or a point in the centre."""
    r, phi = np.hypot(canvas.x, canvas.y), np.arctan2(canvas.y, canvas.x)
    radius, width = rng.uniform(0.5, 0.9), rng.uniform(0.08, 0.2)
    arc = np.exp(rng.uniform(0.7, 5) * (np.cos(phi - rng.uniform(0, 6.3)) - 1))
    plane = arc * np.exp(-0.5 * ((r - radius) / width) ** 2)
    if rng.random() < 0.5:
        inner = np.exp(-0.5 * ((r - radius * rng.uniform(0.3, 0.7)) / 0.07) ** 2)
        plane += rng.uniform(0.1, 0.7) * inner
    return np.asarray(plane + rng.choice([0, 1]) * gaussian(canvas, 0, 0, 0.06, 0.06))


def lens(canvas: Canvas, rng: np.random.Generator) -> Plane:
    """A galaxy surrounded by the images of another one: arcs, a cross or a ring."""
    r, phi = np.hypot(canvas.x, canvas.y), np.arctan2(canvas.y, canvas.x)
    plane = 10 ** rng.uniform(-1, 0.3) * sersic(
        canvas, 0, 0, rng.uniform(0.1, 0.25), rng.uniform(1, 4), rng.uniform(0.6, 1)
    )
    plane /= max(1.0, float(plane.max()))
    radius, width = rng.uniform(0.5, 0.9), rng.uniform(0.04, 0.12)
    number, turn = rng.integers(1, 5), rng.uniform(0, 2 * np.pi)
    for k in range(number):
        length = rng.uniform(1, 30)  # from a long arc to a short one
        arc = np.exp(length * (np.cos(phi - turn - 2 * np.pi * k / number) - 1))
        at = radius * rng.uniform(0.85, 1.15)
        plane += rng.uniform(0.3, 1) * arc * np.exp(-0.5 * ((r - at) / width) ** 2)
    return np.asarray(plane, dtype=np.float64)
