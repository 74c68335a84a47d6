"""FITS files as bytes: compression, headers, HDUs, stored values.

Only what stands before an image is read to find it, and nothing is believed
that the file's length contradicts. FITS Standard 4.0 (2018). Tile-compressed
images (its section 10) are decoded by astropy.
"""

import bz2
import gzip
import io
import itertools
import lzma
import math
import os
import re
import stat
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from astromorph.errors import FitsImageError
from astromorph.fits.gzip_tiles import CheckedSection, GzipTiles
from astromorph.fits.header import CARD, Header
from astromorph.fits.tile_decoder import Decoder

BLOCK = 2880
FIRST_READ = 3 * BLOCK
MAX_HEADER_BYTES = 2**24  # bytes; the longest in archives are below 2 MB
FARTHEST = 2**33  # bytes of a packed file that are unpacked to reach an HDU
ENDLESS = 2**63  # no file has such a byte
MAX_HDUS = 10_000
MAX_COLUMNS, MAX_AXES = 999, 16  # of a tiled image
TYPES = {8: ">u1", 16: ">i2", 32: ">i4", 64: ">i8", -32: ">f4", -64: ">f8"}
# Pixels that one byte can stand for: deflate reaches 1032, PLIO 4095 in two.
DENSEST = 2048
RICE_BYTES = (1, 2, 4)
TILE_KEYWORDS = re.compile(
    rb"(XTENSION|BITPIX|NAXIS\d*|[PG]COUNT|TFIELDS|THEAP|Z[A-Z]+\d*"
    rb"|T(TYPE|FORM|SCAL|ZERO|NULL|DIM)\d+|BSCALE|BZERO|BLANK) *="
)
DECODER = Decoder()


@dataclass(frozen=True)
class Hdu:
    """One header and where its data are.

    Attributes
    ----------
    number : int
        The primary one is 0.
    header : Header
        Its cards.
    shape : tuple of int
        Of the image, in numpy's order; empty where there is none.
    bitpix : int
        Stored type of the image.
    compressed : bool
        The image is stored in tiles, in a table.
    start, size : int
        First byte and number of bytes of the data.
    """

    number: int
    header: Header
    shape: tuple[int, ...]
    bitpix: int
    compressed: bool
    start: int
    size: int

    @property
    def name(self) -> str:
        """EXTNAME; ``PRIMARY`` where the first HDU has none."""
        name = self.header.text("EXTNAME").upper()
        return name or ("PRIMARY" if self.number == 0 else "")


@contextmanager
def open_fits(path: str | Path) -> Iterator[BinaryIO]:
    """Open a file, unpacked if it is compressed as a whole (by its first bytes).

    Whatever goes wrong inside becomes a `FitsImageError` that says why.
    """
    try:
        if not str(path):
            raise FitsImageError("the row of the list has an empty path")
        with (
            open(path, "rb", buffering=0, opener=_without_waiting) as file,
            _unpacked(_regular(file)) as unpacked,
        ):
            yield unpacked
    except FileNotFoundError:
        raise FitsImageError("there is no such file") from None
    except IsADirectoryError:
        raise FitsImageError(
            "this is a folder, not a FITS file; list its files"
        ) from None
    except FitsImageError:
        raise
    except Exception as error:  # whatever a decoder raises is the file's fault
        raise FitsImageError(_reason(error)) from None


@contextmanager
def decoding_errors() -> Iterator[None]:
    """Let astropy decode; whatever it raises or warns of is the file's fault."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except FitsImageError:
        raise
    except Exception as error:
        raise FitsImageError(_reason(error)) from None


def iterate_hdus(file: BinaryIO) -> Iterator[Hdu]:
    """The HDUs one after the other; each is read when it is asked for.

    Raises
    ------
    FitsImageError
        The file does not begin as a FITS file, a header is damaged, or a packed file
        would have to be unpacked too far.
    """
    start = 0
    for number in range(MAX_HDUS):
        raw = _header(file, start, number)
        if raw is None:
            return
        header = Header(raw)
        data = start + -(-(len(raw) + CARD) // BLOCK) * BLOCK
        hdu = _hdu(number, header, data)
        yield hdu
        start = data + -(-hdu.size // BLOCK) * BLOCK
        if start > FARTHEST and not isinstance(file, io.FileIO):
            raise FitsImageError(
                f"HDU {number} promises {hdu.size} bytes, more than are unpacked of a "
                f"compressed file ({FARTHEST}); unpack it, and list what you need"
            )
        if start >= ENDLESS:
            return


def stored_values(file: BinaryIO, hdu: Hdu) -> Any:
    """The stored values of an image, in numpy's order, not yet scaled.

    Parameters
    ----------
    file : binary file
        As `open_fits` gives it.
    hdu : Hdu
        Plain, not compressed in tiles.

    Returns
    -------
    ndarray, shape `hdu.shape`
        Mapped from the file where it can be, so that a cube is read plane by
        plane.

    Raises
    ------
    FitsImageError
        The file ends too early.
    """
    dtype = np.dtype(TYPES[hdu.bitpix])
    promised = math.prod(hdu.shape) * dtype.itemsize
    plain = isinstance(file, io.FileIO)
    there = os.fstat(file.fileno()).st_size - hdu.start if plain else None
    if there is not None and there < promised:
        raise _truncated(hdu.start + promised, hdu.start + there)
    if plain and len(hdu.shape) > 2:
        return np.memmap(
            cast(Any, file), dtype, mode="r", offset=hdu.start, shape=hdu.shape
        )
    file.seek(hdu.start)
    data = _exactly(file, promised)
    if len(data) < promised:
        raise _truncated(hdu.start + promised, hdu.start + len(data))
    return np.frombuffer(data, dtype).reshape(hdu.shape)


def refuse_truncated(file: BinaryIO, hdu: Hdu) -> None:
    """Compare a plain file's length with what its header promises.

    Raises
    ------
    FitsImageError
        The file ends too early.
    """
    if isinstance(file, io.FileIO):
        there = os.fstat(file.fileno()).st_size
        if there < hdu.start + hdu.size:
            raise _truncated(hdu.start + hdu.size, there)


def compressed_tiles(file: BinaryIO, hdu: Hdu) -> Any:
    """The pixels of a tile-compressed image, scaled, decoded by astropy.

    Returns
    -------
    CheckedSection or ndarray
        Sliced like an array, an index for each axis; decodes the tiles that are
        needed.

    Raises
    ------
    FitsImageError
        So few bytes cannot hold so many pixels, or the tiles do not cover them.
        Slicing raises it for a tile that holds more than its pixels.
    """
    from astropy.io import fits

    refuse_impossible_tiles(hdu)
    file.seek(hdu.start)
    data = _exactly(file, hdu.size)
    if len(data) < hdu.size:
        raise _truncated(hdu.start + hdu.size, hdu.start + len(data))
    with decoding_errors():
        primary = fits.PrimaryHDU().header.tostring().encode("ascii")
        table = primary + _padded(_tile_header(hdu), b" ") + _padded(data, b"\0")
        found = fits.open(io.BytesIO(table), memmap=False)[1]
        if not isinstance(found, fits.CompImageHDU):
            raise FitsImageError("the file is damaged: a tiled image without tiles")
        if found.shape != hdu.shape:
            raise FitsImageError("the file is damaged: its tiles have other sizes")
        algorithm = found.compression_type
        packed = GzipTiles(table, hdu.shape, found.tile_shape, algorithm)
        if not algorithm.startswith("HCOMPRESS"):
            return CheckedSection(found.section, packed)
        packed.refuse_bombs()
        pixels = DECODER.decode(table)
        if pixels.shape != hdu.shape:
            raise FitsImageError("the file is damaged: its tiles have other sizes")
        return pixels


def _without_waiting(path: str, flags: int) -> int:
    """Open a named pipe too at once, not when somebody writes to it."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _regular(file: io.FileIO) -> io.FileIO:
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        raise FitsImageError("this is a pipe, a socket or a device, not a file")
    return file


def _unpacked(file: io.FileIO) -> Any:
    """The file itself, or what unpacks it."""
    magic = file.read(6)
    file.seek(0)
    for start, unpack in UNPACKERS.items():
        if magic.startswith(start):
            return unpack(file)
    return file


def _lzw(file: io.FileIO) -> Any:
    """Unix ``compress``, file names in .Z."""
    import uncompresspy

    return uncompresspy.LZWFile(file)


def _zip(file: io.FileIO) -> Any:
    import zipfile

    archive = zipfile.ZipFile(file)
    names = [name for name in archive.namelist() if not name.endswith("/")]
    if len(names) != 1:
        raise FitsImageError(
            f"the zip archive holds {len(names)} files; unpack it and list each"
        )
    return archive.open(names[0])


UNPACKERS: dict[bytes, Callable[[Any], Any]] = {
    b"\x1f\x8b": lambda file: gzip.GzipFile(fileobj=file),
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ": lzma.LZMAFile,
    b"\x1f\x9d": _lzw,
    b"PK\x03\x04": _zip,
}


def _header(file: BinaryIO, start: int, number: int) -> bytes | None:
    """The cards before END; None behind the last HDU."""
    file.seek(start)
    # What is read of a compressed stream beyond a header would be unpacked again,
    # from the file's beginning, to reach the next.
    plain = isinstance(file, io.FileIO)
    raw = bytearray(file.read(FIRST_READ if plain else BLOCK))
    begin = b"SIMPLE  =" if number == 0 else b"XTENSION="
    if raw[:9] != begin:
        if number:
            return None  # what follows the last HDU is no concern of ours
        raise FitsImageError(
            "the file is empty" if not raw
            else "this is not a FITS file (its first bytes are not SIMPLE)"
        )  # fmt: skip
    scanned = 0
    while True:
        end = raw.find(b"END", scanned)
        while end >= 0 and (end % CARD or raw[end + 3 : end + 8].strip(b" \0")):
            end = raw.find(b"END", end + 1)
        if end >= 0:
            return bytes(raw[:end])
        scanned = len(raw) // CARD * CARD
        more = file.read(max(10 * BLOCK, len(raw)) if plain else BLOCK)
        raw += more
        if not more or len(raw) > MAX_HEADER_BYTES:
            raise FitsImageError(f"the header of HDU {number} has no END card")


def _hdu(number: int, header: Header, start: int) -> Hdu:
    axes = _axes(header, "NAXIS")
    bits = header.integer("BITPIX", 8)
    if bits not in TYPES:
        raise FitsImageError(
            f"the header is damaged: BITPIX is {bits}; allowed are "
            + ", ".join(map(str, TYPES))
        )
    groups = header.value("GROUPS") is True and axes[-1:] == (0,)
    elements = math.prod(axes[:-1] if groups else axes) if axes else 0
    size = abs(bits) // 8 * header.integer("GCOUNT", 1)
    size *= header.integer("PCOUNT", 0) + elements
    kind = "IMAGE" if number == 0 else header.text("XTENSION").upper()
    tiled = kind == "BINTABLE" and header.value("ZIMAGE") is True
    shape: tuple[int, ...] = ()
    if tiled:
        shape, bits = _axes(header, "ZNAXIS"), header.integer("ZBITPIX", 0)
        if bits not in TYPES:
            raise FitsImageError(f"the header is damaged: ZBITPIX is {bits}")
    elif kind in ("IMAGE", "IUEIMAGE") and not groups:
        shape = axes
    return Hdu(number, header, shape, bits, tiled, start, max(0, size))


def _axes(header: Header, keyword: str) -> tuple[int, ...]:
    """Lengths of the axes in numpy's order, the last one fastest."""
    number = header.integer(keyword, 0)
    if not 0 <= number <= 999:
        raise FitsImageError(f"the header is damaged: {keyword} is {number}")
    lengths = [header.integer(f"{keyword}{k}", -1) for k in range(number, 0, -1)]
    if min(lengths, default=0) < 0:
        at = number - next(k for k, length in enumerate(lengths) if length < 0)
        raise FitsImageError(f"the header is damaged: {keyword}{at} gives no length")
    return tuple(lengths)


def refuse_impossible_tiles(hdu: Hdu) -> None:
    """Hold what a tiled image's header promises against its tiles and bytes.

    Raises
    ------
    FitsImageError
        So few bytes cannot hold so many pixels, or the tiles do not cover them.
    """
    header, pixels = hdu.header, math.prod(hdu.shape)
    columns = header.integer("TFIELDS", 0)
    if not 1 <= columns <= MAX_COLUMNS or len(hdu.shape) > MAX_AXES:
        raise FitsImageError(
            f"the header is damaged: {columns} columns hold a tiled image of "
            f"{len(hdu.shape)} axes"
        )
    if pixels > DENSEST * max(hdu.size, 1):
        raise FitsImageError(
            f"the header promises {pixels} pixels, more than its {hdu.size} compressed "
            "bytes can hold"
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
    _refuse_impossible_rice(header)


def _refuse_impossible_rice(header: Header) -> None:
    """Bytes per pixel that no decoder knows are read from behind its memory."""
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


def _tile_header(hdu: Hdu) -> bytes:
    """The cards that decoding needs; astropy's time grows with all others."""
    raw = hdu.header.raw
    cards = (raw[at : at + CARD] for at in range(0, len(raw), CARD))
    return b"".join(c for c in cards if TILE_KEYWORDS.match(c)) + b"END".ljust(CARD)


def _padded(data: bytes, filler: bytes) -> bytes:
    return data + filler * (-len(data) % BLOCK)


def _exactly(file: BinaryIO, number: int) -> bytes:
    """Up to `number` bytes; what claims more takes no more memory than it has."""
    if isinstance(file, io.FileIO):
        number = min(number, os.fstat(file.fileno()).st_size - file.tell())
        piece = max(0, number)  # the system gives at most 2 GiB of it
    else:
        piece = 2**22
    parts, missing = [], number
    while missing > 0 and (part := file.read(min(missing, piece))):
        parts.append(part)
        missing -= len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _truncated(promised: int, found: int) -> FitsImageError:
    return FitsImageError(
        f"the file is truncated: {promised} bytes promised, {found} there"
    )


def _reason(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, PermissionError):
        return "the file may not be read: its permissions forbid it"
    if isinstance(error, MemoryError):
        return "there is not enough memory for it"
    return f"the file is damaged: {text[:200]}"


def scale_values(values: Any, hdu: Hdu) -> NDArray[np.float32]:
    """Physical values of stored ones: BSCALE, BZERO and, as NaN, BLANK.

    Parameters
    ----------
    values : ndarray
        As stored.
    hdu : Hdu
        Where they are from.

    Returns
    -------
    ndarray of float32
        Values beyond its range become infinite.
    """
    scale, zero = hdu.header.number("BSCALE"), hdu.header.number("BZERO")
    plain = scale in (None, 1.0) and not zero
    blank = hdu.header.value("BLANK") if hdu.bitpix > 0 else None
    exact = np.float64 if hdu.bitpix in (32, 64, -64) else np.float32
    with np.errstate(over="ignore", invalid="ignore"):
        pixels = values.astype(np.float32 if plain else exact)
        if not plain:
            pixels = pixels * exact(1 if scale is None else scale) + exact(zero or 0)
        pixels = pixels.astype(np.float32, copy=False)
    if isinstance(blank, int) and not isinstance(blank, bool):
        pixels[values == blank] = np.nan
    return cast(NDArray[np.float32], pixels)
