"""The export `fits`: the table as a FITS binary table, with units and UCDs.

The header is astropy's. The rows are written as they come, so that memory stays that of
some ten thousand of them (FITS standard 4.0, section 7.3). UCDs and descriptions are
in TUCDn and TCOMMn, where TOPCAT looks for them.
"""

import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from astromorph.artefacts.cells import cut, cut_ids, escaped_ascii, integers, numbers
from astromorph.artefacts.table_columns import Column
from astromorph.artefacts.table_rows import (
    Block,
    Inputs,
    Table,
    blocks,
    describe,
    width,
)
from astromorph.atomic import atomic_write
from astromorph.errors import AstromorphError
from astromorph.provenance import canonical_json, versions
from astromorph.settings.sections import Settings
from astromorph.settings.steps import part_of

LOG = logging.getLogger(__name__)
BLOCK = 2880  # bytes; a FITS file has whole blocks
MAX_COLUMNS = 999
NO_INTEGER = -(2**63)  # stands for an empty cell, said by TNULLn
NAME = "EMBEDDINGS"
FORMS = {"integer": ("K", ">i8"), "number": ("D", ">f8"), "short": ("J", ">i4"),
         "single": ("E", ">f4")}  # fmt: skip


def export_fits(settings: Settings, inputs: Inputs, output: str | Path) -> None:
    r"""Write the table, a row per image that has an embedding.

    Parameters
    ----------
    settings : Settings
        Written into the header.
    inputs : Inputs
        What it is made from.
    output : path
        FITS file to write: one binary table. The embedding is one column of D
        numbers; lists of ids are texts, separated by a space; signs that FITS does not
        allow are spelled out (``\xfc``); texts are cut at 4096 characters. Empty cells
        are TNULL in integers and NaN in numbers.

    Raises
    ------
    AstromorphError
        The files do not belong together, or there are more than 999 columns.
    """
    table = describe(inputs)
    if len(table.columns) > MAX_COLUMNS:
        raise AstromorphError(
            f"{output}: found {len(table.columns)} columns; a FITS table has at most "
            f"{MAX_COLUMNS}; leave `fits` out of `export_settings.tables`, or columns "
            "out of the list"
        )
    widths = {
        c.name: width(output, c, c.escaped_length)
        for c in table.columns
        if c.kind in ("text", "ids")
    }
    layout = _layout(table, widths)
    header = _header(table, widths, settings)
    with atomic_write(output) as temporary, open(temporary, "wb") as file:
        file.write(header)
        written = 0
        for block in blocks(inputs):
            written += file.write(_records(block, table, layout).tobytes())
        file.write(b"\0" * (-written % BLOCK))
    LOG.info("%s: %d rows of %d columns", output, table.rows, len(table.columns))


def _layout(table: Table, widths: dict[str, int]) -> np.dtype[Any]:
    """A row in memory, as it is in the file."""
    fields: list[Any] = []
    for k, column in enumerate(table.columns):
        if column.name in widths:
            fields.append((str(k), f"S{widths[column.name]}"))
        elif column.kind == "vector":
            fields.append((str(k), ">f4", (column.length,)))
        else:
            fields.append((str(k), FORMS[column.kind][1]))
    return np.dtype(fields)


def _header(table: Table, widths: dict[str, int], settings: Settings) -> bytes:
    """Both headers: that of the empty primary HDU, and the table's."""
    from astropy.io import fits

    def form(column: Column) -> str:
        if column.name in widths:
            return f"{widths[column.name]}A"
        if column.kind == "vector":
            return f"{column.length}E"
        return FORMS[column.kind][0]

    with warnings.catch_warnings():
        # Names are the list's own; the standard only recommends plain ones.
        warnings.filterwarnings("ignore", "It is strongly recommended that column")
        columns = [
            fits.Column(
                name=escaped_ascii(column.name),
                format=form(column),
                unit=column.unit or None,
                null=NO_INTEGER if column.kind == "integer" else None,
            )
            for column in table.columns
        ]
        header = fits.BinTableHDU.from_columns(columns, nrows=0, name=NAME).header
    header["NAXIS2"] = table.rows
    for k, column in reversed(list(enumerate(table.columns, start=1))):
        header.set(f"TCOMM{k}", column.meaning, after=f"TFORM{k}")
        if column.ucd:
            header.set(f"TUCD{k}", column.ucd, after=f"TFORM{k}")
    header["CREATOR"] = (f"astromorph {versions()['astromorph']}", "what wrote this")
    header["SETTINGS"] = canonical_json(part_of(settings, "export_tables"))
    text: str = fits.PrimaryHDU().header.tostring() + header.tostring()
    return text.encode("ascii")


def _records(block: Block, table: Table, layout: np.dtype[Any]) -> NDArray[np.void]:
    """The rows `(N,)` as they are in the file."""
    records = np.zeros(len(block), layout)
    for k, column in enumerate(table.columns):
        records[str(k)] = _column(block, column, layout[k].itemsize)
    return records


def _column(block: Block, column: Column, length: int) -> NDArray[np.generic]:
    if column.kind in ("short", "single", "vector"):
        return block.values(column)
    cells = block.cells(column.name)
    if column.kind == "number":
        return numbers(cells)
    if column.kind == "integer":
        values, empty = integers(cells)
        return np.where(empty, NO_INTEGER, values)
    shorter = cut_ids if column.kind == "ids" else cut
    texts = (shorter(escaped_ascii(cell), length).encode("ascii") for cell in cells)
    return np.array(list(texts), f"S{length}")
