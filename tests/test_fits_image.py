"""FITS files: which image is found, where it lies, why there is none."""

import bz2
import gzip

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.io import fits

from astromorph.errors import FitsImageError
from astromorph.fits_image import describe, read

LIMIT = 10**6
PIXELS = np.arange(30 * 20, dtype=np.float32).reshape(30, 20)


def celestial(kind="RA---TAN", other="DEC--TAN", lon=83.6, lat=22.0) -> fits.Header:
    """A header whose reference pixel is the centre of 20 x 30 pixels."""
    header = fits.Header()
    header["CTYPE1"], header["CTYPE2"] = kind, other
    header["CRVAL1"], header["CRVAL2"] = lon, lat
    header["CRPIX1"], header["CRPIX2"] = 10.5, 15.5
    header["CDELT1"], header["CDELT2"] = -0.001, 0.001
    return header


@pytest.mark.parametrize(
    "shape", [(30, 20), (1, 30, 20), (1, 1, 30, 20), (30, 20, 1), (30, 1, 20, 1)]
)
def test_degenerate_axes_are_dropped_wherever_they_stand(tmp_path, shape):
    """Any number of axes of length 1 leaves the same image."""
    path = tmp_path / "a.fits"
    fits.PrimaryHDU(PIXELS.reshape(shape)).writeto(path)
    facts, image = describe(path, LIMIT), read(path, LIMIT)
    assert (facts.height, facts.width, facts.shape) == (30, 20, shape)
    np.testing.assert_array_equal(image.pixels[0], PIXELS)
    assert image.pixels.dtype == np.float32
    assert not image.mask.any()


def test_the_first_image_is_found_past_tables_and_empty_hdus(tmp_path):
    """An extension behind a table counts as well as the primary HDU."""
    table = fits.BinTableHDU.from_columns([fits.Column("a", "D", array=[1.0])])
    hdus = [fits.PrimaryHDU(), table, fits.ImageHDU(PIXELS), fits.ImageHDU(PIXELS + 1)]
    fits.HDUList(hdus).writeto(tmp_path / "a.fits")
    assert describe(tmp_path / "a.fits", LIMIT).hdu == 2
    np.testing.assert_array_equal(read(tmp_path / "a.fits", LIMIT).pixels[0], PIXELS)


@pytest.mark.parametrize("method", ["RICE_1", "GZIP_1", "HCOMPRESS_1", "PLIO_1"])
def test_tile_compressed_images_are_read(tmp_path, method):
    """All compressions of the standard give the integers back."""
    data = PIXELS.astype(np.int16)
    hdu = fits.CompImageHDU(data, compression_type=method, tile_shape=(30, 20))
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(tmp_path / "a.fits")
    np.testing.assert_array_equal(read(tmp_path / "a.fits", LIMIT).pixels[0], data)
    assert describe(tmp_path / "a.fits", LIMIT).hdu == 1


@pytest.mark.parametrize(("ending", "pack"), [("gz", gzip), ("bz2", bz2)])
def test_compressed_files_are_read(tmp_path, ending, pack):
    """Gzip and bzip2, header and pixels."""
    fits.PrimaryHDU(PIXELS).writeto(tmp_path / "a.fits")
    path = tmp_path / f"a.fits.{ending}"
    path.write_bytes(pack.compress((tmp_path / "a.fits").read_bytes()))
    assert describe(path, LIMIT).width == 20
    np.testing.assert_array_equal(read(path, LIMIT).pixels[0], PIXELS)


def test_scaled_integers_with_blanks(tmp_path):
    """BSCALE and BZERO apply, BLANK is bad."""
    hdu = fits.PrimaryHDU(np.array([[1, 2], [3, -99]], np.int16))
    hdu.header["BLANK"] = -99
    hdu.writeto(tmp_path / "a.fits")
    with fits.open(
        tmp_path / "a.fits", mode="update", do_not_scale_image_data=True
    ) as f:
        f[0].header["BSCALE"], f[0].header["BZERO"] = 0.5, 10.0
    image = read(tmp_path / "a.fits", LIMIT)
    np.testing.assert_array_equal(image.pixels[0], [[10.5, 11.0], [11.5, 0.0]])
    np.testing.assert_array_equal(image.mask, [[False, False], [False, True]])
    assert describe(tmp_path / "a.fits", LIMIT).dtype == "int16"


def test_nan_and_infinity_are_bad(tmp_path):
    """Also values that 32-bit floating point cannot hold."""
    data = np.array([[np.nan, np.inf, -np.inf], [1e300, 1.0, 2.0]])
    fits.PrimaryHDU(data).writeto(tmp_path / "a.fits")
    image = read(tmp_path / "a.fits", LIMIT)
    assert image.mask.tolist() == [[True] * 3, [True, False, False]]
    assert np.isfinite(image.pixels).all()


@pytest.mark.parametrize(
    ("kind", "other", "frame"),
    [
        ("RA---TAN", "DEC--TAN", "icrs"),
        ("GLON-CAR", "GLAT-CAR", "galactic"),
        ("ELON-TAN", "ELAT-TAN", "barycentricmeanecliptic"),
        ("SLON-TAN", "SLAT-TAN", "supergalactic"),
    ],
)
def test_positions_are_icrs_degrees_of_the_centre(tmp_path, kind, other, frame):
    """Any celestial frame; the scale is in arcseconds."""
    header = celestial(kind, other, lon=83.6, lat=0.0)
    fits.PrimaryHDU(PIXELS, header).writeto(tmp_path / "a.fits")
    facts = describe(tmp_path / "a.fits", LIMIT)
    expected = SkyCoord(83.6 * u.deg, 0 * u.deg, frame=frame).icrs
    found = SkyCoord(facts.ra_deg * u.deg, facts.dec_deg * u.deg)
    assert found.separation(expected).arcsec < 0.1
    assert facts.pixel_scale_arcsec == pytest.approx(3.6)


def test_headers_give_their_facts(tmp_path):
    """OBJECT, TELESCOP, BUNIT and RESTFRQ, or its older name RESTFREQ."""
    header = celestial()
    header["OBJECT"], header["TELESCOP"] = " HL  Tau ", "ALMA"
    header["BUNIT"], header["RESTFREQ"] = "Jy/beam", 2.3e11
    fits.PrimaryHDU(PIXELS, header).writeto(tmp_path / "a.fits")
    facts = describe(tmp_path / "a.fits", LIMIT)
    assert (facts.object_name, facts.telescope) == ("HL Tau", "ALMA")
    assert (facts.unit, facts.rest_frequency_hz) == ("Jy/beam", 2.3e11)


def test_a_broken_wcs_costs_the_position_only(tmp_path):
    """The image is taken, its place on the sky stays unknown."""
    header = celestial(kind="RA---XXX", other="DEC--YYY")
    fits.PrimaryHDU(PIXELS, header).writeto(tmp_path / "a.fits")
    facts = describe(tmp_path / "a.fits", LIMIT)
    assert (facts.ra_deg, facts.width) == (None, 20)


def truncated(path):
    fits.PrimaryHDU(np.zeros((100, 100), np.float32)).writeto(path)
    path.write_bytes(path.read_bytes()[:20000])


def bomb(path):
    header = fits.PrimaryHDU(np.zeros((10, 10), np.int16)).header
    header["NAXIS1"] = header["NAXIS2"] = 10**6
    path.write_bytes(header.tostring().encode() + bytes(2880))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: None, "no such file"),
        (lambda p: p.mkdir(), "this is a folder"),
        (lambda p: p.write_text("hello"), "not a FITS file"),
        (lambda p: p.write_bytes(b""), "not a FITS file"),
        (lambda p: fits.PrimaryHDU().writeto(p), "holds no image"),
        (lambda p: fits.PrimaryHDU(np.zeros(9)).writeto(p), "one axis, of 9 pixels"),
        (lambda p: fits.PrimaryHDU(np.zeros((3, 4, 5))).writeto(p), "3x4x5.* a cube"),
        (truncated, "truncated: 42880 bytes promised, 20000 there"),
        (bomb, "more than `data_settings.max_pixels`, 1000000"),
    ],
)
def test_every_refusal_has_a_reason(tmp_path, make, message):
    """Both for the header alone and for the pixels."""
    path = tmp_path / "a.fits"
    make(path)
    for reader in (describe, read):
        with pytest.raises(FitsImageError, match=message):
            reader(path, LIMIT)


def test_odd_files_give_an_image_or_a_reason(odd_fits):
    """Real files: none under noimage/ is taken, the others are but for cubes and .Z."""
    refused = {}
    for path in sorted(odd_fits.rglob("*.*")):
        if path.suffix == ".md":
            continue
        try:
            describe(path, 2**28)
            image = read(path, 2**28)
            assert np.isfinite(image.pixels).all()
            assert image.pixels.shape[1:] == image.mask.shape
        except FitsImageError as error:
            refused[path.name] = str(error)
    noimage = {p.name for p in (odd_fits / "noimage").iterdir()}
    cubes = {"astrodendro_cube51.fits", "galsim_cube_uint32.fits"}
    cubes |= {"radio_1904-66_3planes_nan.fits"}
    assert set(refused) - {"rosat_rp600245.fits.Z"} == noimage | cubes
    assert all("cube" in refused[name] for name in cubes)
