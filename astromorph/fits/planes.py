"""The image axes of a stored array, and the planes along its other axes."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from astromorph.errors import FitsImageError
from astromorph.fits import celestial, tiles
from astromorph.fits import file as fits_file
from astromorph.fits.file import Hdu
from astromorph.fits.pixels import Pixels, zeros_at_edge
from astromorph.fits.tile_decoder import TiledImage
from astromorph.settings.sections import DataSettings

Plane = Pixels  # of shape (H, W)
# Length of the last axis of colour pictures, with or without transparency, and the
# shortest side of such a picture.
COLOURS, MIN_COLOUR_SIDE = (3, 4), 8


@dataclass(frozen=True, slots=True)
class ImageAxes:
    """The numpy axes of a stored array.

    Attributes
    ----------
    y, x : int
        The axes of the image.
    others : tuple of int
        The remaining axes.
    """

    y: int
    x: int
    others: tuple[int, ...]

    def index(self, plane: int, shape: tuple[int, ...]) -> tuple[Any, ...]:
        """The numpy index of one plane; the last of the other axes varies fastest."""
        index: list[Any] = [slice(None)] * len(shape)
        lengths = [shape[axis] for axis in self.others]
        positions = np.unravel_index(plane, lengths) if lengths else ()
        for axis, position in zip(self.others, positions, strict=True):
            index[axis] = int(position)
        return tuple(index)


def select_planes(
    planes: int | str | tuple[int, ...] | None, n_planes: int
) -> tuple[str, list[int]]:
    """Apply `data_settings.planes` to an image with `n_planes` planes.

    Parameters
    ----------
    planes : int, str, tuple of int or None
        The setting.
    n_planes : int
        Number of planes of the image.

    Returns
    -------
    reduction : {'sum', 'mean', 'max', 'channels'}
        How the planes are combined.
    indices : list of int
        The selected planes, from 0.

    Raises
    ------
    FitsImageError
        The image does not have these planes, or it has several and the setting is
        None.
    """
    if planes is None:
        if n_planes > 1:
            raise FitsImageError(
                f"it is a cube of {n_planes} planes; set `data_settings.planes` to a "
                "number, a range, sum, mean, max or channels"
            )
        return "channels", [0]
    if isinstance(planes, int):
        reduction, indices = "channels", [planes]
    elif isinstance(planes, str):
        reduction, _, span = planes.partition(" ")
        if reduction[:1].isdigit() or reduction.startswith(":"):
            reduction, span = "mean", reduction
        first, _, last = span.partition(":")
        stop = min(int(last), n_planes) if last else n_planes
        indices = list(range(int(first or 0), stop))
    else:
        reduction, indices = "channels", list(planes)
    if not indices or max(indices) >= n_planes:
        raise FitsImageError(
            f"`data_settings.planes` is {planes!r}, but the image has {n_planes} "
            + ("planes" if n_planes > 1 else "plane")
        )
    return reduction, indices


def image_axes(hdu: Hdu) -> ImageAxes:
    """The celestial axes if the header names them, or else the last two.

    Axes of length 1 are ignored, the first ones before later ones, as long as two axes
    remain. An array `(H, W, 3)` or `(H, W, 4)` is a picture whose colours come last.
    """
    n_axes = len(hdu.shape)
    remaining = list(range(n_axes))
    for axis in range(n_axes):
        if hdu.shape[axis] == 1 and len(remaining) > 2:
            remaining.remove(axis)
    image = remaining[-2:]
    on_sky = None
    if len(remaining) > 2:
        on_sky = celestial.celestial_axes(hdu.header, n_axes)
    if on_sky is not None:
        y, x = n_axes - 1 - on_sky[1], n_axes - 1 - on_sky[0]
        image = [y, x] if y in remaining and x in remaining else image
    elif len(remaining) == 3 and _ends_with_colours([hdu.shape[k] for k in remaining]):
        image = remaining[:2]
    others = tuple(axis for axis in range(n_axes) if axis not in image)
    return ImageAxes(image[0], image[1], others)


def _ends_with_colours(shape: Sequence[int]) -> bool:
    """Whether an array of three axes is a picture with red, green and blue last."""
    return shape[2] in COLOURS and min(shape[:2]) >= MIN_COLOUR_SIDE


def describe_narrow_image(hdu: Hdu, axes: ImageAxes) -> str:
    """A warning if the last axis may contain channels; empty if it does not.

    An array `(H, W, 5)`, or one with colours last and a header that calls the last
    axis celestial, looks like a cube of narrow images.
    """
    width, height = hdu.shape[axes.x], hdu.shape[axes.y]
    planes = count_planes(hdu, axes)
    is_last = all(hdu.shape[axis] == 1 for axis in range(axes.x + 1, len(hdu.shape)))
    if not (is_last and width < MIN_COLOUR_SIDE <= min(height, planes)):
        return ""
    return (
        f"it has {planes} images of {height}x{width} pixels; if the last axis contains "
        "channels, such as colours, make it the first axis of the array"
    )


def count_planes(hdu: Hdu, axes: ImageAxes) -> int:
    """The number of planes along the other axes."""
    return math.prod(hdu.shape[axis] for axis in axes.others)


def read_planes(
    file: BinaryIO, hdu: Hdu, axes: ImageAxes, rules: DataSettings
) -> Pixels:
    """Pixels `(C, H, W)`, NaN where bad. A cube is read plane by plane.

    `bad_values` and `zeros_at_edge` apply to each plane, before planes are combined.
    """
    reduction, indices = select_planes(rules.planes, count_planes(hdu, axes))
    if hdu.compressed:
        tiled = _TiledPlanes(
            tiles.open_tiles(file, hdu), hdu, axes, several=len(indices) > 1
        )
        read_stored = tiled.read
    else:
        values = fits_file.stored_values(file, hdu)

        def read_stored(plane: int) -> Plane:
            return fits_file.scale_values(values[axes.index(plane, hdu.shape)], hdu)

    def read_plane(plane: int) -> Plane:
        return _mark_bad(read_stored(plane), rules)

    if reduction == "channels":
        if len(indices) == 1:
            return read_plane(indices[0])[None]
        stack: Any = np.stack([read_plane(plane) for plane in indices])
        return cast("Pixels", stack)
    reduced: Plane = REDUCTIONS[reduction](read_plane(plane) for plane in indices)
    return reduced[None]


def _mark_bad(plane: Plane, rules: DataSettings) -> Plane:
    """Replace values that the settings call bad by NaN, in place."""
    if rules.zeros_at_edge and (edge := zeros_at_edge(plane == 0)) is not None:
        plane[edge] = np.nan
    for value in rules.bad_values:
        with np.errstate(over="ignore"):
            rounded = np.float32(value)  # as it is stored, or was before a conversion
        bad = plane == rounded
        if plane.dtype == np.float64:
            bad |= plane == value
        plane[bad] = np.nan
    return plane


class _TiledPlanes:
    """Planes of a tiled cube; a tile that spans several planes is decoded once.

    Parameters
    ----------
    values : TiledImage
        Decodes the requested slices.
    hdu : Hdu
        The HDU of the tiles.
    axes : ImageAxes
        Its axes.
    several : bool
        Whether more than one plane will be read.
    """

    def __init__(
        self, values: TiledImage, hdu: Hdu, axes: ImageAxes, several: bool
    ) -> None:
        self._values, self._hdu, self._axes = values, hdu, axes
        self._axis = axes.others[-1] if several and axes.others else None
        self._depth, self._slab = 1, np.empty(0)
        self._slab_index: tuple[Any, ...] | None = None
        if self._axis is not None:
            keyword = f"ZTILE{len(hdu.shape) - self._axis}"
            self._depth = hdu.header.integer(keyword, 1)

    def read(self, plane: int) -> Plane:
        """One plane `(H, W)`."""
        index = self._axes.index(plane, self._hdu.shape)
        if self._axis is None or self._depth < 2:
            return fits_file.scale_values(self._values[index], self._hdu)
        position = index[self._axis]
        start = position - position % self._depth
        slab_index = (
            *index[: self._axis],
            slice(start, start + self._depth),
            *index[self._axis + 1 :],
        )
        if slab_index != self._slab_index:
            self._slab, self._slab_index = self._values[slab_index], slab_index
        axis = sum(isinstance(i, slice) for i in index[: self._axis])
        stored = np.take(self._slab, position - start, axis=axis)
        return fits_file.scale_values(stored, self._hdu)


def _sum(planes: Iterator[Plane]) -> Plane:
    total, counts = _sums_and_counts(planes)
    sums: NDArray[np.float64] = np.where(counts > 0, total, np.nan)
    return sums


def _mean(planes: Iterator[Plane]) -> Plane:
    total, counts = _sums_and_counts(planes)
    means = total / np.maximum(counts, 1)
    means[counts == 0] = np.nan
    return means


def _max(planes: Iterator[Plane]) -> Plane:
    maximum: Any = np.array(next(planes))
    for plane in planes:
        np.fmax(maximum, plane, out=maximum)
    return cast("Plane", maximum)


def _sums_and_counts(
    planes: Iterator[Plane],
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Sum and number of the valid values of each pixel."""
    total: Any = 0.0
    counts: Any = 0
    for plane in planes:
        valid = np.isfinite(plane)
        total = total + np.where(valid, plane, 0).astype(np.float64)
        counts = counts + valid.astype(np.int64)
    return total, counts


REDUCTIONS: dict[str, Callable[[Iterator[Plane]], Any]] = {
    "sum": _sum,
    "mean": _mean,
    "max": _max,
}
