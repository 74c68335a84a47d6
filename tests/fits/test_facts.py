"""Names, bands, planes and beams in headers."""

import numpy as np
import pytest
from astropy.io import fits

from astromorph.fits.image import describe_image
from astromorph.settings.sections import DataSettings

PIXELS = np.ones((20, 30), np.float32)
LONG = (
    "WISEA J120000.00+000000.0 in the field of the very long and descriptive survey A's"
)


def write(path, cards=(), pixels=PIXELS, history=()):
    header = fits.Header(cards)
    for line in history:
        header.add_history(line)
    hdu = fits.PrimaryHDU(pixels)
    hdu.header.update(header)
    for line in history:
        hdu.header.add_history(line)
    hdu.writeto(path, output_verify="silentfix")
    return path


def describe(path, **rules):
    return describe_image([path], DataSettings(**rules))


@pytest.mark.parametrize("length", [60, 68, 69, 90, 140, 300])
def test_long_strings_are_read_whole(tmp_path, length):
    """Names with CONTINUE cards, also with quotes and ampersands in them."""
    name = (LONG * 5)[: length - 3].rstrip() + " &x"
    cards = {"OBJECT": name, "NOTE": name, "BUNIT": "Jy/beam"}
    path = write(tmp_path / "a.fits", cards)
    facts = describe(path, header_columns=("OBJECT", "NOTE", "hierarch note"))
    assert facts.object_name == name
    assert facts.keywords["NOTE"] == facts.keywords["OBJECT"] == name
    assert facts.unit == "Jy/beam"


def test_a_long_string_without_its_continuation_is_read_as_it_is(tmp_path):
    """And CONTINUE cards that continue nothing are ignored."""
    path = write(tmp_path / "a.fits", {"OBJECT": "AT&T&", "TELESCOP": "VLA"})
    raw = path.read_bytes()
    card = b"CONTINUE  'more'".ljust(80)
    path.write_bytes(raw.replace(b"TELESCOP".ljust(8) + b"= ", card[:8] + b"  ", 1))
    assert describe(path).object_name == "AT&TVLA"
    path.write_bytes(
        raw.replace(b"AT&T&", b"AT&T ", 1).replace(b"TELESCOP= ", card[:10])
    )
    assert describe(path).object_name == "AT&T"


@pytest.mark.parametrize(
    ("stored", "name"),
    [
        ("Čerenkov η Car".encode(), "Čerenkov η Car"),
        ("Jürgen".encode("latin-1"), "Jürgen"),
        (b"M 31", "M 31"),
    ],
)
def test_names_outside_ascii(tmp_path, stored, name):
    """UTF-8 where it is that, and Latin-1 otherwise."""
    path = write(tmp_path / "a.fits", {"OBJECT": "x" * len(stored)})
    raw = path.read_bytes()
    path.write_bytes(raw.replace(b"x" * len(stored), stored, 1))
    facts = describe(path, header_columns=("OBJECT",))
    assert facts.object_name == facts.keywords["OBJECT"] == name


@pytest.mark.parametrize(
    ("cards", "band"),
    [
        ({"HIERARCH ESO INS FILT1 NAME": "J", "HIERARCH ESO INS FILT2 NAME": "OPEN"},
         "J OPEN"),
        ({"HIERARCH ESO INS OPTI2 NAME": "NB_2.17"}, "NB_2.17"),
        ({"FILTER1": "CLEAR1L", "FILTER2": "F814W"}, "CLEAR1L F814W"),
        ({"FILTER": "F200W", "PUPIL": "CLEAR"}, "F200W CLEAR"),
        ({"FILTNAM1": "F606W"}, "F606W"),
        ({"HIERARCH ESO INS1 OPTI2 NAME": "D_H23"}, "D_H23"),
        ({"HIERARCH ESO INS OPTI-2 NAME": "Ks", "FWINAME": "Kp"}, "Kp Ks"),
        ({"HIERARCH ESO INS FILT1 ID": "ESO844"}, "ESO844"),
        ({"HIERARCH FPA.FILTER": "r"}, "r"),
        ({"FILTBAND": "i"}, "i"),
        ({"INSFILTE": "Rc"}, "Rc"),
        ({"BAND": 2}, "2"),
        ({"FILTER": "r", "BAND": "r"}, "r"),
        ({"FILTER": "NONE"}, ""),
        ({"FILTER": "UNKNOWN", "RESTFRQ": 1.4e9}, "1.4e+09"),
    ],
)  # fmt: skip
def test_filters_are_the_band(tmp_path, cards, band):
    assert describe(write(tmp_path / "a.fits", cards)).band == band


@pytest.mark.parametrize(
    ("cards", "plane"),
    [
        ({"CTYPE3": "STOKES", "CRVAL3": 2.0, "CRPIX3": 1.0, "CDELT3": 1.0}, "STOKES Q"),
        ({"CTYPE3": "STOKES", "CRVAL3": -5.0, "CRPIX3": 1.0}, "STOKES XX"),
        ({"CTYPE3": "VRAD", "CRVAL3": 100.0, "CRPIX3": 3.0, "CDELT3": 10.0}, "VRAD 80"),
        ({"DATE-OBS": "2020-01-01T00:00:00.000"}, "2020-01-01"),
        ({"DATE-OBS": "2020-01-01"}, "2020-01-01"),
        ({"DATE-OBS": "2020-01-01", "TIME-OBS": "12:00:00.0"}, "2020-01-01T12:00:00"),
        ({"MJD-OBS": 55000.5}, "55000.5"),
        ({"DATE-OBS": "2020-01-01", "EXPSTART": 58849.25}, "2020-01-01 58849.25"),
        ({"DATE-BEG": "2020-01-01T02:00:00.0"}, "2020-01-01T02:00:00"),
        ({"DATE-OBS": "2020-01-01", "UTC": "12:00:00.0"}, "2020-01-01T12:00:00"),
        ({"JD": 2458849.5}, "2458849.5"),
        ({"VELOCITY": 1500.0}, "VELOCITY 1500.0"),
        ({"STOKES": "V"}, "STOKES V"),
        ({}, ""),
    ],
)
@pytest.mark.parametrize("stored", [True, False])
def test_stokes_parameter_velocity_and_time_are_the_plane(
    tmp_path, cards, plane, stored
):
    """Whether or not the data have the axis."""
    pixels = PIXELS[None] if stored else PIXELS
    assert describe(write(tmp_path / "a.fits", cards, pixels)).plane == plane


def test_the_plane_is_the_selected_one(tmp_path):
    cards = {"CTYPE3": "VRAD", "CRVAL3": 0.0, "CRPIX3": 1.0, "CDELT3": 5.0}
    path = write(tmp_path / "a.fits", cards, np.stack([PIXELS] * 4))
    assert describe(path, planes=2).plane == "VRAD 10"
    assert describe(path, planes="mean 1:3").plane == "VRAD 5 to 10"


def test_the_last_beam_in_the_history_counts(tmp_path):
    """AIPS writes a line whenever the beam changes; other programs write others."""
    path = write(
        tmp_path / "a.fits",
        history=[
            "AIPS   CLEAN BMAJ=  1.0000E-03 BMIN=  9.0000E-04 BPA= -40.24",
            "AIPS   CLEAN BMAJ=  5.0000E-03 BMIN=  4.0000E-03 BPA=  10.00",
            "CONVL BMAJ =   18.000   BMIN =   18.000",
        ],
    )
    facts = describe(path)
    beam = (facts.beam_major_arcsec, facts.beam_minor_arcsec, facts.beam_angle_deg)
    assert beam == pytest.approx((18.0, 14.4, 10.0))


@pytest.mark.parametrize(
    ("cards", "history", "beam"),
    [
        ({}, "CLEAN BMAJ=  2.0D-03 BMIN=  1.0D-03 BPA= -40.24", (7.2, 3.6, -40.24)),
        ({}, "clean  bmaj = 2.0e-3 bmin = 1e-3 bpa = 5", (7.2, 3.6, 5)),
        ({}, "CLEAN BMAJ=  2.0000E-03 BMIN=  1.0000E-03", (7.2, 3.6, None)),
        ({"BMAJ": 0.0}, "CLEAN BMAJ=2E-3 BMIN=1E-3 BPA=5", (7.2, 3.6, 5)),
        ({"BMAJ": 0.001, "BMIN": 0.0}, "CLEAN BMAJ=2E-3 BMIN=1E-3 BPA=5", (3.6,) * 2),
        ({"CLNBMAJ": 0.002, "CLNBMIN": 0.001, "CLNBPA": 5.0}, "", (7.2, 3.6, 5)),
        ({}, "CLEAN BMAJ=  0.0E+00 BMIN=  0.0E+00 BPA= 0", (None, None, None)),
    ],
)
def test_beams_in_other_spellings(tmp_path, cards, history, beam):
    """A beam of 0, which stands for none, does not replace an earlier one."""
    first = "AIPS   CLEAN BMAJ=  0.0E+00 BMIN=  0.0E+00 BPA= 0"
    lines = [first, history, first]
    facts = describe(write(tmp_path / "a.fits", cards, history=lines))
    found = (facts.beam_major_arcsec, facts.beam_minor_arcsec, facts.beam_angle_deg)
    assert found == pytest.approx((*beam, None)[:3])


def casa_cube(path, unit="arcsec", mark="CASAMBM", value=True, **columns):
    """Stokes I and Q of four channels; the beam of channel 0 is flagged."""
    hdu = fits.PrimaryHDU(np.ones((2, 4, 20, 30), np.float32))
    cards = {"CTYPE3": "FREQ", "CTYPE4": "STOKES", mark: value}
    hdu.header.update(cards)
    channels, polarizations = np.tile(np.arange(4), 2), np.repeat((0, 1), 4)
    major = np.where(channels == 0, 0, 10 + channels + 100 * polarizations)
    values = {
        "BMAJ": ("1E", unit, major), "BMIN": ("1E", unit, major / 2),
        "BPA": ("1E", "deg", channels * 10.0), "CHAN": ("1J", None, channels),
        "POL": ("1J", None, polarizations),
    } | columns  # fmt: skip
    table = fits.BinTableHDU.from_columns(
        [fits.Column(n, f, unit=u, array=a) for n, (f, u, a) in values.items()],
        name="BEAMS",
    )
    fits.HDUList([hdu, table]).writeto(path)
    return path


@pytest.mark.parametrize(
    ("planes", "beam"),
    [
        (2, (12.0, 6.0, 20.0)),
        (7, (113.0, 56.5, 30.0)),
        (0, (None, None, None)),
        ("mean 0:4", (12.0, 6.0, 20.0)),
        ("mean 5:7", (111.0, 55.5, 10.0)),
    ],
)
def test_beams_of_casa_are_those_of_the_used_planes(tmp_path, planes, beam):
    """Of several planes, the one with the median major axis."""
    for mark, value in (("CASAMBM", True), ("BUNIT", "Jy/beam")):
        path = casa_cube(tmp_path / f"{mark}.fits", mark=mark, value=value)
        facts = describe(path, planes=planes)
        found = (facts.beam_major_arcsec, facts.beam_minor_arcsec, facts.beam_angle_deg)
        assert found == beam


@pytest.mark.parametrize(
    "damage",
    [
        (b"TFORM1  = '1E", b"TFORM1  = '9E"), (b"TTYPE4  = 'CHAN", b"TTYPE4  = 'NAHC"),
        (b"TFORM2  = '1E", b"TFORM2  = '1X"), (b"'BEAMS", b"'SMAEB"),
        (b"arcsec", b"parsec"), (b"TFIELDS = ", b"TFIELDS = '"),
    ],
)  # fmt: skip
def test_an_image_with_a_damaged_table_of_beams_has_no_beam(tmp_path, damage):
    path = casa_cube(tmp_path / "a.fits")
    raw = path.read_bytes()
    assert damage[0] in raw
    path.write_bytes(raw.replace(*damage))
    facts = describe(path, planes=2)
    assert (facts.width, facts.beam_major_arcsec) == (30, None)
    path.write_bytes(raw[:-2880])
    assert describe(path, planes=2).beam_major_arcsec is None
