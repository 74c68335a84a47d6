"""The frame in which objects are drawn, and what all painters share."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Plane = NDArray[np.float64]


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


def soft_edge(distance: Plane, width: float) -> Plane:
    """From 1 within an edge to 0 beyond it: a logistic function.

    Parameters
    ----------
    distance : ndarray
        Distance from the edge, positive outside.
    width : float
        The value falls from 0.73 to 0.27 within twice this width.
    """
    # exp(710) is infinite in float64.
    return np.asarray(1 / (1 + np.exp(np.minimum(distance / width, 700))), np.float64)


Painter = Callable[[Canvas, np.random.Generator], Plane]


def power_law_field(canvas: Canvas, rng: np.random.Generator, exponent: float) -> Plane:
    """A random field with a power spectrum k^-exponent, mean 0 and variance 1."""
    ny, nx = canvas.x.shape
    k = np.hypot(np.fft.fftfreq(ny)[:, None], np.fft.rfftfreq(nx)[None, :])
    k[0, 0] = np.inf
    spectrum = np.fft.rfft2(rng.standard_normal((ny, nx))) * k ** (-exponent / 2)
    field = np.fft.irfft2(spectrum, (ny, nx))
    return np.asarray(field / field.std(), dtype=np.float64)
