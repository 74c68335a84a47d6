"""The columns that `map.html` shows, packed for a browser.

Words are written once and numbered, numbers are typed arrays in base64. The page
unpacks a column when it is first looked at.
"""

import base64
import math
import re
from array import array
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Kind = Literal["category", "number", "text"]
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
# Digits that are a name, not a number: 007, or more than a float keeps.
NAME_OF_DIGITS = re.compile(r"[+-]?(0\d+|\d{16,})")
MISSING = {"", "nan"}
FEW_NUMBERS = 12  # whole numbers up to this many values count as categories
FEW_WORDS = 24  # words up to this many are categories however few the rows are


@dataclass(frozen=True, slots=True)
class Column:
    """One column of N rows.

    Attributes
    ----------
    name : str
        As in the other tables.
    kind : str
        `category` and `number` can colour the map, `text` is only shown.
    listed : bool
        Whether it came from the file list.
    numbers : ndarray, shape (N,), float32 or float64, or None
        NaN where there is none.
    words : tuple of str
        Without `numbers`: every word once, in the order of its first row.
    codes : ndarray, shape (N,), unsigned integer
        Without `numbers`: which word each row has.
    """

    name: str
    kind: Kind
    listed: bool
    numbers: NDArray[Any] | None
    words: tuple[str, ...] = ()
    codes: NDArray[Any] | None = None

    @property
    def size(self) -> int:
        """About how many bytes it takes in the page."""
        arrays = [a.nbytes for a in (self.numbers, self.codes) if a is not None]
        return sum(arrays) * 4 // 3 + sum(len(word) + 3 for word in self.words)

    @property
    def is_empty(self) -> bool:
        """Whether no row has anything in it."""
        if self.numbers is not None:
            return bool(np.isnan(self.numbers).all())
        return set(self.words) <= MISSING

    def description(self) -> dict[str, Any]:
        """What the page is told of it."""
        return {"name": self.name, "kind": self.kind, "listed": self.listed}

    def data(self) -> dict[str, Any]:
        """What it holds, for `json`."""
        if self.numbers is not None:
            return {"numbers": pack_array(self.numbers)}
        each_its_own = len(self.words) == len(
            self.codes if self.codes is not None else ()
        )
        codes = None if each_its_own or self.codes is None else pack_array(self.codes)
        return {"words": self.words, "codes": codes}


class Cells:
    """The cells of one column, taken in a row at a time.

    Parameters
    ----------
    name : str
        The column's.
    listed : bool
        Whether it came from the file list.
    """

    def __init__(self, name: str, listed: bool = False) -> None:
        self._name, self._listed = name, listed
        self._words: dict[str, int] = {}
        self._codes = array("L")

    def add(self, cell: str) -> None:
        """The next row's."""
        self._codes.append(self._words.setdefault(cell, len(self._words)))

    def column(self) -> Column:
        """What they are together: numbers where all of them are."""
        values = _numbers(self._words)
        if values is None:
            return self._of_words(len(self._words) <= max(FEW_WORDS, len(self) // 2))
        if len(values) <= FEW_NUMBERS and all(map(_is_whole, values)):
            return self._of_words(few=True)
        numbers = np.array(values)[np.array(self._codes, np.uint32)]
        return number_column(self._name, numbers, self._listed)

    def category(self) -> Column:
        """The same with every word a class of its own, whatever it looks like."""
        return self._of_words(few=True)

    def __len__(self) -> int:
        return len(self._codes)

    def _of_words(self, few: bool) -> Column:
        return Column(
            name=self._name,
            kind="category" if few else "text",
            listed=self._listed,
            numbers=None,
            words=tuple(self._words),
            codes=_small(np.array(self._codes, np.uint32), len(self._words)),
        )


def number_column(name: str, numbers: NDArray[Any], listed: bool = False) -> Column:
    """A column of numbers, as float32 where that keeps all of them as they are."""
    short = numbers.astype(np.float32)
    exact = np.array_equal(short.astype(numbers.dtype), numbers, equal_nan=True)
    kept = short if exact else numbers.astype(np.float64)
    return Column(name, "number", listed, kept)


def pack_array(values: NDArray[Any]) -> dict[str, str]:
    """An array as JSON can hold it: its type's name, and base64, little-endian."""
    data = np.ascontiguousarray(values, values.dtype.newbyteorder("<"))
    return {
        "type": values.dtype.name,
        "base64": base64.b64encode(data.tobytes()).decode(),
    }


def _numbers(words: dict[str, int]) -> list[float] | None:
    """The words as numbers; None where one is none, or all are missing."""
    values: list[float] = []
    for word in words:
        if word.lower() in MISSING:
            values.append(math.nan)
        elif NUMBER.fullmatch(word) and not NAME_OF_DIGITS.fullmatch(word):
            values.append(float(word))
        else:
            return None
    return values if any(map(math.isfinite, values)) else None


def _is_whole(value: float) -> bool:
    return math.isnan(value) or value.is_integer()


def _small(codes: NDArray[np.uint32], words: int) -> NDArray[Any]:
    kinds = (np.uint8, np.uint16, np.uint32)
    return codes.astype(next(k for k in kinds if words <= np.iinfo(k).max + 1))
