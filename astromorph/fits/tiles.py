"""Tile-compressed images (FITS Standard 4.0, section 10), decoded by astropy.

Sizes are checked before anything is decoded, and a tile is decompressed no further than
its pixels allow: astropy decompresses a gzip tile before it compares the result with
the size of the tile, so that a few hundred kilobytes can become gigabytes. RICE and
PLIO stop at the size of the tile; HCOMPRESS tiles are decoded in a separate process
(`astromorph.fits.tile_decoder`).
"""

import gzip
import io
import itertools
import math
import re
from collections.abc import Iterable
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from astromorph.errors import FitsImageError
from astromorph.fits.file import BLOCK, Hdu, decoding_errors, read_data
from astromorph.fits.header import CARD, Header
from astromorph.fits.tile_decoder import TileDecoder

MAX_COLUMNS, MAX_AXES = 999, 16
# Pixels that one byte can represent: deflate reaches 1032, PLIO 4095 in two bytes.
MAX_PIXELS_PER_BYTE = 2048
# Compressed bytes that always decompress to less than 64 MB: deflate reaches 1032.
SAFE_BYTES = 2**26 // 1032
MAX_PIXEL_BYTES = 8
READ_CHUNK = 2**20  # bytes
ITEM_BYTES = {"B": 1, "I": 2, "J": 4}
RICE_BYTES = (1, 2, 4)
DECODING_KEYWORDS = re.compile(
    rb"(XTENSION|BITPIX|NAXIS\d*|[PG]COUNT|TFIELDS|THEAP|Z[A-Z]+\d*"
    rb"|T(TYPE|FORM|SCAL|ZERO|NULL|DIM)\d+|BSCALE|BZERO|BLANK) *="
)
DECODER = TileDecoder()


def check_tiles(hdu: Hdu) -> None:
    """Compare the header of a tile-compressed image with its tiles and bytes.

    Raises
    ------
    FitsImageError
        The bytes cannot contain that many pixels, or the tiles do not cover the image.
    """
    header, pixels = hdu.header, math.prod(hdu.shape)
    columns = header.integer("TFIELDS", 0)
    if not 1 <= columns <= MAX_COLUMNS or len(hdu.shape) > MAX_AXES:
        raise FitsImageError(
            f"the header is damaged: a tiled image of {len(hdu.shape)} axes in "
            f"{columns} columns"
        )
    if pixels > MAX_PIXELS_PER_BYTE * max(hdu.size, 1):
        raise FitsImageError(
            f"its header gives the image {pixels} pixels, more than its {hdu.size} "
            "compressed bytes can contain"
        )
    number = 1
    for k, length in enumerate(reversed(hdu.shape), start=1):
        tile = header.integer(f"ZTILE{k}", length if k == 1 else 1)
        if tile < 1:
            raise FitsImageError(f"the header is damaged: ZTILE{k} is {tile}")
        number *= -(-length // tile)
    if number != header.integer("NAXIS2", 0):
        raise FitsImageError(
            f"the header is damaged: {number} tiles cover the image, "
            f"{header.integer('NAXIS2', 0)} are stored"
        )
    _check_rice(header)


def open_tiles(file: BinaryIO, hdu: Hdu) -> Any:
    """The scaled pixels of a tile-compressed image.

    Returns
    -------
    CheckedSection or ndarray
        Slicing it like an array, with an index for each axis, decodes the required
        tiles.

    Raises
    ------
    FitsImageError
        The bytes cannot contain that many pixels, or the tiles do not cover the image.
        Slicing raises it for a tile that contains more than its pixels.
    """
    from astropy.io import fits

    check_tiles(hdu)
    data = read_data(file, hdu.start, hdu.size)
    with decoding_errors():
        primary = fits.PrimaryHDU().header.tostring().encode("ascii")
        table = primary + _pad(_decoding_header(hdu), b" ") + _pad(data, b"\0")
        tiled = fits.open(io.BytesIO(table), memmap=False)[1]
        if not isinstance(tiled, fits.CompImageHDU):
            raise FitsImageError("the file is damaged: a tiled image without tiles")
        if tiled.shape != hdu.shape:
            raise FitsImageError("the file is damaged: its tiles have other sizes")
        algorithm = tiled.compression_type
        gzip_tiles = GzipTiles(table, hdu.shape, tiled.tile_shape, algorithm)
        if not algorithm.startswith("HCOMPRESS"):
            return CheckedSection(tiled.section, gzip_tiles)
        gzip_tiles.check()
        pixels = DECODER.decode(table)
        if pixels.shape != hdu.shape:
            raise FitsImageError("the file is damaged: its tiles have other sizes")
        return pixels


class GzipTiles:
    """The gzip tiles of an image that could decompress to more than their pixels.

    Parameters
    ----------
    table : bytes
        A FITS file whose first extension is the table of the tiles.
    shape, tile_shape : tuple of int
        Shapes of the image and of its tiles, in numpy order.
    algorithm : str
        Compression of the image; with all algorithms, individual tiles can use gzip.
    """

    def __init__(
        self,
        table: bytes,
        shape: tuple[int, ...],
        tile_shape: tuple[int, ...],
        algorithm: str,
    ) -> None:
        self._table, self._shape = table, shape
        # A tile is not larger than the image, even if the header says so.
        self._tile_shape = tuple(map(min, tile_shape, shape))
        self._unchecked = self._find_large(algorithm)

    def check(self, index: Any = ...) -> None:
        """Decompress the tiles of a part of the image once, without keeping them.

        Parameters
        ----------
        index : tuple of int and slice, optional
            The part of the image; slices may exceed it.

        Raises
        ------
        FitsImageError
            A tile contains more than its pixels.
        """
        rows = list(self._unchecked) if index is ... else self._table_rows(index)
        for row in rows:
            for start, stop in self._unchecked.get(row, ()):
                self._check_size(start, stop)
            self._unchecked.pop(row, None)

    def _find_large(self, algorithm: str) -> dict[int, list[tuple[int, int]]]:
        """First byte and the byte after the last of large tiles, by table row."""
        large: dict[int, list[tuple[int, int]]] = {}
        if len(self._table) <= SAFE_BYTES:
            return large
        from astropy.io import fits

        names = {"GZIP_COMPRESSED_DATA"}
        if algorithm.startswith("GZIP"):
            names.add("COMPRESSED_DATA")
        file = io.BytesIO(self._table)
        with fits.open(file, memmap=False, disable_image_compression=True) as opened:
            hdu = opened[1]
            for name in names & set(hdu.columns.names):
                for row, start, stop in _find_large_cells(hdu, name):
                    large.setdefault(row, []).append((start, stop))
        return large

    def _table_rows(self, index: tuple[Any, ...]) -> Iterable[int]:
        """Table rows of the tiles that a part of the image overlaps."""
        if not self._unchecked:
            return ()
        tiles_along_axes = []
        for item, length, tile in zip(
            index, self._shape, self._tile_shape, strict=True
        ):
            part = item if isinstance(item, slice) else slice(item, item + 1)
            start, stop, _ = part.indices(length)
            tiles_along_axes.append(range(start // tile, -(-stop // tile)))
        numbers = [
            -(-length // tile)
            for length, tile in zip(self._shape, self._tile_shape, strict=True)
        ]
        return (
            sum(k * math.prod(numbers[n + 1 :]) for n, k in enumerate(position))
            for position in itertools.product(*tiles_along_axes)
        )

    def _check_size(self, start: int, stop: int) -> None:
        max_size = math.prod(self._tile_shape) * MAX_PIXEL_BYTES
        compressed = io.BytesIO(memoryview(self._table)[start:stop])
        size = 0
        with gzip.GzipFile(fileobj=compressed) as tile:
            while size <= max_size and (part := tile.read(READ_CHUNK)):
                size += len(part)
        if size > max_size:
            raise FitsImageError(
                f"a tile decompresses to more than the {max_size} bytes of its pixels"
            )


class CheckedSection:
    """A section of astropy whose gzip tiles are checked before they are decoded.

    Parameters
    ----------
    section : astropy section
        Decodes the required tiles.
    tiles : GzipTiles
        Gzip tiles of the same image.
    """

    def __init__(self, section: Any, tiles: GzipTiles) -> None:
        self._section, self._tiles = section, tiles

    def __getitem__(self, index: tuple[Any, ...]) -> NDArray[Any]:
        self._tiles.check(index)
        part: NDArray[Any] = self._section[index]
        return part


def _check_rice(header: Header) -> None:
    """Reject BYTEPIX values with which decoders read out of bounds."""
    for k in itertools.takewhile(
        lambda k: f"ZNAME{k}" in header.cards, itertools.count(1)
    ):
        if header.text(f"ZNAME{k}").upper() == "BYTEPIX":
            size = header.integer(f"ZVAL{k}", 4)
            if header.text("ZCMPTYPE").startswith("RICE") and size not in RICE_BYTES:
                raise FitsImageError(
                    f"the header is damaged: BYTEPIX of its RICE tiles is {size}; "
                    f"allowed are {', '.join(map(str, RICE_BYTES))}"
                )


def _decoding_header(hdu: Hdu) -> bytes:
    """The cards that decoding needs; the others would only cost astropy time."""
    raw = hdu.header.raw
    cards = (raw[start : start + CARD] for start in range(0, len(raw), CARD))
    needed = b"".join(card for card in cards if DECODING_KEYWORDS.match(card))
    return needed + b"END".ljust(CARD)


def _pad(data: bytes, filler: bytes) -> bytes:
    """Fill up to a multiple of the block size."""
    return data + filler * (-len(data) % BLOCK)


def _find_large_cells(hdu: Any, column: str) -> list[tuple[int, int, int]]:
    """Table row, first byte and the byte after the last of each large cell."""
    heap = hdu.fileinfo()["datLoc"] + hdu.header.get(
        "THEAP", hdu.header["NAXIS1"] * hdu.header["NAXIS2"]
    )
    # A view of the data: the column itself would copy every tile.
    cells = np.asarray(hdu.data).view(np.ndarray)[column].astype(np.int64)
    if cells.min(initial=0) < 0:  # Python counts negative offsets from the end
        raise FitsImageError("the file is damaged: a tile has a negative offset")
    item = ITEM_BYTES.get(hdu.columns[column].format.lstrip("1PQ")[:1], 1)
    large = np.flatnonzero(cells[:, 0] > SAFE_BYTES // item)
    cells_in_file = []
    for row in large.tolist():
        number, offset = cells[row].tolist()
        cells_in_file.append((row, heap + offset, heap + offset + number * item))
    return cells_in_file
