"""Tile-compressed images: constant ones, damaged ones, and crashes of the decoders."""

import contextlib
import multiprocessing
import os
import random
import re
import signal
import struct
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from astromorph.errors import FitsImageError
from astromorph.fits import image as fits_image
from astromorph.fits import tile_decoder
from astromorph.settings.sections import DataSettings

RULES = DataSettings(max_pixels=10**8)
RNG = np.random.default_rng(0)
FLOATS = RNG.normal(10, 3, (64, 48)).astype(np.float32)
INTEGERS = FLOATS.astype(np.int16)
MASK = ((RNG.random((64, 48)) > 0.8) * RNG.integers(1, 5000, (64, 48))).astype(np.int16)
KINDS = {
    "RICE_1": INTEGERS, "GZIP_1": INTEGERS, "GZIP_2": FLOATS, "PLIO_1": MASK,
    "HCOMPRESS_1": INTEGERS, "NOCOMPRESS": INTEGERS, "RICE_ONE": FLOATS,
}  # fmt: skip


def describe(path):
    return fits_image.describe_image([path], RULES)


def read(path):
    return fits_image.read_image([path], RULES)[1].pixels[0]


def write(path, pixels, method, **options):
    options = {"tile_shape": pixels.shape} | options
    hdu = fits.CompImageHDU(pixels, compression_type=method, **options)
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(path, overwrite=True)
    return path


def replace_card(path, keyword, value, new_keyword=None):
    raw = path.read_bytes()
    at = raw.index(f"{keyword:8}=".encode())
    card = f"{new_keyword or keyword:8}= {value:>20}".ljust(80).encode()
    path.write_bytes(raw[:at] + card + raw[at + 80 :])


@pytest.mark.parametrize("value", [0, 7])
@pytest.mark.parametrize(
    "method", ["HCOMPRESS_1", "PLIO_1", "RICE_1", "GZIP_1", "GZIP_2"]
)
def test_constant_images_in_one_tile_are_read(tmp_path, method, value):
    """They compress to a few bytes, which is not an impossible size."""
    pixels = np.full((2000, 2000), value, np.int16)
    path = write(tmp_path / "a.fits", pixels, method)
    assert describe(path).shape == (2000, 2000)
    assert (read(path) == value).all()


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "side"), [("uint8", 8000), ("float32", 4000)])
@pytest.mark.parametrize("method", ["HCOMPRESS_1", "RICE_1", "GZIP_1", "PLIO_1"])
def test_large_constant_images_are_read(tmp_path, method, dtype, side):
    """In one tile, up to the size of a mosaic."""
    if method == "PLIO_1" and dtype == "float32":
        pytest.skip("PLIO is for integers")
    path = write(tmp_path / "a.fits", np.full((side, side), 3, dtype), method)
    assert describe(path).width == side
    assert (read(path) == 3).all()


@pytest.mark.parametrize("method", ["RICE_1", "GZIP_1"])
def test_more_pixels_than_the_bytes_can_contain_are_refused(tmp_path, method):
    """Before memory for them is allocated."""
    path = write(tmp_path / "a.fits", INTEGERS, method)
    for keyword in ("ZNAXIS1", "ZNAXIS2", "ZTILE1", "ZTILE2"):
        replace_card(path, keyword, 9000)
    for reader in (describe, read):
        with pytest.raises(FitsImageError, match="compressed bytes can contain"):
            reader(path)


def damage(raw: bytes, rng: random.Random) -> bytes:
    """Change bytes of the descriptors and of the tiles."""
    data = bytearray(raw)
    start = -(-(raw.rindex(b"END" + b" " * 77) + 80) // 2880) * 2880
    table = min(len(raw), start + 48)
    for _ in range(rng.choice((1, 1, 1, 4))):
        kind = rng.randrange(4)
        if kind == 0:
            data[rng.randrange(start, len(raw))] ^= 1 << rng.randrange(8)
        elif kind == 1:
            data[rng.randrange(start, table)] = rng.randrange(256)
        elif kind == 2:
            data[rng.randrange(start, len(raw))] = rng.randrange(256)
        else:
            at = rng.randrange(start, table)
            numbers = (2**31 - 1, 2**32 - 1, 1, 0, 2**12)
            data[at : at + 4] = struct.pack(">I", rng.choice(numbers))
    return bytes(data)


@pytest.mark.slow
@pytest.mark.parametrize("method", KINDS)
def test_damaged_tiles_give_the_same_pixels_or_a_reason(tmp_path, method):
    """Never pixels from other memory, and never the end of the process.

    benchmarks/robustness.py damages thousands of files.
    """
    rng = random.Random(method)
    raw = write(tmp_path / "a.fits", KINDS[method], method).read_bytes()
    path = tmp_path / "b.fits"
    readings = []
    for _ in range(40):
        path.write_bytes(damage(raw, rng))
        results = []
        for _ in range(2):
            try:
                results.append(read(path).tobytes())
            except FitsImageError as error:
                results.append(str(error))
        assert results[0] == results[1]
        readings.append(isinstance(results[0], bytes))
    assert 0 < sum(readings) < 40


def plio_words(path):
    """The offset of the words of the only tile."""
    raw = path.read_bytes()
    start = -(-(raw.rindex(b"END" + b" " * 77) + 80) // 2880) * 2880
    number, offset = struct.unpack_from(">ii", raw, start)
    return raw, start, start + 8 + offset, number


@pytest.mark.parametrize(
    ("word", "value"), [(3, 2**15 - 1), (4, 2**15 - 1), (2, 30000), (1, -3), (2, 0)]
)
def test_plio_lists_with_wrong_lengths_are_refused(tmp_path, word, value):
    """The list itself says how long it is and where it begins."""
    path = write(tmp_path / "a.fits", MASK, "PLIO_1")
    np.testing.assert_array_equal(read(path), MASK)
    raw, _, words, _ = plio_words(path)
    at = words + 2 * word
    changed = struct.pack(">h", value)
    if (word, value) == (2, 0):  # the list ends in the middle
        at, changed = words + 6, struct.pack(">h", 0)
    path.write_bytes(raw[:at] + changed + raw[at + 2 :])
    with pytest.raises(FitsImageError, match=r"a PLIO tile has .* are declared"):
        read(path)


def test_tiles_outside_the_table_are_refused(tmp_path):
    """Their number or their first byte is beyond the data, or negative."""
    path = write(tmp_path / "a.fits", MASK, "PLIO_1")
    raw, start, _, number = plio_words(path)
    for cell in ((number + 1, 0), (number, 2), (-1, 0), (number, -2), (2**31 - 1, 8)):
        changed = struct.pack(">ii", *cell)
        path.write_bytes(raw[:start] + changed + raw[start + 8 :])
        with pytest.raises(FitsImageError, match="outside the data of the table"):
            read(path)


@pytest.mark.parametrize("name", ["a tile cut short", "another size"])
def test_hcompress_tiles_that_do_not_fit_are_refused(tmp_path, name):
    """They do not continue in other memory, and do not write outside their pixels."""
    path = write(tmp_path / "a.fits", INTEGERS, "HCOMPRESS_1")
    raw, start, cell, number = plio_words(path)
    if name == "another size":
        raw = raw[: cell + 2] + struct.pack(">ii", 3000, 3000) + raw[cell + 10 :]
        reason = "is for 3000 by 3000 pixels, not for 64 by 48"
    else:
        raw = raw[:start] + struct.pack(">i", number // 2) + raw[start + 4 :]
        reason = "HCOMPRESS_1 tiles cannot be decoded"
    path.write_bytes(raw)
    for _ in range(2):
        with pytest.raises(FitsImageError, match=reason):
            read(path)


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        (
            "BLOCKSIZE",
            10**6,
            "BLOCKSIZE of its RICE tiles is 1000000; allowed are 1 to",
        ),
        ("BLOCKSIZE", 0, "BLOCKSIZE of its RICE tiles is 0"),
        ("BYTEPIX", 8, "BYTEPIX of its RICE tiles is 8; allowed are 1, 2, 4"),
        ("BYTEPIX", "'2'", "ZVAL2 is \"'2'\", not an integer"),
    ],
)
def test_rice_parameters_that_decoders_cannot_use_are_refused(
    tmp_path, name, value, reason
):
    """In the header, so that `validate` rejects the file as well."""
    path = write(tmp_path / "a.fits", INTEGERS, "RICE_1")
    number = 1 if name == "BLOCKSIZE" else 2
    assert f"ZNAME{number}  = '{name}".encode() in path.read_bytes()
    replace_card(path, f"ZVAL{number}", value)
    for reader in (describe, read):
        with pytest.raises(FitsImageError, match=re.escape(reason)):
            reader(path)


def test_other_block_sizes_of_rice_are_read(tmp_path):
    """The standard has 16 and 32."""
    pixels = np.zeros((100, 100), np.int16)
    path = write(tmp_path / "a.fits", pixels, "RICE_1")
    replace_card(path, "ZVAL1", 16)
    # Blocks of 16 pixels need more bits than there are.
    with pytest.raises(FitsImageError, match=r"cannot be decoded|hit end"):
        read(path)


@pytest.mark.parametrize("seed", ["0", "-5", "10001", "'1'", None])
def test_dithering_needs_a_seed(tmp_path, seed):
    """Without it, random numbers would be read from other memory."""
    path = write(
        tmp_path / "a.fits", FLOATS, "RICE_1", quantize_method=1, dither_seed=7
    )
    with fits.open(path) as file:
        expected = file[1].data
    np.testing.assert_array_equal(read(path), expected)
    if seed is None:
        replace_card(path, "ZDITHER0", 7, "COMMENT")
    else:
        replace_card(path, "ZDITHER0", seed)
    for reader in (describe, read):
        with pytest.raises(FitsImageError, match="damaged: ZDITHER0"):
            reader(path)


@pytest.mark.parametrize(
    "card", ["ZBITPIX =16", "ZNAXIS1 ='48'", "ZVAL1   =32", "TFORM1  ='1PB'", "THEAP=0"]
)
def test_cards_of_the_table_without_value_are_refused(tmp_path, card):
    """The columns 9 and 10 are not `= `."""
    path = write(tmp_path / "a.fits", INTEGERS, "RICE_1")
    raw = path.read_bytes()
    keyword = card.partition("=")[0].strip()
    at = raw.find(f"{keyword:8}=".encode(), 2880)
    if at < 0:
        at = raw.index(b"ZQUANTIZ" if b"ZQUANTIZ" in raw else b"EXTNAME")
    path.write_bytes(raw[:at] + card.ljust(80).encode() + raw[at + 80 :])
    for reader in (describe, read):
        with pytest.raises(FitsImageError, match=f"{keyword}.*(has no value|missing)"):
            reader(path)


def test_a_scale_in_the_header_is_not_ignored(tmp_path):
    """The standard allows ZSCALE as a keyword; astropy reads only the column."""
    path = write(tmp_path / "a.fits", INTEGERS, "RICE_1")
    replace_card(path, "EXTNAME", 0.5, "ZSCALE")
    for reader in (describe, read):
        with pytest.raises(FitsImageError, match="ZSCALE is a keyword"):
            reader(path)


def test_scaled_and_blank_tiles_agree_with_astropy(tmp_path):
    """BSCALE, BZERO and ZBLANK of integers, and NaN of quantized pixels."""
    path = write(tmp_path / "a.fits", INTEGERS, "RICE_1")
    replace_card(path, "EXTNAME", 0.25, "BSCALE")
    np.testing.assert_array_equal(read(path), INTEGERS * np.float32(0.25))
    replace_card(path, "BSCALE", int(INTEGERS[3, 4]), "ZBLANK")
    image = fits_image.read_image([path], RULES)[1]
    blank = INTEGERS[3, 4]
    np.testing.assert_array_equal(image.mask, np.equal(INTEGERS, blank))
    pixels = FLOATS.copy()
    pixels[5:9] = np.nan
    path = write(tmp_path / "b.fits", pixels, "RICE_1", tile_shape=(16, 48))
    with fits.open(path) as file:
        expected = file[1].data
    image = fits_image.read_image([path], RULES)[1]
    found = np.where(image.mask, np.nan, image.pixels[0])
    np.testing.assert_array_equal(found, expected)


@pytest.fixture
def new_decoder():
    """A decoder that no other test has stopped."""
    tile_decoder.DECODER.close()
    yield
    tile_decoder.DECODER.close()


def pids() -> list[int]:
    """The process that decodes tiles, and the one that restarts it."""
    parent = tile_decoder.DECODER._process.pid
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = path.read_text().rpartition(")")[2].split()
            if int(fields[1]) == parent and fields[0] != "Z":
                return [int(path.parent.name), parent]
    raise AssertionError("the decoder does not run")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM])
@pytest.mark.parametrize("which", [0, 1])
def test_decoder_that_was_killed_is_started_again(tmp_path, new_decoder, number, which):
    """Between two files, this is not an error."""
    path = write(tmp_path / "a.fits", INTEGERS, "RICE_1")
    other = write(tmp_path / "b.fits", INTEGERS + 1, "RICE_1")
    np.testing.assert_array_equal(read(path), INTEGERS)
    os.kill(pids()[which], number)
    time.sleep(0.2)
    np.testing.assert_array_equal(read(other), INTEGERS + 1)
    np.testing.assert_array_equal(read(path), INTEGERS)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM])
def test_decoder_that_is_killed_at_work_is_a_reason(tmp_path, new_decoder, number):
    """The file is rejected, and the next one is read."""
    path = write(tmp_path / "a.fits", INTEGERS, "RICE_1")
    np.testing.assert_array_equal(read(path), INTEGERS)
    victim = pids()[0]

    def end():
        os.kill(victim, number)
        with contextlib.suppress(ProcessLookupError):
            os.kill(victim, signal.SIGCONT)

    os.kill(victim, signal.SIGSTOP)  # so that it receives a request first
    timer = threading.Timer(0.5, end)
    timer.start()
    crash = number == signal.SIGSEGV
    reason = "cannot be decoded" if crash else "the decoder was stopped from outside"
    with pytest.raises(FitsImageError, match=f"its RICE_1 tiles .*{reason}"):
        read(path)
    timer.join()
    np.testing.assert_array_equal(read(path), INTEGERS)


def _read_many(path, queue):
    try:
        ok = all((read(path) == INTEGERS).all() for _ in range(20))
        queue.put(ok)
    except FitsImageError as error:
        queue.put(str(error))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_forked_processes_have_decoders_of_their_own(tmp_path):
    """Workers of a `DataLoader` are forked from a process that has one."""
    path = write(tmp_path / "a.fits", INTEGERS, "RICE_1")
    read(path)
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    processes = [
        context.Process(target=_read_many, args=(path, queue)) for _ in range(2)
    ]
    for process in processes:
        process.start()
    for _ in range(10):
        np.testing.assert_array_equal(read(path), INTEGERS)
    assert [queue.get(), queue.get()] == [True, True]
    for process in processes:
        process.join()
        assert process.exitcode == 0


def test_only_the_tiles_of_a_plane_are_decoded(tmp_path):
    """A cube is decoded plane by plane with every algorithm."""
    cube = np.stack([INTEGERS + k for k in range(3)])
    for method in ("RICE_1", "HCOMPRESS_1"):
        path = write(tmp_path / "a.fits", cube, method, tile_shape=(1, 64, 48))
        raw, start, _, _ = plio_words(path)
        # The first tile is damaged, and the last one is not.
        path.write_bytes(raw[:start] + struct.pack(">i", 1) + raw[start + 4 :])
        image = fits_image.read_image([path], RULES.model_copy(update={"planes": 2}))[1]
        np.testing.assert_array_equal(image.pixels[0], cube[2])
        with pytest.raises(FitsImageError):
            fits_image.read_image([path], RULES.model_copy(update={"planes": 0}))
