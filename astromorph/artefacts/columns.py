"""The columns of all tables: names, types, units, UCDs, meanings.

A table between two steps is text. `typed_columns` decides which of its columns are
numbers, once for Parquet, FITS, VOTable, the projector and the map:

- text where a cell is no decimal number, such as ``007``, ``00.5``, ``1_000``, ``inf``;
- ``int64`` where all cells are integers of less than 2^63, or empty. Identifiers of
  surveys have up to 19 digits and are compared as integers, so they are not text;
- ``float64`` where all cells are numbers, ``nan``, or empty. Where one is an integer
  beyond 2^53, whose digits a float does not keep, or larger than any float, all are
  text.

UCDs are of the vocabulary UCD1+ (IVOA, version 1.6).
"""

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from astromorph.artefacts.embeddings import EMBEDDING_PREFIX

if TYPE_CHECKING:  # steps that train import this module on machines without pandas
    from pandas import DataFrame, Series

Status = Literal["ok", "warning", "rejected"]
REJECTED: Status = "rejected"

# The catalogue: a row for each listed file. Further columns of the list follow.
CATALOGUE_COLUMNS = (
    "image_id",
    "path",
    "status",
    "reason",
    "hdu",
    "shape",
    "dtype",
    "width",
    "height",
    "ra_deg",
    "dec_deg",
    "pixel_scale_arcsec",
    "object",
    "telescope",
    "unit",
    "date_obs",
    "band",
    "rest_frequency_hz",
    "beam_major_arcsec",
    "beam_minor_arcsec",
    "beam_angle_deg",
    "channels",
    "file_bytes",
)
# Statistics of the pixels of each image, which its shard stores too.
STATISTICS = (
    "background",
    "noise",
    "minimum",
    "maximum",
    "valid_fraction",
    "stretched_background",
    "stretched_noise",
)
# The contents of a shard: a row for each of its rows of the catalogue.
CONTENTS_COLUMNS = (
    "image_id", "path", "status", "reason", "position", "height", "width", "content",
    "object", "ra_deg", "dec_deg", "band", "reach_arcsec", "field_arcsec", *STATISTICS,
)  # fmt: skip
# Whether each listed file is used for training, for testing, or not at all.
SPLIT_COLUMNS = (
    "image_id", "path", "status", "reason", "subset", "group", "shard", "position",
)  # fmt: skip
TRAIN, TEST, NONE = "train", "test", "none"
HISTORY_COLUMNS = (
    "epoch", "train_loss", "test_loss", "auxiliary_loss", "learning_rate",
    "moving_average_decay", "effective_rank", "spread",
)  # fmt: skip
# The facts that precede the columns of the list in the CSV export.
EXPORT_COLUMNS = (
    "image_id", "path", "object", "ra_deg", "dec_deg", "rest_frequency_hz",
)  # fmt: skip
# The position of each image on the contact sheets.
GALLERY_COLUMNS = ("sheet", "row", "column", "image_id", "object", "path", "note")

LOG = logging.getLogger(__name__)
Kind = Literal["text", "int64", "float64", "ids", "int32", "float32", "vector"]
LISTED_PREFIX = "listed_"  # precedes a name of the list that a column of ours has
LISTED_MEANING = "column of the file list"
# The patterns are RE2's. A number with leading zeros, such as 007, is a name.
INTEGER = r"^[+-]?(0|[1-9][0-9]*)$"
NUMBER = r"^[+-]?((0|[1-9][0-9]*)(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?$"
SIMPLE = r"^[ -\[\]-~]*$"  # printable ASCII without a backslash
MAX_EXACT_INTEGER = 2**53  # a float64 holds every integer up to here
MAX_INTEGER = 2**63 - 1
MAX_TEXT_LENGTH = 4096  # characters; a path of Linux has no more
ELLIPSIS = "..."
ROWS_AT_A_TIME = 16_384


@dataclass(frozen=True, slots=True)
class Column:
    """The name, type and meaning of a column.

    Attributes
    ----------
    name : str
        Its name.
    kind : str
        `text`; `int64` and `float64`, which may have empty cells; `int32` and
        `float32`, which have none; `ids`, a list of image ids; `vector`, a fixed number
        of float32.
    meaning : str
        One line of at most 60 ASCII characters, so that it fits a FITS card.
    ucd : str
        Its UCD, empty where none fits.
    unit : str
        As FITS and VOTable write it, empty for none.
    length : int
        For a vector, the number of its components. For texts, the UTF-16 units of the
        longest; ids are joined by spaces.
    escaped_length : int
        For texts, the characters of the longest as `escape_to_ascii` writes it.
    ascii : bool
        Whether all texts are ASCII.
    """

    name: str
    kind: Kind
    meaning: str
    ucd: str = ""
    unit: str = ""
    length: int = 0
    escaped_length: int = 0
    ascii: bool = True


_FACTS = (
    Column("image_id", "text", "id of the image, the same in all tables",
           "meta.id;meta.main"),
    Column("path", "text", "the FITS file", "meta.id;meta.file"),
    Column("object", "text", "OBJECT of the header", "meta.id"),
    Column("ra_deg", "float64", "right ascension of the centre, ICRS",
           "pos.eq.ra;meta.main", "deg"),
    Column("dec_deg", "float64", "declination of the centre, ICRS",
           "pos.eq.dec;meta.main", "deg"),
    Column("rest_frequency_hz", "float64", "rest frequency, RESTFRQ", "em.freq", "Hz"),
    Column("status", "text", "ok, or warning", "meta.code.status"),
    Column("reason", "text", "what is odd about the file", "meta.note"),
    Column("hdu", "int64", "number of the HDU with the image, from 0",
           "meta.id.part"),
    Column("shape", "text", "axes as stored, slowest first", "meta.note"),
    Column("dtype", "text", "stored type, before scaling", "meta.note"),
    Column("width", "int64", "pixels along x", "meta.number;instr.pixel", "pix"),
    Column("height", "int64", "pixels along y", "meta.number;instr.pixel", "pix"),
    Column("pixel_scale_arcsec", "float64", "side of a pixel, geometric mean of two",
           "phys.angSize;instr.pixel", "arcsec"),
    Column("telescope", "text", "TELESCOP of the header", "meta.id;instr.tel"),
    Column("unit", "text", "unit of the pixels, BUNIT", "meta.unit"),
    Column("date_obs", "text", "DATE-OBS of the header", "time.start;obs"),
    Column("band", "text", "frequency and filter", "instr.bandpass"),
    Column("beam_major_arcsec", "float64", "major axis of the beam, FWHM",
           "phys.angSize;instr.beam", "arcsec"),
    Column("beam_minor_arcsec", "float64", "minor axis of the beam, FWHM",
           "phys.angSize;instr.beam", "arcsec"),
    Column("beam_angle_deg", "float64", "position angle of the beam",
           "pos.posAng;instr.beam", "deg"),
    Column("channels", "int64", "planes or files that are channels of the network",
           "meta.number"),
    Column("file_bytes", "int64", "size of the file or files", "", "byte"),
    Column("subset", "text", "train, or test: held out of training",
           "meta.code.class"),
)  # fmt: skip
ANALYSED = (
    Column("cluster", "int32", "cluster, 0 is the largest, -1 is none",
           "meta.code.class;meta.main"),
    Column("cluster_kmeans", "int32", "cluster by k-means", "meta.code.class"),
    Column("cluster_hdbscan", "int32", "cluster by HDBSCAN, -1 is none",
           "meta.code.class"),
    Column("x", "float32", "place on the map", "pos.cartesian.x"),
    Column("y", "float32", "place on the map", "pos.cartesian.y"),
    Column("pca_1", "float32", "first principal component of the embedding",
           "stat.param"),
    Column("pca_2", "float32", "second principal component of the embedding",
           "stat.param"),
    Column("outlier_score", "float32", "how far from its like; larger is odder",
           "stat.value"),
    Column("outlier_rank", "int32", "1 is the oddest", "meta.number"),
    Column("role", "text", "representative, or odd, of its cluster",
           "meta.code.class"),
    Column("neighbour_ids", "ids", "the nearest images, nearest first",
           "meta.id.assoc"),
    Column("duplicate_ids", "ids", "images that are nearly the same", "meta.id.assoc"),
)  # fmt: skip
DISTANCES = Column(
    "neighbour_distances", "vector", "how far neighbour_ids are", "stat.value"
)
EMBEDDING = Column(
    "embedding", "vector", "what the network made of the image", "stat.param"
)
FACTS = tuple(
    next(c for c in _FACTS if c.name == name)
    for name in dict.fromkeys((*EXPORT_COLUMNS, *CATALOGUE_COLUMNS, "subset"))
)
_OUR_NAMES = frozenset(c.name for c in (*FACTS, *ANALYSED, DISTANCES, EMBEDDING))


def listed_names(columns: Sequence[str]) -> dict[str, str]:
    """Name the columns of a user's list in the exported tables.

    A column with a name of ours gets the prefix `listed_`, in every table; so does one
    that differs from an earlier one by its case alone, because FITS ignores case.

    Parameters
    ----------
    columns : sequence of str
        Their names in the catalogue.

    Returns
    -------
    dict of str to str
        Name in the catalogue to name in the tables, in order.
    """
    used, names = set(_OUR_NAMES), {}
    in_list = {name.lower() for name in columns}
    for column in columns:
        name = column
        while name.lower() in used or _is_embedding_name(name):
            name = LISTED_PREFIX + name
            while name.lower() in in_list:
                name = LISTED_PREFIX + name
        used.add(name.lower())
        names[column] = name
    return names


def _is_embedding_name(name: str) -> bool:
    return re.fullmatch(rf"(?i){EMBEDDING_PREFIX}\d+", name) is not None


def is_listed(column: Column) -> bool:
    """Whether a column came from the file list."""
    return column.meaning == LISTED_MEANING


def typed_columns(table: "DataFrame", length: int) -> tuple[tuple[Column, ...], Any]:
    """Decide the types of all columns of a run, and convert their cells.

    Parameters
    ----------
    table : DataFrame
        What `tables.run_table` returns.
    length : int
        The length of an embedding.

    Returns
    -------
    columns : tuple of Column
        Facts of the catalogue, columns of the list, analysis; the last is the
        embedding, which is not in the table. Columns that the table lacks are left
        out, and so are distances where no image has a neighbour.
    typed : DataFrame
        The same rows. Cells of `int64` columns are pandas' Int64, of `float64` columns
        float64 with NaN where they are empty.
    """
    known = {column.name for column in (*FACTS, *ANALYSED, DISTANCES)}
    listed = [
        Column(name, "text", LISTED_MEANING) for name in table if name not in known
    ]
    facts = [
        _typed(column, table[column.name]) for column in FACTS if column.name in table
    ]
    own = [_typed(column, table[column.name], free=True) for column in listed]
    analysed = [
        _measured(column, table[column.name])
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
    """Decide whether cells are integers, numbers or text; see above for the rules.

    Parameters
    ----------
    cells : Series of str
        Empty where there is nothing.

    Returns
    -------
    str
        `text`, `int64` or `float64`; text where all are empty.
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
    """Convert cells to the numbers that `find_kind` found.

    Parameters
    ----------
    cells : Series of str
        Texts of numbers; empty or ``nan`` where there is none.
    kind : str
        `int64` or `float64`.

    Returns
    -------
    Series
        Int64 with NA, or float64 with NaN, where there is no number.
    """
    import pandas as pd
    import pyarrow as pa
    import pyarrow.compute as pc

    texts = pa.array(cells)
    missing = pc.is_in(
        pc.ascii_lower(texts), value_set=pa.array(["", "nan"], texts.type)
    )
    # Arrow takes no plus sign before an integer.
    texts = pc.if_else(missing, None, pc.utf8_ltrim(texts, characters="+"))
    if kind == "int64":
        numbers = texts.cast(pa.int64()).to_pandas(
            types_mapper={pa.int64(): pd.Int64Dtype()}.get
        )
    else:
        numbers = texts.cast(pa.float64()).to_pandas()
    return pd.Series(numbers.array, index=cells.index, name=cells.name)


def _typed(column: Column, cells: "Series", free: bool = False) -> Column:
    """The column with its kind; numbers of ours turn to text where one is none."""
    if not free and column.kind == "text":
        return _measured(column, cells)
    kind = find_kind(cells)
    if not free and (kind != "text" or cells.str.lower().isin(("", "nan")).all()):
        kind = "float64" if "float64" in (kind, column.kind) else "int64"
    column = replace(column, kind=kind)
    return _measured(column, cells) if kind == "text" else column


def _measured(column: Column, cells: "Series") -> Column:
    """The column with the lengths of its longest text."""
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
    """The widths of the text columns of a table whose rows are all of one length.

    Parameters
    ----------
    output : path
        The table; a warning names it where texts are cut.
    columns : sequence of Column
        All columns.
    escaped : bool
        Whether texts are written as `escape_to_ascii` does.

    Returns
    -------
    dict of str to int
        Characters, for each column of kind `text` or `ids`: from 2, because some
        readers take one character for another type, to `MAX_TEXT_LENGTH`.
    """
    widths = {}
    for column in columns:
        if column.kind not in ("text", "ids"):
            continue
        longest = column.escaped_length if escaped else column.length
        if longest > MAX_TEXT_LENGTH:
            LOG.warning(
                "%s: texts of more than %d characters are cut in `%s`; embeddings.csv "
                "and embeddings.parquet have all of them",
                output,
                MAX_TEXT_LENGTH,
                column.name,
            )
        widths[column.name] = max(2, min(longest, MAX_TEXT_LENGTH))
    return widths


def arrow_array(cells: "Series") -> Any:
    """Cells of a column as one Arrow array; a column may consist of several."""
    import pyarrow as pa

    array = pa.array(cells, from_pandas=True)
    return array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array


def texts_of(cells: "Series") -> list[str]:
    """Cells of a column of kind `text` or `ids`; ids are joined by spaces."""
    import pandas as pd
    import pyarrow.compute as pc

    if isinstance(cells.dtype, pd.ArrowDtype):
        joined: list[str] = pc.binary_join(arrow_array(cells), " ").to_pylist()
        return joined
    return list(cells)


def padded_lists(cells: "Series", length: int) -> NDArray[np.float32]:
    """Lists of at most so many numbers as `(N, length)`; the rest is NaN."""
    import pyarrow.compute as pc

    vectors = np.full((len(cells), length), np.nan, np.float32)
    filled = np.arange(length) < list_lengths(cells)[:, None]
    vectors[filled] = pc.list_flatten(arrow_array(cells)).to_numpy()
    return vectors


def list_lengths(cells: "Series") -> NDArray[np.int32]:
    """The lengths `(N,)` of lists, 0 where there is none."""
    import pyarrow.compute as pc

    lengths = pc.list_value_length(arrow_array(cells)).fill_null(0)
    return np.asarray(lengths.to_numpy())


def encode_utf16(text: str) -> bytes:
    """Text as VOTable's `unicodeChar`; a NUL, which would end it, becomes a space."""
    return text.replace("\0", " ").encode("utf-16-be", "replace")


def escape_to_ascii(text: str) -> str:
    r"""Text in the printable ASCII that FITS allows.

    Other characters are written as in Python, ``\xfc`` or ``\u2028``, and a backslash
    is doubled: ``text.encode().decode("unicode_escape")`` gives the original again.
    """
    return text.encode("unicode_escape").decode("ascii")


def shorten(text: str, length: int) -> str:
    """At most so many characters; the last three are dots where there were more."""
    return text if len(text) <= length else text[: length - len(ELLIPSIS)] + ELLIPSIS


def shorten_ids(text: str, length: int) -> str:
    """Of ids separated by spaces, the first ones, in at most so many characters."""
    return text if len(text) <= length else text[: length + 1].rpartition(" ")[0]
