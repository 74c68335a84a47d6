"""The export `fits`: the table as a FITS binary table, with units and UCDs.

The header is astropy's. The rows are written as they come, so that memory stays that of
some ten thousand of them (FITS standard 4.0, section 7.3). UCDs and descriptions are
in TUCDn and TCOMMn, where TOPCAT looks for them.
"""

import logging
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from astromorph.artefacts.column_types import (
    escape_to_ascii,
    padded_lists,
    shorten,
    shorten_ids,
    text_widths,
    to_texts,
    typed_columns,
)
from astromorph.artefacts.columns import Column
from astromorph.artefacts.embeddings import embedding_length
from astromorph.artefacts.run_files import RunFiles
from astromorph.artefacts.run_table import embedding_blocks, run_table
from astromorph.atomic import atomic_write
from astromorph.errors import AstromorphError
from astromorph.provenance import versions

LOG = logging.getLogger(__name__)
BLOCK = 2880  # bytes; a FITS file has whole blocks
MAX_COLUMNS = 999
NO_INTEGER = -(2**63)  # an empty cell, as TNULLn says
NAME = "EMBEDDINGS"
FORMATS = {
    "int64": ("K", ">i8"),
    "float64": ("D", ">f8"),
    "int32": ("J", ">i4"),
    "float32": ("E", ">f4"),
}


def export_fits(files: RunFiles, made_with: str) -> None:
    r"""Write the table of facts, analysis and embeddings as a FITS binary table.

    A row for each image that was analysed. The embedding is one column of D numbers;
    lists of ids are texts, separated by a space; characters that FITS does not allow
    are escaped (``\xfc``); texts are cut at 4096 characters. Empty cells are TNULL in
    integers and NaN in numbers.

    Parameters
    ----------
    files : RunFiles
        Catalogue, split, embeddings and analysis are read, ``table("fits")`` is
        written.
    made_with : str
        The settings as canonical JSON; written into the header.

    Raises
    ------
    AstromorphError
        A file is missing, the files do not belong together, or there are more than 999
        columns.
    """
    output = files.table("fits")
    length = embedding_length(files.all_embeddings)
    columns, table = typed_columns(run_table(files), length)
    if len(columns) > MAX_COLUMNS:
        raise AstromorphError(
            f"{output}: found {len(columns)} columns; a FITS table has at most "
            f"{MAX_COLUMNS}; leave `fits` out of `export_settings.tables`, or columns "
            "out of the list"
        )
    widths = text_widths(output, columns, escaped=True)
    layout = _layout(columns, widths)
    header = _header(columns, widths, len(table), made_with)
    with atomic_write(output) as temporary, open(temporary, "wb") as file:
        file.write(header)
        written = 0
        for rows, vectors in embedding_blocks(files, table):
            records = _records(columns, rows, vectors, layout)
            written += file.write(records.tobytes())
        file.write(b"\0" * (-written % BLOCK))
    LOG.info("%s: %d rows of %d columns", output, len(table), len(columns))


def _layout(columns: Sequence[Column], widths: Mapping[str, int]) -> np.dtype[Any]:
    """A row in memory, as it is in the file."""
    fields: list[Any] = []
    for k, column in enumerate(columns):
        if column.name in widths:
            fields.append((str(k), f"S{widths[column.name]}"))
        elif column.kind == "vector":
            fields.append((str(k), ">f4", (column.length,)))
        else:
            fields.append((str(k), FORMATS[column.kind][1]))
    return np.dtype(fields)


def _header(
    columns: Sequence[Column], widths: Mapping[str, int], rows: int, made_with: str
) -> bytes:
    """Both headers: that of the empty primary HDU, and the table's."""
    from astropy.io import fits

    def form(column: Column) -> str:
        if column.name in widths:
            return f"{widths[column.name]}A"
        if column.kind == "vector":
            return f"{column.length}E"
        return FORMATS[column.kind][0]

    with warnings.catch_warnings():
        # Names are the list's own; the standard only recommends plain ones.
        warnings.filterwarnings("ignore", "It is strongly recommended that column")
        fields = [
            fits.Column(
                name=escape_to_ascii(column.name),
                format=form(column),
                unit=column.unit or None,
                null=NO_INTEGER if column.kind == "int64" else None,
            )
            for column in columns
        ]
        header = fits.BinTableHDU.from_columns(fields, nrows=0, name=NAME).header
    header["NAXIS2"] = rows
    for k, column in reversed(list(enumerate(columns, start=1))):
        header.set(f"TCOMM{k}", column.meaning, after=f"TFORM{k}")
        if column.ucd:
            header.set(f"TUCD{k}", column.ucd, after=f"TFORM{k}")
    header["CREATOR"] = (
        f"astromorph {versions()['astromorph']}",
        "program that wrote this",
    )
    header["SETTINGS"] = made_with
    text: str = fits.PrimaryHDU().header.tostring() + header.tostring()
    return text.encode("ascii")


def _records(
    columns: Sequence[Column],
    rows: Any,
    vectors: NDArray[np.float32],
    layout: np.dtype[Any],
) -> NDArray[np.void]:
    """The rows `(N,)` as they are in the file."""
    records = np.zeros(len(rows), layout)
    for k, column in enumerate(columns[:-1]):
        records[str(k)] = _values(rows[column.name], column, layout[k].itemsize)
    records[str(len(columns) - 1)] = vectors
    return records


def _values(cells: Any, column: Column, length: int) -> NDArray[np.generic]:
    """A column as the file stores it; texts in at most so many characters."""
    if column.kind == "vector":
        return padded_lists(cells, column.length)
    if column.kind == "int64":
        return np.asarray(cells.to_numpy(np.int64, na_value=NO_INTEGER))
    if column.kind not in ("text", "ids"):
        return np.asarray(cells)
    cut = shorten_ids if column.kind == "ids" else shorten
    texts = (
        cut(escape_to_ascii(cell), length).encode("ascii") for cell in to_texts(cells)
    )
    return np.array(list(texts), f"S{length}")
