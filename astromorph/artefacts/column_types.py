"""The types of columns, decided once for all exports, and cells of those types.

Tables between steps, the CSV export and the projector's metadata are text.
`typed_columns` decides which columns are numbers in Parquet, FITS, VOTable and the map:

- text if a cell is not a decimal number: ``007``, ``00.5``, ``1_000``, ``inf``;
- ``int64`` if all cells are integers below 2^63, or empty. Survey identifiers have up
  to 19 digits and are compared as integers, so they are not text;
- ``float64`` if all cells are numbers, ``nan``, or empty. If one of them is an integer
  beyond 2^53, which a float cannot represent exactly, or exceeds the range of floats,
  the column is text.
"""

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from astromorph.artefacts.columns import (
    ANALYSED,
    DISTANCES,
    EMBEDDING,
    FACTS,
    LISTED_MEANING,
    ROWS_AT_A_TIME,
    Column,
    Kind,
)

if TYPE_CHECKING:  # steps that train import this module on machines without pandas
    from pandas import DataFrame, Series

LOG = logging.getLogger(__name__)
# RE2 patterns. Digits with leading zeros, such as 007, are a name, not a number.
INTEGER = r"^[+-]?(0|[1-9][0-9]*)$"
NUMBER = r"^[+-]?((0|[1-9][0-9]*)(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?$"
SIMPLE = r"^[ -\[\]-~]*$"  # printable ASCII without a backslash
MAX_EXACT_INTEGER = 2**53  # a float64 represents all integers up to here
MAX_INTEGER = 2**63 - 1
MAX_TEXT_LENGTH = 4096  # characters, the maximum of a Linux path
ELLIPSIS = "..."


def typed_columns(table: "DataFrame", length: int) -> tuple[tuple[Column, ...], Any]:
    """Decide the types of all columns of a run, and convert their cells.

    Parameters
    ----------
    table : DataFrame
        The result of `run_table.run_table`.
    length : int
        The length of an embedding.

    Returns
    -------
    columns : tuple of Column
        Facts of the catalogue, columns of the list, results of the analysis; the last
        is the embedding, which is not in the table. Columns that the table lacks are
        left out, and so are distances if no image has a neighbour.
    typed : DataFrame
        The same rows. `int64` columns become pandas Int64, and `float64` columns
        become float64; empty cells become NA and NaN.
    """
    known = {column.name for column in (*FACTS, *ANALYSED, DISTANCES)}
    listed = [
        Column(name, "text", LISTED_MEANING) for name in table if name not in known
    ]
    facts = [
        _with_kind(column, table[column.name])
        for column in FACTS
        if column.name in table
    ]
    own = [_with_kind(column, table[column.name], listed=True) for column in listed]
    analysed = [
        _with_lengths(column, table[column.name])
        for column in ANALYSED
        if column.name in table
    ]
    if DISTANCES.name in table:
        length_of_lists = int(list_lengths(table[DISTANCES.name]).max(initial=0))
        if length_of_lists:
            analysed.insert(-1, replace(DISTANCES, length=length_of_lists))
    columns = (*facts, *own, *analysed)
    typed = table.copy(deep=False)
    for column in columns:
        if column.kind in ("int64", "float64"):
            typed[column.name] = to_numbers(table[column.name], column.kind)
    return (*columns, replace(EMBEDDING, length=length)), typed


def find_kind(cells: "Series") -> Kind:
    """Decide whether cells are integers, numbers or text, by the rules of this module.

    Parameters
    ----------
    cells : Series of str
        The cells of a column; missing values are empty.

    Returns
    -------
    str
        `text`, `int64` or `float64`; `text` if all cells are empty.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    words = pc.unique(pa.array(cells))
    empty = pc.equal(words, "")
    is_number = pc.match_substring_regex(words, NUMBER)
    nan = pc.equal(pc.ascii_lower(words), "nan")
    numbers = words.filter(is_number)
    if not len(numbers) or not pc.all(pc.or_(pc.or_(empty, nan), is_number)).as_py():
        return "text"
    is_integer = pc.match_substring_regex(numbers, INTEGER)
    integers = [int(word[:30]) for word in numbers.filter(is_integer).to_pylist()]
    exact = pc.all(is_integer).as_py() and not pc.any(nan).as_py()
    limit = MAX_INTEGER if exact else MAX_EXACT_INTEGER
    if any(abs(integer) > limit for integer in integers):
        return "text"
    if exact:
        return "int64"
    finite = pc.is_finite(numbers.cast(pa.float64()))
    return "float64" if pc.all(finite).as_py() else "text"


def to_numbers(cells: "Series", kind: Kind) -> "Series":
    """Convert cells to numbers of the kind that `find_kind` returned.

    Parameters
    ----------
    cells : Series of str
        Numbers as text; missing ones are empty or ``nan``.
    kind : str
        `int64` or `float64`.

    Returns
    -------
    Series
        Int64 with NA, or float64 with NaN, for missing numbers.
    """
    import pandas as pd
    import pyarrow as pa
    import pyarrow.compute as pc

    texts = pa.array(cells)
    missing = pc.is_in(
        pc.ascii_lower(texts), value_set=pa.array(["", "nan"], texts.type)
    )
    # Arrow does not accept a plus sign before an integer.
    texts = pc.if_else(missing, None, pc.utf8_ltrim(texts, characters="+"))
    if kind == "int64":
        numbers = texts.cast(pa.int64()).to_pandas(
            types_mapper={pa.int64(): pd.Int64Dtype()}.get
        )
    else:
        numbers = texts.cast(pa.float64()).to_pandas()
    return pd.Series(numbers.array, index=cells.index, name=cells.name)


def _with_kind(column: Column, cells: "Series", listed: bool = False) -> Column:
    """Set the kind of a column; one of ours is text if a cell is not a number."""
    if not listed and column.kind == "text":
        return _with_lengths(column, cells)
    kind = find_kind(cells)
    if not listed and (kind != "text" or cells.str.lower().isin(("", "nan")).all()):
        kind = "float64" if "float64" in (kind, column.kind) else "int64"
    column = replace(column, kind=kind)
    return _with_lengths(column, cells) if kind == "text" else column


def _with_lengths(column: Column, cells: "Series") -> Column:
    """Set the lengths of the longest text of a column."""
    import pyarrow.compute as pc

    if column.kind not in ("text", "ids"):
        return column
    length = escaped_length = 0
    ascii = True
    for start in range(0, len(cells), ROWS_AT_A_TIME):
        texts = arrow_array(cells.iloc[start : start + ROWS_AT_A_TIME])
        if column.kind == "ids":
            texts = pc.binary_join(texts, " ")
        simple = pc.match_substring_regex(texts, SIMPLE)
        longest = pc.max(pc.utf8_length(texts.filter(simple))).as_py() or 0
        others = texts.filter(pc.invert(simple)).to_pylist()
        ascii = ascii and all(map(str.isascii, others))
        length = max(length, longest, *(len(encode_utf16(t)) // 2 for t in others))
        escaped_length = max(
            escaped_length, longest, *(len(escape_to_ascii(t)) for t in others)
        )
    return replace(column, length=length, escaped_length=escaped_length, ascii=ascii)


def text_widths(
    output: str | Path, columns: Sequence[Column], escaped: bool
) -> dict[str, int]:
    """The widths of the text columns of a table with rows of fixed length.

    Parameters
    ----------
    output : path
        The table, named in a warning if texts are truncated.
    columns : sequence of Column
        All columns.
    escaped : bool
        Whether texts are written by `escape_to_ascii`.

    Returns
    -------
    dict of str to int
        Characters, for each column of kind `text` or `ids`: at least 2, because some
        readers treat a width of 1 as another type, and at most `MAX_TEXT_LENGTH`.
    """
    widths = {}
    for column in columns:
        if column.kind not in ("text", "ids"):
            continue
        longest = column.escaped_length if escaped else column.length
        if longest > MAX_TEXT_LENGTH:
            LOG.warning(
                "%s: texts of more than %d characters are truncated in `%s`; "
                "embeddings.csv and embeddings.parquet contain the full texts",
                output,
                MAX_TEXT_LENGTH,
                column.name,
            )
        widths[column.name] = max(2, min(longest, MAX_TEXT_LENGTH))
    return widths


def arrow_array(cells: "Series") -> Any:
    """Cells of a column as one Arrow array; a column can consist of several chunks."""
    import pyarrow as pa

    array = pa.array(cells, from_pandas=True)
    return array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array


def to_texts(cells: "Series") -> list[str]:
    """Cells of a column of kind `text` or `ids` as text; ids are joined by spaces."""
    import pandas as pd
    import pyarrow.compute as pc

    if isinstance(cells.dtype, pd.ArrowDtype):
        joined: list[str] = pc.binary_join(arrow_array(cells), " ").to_pylist()
        return joined
    return list(cells)


def padded_lists(cells: "Series", length: int) -> NDArray[np.float32]:
    """Lists of at most `length` numbers as `(N, length)`, padded with NaN."""
    import pyarrow.compute as pc

    vectors = np.full((len(cells), length), np.nan, np.float32)
    filled = np.arange(length) < list_lengths(cells)[:, None]
    vectors[filled] = pc.list_flatten(arrow_array(cells)).to_numpy()
    return vectors


def list_lengths(cells: "Series") -> NDArray[np.int32]:
    """The lengths `(N,)` of lists; 0 for missing ones."""
    import pyarrow.compute as pc

    lengths = pc.list_value_length(arrow_array(cells)).fill_null(0)
    return np.asarray(lengths.to_numpy())


def encode_utf16(text: str) -> bytes:
    """Text as VOTable's `unicodeChar`; a NUL, which would end it, becomes a space."""
    return text.replace("\0", " ").encode("utf-16-be", "replace")


def escape_to_ascii(text: str) -> str:
    r"""Text in the printable ASCII that FITS allows.

    Other characters are written as in Python, ``\xfc`` or ``\u2028``, and a backslash
    is doubled: ``text.encode().decode("unicode_escape")`` returns the original.
    """
    return text.encode("unicode_escape").decode("ascii")


def shorten(text: str, length: int) -> str:
    """Truncate text longer than `length` characters, with three dots at the end."""
    return text if len(text) <= length else text[: length - len(ELLIPSIS)] + ELLIPSIS


def shorten_ids(text: str, length: int) -> str:
    """The first of ids separated by spaces, in at most `length` characters."""
    return text if len(text) <= length else text[: length + 1].rpartition(" ")[0]
