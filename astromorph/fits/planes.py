"""Which axes of an array are the image, and what is taken of the others."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from astromorph.errors import FitsImageError
from astromorph.fits import celestial
from astromorph.fits import file as fits_file
from astromorph.fits.file import Hdu
from astromorph.settings.sections import DataSettings


@dataclass(frozen=True, slots=True)
class Axes:
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


def select_planes(
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


def image_axes(hdu: Hdu) -> Axes:
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
    return Axes(image[0], image[1], others)


def read_planes(
    file: BinaryIO, hdu: Hdu, axes: Axes, rules: DataSettings
) -> NDArray[np.float32]:
    """Pixels `(C, H, W)`; NaN where bad. Cubes are read plane by plane."""
    number = math.prod(hdu.shape[axis] for axis in axes.others)
    how, which = select_planes(rules.planes, number)
    if hdu.compressed:
        plane = _Slabs(
            fits_file.compressed_tiles(file, hdu), hdu, axes, len(which) > 1
        ).plane
    else:
        values = fits_file.stored_values(file, hdu)

        def plane(p: int) -> NDArray[np.float32]:
            return fits_file.scale_values(values[axes.index(p, hdu.shape)], hdu)

    if how == "channels":
        if len(which) == 1:
            return plane(which[0])[None]
        return np.stack([plane(p) for p in which])
    reduced: NDArray[np.float32] = REDUCTIONS[how](plane(p) for p in which)
    return reduced[None]


class _Slabs:
    """Planes of a tiled cube; a tile that spans several is decoded once.

    Parameters
    ----------
    values : astropy section or ndarray
        Decodes what is sliced out of it.
    hdu : Hdu
        Whose tiles they are.
    axes : Axes
        Of the image.
    several : bool
        Neighbouring planes are wanted too.
    """

    def __init__(self, values: Any, hdu: Hdu, axes: Axes, several: bool) -> None:
        self._values, self._hdu, self._axes = values, hdu, axes
        self._axis = axes.others[-1] if several and axes.others else None
        self._depth, self._slab = 1, np.empty(0, np.float32)
        self._place: tuple[Any, ...] | None = None
        if self._axis is not None:
            keyword = f"ZTILE{len(hdu.shape) - self._axis}"
            self._depth = hdu.header.integer(keyword, 1)

    def plane(self, p: int) -> NDArray[np.float32]:
        """One plane `(H, W)`."""
        index = self._axes.index(p, self._hdu.shape)
        with fits_file.decoding_errors(), np.errstate(over="ignore", invalid="ignore"):
            if self._axis is None or self._depth < 2:
                return np.asarray(self._values[index], dtype=np.float32)
            at = index[self._axis]
            start = at - at % self._depth
            wanted = (*index[: self._axis], slice(start, start + self._depth))
            wanted = (*wanted, *index[self._axis + 1 :])
            if wanted != self._place:
                self._slab = np.asarray(self._values[wanted], dtype=np.float32)
                self._place = wanted
            left = sum(isinstance(i, slice) for i in index[: self._axis])
            return np.array(np.take(self._slab, at - start, axis=left))


def _sum(planes: Iterator[NDArray[np.float32]]) -> NDArray[np.float32]:
    total, counts = _totals(planes)
    return np.where(counts > 0, total, np.nan).astype(np.float32)


def _mean(planes: Iterator[NDArray[np.float32]]) -> NDArray[np.float32]:
    total, counts = _totals(planes)
    means = total / np.maximum(counts, 1)
    return np.where(counts > 0, means, np.nan).astype(np.float32)


def _max(planes: Iterator[NDArray[np.float32]]) -> NDArray[np.float32]:
    highest = np.array(next(planes))
    for plane in planes:
        np.fmax(highest, plane, out=highest)
    return highest


def _totals(
    planes: Iterator[NDArray[np.float32]],
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Sums and numbers of the valid pixels along the planes."""
    total: Any = 0.0
    counts: Any = 0
    for plane in planes:
        valid = np.isfinite(plane)
        total = total + np.where(valid, plane, 0).astype(np.float64)
        counts = counts + valid.astype(np.int64)
    return total, counts


REDUCTIONS: dict[str, Callable[[Iterator[NDArray[np.float32]]], Any]] = {
    "sum": _sum,
    "mean": _mean,
    "max": _max,
}
