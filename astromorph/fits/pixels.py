"""An image as a record: its pixels and the mask of bad ones; zeros at its edge."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.float32] | NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Image:
    """Pixels and the mask of bad ones.

    Attributes
    ----------
    pixels : ndarray, shape (C, H, W), float32 or float64
        Values in the unit of the file; bad pixels are 0. The type is float64 if the
        file can contain values that float32 cannot represent.
    mask : ndarray, shape (H, W), bool
        True where a pixel is NaN, infinite, BLANK or a bad value in any channel. A
        channel in which all pixels are bad is 0 everywhere and is ignored in the mask,
        unless all channels are bad.
    """

    pixels: Pixels
    mask: NDArray[np.bool_]


def zeros_at_edge(zero: NDArray[np.bool_]) -> NDArray[np.bool_] | None:
    """Zeros between which and an edge, along a row or a column, are only zeros.

    Parameters
    ----------
    zero : ndarray, shape (H, W), bool
        Where an image is 0.

    Returns
    -------
    ndarray, shape (H, W), bool, or None
        None if no pixel at an edge is 0.
    """
    if not (zero[0].any() or zero[-1].any() or zero[:, 0].any() or zero[:, -1].any()):
        return None
    found: NDArray[np.bool_] = np.zeros(zero.shape, np.bool_)
    for axis in (0, 1):
        for step in (slice(None), slice(None, None, -1)):
            part = (step, slice(None)) if axis == 0 else (slice(None), step)
            found[part] |= np.logical_and.accumulate(zero[part], axis=axis)
    return found
