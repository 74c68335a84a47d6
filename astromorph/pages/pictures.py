"""Thumbnails of images."""

import base64
import io
import re
from dataclasses import dataclass
from pathlib import PurePath

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from astromorph.system.logs import printable, shortened

JPEG_QUALITY = 88
SUFFIX = re.compile(r"\.(fits?|fts)(\.\w+)?$", re.IGNORECASE)
MAX_SIDE = 128  # pixels; larger images are reduced


@dataclass(frozen=True, slots=True)
class PageImage:
    """An image on a page.

    Attributes
    ----------
    path : str
        Path of its file, printable.
    url : str
        Its picture as a data URL; empty if the page shows only its name.
    """

    path: str
    url: str = ""

    @property
    def name(self) -> str:
        """The name of the file without its folder and the suffix of FITS files."""
        return SUFFIX.sub("", PurePath(self.path).name) or self.path

    @classmethod
    def of(cls, path: str, url: str = "") -> "PageImage":
        """An image whose path may contain unprintable characters."""
        return cls(shortened(printable(path)), url)


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


def picture_url(pixels: NDArray[np.float32]) -> str:
    """A square picture of an image as a data URL of a few kilobytes.

    Parameters
    ----------
    pixels : ndarray, shape (C, H, W), float32
        From 0 to 1.
    """
    return data_url(thumbnail(pixels, min(max(pixels.shape[1:]), MAX_SIDE)))


def data_url(picture: NDArray[np.uint8]) -> str:
    """A picture as a JPEG data URL, to be embedded in a page."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="JPEG", quality=JPEG_QUALITY)
    return _url("jpeg", buffer.getvalue())


def png_url(png: bytes) -> str:
    """The content of a PNG file as a data URL."""
    return _url("png", png)


def _url(form: str, data: bytes) -> str:
    return f"data:image/{form};base64,{base64.b64encode(data).decode()}"
