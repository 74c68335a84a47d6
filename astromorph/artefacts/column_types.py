"""The columns of the exported tables: types, units, UCDs, meanings, and their cells.

UCDs follow the UCD1+ vocabulary (IVOA, version 1.6).

Tables between steps, the CSV export and the projector's metadata are text.
`typed_columns` decides which columns are numbers in Parquet, FITS, VOTable and the map:

- text if a cell is not a decimal number: ``007``, ``00.5``, ``1_000``, ``inf``;
- ``int64`` if all cells are integers below 2^63, or empty. Survey identifiers have up
  to 19 digits and are compared as integers, so they are not text;
- ``float64`` if all cells are numbers, ``nan``, or empty. If one of them is an integer
  beyond 2^53, which a float cannot represent exactly, or exceeds the range of floats,
  the column is text.
"""

import itertools
import logging
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from astromorph.artefacts.columns import (
    CATALOGUE_COLUMNS,
    EXPORT_COLUMNS,
    ROWS_AT_A_TIME,
)
from astromorph.artefacts.embeddings import EMBEDDING_PREFIX
from astromorph.artefacts.tables import arrow_array

if TYPE_CHECKING:  # pandas takes long to import; functions import it themselves
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
MAX_CARD_LENGTH = 68  # characters of a text in a FITS card
MAX_FITS_COLUMNS = 999
Kind = Literal["text", "int64", "float64", "ids", "int32", "float32", "vector"]
LISTED_PREFIX = "listed_"  # for columns of the list whose names we use
LISTED_MEANING = "column of the file list"


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
        Its UCD; empty if none fits.
    unit : str
        As in FITS and VOTable; empty for none.
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
    Column("object", "text", "name of the object, from the list or OBJECT", "meta.id"),
    Column("ra_deg", "float64", "right ascension of the centre, ICRS",
           "pos.eq.ra;meta.main", "deg"),
    Column("dec_deg", "float64", "declination of the centre, ICRS",
           "pos.eq.dec;meta.main", "deg"),
    Column("rest_frequency_hz", "float64", "rest frequency, RESTFRQ", "em.freq", "Hz"),
    Column("status", "text", "ok, or warning", "meta.code.status"),
    Column("reason", "text", "warning about the file", "meta.note"),
    Column("hdu", "int64", "number of the HDU with the image, from 0",
           "meta.id.part"),
    Column("images", "int64", "number of images in the file, of which one was chosen",
           "meta.number"),
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
    Column("subset", "text", "train, test or embed; only train images are trained on",
           "meta.code.class"),
)  # fmt: skip
ANALYSED = (
    Column("cluster", "int32", "cluster, 0 is the largest, -1 is none",
           "meta.code.class;meta.main"),
    Column("cluster_kmeans", "int32", "cluster by k-means", "meta.code.class"),
    Column("cluster_hdbscan", "int32", "cluster by HDBSCAN, -1 is none",
           "meta.code.class"),
    Column("x", "float32", "horizontal position on the map", "pos.cartesian.x"),
    Column("y", "float32", "vertical position on the map", "pos.cartesian.y"),
    Column("pca_1", "float32", "first principal component of the embedding",
           "stat.param"),
    Column("pca_2", "float32", "second principal component of the embedding",
           "stat.param"),
    Column("outlier_score", "float32",
           "distance from similar images; larger is more unusual", "stat.value"),
    Column("outlier_rank", "int32", "1 is the most unusual image", "meta.number"),
    Column("role", "text", "representative or odd member of its cluster",
           "meta.code.class"),
    Column("neighbour_ids", "ids", "the nearest images, nearest first",
           "meta.id.assoc"),
    Column("duplicate_ids", "ids", "near-duplicates", "meta.id.assoc"),
)  # fmt: skip
# Only with a reference run (`analysis_settings.reference_results`).
PLACED = (
    Column("new", "int32", "1 for new images, 0 for those of the reference run",
           "meta.code"),
    Column("novelty", "float32", "% of reference images that are nearer to others",
           "stat.value"),
)  # fmt: skip
DISTANCES = Column(
    "neighbour_distances", "vector", "distances of neighbour_ids", "stat.value"
)
EMBEDDING = Column(
    "embedding", "vector", "embedding of the image by the network", "stat.param"
)
FACTS = tuple(
    next(c for c in _FACTS if c.name == name)
    for name in dict.fromkeys((*EXPORT_COLUMNS, *CATALOGUE_COLUMNS, "subset"))
)
_OUR_NAMES = frozenset(
    c.name for c in (*FACTS, *PLACED, *ANALYSED, DISTANCES, EMBEDDING)
)


def listed_names(columns: Sequence[str]) -> dict[str, str]:
    """Choose the names of the columns of a user's list in the exported tables.

    In all tables, a column gets the prefix `listed_` if astromorph uses its name, or if
    it differs from an earlier column only in case, because FITS ignores case.

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


def fits_names(names: Iterable[str]) -> dict[str, str]:
    r"""Names of columns as a FITS table can have them.

    Characters that FITS does not allow are escaped (``\xe9``). A name that does not fit
    the 68 characters of a header card is cut; the result differs from all others, in
    more than case.

    Parameters
    ----------
    names : iterable of str
        Different names, such as those that `listed_names` returns.

    Returns
    -------
    dict of str to str
        Name to name in the FITS table, in order.

    Examples
    --------
    >>> fits_names(["z", "q" * 80])["q" * 80] == "q" * 65 + "..."
    True
    """
    result = {name: escape_to_ascii(name) for name in names}
    used = {short.lower() for short in result.values() if _fits_card(short)}
    for name, escaped in result.items():
        if _fits_card(escaped):
            continue
        for number in itertools.count(1):
            end = ELLIPSIS + (str(number) if number > 1 else "")
            length = len(name)
            while not _fits_card(escape_to_ascii(name[:length]) + end):
                length -= 1
            short = escape_to_ascii(name[:length]) + end
            if short.lower() not in used:
                break
        used.add(short.lower())
        result[name] = short
    return result


def _fits_card(text: str) -> bool:
    """Whether a text fits a FITS card, in which quotes are doubled."""
    return len(text.replace("'", "''")) <= MAX_CARD_LENGTH


def describe_fits_names(columns: Sequence[str]) -> Iterator[str]:
    """What happens to the columns of a list in the FITS table.

    Parameters
    ----------
    columns : sequence of str
        Their names in the catalogue.

    Yields
    ------
    str
        One line about names that are cut, and one about too many columns.
    """
    cut = [
        (name, short)
        for name, short in fits_names(listed_names(columns).values()).items()
        if short != escape_to_ascii(name)
    ]
    if cut:
        name, short = cut[0]
        number = (
            "The name of 1 column is"
            if len(cut) == 1
            else f"The names of {len(cut)} columns are"
        )
        yield (
            f"{number} longer than the {MAX_CARD_LENGTH} characters that FITS allows, "
            f"and cut in embeddings.fits: `{name}` becomes `{short}`; the other "
            "tables, and the comments of that one (TCOMM), have the whole names"
        )
    total = len(FACTS) + len(columns) + len(ANALYSED) + 2
    if total > MAX_FITS_COLUMNS:
        yield (
            f"the tables have {total} columns, but a FITS table has at most "
            f"{MAX_FITS_COLUMNS}; remove `fits` from `export_settings.tables`, or "
            "columns from the file list"
        )


def _is_embedding_name(name: str) -> bool:
    return re.fullmatch(rf"(?i){EMBEDDING_PREFIX}\d+", name) is not None


def is_listed(column: Column) -> bool:
    """Whether a column comes from the file list."""
    return column.meaning == LISTED_MEANING


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
    known = {column.name for column in (*FACTS, *PLACED, *ANALYSED, DISTANCES)}
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
        for column in (*PLACED, *ANALYSED)
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
