"""FITS files as bytes: headers, HDUs, stored and scaled values.

To find the image, only the part of the file before it is read. Sizes in headers are
checked against the length of the file. Files are read into memory and never mapped: a
mapped file that another program truncates ends the process. FITS Standard 4.0 (2018).
Compressed files are decompressed in `astromorph.fits.decompress`.
Tile-compressed images are decoded in `astromorph.fits.tiles`.
"""

import errno
import io
import itertools
import math
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from astromorph.errors import (
    FILE_PROBLEMS,
    NUL_IN_PATH,
    FitsImageError,
    describe_file_error,
)
from astromorph.fits.decompress import has_check_sum, open_compressed
from astromorph.fits.header import CARD, Header
from astromorph.fits.pixels import Pixels

BLOCK = 2880  # bytes
FIRST_READ = 3 * BLOCK
MAX_HEADER_BYTES = 2**24  # the longest headers in archives are below 2 MB
# Maximum bytes decompressed to reach an HDU. A mosaic of many detectors compresses to
# more than a hundredth. A file that is mostly zeros may have a quarter of a gigabyte of
# them, which takes a second; otherwise a few kilobytes would take minutes.
MAX_DECOMPRESSED = 2**33
MIN_DECOMPRESSED, MAX_COMPRESSION = 2**28, 100
MAX_OFFSET = 2**63  # bytes; no file is longer
MAX_HDUS = 10_000
READ_CHUNK = 2**22  # bytes
SCALED_VALUES = 2**20  # 64-bit integers that are scaled at a time
# Limits within which scaling integers of up to 16 bits in float32 adds an error of less
# than 1 % of a step: of BSCALE, and of BZERO divided by BSCALE.
FLOAT32_SCALES, MAX_FLOAT32_ZERO = (1e-30, 1e30), 2**16
END = re.compile(rb"END[ \0]{5}")  # the END card; some programs fill it with zeros
FIRST_CARDS = (b"SIMPLE  =", b"XTENSION=")
DTYPES = {8: ">u1", 16: ">i2", 32: ">i4", 64: ">i8", -32: ">f4", -64: ">f8"}


@dataclass(frozen=True)
class Hdu:
    """A header and the location of its data.

    Attributes
    ----------
    number : int
        The primary HDU is 0.
    header : Header
        Its cards.
    shape : tuple of int
        Shape of the image, in numpy order; empty if there is none.
    bitpix : int
        Stored type of the image.
    compressed : bool
        Whether the image is stored in tiles in a table.
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
        """EXTNAME; ``PRIMARY`` if the first HDU has none."""
        name = self.header.text("EXTNAME").upper()
        return name or ("PRIMARY" if self.number == 0 else "")


@contextmanager
def open_fits(path: str | Path) -> Iterator[BinaryIO]:
    """Open a file, and decompress it if its first bytes show a compression format.

    Raises
    ------
    FitsImageError
        Any error in the body, with its reason.
    """
    try:
        if not str(path):
            raise FitsImageError("the row of the list has an empty path")
        if "\0" in str(path):
            raise FitsImageError(NUL_IN_PATH)
        with (
            open(path, "rb", buffering=0, opener=_open_nonblocking) as file,
            open_compressed(_check_regular(file)) as decompressed,
        ):
            yield decompressed
    except IsADirectoryError:
        raise FitsImageError(
            "this is a folder, not a FITS file; list its files"
        ) from None
    except FitsImageError:
        raise
    except Exception as error:  # decoders raise errors of any class for damaged files
        # Those of decoders have no number, or that of an impossible offset.
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise FitsImageError(describe_file_error(error, path)) from None
        raise FitsImageError(_explain(error)) from None


def iterate_hdus(file: BinaryIO) -> Iterator[Hdu]:
    """Yield the HDUs of a file in order, each read on demand.

    Raises
    ------
    FitsImageError
        The file does not begin like a FITS file, a header is damaged, or too much of a
        compressed file would have to be decompressed.
    """
    start = 0
    for number in range(MAX_HDUS):
        raw = _read_header(file, start, number)
        if raw is None:
            return
        header = Header(raw)
        data = start + -(-(len(raw) + CARD) // BLOCK) * BLOCK
        hdu = _parse_hdu(number, header, data)
        yield hdu
        start = data + -(-hdu.size // BLOCK) * BLOCK
        if not isinstance(file, io.FileIO) and start > (limit := _skip_limit(file)):
            raise FitsImageError(
                f"its header gives HDU {number} a size of {hdu.size} bytes, above the "
                f"limit for compressed files of this length ({limit}); decompress it "
                "or list only the part you need"
            )
        if start >= MAX_OFFSET:
            return


def stored_values(file: BinaryIO, hdu: Hdu) -> Any:
    """The stored values of an image, in numpy order and not scaled.

    Parameters
    ----------
    file : binary file
        Opened by `open_fits`.
    hdu : Hdu
        Not tile-compressed.

    Returns
    -------
    ndarray or StoredPlanes
        Of shape `hdu.shape`; a cube of an uncompressed file is read plane by plane.

    Raises
    ------
    FitsImageError
        The file is truncated.
    """
    dtype = np.dtype(DTYPES[hdu.bitpix])
    if isinstance(file, io.FileIO) and len(hdu.shape) > 2:
        return StoredPlanes(file, hdu)
    data = read_data(file, hdu.start, _image_bytes(hdu))
    return np.frombuffer(data, dtype).reshape(hdu.shape)


class StoredPlanes:
    """The stored values of a cube, which are read when it is indexed.

    Parameters
    ----------
    file : io.FileIO
        The uncompressed file.
    hdu : Hdu
        The cube, in numpy order.
    """

    def __init__(self, file: io.FileIO, hdu: Hdu) -> None:
        self._file, self._hdu = file, hdu
        self._dtype = np.dtype(DTYPES[hdu.bitpix])
        self._leading: tuple[int, ...] | None = None
        self._part = np.empty(0, self._dtype)

    def __getitem__(self, index: tuple[Any, ...]) -> NDArray[Any]:
        """Part of the cube; the contiguous values that contain it are read once.

        Raises
        ------
        FitsImageError
            The file is truncated.
        """
        leading = tuple(itertools.takewhile(lambda i: isinstance(i, int), index))
        if leading != self._leading:
            n = len(leading)
            shape = self._hdu.shape[n:]
            size = math.prod(shape) * self._dtype.itemsize
            number = 0
            for length, position in zip(self._hdu.shape[:n], leading, strict=True):
                number = number * length + position
            data = read_data(self._file, self._hdu.start + number * size, size)
            self._part = np.frombuffer(data, self._dtype).reshape(shape)
            self._leading = leading
        part: NDArray[Any] = self._part[index[len(leading) :]]
        return part


@dataclass(frozen=True)
class Scaling:
    """How stored values become physical ones: ``zero + scale * stored``.

    Attributes
    ----------
    scale, zero : int or float
        BSCALE and BZERO.
    blank : int or None
        The stored integer of pixels without a value.
    """

    scale: int | float
    zero: int | float
    blank: int | None


def read_scaling(hdu: Hdu) -> Scaling:
    """BSCALE, BZERO and BLANK of an image.

    Raises
    ------
    FitsImageError
        One of them is present and not a number, or has two values.
    """
    header = hdu.header
    blank = None
    if hdu.bitpix > 0:  # BLANK has no meaning for floating point
        tiled = hdu.compressed and "ZBLANK" in header.cards
        keyword = "ZBLANK" if tiled else "BLANK"
        header.check_cards(re.compile(keyword))
        header.check_repetition(keyword)
        text = header.cards.get(keyword, "").partition("/")[0].strip()
        value = header.value(keyword)
        if text and (isinstance(value, bool) or not isinstance(value, int)):
            raise FitsImageError(
                f"the header is damaged: {keyword} is {text[:30]!r}, not an integer"
            )
        blank = value if isinstance(value, int) else None
    return Scaling(header.real("BSCALE", 1), header.real("BZERO", 0), blank)


def scale_values(values: Any, hdu: Hdu) -> Pixels:
    """Physical values: BSCALE and BZERO are applied, BLANK becomes NaN.

    Parameters
    ----------
    values : ndarray
        Stored values.
    hdu : Hdu
        The HDU that contains them.

    Returns
    -------
    ndarray of float32 or float64
        The smaller type that represents all values that the HDU can contain.

    Raises
    ------
    FitsImageError
        BSCALE, BZERO or BLANK is not a number.
    """
    scaling = read_scaling(hdu)
    dtype = _scaled_dtype(hdu.bitpix, scaling)
    pixels: Any
    with np.errstate(over="ignore", invalid="ignore"):
        if scaling.scale == 1 and scaling.zero == 0:
            pixels = values.astype(dtype)
        elif hdu.bitpix == 64:
            pixels = _scale_int64(values, scaling)
        else:
            pixels = values.astype(dtype) * dtype(float(scaling.scale))
            pixels += dtype(float(scaling.zero))
    if scaling.blank is not None:
        pixels[values == scaling.blank] = np.nan
    scaled: Pixels = pixels
    return scaled


def _scaled_dtype(bitpix: int, scaling: Scaling) -> type[np.float32 | np.float64]:
    """The type in which stored values are scaled."""
    if bitpix in (32, 64, -64):
        return np.float64
    if scaling.scale == 1 and scaling.zero == 0:
        return np.float32
    scale, zero = abs(scaling.scale), abs(scaling.zero)
    smallest, largest = FLOAT32_SCALES
    precise = smallest < scale < largest and zero <= MAX_FLOAT32_ZERO * scale
    return np.float32 if bitpix > 0 and precise else np.float64


def _scale_int64(values: Any, scaling: Scaling) -> NDArray[np.float64]:
    """Scaled 64-bit integers without the rounding of 2**63 plus a small number.

    Upper and lower half are scaled separately, so that large numbers cancel before the
    small ones are added.
    """
    scale, zero = float(scaling.scale), scaling.zero
    low_zero: int | float = 0
    if zero == int(zero):
        low_zero = int(zero) & 0xFFFFFFFF
        zero = int(zero) - low_zero
    pixels = np.empty(values.shape, np.float64)
    rows = max(1, SCALED_VALUES // max(1, math.prod(values.shape[1:])))
    for start in range(0, len(values), rows):
        part = values[start : start + rows].astype(np.int64)
        high, low = part >> 32, part & 0xFFFFFFFF
        upper = high * (scale * 2.0**32) + float(zero)
        pixels[start : start + rows] = upper + (low * scale + float(low_zero))
    return pixels


def check_length(file: BinaryIO, hdu: Hdu) -> None:
    """Compare the length of an uncompressed file with the sizes in its header.

    The image needs its pixels even if PCOUNT and GCOUNT make the HDU smaller.

    Raises
    ------
    FitsImageError
        The file is truncated.
    """
    if isinstance(file, io.FileIO):
        length = os.fstat(file.fileno()).st_size
        required = hdu.start + max(hdu.size, _image_bytes(hdu))
        if length < required:
            raise _truncated_error(required, length)


def check_to_end(file: BinaryIO) -> None:
    """Decompress the rest of a compressed file, which compares its check sum.

    The format of Unix ``compress`` (.Z) has none. There, a wrong code nearly always
    changes the length, which must be that of complete FITS blocks.

    Raises
    ------
    FitsImageError
        The rest is too long for a file of its length, or the length is wrong. Damage
        raises errors of several classes, for which `open_fits` has words.
    """
    if isinstance(file, io.FileIO):
        return
    limit, rest = _skip_limit(file), 0
    while part := file.read(READ_CHUNK):
        rest += len(part)
        if rest > limit:
            raise FitsImageError(
                f"after its image, it decompresses to more than {limit} bytes, the "
                "limit for compressed files of this length; decompress it or list only "
                "the part you need"
            )
    if not has_check_sum(file) and (length := file.tell()) % BLOCK:
        raise FitsImageError(
            f"the file is damaged: it decompresses to {length} bytes, which is not a "
            f"multiple of {BLOCK}"
        )


def read_data(file: BinaryIO, start: int, size: int) -> bytes:
    """Read `size` bytes; no memory is allocated beyond the end of the file.

    Raises
    ------
    FitsImageError
        The file is truncated.
    """
    _seek(file, start)
    limit, chunk = size, READ_CHUNK
    if isinstance(file, io.FileIO):
        limit = min(size, os.fstat(file.fileno()).st_size - start)
        chunk = max(0, limit)  # the system reads at most 2 GiB of it at once
    parts, missing = [], limit
    while missing > 0 and (part := file.read(min(missing, chunk))):
        parts.append(part)
        missing -= len(part)
    data = parts[0] if len(parts) == 1 else b"".join(parts)
    if len(data) < size:
        raise _truncated_error(start + size, start + len(data))
    return data


def _seek(file: BinaryIO, offset: int) -> None:
    """Move to an offset, or to the end of the file if it is beyond.

    File systems report offsets that no file can have as invalid arguments.
    """
    if isinstance(file, io.FileIO):
        offset = min(offset, os.fstat(file.fileno()).st_size)
    file.seek(offset)


def _open_nonblocking(path: str, flags: int) -> int:
    """Open a file without blocking, even if it is a named pipe."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _check_regular(file: io.FileIO) -> io.FileIO:
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        raise FitsImageError(FILE_PROBLEMS[errno.ENXIO])
    return file


def _skip_limit(file: BinaryIO) -> int:
    """Maximum bytes that are decompressed to reach an HDU of a compressed file."""
    compressed = os.fstat(file.fileno()).st_size
    return min(MAX_DECOMPRESSED, max(MIN_DECOMPRESSED, MAX_COMPRESSION * compressed))


def _image_bytes(hdu: Hdu) -> int:
    """Bytes of the stored values; 0 for tiles, whose size only the table knows."""
    if hdu.compressed or not hdu.shape:
        return 0
    return math.prod(hdu.shape) * np.dtype(DTYPES[hdu.bitpix]).itemsize


def _read_header(file: BinaryIO, start: int, number: int) -> bytes | None:
    """The cards before END; None after the last HDU."""
    _seek(file, start)
    # From a compressed stream, only the header is read: seeking back to the next header
    # would decompress the stream again from the beginning.
    uncompressed = isinstance(file, io.FileIO)
    raw = bytearray(file.read(FIRST_READ if uncompressed else BLOCK))
    if raw[:9] != FIRST_CARDS[number > 0]:
        if number:
            return None  # other bytes may follow the last HDU
        if not raw:
            raise FitsImageError("the file is empty")
        raise FitsImageError("this is not a FITS file (its first bytes are not SIMPLE)")
    scanned = 0
    while True:
        ends = (match.start() for match in END.finditer(raw, scanned))
        end = next((end for end in ends if end % CARD == 0), None)
        header = raw if end is None else raw[:end]
        blocks = range(max(BLOCK, scanned // BLOCK * BLOCK), len(header), BLOCK)
        if any(header[k : k + 9] in FIRST_CARDS for k in blocks):
            raise FitsImageError(
                f"the header of HDU {number} has no END card before the next HDU begins"
            )
        if end is not None:
            return bytes(header)
        scanned = len(raw) // CARD * CARD
        more = file.read(max(10 * BLOCK, len(raw)) if uncompressed else BLOCK)
        raw += more
        if not more or len(raw) > MAX_HEADER_BYTES:
            raise FitsImageError(f"the header of HDU {number} has no END card")


def _parse_hdu(number: int, header: Header, start: int) -> Hdu:
    axes = _axis_lengths(header, "NAXIS")
    bitpix = header.integer("BITPIX")
    if bitpix not in DTYPES:
        raise FitsImageError(
            f"the header is damaged: BITPIX is {bitpix}; allowed are "
            + ", ".join(map(str, DTYPES))
        )
    random_groups = header.value("GROUPS") is True and axes[-1:] == (0,)
    elements = math.prod(axes[:-1] if random_groups else axes) if axes else 0
    size = abs(bitpix) // 8 * header.integer("GCOUNT", 1)
    size *= header.integer("PCOUNT", 0) + elements
    extension = "IMAGE" if number == 0 else header.text("XTENSION").upper()
    compressed = extension == "BINTABLE" and header.value("ZIMAGE") is True
    shape: tuple[int, ...] = ()
    if compressed:
        shape, bitpix = _axis_lengths(header, "ZNAXIS"), header.integer("ZBITPIX")
        if bitpix not in DTYPES:
            raise FitsImageError(f"the header is damaged: ZBITPIX is {bitpix}")
    elif extension in ("IMAGE", "IUEIMAGE") and not random_groups:
        shape = axes
    return Hdu(number, header, shape, bitpix, compressed, start, max(0, size))


def _axis_lengths(header: Header, keyword: str) -> tuple[int, ...]:
    """Lengths of the axes NAXIS1, NAXIS2, ... in numpy order."""
    number = header.integer(keyword)
    if not 0 <= number <= 999:
        raise FitsImageError(f"the header is damaged: {keyword} is {number}")
    lengths = [header.integer(f"{keyword}{k}", -1) for k in range(number, 0, -1)]
    if min(lengths, default=0) < 0:
        axis = number - next(k for k, length in enumerate(lengths) if length < 0)
        raise FitsImageError(
            f"the header is damaged: {keyword}{axis} is missing or negative"
        )
    return tuple(lengths)


def _truncated_error(required: int, available: int) -> FitsImageError:
    return FitsImageError(
        f"the file is truncated: its header requires {required} bytes, it has "
        f"{available}"
    )


def _explain(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, MemoryError):
        return "there is not enough memory to read it"
    return f"the file is damaged: {text[:200]}"
