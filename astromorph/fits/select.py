"""Selection of the HDU with the image of a file.

Without `data_settings.hdu`, the names of its HDUs alone determine the image of a file,
which is then read or rejected: no other HDU replaces it, since a map of flags or of
exposure times would take the place of a cube.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import BinaryIO

from astromorph.errors import FitsImageError
from astromorph.fits import file as fits_file
from astromorph.fits.file import Hdu
from astromorph.fits.header import Header
from astromorph.fits.planes import ImageAxes, count_planes, image_axes, select_planes
from astromorph.settings.sections import DataSettings

# Words of EXTNAME, such as those of CHIP1.SCI and FLUX_ERR. The first image with one of
# SCIENCE_WORDS is used; an image with one of OTHER_WORDS is never used unless named.
SCIENCE_WORDS = {"SCI", "SCIENCE", "FLUX", "DATA", "IMAGE", "SIGNAL"}
OTHER_WORDS = {
    # uncertainties
    "ERR", "ERROR", "ERRORS", "ERRS", "VAR", "VARIANCE", "VARIANCES", "STAT",
    "IVAR", "INVVAR", "SIGMA", "SIG", "RMS", "RMSE", "STD", "STDEV", "STDDEV", "NOISE",
    "UNC", "UNCERT", "UNCERTAINTY", "UNCERTAINTIES", "COVAR", "COVARIANCE", "SNR",
    # weights, exposure, coverage
    "WHT", "WGT", "WT", "WEIGHT", "WEIGHTS", "WMAP", "EXP", "EXPTIME", "EXPOSURE",
    "EXPMAP", "TEXP", "TIME", "ITIME", "INTTIME", "COV", "COVERAGE", "FIBCOVER", "NOBS",
    "NEXP", "NPIX", "NHITS", "HITS", "NUM", "SAMP", "SENS", "SENSITIVITY", "PB",
    "PBEAM", "AREA", "DEPTH", "LIMMAG", "SEEING", "FWHM",
    # quality, masks, segmentation
    "DQ", "QUAL", "QUALITY", "FLAG", "FLAGS", "FLG", "MASK", "MASKS", "MSK", "BPM",
    "BADPIX", "APERTURE", "CTX", "CON", "CONF", "CONFIDENCE", "SEG", "SEGM", "SEGMENT",
    "SEGMENTATION", "REGION", "REGIONS",
    # instrument, calibration and previews
    "PSF", "PRF", "LSF", "KERNEL", "BEAM", "DISP", "DISPERSION", "PREDISP", "BKG",
    "BKGD", "BACKGROUND", "BIAS", "DARK", "FLAT", "FLATFIELD", "WAVE", "WAVELENGTH",
    "LAMBDA", "THUMB", "THUMBNAIL", "PREVIEW", "JPEG", "CHI", "CHI2", "CHISQ", "HDRLET",
    "D2IM", "WCSDVARR",
}  # fmt: skip
# Parts of longer words: PIXELDQ, GPSF, FLUXERR; NOISEMAP, D2IMARR, PSFIMAGE.
OTHER_ENDS = ("DQ", "PSF", "MASK", "IVAR", "WEIGHT", "ERR", "ERROR")
NEUTRAL_ENDS = ("MAPS", "MAP", "IMAGE", "IMG", "ARR", "FLAGS", "BITS")
# Of the convention of ESO: HDUCLAS2 is DATA, ERROR or QUALITY.
CLASS_KEYWORDS = ("HDUCLAS1", "HDUCLAS2")
WORD = re.compile(r"[A-Z]+[0-9]*")
WORD_WITH_DIGITS = re.compile(r"[A-Z][A-Z0-9]*")  # D2IMARR
ERROR_OF = re.compile(r"E_[A-Z]")  # a convention of catalogues: E_FLUX
WITH_VERSION = re.compile(r"(.*\S)\s*,\s*(\d+)", re.ASCII)


@dataclass(frozen=True, slots=True)
class Selection:
    """The image of a file.

    Attributes
    ----------
    hdu : Hdu
        The HDU with the image.
    primary : Header
        The primary header.
    axes : ImageAxes
        Axes of the stored array.
    images : int or None
        Number of HDUs among which the image was chosen; None if a setting chose it.
    """

    hdu: Hdu
    primary: Header
    axes: ImageAxes
    images: int | None


def select_image(file: BinaryIO, rules: DataSettings) -> Selection:
    """Select the HDU with the image, by the setting or by the names of all HDUs.

    Raises
    ------
    FitsImageError
        No HDU is an image, or the one that is cannot be used.
    """
    if rules.hdu is None:
        return _by_name(file, rules)
    choices = [rules.hdu] if isinstance(rules.hdu, int | str) else list(rules.hdu)
    hdus = _read_hdus_until_chosen(file, choices)
    for choice in choices:
        for hdu in hdus:
            if _matches(hdu, choice):
                if reason := _why_unusable(hdu, rules):
                    raise FitsImageError(f"HDU {choice}: {reason}")
                return Selection(hdu, hdus[0].header, image_axes(hdu), None)
    names = ", ".join(_label(hdu) for hdu in hdus[:8])
    wanted = " or ".join(map(str, choices))
    raise FitsImageError(
        f"there is no HDU {wanted}, which `data_settings.hdu` or the file list names; "
        f"the file has the HDUs {names}"
    )


def _read_hdus_until_chosen(file: BinaryIO, choices: Sequence[int | str]) -> list[Hdu]:
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
    """Whether an HDU has this number, EXTNAME, or EXTNAME and EXTVER (``SCI,2``)."""
    if isinstance(choice, int):
        return hdu.number == choice
    name = " ".join(choice.upper().split())
    if hdu.name == name:
        return True
    versioned = WITH_VERSION.fullmatch(name)
    if versioned is None or hdu.name != versioned[1]:
        return False
    version = hdu.header.number("EXTVER")
    return int(versioned[2]) == (1 if version is None else version)


def _by_name(file: BinaryIO, rules: DataSettings) -> Selection:
    """The first image with a name of science data, or else the first one."""
    hdus: list[Hdu] = []
    primary, error = None, None
    try:
        for hdu in fits_file.iterate_hdus(file):
            primary = primary or hdu.header
            if hdu.shape:
                hdus.append(hdu)
    except FitsImageError as found:
        error = found  # an image before the damage can be used
    planar = [h for h in hdus if len(h.shape) > 1 and 0 not in h.shape]
    images = [h for h in planar if not _is_other(h)]
    if images and primary is not None:
        hdu = next((h for h in images if _words(h) & SCIENCE_WORDS), images[0])
        if reason := _why_unusable(hdu, rules):
            raise FitsImageError(f"HDU {_label(hdu)}: {reason}")
        return Selection(hdu, primary, image_axes(hdu), len(images))
    if error is not None and not hdus:
        raise error
    if planar:
        names = ", ".join(_label(hdu) for hdu in planar[:8])
        raise FitsImageError(
            f"by their names, its images are not science data (HDU {names}); to use "
            "one of them, give its number or name as `data_settings.hdu`"
        )
    reasons = [f"HDU {hdu.number}: {_why_unusable(hdu, rules)}" for hdu in hdus[:3]]
    reasons += [str(error)] if error is not None else []
    if not reasons:
        raise FitsImageError("the file contains no image, only headers or tables")
    raise FitsImageError("; ".join(reasons))


def _words(hdu: Hdu) -> set[str]:
    """The words of the name, without the numbers of chips at their ends."""
    name = "" if hdu.number == 0 and hdu.name == "PRIMARY" else hdu.name
    name = name.replace("S/N", "SNR")
    words = WORD.findall(name) + WORD_WITH_DIGITS.findall(name)
    return {*words, *(word.rstrip("0123456789") for word in words)}


def _is_other(hdu: Hdu) -> bool:
    """Whether an HDU contains errors, weights, flags or the like, by its name."""
    words = _words(hdu)
    for keyword in CLASS_KEYWORDS:
        words |= set(WORD.findall(hdu.header.text(keyword).upper()))
    return any(map(_is_other_word, words)) or ERROR_OF.match(hdu.name) is not None


def _is_other_word(word: str) -> bool:
    end = next((end for end in NEUTRAL_ENDS if word.endswith(end)), "")
    stems = {word, word.removesuffix(end)}
    return bool(stems & OTHER_WORDS) or any(s.endswith(OTHER_ENDS) for s in stems)


def _label(hdu: Hdu) -> str:
    return f"{hdu.number} {hdu.name}".strip()


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
