"""Compressed files as streams, with bounded memory.

Some formats let a small file request gigabytes of memory: an xz dictionary of 4 GiB, a
table of LZW strings, a list of a million zip members. Here, each stream needs less than
`MAX_MEMORY`, or the file is rejected.
"""

import bz2
import io
import lzma
import os
import struct
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from astromorph.errors import FitsImageError

MAX_MEMORY = 200 * 10**6  # bytes; `xz -9` needs 68 MB
READ_BYTES = 2**16
KEPT_BYTES = 2**25  # decompressed bytes that are kept, to return to the beginning
# Compressed bytes of an LZW stream that are decoded at a time.
LZW_READ_CODES = 2**12
GZIP_MAGIC, BZIP2_MAGIC, XZ_MAGIC = b"\x1f\x8b", b"BZh", b"\xfd7zXZ"
LZW_MAGIC, LZW_CLEAR = b"\x1f\x9d", 256
LZW_FIRST_BITS, LZW_MIN_LIMIT, LZW_MAX_LIMIT = 9, 10, 16
# Bytes of decoded LZW strings that are kept; longer ones are composed when needed.
LZW_TABLE_BYTES = 2**25
# The list of the members of a zip archive; one member needs fewer than 66 kB.
MAX_ZIP_LIST_BYTES = 2**17
ZIP_END, ZIP_END_BYTES = b"PK\x05\x06", 22


def open_compressed(file: io.FileIO) -> Any:
    """A stream of the decompressed bytes; the file itself if it is not compressed.

    Parameters
    ----------
    file : io.FileIO
        The format is recognised by its first bytes.

    Returns
    -------
    binary file
        It can seek, and its `fileno` is that of `file`.

    Raises
    ------
    FitsImageError
        The format, or the memory that decompression would need, is not supported.
        Reading raises errors of several classes for damaged files.
    """
    magic = file.read(6)
    if magic is None:  # reading would wait: some files below /proc
        raise FitsImageError("this is a device of the system, not a file")
    file.seek(0)
    for start, decompress in DECOMPRESSORS.items():
        if magic.startswith(start):
            return decompress(file)
    return file


class _ChunkStream(io.RawIOBase):
    """A file object that reads from an iterator of bytes.

    Parameters
    ----------
    file : io.FileIO
        The compressed file.
    chunks : callable
        Receives the file and returns its decompressed content in pieces.
    check_sum : bool
        Whether the format has a check sum.
    """

    def __init__(
        self,
        file: io.FileIO,
        chunks: Callable[[io.FileIO], Iterator[bytes]],
        check_sum: bool,
    ) -> None:
        self.check_sum = check_sum
        self._file, self._restart = file, chunks
        self._chunks, self._position = chunks(file), 0
        self._part = memoryview(b"")
        # The first pieces, so that returning to the beginning is free; None if longer.
        self._kept: list[bytes] | None = []
        self._next, self._kept_bytes = 0, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._file.fileno()

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Copy the next bytes; 0 at the end."""
        while not self._part:
            chunk = self._next_chunk()
            if chunk is None:
                return 0
            self._part = memoryview(chunk)
        size = min(len(buffer), len(self._part))
        buffer[:size] = self._part[:size]
        self._part = self._part[size:]
        self._position += size
        return size

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move forward by decompressing, and backward from the beginning."""
        if whence != os.SEEK_SET:
            raise io.UnsupportedOperation("only absolute positions")
        if offset < self._position:
            self._rewind()
        while self._position < offset:
            if not self._part:
                chunk = self._next_chunk()
                if chunk is None:
                    break
                self._part = memoryview(chunk)
            size = min(offset - self._position, len(self._part))
            self._part = self._part[size:]
            self._position += size
        return self._position

    def _next_chunk(self) -> bytes | None:
        if self._kept is not None and self._next < len(self._kept):
            chunk: bytes | None = self._kept[self._next]
        else:
            chunk = next(self._chunks, None)
            self._keep(chunk or b"")
        self._next += 1
        return chunk

    def _keep(self, chunk: bytes) -> None:
        if self._kept is not None and chunk:
            self._kept.append(chunk)
            self._kept_bytes += len(chunk)
            if self._kept_bytes > KEPT_BYTES:
                self._kept = None

    def _rewind(self) -> None:
        if self._kept is None:
            self._file.seek(0)
            self._chunks = self._restart(self._file)
        self._part, self._position, self._next = memoryview(b""), 0, 0


def has_check_sum(stream: Any) -> bool:
    """Whether reading a stream of `open_compressed` to its end detects all damage."""
    raw = getattr(stream, "raw", None)
    return isinstance(raw, _ChunkStream) and raw.check_sum


def _open_chunks(
    chunks: Callable[[io.FileIO], Iterator[bytes]], check_sum: bool = True
) -> Callable[[io.FileIO], Any]:
    return lambda file: io.BufferedReader(
        _ChunkStream(file, chunks, check_sum), READ_BYTES
    )


class _GzipDecompressor:
    """One member of a gzip file, with the interface of `bz2.BZ2Decompressor`.

    zlib compares the length and the check sum of the member at its end.
    """

    def __init__(self) -> None:
        self._stream = zlib.decompressobj(wbits=31)
        self._rest = b""

    @property
    def eof(self) -> bool:
        return self._stream.eof

    @property
    def needs_input(self) -> bool:
        return not self._rest and not self.eof

    @property
    def unused_data(self) -> bytes:
        return self._stream.unused_data

    def decompress(self, data: bytes, max_length: int) -> bytes:
        chunk = self._stream.decompress(self._rest + data, max_length)
        self._rest = self._stream.unconsumed_tail
        return chunk


def _stream_chunks(
    magic: bytes, new_decompressor: Callable[[], Any]
) -> Callable[[io.FileIO], Iterator[bytes]]:
    """Decompress one or several streams, each of which begins with `magic`.

    The decompressors compare the check sums of their formats. Other bytes after the
    last stream are ignored, as by the programs gzip, bzip2 and xz.
    """

    def chunks(file: io.FileIO) -> Iterator[bytes]:
        data = file.read(READ_BYTES)
        while data.startswith(magic):
            decompressor = new_decompressor()
            while not decompressor.eof:
                if decompressor.needs_input and not data:
                    data = file.read(READ_BYTES)
                    if not data:
                        raise EOFError("the compressed file ends before its end marker")
                try:
                    chunk = decompressor.decompress(data, READ_BYTES)
                except lzma.LZMAError as error:
                    if "limit" in str(error).lower():
                        raise _memory_error("its xz dictionary") from None
                    raise
                data = b""
                if chunk:
                    yield chunk
            data = _next_stream(decompressor.unused_data, file, len(magic))

    return chunks


def _next_stream(data: bytes, file: io.FileIO, size: int) -> bytes:
    """The bytes after a stream without the padding, at least `size` if there are any.

    A gzip file of some tape drives is filled with zeros, and so can be an xz file.
    """
    while len(data := data.lstrip(b"\0")) < size and (more := file.read(READ_BYTES)):
        data += more
    return data


def _lzw_chunks(file: io.FileIO) -> Iterator[bytes]:
    """The content of a file of Unix ``compress`` (Welch 1984, IEEE Computer 17, 8).

    The layout of the codes is that of compress 4.0: from 9 bits up, in groups of eight
    codes; a group is not completed where the number of bits changes.
    """
    header = file.read(3)
    flags = header[2] if len(header) == 3 else 0
    max_bits, blocks = flags & 0x1F, bool(flags & 0x80)
    if not LZW_MIN_LIMIT <= max_bits <= LZW_MAX_LIMIT:
        raise FitsImageError(
            f"the file is damaged: its LZW codes have up to {max_bits} bits; allowed "
            f"are {LZW_MIN_LIMIT} to {LZW_MAX_LIMIT}"
        )
    table = _LzwTable(first_code=257 if blocks else 256, max_bits=max_bits)
    while True:
        cleared = False
        left = table.codes_at_this_width()
        width = table.width
        while not cleared and (left is None or left > 0):
            wanted = min(LZW_READ_CODES, left or LZW_READ_CODES)
            # Groups of 8 codes: the rest of an incomplete group is padding.
            data = file.read(-(-wanted // 8) * width)
            codes = _unpack_codes(data, width)[:wanted].tolist()
            if not codes:
                return
            position = 0
            if blocks and LZW_CLEAR in codes:
                position = codes.index(LZW_CLEAR)
                consumed = -(-(position + 1) // 8) * width
                file.seek(min(0, consumed - len(data)), os.SEEK_CUR)
                codes, cleared = codes[:position], True
            yield from table.decode(codes)
            if left is not None:
                left -= wanted
        if cleared:
            table.clear()
        else:
            table.width += 1


class _LzwTable:
    """The strings of an LZW decoder, in bounded memory."""

    def __init__(self, first_code: int, max_bits: int) -> None:
        self._first, self._max_bits = first_code, max_bits
        # A string, or the code of its beginning and its last byte.
        self._strings: list[bytes | tuple[int, int]] = []
        self.clear()

    def clear(self) -> None:
        """Remove all strings but those of one byte."""
        self._strings = [bytes((k,)) for k in range(256)]
        self._strings += [b""] * (self._first - 256)
        self.width, self._kept = LZW_FIRST_BITS, 0
        self._previous, self._previous_code = b"", -1

    def codes_at_this_width(self) -> int | None:
        """Codes until the next width; None if it is the largest."""
        if self.width == self._max_bits:
            return None
        new = (1 << self.width) - len(self._strings)
        return new + (self._previous_code < 0)

    def decode(self, codes: list[int]) -> Iterator[bytes]:
        """The strings of some codes, in pieces."""
        strings, maximum = self._strings, 1 << self._max_bits
        parts: list[bytes] = []
        size = 0
        previous, previous_code = self._previous, self._previous_code
        for code in codes:
            if code < len(strings):
                found = strings[code]
                string = found if isinstance(found, bytes) else self._compose(code)
            elif code == len(strings) and previous_code >= 0:
                string = previous + previous[:1]
            else:
                raise FitsImageError("the file is damaged: it has an invalid LZW code")
            if previous_code >= 0 and len(strings) < maximum:
                if self._kept < LZW_TABLE_BYTES:
                    strings.append(previous + string[:1])
                    self._kept += len(previous)
                else:
                    strings.append((previous_code, string[0]))
            elif previous_code < 0 and code >= 256:
                raise FitsImageError("the file is damaged: it has an invalid LZW code")
            parts.append(string)
            size += len(string)
            previous, previous_code = string, code
            if size >= READ_BYTES:
                yield b"".join(parts)
                parts, size = [], 0
        self._previous, self._previous_code = previous, previous_code
        if parts:
            yield b"".join(parts)

    def _compose(self, code: int) -> bytes:
        """A string that is not kept, from its beginning and its last bytes."""
        reversed_end = bytearray()
        while not isinstance(found := self._strings[code], bytes):
            code, last = found
            reversed_end.append(last)
        reversed_end.reverse()
        return found + bytes(reversed_end)


def _unpack_codes(data: bytes, width: int) -> NDArray[np.int64]:
    """Codes of `width` bits, the least significant bit first."""
    padded = np.frombuffer(data + bytes(3), np.uint8).astype(np.int64)
    bits = np.arange(len(data) * 8 // width) * width
    first = bits >> 3
    words = padded[first] | padded[first + 1] << 8 | padded[first + 2] << 16
    codes: NDArray[np.int64] = (words >> (bits & 7)) & ((1 << width) - 1)
    return codes


def _zip_chunks(file: io.FileIO) -> Iterator[bytes]:
    """The content of the only file of a zip archive."""
    import zipfile

    _check_zip_list(file)
    archive = zipfile.ZipFile(file)
    members = [member for member in archive.infolist() if not member.is_dir()]
    if len(members) != 1:
        raise FitsImageError(
            f"the zip archive contains {len(members)} files; unpack it and list each"
        )
    # The others of `zipfile` decompress any amount at once.
    allowed = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
    if members[0].compress_type not in allowed:
        raise FitsImageError(
            "the zip archive uses compression method "
            f"{members[0].compress_type}; allowed are 0 (stored) and 8 (deflate): "
            "unpack it and list the FITS file"
        )
    with archive.open(members[0]) as member:
        while chunk := member.read(READ_BYTES):
            yield chunk


def _check_zip_list(file: io.FileIO) -> None:
    """Reject a long list of members before it is read."""
    length = os.fstat(file.fileno()).st_size
    file.seek(max(0, length - 2**16 - ZIP_END_BYTES))
    end = file.read(2**16 + ZIP_END_BYTES)
    at = end.rfind(ZIP_END)
    file.seek(0)
    if 0 <= at <= len(end) - ZIP_END_BYTES:
        (size,) = struct.unpack_from("<I", end, at + 12)
        if size > MAX_ZIP_LIST_BYTES:
            raise FitsImageError(
                "the zip archive contains many files; unpack it and list each"
            )


def _memory_error(what: str) -> FitsImageError:
    return FitsImageError(
        f"{what} needs more than {MAX_MEMORY // 10**6} MB of memory; compress the file "
        "again with usual options, or decompress it"
    )


DECOMPRESSORS: dict[bytes, Callable[[io.FileIO], Any]] = {
    GZIP_MAGIC: _open_chunks(_stream_chunks(GZIP_MAGIC, _GzipDecompressor)),
    BZIP2_MAGIC: _open_chunks(_stream_chunks(BZIP2_MAGIC, bz2.BZ2Decompressor)),
    XZ_MAGIC: _open_chunks(
        _stream_chunks(
            XZ_MAGIC, lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=MAX_MEMORY)
        )
    ),
    LZW_MAGIC: _open_chunks(_lzw_chunks, check_sum=False),
    b"PK\x03\x04": _open_chunks(_zip_chunks),
}
