"""Columns and thumbnails, packed for a browser, which unpacks them on demand."""

import base64
import io
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from astromorph.artefacts.column_types import MAX_EXACT_INTEGER
from astromorph.artefacts.run_files import ShardFile
from astromorph.artefacts.tensor_shard import TensorShard, read_shard
from astromorph.errors import AstromorphError
from astromorph.pages.pictures import thumbnail
from astromorph.progress import track

Kind = Literal["category", "number", "text"]
MISSING = {"", "nan"}
MAX_NUMBERS = 12  # integers with at most this many distinct values are categories
MAX_WORDS = 24  # texts with at most this many distinct values are always categories
ACROSS = 16  # pictures in a row of a sheet, small enough to be decoded quickly
JPEG_BLOCK = 8  # pixels
JPEG_QUALITY = 85
# The statistics in the shards that the map shows; all but one have the unit of pixels.
PIXEL_STATISTICS = ("background", "noise", "minimum", "maximum")
SHOWN_STATISTICS = (*PIXEL_STATISTICS, "valid_fraction")


@dataclass(frozen=True, slots=True)
class PackedColumn:
    """One column of N rows.

    Attributes
    ----------
    name : str
        As in the other tables.
    kind : str
        `category` and `number` can colour the map, `text`, which may have numbers, is
        only displayed.
    listed : bool
        Whether it came from the file list.
    numbers : ndarray, shape (N,), float32 or float64, or None
        NaN in empty cells. None for texts.
    words : tuple of str
        For texts: all distinct values, in the order of their first rows.
    codes : ndarray, shape (N,), unsigned integer, or None
        For texts: the index in `words` of each row.
    """

    name: str
    kind: Kind
    listed: bool
    numbers: NDArray[Any] | None
    words: tuple[str, ...] = ()
    codes: NDArray[Any] | None = None

    @property
    def is_empty(self) -> bool:
        """Whether all cells are empty."""
        if self.numbers is not None:
            return bool(np.isnan(self.numbers).all())
        return set(self.words) <= MISSING

    def description(self) -> dict[str, Any]:
        """Name and kind, for `json`."""
        return {"name": self.name, "kind": self.kind, "listed": self.listed}

    def part(self, rows: slice) -> "PackedColumn":
        """The same column with only some of the rows."""
        if self.numbers is not None:
            return replace(self, numbers=self.numbers[rows])
        if self.codes is None:
            return self
        used, codes = np.unique(self.codes[rows], return_inverse=True)
        words = tuple(self.words[code] for code in used.tolist())
        return replace(self, words=words, codes=_smallest(codes, len(words)))

    def data(self) -> dict[str, Any]:
        """The cells, for `json`."""
        if self.numbers is not None:
            return {"numbers": pack_array(self.numbers)}
        if self.codes is None or np.array_equal(
            self.codes, np.arange(len(self.words), dtype=self.codes.dtype)
        ):
            return {"words": self.words, "codes": None}
        return {"words": self.words, "codes": pack_array(self.codes)}


def pack_column(cells: "pd.Series", typed: "pd.Series", listed: bool) -> PackedColumn:
    """Pack a column that has a type.

    Parameters
    ----------
    cells : Series of str, shape (N,)
        The cells as text.
    typed : Series, shape (N,)
        The same cells with the type from `artefacts.column_types.typed_columns`.
    listed : bool
        Whether the column came from the file list.

    Returns
    -------
    PackedColumn
        Numbers for a numeric column, but a category for integers with few distinct
        values, and texts for integers that JavaScript, which uses float64, would round.
    """
    if not pd.api.types.is_numeric_dtype(typed.dtype):
        return pack_words(cells, listed)
    distinct = typed[~cells.duplicated()]
    numbers = distinct.dropna()
    if (numbers.abs() > MAX_EXACT_INTEGER).any() and typed.dtype == "Int64":
        return pack_words(cells, listed)
    if len(distinct) <= MAX_NUMBERS and (numbers % 1 == 0).all():
        return pack_categories(cells, listed)
    return pack_numbers(str(cells.name), typed.to_numpy(float, na_value=np.nan), listed)


def pack_words(cells: "pd.Series", listed: bool = False) -> PackedColumn:
    """Pack texts, as a category if half of the rows repeat a word or words are few."""
    column = pack_categories(cells, listed)
    if len(column.words) <= max(MAX_WORDS, len(cells) // 2):
        return column
    return replace(column, kind="text")


def pack_categories(cells: "pd.Series", listed: bool = False) -> PackedColumn:
    """Pack texts as a category."""
    codes, words = pd.factorize(cells)
    return PackedColumn(
        name=str(cells.name),
        kind="category",
        listed=listed,
        numbers=None,
        words=tuple(words),
        codes=_smallest(codes, len(words)),
    )


def pack_numbers(
    name: str, numbers: NDArray[Any], listed: bool = False
) -> PackedColumn:
    """Pack numbers, as float32 if that is exact for all of them."""
    short = numbers.astype(np.float32)
    exact = np.array_equal(short.astype(numbers.dtype), numbers, equal_nan=True)
    return PackedColumn(
        name, "number", listed, short if exact else numbers.astype(np.float64)
    )


def pack_array(values: NDArray[Any]) -> dict[str, str]:
    """An array as JSON: the name of its type, and its little-endian bytes in base64."""
    data = np.ascontiguousarray(values, values.dtype.newbyteorder("<"))
    return {
        "type": values.dtype.name,
        "base64": base64.b64encode(data.tobytes()).decode(),
    }


def _smallest(codes: NDArray[Any], words: int) -> NDArray[Any]:
    """Codes in the smallest type that is sufficient for a number of words."""
    types = (np.uint8, np.uint16, np.uint32)
    return codes.astype(next(t for t in types if words <= np.iinfo(t).max + 1))


@dataclass(frozen=True, slots=True)
class SheetLayout:
    """The layout of thumbnails on several sheets.

    Attributes
    ----------
    side : int
        Side of a thumbnail, in pixels.
    cell : int
        Distance between thumbnails, in pixels: whole JPEG blocks, so that no thumbnail
        bleeds into its neighbour.
    across : int
        Number of thumbnails in a row, and of rows on a sheet.
    """

    side: int
    cell: int
    across: int = ACROSS

    @classmethod
    def for_side(cls, side: int) -> "SheetLayout":
        """The layout for thumbnails with a given side."""
        return cls(side, -(-side // JPEG_BLOCK) * JPEG_BLOCK)

    def draw(self, pictures: Iterable[NDArray[np.uint8]]) -> Iterator[bytes]:
        """Draw the sheets one after the other, as JPEG files.

        Parameters
        ----------
        pictures : iterable of ndarray, shape (S, S), uint8
            The thumbnails, in order, row by row.

        Yields
        ------
        bytes
            The last sheet has only as many rows as it needs.
        """
        number = self.across**2
        remaining = iter(pictures)
        while batch := list(itertools.islice(remaining, number)):
            rows = -(-len(batch) // self.across)
            sheet = np.zeros((rows * self.cell, self.across * self.cell), np.uint8)
            for k, picture in enumerate(batch):
                top, left = (self.cell * part for part in divmod(k, self.across))
                sheet[top : top + self.side, left : left + self.side] = picture
            buffer = io.BytesIO()
            Image.fromarray(sheet).save(buffer, "JPEG", quality=JPEG_QUALITY)
            yield buffer.getvalue()


class ShardPictures:
    """Thumbnails and pixel statistics of images, read from the shards.

    Parameters
    ----------
    tensors : sequence of path
        All shards, in the order of the list.
    image_ids : sequence of str
        N ids, in the same order.

    Attributes
    ----------
    statistics : dict of str to list of float
        `SHOWN_STATISTICS` of each image after all thumbnails were drawn; NaN if a shard
        has none.
    """

    def __init__(self, tensors: Sequence[ShardFile], image_ids: Sequence[str]) -> None:
        self._tensors = tensors
        self._image_ids = image_ids
        self.statistics: dict[str, list[float]] = {n: [] for n in SHOWN_STATISTICS}

    def thumbnails(self, side: int) -> Iterator[NDArray[np.uint8]]:
        """Draw the thumbnail `(side, side)` of each image, in order.

        Raises
        ------
        AstromorphError
            An image is in none of the shards, or the images are in another order.
        """
        drawn, number = 0, len(self._image_ids)
        for pixels, statistics in track(self._read(), number, "pictures of the map"):
            for name, values in self.statistics.items():
                values.append(statistics[name])
            yield thumbnail(pixels, side)
            drawn += 1
        if drawn < number:
            raise AstromorphError(
                f"{self._tensors[-1]}: the image {self._image_ids[drawn]} of the "
                "analysis is in none of the shards, or in another order; run "
                "`preprocess`, `infer` and `analyse` again"
            )

    def _read(self) -> Iterator[tuple[NDArray[np.float32], dict[str, float]]]:
        remaining = iter(self._image_ids)
        image_id = next(remaining, None)
        for path in self._tensors:
            shard = read_shard(path)
            statistics = _statistics(shard)
            for k, image in enumerate(shard.image_list()):
                if shard.image_ids[k] == image_id:
                    pixels = image.float().numpy()
                    yield pixels, {n: values[k] for n, values in statistics.items()}
                    image_id = next(remaining, None)


def _statistics(shard: TensorShard) -> dict[str, list[float]]:
    stored, absent = shard.statistics, [float("nan")] * len(shard)
    return {n: stored[n].tolist() if n in stored else absent for n in SHOWN_STATISTICS}
