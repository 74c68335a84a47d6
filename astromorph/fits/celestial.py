"""The position of an image on the sky, in ICRS degrees.

World coordinates are computed by wcslib (Greisen & Calabretta 2002; Calabretta &
Greisen 2002), through `astropy.wcs.Wcsprm`, with the corrections of nonstandard headers
that `astropy.wcs.WCS` makes. `WCS` itself is not used, because it needs fifteen times
as long. Frames are those of astropy.coordinates.
"""

import functools
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from astropy.wcs import WcsError, Wcsprm
from numpy.typing import NDArray

from astromorph.errors import FitsImageError
from astromorph.fits.header import Header

# Axes without a projection, RA and DEC, are linear degrees.
LONGITUDE = re.compile(r"RA(?![A-Z])|.LON|..LN")
LATITUDE = re.compile(r"DEC(?![A-Z])|.LAT|..LT")
# Keywords that wcslib needs; the groups are the numbers of axes. WAT is a distortion of
# IRAF; the last two lines are the plate solution of the Digitized Sky Survey.
WCS_KEYWORD = re.compile(
    r"(?:CTYPE|CUNIT|CRPIX|CRVAL|CDELT|CROTA)([1-9])"
    r"|(?:CD|PC)([1-9])_([1-9])|(?:CD|PC)00([1-9])00([1-9])"
    r"|PV([1-9])_[0-9]{1,2}|WAT([1-9])_[0-9]{3}|LONPOLE|LATPOLE|PROJP[0-9]"
    r"|AMD[XY][0-9]{1,2}|PPO[1-6]|[XY]PIXELSZ|CNPIX[12]"
    r"|PLTRA[HMS]|PLTDEC(?:SN|D|M|S)|PLTSCALE"
)
# The plate solution. wcslib crashes if some of these keywords are missing.
PLATE_KEYWORDS = frozenset(
    f"{stem}{end}"
    for stem, ends in {
        "PLTRA": "HMS",
        "PLTDEC": ("SN", "D", "M", "S"),
        "PLTSCALE": ("",),
        "CNPIX": "12",
        "XPIXELSZ": ("",),
        "YPIXELSZ": ("",),
        "PPO": "123456",
        "AMDX": range(1, 21),
        "AMDY": range(1, 21),
    }.items()
    for end in ends
)
PLATE_CENTRE = "PLTRAH"  # no other kind of header has it
PLATE_SIGN = "PLTDECSN"  # of the declination; a text
PLATE_PREFIXES = ("PLT", "CNPIX", "XPIXELSZ", "YPIXELSZ", "PPO", "AMDX", "AMDY")
# Keywords that only celestial axes may have.
CELESTIAL_KEYWORDS = ("CTYPE", "CUNIT", "CROTA", "PV", "WAT")
TEXT_KEYWORDS = ("WAT", "PLTDECSN")
MAX_TEXT = 68  # characters of a string in one card
# Further spellings of units, in lower case. wcslib knows those of the FITS Standard and
# others such as "degrees" and "ARCSEC".
UNITS = {
    "arcseconds": "arcsec",
    "arcsecond": "arcsec",
    "asec": "arcsec",
    "arcminutes": "arcmin",
    "arcminute": "arcmin",
    "amin": "arcmin",
    "radian": "rad",
    "radians": "rad",
}
STANDARD_UNITS = ("arcsec", "arcmin", "mas", "rad")
MAX_SIP_ORDER = 9
MAX_LATITUDE = 90.0
MIN_SCAMP_PV = 5  # TAN has no parameters PVi_5 and above; SCAMP writes them
# Frames of the Sun and of planets: they have no position on the sky, which is no error.
FIXED_FRAMES = {"RA--": "", "GLON": "galactic", "ELON": "ecliptic"}
FIXED_FRAMES |= {"SLON": "supergalactic"}
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
FRAME = re.compile(r"ICRS|ICRF|FK5|FK4-NO-E|FK4|[JB](?=[12]\d{3})")
FRAME_NAMES = {"ICRF": "icrs", "J": "fk5", "B": "fk4"}
EQUINOX = re.compile(r"([JB]?)\s*([12]\d{3}(?:\.\d*)?)")


@dataclass(frozen=True, slots=True)
class Position:
    """Position and scale of an image; None if its header does not give them.

    Attributes
    ----------
    ra_deg, dec_deg : float or None
        ICRS position of the image centre, in degrees.
    pixel_scale_arcsec : float or None
        Geometric mean of the two pixel scales.
    warning : str
        Why world coordinates in the header give no position; empty if they do, or if
        there are none.
    """

    ra_deg: float | None = None
    dec_deg: float | None = None
    pixel_scale_arcsec: float | None = None
    warning: str = ""


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
        scale = position.pixel_scale_arcsec
        return Position(ra_deg, dec_deg, scale, position.warning)
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
        wcs, lon, lat = _image_centre(header, axes, centre)
        scale = _pixel_scale(wcs)
    # wcslib reports some invalid distortions as a lack of memory.
    except (
        ValueError,
        ArithmeticError,
        FitsImageError,
        WcsError,
        MemoryError,
    ) as error:
        return Position(warning=_explain(error))
    reason = ""
    if not (math.isfinite(lon) and math.isfinite(lat)):
        reason = "the centre of the image is outside the projection"
    elif abs(lat) > MAX_LATITUDE:
        reason = f"the latitude of the centre of the image is {lat:.8g} degrees"
    if reason:
        return Position(pixel_scale_arcsec=scale, warning=_explain(reason))
    axis = wcs.ctype[wcs.lng][:4].ljust(4, "-")
    ra_deg, dec_deg = _header_to_icrs(header, lon, lat, axis)
    if ra_deg is None and axis in FIXED_FRAMES:
        system = header.text("RADESYS") or header.text("RADECSYS")
        reason = f"RADESYS is {system!r}; known are ICRS, FK5, FK4 and FK4-NO-E"
        return Position(pixel_scale_arcsec=scale, warning=_explain(reason))
    return Position(ra_deg, dec_deg, scale)


def _explain(error: Exception | str) -> str:
    """A warning, from the last line of an error of wcslib."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    lines = [line for line in lines if not line.startswith("ERROR")] or lines
    reason = lines[-1].rstrip(".") if lines else type(error).__name__
    return f"its world coordinates give no position: {reason[:160]}"


def _image_centre(
    header: Header, axes: tuple[int, int], centre: tuple[float, ...]
) -> tuple[Any, float, float]:
    """The `wcsprm` struct of wcslib, and the longitude and latitude of the centre."""
    if all(header.number(f"CRVAL{axis + 1}") is None for axis in axes):
        raise ValueError("CRVAL is missing")
    keywords = [key for key in header.cards if _places_of_axes(key) is not None]
    keywords = _without_incomplete_plate(header, keywords)
    used: Sequence[int] = axes
    if _axes_are_coupled(header, keywords, axes):
        used = range(len(centre))
    ctypes = {axis: header.text(f"CTYPE{axis + 1}").upper() for axis in axes}
    sip = _has_sip(header)
    pv = [keyword for keyword in keywords if keyword.startswith("PV")]
    scamp = any(int(keyword[4:]) >= MIN_SCAMP_PV for keyword in pv)
    if scamp and all(ctype.endswith("-TAN") for ctype in ctypes.values()):
        ctypes = {axis: f"{ctype[:-4]}-TPV" for axis, ctype in ctypes.items()}
    elif scamp and sip and all(c.endswith("-TAN-SIP") for c in ctypes.values()):
        keywords = [key for key in keywords if key not in pv]  # the same as SIP
    if all(ctype.endswith("-TPV") for ctype in ctypes.values()):
        sip = False
    cards = "".join(_wcs_cards(header, keywords, used, ctypes))
    wcs = Wcsprm(header=cards.encode("ascii"), relax=True, warnings=False)
    wcs.fix()
    wcs.set()
    if min(wcs.lng, wcs.lat) < 0:
        names = " and ".join(repr(ctype) for ctype in ctypes.values())
        raise ValueError(f"CTYPE is {names}, which are no axes of the sky")
    pixels = np.array([[centre[axis] for axis in used]])
    if sip:
        pixels[0, [used.index(axis) for axis in axes]] = _sip(header, axes, centre)
    world = wcs.p2s(pixels, 1)["world"][0]
    return wcs, float(world[wcs.lng]), float(world[wcs.lat])


def _without_incomplete_plate(header: Header, keywords: list[str]) -> list[str]:
    """The keywords without those of a plate solution, unless it is complete.

    Raises
    ------
    ValueError
        The header describes a plate, but not completely.
    """
    plate = [key for key in keywords if key.startswith(PLATE_PREFIXES)]
    if not plate:
        return keywords
    readable = {
        key for key in plate if key == PLATE_SIGN or header.number(key) is not None
    }
    missing = PLATE_KEYWORDS - readable
    if missing and PLATE_CENTRE in plate:
        raise ValueError(
            f"{min(missing)} of the plate solution is missing or no number"
        )
    unused = set(plate) if missing else set(plate) - PLATE_KEYWORDS
    return [key for key in keywords if key not in unused]


@functools.lru_cache(maxsize=4096)
def _places_of_axes(keyword: str) -> tuple[int, ...] | None:
    """Where a keyword of the WCS has numbers of axes; None for other keywords."""
    match = WCS_KEYWORD.fullmatch(keyword)
    if match is None:
        return None
    return tuple(start for k in range(1, 8) if (start := match.start(k)) >= 0)


def _axes_are_coupled(
    header: Header, keywords: list[str], axes: tuple[int, int]
) -> bool:
    """Whether the celestial coordinates depend on the pixel along another axis."""
    numbers = {str(axis + 1) for axis in axes}
    return any(
        len({keyword[place] in numbers for place in places}) == 2
        and bool(header.number(keyword))
        for keyword in keywords
        if len(places := _places_of_axes(keyword) or ()) == 2
    )


def _wcs_cards(
    header: Header, keywords: list[str], used: Sequence[int], ctypes: dict[int, str]
) -> Iterator[str]:
    """Cards for wcslib, whose parser crashes for some damaged headers.

    The axes are renumbered. Those that are not celestial become linear.
    """
    yield _card("WCSAXES", len(used))
    new = {str(axis + 1): str(number) for number, axis in enumerate(used, start=1)}
    celestial = {str(axis + 1) for axis in ctypes}
    for keyword in keywords:
        known, name = new, keyword
        places = _places_of_axes(keyword) or ()
        if keyword.startswith(CELESTIAL_KEYWORDS):
            known = {axis: number for axis, number in new.items() if axis in celestial}
        if not all(keyword[place] in known for place in places):
            continue
        for place in places:
            name = f"{name[:place]}{new[keyword[place]]}{name[place + 1 :]}"
        if keyword.startswith("CTYPE"):
            yield _card(name, ctypes[int(keyword[5:]) - 1])
        elif keyword.startswith("CUNIT"):
            yield _card(name, _unit(header.text(keyword)))
        elif keyword.startswith(TEXT_KEYWORDS):
            yield _card(name, str(header.value(keyword)).ljust(MAX_TEXT))
        elif (number := header.number(keyword)) is not None:
            yield _card(name, number)


def _card(keyword: str, value: float | str) -> str:
    text = repr(value)
    if isinstance(value, str):
        value = "".join(c if " " <= c <= "~" else "?" for c in value)
        text = "'" + value[:MAX_TEXT].replace("'", "") + "'"
    return f"{keyword:8}= {text:>20}".ljust(80)[:80]


def _unit(text: str) -> str:
    """A unit with a spelling that wcslib knows."""
    name = text.lower().rstrip(". ")
    name = UNITS.get(name, name)
    if name.startswith("deg"):
        return "deg"
    return name if name in STANDARD_UNITS else text


def _pixel_scale(wcs: Any) -> float | None:
    """Geometric mean of the sides of a pixel, in arcseconds."""
    matrix = wcs.get_cdelt()[:, None] * wcs.get_pc()
    columns = matrix[[wcs.lng, wcs.lat]]
    sides = np.sqrt((columns**2).sum(axis=0))
    sides = sides[sides > 0]
    scale = math.sqrt(math.prod(sides.tolist())) * 3600
    return scale if len(sides) == 2 and math.isfinite(scale) and scale > 0 else None


def _has_sip(header: Header) -> bool:
    """Whether the header has SIP corrections (Shupe et al. 2005)."""
    orders = [
        header.integer(f"{name}_ORDER") if f"{name}_ORDER" in header.cards else None
        for name in "AB"
    ]
    if all(order is None or order < 2 for order in orders):
        return False
    if None in orders:
        raise ValueError("of the SIP keywords A_ORDER and B_ORDER, one is missing")
    if max(order or 0 for order in orders) > MAX_SIP_ORDER:
        raise ValueError(f"the order of the SIP polynomials is above {MAX_SIP_ORDER}")
    return all(order is not None and order > 1 for order in orders)


def _sip(
    header: Header, axes: tuple[int, int], centre: tuple[float, ...]
) -> list[float]:
    """Corrected pixel coordinates of the centre."""
    u, v = (centre[axis] - (header.number(f"CRPIX{axis + 1}") or 0.0) for axis in axes)
    return [
        centre[axis] + _sip_polynomial(header, name, u, v)
        for axis, name in zip(axes, "AB", strict=True)
    ]


def _sip_polynomial(header: Header, name: str, u: float, v: float) -> float:
    order = header.integer(f"{name}_ORDER")
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
    equinox = None
    for keyword in ("EQUINOX", "EPOCH"):
        if match := EQUINOX.match(header.text(keyword).upper()):
            # 0 or a Julian date, for example, is not an equinox.
            number = float(match[2])
            equinox = number if 1800 <= number <= 2100 else None
            system = system or (match[1] and match[0])
        if keyword in header.cards:
            break
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
        RADESYS, or empty. Spellings such as ``"FK5/J2000"`` and ``"J2000"`` are known.
    equinox : float
        EQUINOX, or NaN.

    Returns
    -------
    ra_deg, dec_deg : float or None
        None for other frames (those of the Sun or a planet) and impossible positions.
    """
    if not (math.isfinite(lon) and math.isfinite(lat) and abs(lat) <= MAX_LATITUDE):
        return None, None
    frame = _frame_name(axis, system.strip().upper(), equinox)
    if frame is None:
        return None, None
    if frame == "icrs":
        return lon % 360, lat
    if frame.startswith("fk4"):
        return _fk4_to_icrs(frame, lon, lat, equinox)
    cosine, a, b = math.cos(math.radians(lat)), math.radians(lon), math.radians(lat)
    vector = (cosine * math.cos(a), cosine * math.sin(a), math.sin(b))
    x, y, z = (float(c) for c in _rotation(frame, equinox) @ np.array(vector))
    return math.degrees(math.atan2(y, x)) % 360, math.degrees(
        math.atan2(z, math.hypot(x, y))
    )


def _frame_name(axis: str, system: str, equinox: float) -> str | None:
    frame = FIXED_FRAMES.get(axis)
    if frame != "":
        return frame
    if not system:
        if math.isnan(equinox):
            return "icrs"
        return "fk4" if equinox < FK4_BEFORE else "fk5"
    match = FRAME.search(system)
    return FRAME_NAMES.get(match[0], match[0].lower()) if match else None


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


def _fk4_to_icrs(
    frame: str, lon: float, lat: float, equinox: float
) -> tuple[float, float]:
    from astropy import coordinates as c
    from astropy import units as u

    epoch = f"B{equinox}" if math.isfinite(equinox) else "B1950"
    kind = c.FK4 if frame == "fk4" else c.FK4NoETerms
    position = kind(ra=lon * u.deg, dec=lat * u.deg, equinox=epoch)
    icrs = position.transform_to(c.ICRS())
    return float(icrs.ra.deg), float(icrs.dec.deg)


def parse_position(ra: str, dec: str) -> tuple[float, float]:
    """Read a position that a user has written.

    Parameters
    ----------
    ra, dec : str
        Degrees, such as ``83.82`` and ``-5.39``, or sexagesimal, such as ``05:35:17.3``
        or ``5h35m17.3s`` and ``-05:23:28``. A sexagesimal right ascension is in hours
        unless it has the unit, as in ``83d49m``.

    Returns
    -------
    ra_deg, dec_deg : float
        From 0 to below 360, and from -90 to 90.

    Raises
    ------
    ValueError
        It is not a position; the message says what was found and what is allowed.

    Examples
    --------
    >>> parse_position("83.5", "-00:30:00")
    (83.5, -0.5)
    """
    ra_deg = _parse_angle(ra, "right ascension", "hourangle")
    dec_deg = _parse_angle(dec, "declination", "deg")
    if not -360 <= ra_deg <= 360:
        raise ValueError(
            f"found the right ascension {ra}; allowed are 0 to 360 degrees or 0h to 24h"
        )
    if not -90 <= dec_deg <= 90:
        raise ValueError(f"found the declination {dec}; allowed are -90 to 90 degrees")
    return ra_deg % 360 % 360, dec_deg


def _parse_angle(text: str, name: str, sexagesimal_unit: str) -> float:
    """Degrees of an angle as text; plain numbers are degrees."""
    from astropy.coordinates import Angle

    try:
        degrees = float(text)
    except ValueError:
        try:
            degrees = float(Angle(text, unit=sexagesimal_unit).deg)
        except ValueError:
            degrees = math.nan
    if not math.isfinite(degrees):
        raise ValueError(
            f"found the {name} {text!r}; allowed are degrees, such as 83.82, or "
            "sexagesimal text, such as 05:35:17.3"
        )
    return degrees


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
