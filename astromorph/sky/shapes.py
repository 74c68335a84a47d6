"""Non-parametric measures of the shape of an object in an image without noise.

Concentration and asymmetry: Conselice (2003). Gini coefficient and M20: Lotz, Primack &
Madau (2004). Multipoles: as in weak lensing. They describe the appearance of an object
independently of its position, size, angle and flux.
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
MIN_BRIGHTNESS = 1e-3  # over the peak; fainter pixels are set to 0
M20_SHARE = 0.2  # of the flux


def measure_shape(plane: Plane) -> Plane:
    """Compute the measures `MEASURES` for an image of one object.

    Parameters
    ----------
    plane : ndarray, shape (ny, nx), float64
        Brightness above a background of 0, without noise.

    Returns
    -------
    ndarray, shape (K,), float64
        All NaN for an empty image.
        `axis_ratio`: from the second moments, 0 to 1. `concentration`: log of the ratio
        of the radii that contain 80 and 20 % of the flux. `asymmetry`: difference to
        the image rotated by 180 degrees, 0 to 1. `gini`: Gini coefficient, 0 to 1.
        `m20`: log of the second moment of the brightest 20 % over that of all, below 0.
        `peak_distance`: distance of the brightest pixel from the centroid over the 80 %
        radius. `emptiness`: share of the flux outside half that radius.
        `multipole_m`: strength of the m-fold symmetry, 0 to 1.
    """
    light = np.where(plane > MIN_BRIGHTNESS * max(float(plane.max()), 0.0), plane, 0.0)
    total = float(light.sum())
    if total <= 0:
        return np.full(len(MEASURES), np.nan)
    y, x = np.indices(light.shape, dtype=np.float64)
    x0, y0 = float((light * x).sum()) / total, float((light * y).sum()) / total
    radius, angle = np.hypot(x - x0, y - y0), np.arctan2(y - y0, x - x0)
    radius_20, radius_80 = _enclosing_radii(light, radius, (0.2, 0.8))
    values = [
        _axis_ratio(light, (x - x0, y - y0)),
        np.log(radius_80 / radius_20),
        _asymmetry(light, x0, y0),
        _gini(light[radius <= 1.5 * radius_80]),
        _m20(light, radius),
        radius.flat[int(light.argmax())] / radius_80,
        float(light[radius > radius_80 / 2].sum()) / total,
    ]
    for m in MULTIPOLES:
        values.append(abs(complex((light * np.exp(1j * m * angle)).sum())) / total)
    return np.array(values, dtype=np.float64)


def _enclosing_radii(
    light: Plane, radius: Plane, shares: tuple[float, ...]
) -> list[float]:
    """Radii that contain shares of the flux, at least one pixel."""
    order = np.argsort(radius, axis=None)
    flux = np.cumsum(light.ravel()[order])
    indices = np.searchsorted(flux, np.array(shares) * flux[-1])
    return [max(1.0, float(radius.ravel()[order[k]])) for k in indices]


def _axis_ratio(light: Plane, offsets: tuple[Any, Any]) -> float:
    total, (dx, dy) = light.sum(), offsets
    xx, yy = (light * dx**2).sum() / total, (light * dy**2).sum() / total
    xy = (light * dx * dy).sum() / total
    half, root = (xx + yy) / 2, np.hypot((xx - yy) / 2, xy)
    return float(np.sqrt(max(half - root, 0.0) / max(half + root, 1e-12)))


def _asymmetry(light: Plane, x0: float, y0: float) -> float:
    """Half the difference to the image rotated around the pixel of the centroid."""
    ny, nx = light.shape
    row, column = round(y0), round(x0)
    half_y, half_x = min(row, ny - 1 - row), min(column, nx - 1 - column)
    inner = light[
        row - half_y : row + half_y + 1, column - half_x : column + half_x + 1
    ]
    # Pixels without a counterpart inside the image are completely different.
    outside = light.sum() - inner.sum()
    difference = 0.5 * np.abs(inner - inner[::-1, ::-1]).sum() + outside
    return float(difference / light.sum())


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
    bright = order[: 1 + int(np.searchsorted(flux, M20_SHARE * flux[-1]))]
    moments = (light * radius**2).ravel()
    return float(np.log10(max(moments[bright].sum(), 1e-9) / max(moments.sum(), 1e-9)))
