"""Tiles of an image that are packed with gzip, unpacked no further than they may be.

Astropy unpacks a tile before it compares it with its size; a few hundred kilobytes
can become gigabytes. RICE and PLIO stop at the size of the tile, HCOMPRESS has a
process of its own (`astromorph.fits.tile_decoder`). FITS Standard 4.0 (2018),
section 10.
"""

import gzip
import io
import itertools
import math
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from astromorph.errors import FitsImageError

# Bytes that unpack to less than 64 MB, whatever they are: deflate reaches 1032.
HARMLESS = 2**26 // 1032
MAX_ITEM = 8  # bytes of a pixel, at most
PIECE = 2**20
ITEM_SIZES = {"B": 1, "I": 2, "J": 4}


class GzipTiles:
    """The tiles of an image that could unpack to far more than they should.

    Parameters
    ----------
    table : bytes
        A FITS file whose first extension is the table of the tiles.
    shape, tile_shape : tuple of int
        Of the image and of its tiles, in numpy's order.
    algorithm : str
        By which the image is compressed; single tiles of any can be packed with gzip.
    """

    def __init__(
        self,
        table: bytes,
        shape: tuple[int, ...],
        tile_shape: tuple[int, ...],
        algorithm: str,
    ) -> None:
        self._table, self._shape = table, shape
        # A tile is no larger than the image, whatever the header says.
        self._tile_shape = tuple(map(min, tile_shape, shape))
        self._suspects = self._found(algorithm)

    def refuse_bombs(self, index: Any = ...) -> None:
        """Unpack the doubtful tiles behind a part of the image, and keep nothing.

        Parameters
        ----------
        index : tuple of int and slice, optional
            The part; a slice that the image is shorter than ends with it.

        Raises
        ------
        FitsImageError
            A tile holds more than its pixels.
        """
        rows = list(self._suspects) if index is ... else self._rows(index)
        for row in rows:
            for start, stop in self._suspects.get(row, ()):
                self._refuse_bomb(start, stop)
            self._suspects.pop(row, None)

    def _found(self, algorithm: str) -> dict[int, list[tuple[int, int]]]:
        """First byte and the one after the last, of each row of the table."""
        suspects: dict[int, list[tuple[int, int]]] = {}
        if len(self._table) <= HARMLESS:
            return suspects
        from astropy.io import fits

        names = {"GZIP_COMPRESSED_DATA"}
        if algorithm.startswith("GZIP"):
            names.add("COMPRESSED_DATA")
        file = io.BytesIO(self._table)
        with fits.open(file, memmap=False, disable_image_compression=True) as opened:
            hdu = opened[1]
            for name in names & set(hdu.columns.names):
                for row, start, stop in _large_cells(hdu, name):
                    suspects.setdefault(row, []).append((start, stop))
        return suspects

    def _rows(self, index: tuple[Any, ...]) -> Iterable[int]:
        """Rows of the table whose tiles a part of the image takes."""
        if not self._suspects:
            return ()
        along = []
        for at, length, tile in zip(index, self._shape, self._tile_shape, strict=True):
            part = at if isinstance(at, slice) else slice(at, at + 1)
            start, stop, _ = part.indices(length)
            along.append(range(start // tile, -(-stop // tile)))
        numbers = [
            -(-length // tile)
            for length, tile in zip(self._shape, self._tile_shape, strict=True)
        ]
        return (
            sum(k * math.prod(numbers[n + 1 :]) for n, k in enumerate(place))
            for place in itertools.product(*along)
        )

    def _refuse_bomb(self, start: int, stop: int) -> None:
        most = math.prod(self._tile_shape) * MAX_ITEM
        packed = io.BytesIO(memoryview(self._table)[start:stop])
        found = 0
        with gzip.GzipFile(fileobj=packed) as tile:
            while found <= most and (part := tile.read(PIECE)):
                found += len(part)
        if found > most:
            raise FitsImageError(
                f"a tile unpacks to more than the {most} bytes that its pixels can take"
            )


def _large_cells(hdu: Any, column: str) -> list[tuple[int, int, int]]:
    """Rows whose cell is not harmless, with its place among the bytes of the file."""
    heap = hdu.fileinfo()["datLoc"] + hdu.header.get(
        "THEAP", hdu.header["NAXIS1"] * hdu.header["NAXIS2"]
    )
    # Not by the column itself, which would copy every tile.
    cells = np.asarray(hdu.data).view(np.ndarray)[column].astype(np.int64)
    if cells.min(initial=0) < 0:  # Python counts such from the end
        raise FitsImageError("the file is damaged: a tile before the first")
    item = ITEM_SIZES.get(hdu.columns[column].format.lstrip("1PQ")[:1], 1)
    large = np.flatnonzero(cells[:, 0] > HARMLESS // item)
    found = []
    for row in large.tolist():
        number, offset = cells[row].tolist()
        found.append((row, heap + offset, heap + offset + number * item))
    return found


class CheckedSection:
    """What astropy slices out of a tiled image, its gzip tiles looked at before.

    Parameters
    ----------
    section : astropy section
        Decodes the tiles that are needed.
    tiles : GzipTiles
        Of the same image.
    """

    def __init__(self, section: Any, tiles: GzipTiles) -> None:
        self._section, self._tiles = section, tiles

    def __getitem__(self, index: tuple[Any, ...]) -> NDArray[Any]:
        self._tiles.refuse_bombs(index)
        part: NDArray[Any] = self._section[index]
        return part
