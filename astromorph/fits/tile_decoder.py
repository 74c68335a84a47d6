"""A separate process that decodes HCOMPRESS tiles and may crash.

For damaged data the decoder (that of cfitsio, called by astropy) writes outside its
memory. In a separate process this ends neither the run nor the other files: the file is
rejected with a reason. One process decodes all files.

Messages in both directions consist of one byte for the kind, eight bytes for the
length, and the data.
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

MESSAGE_HEADER = struct.Struct("<cQ")
DATA, ERROR = b"d", b"f"


class TileDecoder:
    """Sends tables to a process that is started on demand and after a crash."""

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

        Returns
        -------
        ndarray, float32
            The shape of the image.

        Raises
        ------
        FitsImageError
            The image cannot be decoded.
        """
        with self._lock:
            try:
                kind, data = self._request(table)
            except (OSError, EOFError):
                self.close()
                self._start()  # so that the next file does not wait for it
                raise FitsImageError(
                    "the file is damaged: decoding its HCOMPRESS tiles crashed"
                ) from None
        if kind == ERROR:
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

    def _request(self, table: bytes) -> tuple[bytes, bytes]:
        process = self._process or self._start()
        if process.stdin is None or process.stdout is None:
            raise EOFError
        send(process.stdin, DATA, table)
        return receive(process.stdout)


def send(pipe: IO[bytes], kind: bytes, data: bytes) -> None:
    """Write one message."""
    pipe.write(MESSAGE_HEADER.pack(kind, len(data)))
    pipe.write(data)
    pipe.flush()


def receive(pipe: IO[bytes]) -> tuple[bytes, bytes]:
    """Read one message.

    Raises
    ------
    EOFError
        The other process has ended.
    """
    header = pipe.read(MESSAGE_HEADER.size)
    if len(header) < MESSAGE_HEADER.size:
        raise EOFError
    kind, length = MESSAGE_HEADER.unpack(header)
    data = pipe.read(length)
    if len(data) < length:
        raise EOFError
    return kind, data


def main() -> None:
    """Decode tables from standard input until it is closed."""
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
            reply = io.BytesIO()
            np.save(reply, pixels)
            send(sys.stdout.buffer, DATA, reply.getvalue())
        except Exception as error:  # decoders raise errors of any class
            text = " ".join(str(error).split())[:200] or type(error).__name__
            send(sys.stdout.buffer, ERROR, f"the file is damaged: {text}".encode())


if __name__ == "__main__":
    main()
