"""The export `fits`: the table as a FITS binary table, with units and UCDs.

astropy writes the header. The rows are written in blocks, so that only some ten
thousand of them are in memory (FITS standard 4.0, section 7.3). UCDs and descriptions
are in TUCDn and TCOMMn, as TOPCAT expects.
"""

import logging
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from astromorph.artefacts.column_types import (
    MAX_FITS_COLUMNS,
    Column,
    escape_to_ascii,
    fits_names,
    padded_lists,
    shorten,
    shorten_ids,
    text_widths,
    to_texts,
    typed_columns,
)
from astromorph.artefacts.embeddings import embedding_length
from astromorph.artefacts.run_files import Identity, RunFiles
from astromorph.artefacts.run_table import embedding_blocks, run_table
from astromorph.atomic import atomic_write
from astromorph.errors import AstromorphError
from astromorph.provenance import versions

LOG = logging.getLogger(__name__)
BLOCK = 2880  # bytes; a FITS file consists of whole blocks
NO_INTEGER = -(2**63)  # marks an empty cell; the value of TNULLn
NAME = "EMBEDDINGS"
FORMATS = {
    "int64": ("K", ">i8"),
    "float64": ("D", ">f8"),
    "int32": ("J", ">i4"),
    "float32": ("E", ">f4"),
}


def export_fits(files: RunFiles, settings_json: str) -> None:
    r"""Write the table of facts, analysis and embeddings as a FITS binary table.

    There is a row for each analysed image. The embedding is one column of D numbers;
    lists of ids are texts, separated by spaces; characters that FITS does not allow
    are escaped (``\xfc``); texts are cut at 4096 characters, and names of columns at
    68. Empty cells are TNULL in integer columns and NaN in float columns.

    Parameters
    ----------
    files : RunFiles
        Catalogue, split, embeddings and analysis are read, ``table("fits")`` is
        written.
    settings_json : str
        The settings as canonical JSON; written into the header.

    Raises
    ------
    AstromorphError
        A file is missing, the files do not match, or there are more than 999 columns.
    """
    output = files.table("fits")
    length = embedding_length(files.all_embeddings)
    columns, table = typed_columns(run_table(files), length)
    if len(columns) > MAX_FITS_COLUMNS:
        raise AstromorphError(
            f"{output}: found {len(columns)} columns; a FITS table has at most "
            f"{MAX_FITS_COLUMNS}; remove `fits` from `export_settings.tables`, or "
            "columns from the file list"
        )
    widths = text_widths(output, columns, escaped=True)
    layout = _layout(columns, widths)
    header = _header(columns, widths, len(table), settings_json, files.identity)
    with atomic_write(output) as temporary, open(temporary, "wb") as file:
        file.write(header)
        written = 0
        for rows, vectors in embedding_blocks(files, table):
            records = _records(columns, rows, vectors, layout)
            written += file.write(records.tobytes())
        file.write(b"\0" * (-written % BLOCK))
    LOG.info("%s: %d rows of %d columns", output, len(table), len(columns))


def _layout(columns: Sequence[Column], widths: Mapping[str, int]) -> np.dtype[Any]:
    """The memory layout of a row, the same as in the file."""
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
    columns: Sequence[Column],
    widths: Mapping[str, int],
    rows: int,
    settings_json: str,
    identity: Identity | None,
) -> bytes:
    """The headers of the empty primary HDU and of the table."""
    from astropy.io import fits

    def form(column: Column) -> str:
        if column.name in widths:
            return f"{widths[column.name]}A"
        if column.kind == "vector":
            return f"{column.length}E"
        return FORMATS[column.kind][0]

    names = fits_names(column.name for column in columns)
    with warnings.catch_warnings():
        # Names come from the file list; the standard only recommends plain ones.
        warnings.filterwarnings("ignore", "It is strongly recommended that column")
        fields = [
            fits.Column(
                name=names[column.name],
                format=form(column),
                unit=column.unit or None,
                null=NO_INTEGER if column.kind == "int64" else None,
            )
            for column in columns
        ]
        header = fits.BinTableHDU.from_columns(fields, nrows=0, name=NAME).header
    header["NAXIS2"] = rows
    for k, column in reversed(list(enumerate(columns, start=1))):
        meaning, whole_name = column.meaning, escape_to_ascii(column.name)
        if names[column.name] != whole_name:
            meaning = f"{meaning}: {whole_name}"
        header.set(f"TCOMM{k}", meaning, after=f"TFORM{k}")
        if column.ucd:
            header.set(f"TUCD{k}", column.ucd, after=f"TFORM{k}")
    header["CREATOR"] = (
        f"astromorph {versions()['astromorph']}",
        "program that wrote this",
    )
    if identity:
        header["DATE"] = (identity.date, "date on which this was written (UTC)")
        header["SETTDIG"] = (identity.settings, "digest of the settings")
        header["LISTDIG"] = (identity.file_list, "digest of the file list")
    header["SETTINGS"] = settings_json
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
    """A column as the file stores it; texts are cut to `length` characters."""
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
