"""An image: pixels, and which of them are bad."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Image:
    """Pixels and which of them are bad.

    Attributes
    ----------
    pixels : ndarray, shape (C, H, W), float32
        In the file's unit; 0 where bad.
    mask : ndarray, shape (H, W), bool
        True where a pixel is NaN, infinite or BLANK in any channel. A channel
        in which all pixels are bad counts as 0, not as bad.
    """

    pixels: NDArray[np.float32]
    mask: NDArray[np.bool_]
