"""Facts about an image, read from its header."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import BinaryIO

import numpy as np

from astromorph.fits import celestial
from astromorph.fits import file as fits_file
from astromorph.fits.beams import read_beam
from astromorph.fits.file import Hdu
from astromorph.fits.header import Header
from astromorph.fits.planes import (
    ImageAxes,
    count_planes,
    describe_narrow_image,
    select_planes,
)
from astromorph.fits.select import Selection
from astromorph.settings.sections import DataSettings

FREQUENCY_KEYWORDS = ("RESTFRQ", "RESTFREQ", "FREQ", "FREQUENC")
REST_FREQUENCY_KEYWORDS = FREQUENCY_KEYWORDS[:2]
# Filters of optical and infrared instruments. An instrument with several wheels has
# several of them, which together are the band.
FILTER_KEYWORDS = (
    "FILTER", "FILTER1", "FILTER2", "FILTER3", "FILTER4", "FILTER01", "FILTER02",
    "FILTER03", "FILTERA", "FILTERB", "FILTNAM1", "FILTNAM2", "FILTNAME", "FILTERID",
    "INSFILTE", "WFFBAND", "FLT_ID", "ALFLTNM", "FAFLTNM", "FBFLTNM", "PUPIL", "BAND",
    "CHNLNUM", "WAVELNTH", "WAVELENG", "WAVELEN", "WAVEBAND", "FPA.FILTERID",
    "FILTER5", "FILTER6", "FILTERS", "FILTERN", "FILTBAND", "FILT", "FILTNAM", "FWNAME",
    "FWINAME", "FWONAME", "REDFILT", "BLUFILT",
)  # fmt: skip
FILTER_HIERARCH = re.compile(
    r"ESO INS\d* (FILT|OPTI)-?\d* (NAME|ID)|ESO INS COMB [IV]FLT|.*\bFILTER\d?( NAME)?"
)
NO_FILTER = ("N/A", "NA", "NONE", "NULL", "UNKNOWN", "UNDEFINED", "-")
STOKES = {1: "I", 2: "Q", 3: "U", 4: "V", -1: "RR", -2: "LL", -3: "RL", -4: "LR",
          -5: "XX", -6: "YY", -7: "XY", -8: "YX"}  # fmt: skip
DATE_KEYWORDS = ("DATE-OBS", "DATE-BEG", "DATE_OBS", "DATE-AVG", "T_OBS")
TIME_KEYWORDS = ("TIME-OBS", "UTC-OBS", "UT", "UTC", "UTSTART")  # if it is only a date
NUMBER_KEYWORDS = ("MJD-OBS", "MJD-BEG", "MJD-AVG", "EXPSTART", "MJD", "JD")
MIDNIGHT = re.compile(r"T00:00(:00(\.0*)?)?Z?$|(?<=:\d\d)\.0+$|Z$")
MAX_AXES = 9  # of the axes in the header that are not in the data


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """Facts from the header of an image; None if the header does not give them.

    Attributes
    ----------
    hdu : int
        Number of the HDU with the image; the primary HDU is 0.
    shape : tuple of int
        Shape of the stored array in numpy order, including axes of length 1.
    dtype : str
        Stored type before scaling, such as ``"int16"``.
    width, height : int
        Pixels along x and y.
    ra_deg, dec_deg : float or None
        ICRS position of the image centre, in degrees.
    pixel_scale_arcsec : float or None
        Geometric mean of the two pixel scales.
    object_name, telescope, unit, date_obs : str
        OBJECT, TELESCOP, BUNIT, DATE-OBS; empty if absent.
    rest_frequency_hz : float or None
        RESTFRQ in Hz.
    beam_major_arcsec, beam_minor_arcsec, beam_angle_deg : float or None
        Full widths at half maximum and position angle: BMAJ, BMIN, BPA.
    channels : int
        Channels of the image: 1, unless planes or files are stacked.
    band : str
        Frequency and filter, which distinguish images of one position.
    plane : str
        Stokes parameter, spectral coordinate and time, which distinguish images of one
        position and band.
    warning : str
        What of the header cannot be used, and whether channels seem to come last;
        empty if nothing.
    keywords : dict of str to str
        The keywords of `data_settings.header_columns`.
    images : int or None
        Number of images in the file among which this one was chosen; None if a setting
        or the list names the HDU.
    """

    hdu: int
    shape: tuple[int, ...]
    dtype: str
    width: int
    height: int
    ra_deg: float | None = None
    dec_deg: float | None = None
    pixel_scale_arcsec: float | None = None
    object_name: str = ""
    telescope: str = ""
    unit: str = ""
    date_obs: str = ""
    rest_frequency_hz: float | None = None
    beam_major_arcsec: float | None = None
    beam_minor_arcsec: float | None = None
    beam_angle_deg: float | None = None
    channels: int = 1
    band: str = ""
    plane: str = ""
    warning: str = ""
    keywords: dict[str, str] = field(default_factory=dict)
    images: int | None = None


def image_facts(
    file: BinaryIO, selection: Selection, rules: DataSettings
) -> ImageFacts:
    """Collect the facts about an image.

    Parameters
    ----------
    file : binary file
        Opened by `open_fits`; a table of beams is read from it.
    selection : Selection
        The HDU with the image. Keywords that its header lacks are taken from the
        primary header.
    rules : DataSettings
        The planes that are read, and `header_columns`.

    Returns
    -------
    ImageFacts
    """
    hdu, primary, axes = selection.hdu, selection.primary, selection.axes
    header, shape = hdu.header, hdu.shape
    centre = tuple((length + 1) / 2 for length in reversed(shape))
    position = celestial.image_position(header, centre)
    if position.ra_deg is None and primary is not header:
        keywords = celestial.image_position(primary, ())
        position = replace(position, ra_deg=keywords.ra_deg, dec_deg=keywords.dec_deg)

    def text(keyword: str) -> str:
        return header.text(keyword) or primary.text(keyword)

    def number(keyword: str) -> float | None:
        value = header.number(keyword)
        return primary.number(keyword) if value is None else value

    frequency = next((f for k in REST_FREQUENCY_KEYWORDS if (f := number(k))), None)
    reduction, planes = select_planes(rules.planes, count_planes(hdu, axes))
    warnings = (describe_narrow_image(hdu, axes), position.warning)
    major, minor, angle = read_beam(file, hdu, axes, planes)
    return ImageFacts(
        hdu=hdu.number,
        shape=shape,
        dtype=np.dtype(fits_file.DTYPES[hdu.bitpix]).name,
        width=shape[axes.x],
        height=shape[axes.y],
        ra_deg=position.ra_deg,
        dec_deg=position.dec_deg,
        pixel_scale_arcsec=position.pixel_scale_arcsec,
        object_name=text("OBJECT"),
        telescope=text("TELESCOP"),
        unit=text("BUNIT"),
        date_obs=text("DATE-OBS"),
        rest_frequency_hz=frequency,
        beam_major_arcsec=major,
        beam_minor_arcsec=minor,
        beam_angle_deg=angle,
        channels=len(planes) if reduction == "channels" else 1,
        band=_band(header, primary, text, number),
        plane=_plane(hdu, axes, planes, text),
        warning="; ".join(warning for warning in warnings if warning),
        keywords=_keyword_texts(header, primary, rules.header_columns),
        images=selection.images,
    )


def _band(
    header: Header,
    primary: Header,
    text: Callable[[str], str],
    number: Callable[[str], float | None],
) -> str:
    """Frequency to five digits and filter; empty if neither is known."""
    frequency = next((f for k in FREQUENCY_KEYWORDS if (f := number(k))), None)
    if frequency is None:
        axes = (k for k in "345" if header.text(f"CTYPE{k}").startswith("FREQ"))
        frequency = next((header.number(f"CRVAL{k}") for k in axes), None)
    long_cards = header.long_cards.keys() | primary.long_cards.keys()
    present = header.cards.keys() | primary.cards.keys() | long_cards
    hierarch = sorted(name for name in long_cards if FILTER_HIERARCH.fullmatch(name))
    keywords = [keyword for keyword in FILTER_KEYWORDS if keyword in present]
    filters = [name for keyword in (*keywords, *hierarch) if (name := text(keyword))]
    # Pipelines repeat the filter under further names.
    filters = [name for name in dict.fromkeys(filters) if name.upper() not in NO_FILTER]
    return " ".join([f"{frequency:.5g}" if frequency else "", *filters]).strip()


def _plane(
    hdu: Hdu, axes: ImageAxes, planes: Sequence[int], text: Callable[[str], str]
) -> str:
    """Stokes parameter, spectral coordinate and time of the used planes."""
    header, n_axes = hdu.header, len(hdu.shape)
    indices = [axes.index(plane, hdu.shape) for plane in (planes[0], planes[-1])]
    image_axes = {n_axes - axes.x, n_axes - axes.y}
    words = [f"STOKES {name}"] if (name := text("STOKES")) else []
    for axis in range(1, max(n_axes, MAX_AXES) + 1):
        ctype = header.text(f"CTYPE{axis}").upper()
        if axis in image_axes or not ctype or header.number(f"CRVAL{axis}") is None:
            continue
        positions = [index[n_axes - axis] if axis <= n_axes else 0 for index in indices]
        ends = [_coordinate(header, axis, ctype, position) for position in positions]
        words.append(f"{ctype} {' to '.join(dict.fromkeys(ends))}")
    if velocity := text("VELOCITY"):
        words.append(f"VELOCITY {velocity}")
    date = next((value for k in DATE_KEYWORDS if (value := text(k))), "")
    if date and "T" not in date:
        date += "".join(f"T{time}" for k in TIME_KEYWORDS if (time := text(k)))[:32]
    if "T" not in date:
        days = next((value for k in NUMBER_KEYWORDS if (value := text(k))), "")
        date = f"{date} {days}".strip()
    return ", ".join([*words, *([MIDNIGHT.sub("", date)] if date else [])])


def _coordinate(header: Header, axis: int, ctype: str, position: int) -> str:
    """The world coordinate at a position, from 0, along a linear axis."""
    value, reference, step = (
        header.number(f"{keyword}{axis}") for keyword in ("CRVAL", "CRPIX", "CDELT")
    )
    if step is None:
        step = header.number(f"CD{axis}_{axis}")
    offset = position + 1 - (reference or 0.0)
    coordinate = (value or 0.0) + offset * (1.0 if step is None else step)
    if ctype.startswith("STOKES") and abs(coordinate) < 10:
        return STOKES.get(round(coordinate), f"{coordinate:.8g}")
    return f"{coordinate:.8g}"


def _keyword_texts(
    header: Header, primary: Header, keywords: Sequence[str]
) -> dict[str, str]:
    """Values of keywords as text; HIERARCH and CONTINUE are supported."""
    return {
        keyword: _keyword_text(header, keyword) or _keyword_text(primary, keyword)
        for keyword in keywords
    }


def _keyword_text(header: Header, keyword: str) -> str:
    name = " ".join(keyword.upper().split()).removeprefix("HIERARCH ")
    if name in ("HISTORY", "COMMENT"):
        return " ".join(" ".join(header.commentary(name)).split())
    return header.text(name)
