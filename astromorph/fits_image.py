"""FITS files: the only module that knows keywords, HDUs, world coordinates, units.

FITS Standard 4.0 (2018); world coordinates after Greisen & Calabretta (2002)
and Calabretta & Greisen (2002), as astropy implements them.
"""

import lzma
import math
import os
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from astropy import units as u
from astropy.coordinates import BarycentricMeanEcliptic, SkyCoord, Supergalactic
from astropy.io import fits
from astropy.wcs import WCS
from astropy.wcs.utils import proj_plane_pixel_scales, wcs_to_celestial_frame

from astromorph.artefacts import replacing
from astromorph.errors import FitsImageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

# What astropy and the decompressors raise on files that are not as they should be.
UNREADABLE = (
    OSError, EOFError, ValueError, TypeError, KeyError, IndexError, AttributeError,
    ArithmeticError, MemoryError, NotImplementedError, RuntimeError, UnicodeError,
    ImportError, zlib.error, lzma.LZMAError, fits.VerifyError,
)  # fmt: skip
STORED_TYPES = {
    8: "uint8", 16: "int16", 32: "int32", 64: "int64", -32: "float32", -64: "float64",
}  # fmt: skip
UNCOMPRESSED = b"SIMPLE"
FREQUENCY_KEYWORDS = ("RESTFRQ", "RESTFREQ")


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
        Geometric mean of the two pixel scales at the centre.
    object_name, telescope, unit : str
        OBJECT, TELESCOP, BUNIT; empty where absent.
    rest_frequency_hz : float or None
        RESTFRQ in Hz.
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
    rest_frequency_hz: float | None = None


@dataclass(frozen=True, slots=True)
class Image:
    """Pixels and which of them are bad.

    Attributes
    ----------
    pixels : ndarray, shape (C, H, W), float32
        In the file's unit; 0 where bad.
    mask : ndarray, shape (H, W), bool
        True where a pixel is NaN, infinite or BLANK in any channel.
    """

    pixels: "NDArray[np.float32]"
    mask: "NDArray[np.bool_]"


def describe(path: str | Path, max_pixels: int) -> ImageFacts:
    """Find the image of a FITS file and read its header, not its pixels.

    Parameters
    ----------
    path : path
        Plain, tile-compressed, or compressed as a whole (.gz, .bz2).
    max_pixels : int
        More than these are refused.

    Returns
    -------
    ImageFacts
        Of the first HDU that holds a two-dimensional image once its degenerate
        axes are dropped.

    Raises
    ------
    FitsImageError
        Why there is no image to take.
    """
    with _open(path) as hdus:
        number, hdu = _first_image(hdus, max_pixels)
        _refuse_truncated(path, hdu)
        return _facts(number, hdu)


def read(path: str | Path, max_pixels: int) -> Image:
    """Read the pixels of the image that `describe` finds.

    Raises
    ------
    FitsImageError
        Why there is no image to take.
    """
    with _open(path) as hdus:
        number, hdu = _first_image(hdus, max_pixels)
        _refuse_truncated(path, hdu)
        values = hdu.data
        if values is None:
            raise FitsImageError(f"HDU {number} holds no pixels")
        height, width = _two_axes(hdu.shape)
    with np.errstate(over="ignore", invalid="ignore"):
        pixels = np.asarray(values, dtype=np.float32)
    pixels = pixels.reshape(1, height, width)
    bad = ~np.isfinite(pixels)
    if bad.any():
        pixels = np.where(bad, np.float32(0), pixels)
    mask: NDArray[np.bool_] = np.asarray(bad.any(axis=0))
    return Image(pixels, mask)


def write(
    path: str | Path,
    pixels: "NDArray[np.float32]",
    facts: ImageFacts,
    beam_arcsec: float,
) -> None:
    """Write an image with the header that `describe` reads.

    Parameters
    ----------
    path : path
        The file to write.
    pixels : ndarray, shape `facts.shape`, float32
        In `facts.unit`.
    facts : ImageFacts
        Position, scale, names. The position must be given.
    beam_arcsec : float
        Full width at half maximum of the circular beam.
    """
    header = fits.Header()
    scale_deg = (facts.pixel_scale_arcsec or 1.0) / 3600
    kinds = ("RA---SIN", "DEC--SIN", "FREQ", "STOKES")[: pixels.ndim]
    references = ((facts.width + 1) / 2, (facts.height + 1) / 2, 1.0, 1.0)
    values = (facts.ra_deg, facts.dec_deg, facts.rest_frequency_hz, 1.0)
    steps = (-scale_deg, scale_deg, 1e9, 1.0)
    units = ("deg", "deg", "Hz", "")
    for k, kind in enumerate(kinds):
        header[f"CTYPE{k + 1}"] = kind
        header[f"CRPIX{k + 1}"] = references[k]
        header[f"CRVAL{k + 1}"] = values[k]
        header[f"CDELT{k + 1}"] = steps[k]
        header[f"CUNIT{k + 1}"] = units[k]
    header["RADESYS"] = "ICRS"
    header["OBJECT"] = facts.object_name
    header["TELESCOP"] = facts.telescope
    header["BUNIT"] = facts.unit
    header["RESTFRQ"] = facts.rest_frequency_hz
    header["BMAJ"] = header["BMIN"] = beam_arcsec / 3600
    header["BPA"] = 0.0
    with replacing(path) as temporary:
        fits.PrimaryHDU(pixels.astype(np.float32), header).writeto(temporary)


@contextmanager
def _open(path: str | Path) -> Iterator[fits.HDUList]:
    """Open a file; whatever goes wrong inside becomes a reason."""
    try:
        if not str(path):
            raise FitsImageError("the row of the list has an empty path")
        if os.path.isdir(path):
            raise FitsImageError("this is a folder, not a FITS file; list its files")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with fits.open(path, memmap=False, lazy_load_hdus=True) as hdus:
                yield hdus
    except FileNotFoundError:
        raise FitsImageError("there is no such file") from None
    except UNREADABLE as error:
        raise FitsImageError(_reason(error)) from None


def _reason(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, PermissionError):
        return "the file may not be read: its permissions forbid it"
    if "No SIMPLE card" in text or "Empty or corrupt FITS" in text:
        return "this is not a FITS file (its first bytes are not SIMPLE)"
    if isinstance(error, ImportError):
        return f"reading this kind of file needs another package: {text}"
    return f"the file is damaged: {text[:200]}"


def _first_image(hdus: fits.HDUList, max_pixels: int) -> tuple[int, Any]:
    """Number and HDU of the first image that can be taken."""
    reasons = []
    for number, hdu in enumerate(_each(hdus)):
        if not getattr(hdu, "is_image", False) or isinstance(hdu, fits.GroupsHDU):
            continue
        reason = _why_not(hdu.shape, max_pixels)
        if reason is None:
            return number, hdu
        if hdu.shape:
            reasons.append(f"HDU {number}: {reason}")
    if not reasons:
        raise FitsImageError("the file holds no image, only headers or tables")
    raise FitsImageError("; ".join(reasons[:3]))


def _each(hdus: fits.HDUList) -> Iterator[Any]:
    """The HDUs one after the other; ``len`` would read through the whole file."""
    number = 0
    while True:
        try:
            hdu = hdus[number]
        except IndexError:
            return
        yield hdu
        number += 1


def _why_not(shape: tuple[int, ...], max_pixels: int) -> str | None:
    size = "x".join(str(n) for n in shape)
    if math.prod(shape) == 0:
        return f"its {size} pixels are none at all"
    if math.prod(shape) > max_pixels:
        return (
            f"its {size} pixels are more than `data_settings.max_pixels`, {max_pixels}"
        )
    if len(_two_axes(shape)) < 2:
        return f"it has one axis, of {size} pixels; an image needs two"
    if len(_two_axes(shape)) > 2:
        return f"its {size} pixels are a cube; an image with two axes is needed"
    return None


def _two_axes(shape: tuple[int, ...]) -> list[int]:
    """The shape without axes of length 1, the outermost first, down to two axes."""
    kept = list(shape)
    while len(kept) > 2 and 1 in kept:
        kept.remove(1)
    return kept


def _refuse_truncated(path: str | Path, hdu: Any) -> None:
    """An uncompressed file must be as long as its header says."""
    if isinstance(hdu, fits.CompImageHDU):
        return
    with open(path, "rb") as file:
        if file.read(len(UNCOMPRESSED)) != UNCOMPRESSED:
            return
    info = hdu.fileinfo()
    promised = info["datLoc"] + hdu.size
    found = os.path.getsize(path)
    if found < promised:
        raise FitsImageError(
            f"the file is truncated: {promised} bytes promised, {found} there"
        )


def _facts(number: int, hdu: Any) -> ImageFacts:
    header = hdu.header
    height, width = _two_axes(hdu.shape)
    ra_deg, dec_deg, scale = _sky(header, width, height)
    return ImageFacts(
        hdu=number,
        shape=tuple(hdu.shape),
        dtype=STORED_TYPES.get(_number(header, "BITPIX", int) or 0, ""),
        width=width,
        height=height,
        ra_deg=ra_deg,
        dec_deg=dec_deg,
        pixel_scale_arcsec=scale,
        object_name=_text(header, "OBJECT"),
        telescope=_text(header, "TELESCOP"),
        unit=_text(header, "BUNIT"),
        rest_frequency_hz=next(
            (f for k in FREQUENCY_KEYWORDS if (f := _number(header, k, float))), None
        ),
    )


def _text(header: fits.Header, keyword: str) -> str:
    value = header.get(keyword, "")
    return " ".join(str(value).split()) if isinstance(value, str | int | float) else ""


def _number(header: fits.Header, keyword: str, kind: Callable[[Any], Any]) -> Any:
    value = header.get(keyword)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return kind(value) if math.isfinite(value) else None


def _sky(
    header: fits.Header, width: int, height: int
) -> tuple[float | None, float | None, float | None]:
    """ICRS degrees of the centre and the pixel scale; None without a celestial WCS."""
    try:
        wcs = WCS(header).celestial
        if wcs.naxis != 2 or not wcs.has_celestial:
            return None, None, None
        scales = proj_plane_pixel_scales(wcs) * 3600
        scale = float(math.sqrt(scales[0] * scales[1]))
        x, y = (width - 1) / 2, (height - 1) / 2
        lon, lat = (float(a) for a in wcs.all_pix2world(x, y, 0))
        if not (math.isfinite(lon) and math.isfinite(lat)):
            return None, None, None
        position = SkyCoord(lon * u.deg, lat * u.deg, frame=_frame(wcs)).icrs
        return float(position.ra.deg), float(position.dec.deg), scale
    except UNREADABLE:
        return None, None, None


def _frame(wcs: WCS) -> Any:
    """The celestial frame of the axes; astropy takes ecliptic ones for equatorial.

    Raises
    ------
    ValueError
        The axes are not on the sky as seen from here (the Sun's, a planet's).
    """
    axis = wcs.wcs.ctype[wcs.wcs.lng][:4]
    if axis == "ELON":
        year = wcs.wcs.equinox
        equinox = f"J{year}" if math.isfinite(year) else "J2000"
        return BarycentricMeanEcliptic(equinox=equinox)
    if axis == "SLON":
        return Supergalactic()
    if axis not in ("RA--", "GLON"):
        raise ValueError(f"unknown celestial axis {axis!r}")
    return wcs_to_celestial_frame(wcs)
