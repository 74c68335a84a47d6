"""Which image of a FITS file is taken, what its header says, and its pixels."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from astromorph.atomic import atomic_write
from astromorph.errors import FitsImageError
from astromorph.fits import file as fits_file
from astromorph.fits.facts import ImageFacts, image_facts
from astromorph.fits.file import Hdu
from astromorph.fits.header import Header
from astromorph.fits.pixels import Image
from astromorph.fits.planes import Axes, image_axes, read_planes, select_planes
from astromorph.settings.sections import DataSettings


def describe_image(paths: Sequence[str | Path], rules: DataSettings) -> ImageFacts:
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
        with _naming(path, paths), fits_file.open_fits(path) as file:
            facts.append(_describe(file, rules))
    return _together(facts)


def read_image(
    paths: Sequence[str | Path], rules: DataSettings
) -> tuple[ImageFacts, Image]:
    """Read the image that `describe_image` finds.

    Returns
    -------
    facts : ImageFacts
        As `describe_image` returns them.
    image : Image
        Its pixels; files and planes become channels.

    Raises
    ------
    FitsImageError
        Why there is no image to take.
    """
    facts, parts = [], []
    for path in paths:
        with _naming(path, paths), fits_file.open_fits(path) as file:
            hdu, primary, axes = _choose(file, rules)
            facts.append(image_facts(hdu, primary, axes, rules))
            parts.append(read_planes(file, hdu, axes, rules))
    together = _together(facts)
    pixels = parts[0] if len(parts) == 1 else np.concatenate(parts)
    bad: NDArray[np.bool_] = np.asarray(~np.isfinite(pixels))
    if not bad.any():
        return together, Image(pixels, np.zeros(pixels.shape[1:], np.bool_))
    blank: NDArray[np.bool_] = np.asarray(bad.all(axis=(1, 2)))
    counts = bad if blank.all() else bad & ~blank[:, None, None]
    mask: NDArray[np.bool_] = np.asarray(counts.any(axis=0))
    return together, Image(np.where(bad, np.float32(0), pixels), mask)


def write_image(
    path: str | Path,
    pixels: NDArray[np.float32],
    facts: ImageFacts,
    beam_arcsec: float,
) -> None:
    """Write an image with the header that `describe_image` reads.

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
    with atomic_write(path) as temporary:
        fits.PrimaryHDU(pixels.astype(np.float32), header).writeto(temporary)


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
    return image_facts(hdu, primary, axes, rules)


def _choose(file: BinaryIO, rules: DataSettings) -> tuple[Hdu, Header, Axes]:
    """The HDU to take, the primary header and the image's axes."""
    wanted = rules.hdu
    if wanted is None:
        return _first_image(fits_file.iterate_hdus(file), rules)
    choices = [wanted] if isinstance(wanted, int | str) else list(wanted)
    found: list[Hdu] = []
    walk = fits_file.iterate_hdus(file)
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
                return hdu, found[0].header, image_axes(hdu)
    names = ", ".join(f"{h.number} {h.name}".strip() for h in found[:8])
    raise FitsImageError(
        f"`data_settings.hdu` is {wanted!r}; the file has the HDUs {names}"
    )


def _is(hdu: Hdu, choice: int | str) -> bool:
    if isinstance(choice, int):
        return hdu.number == choice
    return hdu.name == choice.upper()


def _first_image(walk: Iterator[Hdu], rules: DataSettings) -> tuple[Hdu, Header, Axes]:
    reasons: list[str] = []
    primary = None
    try:
        for hdu in walk:
            primary = primary or hdu.header
            if not hdu.shape:
                continue
            reason = _why_not(hdu, rules)
            if reason is None:
                return hdu, primary, image_axes(hdu)
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
        axes = image_axes(hdu)
        select_planes(rules.planes, math.prod(shape[axis] for axis in axes.others))
    except FitsImageError as error:
        return f"{size} pixels: {error}"
    return None
