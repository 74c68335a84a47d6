"""What the cells of a column are: numbers where all are, else texts."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from astromorph.artefacts.table_columns import Column

# A number with leading zeros, such as 007, is a name.
INTEGER = re.compile(r"[+-]?(0|[1-9]\d*)", re.ASCII)
NUMBER = re.compile(r"[+-]?((0|[1-9]\d*)(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)
NO_NUMBER = frozenset({"", "nan"})
MAX_INTEGER = 2**63 - 1
EXACT_INTEGER = 2**53  # up to here a 64-bit number holds every integer
MAX_TEXT_LENGTH = 4096  # characters; a path of Linux has no more
CUT = "..."
AT_A_TIME = 2048  # vectors that are text at one time


class Profile:
    """What is learned about a column from its cells, one after the other.

    Parameters
    ----------
    column : Column
        What it should be.
    free : bool
        Whether its cells decide the kind; else they can only turn numbers to text.
    """

    def __init__(self, column: Column, free: bool) -> None:
        self.column = column
        self.free = free
        self.integers = self.numbers = True
        self.some = False
        self.largest = 0
        self.length = self.escaped_length = 0
        self.ascii = True

    def see(self, cell: str) -> None:
        """Take one more cell into account."""
        if self.numbers and (self.free or self.column.kind != "text"):
            self._see_number(cell)
        if cell.isascii() and cell.isprintable() and "\\" not in cell:
            length = escaped = len(cell)
        else:
            length, escaped = len(utf16(cell)) // 2, len(escaped_ascii(cell))
            self.ascii = self.ascii and cell.isascii()
        self.length = max(self.length, length)
        self.escaped_length = max(self.escaped_length, escaped)

    def _see_number(self, cell: str) -> None:
        if cell.lower() in NO_NUMBER:
            self.integers = self.integers and not cell
            return
        self.some = True
        if INTEGER.fullmatch(cell):
            self.largest = max(self.largest, abs(int(cell[:30])))
        else:
            self.integers = False
            self.numbers = NUMBER.fullmatch(cell) is not None

    def found(self) -> Column:
        """The column as its cells say."""
        kind = self.column.kind
        numeric = self.numbers and (self.some or not self.free)
        if self.free or kind not in ("text", "ids"):
            limit = MAX_INTEGER if self.integers else EXACT_INTEGER
            if not numeric or self.largest > limit:
                kind = "text"
            elif self.free or kind == "integer":
                kind = "integer" if self.integers else "number"
        return replace(
            self.column, kind=kind, length=self.length, ascii=self.ascii,
            escaped_length=self.escaped_length,
        )  # fmt: skip


def integers(cells: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Values `(N,)`, 0 where a cell is empty, and which are."""
    values = np.array([int(cell) if cell else 0 for cell in cells], np.int64)
    return values, np.array([not cell for cell in cells], bool)


def numbers(cells: Sequence[str]) -> NDArray[np.float64]:
    """Values `(N,)`, NaN where a cell is empty."""
    return np.array([float(cell) if cell else np.nan for cell in cells], np.float64)


def utf16(text: str) -> bytes:
    """As VOTable's `unicodeChar` has it; what ends a text there becomes a space."""
    return text.replace("\0", " ").encode("utf-16-be", "replace")


def escaped_ascii(text: str) -> str:
    r"""The printable ASCII that FITS allows.

    Others are spelled out as in Python, ``\xfc`` or ``\u2028``, and a backslash is
    doubled: ``text.encode().decode("unicode_escape")`` gives the original again.
    """
    return text.encode("unicode_escape").decode("ascii")


def cut(text: str, length: int) -> str:
    """At most so many characters; the last three say so where there were more."""
    return text if len(text) <= length else text[: length - len(CUT)] + CUT


def cut_ids(text: str, length: int) -> str:
    """Of ids that are separated by a space the first, in at most so many characters."""
    return text if len(text) <= length else text[: length + 1].rpartition(" ")[0]


def lines(vectors: NDArray[np.float32], separator: str) -> Iterator[str]:
    """The numbers of each row as text, in the fewest digits that give them again.

    Parameters
    ----------
    vectors : ndarray, shape (N, D), float32
        The rows.
    separator : str
        Between numbers.

    Yields
    ------
    str
        A row.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    for start in range(0, len(vectors), AT_A_TIME):
        some = vectors[start : start + AT_A_TIME]
        texts = pa.array(some.ravel()).cast(pa.string())
        ends = np.arange(0, some.size + 1, some.shape[1], dtype=np.int32)
        rows = pa.ListArray.from_arrays(pa.array(ends), texts)
        yield from pc.binary_join(rows, separator).to_pylist()
