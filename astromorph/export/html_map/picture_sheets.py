"""The pictures of `map.html`, on sheets of many that the page unpacks on use."""

import io
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from astromorph.artefacts.tensor_shard import TensorShard, read_shard
from astromorph.errors import AstromorphError
from astromorph.pages.thumbnail import thumbnail
from astromorph.progress import track

ACROSS = 16  # pictures in a row of a sheet: one sheet is quick to unpack
JPEG_BLOCK = 8  # pixels
JPEG_QUALITY = 85
# Statistics of the pixels that the map shows, of those that shards store.
SHOWN_STATISTICS = ("background", "noise", "minimum", "maximum", "valid_fraction")


@dataclass(frozen=True, slots=True)
class SheetLayout:
    """How thumbnails are laid out on several sheets.

    Attributes
    ----------
    side : int
        Of a thumbnail, in pixels.
    cell : int
        From one thumbnail to the next, in pixels: complete blocks of JPEG, so that none
        bleeds into its neighbour.
    across : int
        Thumbnails in a row, and rows on a sheet.
    """

    side: int
    cell: int
    across: int = ACROSS

    @classmethod
    def for_side(cls, side: int) -> "SheetLayout":
        """The layout for thumbnails of some side."""
        return cls(side, -(-side // JPEG_BLOCK) * JPEG_BLOCK)

    def draw(self, pictures: Iterable[NDArray[np.uint8]]) -> Iterator[bytes]:
        """Draw the sheets one after the other, as JPEG files.

        Parameters
        ----------
        pictures : iterable of ndarray, shape (S, S), uint8
            The thumbnails, in order, row by row.

        Yields
        ------
        bytes
            The last sheet has only as many rows as it needs.
        """
        number = self.across**2
        remaining = iter(pictures)
        while batch := list(itertools.islice(remaining, number)):
            rows = -(-len(batch) // self.across)
            sheet = np.zeros((rows * self.cell, self.across * self.cell), np.uint8)
            for k, picture in enumerate(batch):
                top, left = (self.cell * part for part in divmod(k, self.across))
                sheet[top : top + self.side, left : left + self.side] = picture
            buffer = io.BytesIO()
            Image.fromarray(sheet).save(buffer, "JPEG", quality=JPEG_QUALITY)
            yield buffer.getvalue()


class ShardPictures:
    """Thumbnails and pixel statistics of some images, read from the shards.

    Parameters
    ----------
    tensors : sequence of path
        All shards, in the order of the list.
    image_ids : sequence of str
        N ids, in the same order.

    Attributes
    ----------
    statistics : dict of str to list of float
        `SHOWN_STATISTICS` of each image, once all thumbnails are drawn; NaN where a
        shard has none.
    """

    def __init__(self, tensors: Sequence[str | Path], image_ids: Sequence[str]) -> None:
        self._tensors = tensors
        self._image_ids = image_ids
        self.statistics: dict[str, list[float]] = {n: [] for n in SHOWN_STATISTICS}

    def thumbnails(self, side: int) -> Iterator[NDArray[np.uint8]]:
        """Draw the thumbnail `(side, side)` of each image, in order.

        Raises
        ------
        AstromorphError
            An image is in none of the shards, or they are in another order.
        """
        drawn, number = 0, len(self._image_ids)
        for pixels, statistics in track(self._read(), number, "pictures of the map"):
            for name, values in self.statistics.items():
                values.append(statistics[name])
            yield thumbnail(pixels, side)
            drawn += 1
        if drawn < number:
            raise AstromorphError(
                f"{self._tensors[-1]}: {self._image_ids[drawn]}, which was analysed, "
                "is in none of the tensors, or not in this order; run preprocess, "
                "infer and analyse again"
            )

    def _read(self) -> Iterator[tuple[NDArray[np.float32], dict[str, float]]]:
        remaining = iter(self._image_ids)
        image_id = next(remaining, None)
        for path in self._tensors:
            shard = read_shard(path)
            statistics = _statistics(shard)
            for k, image in enumerate(shard.each()):
                if shard.image_ids[k] == image_id:
                    pixels = image.float().numpy()
                    yield pixels, {n: values[k] for n, values in statistics.items()}
                    image_id = next(remaining, None)


def _statistics(shard: TensorShard) -> dict[str, list[float]]:
    stored, absent = shard.statistics, [float("nan")] * len(shard)
    return {n: stored[n].tolist() if n in stored else absent for n in SHOWN_STATISTICS}
