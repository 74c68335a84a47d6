"""The beam of a radio image: BMAJ, HISTORY of AIPS, or the table BEAMS of CASA."""

import re
from collections.abc import Sequence
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from astromorph.errors import FitsImageError
from astromorph.fits import file as fits_file
from astromorph.fits.file import Hdu
from astromorph.fits.planes import ImageAxes

Beam = tuple[float | None, float | None, float | None]
NO_BEAM: Beam = (None, None, None)
# AIPS writes the beam as HISTORY, again whenever it changes.
NUMBER = r" *= *([\d.ED+-]+)"
AIPS_BEAM = re.compile(
    rf"CLEAN +BMAJ{NUMBER} +BMIN{NUMBER}(?: +BPA{NUMBER})?", re.IGNORECASE
)
# The second ones are those of surveys that were made with AIPS.
KEYWORDS = (("BMAJ", "BMIN", "BPA"), ("CLNBMAJ", "CLNBMIN", "CLNBPA"))
MAX_TABLE = 2**26  # bytes; of a cube with a million planes
TFORM = re.compile(r"(\d*)([A-Z])")
COLUMN_TYPES = {
    "E": ">f4", "D": ">f8", "B": "u1", "I": ">i2", "J": ">i4", "K": ">i8", "L": "S1",
    "A": "S1",
}  # fmt: skip
ARCSEC = {"arcsec": 1.0, "arcmin": 60.0, "deg": 3600.0, "": 3600.0}


def read_beam(file: BinaryIO, hdu: Hdu, axes: ImageAxes, planes: Sequence[int]) -> Beam:
    """The beam of the planes that are used.

    Parameters
    ----------
    file : binary file
        Opened by `open_fits`.
    hdu : Hdu
        The HDU with the image.
    axes : ImageAxes
        Its axes.
    planes : sequence of int
        The planes that are used, from 0. If each has a beam of its own, the one with
        the median BMAJ is returned.

    Returns
    -------
    major, minor : float or None
        Full widths at half maximum in arcseconds.
    angle : float or None
        Position angle in degrees.
    """
    header = hdu.header
    beams = [tuple(map(header.number, keywords)) for keywords in KEYWORDS]
    major, minor, angle = next((b for b in beams if _is_beam(b)), NO_BEAM)
    if major is None and _may_have_table(hdu):
        try:
            return _beam_of_planes(_read_table(file, hdu), hdu, axes, planes)
        except (FitsImageError, ValueError, OSError):
            return NO_BEAM  # the image can be used without it
    if major is None:
        for line in header.commentary("HISTORY"):
            match = AIPS_BEAM.search(line)
            if match and _is_beam(beam := tuple(map(_number, match.groups()))):
                major, minor, angle = beam
    if major is None:
        return NO_BEAM
    return major * 3600, (minor or major) * 3600, angle


def _may_have_table(hdu: Hdu) -> bool:
    """Whether a table of beams may follow: CASA says so, or a beam is missing."""
    if hdu.header.value("CASAMBM") is True:
        return True
    history = hdu.header.commentary("HISTORY")
    per_beam = "/BEAM" in hdu.header.text("BUNIT").upper()
    return per_beam and not any(map(AIPS_BEAM.search, history))


def _is_beam(beam: Sequence[float | None]) -> bool:
    """Whether BMAJ is known: programs write 0 if there is none."""
    return beam[0] is not None and beam[0] > 0


def _number(text: str | None) -> float | None:
    try:
        return float((text or "").upper().replace("D", "E"))
    except ValueError:
        return None


def _read_table(file: BinaryIO, image: Hdu) -> dict[str, NDArray[Any]]:
    """Columns of the table BEAMS that follows the image; BMAJ and BMIN in arcsec."""
    for hdu in fits_file.iterate_hdus(file):
        if hdu.number > image.number and hdu.name == "BEAMS":
            break
    else:
        return {}
    header, size = hdu.header, 0
    rows, row_bytes = header.integer("NAXIS2"), header.integer("NAXIS1")
    if not 0 < rows * row_bytes <= MAX_TABLE:
        return {}
    fields: list[tuple[str, str, int]] = []
    for k in range(1, header.integer("TFIELDS") + 1):
        form = TFORM.match(header.text(f"TFORM{k}"))
        if form is None or form[2] not in COLUMN_TYPES or len(fields) > 99:
            return {}
        kind, length = COLUMN_TYPES[form[2]], int(form[1] or 1)
        fields.append((f"{k} {header.text(f'TTYPE{k}').upper()}", kind, length))
        size += length * np.dtype(kind).itemsize
    if size != row_bytes:
        return {}
    dtype = np.dtype([(name, kind, (length,)) for name, kind, length in fields])
    table = np.frombuffer(fits_file.read_data(file, hdu.start, rows * row_bytes), dtype)
    columns: dict[str, NDArray[Any]] = {}
    for k, (name, _, length) in enumerate(fields, start=1):
        if length == 1:
            column, name = table[name][:, 0], name.partition(" ")[2]
            if name in ("BMAJ", "BMIN"):
                unit = header.text(f"TUNIT{k}").lower()
                column = column * ARCSEC.get(unit, np.nan)
            columns.setdefault(name, column)
    return columns


def _beam_of_planes(
    table: dict[str, NDArray[Any]], hdu: Hdu, axes: ImageAxes, planes: Sequence[int]
) -> Beam:
    if not {"BMAJ", "BMIN", "BPA", "CHAN", "POL"} <= set(table):
        return NO_BEAM
    used = {_channel_and_polarization(hdu, axes, plane) for plane in planes}
    keys = zip(table["CHAN"].tolist(), table["POL"].tolist(), strict=True)
    selected = np.array([key in used for key in keys])
    # Flagged channels have a beam of 0.
    selected &= np.isfinite(table["BMAJ"]) & (table["BMAJ"] > 0)
    rows = np.flatnonzero(selected)
    if not len(rows):
        return NO_BEAM
    order = np.argsort(table["BMAJ"][rows], kind="stable")
    row = rows[order[(len(rows) - 1) // 2]]
    return (
        float(table["BMAJ"][row]),
        float(table["BMIN"][row]),
        float(table["BPA"][row]),
    )


def _channel_and_polarization(hdu: Hdu, axes: ImageAxes, plane: int) -> tuple[int, int]:
    """The indices of a plane along the spectral axis and the Stokes axis."""
    index, channel, polarization = axes.index(plane, hdu.shape), 0, 0
    for axis in axes.others:
        ctype = hdu.header.text(f"CTYPE{len(hdu.shape) - axis}").upper()
        if ctype.startswith("STOKES"):
            polarization = index[axis]
        elif hdu.shape[axis] > 1:
            channel = index[axis]
    return channel, polarization
