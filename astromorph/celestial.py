"""Where on the sky an image is: world coordinates to ICRS degrees.

Greisen & Calabretta (2002) and Calabretta & Greisen (2002), as wcslib
implements them; frames as astropy.coordinates does.
"""

import functools
import math
import re
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from astropy.wcs import WCS, WCSSUB_CELESTIAL, WcsError, Wcsprm

from astromorph.fits_file import CARD, UNREADABLE, Header

if TYPE_CHECKING:
    from numpy.typing import NDArray

LONGITUDE = re.compile(r"RA--|.LON|..LN")
LATITUDE = re.compile(r"DEC-|.LAT|..LT")
# Keywords that wcslib is shown; the rest of a header only costs time.
WCS_KEYWORDS = (
    b"CTYPE", b"CRPIX", b"CRVAL", b"CDELT", b"CUNIT", b"CROTA", b"CD", b"PC", b"PV",
    b"PS", b"WCSAXES", b"RADESYS", b"RADECSYS", b"EQUINOX", b"EPOCH", b"LONPOLE",
    b"LATPOLE", b"NAXIS", b"MJD-OBS", b"DATE-OBS",
)  # fmt: skip
# Positions outside the WCS, by what wrote them; degrees, or hours as text.
POSITIONS = (
    ("RA", "DEC"), ("OBSRA", "OBSDEC"), ("RA_TARG", "DEC_TARG"), ("RA_OBJ", "DEC_OBJ"),
    ("OBJCTRA", "OBJCTDEC"), ("TARGRA", "TARGDEC"), ("RA_PNT", "DEC_PNT"),
    ("RA_NOM", "DEC_NOM"), ("TELRA", "TELDEC"),
)  # fmt: skip
SEXAGESIMAL = re.compile(
    r"([+-]?)(\d{1,3})[:hd ]\s*(\d{1,2})(?:[:m' ]\s*(\d{1,2}(?:\.\d*)?)?[s\"]?)?"
)
FK4_BEFORE = 1984.0  # an equinox without a frame (FITS Standard 4.0, 8.3)


@dataclass(frozen=True, slots=True)
class Place:
    """Where an image is; None where its header does not say.

    Attributes
    ----------
    ra_deg, dec_deg : float or None
        ICRS position of the image centre, in degrees.
    pixel_scale_arcsec : float or None
        Geometric mean of the two pixel scales.
    """

    ra_deg: float | None = None
    dec_deg: float | None = None
    pixel_scale_arcsec: float | None = None


def place(header: Header, centre: tuple[float, ...]) -> Place:
    """Position and scale from the WCS, else a position from other keywords.

    Parameters
    ----------
    header : Header
        Of the image, or of what it inherits from.
    centre : tuple of float
        The image centre, from 1, in the order of the FITS axes.

    Returns
    -------
    Place
    """
    found = _from_wcs(header, centre)
    if found.ra_deg is None:
        ra_deg, dec_deg = _from_keywords(header)
        return Place(ra_deg, dec_deg, found.pixel_scale_arcsec)
    return found


def celestial_axes(header: Header, number: int) -> tuple[int, int] | None:
    """Indices, from 0, of the two FITS axes that lie on the sky; None without."""
    types = [header.text(f"CTYPE{k + 1}").upper() for k in range(number)]
    longitude = [k for k, kind in enumerate(types) if LONGITUDE.match(kind)]
    latitude = [k for k, kind in enumerate(types) if LATITUDE.match(kind)]
    if len(longitude) == len(latitude) == 1:
        first, second = sorted((longitude[0], latitude[0]))
        return first, second
    return None


def _from_wcs(header: Header, centre: tuple[float, ...]) -> Place:
    axes = celestial_axes(header, len(centre))
    if axes is None:
        return Place()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            wcs = _celestial(header)
            pixel = np.array([[centre[k] for k in axes]])
            lon, lat = _world(header, wcs, pixel)
            matrix = wcs.get_pc() * wcs.get_cdelt()[:, None]
            position = _icrs(wcs, lon, lat)
    except (*UNREADABLE, WcsError):
        return Place()
    sides = np.hypot(matrix[0], matrix[1]) * 3600
    scale = math.sqrt(float(sides[0]) * float(sides[1]))
    known = math.isfinite(scale) and scale > 0
    return Place(*position, scale if known else None)


def _celestial(header: Header) -> Any:
    raw = header.raw
    shown = [
        raw[at : at + CARD]
        for at in range(0, len(raw), CARD)
        if raw.startswith(WCS_KEYWORDS, at)
    ]
    whole = Wcsprm(header=b"".join(shown), relax=True, warnings=False)
    wcs = whole if whole.naxis == 2 else whole.sub([WCSSUB_CELESTIAL])
    try:
        wcs.set()
    except (ValueError, WcsError):
        wcs.fix()  # units and dates that are not standard
        wcs.set()
    return wcs


def _world(header: Header, wcs: Any, pixel: "NDArray[np.float64]") -> tuple[Any, Any]:
    """Native longitude and latitude, in degrees."""
    if "A_ORDER" in header.cards:  # SIP is no concern of wcslib's here
        from astropy.io import fits

        lonlat = (
            WCS(fits.Header.fromstring(header.raw.decode("ascii", "replace")))
            .celestial.all_pix2world(pixel, 1)[0]
        )  # fmt: skip
    else:
        lonlat = wcs.p2s(pixel, 1)["world"][0]
    return (lonlat[0], lonlat[1]) if wcs.lng == 0 else (lonlat[1], lonlat[0])


def _icrs(wcs: Any, lon: float, lat: float) -> tuple[float | None, float | None]:
    axis, system, equinox = wcs.ctype[wcs.lng][:4], wcs.radesys, float(wcs.equinox)
    return to_icrs(float(lon), float(lat), axis, system, equinox)


def to_icrs(
    lon: float, lat: float, axis: str, system: str, equinox: float
) -> tuple[float | None, float | None]:
    """ICRS degrees of a position in any celestial frame.

    Parameters
    ----------
    lon, lat : float
        Degrees.
    axis : str
        First four letters of the longitude's CTYPE: ``"RA--"``, ``"GLON"``,
        ``"ELON"``, ``"SLON"``; others (the Sun's, a planet's) have none.
    system : str
        RADESYS, or empty.
    equinox : float
        EQUINOX, or NaN.

    Returns
    -------
    ra_deg, dec_deg : float or None
    """
    if not (math.isfinite(lon) and math.isfinite(lat) and abs(lat) <= 90):
        return None, None
    name = _frame_name(axis, system.strip().upper(), equinox)
    if name is None:
        return None, None
    if name == "icrs":
        return lon % 360, lat
    if name == "fk4":
        return _from_fk4(lon, lat, equinox)
    cosine, a, b = math.cos(math.radians(lat)), math.radians(lon), math.radians(lat)
    vector = (cosine * math.cos(a), cosine * math.sin(a), math.sin(b))
    x, y, z = (float(c) for c in _rotation(name, equinox) @ np.array(vector))
    return math.degrees(math.atan2(y, x)) % 360, math.degrees(
        math.atan2(z, math.hypot(x, y))
    )


def _frame_name(axis: str, system: str, equinox: float) -> str | None:
    others = {"GLON": "galactic", "ELON": "ecliptic", "SLON": "supergalactic"}
    if axis in others:
        return others[axis]
    if axis != "RA--":
        return None
    if not system:
        if math.isnan(equinox):
            return "icrs"
        return "fk4" if equinox < FK4_BEFORE else "fk5"
    return {"ICRS": "icrs", "FK5": "fk5", "FK4": "fk4", "FK4-NO-E": "fk4"}.get(system)


@functools.lru_cache(maxsize=64)
def _rotation(name: str, equinox: float) -> "NDArray[np.float64]":
    """Matrix `(3, 3)` that turns unit vectors of a frame to ICRS."""
    from astropy import coordinates as c

    epoch = f"J{equinox}" if math.isfinite(equinox) else "J2000"
    frames: dict[str, Any] = {
        "galactic": c.Galactic,
        "supergalactic": c.Supergalactic,
        "ecliptic": lambda: c.BarycentricMeanEcliptic(equinox=epoch),
        "fk5": lambda: c.FK5(equinox=epoch),
    }
    axes = c.CartesianRepresentation(np.eye(3))
    turned = frames[name]().realize_frame(axes).transform_to(c.ICRS())
    return np.asarray(turned.cartesian.xyz.value, dtype=np.float64)


def _from_fk4(lon: float, lat: float, equinox: float) -> tuple[float, float]:
    from astropy import coordinates as c
    from astropy import units as u

    epoch = f"B{equinox}" if math.isfinite(equinox) else "B1950"
    frame = c.FK4(ra=lon * u.deg, dec=lat * u.deg, equinox=epoch)
    icrs = frame.transform_to(c.ICRS())
    return float(icrs.ra.deg), float(icrs.dec.deg)


def _from_keywords(header: Header) -> tuple[float | None, float | None]:
    for first, second in POSITIONS:
        ra, dec = _angle(header, first, hours=True), _angle(header, second, hours=False)
        if ra is not None and dec is not None and 0 <= ra <= 360 and abs(dec) <= 90:
            system = header.text("RADESYS") or header.text("RADECSYS")
            equinox = header.number("EQUINOX") or math.nan
            return to_icrs(ra, dec, "RA--", system, equinox)
    return None, None


def _angle(header: Header, keyword: str, hours: bool) -> float | None:
    """Degrees, from a number of degrees or from text such as ``12:34:56.7``."""
    number = header.number(keyword)
    if number is not None:
        return number
    match = SEXAGESIMAL.fullmatch(header.text(keyword))
    if not match:
        return None
    sign, degrees, minutes, seconds = match.groups()
    value = int(degrees) + int(minutes) / 60 + float(seconds or 0) / 3600
    return (-value if sign == "-" else value) * (15 if hours else 1)
