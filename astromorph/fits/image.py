"""The image of a FITS file: its HDU, facts and pixels."""

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
from astromorph.fits.pixels import Image
from astromorph.fits.planes import read_planes
from astromorph.fits.select import Selection, select_image
from astromorph.settings.sections import DataSettings
from astromorph.system.files import split_hdu


def describe_image(paths: Sequence[str | Path], rules: DataSettings) -> ImageFacts:
    """Read the facts about an image, but not its pixels.

    Parameters
    ----------
    paths : sequence of path
        One file, or one per channel. Images can be tile-compressed, files can be
        compressed (.gz, .bz2, .xz, .Z, .zip). A name can end with an HDU, as in
        ``a.fits[SCI,2]``.
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
        with (
            _add_file_to_errors(path, paths),
            _open_listed(path, rules) as (file, own_rules),
        ):
            facts.append(image_facts(file, _open_image(file, own_rules), own_rules))
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
        with (
            _add_file_to_errors(path, paths),
            _open_listed(path, rules) as (file, own_rules),
        ):
            image = _open_image(file, own_rules)
            facts.append(image_facts(file, image, own_rules))
            parts.append(read_planes(file, image.hdu, image.axes, own_rules))
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


def _open_image(file: BinaryIO, rules: DataSettings) -> Selection:
    """Select the image and check its header, before any use of it.

    Everything that can be known without its pixels is checked here, so that the steps
    `validate` and `preprocess` accept the same files.
    """
    selection = select_image(file, rules)
    hdu = selection.hdu
    fits_file.check_length(file, hdu)
    fits_file.read_scaling(hdu)
    if hdu.compressed:
        tiles.check_tiles(hdu)
    return selection


@contextmanager
def _open_listed(
    path: str | Path, rules: DataSettings
) -> Iterator[tuple[BinaryIO, DataSettings]]:
    """Open a listed file; an HDU in its name takes the place of the setting."""
    name, hdu = split_hdu(path)
    if hdu is not None:
        rules = rules.model_copy(update={"hdu": hdu})
    with fits_file.open_fits(name) as file:
        yield file, rules
