"""An image as a record: its pixels and the mask of bad ones."""

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
