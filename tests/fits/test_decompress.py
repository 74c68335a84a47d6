"""Compressed files: every format, with bounded memory and bounded time."""

import bz2
import gzip
import io
import lzma
import random
import struct
import subprocess
import sys
import time
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from astromorph.errors import FitsImageError
from astromorph.fits import decompress
from astromorph.fits import file as fits_file
from astromorph.fits import image as fits_image
from astromorph.fits.decompress import open_compressed
from astromorph.settings.sections import DataSettings


def lzw(data: bytes, max_bits: int = 16, blocks: bool = True) -> bytes:
    """Compress like Unix compress, with a clear code when the table is full."""
    out, bits, filled = bytearray(), 0, 0
    width, group = 9, 0
    first = 257 if blocks else 256

    def put(code):
        nonlocal bits, filled, group
        bits |= code << filled
        filled, group = filled + width, (group + 1) % 8
        while filled >= 8:
            out.append(bits & 255)
            bits, filled = bits >> 8, filled - 8

    def finish_group():
        while group:
            put(0)

    table = {bytes((k,)): k for k in range(256)}
    free, current, emitted = first, b"", 0
    for byte in data:
        longer = current + bytes((byte,))
        if longer in table:
            current = longer
            continue
        if free > (1 << width) - 1 and width < max_bits:
            finish_group()
            width += 1
        put(table[current])
        emitted += 1
        # The decoder adds a string one code later.
        if emitted > 1 and free < 1 << max_bits:
            free += 1
        if len(table) + first - 256 < 1 << max_bits:
            table[longer] = len(table) + first - 256
        elif blocks and free == 1 << max_bits:
            put(256)
            finish_group()
            width, free, emitted = 9, first, 0
            table = {bytes((k,)): k for k in range(256)}
        current = bytes((byte,))
    if free > (1 << width) - 1 and width < max_bits:
        finish_group()
        width += 1
    put(table[current])
    if filled:
        out.append(bits & 255)
    return b"\x1f\x9d" + bytes((max_bits | 0x80 * blocks,)) + bytes(out)


def lzw_bomb(start: bytes, codes: int) -> bytes:
    """Some bytes and many zeros; each code stands for one zero more than the last."""
    out, bits, filled, width = bytearray(), 0, 0, 9
    for k, code in enumerate([*start, 0] + [0] * codes):
        free = 257 + max(0, k - 1)
        if free > (1 << width) - 1 and width < 16:
            width += 1  # after a multiple of eight codes
        bits |= (code if k <= len(start) else free) << filled
        filled += width
        while filled >= 8:
            out.append(bits & 255)
            bits, filled = bits >> 8, filled - 8
    return b"\x1f\x9d\x90" + bytes(out) + bytes((bits & 255, 0, 0))


@pytest.fixture
def unpack(tmp_path):
    """Decompress bytes through a file."""

    def unpack(packed: bytes) -> bytes:
        path = tmp_path / "packed"
        path.write_bytes(packed)
        with open(path, "rb", buffering=0) as file, open_compressed(file) as stream:
            return stream.read()

    return unpack


@pytest.mark.parametrize("max_bits", [10, 12, 16])
@pytest.mark.parametrize("blocks", [True, False])
@pytest.mark.parametrize("kind", ["noise", "zeros", "text", "one byte"])
def test_lzw_agrees_with_gzip(tmp_path, unpack, max_bits, blocks, kind):
    """Programs that unpack .Z give the same bytes, over clear codes and widths."""
    rng = random.Random(1)
    data = {
        "noise": rng.randbytes(200_000),
        "zeros": bytes(300_000),
        "text": b"".join(
            rng.choice((b"SIMPLE  ", b"NAXIS", b"=")) for _ in range(60000)
        ),
        "one byte": b"x",
    }[kind]
    packed = lzw(data, max_bits, blocks)
    (tmp_path / "a.Z").write_bytes(packed)
    done = subprocess.run(["gzip", "-dc", tmp_path / "a.Z"], capture_output=True)
    assert done.stdout == data
    assert unpack(packed) == data


def test_lzw_strings_beyond_the_kept_ones_are_composed(unpack, monkeypatch):
    """The limit of memory does not change the bytes."""
    rng = random.Random(2)
    data = b"".join(bytes(rng.randrange(300)) + rng.randbytes(2) for _ in range(3000))
    packed = lzw(data)
    assert unpack(packed) == data
    monkeypatch.setattr(decompress, "LZW_TABLE_BYTES", 1000)
    assert unpack(packed) == data


@pytest.mark.parametrize("cut", [3, 4, 100, 1000])
def test_damaged_lzw_ends_or_gives_a_reason(unpack, cut):
    """Truncated, with impossible codes or with too many bits."""
    packed = lzw(bytes(range(256)) * 50)
    assert (bytes(range(256)) * 50).startswith(unpack(packed[:cut])[:-2])
    with pytest.raises(FitsImageError, match="invalid LZW code"):
        unpack(packed[:3] + b"\xff" * 100)
    with pytest.raises(FitsImageError, match="allowed are 10 to 16"):
        unpack(b"\x1f\x9d\x9f" + packed[3:])


def test_streams_seek_in_both_directions(tmp_path):
    """A position before the current one is reached from the beginning."""
    data = random.Random(3).randbytes(300_000)
    packed = {"Z": lzw(data), "xz": lzma.compress(data, preset=0)}
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.fits", data)
    packed["zip"] = (tmp_path / "a.zip").read_bytes()
    for name, content in packed.items():
        path = tmp_path / f"b.{name}"
        path.write_bytes(content)
        with open(path, "rb", buffering=0) as file, open_compressed(file) as stream:
            for at in (250_000, 10, 70_000, 299_999, 0):
                assert stream.seek(at) == at
                assert stream.read(50) == data[at : at + 50], name
            stream.seek(400_000)
            assert stream.read(1) == b""


def test_several_xz_streams_and_padding_are_read(unpack):
    """As written by parallel compressors."""
    parts = [bytes([k]) * 50_000 for k in range(3)]
    packed = [lzma.compress(part) for part in parts]
    assert unpack(packed[0] + bytes(8) + packed[1] + packed[2] + b"xx") == b"".join(
        parts
    )
    with pytest.raises(EOFError):
        unpack(packed[0][:-20])


PEAK = """
import re, sys, time
from pathlib import Path
from astromorph.errors import FitsImageError
from astromorph.fits.image import describe_image, read_image
from astromorph.settings.sections import DataSettings
def memory():
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
before = memory()
start = time.perf_counter()
for reader in (describe_image, read_image):
    try:
        reader([sys.argv[1]], DataSettings())
        print("image")
    except FitsImageError as error:
        print(error)
print((memory() - before) // 1000, time.perf_counter() - start)
"""


def read_apart(path: Path) -> tuple[list[str], int, float]:
    """Reasons, peak memory in MB and seconds, measured in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", PEAK, path], capture_output=True, text=True, check=True
    )
    *reasons, last = done.stdout.splitlines()
    megabytes, seconds = last.split()
    return reasons, int(megabytes), float(seconds)


@pytest.mark.slow
def test_lzw_bomb_needs_little_memory(tmp_path):
    """A file of 124 kB whose strings have up to 62,000 bytes."""
    cards = ["SIMPLE  = T", "BITPIX  = 8", "NAXIS   = 1", "NAXIS1  = 150000000", "END"]
    header = "".join(card.ljust(80) for card in cards).ljust(2880).encode()
    path = tmp_path / "a.fits.Z"
    path.write_bytes(lzw_bomb(header, 62_000))
    assert path.stat().st_size < 130_000
    reasons, megabytes, seconds = read_apart(path)
    assert all("only one axis" in reason for reason in reasons)
    assert megabytes < 200
    assert seconds < 10


def raw_xz_with_dictionary(data: bytes, size: int) -> bytes:
    """An xz file that declares another size of its dictionary."""
    packed = bytearray(lzma.compress(data, preset=0, check=lzma.CHECK_CRC32))
    at = packed.index(b"\x21\x01", 12) + 2  # filter LZMA2 with one byte of properties
    packed[at] = size
    end = 12 + (packed[12] + 1) * 4
    packed[end - 4 : end] = struct.pack("<I", zlib.crc32(packed[12 : end - 4]))
    return bytes(packed)


@pytest.fixture
def image_bytes() -> bytes:
    buffer = io.BytesIO()
    fits.PrimaryHDU(np.ones((40, 50), np.float32)).writeto(buffer)
    return buffer.getvalue()


def test_xz_dictionary_beyond_the_limit_is_refused(tmp_path, image_bytes):
    """`xz -9` needs 68 MB; a dictionary of 4 GiB is possible."""
    path = tmp_path / "a.fits.xz"
    path.write_bytes(raw_xz_with_dictionary(image_bytes, 28))  # 64 MiB
    assert fits_image.describe_image([path], DataSettings()).width == 50
    path.write_bytes(raw_xz_with_dictionary(image_bytes, 40))  # 4 GiB
    for reader in (fits_image.describe_image, fits_image.read_image):
        with pytest.raises(FitsImageError, match="more than 200 MB of memory"):
            reader([path], DataSettings())


def test_zip_archives_with_unbounded_memory_are_refused(tmp_path, image_bytes):
    """Other compression than deflate, and long lists of members."""
    path = tmp_path / "a.zip"
    for method in (zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2):
        with zipfile.ZipFile(path, "w", method) as archive:
            archive.writestr("a.fits", image_bytes)
        with pytest.raises(FitsImageError, match=r"allowed are 0 \(stored\) and 8"):
            fits_image.describe_image([path], DataSettings())
    with zipfile.ZipFile(path, "w") as archive:
        for k in range(5000):
            archive.writestr(f"{k}.fits", b"")
    with pytest.raises(FitsImageError, match="contains many files"):
        fits_image.describe_image([path], DataSettings())


PACKERS = {
    "gz": lambda: gzip.open, "bz2": lambda: bz2.open, "xz": lambda: lzma.open,
}  # fmt: skip


@pytest.mark.parametrize("name", PACKERS)
def test_only_so_many_zeros_before_the_image_are_skipped(tmp_path, name, monkeypatch):
    """A table of 300 MB of zeros in front of it is more than a small file may have."""
    skipped = 300 * 10**6
    primary = fits.PrimaryHDU(header=fits.Header()).header.tostring().encode()
    cards = ["XTENSION= 'IMAGE   '", "BITPIX  = 8", "NAXIS   = 1",
             f"NAXIS1  = {skipped}", "PCOUNT  = 0", "GCOUNT  = 1", "END"]  # fmt: skip
    header = "".join(card.ljust(80) for card in cards).ljust(2880).encode()
    path = tmp_path / f"a.fits.{name}"
    with PACKERS[name]()(path, "wb") as file:
        file.write(primary + header + bytes(10**6))
    start = time.perf_counter()
    for reader in (fits_image.describe_image, fits_image.read_image):
        with pytest.raises(FitsImageError, match="above the limit for compressed"):
            reader([path], DataSettings())
    assert time.perf_counter() - start < 1
    # A file that is large enough may have it.
    (tmp_path / "large").write_bytes(path.read_bytes())
    with open(tmp_path / "large", "ab") as file:
        file.write(b"x" * 5 * 10**6)
    with pytest.raises(FitsImageError) as caught:
        fits_image.describe_image([tmp_path / "large"], DataSettings())
    assert "above the limit" not in str(caught.value)


def in_two_parts(pack):
    """Two streams one after the other, as parallel programs write them."""
    return lambda data: pack(data[:7000]) + pack(data[7000:])


def zipped(data: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.fits", data)
    return buffer.getvalue()


CHECKED = {
    "gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress, "zip": zipped,
    "gz, two": in_two_parts(gzip.compress), "bz2, two": in_two_parts(bz2.compress),
    "xz, two": in_two_parts(lzma.compress),
}  # fmt: skip


def outcome(path: Path) -> np.ndarray | None:
    """The pixels; None if the file is rejected."""
    try:
        _, image = fits_image.read_image([path], DataSettings())
    except FitsImageError:
        return None
    assert not image.mask.any()
    return image.pixels[0]


@pytest.mark.parametrize("name", CHECKED)
def test_damage_in_a_compressed_file_never_gives_other_pixels(tmp_path, name):
    """Bits that were flipped, in its image and in the table after it, and cuts."""
    pixels = np.random.default_rng(2).normal(100, 1, (40, 50)).astype(np.float32)
    table = fits.ImageHDU(np.random.default_rng(3).integers(0, 99, 3000), name="DQ")
    buffer = io.BytesIO()
    fits.HDUList([fits.PrimaryHDU(pixels), table]).writeto(buffer)
    packed, path = CHECKED[name](buffer.getvalue()), tmp_path / "a.fits"
    path.write_bytes(packed)
    np.testing.assert_array_equal(outcome(path), pixels)
    random_numbers, rejected = random.Random(0), 0
    for _ in range(80):
        damaged = bytearray(packed)
        damaged[random_numbers.randrange(200, len(packed) - 200)] ^= (
            1 << random_numbers.randrange(8)
        )
        path.write_bytes(damaged)
        found = outcome(path)
        rejected += found is None
        if found is not None:
            np.testing.assert_array_equal(found, pixels)
    assert rejected >= 76  # a few bits have no effect: times, names, padding
    for length in (len(packed) - 1, len(packed) - 9, len(packed) // 2, 3000):
        path.write_bytes(packed[:length])
        assert outcome(path) is None, length


def test_most_damage_in_a_file_without_check_sum_is_found(tmp_path):
    """Of .Z files, the length shows cuts, and all but a few of the wrong codes."""
    pixels = np.random.default_rng(2).normal(100, 9, (96, 90)).astype(np.int16)
    buffer = io.BytesIO()
    fits.PrimaryHDU(pixels).writeto(buffer)
    packed, path = lzw(buffer.getvalue()), tmp_path / "a.fits.Z"
    path.write_bytes(packed)
    np.testing.assert_array_equal(outcome(path), pixels)
    for length in (len(packed) - 2, len(packed) - 9, len(packed) // 2):
        path.write_bytes(packed[:length])
        assert outcome(path) is None, length
    random_numbers, rejected = random.Random(0), 0
    for _ in range(40):
        damaged = bytearray(packed)
        place = random_numbers.randrange(400, len(packed) - 200)
        damaged[place] ^= 1 << random_numbers.randrange(8)
        path.write_bytes(damaged)
        rejected += outcome(path) is None
    assert rejected > 20


@pytest.mark.parametrize("name", ["gz", "bz2", "xz"])
def test_other_bytes_after_the_last_stream_are_ignored(tmp_path, name):
    """As by gzip, bzip2 and xz: the zeros of a tape, a note of a transfer program."""
    pixels = np.random.default_rng(2).normal(100, 1, (40, 50)).astype(np.float32)
    buffer = io.BytesIO()
    fits.PrimaryHDU(pixels).writeto(buffer)
    packed = CHECKED[name](buffer.getvalue())
    for then in (bytes(512), b"end", b"x" * 200_000, bytes(5) + packed[:1]):
        (tmp_path / "a.fits").write_bytes(packed + then)
        np.testing.assert_array_equal(outcome(tmp_path / "a.fits"), pixels)


@pytest.mark.parametrize("kept", [0, 10_000, 2**25])
def test_returning_to_the_beginning_gives_the_same_bytes(tmp_path, monkeypatch, kept):
    """Whether the first bytes are kept or decompressed again."""
    monkeypatch.setattr(decompress, "KEPT_BYTES", kept)
    data = np.random.default_rng(1).integers(0, 50, 300_000, np.uint8).tobytes()
    (tmp_path / "a.gz").write_bytes(gzip.compress(data))
    with (
        open(tmp_path / "a.gz", "rb", buffering=0) as file,
        open_compressed(file) as stream,
    ):
        for start, size in ((0, 5), (200_000, 99), (5, 70_000), (299_990, 20), (0, 9)):
            stream.seek(start)
            assert stream.read(size) == data[start : start + size]


def test_rest_far_longer_than_the_image_is_refused(tmp_path, monkeypatch):
    """A small file may not decompress to gigabytes after its image either."""
    monkeypatch.setattr(fits_file, "MIN_DECOMPRESSED", 2**22)
    buffer = io.BytesIO()
    fits.PrimaryHDU(np.ones((40, 50), np.float32)).writeto(buffer)
    path = tmp_path / "a.fits.gz"
    with gzip.open(path, "wb", 6) as file:
        file.write(buffer.getvalue())
        for _ in range(12):
            file.write(bytes(10**6))
    with pytest.raises(FitsImageError, match="after its image, it decompresses to"):
        fits_image.read_image([path], DataSettings())
