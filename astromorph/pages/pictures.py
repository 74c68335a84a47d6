"""Thumbnails of images."""

import base64
import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image


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
