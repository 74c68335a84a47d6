"""The position of an image on the sky, in ICRS degrees.

Greisen & Calabretta (2002) and Calabretta & Greisen (2002), as implemented in wcslib;
frames as implemented in astropy.coordinates.
"""

import functools
import math
import re
from dataclasses import dataclass
from typing import Any

import numpy as np
from astropy.wcs import WcsError, Wcsprm
from numpy.typing import NDArray

from astromorph.errors import FitsImageError
from astromorph.fits.header import Header

LONGITUDE = re.compile(r"RA--|.LON|..LN")
LATITUDE = re.compile(r"DEC-|.LAT|..LT")
# Projections that wcslib does not support, and the most similar ones that it does.
NEAREST_PROJECTION = {"TNX": "TAN", "ZPX": "ZPN", "NCP": "SIN"}
DEGREES = {
    "": 1.0,
    "deg": 1.0,
    "arcmin": 1 / 60,
    "arcsec": 1 / 3600,
    "mas": 1 / 3.6e6,
    "rad": math.degrees(1),
}
MAX_SIP_ORDER = 9
# Keywords of positions outside the WCS, in order of preference. Numbers are degrees;
# right ascensions given as text are hours.
POSITION_KEYWORDS = (
    ("RA", "DEC"), ("OBSRA", "OBSDEC"), ("RA_TARG", "DEC_TARG"), ("RA_OBJ", "DEC_OBJ"),
    ("OBJCTRA", "OBJCTDEC"), ("TARGRA", "TARGDEC"), ("RA_PNT", "DEC_PNT"),
    ("RA_NOM", "DEC_NOM"), ("TELRA", "TELDEC"),
)  # fmt: skip
SEXAGESIMAL = re.compile(
    r"([+-]?)(\d{1,3})[:hd ]\s*(\d{1,2})(?:[:m' ]\s*(\d{1,2}(?:\.\d*)?)?[s\"]?)?"
)
FK4_BEFORE = 1984.0  # equinox; used if no frame is given (FITS Standard 4.0, 8.3)


@dataclass(frozen=True, slots=True)
class Position:
    """Position and scale of an image; None if its header does not give them.

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


@np.errstate(all="ignore")
def image_position(header: Header, centre: tuple[float, ...]) -> Position:
    """Position and scale from the WCS, or else a position from other keywords.

    Parameters
    ----------
    header : Header
        Header of the image, or the primary header.
    centre : tuple of float
        The image centre in pixels, counted from 1, in the order of the FITS axes.

    Returns
    -------
    Position
    """
    position = _position_from_wcs(header, centre)
    if position.ra_deg is None:
        ra_deg, dec_deg = _position_from_keywords(header)
        return Position(ra_deg, dec_deg, position.pixel_scale_arcsec)
    return position


def celestial_axes(header: Header, n_axes: int) -> tuple[int, int] | None:
    """Indices, from 0, of the two celestial FITS axes; None if there are none."""
    types = [header.text(f"CTYPE{k + 1}").upper() for k in range(n_axes)]
    longitude = [k for k, ctype in enumerate(types) if LONGITUDE.match(ctype)]
    latitude = [k for k, ctype in enumerate(types) if LATITUDE.match(ctype)]
    if len(longitude) == len(latitude) == 1:
        first, second = sorted((longitude[0], latitude[0]))
        return first, second
    return None


def _position_from_wcs(header: Header, centre: tuple[float, ...]) -> Position:
    axes = celestial_axes(header, len(centre))
    if axes is None:
        return Position()
    try:
        numbers = [axis + 1 for axis in axes]
        units = [_unit(header, k) for k in numbers]
        matrix = [
            [unit * element for element in row]
            for unit, row in zip(units, _matrix(header, numbers), strict=True)
        ]
        wcs = _make_wcs(header, numbers, units, matrix)
        lonlat = wcs.p2s(_correct_distortion(header, axes, centre), 1)["world"][0]
    except (ValueError, ArithmeticError, FitsImageError, WcsError):
        return Position()
    lon, lat = float(lonlat[wcs.lng]), float(lonlat[wcs.lat])
    ra_deg, dec_deg = _header_to_icrs(header, lon, lat, wcs.ctype[wcs.lng][:4])
    if math.isnan(lon) or math.isnan(lat):
        return Position()
    columns = zip(*matrix, strict=True)
    scale = math.sqrt(math.prod(math.hypot(*column) for column in columns)) * 3600
    valid = math.isfinite(scale) and scale > 0
    return Position(ra_deg, dec_deg, scale if valid else None)


def _make_wcs(
    header: Header,
    numbers: list[int],
    units: list[float],
    matrix: list[list[float]],
) -> Any:
    """The `wcsprm` struct of wcslib for the two celestial axes, in degrees.

    It is filled value by value, because the header parser of wcslib crashes for some
    damaged headers.
    """
    wcs = Wcsprm(naxis=2)
    wcs.ctype = [_axis_type(header, k) for k in numbers]
    wcs.crpix = [header.number(f"CRPIX{k}") or 0.0 for k in numbers]
    wcs.crval = [
        unit * (header.number(f"CRVAL{k}") or 0.0)
        for k, unit in zip(numbers, units, strict=True)
    ]
    wcs.pc = matrix
    wcs.cdelt = [1.0, 1.0]
    for keyword, name in (("LONPOLE", "lonpole"), ("LATPOLE", "latpole")):
        pole = header.number(keyword)
        if pole is not None:
            setattr(wcs, name, pole)
    parameters = []
    if any(keyword.startswith("PV") for keyword in header.cards):
        parameters = [
            (k + 1, m, value)
            for k, number in enumerate(numbers)
            for m in range(40)
            if (value := header.number(f"PV{number}_{m}")) is not None
        ]
    if parameters:
        wcs.set_pv(parameters)
    wcs.set()
    return wcs


def _axis_type(header: Header, number: int) -> str:
    """CTYPE with a projection that wcslib supports, such as ``RA---TAN``."""
    ctype = header.text(f"CTYPE{number}").upper().removesuffix("-SIP")
    projection = ctype[5:8]
    return ctype[:5] + NEAREST_PROJECTION.get(projection, projection)


def _unit(header: Header, number: int) -> float:
    """The size of an axis's unit in degrees."""
    unit = header.text(f"CUNIT{number}").lower()
    unit = "deg" if unit.startswith("deg") else unit
    if unit not in DEGREES:
        raise ValueError(f"unknown unit {unit!r}")
    return DEGREES[unit]


def _matrix(header: Header, numbers: list[int]) -> list[list[float]]:
    """Matrix from pixels to axis units: CDi_j, or CDELT with PCi_j or CROTA."""
    i, j = numbers
    names = (f"{i}_{i}", f"{i}_{j}", f"{j}_{i}", f"{j}_{j}")
    cd = _matrix_elements(header, [f"CD{name}" for name in names], 0.0)
    if cd:
        return [cd[:2], cd[2:]]
    first, second = (
        1.0 if step is None else step
        for step in (header.number(f"CDELT{i}"), header.number(f"CDELT{j}"))
    )
    old_names = [f"PC{k:03d}{n:03d}" for k, n in ((i, i), (i, j), (j, i), (j, j))]
    pc = _matrix_elements(header, [f"PC{name}" for name in names], 1.0)
    pc = pc or _matrix_elements(header, old_names, 1.0)
    if pc:
        return [[first * pc[0], first * pc[1]], [second * pc[2], second * pc[3]]]
    angle = math.radians(header.number(f"CROTA{j}") or 0.0)
    cos, sin = math.cos(angle), math.sin(angle)
    # Calabretta & Greisen (2002), eq. 189
    return [[first * cos, -second * sin], [first * sin, second * cos]]


def _matrix_elements(
    header: Header, keywords: list[str], diagonal: float
) -> list[float]:
    """Four elements of a matrix, row by row; empty if the header has none of them."""
    if not any(keyword in header.cards for keyword in keywords):
        return []
    values = [header.number(keyword) for keyword in keywords]
    defaults = (diagonal, 0.0, 0.0, diagonal)
    return [d if v is None else v for v, d in zip(values, defaults, strict=True)]


def _correct_distortion(
    header: Header, axes: tuple[int, int], centre: tuple[float, ...]
) -> NDArray[np.float64]:
    """Pixel coordinates `(1, 2)`, from 1, with SIP corrections (Shupe et al. 2005)."""
    x, y = (centre[axis] for axis in axes)
    if "A_ORDER" in header.cards and "B_ORDER" in header.cards:
        u, v = (
            pixel - (header.number(f"CRPIX{axis + 1}") or 0.0)
            for pixel, axis in zip((x, y), axes, strict=True)
        )
        x, y = (
            pixel + _sip_polynomial(header, name, u, v)
            for pixel, name in ((x, "A"), (y, "B"))
        )
    return np.array([[x, y]])


def _sip_polynomial(header: Header, name: str, u: float, v: float) -> float:
    order = min(header.integer(f"{name}_ORDER", 0), MAX_SIP_ORDER)
    return sum(
        (header.number(f"{name}_{p}_{q}") or 0.0) * u**p * v**q
        for p in range(order + 1)
        for q in range(order + 1 - p)
    )


def _header_to_icrs(
    header: Header, lon: float, lat: float, axis: str
) -> tuple[float | None, float | None]:
    """ICRS degrees of a position in the frame of the header."""
    system = header.text("RADESYS") or header.text("RADECSYS")
    equinox = header.number("EQUINOX")
    equinox = header.number("EPOCH") if equinox is None else equinox
    if equinox is not None and not 1800 <= equinox <= 2100:
        equinox = None  # 0 or a Julian date, for example, is not an equinox
    return to_icrs(lon, lat, axis, system, math.nan if equinox is None else equinox)


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
        ``"ELON"`` or ``"SLON"``.
    system : str
        RADESYS, or empty.
    equinox : float
        EQUINOX, or NaN.

    Returns
    -------
    ra_deg, dec_deg : float or None
        None for other frames (those of the Sun or a planet) and impossible positions.
    """
    if not (math.isfinite(lon) and math.isfinite(lat) and abs(lat) <= 90):
        return None, None
    frame = _frame_name(axis, system.strip().upper(), equinox)
    if frame is None:
        return None, None
    if frame == "icrs":
        return lon % 360, lat
    if frame == "fk4":
        return _fk4_to_icrs(lon, lat, equinox)
    cosine, a, b = math.cos(math.radians(lat)), math.radians(lon), math.radians(lat)
    vector = (cosine * math.cos(a), cosine * math.sin(a), math.sin(b))
    x, y, z = (float(c) for c in _rotation(frame, equinox) @ np.array(vector))
    return math.degrees(math.atan2(y, x)) % 360, math.degrees(
        math.atan2(z, math.hypot(x, y))
    )


def _frame_name(axis: str, system: str, equinox: float) -> str | None:
    frames = {"GLON": "galactic", "ELON": "ecliptic", "SLON": "supergalactic"}
    if axis in frames:
        return frames[axis]
    if axis != "RA--":
        return None
    if not system:
        if math.isnan(equinox):
            return "icrs"
        return "fk4" if equinox < FK4_BEFORE else "fk5"
    return {"ICRS": "icrs", "FK5": "fk5", "FK4": "fk4", "FK4-NO-E": "fk4"}.get(system)


@functools.lru_cache(maxsize=64)
def _rotation(name: str, equinox: float) -> NDArray[np.float64]:
    """Matrix `(3, 3)` that rotates unit vectors of a frame to ICRS."""
    from astropy import coordinates as c

    epoch = f"J{equinox}" if math.isfinite(equinox) else "J2000"
    frames: dict[str, Any] = {
        "galactic": c.Galactic,
        "supergalactic": c.Supergalactic,
        "ecliptic": lambda: c.BarycentricMeanEcliptic(equinox=epoch),
        "fk5": lambda: c.FK5(equinox=epoch),
    }
    axes = c.CartesianRepresentation(np.eye(3))
    rotated = frames[name]().realize_frame(axes).transform_to(c.ICRS())
    return np.asarray(rotated.cartesian.xyz.value, dtype=np.float64)


def _fk4_to_icrs(lon: float, lat: float, equinox: float) -> tuple[float, float]:
    from astropy import coordinates as c
    from astropy import units as u

    epoch = f"B{equinox}" if math.isfinite(equinox) else "B1950"
    frame = c.FK4(ra=lon * u.deg, dec=lat * u.deg, equinox=epoch)
    icrs = frame.transform_to(c.ICRS())
    return float(icrs.ra.deg), float(icrs.dec.deg)


def _position_from_keywords(header: Header) -> tuple[float | None, float | None]:
    for first, second in POSITION_KEYWORDS:
        ra, dec = _angle(header, first, hours=True), _angle(header, second, hours=False)
        if ra is not None and dec is not None and 0 <= ra <= 360 and abs(dec) <= 90:
            return _header_to_icrs(header, ra, dec, "RA--")
    return None, None


def _angle(header: Header, keyword: str, hours: bool) -> float | None:
    """Degrees from a number in degrees or from text such as ``12:34:56.7``."""
    number = header.number(keyword)
    if number is not None:
        return number
    match = SEXAGESIMAL.fullmatch(header.text(keyword))
    if not match:
        return None
    sign, degrees, minutes, seconds = match.groups()
    value = int(degrees) + int(minutes) / 60 + float(seconds or 0) / 3600
    return (-value if sign == "-" else value) * (15 if hours else 1)
