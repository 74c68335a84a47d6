"""Which image of a FITS file is taken, what its header says, and its pixels."""

import math
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from astromorph import celestial, fits_file
from astromorph.artefacts import replacing
from astromorph.errors import FitsImageError
from astromorph.fits_file import Hdu, Header
from astromorph.settings import DataSettings

if TYPE_CHECKING:
    from numpy.typing import NDArray

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


@dataclass(frozen=True, slots=True)
class Image:
    """Pixels and which of them are bad.

    Attributes
    ----------
    pixels : ndarray, shape (C, H, W), float32
        In the file's unit; 0 where bad.
    mask : ndarray, shape (H, W), bool
        True where a pixel is NaN, infinite or BLANK in any channel. A channel
        in which all pixels are bad counts as 0, not as bad.
    """

    pixels: "NDArray[np.float32]"
    mask: "NDArray[np.bool_]"


@dataclass(frozen=True, slots=True)
class _Axes:
    """Which numpy axes of the stored array are the image, and what is on others."""

    y: int
    x: int
    others: tuple[int, ...]

    def index(self, plane: int, shape: tuple[int, ...]) -> tuple[Any, ...]:
        """What takes one plane out of the array; the planes' last axis is fastest."""
        index: list[Any] = [slice(None)] * len(shape)
        lengths = [shape[axis] for axis in self.others]
        places = np.unravel_index(plane, lengths) if lengths else ()
        for axis, at in zip(self.others, places, strict=True):
            index[axis] = int(at)
        return tuple(index)


def describe(paths: Sequence[str | Path], rules: DataSettings) -> ImageFacts:
    """Read the headers of one object's image, not its pixels.

    Parameters
    ----------
    paths : sequence of path
        One file, or one per channel. Plain, tile-compressed, or compressed as
        a whole (.gz, .bz2, .xz, .Z, .zip).
    rules : DataSettings
        Which HDU and planes are taken, and `max_pixels`.

    Returns
    -------
    ImageFacts
        Of the first file.

    Raises
    ------
    FitsImageError
        Why there is no image to take.
    """
    facts = []
    for path in paths:
        with _naming(path, paths), fits_file.opened(path) as file:
            facts.append(_describe(file, rules))
    return _together(facts)


def read(paths: Sequence[str | Path], rules: DataSettings) -> tuple[ImageFacts, Image]:
    """Read the image that `describe` finds.

    Returns
    -------
    facts : ImageFacts
        As `describe` returns them.
    image : Image
        Its pixels; files and planes become channels.

    Raises
    ------
    FitsImageError
        Why there is no image to take.
    """
    facts, parts = [], []
    for path in paths:
        with _naming(path, paths), fits_file.opened(path) as file:
            hdu, primary, axes = _choose(file, rules)
            facts.append(_facts(hdu, primary, axes, rules))
            parts.append(_pixels(file, hdu, axes, rules))
    together = _together(facts)
    pixels = parts[0] if len(parts) == 1 else np.concatenate(parts)
    bad: NDArray[np.bool_] = np.asarray(~np.isfinite(pixels))
    if not bad.any():
        return together, Image(pixels, np.zeros(pixels.shape[1:], np.bool_))
    blank: NDArray[np.bool_] = np.asarray(bad.all(axis=(1, 2)))
    counts = bad if blank.all() else bad & ~blank[:, None, None]
    mask: NDArray[np.bool_] = np.asarray(counts.any(axis=0))
    return together, Image(np.where(bad, np.float32(0), pixels), mask)


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
    from astropy.io import fits

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


def chosen_planes(
    planes: int | str | tuple[int, ...] | None, number: int
) -> tuple[str, list[int]]:
    """What `data_settings.planes` means for an image of so many planes.

    Parameters
    ----------
    planes : int, str, tuple of int or None
        The setting.
    number : int
        Planes that the image has.

    Returns
    -------
    how : {'sum', 'mean', 'max', 'channels'}
        What becomes of them.
    which : list of int
        Planes to take, from 0.

    Raises
    ------
    FitsImageError
        The image does not have these planes, or the setting is silent and
        there are several.
    """
    if planes is None:
        if number > 1:
            raise FitsImageError(
                f"it is a cube of {number} planes; set `data_settings.planes` to a "
                "number, a range, sum, mean, max or channels"
            )
        return "channels", [0]
    if isinstance(planes, int):
        how, which = "channels", [planes]
    elif isinstance(planes, str):
        how, _, span = planes.partition(" ")
        if how[:1].isdigit() or how.startswith(":"):
            how, span = "mean", how
        first, _, last = span.partition(":")
        stop = min(int(last), number) if last else number
        which = list(range(int(first or 0), stop))
    else:
        how, which = "channels", list(planes)
    if not which or max(which) >= number:
        raise FitsImageError(
            f"`data_settings.planes` is {planes!r}, but it has {number} "
            + ("planes" if number > 1 else "plane")
        )
    return how, which


@contextmanager
def _naming(path: str | Path, paths: Sequence[str | Path]) -> Iterator[None]:
    """Say of which of several files a reason is."""
    try:
        yield
    except FitsImageError as error:
        if len(paths) == 1:
            raise
        raise FitsImageError(
            f"file {paths.index(path) + 1} of {len(paths)} ({path}): {error}"
        ) from None


def _together(facts: list[ImageFacts]) -> ImageFacts:
    """The facts of an object's files: the first, with the channels of all."""
    if len(facts) == 1:
        return facts[0]
    sizes = sorted({(f.height, f.width) for f in facts})
    if len(sizes) > 1:
        found = " and ".join(f"{height}x{width}" for height, width in sizes)
        raise FitsImageError(
            f"its files have images of different sizes, {found}; channels need the "
            "same pixels: reproject them to one grid first"
        )
    return replace(facts[0], channels=sum(f.channels for f in facts))


def _describe(file: BinaryIO, rules: DataSettings) -> ImageFacts:
    hdu, primary, axes = _choose(file, rules)
    fits_file.refuse_truncated(file, hdu)
    if hdu.compressed:
        fits_file.refuse_impossible_tiles(hdu)
    return _facts(hdu, primary, axes, rules)


def _choose(file: BinaryIO, rules: DataSettings) -> tuple[Hdu, Header, _Axes]:
    """The HDU to take, the primary header and the image's axes."""
    wanted = rules.hdu
    if wanted is None:
        return _first_image(fits_file.hdus(file), rules)
    choices = [wanted] if isinstance(wanted, int | str) else list(wanted)
    found: list[Hdu] = []
    walk = fits_file.hdus(file)
    numbers = [choice for choice in choices if isinstance(choice, int)]
    for hdu in walk:
        found.append(hdu)
        if _is(hdu, choices[0]) or (len(numbers) == len(choices) and
                                    hdu.number >= max(numbers)):  # fmt: skip
            break
    for choice in choices:
        for hdu in found:
            if _is(hdu, choice):
                if reason := _why_not(hdu, rules):
                    raise FitsImageError(f"HDU {choice}: {reason}")
                return hdu, found[0].header, _axes(hdu)
    names = ", ".join(f"{h.number} {h.name}".strip() for h in found[:8])
    raise FitsImageError(
        f"`data_settings.hdu` is {wanted!r}; the file has the HDUs {names}"
    )


def _is(hdu: Hdu, choice: int | str) -> bool:
    if isinstance(choice, int):
        return hdu.number == choice
    return hdu.name == choice.upper()


def _first_image(walk: Iterator[Hdu], rules: DataSettings) -> tuple[Hdu, Header, _Axes]:
    reasons: list[str] = []
    primary = None
    try:
        for hdu in walk:
            primary = primary or hdu.header
            if not hdu.shape:
                continue
            reason = _why_not(hdu, rules)
            if reason is None:
                return hdu, primary, _axes(hdu)
            reasons.append(f"HDU {hdu.number}: {reason}")
    except FitsImageError as error:
        reasons.append(str(error))
    if not reasons:
        raise FitsImageError("the file holds no image, only headers or tables")
    raise FitsImageError("; ".join(reasons[:3]))


def _why_not(hdu: Hdu, rules: DataSettings) -> str | None:
    """Why an HDU has no image to take; None where it has one."""
    shape = hdu.shape
    size = "x".join(str(n) for n in shape)
    if not shape:
        return "it holds no image"
    if math.prod(shape) == 0:
        return f"its {size} pixels are none at all"
    if math.prod(shape) > rules.max_pixels:
        return (
            f"its {size} pixels are more than `data_settings.max_pixels`, "
            f"{rules.max_pixels}"
        )
    if len(shape) < 2:
        return f"it has one axis, of {size} pixels; an image needs two"
    try:
        axes = _axes(hdu)
        chosen_planes(rules.planes, math.prod(shape[axis] for axis in axes.others))
    except FitsImageError as error:
        return f"{size} pixels: {error}"
    return None


def _axes(hdu: Hdu) -> _Axes:
    """The two axes on the sky where the header names them, else the last two.

    Axes of length 1 are passed over, the outermost first, while two are left.
    """
    number = len(hdu.shape)
    kept = list(range(number))
    for axis in range(number):
        if hdu.shape[axis] == 1 and len(kept) > 2:
            kept.remove(axis)
    image = kept[-2:]
    on_sky = celestial.celestial_axes(hdu.header, number) if len(kept) > 2 else None
    if on_sky is not None:
        y, x = number - 1 - on_sky[1], number - 1 - on_sky[0]
        image = [y, x] if y in kept and x in kept else image
    others = tuple(axis for axis in range(number) if axis not in image)
    return _Axes(image[0], image[1], others)


def _pixels(
    file: BinaryIO, hdu: Hdu, axes: _Axes, rules: DataSettings
) -> "NDArray[np.float32]":
    """Pixels `(C, H, W)`; NaN where bad. Cubes are read plane by plane."""
    values = (fits_file.tiles if hdu.compressed else fits_file.stored)(file, hdu)
    number = math.prod(hdu.shape[axis] for axis in axes.others)
    how, which = chosen_planes(rules.planes, number)

    def plane(p: int) -> "NDArray[np.float32]":
        index = axes.index(p, hdu.shape)
        if not hdu.compressed:
            return fits_file.scaled(values[index], hdu)
        with fits_file.decoding(), np.errstate(over="ignore", invalid="ignore"):
            return np.asarray(values[index], dtype=np.float32)

    if how == "channels":
        if len(which) == 1:
            return plane(which[0])[None]
        return np.stack([plane(p) for p in which])
    reduced: NDArray[np.float32] = REDUCTIONS[how](plane(p) for p in which)
    return reduced[None]


def _sum(planes: "Iterator[NDArray[np.float32]]") -> "NDArray[np.float32]":
    total, counts = _totals(planes)
    return np.where(counts > 0, total, np.nan).astype(np.float32)


def _mean(planes: "Iterator[NDArray[np.float32]]") -> "NDArray[np.float32]":
    total, counts = _totals(planes)
    means = total / np.maximum(counts, 1)
    return np.where(counts > 0, means, np.nan).astype(np.float32)


def _max(planes: "Iterator[NDArray[np.float32]]") -> "NDArray[np.float32]":
    highest = np.array(next(planes))
    for plane in planes:
        np.fmax(highest, plane, out=highest)
    return highest


def _totals(
    planes: "Iterator[NDArray[np.float32]]",
) -> "tuple[NDArray[np.float64], NDArray[np.int64]]":
    """Sums and numbers of the valid pixels along the planes."""
    total: Any = 0.0
    counts: Any = 0
    for plane in planes:
        valid = np.isfinite(plane)
        total = total + np.where(valid, plane, 0).astype(np.float64)
        counts = counts + valid.astype(np.int64)
    return total, counts


REDUCTIONS: "dict[str, Callable[[Iterator[NDArray[np.float32]]], Any]]" = {
    "sum": _sum,
    "mean": _mean,
    "max": _max,
}


def _facts(hdu: Hdu, primary: Header, axes: _Axes, rules: DataSettings) -> ImageFacts:
    """What the image's header says, and for names and dates the primary one."""
    header, shape = hdu.header, hdu.shape
    centre = tuple((length + 1) / 2 for length in reversed(shape))
    place = celestial.place(header, centre)
    if place.ra_deg is None and primary is not header:
        keywords = celestial.place(primary, ())
        place = replace(place, ra_deg=keywords.ra_deg, dec_deg=keywords.dec_deg)

    def text(keyword: str) -> str:
        return header.text(keyword) or primary.text(keyword)

    def number(keyword: str) -> float | None:
        found = header.number(keyword)
        return primary.number(keyword) if found is None else found

    frequency = next((f for k in FREQUENCIES[:2] if (f := number(k))), None)
    major, minor, angle = _beam(header)
    planes = math.prod(shape[axis] for axis in axes.others)
    how, which = chosen_planes(rules.planes, planes)
    return ImageFacts(
        hdu=hdu.number,
        shape=shape,
        dtype=np.dtype(fits_file.TYPES[hdu.bitpix]).name,
        width=shape[axes.x],
        height=shape[axes.y],
        ra_deg=place.ra_deg,
        dec_deg=place.dec_deg,
        pixel_scale_arcsec=place.pixel_scale_arcsec,
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
            value = whole.get(keyword)
            if value is not None and not isinstance(value, fits.card.Undefined):
                found[keyword] = " ".join(str(value).split())
    return {keyword: found.get(keyword, "") for keyword in keywords}
