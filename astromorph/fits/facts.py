"""Facts about an image, read from its header."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from astromorph.fits import celestial
from astromorph.fits import file as fits_file
from astromorph.fits.file import Hdu
from astromorph.fits.header import Header
from astromorph.fits.planes import ImageAxes, count_planes, select_planes
from astromorph.settings.sections import DataSettings

FREQUENCY_KEYWORDS = ("RESTFRQ", "RESTFREQ", "FREQ", "FREQUENC")
REST_FREQUENCY_KEYWORDS = FREQUENCY_KEYWORDS[:2]
FILTER_KEYWORDS = (
    "FILTER",
    "FILTER1",
    "FILTER2",
    "FILTNAM1",
    "BAND",
    "WAVELNTH",
    "WAVELENG",
)
# AIPS writes the beam as HISTORY.
AIPS_BEAM = re.compile(rb"BMAJ= *([\d.E+-]+) +BMIN= *([\d.E+-]+) +BPA= *([\d.E+-]+)")


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
    keywords : dict of str to str
        The keywords of `data_settings.header_columns`.
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
    keywords: dict[str, str] = field(default_factory=dict)


def image_facts(
    hdu: Hdu, primary: Header, axes: ImageAxes, rules: DataSettings
) -> ImageFacts:
    """Collect the facts about an image.

    Parameters
    ----------
    hdu : Hdu
        The HDU with the image.
    primary : Header
        The primary header, used for keywords that the header of the image lacks.
    axes : ImageAxes
        Axes of the stored array.
    rules : DataSettings
        The planes that are read, and `header_columns`.

    Returns
    -------
    ImageFacts
    """
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
    major, minor, angle = _beam(header)
    reduction, planes = select_planes(rules.planes, count_planes(hdu, axes))
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
        band=_band(header, text, number),
        keywords=_keyword_texts(header, primary, rules.header_columns),
    )


def _beam(header: Header) -> tuple[float | None, float | None, float | None]:
    """Major and minor axis in arcseconds, angle in degrees."""
    major, minor, angle = (header.number(k) for k in ("BMAJ", "BMIN", "BPA"))
    if major is None and (match := AIPS_BEAM.search(header.raw)):
        try:
            major, minor, angle = (float(number) for number in match.groups())
        except ValueError:
            return None, None, None
    if not major or major < 0:
        return None, None, None
    return major * 3600, (minor or major) * 3600, angle


def _band(
    header: Header,
    text: Callable[[str], str],
    number: Callable[[str], float | None],
) -> str:
    """Frequency to five digits and filter; empty if neither is known."""
    frequency = next((f for k in FREQUENCY_KEYWORDS if (f := number(k))), None)
    if frequency is None:
        axes = (k for k in "345" if header.text(f"CTYPE{k}").startswith("FREQ"))
        frequency = next((header.number(f"CRVAL{k}") for k in axes), None)
    filters = [name for keyword in FILTER_KEYWORDS if (name := text(keyword))]
    return " ".join([f"{frequency:.5g}" if frequency else "", *filters]).strip()


def _keyword_texts(
    header: Header, primary: Header, keywords: Sequence[str]
) -> dict[str, str]:
    """Values of keywords as text; HIERARCH and CONTINUE are supported."""
    if not keywords:
        return {}
    from astropy.io import fits

    texts: dict[str, str] = {}
    for cards in (primary, header):
        parsed = fits.Header.fromstring(cards.raw.decode("ascii", "replace"))
        for keyword in keywords:
            try:
                value = parsed.get(keyword)
            except (fits.VerifyError, ValueError, TypeError, IndexError):
                continue  # the image is usable despite a damaged card
            if value is not None and not isinstance(value, fits.card.Undefined):
                texts[keyword] = " ".join(str(value).split())
    return {keyword: texts.get(keyword, "") for keyword in keywords}
