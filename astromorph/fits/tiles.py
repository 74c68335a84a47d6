"""Tile-compressed images (FITS Standard 4.0, section 10), decoded by astropy.

Sizes and parameters in the header are checked before anything is decoded. Tiles are
decoded in a separate process (`astromorph.fits.tile_decoder`).
"""

import itertools
import math
import re
from typing import BinaryIO

import numpy as np

from astromorph.errors import FitsImageError
from astromorph.fits.file import BLOCK, DTYPES, Hdu, read_data
from astromorph.fits.header import CARD, Header
from astromorph.fits.tile_decoder import MAX_RICE_BLOCK, RICE_BYTES, TiledImage

MAX_COLUMNS, MAX_AXES = 999, 16
# Pixels that one byte can represent: gzip repeats 1032 bytes, and RICE codes a block of
# equal pixels in 3 bits or more. HCOMPRESS and PLIO code any constant image in a few
# bytes; for them, only `max_pixels` is a limit.
GZIP_PIXELS_PER_BYTE, RICE_BLOCK_BITS = 1032, 3
UNLIMITED = ("HCOMPRESS", "PLIO")
DITHER_SEEDS = range(1, 10_001)
DECODING_KEYWORDS = re.compile(
    r"XTENSION|BITPIX|NAXIS\d*|[PG]COUNT|TFIELDS|THEAP|Z[A-Z]+\d*"
    r"|T(?:TYPE|FORM|SCAL|ZERO|NULL|DIM)\d+|BLANK"
)
DECODING_CARD = re.compile(rb"(%s) *= " % DECODING_KEYWORDS.pattern.encode())


def check_tiles(hdu: Hdu) -> None:
    """Compare the header of a tile-compressed image with its tiles and bytes.

    Raises
    ------
    FitsImageError
        The bytes cannot contain that many pixels, the tiles do not cover the image, or
        a parameter of the compression is not allowed.
    """
    header, pixels = hdu.header, math.prod(hdu.shape)
    header.check_cards(DECODING_KEYWORDS)
    columns = header.integer("TFIELDS", 0)
    if not 1 <= columns <= MAX_COLUMNS or len(hdu.shape) > MAX_AXES:
        raise FitsImageError(
            f"the header is damaged: a tiled image of {len(hdu.shape)} axes in "
            f"{columns} columns"
        )
    pixels_per_byte = _check_parameters(header)
    if pixels > pixels_per_byte * max(hdu.size, 1):
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
    _check_quantization(header, columns)


def open_tiles(file: BinaryIO, hdu: Hdu) -> TiledImage:
    """The stored pixels of a tile-compressed image that `check_tiles` accepts.

    Returns
    -------
    TiledImage
        Slicing it like an array, with an index for each axis, decodes the required
        tiles.

    Raises
    ------
    FitsImageError
        The file is truncated. Slicing raises it for damaged tiles.
    """
    from astropy.io import fits

    data = read_data(file, hdu.start, hdu.size)
    primary = fits.PrimaryHDU().header.tostring().encode("ascii")
    table = primary + _pad(_decoding_header(hdu), b" ") + _pad(data, b"\0")
    dtype = np.dtype(DTYPES[hdu.bitpix]).newbyteorder("=")
    return TiledImage(table, hdu.shape, dtype, hdu.header.text("ZCMPTYPE"))


def _check_parameters(header: Header) -> float:
    """Check the parameters of the compression.

    Returns
    -------
    float
        The maximum number of pixels that one byte can represent.
    """
    algorithm = header.text("ZCMPTYPE")
    if algorithm.startswith(UNLIMITED):
        return math.inf
    block = 32
    for k in itertools.count(1):
        name = header.text(f"ZNAME{k}").upper()
        if not name:
            break
        if not algorithm.startswith("RICE"):
            continue
        if name == "BYTEPIX" and header.integer(f"ZVAL{k}") not in RICE_BYTES:
            raise FitsImageError(
                f"the header is damaged: BYTEPIX of its RICE tiles is "
                f"{header.integer(f'ZVAL{k}')}; allowed are "
                f"{', '.join(map(str, RICE_BYTES))}"
            )
        if name == "BLOCKSIZE":
            block = header.integer(f"ZVAL{k}")
            if not 1 <= block <= MAX_RICE_BLOCK:
                raise FitsImageError(
                    f"the header is damaged: BLOCKSIZE of its RICE tiles is {block}; "
                    f"allowed are 1 to {MAX_RICE_BLOCK}"
                )
    return max(GZIP_PIXELS_PER_BYTE, block * 8 / RICE_BLOCK_BITS)


def _check_quantization(header: Header, columns: int) -> None:
    """Check how floating-point pixels were made integers."""
    names = {header.text(f"TTYPE{k}").upper() for k in range(1, columns + 1)}
    for keyword in ("ZSCALE", "ZZERO"):
        if keyword in header.cards and keyword not in names:
            raise FitsImageError(
                f"{keyword} is a keyword, and only a column of that name is supported; "
                "decompress the image with funpack"
            )
    if "ZSCALE" in names and _dithers(header):
        seed = header.integer("ZDITHER0")
        if seed not in DITHER_SEEDS:
            raise FitsImageError(
                f"the header is damaged: ZDITHER0 is {seed}; allowed are "
                f"{DITHER_SEEDS[0]} to {DITHER_SEEDS[-1]}"
            )


def _dithers(header: Header) -> bool:
    return header.text("ZQUANTIZ").startswith("SUBTRACTIVE_DITHER")


def _decoding_header(hdu: Hdu) -> bytes:
    """The cards that decoding needs; the others would only cost astropy time."""
    raw = hdu.header.raw
    cards = (raw[start : start + CARD] for start in range(0, len(raw), CARD))
    needed = [card for card in cards if DECODING_CARD.match(card)]
    if not _dithers(hdu.header):  # astropy would dither for ``NONE``
        needed = [card for card in needed if not card.startswith(b"ZQUANTIZ")]
    return b"".join(needed) + b"END".ljust(CARD)


def _pad(data: bytes, filler: bytes) -> bytes:
    """Fill up to a multiple of the block size."""
    return data + filler * (-len(data) % BLOCK)
