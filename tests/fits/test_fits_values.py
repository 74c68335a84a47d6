"""Scaled values and header cards: as astropy reads them, or a reason."""

import os
import subprocess
import sys
import time
import warnings

import numpy as np
import pytest
from astropy.io import fits

from astromorph.errors import FitsImageError
from astromorph.fits import image as fits_image
from astromorph.settings.sections import DataSettings

CARDS = {"SIMPLE": "T", "BITPIX": "16", "NAXIS": "2", "NAXIS1": "5", "NAXIS2": "4"}
PIXELS = np.arange(20, dtype=">i2").reshape(4, 5)


def read(path, **rules):
    return fits_image.read_image([path], DataSettings(**rules))[1]


def describe(path, **rules):
    return fits_image.describe_image([path], DataSettings(**rules))


def astropy_pixels(path, hdu=0):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return np.asarray(fits.getdata(path, hdu))


def header(cards: list[str]) -> bytes:
    text = "".join(card.ljust(80) for card in cards).encode("latin-1")
    return text + b" " * (-len(text) % 2880)


def write(path, cards, pixels=PIXELS, end="END", then=b""):
    """An image whose header has the given cards after the required ones."""
    required = [f"{k:8}= {v:>20}" for k, v in CARDS.items()]
    data = pixels.tobytes()
    path.write_bytes(
        header([*required, *cards, end]) + data + bytes(-len(data) % 2880) + then
    )
    return path


@pytest.mark.parametrize("compression", [None, "GZIP_1", "GZIP_2", "NOCOMPRESS"])
@pytest.mark.parametrize("first", [0, 2**40, 2**63 - 5, 2**64 - 20])
def test_unsigned_64_bit_integers_are_exact(tmp_path, compression, first):
    """Small values are not lost in the rounding of 2**63."""
    values = (np.arange(20, dtype=np.uint64) + np.uint64(first)).reshape(4, 5)
    path, hdu = tmp_path / "a.fits", 0
    if compression is None:
        fits.PrimaryHDU(values).writeto(path)
    else:
        hdu = 1
        fits.CompImageHDU(values, compression_type=compression).writeto(path)
    np.testing.assert_array_equal(astropy_pixels(path, hdu), values)
    image = read(path)
    np.testing.assert_array_equal(image.pixels[0], values.astype(np.float64))


@pytest.mark.parametrize("compression", [None, "GZIP_1", "RICE_1", "HCOMPRESS_1"])
@pytest.mark.parametrize("dtype", ["int8", "uint8", "uint16", "uint32", "int32"])
def test_integers_of_all_types_agree_with_astropy(tmp_path, dtype, compression):
    """Those that FITS stores with BZERO as well."""
    limits = np.iinfo(dtype)
    values = np.linspace(limits.min, limits.max, 80).astype(dtype).reshape(8, 10)
    if compression == "HCOMPRESS_1" and dtype in ("uint32", "int32"):
        values //= 2**12  # its coefficients have 32 bits
    path = tmp_path / "a.fits"
    if compression is None:
        fits.PrimaryHDU(values).writeto(path)
    else:
        fits.CompImageHDU(
            values, compression_type=compression, tile_shape=(8, 10)
        ).writeto(path)
    expected = astropy_pixels(path, compression is not None)
    np.testing.assert_array_equal(expected, values)
    np.testing.assert_array_equal(read(path).pixels[0], expected.astype(np.float64))


@pytest.mark.parametrize(
    ("scale", "zero"),
    [(1, 2**62 + 3), (1, -(10**15)), (0.5, 1e18), (1e-3, -2.5), (1.0, 2.0**63)],
)
def test_scaled_64_bit_integers_keep_small_values(tmp_path, scale, zero):
    """The value is that of exact arithmetic, also where large numbers cancel."""
    stored = np.array([[-round(zero / scale) + k for k in (0, 1, 2, 700)]] * 2)
    stored = np.clip(stored, -(2**63), 2**63 - 1).astype(">i8")
    cards = [f"BSCALE  = {scale}", f"BZERO   = {zero}"]
    names = {"BITPIX": "64", "NAXIS1": "4", "NAXIS2": "2"}
    required = [f"{k:8}= {v}" for k, v in (CARDS | names).items()]
    data = stored.tobytes()
    path = tmp_path / "a.fits"
    path.write_bytes(
        header([*required, *cards, "END"]) + data + bytes(2880 - len(data))
    )
    from fractions import Fraction

    exact = [float(Fraction(scale) * int(k) + Fraction(zero)) for k in stored.ravel()]
    found = read(path).pixels.ravel()
    np.testing.assert_allclose(found, exact, rtol=1e-6, atol=abs(scale) * 0.01)


def test_blank_is_compared_with_the_stored_integer(tmp_path):
    """Before BZERO, also for unsigned integers, and with a blank of 0."""
    for bits, blank in ((16, -32768), (32, -(2**31)), (64, -(2**63)), (16, 0)):
        stored = np.array([[blank, blank + 1, blank + 2]] * 2, f">i{bits // 8}")
        names = {"BITPIX": str(bits), "NAXIS1": "3", "NAXIS2": "2"}
        required = [f"{k:8}= {v}" for k, v in (CARDS | names).items()]
        cards = [f"BLANK   = {blank}", f"BZERO   = {2 ** (bits - 1)}"]
        data = stored.tobytes()
        path = tmp_path / "a.fits"
        path.write_bytes(
            header([*required, *cards, "END"]) + data + bytes(2880 - len(data))
        )
        image = read(path)
        assert image.mask.tolist() == [[True, False, False]] * 2
        expected = np.float32(blank + 2 ** (bits - 1) + 1)
        assert image.pixels[0, 0, 1] == expected


@pytest.mark.parametrize(
    ("card", "reason"),
    [
        ("BSCALE  =180", "BSCALE  =180' has no value"),
        ("BSCALE=   180", None),  # astropy accepts it; the standard does not
        ("bscale= 1.5D1 / text", None),
        ("BLANK= 3", None),
        ("BSCALE =  180", "has no value"),
        ("BSCALE=180", "has no value"),
        ("BSCALE  = 2.0|BSCALE  = 3.0", "BSCALE is '2.0' in one card and '3.0'"),
        ("BZERO   = 2.0|BZERO   = 2", None),
        ("BLANK   = 3|BLANK   = 4", "BLANK is '3' in one card and '4' in another"),
        ("bscale  = 2.0", None),
        ("HIERARCH BSCALE = 2.0", "has no value"),
        ("BSCALE  = '2.0'", "BSCALE is \"'2.0'\", not a number"),
        ("BSCALE  = 1e400", "BSCALE is '1e400', not a number"),
        ("BSCALE  = 1_0", "BSCALE is '1_0', not a number"),
        ("BSCALE  = 1.0E- 03", None),
        ("BSCALE  = 2 e 1", None),
        ("BZERO   = - 7", None),
        ("BLANK   = - 3", None),
        ("BSCALE  = 1 5", "not a number"),
        ("BSCALE  = - 1.5", None),
        ("BSCALE  = T", "not a number"),
        ("BSCALE  = (1,2)", "not a number"),
        ("BSCALE  = NaN", "not a number"),
        ("BSCALE  =", "not a number"),
        ("BSCALE  = 1.5D1 / comment", None),
        ("BZERO   =7", "has no value"),
        ("BZERO   = infinity", "not a number"),
        ("BZERO   = 'x", "not a number"),
        ("BZERO   = +.5", None),
        ("BLANK   =3", "has no value"),
        ("BLANK   = 'x'", "BLANK is \"'x'\", not an integer"),
        ("BLANK   = 3.5", "BLANK is '3.5', not an integer"),
        ("BLANK   = 3", None),
        ("BLANK   = 99999999999999999999", None),
        ("COMMENT BSCALE  =180", None),
        ("NAXIS3  =1", None),  # beyond NAXIS
    ],
)
def test_scaling_keywords_are_read_as_by_astropy_or_refused(tmp_path, card, reason):
    """FITS Standard 4.0, 4.1.2: a value follows `= ` in columns 9 and 10."""
    path = write(tmp_path / "a.fits", card.split("|"))
    results = []
    for reader in (describe, read):
        try:
            results.append(reader(path))
        except FitsImageError as error:
            results.append(str(error))
    if reason is not None:
        assert reason in results[0]
        assert results[0] == results[1]
        return
    expected = astropy_pixels(path).astype(np.float32)
    found = np.where(results[1].mask, np.nan, results[1].pixels[0])
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("keyword", ["BITPIX", "NAXIS", "NAXIS1", "NAXIS2"])
@pytest.mark.parametrize("text", ["=5", "= '5'", "= 1e400", "= 5.5", "= x", "=", None])
def test_damaged_mandatory_keywords_are_refused(tmp_path, keyword, text):
    """They never get a default value."""
    cards = [f"{k:8}= {v:>20}" for k, v in CARDS.items() if k != keyword]
    if text is not None:
        cards.insert(list(CARDS).index(keyword), f"{keyword:8}{text}")
    path = tmp_path / "a.fits"
    path.write_bytes(header([*cards, "END"]) + PIXELS.tobytes() + bytes(2840))
    for reader in (describe, read):
        with pytest.raises(FitsImageError, match=f"damaged: .*{keyword}"):
            reader(path)


@pytest.mark.parametrize("end", ["END=", "END = 5", "XND", "END  x"])
def test_header_without_end_card_is_refused(tmp_path, end):
    """The header of the next HDU is not taken for cards, nor its data for pixels."""
    extension = header(
        ["XTENSION= 'IMAGE   '", *(f"{k:8}= {v}" for k, v in list(CARDS.items())[1:]),
         "PCOUNT  = 0", "GCOUNT  = 1", "END"]
    )  # fmt: skip
    then = extension + PIXELS.tobytes() + bytes(2840)
    path = write(tmp_path / "a.fits", [], then=then)
    np.testing.assert_array_equal(read(path).pixels[0], PIXELS)
    path = write(tmp_path / "b.fits", [], end=end, then=then)
    for reader in (describe, read):
        with pytest.raises(FitsImageError, match="no END card before the next HDU"):
            reader(path)
    path = write(tmp_path / "c.fits", [], end=end)
    for reader in (describe, read):
        with pytest.raises(FitsImageError, match="has no END card"):
            reader(path)


READER = """
import sys
from astromorph.errors import FitsImageError
from astromorph.fits import planes
from astromorph.fits.image import read_image
from astromorph.settings.sections import DataSettings
scale = planes.fits_file.scale_values
def wait(*arguments):  # the first plane has been read
    print("reading", flush=True)
    sys.stdin.readline()
    planes.fits_file.scale_values = scale
    return scale(*arguments)
planes.fits_file.scale_values = wait
try:
    print(read_image([sys.argv[1]], DataSettings(planes="mean"))[1].pixels.shape)
except FitsImageError as error:
    print(error)
"""


@pytest.mark.slow
def test_file_that_is_cut_while_it_is_read_is_refused(tmp_path):
    """Reading from mapped memory would end the process with SIGBUS."""
    path = tmp_path / "a.fits"
    fits.PrimaryHDU(np.zeros((50, 100, 100), np.float32)).writeto(path)
    process = subprocess.Popen(
        [sys.executable, "-c", READER, path],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout.readline() == "reading\n"
    os.truncate(path, 100_000)
    output, _ = process.communicate("\n")
    assert process.returncode == 0
    assert "the file is truncated" in output


def test_planes_of_an_uncompressed_cube_are_read_one_by_one(tmp_path):
    """A plane of a large cube does not need memory for the cube."""
    path = tmp_path / "a.fits"
    fits.PrimaryHDU(np.zeros((2, 2, 2), np.float32)).writeto(path)
    raw = path.read_bytes()[:2880]
    for keyword, value in (("NAXIS3", 10**6), ("NAXIS1", 100)):
        card = f"{keyword:8}= {{:>20}}"
        raw = raw.replace(card.format(2).encode(), card.format(value).encode())
    path.write_bytes(raw)
    os.truncate(path, 2880 + 10**6 * 2 * 100 * 4)  # sparse
    start = time.perf_counter()
    image = read(path, planes=999_999)
    assert image.pixels.shape == (1, 2, 100)
    assert time.perf_counter() - start < 0.5


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_spectral_axis_of_a_cube_can_be_any_axis(tmp_path, axis):
    """Planes are contiguous, or interleaved."""
    cube = np.arange(24, dtype=np.float32).reshape(4, 3, 2)
    types = ["RA---TAN", "DEC--TAN"]
    types.insert(2 - axis, "FREQ")
    cards = {f"CTYPE{k + 1}": text for k, text in enumerate(types)}
    fits.PrimaryHDU(cube, fits.Header(cards)).writeto(tmp_path / "a.fits")
    image = read(tmp_path / "a.fits", planes="channels")
    np.testing.assert_array_equal(image.pixels, np.moveaxis(cube, axis, 0))
