"""All images on one sheet, as TensorBoard wants them."""

from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from astromorph.artefacts.tensor_shard import read_shard
from astromorph.pages.thumbnail import thumbnail

MAX_SPRITE = 8192  # pixels a side: what browsers take as one texture
SMALLEST = 16  # pixels a side of a thumbnail in which something can still be seen


def max_thumbnails(wanted: int) -> int:
    """How many thumbnails a sheet has room for: of 16 pixels, or of fewer if wanted."""
    return (MAX_SPRITE // min(wanted, SMALLEST)) ** 2


def make_sprite(
    tensors: Sequence[str | Path], image_ids: Collection[str], wanted: int
) -> tuple[NDArray[np.uint8], int]:
    """All thumbnails on one sheet, row by row, as TensorBoard wants them.

    Parameters
    ----------
    tensors : sequence of path
        All shards, in order.
    image_ids : set of str
        Which of their images are shown: at least one, at most `max_thumbnails`.
    wanted : int
        Side of a thumbnail in pixels; smaller where the sheet would exceed
        8192 pixels.

    Returns
    -------
    sheet : ndarray, shape (n S, n S), uint8
        n by n thumbnails, n the next whole number above the root of how many there are.
    side : int
        S.
    """
    per_row = int(np.ceil(np.sqrt(len(image_ids))))
    side = max(1, min(wanted, MAX_SPRITE // per_row))
    sheet = np.zeros((per_row * side, per_row * side), np.uint8)
    k = 0
    for path in tensors:
        shard = read_shard(path)
        for image_id, image in zip(shard.image_ids, shard.each(), strict=True):
            if image_id not in image_ids:
                continue
            top, left = k // per_row * side, k % per_row * side
            sheet[top : top + side, left : left + side] = thumbnail(
                image.float().numpy(), side
            )
            k += 1
    return sheet, side
