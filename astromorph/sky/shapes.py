"""Measures of shape that need no model, of an image without noise.

Conselice (2003) for concentration and asymmetry, Lotz, Primack & Madau (2004) for
the Gini coefficient and M20; multipoles as in weak lensing. They hold what an eye
tells objects apart by, whatever their position, size, angle and flux.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Plane = NDArray[np.float64]

MULTIPOLES = (1, 2, 3, 4)
MEASURES = (
    "axis_ratio",
    "concentration",
    "asymmetry",
    "gini",
    "m20",
    "peak_distance",
    "emptiness",
    *(f"multipole_{m}" for m in MULTIPOLES),
)
FAINTEST = 1e-3  # of the peak; what is below counts as nothing
BRIGHTEST_SHARE = 0.2


def measure_shape(plane: Plane) -> Plane:
    """The measures `MEASURES` of an image of one object.

    Parameters
    ----------
    plane : ndarray, shape (ny, nx), float64
        Brightness above a background of 0, without noise.

    Returns
    -------
    ndarray, shape (K,), float64
        All NaN where the image is empty.
        `axis_ratio`: of the second moments, 0 to 1. `concentration`: log of the
        radii that hold 80 and 20 % of the flux. `asymmetry`: against itself
        turned by 180 degrees, 0 to 1. `gini`: 0 to 1. `m20`: log of the second
        moment of the brightest fifth over that of all, below 0.
        `peak_distance`: of the brightest pixel from the centroid, over the radius
        of 80 %. `emptiness`: share of the flux outside half that radius.
        `multipole_m`: strength of the m-fold symmetry, 0 to 1.
    """
    light = np.where(plane > FAINTEST * max(float(plane.max()), 0.0), plane, 0.0)
    total = float(light.sum())
    if total <= 0:
        return np.full(len(MEASURES), np.nan)
    y, x = np.indices(light.shape, dtype=np.float64)
    x0, y0 = float((light * x).sum()) / total, float((light * y).sum()) / total
    radius, angle = np.hypot(x - x0, y - y0), np.arctan2(y - y0, x - x0)
    within = _radii(light, radius, (0.2, 0.8))
    values = [
        _axis_ratio(light, (x - x0, y - y0)),
        np.log(within[1] / within[0]),
        _asymmetry(light, x0, y0),
        _gini(light[radius <= 1.5 * within[1]]),
        _m20(light, radius),
        radius.flat[int(light.argmax())] / within[1],
        float(light[radius > within[1] / 2].sum()) / total,
    ]
    for m in MULTIPOLES:
        values.append(abs(complex((light * np.exp(1j * m * angle)).sum())) / total)
    return np.array(values, dtype=np.float64)


def _radii(light: Plane, radius: Plane, shares: tuple[float, ...]) -> list[float]:
    """Radii that hold a share of the flux, at least a pixel."""
    order = np.argsort(radius, axis=None)
    held = np.cumsum(light.ravel()[order])
    places = np.searchsorted(held, np.array(shares) * held[-1])
    return [max(1.0, float(radius.ravel()[order[p]])) for p in places]


def _axis_ratio(light: Plane, from_centre: tuple[Any, Any]) -> float:
    total, (dx, dy) = light.sum(), from_centre
    xx, yy = (light * dx**2).sum() / total, (light * dy**2).sum() / total
    xy = (light * dx * dy).sum() / total
    half, root = (xx + yy) / 2, np.hypot((xx - yy) / 2, xy)
    return float(np.sqrt(max(half - root, 0.0) / max(half + root, 1e-12)))


def _asymmetry(light: Plane, x0: float, y0: float) -> float:
    """Half the difference to the image turned around the pixel of the centroid."""
    ny, nx = light.shape
    row, column = round(y0), round(x0)
    reach_y, reach_x = min(row, ny - 1 - row), min(column, nx - 1 - column)
    inner = light[
        row - reach_y : row + reach_y + 1, column - reach_x : column + reach_x + 1
    ]
    # What has no counterpart inside the image counts as all different.
    outside = light.sum() - inner.sum()
    different = 0.5 * np.abs(inner - inner[::-1, ::-1]).sum() + outside
    return float(different / light.sum())


def _gini(values: Plane) -> float:
    ordered = np.sort(values)
    number = len(ordered)
    if number < 2 or ordered.sum() <= 0:
        return 0.0
    weights = 2 * np.arange(1, number + 1) - number - 1
    return float((weights * ordered).sum() / (ordered.mean() * number * (number - 1)))


def _m20(light: Plane, radius: Plane) -> float:
    order = np.argsort(light, axis=None)[::-1]
    flux = np.cumsum(light.ravel()[order])
    bright = order[: 1 + int(np.searchsorted(flux, BRIGHTEST_SHARE * flux[-1]))]
    moments = (light * radius**2).ravel()
    return float(np.log10(max(moments[bright].sum(), 1e-9) / max(moments.sum(), 1e-9)))
