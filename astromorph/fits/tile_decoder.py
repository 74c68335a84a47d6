"""A second process that decodes HCOMPRESS tiles, and may die of it.

The decoder (cfitsio's, by way of astropy) writes outside its memory where the
data are damaged. Here that ends a process of its own, and the file gets a reason
instead of the run an end. One process serves all files.

Messages in both directions: a byte for the kind, eight for the length, the data.
"""

import atexit
import io
import struct
import subprocess
import sys
import threading
from typing import IO

import numpy as np
from numpy.typing import NDArray

from astromorph.errors import FitsImageError

HEAD = struct.Struct("<cQ")
DONE, FAILED = b"d", b"f"


class Decoder:
    """Hands tables to the process; starts it when it is needed, or needed again."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()
        atexit.register(self.close)

    def decode(self, table: bytes) -> NDArray[np.float32]:
        """The pixels of a tile-compressed image.

        Parameters
        ----------
        table : bytes
            A FITS file whose first extension is the image.

        Raises
        ------
        FitsImageError
            It cannot be decoded.
        """
        with self._lock:
            try:
                kind, data = self._ask(table)
            except (OSError, EOFError):
                self.close()
                self._start()  # the next file finds it ready
                raise FitsImageError(
                    "the file is damaged: decoding its HCOMPRESS tiles crashed"
                ) from None
        if kind == FAILED:
            raise FitsImageError(data.decode("utf-8", "replace"))
        pixels: NDArray[np.float32] = np.load(io.BytesIO(data), allow_pickle=False)
        return pixels

    def close(self) -> None:
        """End the process."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()

    def _start(self) -> "subprocess.Popen[bytes]":
        self._process = subprocess.Popen(
            [sys.executable, "-m", "astromorph.fits.tile_decoder"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        return self._process

    def _ask(self, table: bytes) -> tuple[bytes, bytes]:
        process = self._process or self._start()
        if process.stdin is None or process.stdout is None:
            raise EOFError
        send(process.stdin, DONE, table)
        return receive(process.stdout)


def send(pipe: IO[bytes], kind: bytes, data: bytes) -> None:
    """Write one message."""
    pipe.write(HEAD.pack(kind, len(data)))
    pipe.write(data)
    pipe.flush()


def receive(pipe: IO[bytes]) -> tuple[bytes, bytes]:
    """Read one message.

    Raises
    ------
    EOFError
        The other side is gone.
    """
    head = pipe.read(HEAD.size)
    if len(head) < HEAD.size:
        raise EOFError
    kind, length = HEAD.unpack(head)
    data = pipe.read(length)
    if len(data) < length:
        raise EOFError
    return kind, data


def main() -> None:
    """Decode what comes in until nothing does."""
    import warnings

    from astropy.io import fits

    warnings.simplefilter("ignore")
    while True:
        try:
            _, table = receive(sys.stdin.buffer)
        except EOFError:
            return
        try:
            pixels = fits.open(io.BytesIO(table), memmap=False)[1].data
            with np.errstate(over="ignore", invalid="ignore"):
                pixels = np.asarray(pixels, dtype=np.float32)
            answer = io.BytesIO()
            np.save(answer, pixels)
            send(sys.stdout.buffer, DONE, answer.getvalue())
        except Exception as error:
            text = " ".join(str(error).split())[:200] or type(error).__name__
            send(sys.stdout.buffer, FAILED, f"the file is damaged: {text}".encode())


if __name__ == "__main__":
    main()
