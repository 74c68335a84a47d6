"""Positions from world coordinates: those of astropy, or a warning with the reason."""

import itertools
import warnings

import numpy as np
import pytest
from astropy import coordinates as c
from astropy.io import fits
from astropy.wcs import WCS
from astropy.wcs.utils import proj_plane_pixel_scales

from astromorph.fits.celestial import image_position
from astromorph.fits.header import Header

CENTRE = (60.5, 50.5)
PROJECTIONS: dict[str, dict[str, float]] = {
    "AZP": {"PV2_1": 2.0, "PV2_2": 30.0}, "SZP": {"PV2_1": 2.0, "PV2_2": 30.0},
    "TAN": {}, "STG": {}, "SIN": {"PV2_1": 0.1, "PV2_2": -0.2}, "ARC": {},
    "ZPN": {"PV2_1": 1.0, "PV2_3": 0.2}, "ZEA": {}, "AIR": {"PV2_1": 45.0},
    "CYP": {"PV2_1": 1.0, "PV2_2": 0.7}, "CEA": {"PV2_1": 1.0}, "CAR": {}, "MER": {},
    "SFL": {}, "GLS": {}, "PAR": {}, "MOL": {}, "AIT": {}, "NCP": {},
    "COP": {"PV2_1": 45.0, "PV2_2": 25.0}, "COE": {"PV2_1": 45.0, "PV2_2": 25.0},
    "COD": {"PV2_1": 45.0, "PV2_2": 25.0}, "COO": {"PV2_1": 45.0, "PV2_2": 25.0},
    "BON": {"PV2_1": 45.0}, "PCO": {}, "TSC": {}, "CSC": {}, "QSC": {},
    "HPX": {"PV2_1": 4.0, "PV2_2": 3.0}, "XPH": {},
}  # fmt: skip
A, B = 0.8, 0.6  # cosine and sine of the rotation
ROTATIONS = {
    "none": {"CDELT1": -0.01, "CDELT2": 0.012},
    "CROTA": {"CDELT1": -0.01, "CDELT2": 0.012, "CROTA2": 36.87},
    "CD": {"CD1_1": -0.01 * A, "CD1_2": 0.01 * B, "CD2_1": 0.01 * B, "CD2_2": 0.012},
    "PC": {"CDELT1": -0.01, "CDELT2": 0.012, "PC1_1": A, "PC1_2": -B, "PC2_1": B,
           "PC2_2": A},
    "old PC": {"CDELT1": -0.01, "CDELT2": 0.012, "PC001001": A, "PC001002": -B,
               "PC002001": B, "PC002002": A},
    "poles": {"CDELT1": -0.01, "CDELT2": 0.012, "LONPOLE": 150.0, "LATPOLE": 60.0},
}  # fmt: skip
# Types of the axes, keywords, and the frame in astropy.
FRAMES = {
    "none": ("RA--", "DEC-", {}, c.ICRS()),
    "ICRS": ("RA--", "DEC-", {"RADESYS": "ICRS"}, c.ICRS()),
    "FK5": ("RA--", "DEC-", {"RADECSYS": "FK5", "EQUINOX": 2000.0}, c.FK5()),
    "1975": ("RA--", "DEC-", {"RADESYS": "FK5", "EQUINOX": 1975.0},
             c.FK5(equinox="J1975")),
    "epoch": ("RA--", "DEC-", {"EPOCH": 1950.0}, c.FK4(equinox="B1950")),
    "FK4": ("RA--", "DEC-", {"RADESYS": "FK4", "EQUINOX": 1950.0},
            c.FK4(equinox="B1950")),
    "FK4-NO-E": ("RA--", "DEC-", {"RADESYS": "FK4-NO-E", "EQUINOX": 1950.0},
                 c.FK4NoETerms(equinox="B1950")),
    "galactic": ("GLON", "GLAT", {}, c.Galactic()),
    "ecliptic": ("ELON", "ELAT", {}, c.BarycentricMeanEcliptic()),
    "supergalactic": ("SLON", "SLAT", {}, c.Supergalactic()),
}  # fmt: skip
SIP = {"A_ORDER": 3, "B_ORDER": 2, "A_2_0": 1e-4, "A_0_3": -2e-6, "A_1_1": 3e-5,
       "B_0_2": -2e-4, "B_1_1": 1e-4}  # fmt: skip
SCAMP = {
    f"PV{i}_{m}": v * i
    for i in (1, 2)
    for m, v in ((0, 0.003), (1, 0.505), (2, 0.002), (4, 0.1), (5, -0.2), (7, 0.3))
}
DISTORTIONS = {
    "SIP": ("-TAN-SIP", SIP),
    "SIP without suffix": ("-TAN", SIP),
    "suffix without SIP": ("-TAN-SIP", {}),
    "order 1": ("-TAN", {"A_ORDER": 1, "B_ORDER": 1, "A_1_0": 0.1}),
    "SCAMP": ("-TAN", SCAMP),
    "SCAMP beside SIP": ("-TAN", SCAMP | SIP),
    "SCAMP beside SIP with suffix": ("-TAN-SIP", SCAMP | SIP),
    "TPV": ("-TPV", SCAMP),
    "TPV beside SIP": ("-TPV", SCAMP | SIP),
    "few PV": ("-TAN", {"PV1_1": 3.0, "PV1_2": 60.0}),
    "few PV beside SIP": ("-TAN", {"PV1_1": 3.0, "PV1_2": 60.0} | SIP),
}
UNITS = ("deg", "degree", "degrees", "DEG", "Degrees", "DEGREE", "", "arcsec", "ARCSEC")


def make_header(*parts) -> fits.Header:
    header = fits.Header()
    for part in parts:
        header.update(part)
    return header


def generated_headers():
    """Frames of astropy with headers: projections, rotations, distortions, units."""
    units = itertools.cycle(UNITS)
    position = {"CRPIX1": 20.0, "CRPIX2": 130.0, "CRVAL1": 150.0, "CRVAL2": 35.0}
    axes_of = {name: frame[:2] for name, frame in FRAMES.items()}
    # Seven has no common divisor with the number of frames: all are combined with each
    # projection.
    for (code, pv), rotation, name in list(
        itertools.product(PROJECTIONS.items(), ROTATIONS.values(), FRAMES)
    )[::7]:
        lon, lat = axes_of[name]
        types = {"CTYPE1": f"{lon}-{code}", "CTYPE2": f"{lat}-{code}"}
        unit = next(units)
        factor = 3600.0 if unit.lower() == "arcsec" else 1.0
        scaled = {
            key: value * (factor if key[:4] in ("CDEL", "CRVA", "CD1_", "CD2_") else 1)
            for key, value in (position | rotation).items()
        }
        cunits = {"CUNIT1": unit, "CUNIT2": unit}
        yield name, make_header(types, scaled, pv, cunits, FRAMES[name][2])
    for (suffix, cards), rotation, name in list(
        itertools.product(DISTORTIONS.values(), ROTATIONS.values(), FRAMES)
    )[::7]:
        types = {f"CTYPE{k + 1}": axes_of[name][k] + suffix for k in (0, 1)}
        yield name, make_header(types, position, rotation, cards, FRAMES[name][2])


def found(header: fits.Header, centre=CENTRE):
    raw = header.tostring(endcard=False, padding=False).encode()
    return image_position(Header(raw), centre)


def from_astropy(header: fits.Header) -> tuple[WCS | None, np.ndarray]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            wcs = WCS(header)
        except ValueError:
            return None, np.full(2, np.nan)
        return wcs, wcs.all_pix2world([CENTRE], 1)[0]


def test_positions_agree_with_astropy_for_all_projections_and_frames():
    """Within a milliarcsecond; the pixel scale is that of astropy as well."""
    pairs: dict[str, list[tuple[float, ...]]] = {name: [] for name in FRAMES}
    count, refused = 0, 0
    for name, header in generated_headers():
        (wcs, expected), position = from_astropy(header), found(header)
        if not np.isfinite(expected).all():
            assert position.ra_deg is None, repr(header)
            assert "world coordinates give no position: " in position.warning
            refused += 1
            continue
        assert position.ra_deg is not None, repr(header)
        assert position.warning == ""
        scale = np.sqrt(np.prod(proj_plane_pixel_scales(wcs))) * 3600
        assert position.pixel_scale_arcsec == pytest.approx(scale)
        pairs[name].append((*expected, position.ra_deg, position.dec_deg))
        count += 1
    for name, values in pairs.items():
        lon, lat, ra, dec = np.array(values).T
        frame = FRAMES[name][3]
        expected = c.SkyCoord(lon, lat, unit="deg", frame=frame).transform_to(c.ICRS())
        separation = expected.separation(c.SkyCoord(ra, dec, unit="deg")).arcsec
        assert separation.max() < 1e-3, name
    assert (count > 300, refused > 10) == (True, True)


TAN = {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRPIX1": 60.5, "CRPIX2": 50.5,
       "CRVAL1": 150.0, "CRVAL2": 35.0, "CDELT1": -0.01, "CDELT2": 0.01}  # fmt: skip


@pytest.mark.parametrize(
    ("cards", "frame"),
    [
        ({"RADESYS": "J2000"}, c.FK5()),
        ({"RADESYS": "FK5/J2000"}, c.FK5()),
        ({"RADESYS": " fk5 (J2000.0)"}, c.FK5()),
        ({"RADECSYS": "ICRF"}, c.ICRS()),
        ({"RADESYS": "B1950"}, c.FK4(equinox="B1950")),
        ({"EQUINOX": "J2000.0"}, c.FK5()),
        ({"EQUINOX": "B1950"}, c.FK4(equinox="B1950")),
        ({"EQUINOX": "1950"}, c.FK4(equinox="B1950")),
        ({"EQUINOX": 0.0}, c.ICRS()),
        ({"EQUINOX": 2451545.0}, c.ICRS()),
        ({"EQUINOX": 2000.0, "EPOCH": 1950.0}, c.FK5()),
    ],
)
def test_unusual_names_of_frames(cards, frame):
    """Those that programs write although the FITS Standard does not define them."""
    position = found(make_header(TAN, cards))
    expected = c.SkyCoord(150, 35, unit="deg", frame=frame).icrs
    place = c.SkyCoord(position.ra_deg, position.dec_deg, unit="deg")
    assert place.separation(expected).arcsec < 1e-3


@pytest.mark.parametrize("unit", ["deg.", "Degree", "degs", "degrees of arc"])
def test_unusual_spellings_of_degrees(unit):
    position = found(make_header(TAN, {"CUNIT1": unit, "CUNIT2": unit}))
    assert (position.ra_deg, position.dec_deg) == pytest.approx((150, 35))


@pytest.mark.parametrize("unit", ["arcseconds", "ASEC", "Arcsec", "mas", "Radians"])
def test_unusual_spellings_of_other_units(unit):
    position = found(make_header(TAN, {"CUNIT1": unit, "CUNIT2": unit, "CRVAL2": 0.5}))
    factor = {"mas": 3.6e6, "Radians": np.pi / 180}.get(unit, 3600)
    assert position.dec_deg == pytest.approx(0.5 / factor)


@pytest.mark.parametrize(
    ("cards", "reason"),
    [
        ({"CTYPE1": "RA---XYZ", "CTYPE2": "DEC--XYZ"}, "Unrecognized"),
        ({"CUNIT1": "furlong"}, "furlong"),
        ({"CUNIT1": "h"}, "have 'h', want 'deg'"),
        ({"CDELT1": 0.0}, "singular"),
        ({"RADESYS": "GAPPT"}, "RADESYS is 'GAPPT'; known are ICRS, FK5"),
        ({"CRVAL1": "unknown", "CRVAL2": "unknown"}, "CRVAL is missing"),
        ({"A_ORDER": 3, "A_3_0": 1e-6}, "A_ORDER and B_ORDER, one is missing"),
        ({"A_ORDER": 10**6, "B_ORDER": 2}, "order of the SIP polynomials is above 9"),
        ({"CTYPE1": "RA---SIN", "CTYPE2": "DEC--SIN", "CRPIX1": -1e5}, "outside the"),
        (
            {"CTYPE1": "RA", "CTYPE2": "DEC", "CRVAL2": 95.0},
            "latitude of the centre of the image is 95 degrees",
        ),
        (
            {"PLTRAH": 14.0, "AMDX1": 67.2, "AMDY1": 67.2},
            "AMDX10 of the plate solution",
        ),
    ],
)
def test_a_header_without_position_says_why(cards, reason):
    """The same header with RA and DEC has the position of these, and the warning."""
    header = make_header(TAN, cards)
    position = found(header)
    assert position.ra_deg is None
    assert position.warning.startswith("its world coordinates give no position: ")
    assert reason.lower() in position.warning.lower()
    header["RA"], header["DEC"] = "10:00:00", 35.0
    if "RADESYS" not in cards:
        position = found(header)
        assert (position.ra_deg, position.dec_deg) == (150.0, 35.0)
        assert reason.lower() in position.warning.lower()


@pytest.mark.parametrize("keyword", ["AMDX17", "AMDY40", "CNPIX1", "PPO3"])
def test_a_single_keyword_of_a_plate_does_not_matter(keyword):
    """In wcslib, it would be a segmentation fault."""
    with_keyword = found(make_header(TAN, {keyword: 0.5}))
    assert with_keyword == found(make_header(TAN, {}))
    assert with_keyword.ra_deg is not None


@pytest.mark.parametrize(
    "types", [("HPLN-TAN", "HPLT-TAN"), ("CRLN-CAR", "CRLT-CAR"), ("LINEAR", "LINEAR")]
)
def test_images_of_the_sun_and_of_no_sky_have_no_warning(types):
    position = found(make_header(TAN, {"CTYPE1": types[0], "CTYPE2": types[1]}))
    assert (position.ra_deg, position.warning) == (None, "")


@pytest.mark.parametrize("order", [(1, 2, 3), (3, 1, 2), (2, 3, 1), (3, 2, 1)])
@pytest.mark.parametrize("coupled", [False, True])
def test_celestial_axes_can_have_any_numbers(order, coupled):
    """Also if a matrix element depends on the pixel along the third axis."""
    ra, dec, other = order
    cards = {"WCSAXES": 3}
    for k, ctype, value in ((ra, "RA---TAN", 150.0), (dec, "DEC--TAN", 35.0)):
        cards |= {f"CTYPE{k}": ctype, f"CRVAL{k}": value, f"CRPIX{k}": 10.0 * k}
        cards |= {f"CDELT{k}": 0.01}
    cards |= {f"CTYPE{other}": "FREQ", f"CRVAL{other}": 1e9, f"CDELT{other}": 1e6}
    cards |= {f"CRPIX{other}": 3.0, f"PC{ra}_{dec}": 0.3}
    if coupled:
        cards |= {f"PC{dec}_{other}": 0.5}
    header, centre = make_header(cards), (60.5, 50.5, 8.0)
    world = WCS(header).all_pix2world([centre], 1)[0]
    position = found(header, centre)
    assert position.ra_deg == pytest.approx(world[ra - 1], abs=1e-9)
    assert position.dec_deg == pytest.approx(world[dec - 1], abs=1e-9)


@pytest.mark.parametrize("types", [("RA", "DEC"), ("GLON", "GLAT"), ("DEC", "RA")])
def test_axes_without_a_projection_are_linear(types):
    cards = {"CTYPE1": types[0], "CTYPE2": types[1], "CRPIX1": 10.0, "CRVAL1": 80.0}
    header = make_header(TAN, cards)
    wcs, expected = from_astropy(header)
    assert wcs is not None
    lon, lat = expected[wcs.wcs.lng], expected[wcs.wcs.lat]
    frame = c.Galactic() if types[0] == "GLON" else c.ICRS()
    icrs = c.SkyCoord(lon, lat, unit="deg", frame=frame).icrs
    position = found(header)
    assert position.ra_deg == pytest.approx(icrs.ra.deg, abs=1e-9)
    assert position.dec_deg == pytest.approx(icrs.dec.deg, abs=1e-9)


@pytest.mark.parametrize("types", [("RA--TAN", "DEC-TAN"), ("RA_TAN", "DEC_TAN")])
def test_misspelled_axes_cause_a_warning(types):
    position = found(make_header(TAN, {"CTYPE1": types[0], "CTYPE2": types[1]}))
    assert position.ra_deg is None
    assert f"CTYPE is {types[0]!r} and {types[1]!r}" in position.warning


def test_an_invalid_spectral_axis_does_not_matter():
    cards = {"CTYPE3": "FELO-LSR", "CUNIT3": "furlong", "CDELT3": 0.0, "PV3_1": 1e300}
    position = found(make_header(TAN, cards), (*CENTRE, 1.0))
    assert (position.ra_deg, position.dec_deg) == pytest.approx((150, 35))
