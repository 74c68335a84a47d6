"""The record of an image: its pixels and the mask of bad ones."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Image:
    """Pixels and the mask of bad ones.

    Attributes
    ----------
    pixels : ndarray, shape (C, H, W), float32
        In the unit of the file; 0 where bad.
    mask : ndarray, shape (H, W), bool
        True where a pixel is NaN, infinite or BLANK in any channel. A channel in
        which all pixels are bad is 0 everywhere and does not enter the mask.
    """

    pixels: NDArray[np.float32]
    mask: NDArray[np.bool_]
