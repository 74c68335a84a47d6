"""FITS files: the selected image, its pixels and facts, and reasons for refusal."""

import base64
import bz2
import gzip
import lzma
import warnings
import zipfile

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import FK4, FK5, SkyCoord
from astropy.io import fits
from astropy.wcs import WCS
from astropy.wcs.utils import proj_plane_pixel_scales, wcs_to_celestial_frame
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from astromorph.errors import FitsImageError
from astromorph.fits import decompress
from astromorph.fits import image as fits_image
from astromorph.fits.celestial import to_icrs
from astromorph.fits.file import iterate_hdus, open_fits
from astromorph.fits.tile_decoder import TiledImage
from astromorph.settings.sections import DataSettings

RULES = DataSettings(max_pixels=10**6)
PIXELS = np.arange(30 * 20, dtype=np.float32).reshape(30, 20)


def describe(path, **rules):
    return fits_image.describe_image([path], RULES.model_copy(update=rules))


def read(path, **rules):
    return fits_image.read_image([path], RULES.model_copy(update=rules))[1]


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
def test_axes_of_length_1_are_dropped_at_any_position(tmp_path, shape):
    """The image is the same for any number of them."""
    path = tmp_path / "a.fits"
    fits.PrimaryHDU(PIXELS.reshape(shape)).writeto(path)
    facts, image = describe(path), read(path)
    assert (facts.height, facts.width, facts.shape) == (30, 20, shape)
    np.testing.assert_array_equal(image.pixels[0], PIXELS)
    assert image.pixels.dtype == np.float32
    assert not image.mask.any()


def test_first_image_is_found_after_tables_and_empty_hdus(tmp_path):
    """An image extension is used like an image in the primary HDU."""
    table = fits.BinTableHDU.from_columns([fits.Column("a", "D", array=[1.0])])
    hdus = [fits.PrimaryHDU(), table, fits.ImageHDU(PIXELS), fits.ImageHDU(PIXELS + 1)]
    fits.HDUList(hdus).writeto(tmp_path / "a.fits")
    assert describe(tmp_path / "a.fits").hdu == 2
    np.testing.assert_array_equal(read(tmp_path / "a.fits").pixels[0], PIXELS)


@pytest.mark.parametrize("method", ["RICE_1", "GZIP_1", "HCOMPRESS_1", "PLIO_1"])
def test_tile_compressed_integers_are_read_exactly(tmp_path, method):
    """With all compression methods of the standard."""
    data = PIXELS.astype(np.int16)
    hdu = fits.CompImageHDU(data, compression_type=method, tile_shape=(30, 20))
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(tmp_path / "a.fits")
    np.testing.assert_array_equal(read(tmp_path / "a.fits").pixels[0], data)
    assert describe(tmp_path / "a.fits").hdu == 1


@pytest.mark.parametrize(("ending", "pack"), [("gz", gzip), ("bz2", bz2)])
def test_compressed_files_are_read(tmp_path, ending, pack):
    """Header and pixels are read from gzip and bzip2 files."""
    fits.PrimaryHDU(PIXELS).writeto(tmp_path / "a.fits")
    path = tmp_path / f"a.fits.{ending}"
    path.write_bytes(pack.compress((tmp_path / "a.fits").read_bytes()))
    assert describe(path).width == 20
    np.testing.assert_array_equal(read(path).pixels[0], PIXELS)


def test_scaled_integers_with_blank_values(tmp_path):
    """BSCALE and BZERO are applied, BLANK is bad."""
    hdu = fits.PrimaryHDU(np.array([[1, 2], [3, -99]], np.int16))
    hdu.header["BLANK"] = -99
    hdu.writeto(tmp_path / "a.fits")
    with fits.open(
        tmp_path / "a.fits", mode="update", do_not_scale_image_data=True
    ) as f:
        f[0].header["BSCALE"], f[0].header["BZERO"] = 0.5, 10.0
    image = read(tmp_path / "a.fits")
    np.testing.assert_array_equal(image.pixels[0], [[10.5, 11.0], [11.5, 0.0]])
    np.testing.assert_array_equal(image.mask, [[False, False], [False, True]])
    assert describe(tmp_path / "a.fits").dtype == "int16"


def test_nan_and_infinity_are_bad(tmp_path):
    """But not values that only 64-bit floating point can represent."""
    data = np.array([[np.nan, np.inf, -np.inf], [1e300, 1.0, 2.0]])
    fits.PrimaryHDU(data).writeto(tmp_path / "a.fits")
    image = read(tmp_path / "a.fits")
    assert image.mask.tolist() == [[True] * 3, [False] * 3]
    assert image.pixels[0].tolist() == [[0, 0, 0], [1e300, 1, 2]]


@pytest.mark.parametrize(
    ("kind", "other", "frame"),
    [
        ("RA---TAN", "DEC--TAN", "icrs"),
        ("GLON-CAR", "GLAT-CAR", "galactic"),
        ("ELON-TAN", "ELAT-TAN", "barycentricmeanecliptic"),
        ("SLON-TAN", "SLAT-TAN", "supergalactic"),
    ],
)
def test_position_of_the_centre_is_in_icrs_degrees(tmp_path, kind, other, frame):
    """For every celestial frame; the pixel scale is in arcseconds."""
    header = celestial(kind, other, lon=83.6, lat=0.0)
    fits.PrimaryHDU(PIXELS, header).writeto(tmp_path / "a.fits")
    facts = describe(tmp_path / "a.fits")
    expected = SkyCoord(83.6 * u.deg, 0 * u.deg, frame=frame).icrs
    found = SkyCoord(facts.ra_deg * u.deg, facts.dec_deg * u.deg)
    assert found.separation(expected).arcsec < 0.1
    assert facts.pixel_scale_arcsec == pytest.approx(3.6)


def test_facts_are_read_from_the_header(tmp_path):
    """OBJECT, TELESCOP, BUNIT, and RESTFRQ or its older name RESTFREQ."""
    header = celestial()
    header["OBJECT"], header["TELESCOP"] = " HL  Tau ", "ALMA"
    header["BUNIT"], header["RESTFREQ"] = "Jy/beam", 2.3e11
    fits.PrimaryHDU(PIXELS, header).writeto(tmp_path / "a.fits")
    facts = describe(tmp_path / "a.fits")
    assert (facts.object_name, facts.telescope) == ("HL Tau", "ALMA")
    assert (facts.unit, facts.rest_frequency_hz) == ("Jy/beam", 2.3e11)


def test_invalid_wcs_gives_an_image_without_position(tmp_path):
    """The image is read, its position is None."""
    header = celestial(kind="RA---XXX", other="DEC--YYY")
    fits.PrimaryHDU(PIXELS, header).writeto(tmp_path / "a.fits")
    facts = describe(tmp_path / "a.fits")
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
        (lambda p: p.write_bytes(b""), "the file is empty"),
        (lambda p: fits.PrimaryHDU().writeto(p), "contains no image"),
        (lambda p: fits.PrimaryHDU(np.zeros(9)).writeto(p), "one axis, of 9 pixels"),
        (lambda p: fits.PrimaryHDU(np.zeros((3, 4, 5))).writeto(p), "3x4x5.* a cube"),
        (truncated, "truncated: its header requires 42880 bytes, it has 20000"),
        (bomb, "more than `data_settings.max_pixels`, 1000000"),
    ],
)
def test_unusable_file_is_refused_with_a_reason(tmp_path, make, message):
    """Both by `describe_image` and by `read_image`."""
    path = tmp_path / "a.fits"
    make(path)
    for reader in (describe, read):
        with pytest.raises(FitsImageError, match=message):
            reader(path)


def files_in(folder):
    return [p for p in sorted(folder.rglob("*.*")) if p.suffix != ".md"]


@pytest.mark.parametrize("planes", [None, "max", "mean", "channels", 0])
def test_unusual_files_give_an_image_or_a_reason(unusual_fits, planes):
    """Those in noimage/ and tables of an instrument are refused, cubes by default."""
    refused = {}
    for path in files_in(unusual_fits):
        try:
            facts = describe(path, max_pixels=2**28, planes=planes)
            image = read(path, max_pixels=2**28, planes=planes)
            assert np.isfinite(image.pixels).all()
            shape = (facts.channels, facts.height, facts.width)
            assert image.pixels.shape == shape
            assert image.mask.shape == shape[1:]
        except FitsImageError as error:
            refused[path.name] = str(error)
    noimage = {p.name for p in (unusual_fits / "noimage").iterdir()}
    cubes = {"astrodendro_cube51.fits", "galsim_cube_uint32.fits"}
    cubes |= {"radio_1904-66_3planes_nan.fits"}
    tables = {"hst_wfc3_d2im.fits", "kepler_lc_table_aperture.fits"}
    expected = noimage | tables
    assert set(refused) == (expected | cubes if planes is None else expected)
    assert all("its images are not science data" in refused[name] for name in tables)
    assert planes is not None or all("cube" in refused[name] for name in cubes)


@pytest.mark.filterwarnings("ignore")
def test_pixels_of_unusual_files_agree_with_astropy(unusual_fits):
    """Scaling, BLANK, compression and quantisation are included."""
    compared = 0
    for path in files_in(unusual_fits):
        try:
            facts = describe(path, max_pixels=2**28, planes="max")
        except FitsImageError:
            continue
        with fits.open(path) as file:
            expected = np.squeeze(np.asarray(file[facts.hdu].data, np.float64))
        expected = np.where(np.isfinite(expected), expected, np.nan)
        if expected.ndim == 3:
            expected = np.fmax.reduce(expected)
        image = read(path, max_pixels=2**28, planes="max")
        found = np.where(image.mask, np.nan, image.pixels[0])
        np.testing.assert_allclose(np.squeeze(found), expected, 1e-7, err_msg=path.name)
        compared += 1
    assert compared == 43


@pytest.mark.filterwarnings("ignore")
def test_positions_of_unusual_files_agree_with_astropy(unusual_fits):
    """Position of the centre and pixel scale, for all of their projections."""
    compared = 0
    for path in files_in(unusual_fits):
        try:
            facts = describe(path, max_pixels=2**28, planes="max")
        except FitsImageError:
            continue
        with fits.open(path) as file:
            try:
                wcs = WCS(file[facts.hdu].header).celestial
            except Exception:
                continue
        if not wcs.has_celestial or facts.ra_deg is None:
            continue
        centre = (facts.width - 1) / 2, (facts.height - 1) / 2
        lon, lat = wcs.all_pix2world(*centre, 0)
        if not np.isfinite(lon) or "RA" not in wcs.wcs.ctype[0] + wcs.wcs.ctype[1]:
            continue
        frame = wcs_to_celestial_frame(wcs)
        expected = SkyCoord(lon * u.deg, lat * u.deg, frame=frame).icrs
        found = SkyCoord(facts.ra_deg * u.deg, facts.dec_deg * u.deg)
        assert found.separation(expected).arcsec < 1e-3, path.name
        scales = proj_plane_pixel_scales(wcs) * 3600
        scale = np.sqrt(scales[0] * scales[1])
        assert facts.pixel_scale_arcsec == pytest.approx(scale, rel=5e-3), path.name
        compared += 1
    assert compared > 20


@pytest.mark.parametrize(
    ("system", "equinox", "frame"),
    [
        ("", np.nan, "icrs"),
        ("", 1950.0, FK4(equinox="B1950")),
        ("FK4", np.nan, FK4()),
        ("FK5", 2000.0, FK5()),
        ("FK5", 1975.0, FK5(equinox="J1975")),
        ("", 2000.0, FK5()),
    ],
)
@pytest.mark.parametrize("position", [(0.0, 0.0), (123.4, -56.7), (359.99, 89.0)])
def test_frames_agree_with_astropy(system, equinox, frame, position):
    """Within a milliarcsecond, also near the poles."""
    ra, dec = to_icrs(*position, "RA--", system, equinox)
    expected = SkyCoord(*position, unit="deg", frame=frame).icrs
    found = SkyCoord(ra * u.deg, dec * u.deg)
    assert found.separation(expected).arcsec < 1e-3


@pytest.mark.parametrize(
    ("cards", "expected"),
    [
        ({"RA": 10.5, "DEC": -20.25}, (10.5, -20.25)),
        ({"OBSRA": "10.5", "OBSDEC": "-20.25"}, (10.5, -20.25)),
        ({"RA": "00:42:00", "DEC": "-20:15:00"}, (10.5, -20.25)),
        ({"OBJCTRA": "00 42 00.0", "OBJCTDEC": "-00 15 00"}, (10.5, -0.25)),
        ({"RA_TARG": 10.5, "DEC_TARG": 95.0}, (None, None)),
        ({"RA": "unknown", "DEC": 1.0}, (None, None)),
    ],
)
def test_positions_without_a_wcs(tmp_path, cards, expected):
    """RA and DEC and similar keywords, in degrees or hours."""
    path = tmp_path / "a.fits"
    fits.PrimaryHDU(PIXELS, fits.Header(cards)).writeto(path)
    facts = describe(path)
    assert (facts.ra_deg, facts.dec_deg) == (
        expected if expected[0] is None else pytest.approx(expected)
    )


def test_extensions_inherit_names_and_positions_of_the_primary_header(tmp_path):
    """Many instruments write them in the primary header only."""
    cards = {"OBJECT": "M 31", "RA": 10.5, "DEC": 41.25, "FILTER": "R"}
    primary = fits.PrimaryHDU(header=fits.Header(cards))
    fits.HDUList([primary, fits.ImageHDU(PIXELS)]).writeto(tmp_path / "a.fits")
    facts = describe(tmp_path / "a.fits")
    assert (facts.object_name, facts.ra_deg, facts.dec_deg) == ("M 31", 10.5, 41.25)
    assert facts.band == "R"


CUBE = np.arange(4 * 30 * 20, dtype=np.float32).reshape(4, 30, 20)


@pytest.mark.parametrize(
    ("planes", "expected"),
    [
        (2, CUBE[2:3]),
        ("sum", CUBE.sum(axis=0)[None]),
        ("mean", CUBE.mean(axis=0)[None]),
        ("max", CUBE.max(axis=0)[None]),
        ("1:3", CUBE[1:3].mean(axis=0)[None]),
        ("sum 1:3", CUBE[1:3].sum(axis=0)[None]),
        ("max :2", CUBE[:2].max(axis=0)[None]),
        ("channels", CUBE),
        ("channels 1:", CUBE[1:]),
        ((3, 0), CUBE[[3, 0]]),
    ],
)
@pytest.mark.parametrize("compressed", [False, True])
def test_planes_of_a_cube(tmp_path, planes, expected, compressed):
    """By index, range, sum, mean, maximum and channels, with and without tiles."""
    path = tmp_path / "a.fits"
    if compressed:
        fits.CompImageHDU(CUBE, compression_type="GZIP_1", quantize_level=0).writeto(
            path
        )
    else:
        fits.PrimaryHDU(CUBE).writeto(path)
    image = read(path, planes=planes)
    np.testing.assert_allclose(image.pixels, expected)
    assert describe(path, planes=planes).channels == len(expected)


@pytest.mark.parametrize("planes", [4, "9:12", (0, 7)])
def test_missing_planes_reject_the_file(tmp_path, planes):
    """The reason names the setting and the number of planes."""
    fits.PrimaryHDU(CUBE).writeto(tmp_path / "a.fits")
    with pytest.raises(FitsImageError, match=r"`data_settings.planes` is .* 4 planes"):
        describe(tmp_path / "a.fits", planes=planes)


def test_reductions_of_planes_ignore_nan(tmp_path):
    """A pixel is bad if it is bad in all planes; an empty channel has no effect."""
    cube = CUBE.copy()
    cube[1] = np.nan
    cube[:, 3, 4] = np.nan
    fits.PrimaryHDU(cube).writeto(tmp_path / "a.fits")
    for planes in ("sum", "mean", "max", "channels"):
        image = read(tmp_path / "a.fits", planes=planes)
        assert image.mask.sum() == 1, planes
        assert image.mask[3, 4]
    assert (read(tmp_path / "a.fits", planes="channels").pixels[1] == 0).all()


def test_celestial_axes_are_the_image_axes(tmp_path):
    """Even if the spectral axis is the first FITS axis."""
    header = fits.Header({"CTYPE1": "FREQ", "CTYPE2": "RA---TAN", "CTYPE3": "DEC--TAN"})
    cube = np.moveaxis(CUBE, 0, 2)
    fits.PrimaryHDU(cube, header).writeto(tmp_path / "a.fits")
    facts = describe(tmp_path / "a.fits", planes="max")
    assert (facts.height, facts.width) == (30, 20)
    image = read(tmp_path / "a.fits", planes=2)
    np.testing.assert_array_equal(image.pixels[0], CUBE[2])


@pytest.mark.parametrize(
    ("hdu", "number"),
    [(None, 2), (2, 2), ("sci", 2), (("none", "ERR"), 3), ((9, 1), 1)],
)
def test_hdu_is_selected_by_number_or_name(tmp_path, hdu, number):
    """Of several choices, the first that the file contains is used."""
    images = [
        fits.ImageHDU(PIXELS + k, name=n) for k, n in enumerate(("A", "SCI", "ERR"))
    ]
    fits.HDUList([fits.PrimaryHDU(), *images]).writeto(tmp_path / "a.fits")
    assert describe(tmp_path / "a.fits", hdu=hdu).hdu == number
    np.testing.assert_array_equal(
        read(tmp_path / "a.fits", hdu=hdu).pixels[0], PIXELS + number - 1
    )


def test_missing_hdu_is_an_error_that_lists_the_hdus(tmp_path):
    """An HDU without an image is an error as well."""
    fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(PIXELS, name="SCI")]).writeto(
        tmp_path / "a.fits"
    )
    with pytest.raises(FitsImageError, match="has the HDUs 0 PRIMARY, 1 SCI"):
        describe(tmp_path / "a.fits", hdu="ERR")
    with pytest.raises(FitsImageError, match="HDU 0: it contains no image"):
        describe(tmp_path / "a.fits", hdu=0)


def test_several_files_become_channels(tmp_path):
    """Their sizes must agree; an error names the missing file."""
    paths = [tmp_path / f"{band}.fits" for band in "grz"]
    for k, path in enumerate(paths):
        fits.PrimaryHDU(PIXELS + k).writeto(path)
    facts, image = fits_image.read_image(paths, RULES)
    assert facts.channels == 3
    np.testing.assert_array_equal(image.pixels, [PIXELS, PIXELS + 1, PIXELS + 2])
    fits.PrimaryHDU(PIXELS[:10]).writeto(paths[1], overwrite=True)
    with pytest.raises(FitsImageError, match="different sizes, 10x20 and 30x20"):
        fits_image.read_image(paths, RULES)
    paths[1].unlink()
    with pytest.raises(FitsImageError, match=r"file 2 of 3 \(.*r.fits\): there is no"):
        fits_image.describe_image(paths, RULES)


def test_header_columns_support_long_and_hierarchical_keywords(tmp_path):
    """HIERARCH and CONTINUE; an absent keyword is empty."""
    header = fits.Header({"HIERARCH ESO INS MODE": "IMAGING", "NOTE": "x" * 100})
    fits.PrimaryHDU(PIXELS, header).writeto(tmp_path / "a.fits")
    names = ("ESO INS MODE", "NOTE", "ABSENT")
    facts = describe(tmp_path / "a.fits", header_columns=names)
    assert facts.keywords == dict(zip(names, ("IMAGING", "x" * 100, ""), strict=True))


def test_beam_is_read_from_keywords_and_from_aips_history(tmp_path):
    """BMAJ is in degrees; AIPS writes it as HISTORY."""
    header = fits.Header({"BMAJ": 0.001, "BMIN": 0.0005, "BPA": 30.0})
    fits.PrimaryHDU(PIXELS, header).writeto(tmp_path / "a.fits")
    facts = describe(tmp_path / "a.fits")
    assert facts.beam_major_arcsec == pytest.approx(3.6)
    assert (facts.beam_minor_arcsec, facts.beam_angle_deg) == (pytest.approx(1.8), 30)
    header = fits.Header()
    header.add_history("AIPS   CLEAN BMAJ=  1.5000E-03 BMIN=  1.5000E-03 BPA=   0.00")
    fits.PrimaryHDU(PIXELS, header).writeto(tmp_path / "b.fits")
    assert describe(tmp_path / "b.fits").beam_major_arcsec == pytest.approx(5.4)


# Output of `compress`: the numbers 0 to 23 as 4 by 6 pixels, int16.
LZW = (
    "H52QU5I0gcKkCAgQPQ4qXMiwIRUQL0CMeePGzBs5beaAoPMGhJEkVKaAmEMnjBsyYeSQaciyJQgh"
    "IKEkwXIwoUuXMWxABJFSTpg8IFCW3JgHTpmbSJE6CYIliciaSVvK2OmmThsxZeSAeGOGpxyfQMmk"
    "aVPGzZw0FDVGZbm06ZQYUNcy1Cm3rl0QbZ1ORXj3II2+gJEWwUKliBMice8+DMy4oWHEjSNLnky5"
    "suXLmDNr3sy5s+fPoEOLHk26tOnTqFOrXs26tevXsGPLnk27tu3buHPr3s27t+/fwIMHBkA8AAAB"
    "AAYAIACgAAADAA4AQAAgAQAFABYAYACgAQAHAB4AgAAgAgAJACYAoACgAgALAC4Qn0+/vv37+PPr"
    "38+/v///AAYo4IAEFmjggQgmqOCCDDbo4IMQRijhhBRWaOGFGGao4YYcdujhhyCGKOKIJJZo4oko"
    "pqjiiiy26OKLMMYo44w01mjjjTjmqKOK"
)


def test_further_compressed_files_are_read(tmp_path):
    """lzma, zip and Unix compress, recognised by their first bytes."""
    fits.PrimaryHDU(PIXELS).writeto(tmp_path / "a.fits")
    path = tmp_path / "a.fits.packed"
    data = (tmp_path / "a.fits").read_bytes()
    path.write_bytes(lzma.compress(data))
    np.testing.assert_array_equal(read(path).pixels[0], PIXELS)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.fits", data)
    np.testing.assert_array_equal(read(path).pixels[0], PIXELS)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("b.fits", data)
    with pytest.raises(FitsImageError, match="zip archive contains 2 files"):
        read(path)
    path.write_bytes(base64.b64decode(LZW))
    assert describe(path).dtype == "int16"
    np.testing.assert_array_equal(read(path).pixels.ravel(), np.arange(24))


def write_tiles_with_inflated_size(path):
    hdu = fits.CompImageHDU(PIXELS.astype(np.int16), compression_type="RICE_1")
    hdu.writeto(path)
    raw = path.read_bytes()
    card = raw.index(b"ZNAXIS1 =")
    path.write_bytes(raw[:card] + b"ZNAXIS1 = %20d" % 20000 + raw[card + 30 :])


def test_tiles_that_do_not_cover_the_image_are_refused(tmp_path):
    """They are refused before memory for the image is allocated."""
    write_tiles_with_inflated_size(tmp_path / "a.fits")
    for reader in (describe, read):
        with pytest.raises(FitsImageError, match=r"tiles cover|more than its"):
            reader(tmp_path / "a.fits", max_pixels=2**28)


def test_crash_of_the_decoder_rejects_one_file_only(tmp_path):
    """HCOMPRESS data with wrong sizes crash a separate process."""
    data = PIXELS.astype(np.int16)
    hdu = fits.CompImageHDU(data, compression_type="HCOMPRESS_1", tile_shape=(30, 20))
    hdu.writeto(tmp_path / "good.fits")
    raw = (tmp_path / "good.fits").read_bytes()
    sizes = raw.index(b"\xdd\x99") + 2
    huge = np.array([3000, 3000], ">i4").tobytes()
    (tmp_path / "bad.fits").write_bytes(raw[:sizes] + huge + raw[sizes + 8 :])
    for _ in range(2):
        with pytest.raises(FitsImageError, match="the file is damaged"):
            read(tmp_path / "bad.fits")
        np.testing.assert_array_equal(read(tmp_path / "good.fits").pixels[0], data)


@pytest.fixture(scope="module")
def seeds(tmp_path_factory):
    """Small files of several types, which the test damages."""
    folder = tmp_path_factory.mktemp("seeds")
    header = celestial()
    header["BMAJ"] = 0.01
    fits.PrimaryHDU(PIXELS, header).writeto(folder / "plain.fits")
    fits.PrimaryHDU(CUBE, header).writeto(folder / "cube.fits")
    fits.CompImageHDU(PIXELS, header, compression_type="RICE_1").writeto(
        folder / "rice.fits"
    )
    fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(PIXELS)]).writeto(
        folder / "extension.fits"
    )
    plain = (folder / "plain.fits").read_bytes()
    (folder / "plain.fits.gz").write_bytes(gzip.compress(plain))
    return [path.read_bytes() for path in sorted(folder.iterdir())]


@given(data=st.data())
@settings(max_examples=300, deadline=2000,
          suppress_health_check=[HealthCheck.function_scoped_fixture])  # fmt: skip
def test_damaged_files_give_an_image_or_a_reason(seeds, tmp_path, data):
    """Truncated and edited at random; benchmarks/robustness.py tests thousands."""
    raw = bytearray(data.draw(st.sampled_from(seeds)))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, min(len(raw) - 1, 2880)))
        raw[at : at + 1] = data.draw(st.binary(min_size=1, max_size=2))
    path = tmp_path / "a.fits"
    path.write_bytes(raw[: data.draw(st.integers(0, len(raw)))])
    for planes in (None, "max"):
        try:
            described = describe(path, planes=planes)
            image = read(path, planes=planes)
        except FitsImageError as error:
            assert str(error)
            continue
        assert np.isfinite(image.pixels).all()
        assert image.mask.shape == (described.height, described.width)


def test_impossible_offsets_have_a_reason(tmp_path):
    """Not the system's words for them, in a FITS file or in a ZIP archive."""
    cards = [
        "SIMPLE  =                    T", "BITPIX  =                    8",
        "NAXIS   =                    0", "END",
    ]  # fmt: skip
    primary = "".join(card.ljust(80) for card in cards).ljust(2880)
    extension = ["XTENSION= 'BINTABLE'", *cards[1:2], "NAXIS   =                    2"]
    extension += [f"NAXIS1  = {2**31:20}", f"NAXIS2  = {2**31:20}"]
    extension += [f"{name:8}=                    1" for name in ("PCOUNT", "GCOUNT")]
    text = "".join(card.ljust(80) for card in [*extension, "END"]).ljust(2880)
    path = tmp_path / "far.fits"
    path.write_text(primary + text, encoding="ascii")
    with pytest.raises(FitsImageError, match=r"no image|truncated"):
        fits_image.describe_image([path], RULES)
    archive = tmp_path / "far.fits.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("far.fits", primary + text)
    data = bytearray(archive.read_bytes())
    directory = data.rindex(b"PK\x01\x02")
    data[directory + 42 : directory + 46] = b"\xff\xff\xff\xfe"  # where the file starts
    archive.write_bytes(data)
    with pytest.raises(FitsImageError, match=r"the file is damaged"):
        fits_image.describe_image([archive], RULES)


def test_hdus_agree_with_astropy(unusual_fits):
    """Numbers, names and shapes of all HDUs of all unusual files."""
    assert len(files_in(unusual_fits)) >= 50
    for path in files_in(unusual_fits):
        if path.name in ("not_actually_fits.fits", "astropy_zerowidth.fits"):
            continue
        with open_fits(path) as file:
            found = [(h.number, h.name, h.shape) for h in iterate_hdus(file)]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with fits.open(path) as file:
                expected = [
                    (k, h.name.upper(), tuple(h.shape) if h.is_image else ())
                    for k, h in enumerate(file)
                ]
        assert found == expected, path.name


def test_tile_that_spans_planes_is_decoded_once(tmp_path, monkeypatch):
    """Sums, channels and single planes of deep tiles have the correct pixels."""
    cube = np.random.default_rng(1).normal(size=(2, 7, 20, 30)).astype(np.float32)
    fits.HDUList([
        fits.PrimaryHDU(),
        fits.CompImageHDU(cube, compression_type="GZIP_1", quantize_level=0,
                          tile_shape=(1, 3, 10, 30)),
    ]).writeto(tmp_path / "a.fits")  # fmt: skip
    decoded = []
    decode = TiledImage.__getitem__
    monkeypatch.setattr(
        TiledImage, "__getitem__",
        lambda self, index: (decoded.append(index), decode(self, index))[1],
    )  # fmt: skip
    flat = cube.reshape(14, 20, 30)
    for planes, truth in (
        ("sum", flat.sum(axis=0, dtype=np.float64)[None]), ("channels 2:9", flat[2:9]),
        ((13, 3), flat[[13, 3]]), (8, flat[8:9]),
    ):  # fmt: skip
        decoded.clear()
        _, image = fits_image.read_image(
            [tmp_path / "a.fits"], DataSettings(planes=planes)
        )
        np.testing.assert_allclose(image.pixels, truth, rtol=1e-5, atol=1e-5)
        assert 0 < len(decoded) <= 6


def test_headers_of_compressed_files_are_decompressed_once(tmp_path, monkeypatch):
    """A gzip file with many small HDUs is read only once."""
    empty = [fits.ImageHDU(name=f"E{k}") for k in range(300)]
    compressed = tmp_path / "a.fits.gz"
    fits.HDUList([fits.PrimaryHDU(), *empty, fits.ImageHDU(np.ones((9, 9)))]).writeto(
        compressed
    )
    rewound = []
    monkeypatch.setattr(decompress._ChunkStream, "_rewind", rewound.append)
    with open_fits(compressed) as file:
        assert sum(1 for _ in iterate_hdus(file)) == 302
    assert rewound == []


@pytest.mark.parametrize("equinox", [0.0, 51544.0, 1e20, None])
def test_impossible_equinox_is_ignored(tmp_path, equinox):
    """The position is that of the WCS."""
    header = fits.Header(
        {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": 10.0, "CRVAL2": 20.0,
         "CRPIX1": 5.5, "CRPIX2": 5.5, "CDELT1": -1e-3, "CDELT2": 1e-3}
    )  # fmt: skip
    if equinox is not None:
        header["EQUINOX"] = equinox
    fits.PrimaryHDU(np.ones((10, 10)), header).writeto(tmp_path / "a.fits")
    facts = fits_image.describe_image([tmp_path / "a.fits"], DataSettings())
    assert (facts.ra_deg, facts.dec_deg) == pytest.approx((10, 20), abs=1e-6)
