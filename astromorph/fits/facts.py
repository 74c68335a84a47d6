"""What the header of an image says of it."""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from astromorph.fits import celestial
from astromorph.fits import file as fits_file
from astromorph.fits.file import Hdu
from astromorph.fits.header import Header
from astromorph.fits.planes import Axes, select_planes
from astromorph.settings.sections import DataSettings

FREQUENCIES = ("RESTFRQ", "RESTFREQ", "FREQ", "FREQUENC")
FILTERS = ("FILTER", "FILTER1", "FILTER2", "FILTNAM1", "BAND", "WAVELNTH", "WAVELENG")
AIPS_BEAM = re.compile(
    rb"BMAJ= *([\d.E+-]+) +BMIN= *([\d.E+-]+) +BPA= *([\d.E+-]+)"
)  # AIPS writes it as HISTORY


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """What the header says of an image; None where it says nothing.

    Attributes
    ----------
    hdu : int
        Number of the HDU that holds the image; the primary one is 0.
    shape : tuple of int
        As stored, in numpy's order, degenerate axes included.
    dtype : str
        Stored type, before any scaling: ``"int16"``.
    width, height : int
        Pixels along x and y.
    ra_deg, dec_deg : float or None
        ICRS position of the image centre, in degrees.
    pixel_scale_arcsec : float or None
        Geometric mean of the two pixel scales.
    object_name, telescope, unit, date_obs : str
        OBJECT, TELESCOP, BUNIT, DATE-OBS; empty where absent.
    rest_frequency_hz : float or None
        RESTFRQ in Hz.
    beam_major_arcsec, beam_minor_arcsec, beam_angle_deg : float or None
        Full widths at half maximum and position angle: BMAJ, BMIN, BPA.
    channels : int
        Channels that are taken: 1, unless planes or files are stacked.
    band : str
        Frequency and filter, to tell pictures of one place apart.
    keywords : dict of str to str
        What `data_settings.header_columns` asks for.
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
    hdu: Hdu, primary: Header, axes: Axes, rules: DataSettings
) -> ImageFacts:
    """What the image's header says, and for names and dates the primary one."""
    header, shape = hdu.header, hdu.shape
    centre = tuple((length + 1) / 2 for length in reversed(shape))
    position = celestial.image_position(header, centre)
    if position.ra_deg is None and primary is not header:
        keywords = celestial.image_position(primary, ())
        position = replace(position, ra_deg=keywords.ra_deg, dec_deg=keywords.dec_deg)

    def text(keyword: str) -> str:
        return header.text(keyword) or primary.text(keyword)

    def number(keyword: str) -> float | None:
        found = header.number(keyword)
        return primary.number(keyword) if found is None else found

    frequency = next((f for k in FREQUENCIES[:2] if (f := number(k))), None)
    major, minor, angle = _beam(header)
    planes = math.prod(shape[axis] for axis in axes.others)
    how, which = select_planes(rules.planes, planes)
    return ImageFacts(
        hdu=hdu.number,
        shape=shape,
        dtype=np.dtype(fits_file.TYPES[hdu.bitpix]).name,
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
        channels=len(which) if how == "channels" else 1,
        band=_band(header, text, number),
        keywords=_asked(header, primary, rules.header_columns),
    )


def _beam(header: Header) -> tuple[float | None, float | None, float | None]:
    """Major and minor axis in arcseconds, angle in degrees."""
    major, minor, angle = (header.number(k) for k in ("BMAJ", "BMIN", "BPA"))
    if major is None and (written := AIPS_BEAM.search(header.raw)):
        try:
            major, minor, angle = (float(number) for number in written.groups())
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
    """Frequency to five digits and filter; empty where neither is known."""
    frequency = next((f for k in FREQUENCIES if (f := number(k))), None)
    if frequency is None:
        kinds = (k for k in "345" if header.text(f"CTYPE{k}").startswith("FREQ"))
        frequency = next((header.number(f"CRVAL{k}") for k in kinds), None)
    filters = [found for keyword in FILTERS if (found := text(keyword))]
    return " ".join([f"{frequency:.5g}" if frequency else "", *filters]).strip()


def _asked(header: Header, primary: Header, keywords: Sequence[str]) -> dict[str, str]:
    """Further keywords as text, HIERARCH and CONTINUE included."""
    if not keywords:
        return {}
    from astropy.io import fits

    found: dict[str, str] = {}
    for cards in (primary, header):
        whole = fits.Header.fromstring(cards.raw.decode("ascii", "replace"))
        for keyword in keywords:
            try:
                value = whole.get(keyword)
            except (fits.VerifyError, ValueError, TypeError, IndexError):
                continue  # a damaged card is no reason to lose the image
            if value is not None and not isinstance(value, fits.card.Undefined):
                found[keyword] = " ".join(str(value).split())
    return {keyword: found.get(keyword, "") for keyword in keywords}
