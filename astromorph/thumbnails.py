"""Small pictures of the images as the network saw them."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from astromorph.cache import read_shard

if TYPE_CHECKING:
    from numpy.typing import NDArray

LARGEST_SPRITE = 8192  # pixels a side: what browsers take as one texture


def sprite(
    tensors: Sequence[str | Path], number: int, wanted: int
) -> "tuple[NDArray[np.uint8], int]":
    """All thumbnails on one sheet, row by row, as TensorBoard wants them.

    Parameters
    ----------
    tensors : sequence of path
        All shards, in order.
    number : int
        How many images they hold, at least 1.
    wanted : int
        Side of a thumbnail in pixels; smaller where the sheet would exceed
        8192 pixels.

    Returns
    -------
    sheet : ndarray, shape (n S, n S), uint8
        n by n thumbnails, n the next whole number above the root of `number`.
    side : int
        S.
    """
    per_row = int(np.ceil(np.sqrt(number)))
    side = max(1, min(wanted, LARGEST_SPRITE // per_row))
    sheet = np.zeros((per_row * side, per_row * side), np.uint8)
    k = 0
    for path in tensors:
        for pixels in read_shard(path).images.float().numpy():
            top, left = k // per_row * side, k % per_row * side
            sheet[top : top + side, left : left + side] = thumbnail(pixels, side)
            k += 1
    return sheet, side


def thumbnail(pixels: "NDArray[np.float32]", side: int) -> "NDArray[np.uint8]":
    """A picture `(side, side)`, uint8, of pixels `(C, S, S)` from 0 to 1.

    Channels are averaged; the first row of a FITS image is drawn at the bottom.
    """
    gray = np.round(255 * pixels.mean(axis=0)[::-1]).astype(np.uint8)
    picture = Image.fromarray(gray).resize((side, side), Image.Resampling.BOX)
    return np.asarray(picture)
