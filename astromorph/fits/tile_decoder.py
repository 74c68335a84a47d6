"""A separate process that decodes tile-compressed images and may crash.

The decoders (those of cfitsio, called by astropy) trust their data. This process guards
them (`guard_decoders`): what they rely on is checked first, and the compressed bytes of
a tile lie directly before memory that cannot be read. Damaged data therefore give an
error, or end the process, but never pixels from other memory. If that happens, the file
is rejected with a reason, and the next one is decoded by a copy of the first process.

Messages in both directions consist of one byte for the kind, eight bytes each for a
number and the length, and the data. Replies repeat the number of the request, so that
they are never taken for those of another one.
"""

import atexit
import contextlib
import fcntl
import io
import itertools
import json
import math
import mmap
import os
import select
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import zlib
from collections.abc import Sequence
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from astromorph.errors import FitsImageError

MESSAGE_HEADER = struct.Struct("<cQQ")
TABLE, SECTION = b"t", b"s"  # requests
PIXELS, ERROR, SIGNAL = b"p", b"e", b"k"  # replies
# Signals that the decoders themselves cause, while they decode.
OWN_SIGNALS = (signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGABRT)
PIPE_BYTES = 2**20  # fewer changes between the processes than with 64 kB
MAX_PIXEL_BYTES = 8
MAX_C_INT = 2**31 - 1
RICE_BYTES, MAX_RICE_BLOCK = (1, 2, 4), 4096
PLIO_HEADER_WORDS, PLIO_SET_HIGH = 7, 1
HCOMPRESS_HEADER = struct.Struct(">2sii12x3B")
HCOMPRESS_MAGIC, MAX_BIT_PLANES = b"\xdd\x99", 62
QUANTIZED_BYTES = (1, 2, 4)


class TiledImage:
    """A tile-compressed image whose parts are decoded when it is indexed.

    Parameters
    ----------
    table : bytes
        A FITS file whose first extension is the table of the tiles.
    shape : tuple of int
        Shape of the image, in numpy order.
    dtype : numpy dtype
        Type of its pixels before scaling.
    algorithm : str
        Its compression, for messages.
    """

    _numbers = itertools.count(1)

    def __init__(
        self, table: bytes, shape: tuple[int, ...], dtype: Any, algorithm: str
    ) -> None:
        self.table, self.shape = table, shape
        self.dtype: np.dtype[Any] = np.dtype(dtype)
        self.algorithm = algorithm
        self.number = next(self._numbers)

    def __getitem__(self, index: tuple[Any, ...]) -> NDArray[Any]:
        """The stored pixels of a part, with an integer or a slice for each axis.

        Raises
        ------
        FitsImageError
            They cannot be decoded.
        """
        return DECODER.decode(self, index)


class TileDecoder:
    """Sends tables to a process that is started on demand and after a crash."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._loaded = self._number = 0
        self._lock = threading.Lock()
        atexit.register(self.close)
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._forget)

    def decode(self, image: TiledImage, index: tuple[Any, ...]) -> NDArray[Any]:
        """Decode a part of an image.

        Parameters
        ----------
        image : TiledImage
            The image.
        index : tuple of int and slice
            The part, with an item for each axis; slices have no step.

        Returns
        -------
        ndarray
            The stored pixels; NaN where a floating-point image has none.

        Raises
        ------
        FitsImageError
            The image cannot be decoded.
        """
        spans = [
            i if isinstance(i, int) else i.indices(length)[:2]
            for i, length in zip(index, image.shape, strict=True)
        ]
        shape = [max(0, s[1] - s[0]) for s in spans if not isinstance(s, int)]
        pixels = np.empty(shape, image.dtype)
        request = json.dumps({"shape": image.shape, "index": spans}).encode()
        with self._lock:
            try:
                kind, data = self._request(image, request, pixels)
            except (OSError, EOFError):
                kind, data = SIGNAL, b"0"
            if kind == SIGNAL:
                self._loaded = 0
                if int(data) not in OWN_SIGNALS:  # it can have left half a message
                    self.close()
        if kind == SIGNAL:
            raise _signal_error(image.algorithm, int(data))
        if kind == ERROR:
            raise FitsImageError(data.decode("utf-8", "replace"))
        return pixels

    def close(self) -> None:
        """End the process."""
        process, self._process, self._loaded = self._process, None, 0
        if process is not None:
            process.kill()
            process.wait()
            _close_pipes(process)

    def _forget(self) -> None:
        """In a forked process: leave the decoder to the process that started it."""
        process, self._process, self._loaded = self._process, None, 0
        self._lock = threading.Lock()
        if process is not None:
            process.returncode = 0
            _close_pipes(process)

    def _start(self) -> "subprocess.Popen[bytes]":
        self._process = subprocess.Popen(
            [sys.executable, "-m", "astromorph.fits.tile_decoder"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        if hasattr(fcntl, "F_SETPIPE_SZ"):
            for pipe in (self._process.stdin, self._process.stdout):
                with contextlib.suppress(OSError):  # the limit of the user is lower
                    fcntl.fcntl(pipe or 0, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        return self._process

    def _request(
        self, image: TiledImage, request: bytes, pixels: NDArray[Any]
    ) -> tuple[bytes, bytes]:
        """Send a request; the pixels of the reply are written to `pixels`."""
        waiting = self._process and self._process.stdout
        # Without a request, only the end of the process leaves something to read.
        if waiting and select.select([waiting], [], [], 0)[0]:
            self.close()
        process = self._process or self._start()
        if process.stdin is None or process.stdout is None:
            raise EOFError
        if self._loaded != image.number:
            send(process.stdin, TABLE, 0, image.table)
            self._loaded = image.number
        self._number += 1
        send(process.stdin, SECTION, self._number, request)
        kind, number, length = receive_header(process.stdout)
        while number != self._number and kind != SIGNAL:  # for a request before a crash
            receive_data(process.stdout, length)
            kind, number, length = receive_header(process.stdout)
        if kind != PIXELS:
            return kind, receive_data(process.stdout, length)
        if length != pixels.nbytes:
            raise EOFError
        target = _as_bytes(pixels)
        done = 0
        while done < length:
            part = process.stdout.readinto(target[done:])  # type: ignore[attr-defined]
            if not part:
                raise EOFError
            done += part
        return kind, b""


def send(pipe: IO[bytes], kind: bytes, number: int, data: Any) -> None:
    """Write one message."""
    pipe.write(MESSAGE_HEADER.pack(kind, number, len(data)))
    pipe.write(data)
    pipe.flush()


def receive_header(pipe: IO[bytes]) -> tuple[bytes, int, int]:
    """Read the kind, the number and the length of a message.

    Raises
    ------
    EOFError
        The other process has ended.
    """
    header = receive_data(pipe, MESSAGE_HEADER.size)
    kind, number, length = MESSAGE_HEADER.unpack(header)
    return kind, number, length


def receive_data(pipe: IO[bytes], length: int) -> bytes:
    """Read the data of a message.

    Raises
    ------
    EOFError
        The other process has ended.
    """
    data = pipe.read(length)
    if len(data) < length:
        raise EOFError
    return data


def _as_bytes(pixels: Any) -> memoryview:
    """The memory of an array."""
    return memoryview(pixels.reshape(-1).view(np.uint8))


def _close_pipes(process: "subprocess.Popen[bytes]") -> None:
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):  # a request that could not be sent
                pipe.close()


def _signal_error(algorithm: str, number: int) -> FitsImageError:
    if number not in OWN_SIGNALS:
        return FitsImageError(
            f"its {algorithm} tiles could not be decoded: the decoder was stopped from "
            "outside; if memory ran out, set a smaller `data_settings.max_pixels` or "
            "use more memory"
        )
    return FitsImageError(
        f"the file is damaged: its {algorithm} tiles cannot be decoded"
    )


class Fence:
    """Memory for compressed bytes, directly followed by memory that cannot be read.

    The memory is that of a file that is mapped and then shortened: reading behind the
    end of the file ends the process with SIGBUS (POSIX, mmap).
    """

    def __init__(self) -> None:
        self._size = 0
        self._grow(2**20)

    def place(self, data: bytes) -> NDArray[np.uint8]:
        """Copy bytes to the end of the memory.

        Returns
        -------
        ndarray, uint8
            Read-only and valid until the next call.
        """
        if len(data) > self._size:
            self._grow(2 * len(data))
        start = self._size - len(data)
        self._memory[start : self._size] = data
        placed = np.frombuffer(self._memory, np.uint8, len(data), start)
        placed.flags.writeable = False
        return placed

    def _grow(self, size: int) -> None:
        self._size = -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
        with tempfile.TemporaryFile() as file:
            descriptor = file.fileno()
            if hasattr(os, "memfd_create"):
                descriptor = os.memfd_create("tiles")
            os.ftruncate(descriptor, self._size + mmap.PAGESIZE)
            self._memory = mmap.mmap(descriptor, self._size + mmap.PAGESIZE)
            os.ftruncate(descriptor, self._size)
            if descriptor != file.fileno():
                os.close(descriptor)


class GuardedDecoders:
    """The decoders of astropy with checks of what they rely on.

    Attributes
    ----------
    max_tile_bytes : int
        Size of a tile; gzip tiles decompress to at most so many bytes.
    """

    def __init__(self) -> None:
        from astropy.io.fits.hdu.compressed import _codecs, _quantization

        self.max_tile_bytes = 0
        self._fence = Fence()
        self._rice = _codecs.decompress_rice_1_c
        self._plio = _codecs.decompress_plio_1_c
        self._hcompress = _codecs.decompress_hcompress_1_c
        self._unquantize = {
            name: getattr(_quantization, name)
            for name in ("unquantize_float_c", "unquantize_double_c")
        }
        _codecs.decompress_rice_1_c = self.rice
        _codecs.decompress_plio_1_c = self.plio
        _codecs.decompress_hcompress_1_c = self.hcompress
        _codecs.gzip_decompress = self.gunzip
        for name, decode in self._unquantize.items():
            setattr(_quantization, name, _check_dither(decode))

    def rice(self, data: bytes, block: int, pixel_bytes: int, pixels: int) -> bytes:
        """RICE_1; it detects the end of the data only after each block."""
        if pixel_bytes not in RICE_BYTES or not 1 <= block <= MAX_RICE_BLOCK:
            raise ValueError("invalid parameters of RICE tiles")
        _check_tile_size(pixels)
        decoded: bytes = self._rice(self._fence.place(data), block, pixel_bytes, pixels)
        return decoded

    def plio(self, data: bytes, pixels: int) -> bytes:
        """PLIO_1; the data themselves contain the number of their words."""
        _check_tile_size(pixels)
        if len(data) % 2 or len(data) < 2 * PLIO_HEADER_WORDS:
            raise ValueError("a PLIO tile is too short")
        words = np.frombuffer(data, np.int16)
        # A positive third word is the length of lists of an older form.
        first, number = 3, int(words[2])
        if number <= 0:
            first, number = int(words[1]), (int(words[4]) << 15) + int(words[3])
        if not 0 < number <= len(words) or not 0 <= first <= number:
            raise ValueError(
                f"a PLIO tile has {len(words)} words; {number} are declared"
            )
        last = int(words[number - 1]) >> 12
        if number == len(words) and first < number and last == PLIO_SET_HIGH:
            raise ValueError("a PLIO tile ends within an instruction")
        decoded: bytes = self._plio(self._fence.place(data), pixels)
        return decoded

    def hcompress(
        self, data: bytes, nx: int, ny: int, scale: int, smooth: int, pixel_bytes: int
    ) -> bytes:
        """HCOMPRESS_1; the data themselves contain the size of the tile."""
        _check_tile_size(nx * ny)
        if len(data) < HCOMPRESS_HEADER.size:
            raise ValueError("a HCOMPRESS tile is too short")
        magic, *sizes, a, b, c = HCOMPRESS_HEADER.unpack_from(data)
        if magic != HCOMPRESS_MAGIC or max(a, b, c) > MAX_BIT_PLANES:
            raise ValueError("a HCOMPRESS tile has an invalid header")
        if sizes != [nx, ny]:
            raise ValueError(
                f"a HCOMPRESS tile is for {sizes[0]} by {sizes[1]} pixels, not for "
                f"{nx} by {ny}"
            )
        decoded: bytes = self._hcompress(
            self._fence.place(data), nx, ny, scale, smooth, pixel_bytes
        )
        return decoded

    def gunzip(self, data: bytes) -> bytes:
        """Gzip, no further than the pixels of the tile need."""
        decoded, rest = b"", data
        while rest.strip(b"\0"):
            stream = zlib.decompressobj(wbits=31)
            decoded += stream.decompress(rest, self.max_tile_bytes + 1 - len(decoded))
            if len(decoded) > self.max_tile_bytes:
                raise ValueError(
                    f"a tile decompresses to more than the {self.max_tile_bytes} bytes "
                    "of its pixels"
                )
            if not stream.eof:
                raise ValueError("a gzip tile is cut short")
            rest = stream.unused_data
        return decoded


def _check_tile_size(pixels: int) -> None:
    """The decoders count the bytes of a tile in 32 bits."""
    if not 0 < pixels * MAX_PIXEL_BYTES <= MAX_C_INT:
        raise ValueError(
            f"a tile has {pixels} pixels; at most {MAX_C_INT // MAX_PIXEL_BYTES} can "
            "be decoded"
        )


def _check_dither(decode: Any) -> Any:
    """Random numbers begin with row 1, and other integers are not decoded at all."""

    def checked(data: bytes, row: int, *rest: Any) -> Any:
        if row < 1 or rest[-1] not in QUANTIZED_BYTES:
            raise ValueError("invalid parameters of quantized tiles")
        return decode(data, row, *rest)

    return checked


def open_table(table: bytes, shape: Sequence[int], decoders: GuardedDecoders) -> Any:
    """The section of astropy of a tiled image.

    Parameters
    ----------
    table : bytes
        A FITS file whose first extension is the table of the tiles.
    shape : sequence of int
        Expected shape of the image.
    decoders : GuardedDecoders
        Receives the size of the tiles.

    Returns
    -------
    astropy section
        Slicing it decodes the required tiles.

    Raises
    ------
    ValueError
        The table is not that of such an image, or a tile lies outside its data.
    """
    from astropy.io import fits

    opened = fits.open(io.BytesIO(table), memmap=False, do_not_scale_image_data=True)
    image = opened[1]
    if not isinstance(image, fits.CompImageHDU):
        raise ValueError("a tiled image without tiles")
    if tuple(image.shape) != tuple(shape):
        raise ValueError("its tiles have other sizes")
    _check_cells(image._bintable)  # as the section itself uses it
    # A tile is not larger than the image, even if the header says so.
    tile = map(min, image.tile_shape, shape)
    decoders.max_tile_bytes = math.prod(tile) * MAX_PIXEL_BYTES
    return image.section


def _check_cells(table: Any) -> None:
    """Check that all tiles lie within the heap of a table of astropy."""
    from astropy.io.fits.column import FITS2NUMPY

    rows = table.header["NAXIS1"] * table.header["NAXIS2"]
    heap = rows + table.header["PCOUNT"] - table.header.get("THEAP", rows)
    # A view of the data: the columns themselves would copy every tile.
    data = np.asarray(table.data).view(np.ndarray)
    for column in table.columns:
        kind = column.format.lstrip("1")
        if kind[:1] not in ("P", "Q"):
            continue
        item = np.dtype(FITS2NUMPY[kind[1]]).itemsize
        cells = data[column.name].astype(np.int64)
        number, offset = cells[:, 0], cells[:, 1]
        inside = (number <= heap // item) & (offset >= 0) & (offset <= heap)
        inside &= offset <= heap - np.minimum(number, heap) * item
        if (number < 0).any() or not inside[number > 0].all():
            raise ValueError("a tile lies outside the data of the table")


def serve(decoders: GuardedDecoders) -> None:
    """Answer requests from standard input until it is closed."""
    requests, replies = sys.stdin.buffer, sys.stdout.buffer
    table, section = b"", None
    while True:
        try:
            kind, number, length = receive_header(requests)
            data = receive_data(requests, length)
        except EOFError:
            return
        if kind == TABLE:
            table, section = data, None
            continue
        try:
            request = json.loads(data)
            section = section or open_table(table, request["shape"], decoders)
            index = (i if isinstance(i, int) else slice(*i) for i in request["index"])
            with np.errstate(all="ignore"):
                pixels = np.ascontiguousarray(section[tuple(index)])
            send(replies, PIXELS, number, _as_bytes(pixels))
        except Exception as error:  # decoders raise errors of any class
            text = " ".join(str(error).split())[:200] or type(error).__name__
            send(replies, ERROR, number, f"the file is damaged: {text}".encode())


def main() -> None:
    """Let a copy of this process answer requests, and another one after a crash."""
    import resource
    import warnings

    warnings.simplefilter("ignore")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    decoders = GuardedDecoders()
    while True:
        pid = os.fork()
        if pid == 0:
            serve(decoders)
            return
        _, status = os.waitpid(pid, 0)
        code = os.waitstatus_to_exitcode(status)
        if code == 0:
            return
        send(sys.stdout.buffer, SIGNAL, 0, b"%d" % max(0, -code))


DECODER = TileDecoder()

if __name__ == "__main__":
    main()
