"""FITS files as bytes: compression, headers, HDUs and stored values.

To find the image, only the part of the file before it is read. Sizes in headers are
checked against the length of the file. FITS Standard 4.0 (2018).
Tile-compressed images are decoded in `astromorph.fits.tiles`.
"""

import bz2
import errno
import gzip
import io
import lzma
import math
import os
import stat
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from astromorph.errors import (
    FILE_PROBLEMS,
    NUL_IN_PATH,
    FitsImageError,
    describe_file_error,
)
from astromorph.fits.header import CARD, Header

BLOCK = 2880  # bytes
FIRST_READ = 3 * BLOCK
MAX_HEADER_BYTES = 2**24  # the longest headers in archives are below 2 MB
MAX_DECOMPRESSED = 2**33  # maximum bytes decompressed to reach an HDU
MAX_OFFSET = 2**63  # bytes; no file is longer
MAX_HDUS = 10_000
READ_CHUNK = 2**22  # bytes
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
            _decompress(_check_regular(file)) as decompressed,
        ):
            yield decompressed
    except IsADirectoryError:
        raise FitsImageError(
            "this is a folder, not a FITS file; list its files"
        ) from None
    except FitsImageError:
        raise
    except Exception as error:  # decoders raise errors of any class for damaged files
        if isinstance(error, OSError) and error.errno:  # those of decoders have none
            raise FitsImageError(describe_file_error(error, path)) from None
        raise FitsImageError(_explain(error)) from None


@contextmanager
def decoding_errors() -> Iterator[None]:
    """Turn every error of astropy in the body into a `FitsImageError`."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except FitsImageError:
        raise
    except Exception as error:  # decoders raise errors of any class for damaged files
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
        if start > MAX_DECOMPRESSED and not isinstance(file, io.FileIO):
            raise FitsImageError(
                f"its header gives HDU {number} a size of {hdu.size} bytes, above the "
                f"limit for compressed files ({MAX_DECOMPRESSED}); decompress it and "
                "list only the part you need"
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
    ndarray, shape `hdu.shape`
        Mapped from the file where possible, so that a cube is read plane by plane.

    Raises
    ------
    FitsImageError
        The file is truncated.
    """
    dtype = np.dtype(DTYPES[hdu.bitpix])
    required = math.prod(hdu.shape) * dtype.itemsize
    uncompressed = isinstance(file, io.FileIO)
    if uncompressed:
        available = os.fstat(file.fileno()).st_size - hdu.start
        if available < required:
            raise _truncated_error(hdu.start + required, hdu.start + available)
        if len(hdu.shape) > 2:
            return np.memmap(
                cast(Any, file), dtype, mode="r", offset=hdu.start, shape=hdu.shape
            )
    data = read_data(file, hdu.start, required)
    return np.frombuffer(data, dtype).reshape(hdu.shape)


def scale_values(values: Any, hdu: Hdu) -> NDArray[np.float32]:
    """Physical values: BSCALE and BZERO are applied, BLANK becomes NaN.

    Parameters
    ----------
    values : ndarray
        Stored values.
    hdu : Hdu
        The HDU that contains them.

    Returns
    -------
    ndarray of float32
        Values outside the range of float32 become infinite.
    """
    scale, zero = hdu.header.number("BSCALE"), hdu.header.number("BZERO")
    unscaled = scale in (None, 1.0) and not zero
    blank = hdu.header.value("BLANK") if hdu.bitpix > 0 else None
    dtype = np.float64 if hdu.bitpix in (32, 64, -64) else np.float32
    with np.errstate(over="ignore", invalid="ignore"):
        pixels = values.astype(np.float32 if unscaled else dtype)
        if not unscaled:
            pixels = pixels * dtype(1 if scale is None else scale) + dtype(zero or 0)
        pixels = pixels.astype(np.float32, copy=False)
    if isinstance(blank, int) and not isinstance(blank, bool):
        pixels[values == blank] = np.nan
    return cast(NDArray[np.float32], pixels)


def check_length(file: BinaryIO, hdu: Hdu) -> None:
    """Compare the length of an uncompressed file with the sizes in its header.

    Raises
    ------
    FitsImageError
        The file is truncated.
    """
    if isinstance(file, io.FileIO):
        length = os.fstat(file.fileno()).st_size
        if length < hdu.start + hdu.size:
            raise _truncated_error(hdu.start + hdu.size, length)


def read_data(file: BinaryIO, start: int, size: int) -> bytes:
    """Read `size` bytes; no memory is allocated beyond the end of the file.

    Raises
    ------
    FitsImageError
        The file is truncated.
    """
    file.seek(start)
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


def _open_nonblocking(path: str, flags: int) -> int:
    """Open a file without blocking, even if it is a named pipe."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _check_regular(file: io.FileIO) -> io.FileIO:
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        raise FitsImageError(FILE_PROBLEMS[errno.ENXIO])
    return file


def _decompress(file: io.FileIO) -> Any:
    """The file itself, or a file object that decompresses it."""
    magic = file.read(6)
    if magic is None:  # reading would wait: some files below /proc
        raise FitsImageError("this is a device of the system, not a file")
    file.seek(0)
    for start, decompress in DECOMPRESSORS.items():
        if magic.startswith(start):
            return decompress(file)
    return file


def _open_lzw(file: io.FileIO) -> Any:
    """Unix ``compress``, files that end in .Z."""
    import uncompresspy

    return uncompresspy.LZWFile(file)


def _open_zip(file: io.FileIO) -> Any:
    import zipfile

    archive = zipfile.ZipFile(file)
    names = [name for name in archive.namelist() if not name.endswith("/")]
    if len(names) != 1:
        raise FitsImageError(
            f"the zip archive contains {len(names)} files; unpack it and list each"
        )
    return archive.open(names[0])


DECOMPRESSORS: dict[bytes, Callable[[Any], Any]] = {
    b"\x1f\x8b": lambda file: gzip.GzipFile(fileobj=file),
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ": lzma.LZMAFile,
    b"\x1f\x9d": _open_lzw,
    b"PK\x03\x04": _open_zip,
}


def _read_header(file: BinaryIO, start: int, number: int) -> bytes | None:
    """The cards before END; None after the last HDU."""
    file.seek(start)
    # From a compressed stream, only the header is read: seeking back to the next header
    # would decompress the stream again from the beginning.
    uncompressed = isinstance(file, io.FileIO)
    raw = bytearray(file.read(FIRST_READ if uncompressed else BLOCK))
    first_bytes = b"SIMPLE  =" if number == 0 else b"XTENSION="
    if raw[:9] != first_bytes:
        if number:
            return None  # other bytes may follow the last HDU
        if not raw:
            raise FitsImageError("the file is empty")
        raise FitsImageError("this is not a FITS file (its first bytes are not SIMPLE)")
    scanned = 0
    while True:
        end = raw.find(b"END", scanned)
        while end >= 0 and (end % CARD or raw[end + 3 : end + 8].strip(b" \0")):
            end = raw.find(b"END", end + 1)
        if end >= 0:
            return bytes(raw[:end])
        scanned = len(raw) // CARD * CARD
        more = file.read(max(10 * BLOCK, len(raw)) if uncompressed else BLOCK)
        raw += more
        if not more or len(raw) > MAX_HEADER_BYTES:
            raise FitsImageError(f"the header of HDU {number} has no END card")


def _parse_hdu(number: int, header: Header, start: int) -> Hdu:
    axes = _axis_lengths(header, "NAXIS")
    bitpix = header.integer("BITPIX", 8)
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
        shape, bitpix = _axis_lengths(header, "ZNAXIS"), header.integer("ZBITPIX", 0)
        if bitpix not in DTYPES:
            raise FitsImageError(f"the header is damaged: ZBITPIX is {bitpix}")
    elif extension in ("IMAGE", "IUEIMAGE") and not random_groups:
        shape = axes
    return Hdu(number, header, shape, bitpix, compressed, start, max(0, size))


def _axis_lengths(header: Header, keyword: str) -> tuple[int, ...]:
    """Lengths of the axes NAXIS1, NAXIS2, ... in numpy order."""
    number = header.integer(keyword, 0)
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
