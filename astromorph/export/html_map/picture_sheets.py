"""Many small pictures on a few sheets, which a page unpacks when they are looked at."""

import io
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

ACROSS = 16  # pictures in a row of a sheet: one sheet is quick to unpack
JPEG_BLOCK = 8  # pixels
JPEG_QUALITY = 85


@dataclass(frozen=True, slots=True)
class Sheets:
    """How thumbnails are laid out on several sheets.

    Attributes
    ----------
    side : int
        Of a thumbnail, in pixels.
    cell : int
        From one thumbnail to the next, in pixels: whole blocks of JPEG, so that none
        takes over anything of the one beside it.
    across : int
        Thumbnails in a row, and rows on a sheet.
    """

    side: int
    cell: int
    across: int = ACROSS

    @classmethod
    def of(cls, side: int) -> "Sheets":
        """Those for thumbnails of some size."""
        return cls(side, -(-side // JPEG_BLOCK) * JPEG_BLOCK)

    def drawn(self, pictures: Iterable[NDArray[np.uint8]]) -> Iterator[bytes]:
        """The sheets one after the other, as JPEG files.

        Parameters
        ----------
        pictures : iterable of ndarray, shape (S, S), uint8
            The thumbnails, in order, row by row.

        Yields
        ------
        bytes
            The last sheet is as high as it must be.
        """
        number = self.across**2
        waiting = iter(pictures)
        while some := list(itertools.islice(waiting, number)):
            rows = -(-len(some) // self.across)
            sheet = np.zeros((rows * self.cell, self.across * self.cell), np.uint8)
            for k, picture in enumerate(some):
                top, left = (self.cell * part for part in divmod(k, self.across))
                sheet[top : top + self.side, left : left + self.side] = picture
            buffer = io.BytesIO()
            Image.fromarray(sheet).save(buffer, "JPEG", quality=JPEG_QUALITY)
            yield buffer.getvalue()
