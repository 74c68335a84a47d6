"""Opening files that the user names, without waiting for ever for a pipe."""

import contextlib
import errno
import io
import os
import re
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from astromorph.errors import (
    FILE_PROBLEMS,
    NUL_IN_PATH,
    AstromorphError,
    describe_file_error,
)

WAIT_SECONDS = 10.0  # for a program that writes to a named pipe
PAUSE = 0.05  # seconds
STANDARD_INPUT = ("-", "/dev/stdin")
WITH_HDU = re.compile(r"(.+)\[([^][]*[^][\s][^][]*)\]", re.DOTALL)
DESCRIPTOR = re.compile(r"/(?:dev|proc/self)/fd/(\d+)")


def open_file(path: str | Path) -> io.BufferedReader:
    """Open a regular file for reading.

    Raises
    ------
    OSError
        The file cannot be read; `describe_file_error` has words for the reason. So has
        it for a pipe, a socket or a device, none of which is opened for long.
    """
    if "\0" in str(path):
        raise OSError(errno.EINVAL, NUL_IN_PATH, str(path))
    file = open(path, "rb", opener=_open_nonblocking)  # noqa: SIM115
    if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        return file
    file.close()
    raise OSError(errno.ENXIO, FILE_PROBLEMS[errno.ENXIO], str(path))


def split_hdu(path: str | Path) -> tuple[str, int | str | None]:
    """Separate the HDU from the name of a listed file.

    Parameters
    ----------
    path : path
        Such as ``a.fits[1]`` or ``a.fits[SCI,2]``.

    Returns
    -------
    path : str
        The file.
    hdu : int, str or None
        A value of `data_settings.hdu`; None if the name ends with no HDU, or if a file
        has exactly this name.

    Examples
    --------
    >>> split_hdu("a.fits[1]"), split_hdu("a.fits[SCI,2]"), split_hdu("a.fits")
    (('a.fits', 1), ('a.fits', 'SCI,2'), ('a.fits', None))
    """
    text = str(path)
    if not text.endswith("]"):
        return text, None
    parts = WITH_HDU.fullmatch(text)
    if parts is None or os.path.lexists(text):
        return text, None
    hdu = parts[2].strip()
    return parts[1], int(hdu) if hdu.isascii() and hdu.isdigit() else hdu


def check_file(path: str | Path, remedy: str) -> None:
    """Check that a file can be opened, before a library reads it.

    Raises
    ------
    AstromorphError
        It is missing, or is no regular file, or may not be read; the message ends with
        the remedy.
    """
    try:
        open_file(path).close()
    except OSError as error:
        reason = describe_file_error(error, path)
        raise AstromorphError(f"{path}: {reason}; {remedy}".rstrip("; ")) from None


def is_read_once(path: str | Path) -> bool:
    """Whether a path names standard input, an open descriptor or a pipe.

    Examples
    --------
    >>> is_read_once("-"), is_read_once("/dev/fd/63"), is_read_once("list.txt")
    (True, True, False)
    """
    if str(path) in STANDARD_INPUT or DESCRIPTOR.fullmatch(str(path)):
        return True
    try:
        return stat.S_ISFIFO(os.stat(path).st_mode)
    except (OSError, ValueError):
        return False


@contextlib.contextmanager
def open_once(path: str | Path) -> Iterator[BinaryIO]:
    """Open what `is_read_once` accepts.

    Raises
    ------
    AstromorphError
        It is not open, or is a device, or no program writes to the pipe.
    """
    first = b""
    try:
        if str(path) in STANDARD_INPUT:
            descriptor = os.dup(0)
        elif match := DESCRIPTOR.fullmatch(str(path)):
            descriptor = os.dup(int(match[1]))
        else:
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
            first = _wait_for_writer(path, descriptor)
    except OSError as error:
        raise AstromorphError(
            f"{path}: it cannot be read ({describe_file_error(error)}); give a file"
        ) from None
    with _Stream(descriptor, first) as stream:
        if stat.S_ISDIR(mode := os.fstat(descriptor).st_mode) or (
            stat.S_ISCHR(mode) and not os.isatty(descriptor)
        ):
            raise AstromorphError(
                f"{path}: this is a folder or a device; give a file or a pipe"
            )
        yield io.BufferedReader(stream)


class _Stream(io.RawIOBase):
    """An open descriptor of which some bytes have already been read."""

    def __init__(self, descriptor: int, first: bytes) -> None:
        self._descriptor, self._first = descriptor, first

    def readable(self) -> bool:
        """It can only be read."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read the next bytes."""
        data = self._first or os.read(self._descriptor, len(buffer))
        data, self._first = data[: len(buffer)], data[len(buffer) :]
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        """Close the descriptor."""
        if not self.closed:
            os.close(self._descriptor)
        super().close()


def _open_nonblocking(path: str, flags: int) -> int:
    """Open without waiting, even if the file is a named pipe."""
    return os.open(path, flags | os.O_NONBLOCK)


def _wait_for_writer(path: str | Path, descriptor: int) -> bytes:
    """Wait until a program writes to a pipe; the bytes that were read meanwhile."""
    deadline = time.monotonic() + WAIT_SECONDS
    first = b""
    with contextlib.suppress(BlockingIOError):  # a program is connected to it
        while not (first := os.read(descriptor, 1)):
            if time.monotonic() > deadline:
                os.close(descriptor)
                raise AstromorphError(
                    f"{path}: this is a pipe, and for {WAIT_SECONDS:.0f} s no program "
                    "has written to it; start that program first, or give a file"
                )
            time.sleep(PAUSE)
    os.set_blocking(descriptor, True)
    return first
