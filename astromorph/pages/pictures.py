"""Thumbnails, and the colours and markers of classes."""

import base64
import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

# Wong (2011), Nature Methods 8, 441, without yellow, which is hard to see on white.
# When all colours are used, the next classes have the next marker.
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#000000")
MARKERS = ("circle", "triangle", "square", "diamond")
NONE_COLOUR = "#b4bac2"
OTHERS_COLOUR = "#8c959f"
MIN_POINT_SIZE, MAX_POINT_SIZE = 3.0, 9.0  # pixels


def thumbnail(pixels: NDArray[np.float32], side: int) -> NDArray[np.uint8]:
    """Make a square picture of an image.

    Parameters
    ----------
    pixels : ndarray, shape (C, H, W), float32
        From 0 to 1. Channels are averaged; the shorter side is padded with black.
    side : int
        Side of the picture in pixels.

    Returns
    -------
    ndarray, shape (side, side), uint8
        The first row of the image is at the bottom, as is usual for FITS.
    """
    gray = np.round(255 * pixels.mean(axis=0)[::-1]).astype(np.uint8)
    height, width = gray.shape
    if height != width:
        longer = max(height, width)
        rows, columns = longer - height, longer - width
        gray = np.pad(
            gray,
            ((rows // 2, rows - rows // 2), (columns // 2, columns - columns // 2)),
        )
    picture = Image.fromarray(gray).resize((side, side), Image.Resampling.BOX)
    return np.asarray(picture)


def data_url(picture: NDArray[np.uint8]) -> str:
    """A picture as a PNG data URL, to be embedded in a page."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def point_size(number: int) -> float:
    """Diameter in pixels of the points on a map with a number of points.

    Examples
    --------
    >>> point_size(100), point_size(10_000), point_size(10**6)
    (9.0, 4.5, 3.0)
    """
    size = 45 / float(max(number, 1)) ** 0.25
    return float(min(max(size, MIN_POINT_SIZE), MAX_POINT_SIZE))
