"""Small pictures of images as the network sees them."""

import base64
import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def thumbnail(pixels: NDArray[np.float32], side: int) -> NDArray[np.uint8]:
    """A picture `(side, side)`, uint8, of pixels `(C, H, W)` from 0 to 1.

    Channels are averaged, an oblong image is padded with black; the first row of
    a FITS image is drawn at the bottom.
    """
    gray = np.round(255 * pixels.mean(axis=0)[::-1]).astype(np.uint8)
    height, width = gray.shape
    if height != width:
        largest = max(height, width)
        rows, columns = largest - height, largest - width
        gray = np.pad(
            gray,
            ((rows // 2, rows - rows // 2), (columns // 2, columns - columns // 2)),
        )
    picture = Image.fromarray(gray).resize((side, side), Image.Resampling.BOX)
    return np.asarray(picture)


def data_url(picture: NDArray[np.uint8]) -> str:
    """A picture as text that a web page can hold."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
