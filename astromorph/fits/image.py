"""The image of a FITS file: its HDU, facts and pixels."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from astromorph.atomic import atomic_write
from astromorph.errors import FitsImageError
from astromorph.fits import file as fits_file
from astromorph.fits import tiles
from astromorph.fits.facts import ImageFacts, image_facts
from astromorph.fits.file import Hdu
from astromorph.fits.header import Header
from astromorph.fits.pixels import Image
from astromorph.fits.planes import (
    ImageAxes,
    count_planes,
    image_axes,
    read_planes,
    select_planes,
)
from astromorph.settings.sections import DataSettings


def describe_image(paths: Sequence[str | Path], rules: DataSettings) -> ImageFacts:
    """Read the facts about an image, but not its pixels.

    Parameters
    ----------
    paths : sequence of path
        One file, or one per channel. Images can be tile-compressed, files can be
        compressed (.gz, .bz2, .xz, .Z, .zip).
    rules : DataSettings
        The HDU, the planes and `max_pixels`.

    Returns
    -------
    ImageFacts
        Facts of the first file.

    Raises
    ------
    FitsImageError
        No image can be read; the message gives the reason.
    """
    facts = []
    for path in paths:
        with _add_file_to_errors(path, paths), fits_file.open_fits(path) as file:
            facts.append(image_facts(file, *_open_image(file, rules), rules))
    return _combine_facts(facts)


def read_image(
    paths: Sequence[str | Path], rules: DataSettings
) -> tuple[ImageFacts, Image]:
    """Read the facts about an image and its pixels.

    Parameters
    ----------
    paths : sequence of path
        One file, or one per channel, as for `describe_image`.
    rules : DataSettings
        The HDU, the planes and `max_pixels`.

    Returns
    -------
    facts : ImageFacts
        The same as those of `describe_image`. In addition, a compressed file is read to
        its end, and rejected if its check sum is wrong.
    image : Image
        Pixels and mask; files and planes become channels.

    Raises
    ------
    FitsImageError
        No image can be read; the message gives the reason.
    """
    facts, parts = [], []
    for path in paths:
        with _add_file_to_errors(path, paths), fits_file.open_fits(path) as file:
            hdu, primary, axes = _open_image(file, rules)
            facts.append(image_facts(file, hdu, primary, axes, rules))
            parts.append(read_planes(file, hdu, axes, rules))
            fits_file.check_to_end(file)
    combined = _combine_facts(facts)
    pixels: Any = parts[0] if len(parts) == 1 else np.concatenate(parts)
    bad: NDArray[np.bool_] = np.asarray(~np.isfinite(pixels))
    if not bad.any():
        return combined, Image(pixels, np.zeros(pixels.shape[1:], np.bool_))
    bad_channels: NDArray[np.bool_] = np.asarray(bad.all(axis=(1, 2)))
    masked = bad if bad_channels.all() else bad & ~bad_channels[:, None, None]
    mask: NDArray[np.bool_] = np.asarray(masked.any(axis=0))
    return combined, Image(np.where(bad, pixels.dtype.type(0), pixels), mask)


def write_image(
    path: str | Path,
    pixels: NDArray[np.float32],
    facts: ImageFacts,
    beam_arcsec: float,
) -> None:
    """Write an image with a header that `describe_image` can read.

    Parameters
    ----------
    path : path
        The file to write.
    pixels : ndarray, shape `facts.shape`, float32
        In `facts.unit`.
    facts : ImageFacts
        Position, scale and names. The position is required.
    beam_arcsec : float
        Full width at half maximum of the circular beam.
    """
    from astropy.io import fits

    header = fits.Header()
    scale_deg = (facts.pixel_scale_arcsec or 1.0) / 3600
    types = ("RA---SIN", "DEC--SIN", "FREQ", "STOKES")[: pixels.ndim]
    references = ((facts.width + 1) / 2, (facts.height + 1) / 2, 1.0, 1.0)
    values = (facts.ra_deg, facts.dec_deg, facts.rest_frequency_hz, 1.0)
    steps = (-scale_deg, scale_deg, 1e9, 1.0)
    units = ("deg", "deg", "Hz", "")
    for k, ctype in enumerate(types):
        header[f"CTYPE{k + 1}"] = ctype
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
    with atomic_write(path) as temporary:
        fits.PrimaryHDU(pixels.astype(np.float32), header).writeto(temporary)


@contextmanager
def _add_file_to_errors(
    path: str | Path, paths: Sequence[str | Path]
) -> Iterator[None]:
    """Add the file to the error messages of an image that has several files."""
    try:
        yield
    except FitsImageError as error:
        if len(paths) == 1:
            raise
        raise FitsImageError(
            f"file {paths.index(path) + 1} of {len(paths)} ({path}): {error}"
        ) from None


def _combine_facts(facts: list[ImageFacts]) -> ImageFacts:
    """The facts of the first file, with the channels of all files."""
    if len(facts) == 1:
        return facts[0]
    sizes = sorted({(f.height, f.width) for f in facts})
    if len(sizes) > 1:
        texts = " and ".join(f"{height}x{width}" for height, width in sizes)
        raise FitsImageError(
            f"its files have images of different sizes, {texts}; all channels need the "
            "same pixel grid: reproject them first"
        )
    return replace(facts[0], channels=sum(f.channels for f in facts))


def _open_image(file: BinaryIO, rules: DataSettings) -> tuple[Hdu, Header, ImageAxes]:
    """Select the image and check its header, before any use of it.

    Everything that can be known without its pixels is checked here, so that the steps
    `validate` and `preprocess` accept the same files.
    """
    hdu, primary, axes = _select_hdu(file, rules)
    fits_file.check_length(file, hdu)
    fits_file.read_scaling(hdu)
    if hdu.compressed:
        tiles.check_tiles(hdu)
    return hdu, primary, axes


def _select_hdu(file: BinaryIO, rules: DataSettings) -> tuple[Hdu, Header, ImageAxes]:
    """The HDU with the image, the primary header and the axes of the image."""
    setting = rules.hdu
    if setting is None:
        return _first_image(fits_file.iterate_hdus(file), rules)
    choices = [setting] if isinstance(setting, int | str) else list(setting)
    hdus = _read_hdus_until_chosen(file, choices)
    for choice in choices:
        for hdu in hdus:
            if _matches(hdu, choice):
                if reason := _why_unusable(hdu, rules):
                    raise FitsImageError(f"HDU {choice}: {reason}")
                return hdu, hdus[0].header, image_axes(hdu)
    names = ", ".join(f"{h.number} {h.name}".strip() for h in hdus[:8])
    raise FitsImageError(
        f"`data_settings.hdu` is {setting!r}; the file has the HDUs {names}"
    )


def _read_hdus_until_chosen(file: BinaryIO, choices: list[int | str]) -> list[Hdu]:
    """The HDUs up to the first that takes precedence over all later ones."""
    hdus: list[Hdu] = []
    numbers = [choice for choice in choices if isinstance(choice, int)]
    for hdu in fits_file.iterate_hdus(file):
        hdus.append(hdu)
        past_numbers = len(numbers) == len(choices) and hdu.number >= max(numbers)
        if _matches(hdu, choices[0]) or past_numbers:
            break
    return hdus


def _matches(hdu: Hdu, choice: int | str) -> bool:
    if isinstance(choice, int):
        return hdu.number == choice
    return hdu.name == choice.upper()


def _first_image(
    hdus: Iterator[Hdu], rules: DataSettings
) -> tuple[Hdu, Header, ImageAxes]:
    reasons: list[str] = []
    primary = None
    try:
        for hdu in hdus:
            primary = primary or hdu.header
            if not hdu.shape:
                continue
            reason = _why_unusable(hdu, rules)
            if reason is None:
                return hdu, primary, image_axes(hdu)
            reasons.append(f"HDU {hdu.number}: {reason}")
    except FitsImageError as error:
        reasons.append(str(error))
    if not reasons:
        raise FitsImageError("the file contains no image, only headers or tables")
    raise FitsImageError("; ".join(reasons[:3]))


def _why_unusable(hdu: Hdu, rules: DataSettings) -> str | None:
    """Why the image of an HDU cannot be used; None if it can."""
    shape = hdu.shape
    size = "x".join(str(n) for n in shape)
    if not shape:
        return "it contains no image"
    if math.prod(shape) == 0:
        return f"its shape {size} contains no pixels"
    if math.prod(shape) > rules.max_pixels:
        return (
            f"it has {size} pixels, more than `data_settings.max_pixels`, "
            f"{rules.max_pixels}"
        )
    if len(shape) < 2:
        return f"it has only one axis, of {size} pixels; an image needs two"
    try:
        select_planes(rules.planes, count_planes(hdu, image_axes(hdu)))
    except FitsImageError as error:
        return f"{size} pixels: {error}"
    return None
