"""An image as a record: its pixels and the mask of bad ones."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Image:
    """Pixels and the mask of bad ones.

    Attributes
    ----------
    pixels : ndarray, shape (C, H, W), float32
        Values in the unit of the file; bad pixels are 0.
    mask : ndarray, shape (H, W), bool
        True where a pixel is NaN, infinite or BLANK in any channel. A channel in
        which all pixels are bad is 0 everywhere and is ignored in the mask, unless
        all channels are bad.
    """

    pixels: NDArray[np.float32]
    mask: NDArray[np.bool_]
