"""The export `votable`: the table in the format of the Virtual Observatory.

The header is astropy's, VOTable 1.4. The rows are BINARY2, base64 of fixed-width rows,
each of which begins with a bit per column that is 1 where its cell is empty (VOTable
standard, section 5.4). They are written as they come, so that memory stays that of some
ten thousand of them.
"""

import base64
import io
import logging
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from astromorph.artefacts.cells import (
    cut,
    cut_ids,
    escaped_ascii,
    integers,
    numbers,
    utf16,
)
from astromorph.artefacts.table_columns import OF_THE_LIST, Column
from astromorph.artefacts.table_rows import (
    Block,
    Inputs,
    Table,
    blocks,
    describe,
    width,
)
from astromorph.atomic import atomic_write
from astromorph.provenance import canonical_json, versions
from astromorph.settings.sections import Settings
from astromorph.settings.steps import part_of

LOG = logging.getLogger(__name__)
PIECE = 57 * 1000  # bytes that become a line of base64; a multiple of 3
FORMS = {"integer": ("long", ">i8"), "number": ("double", ">f8"),
         "short": ("int", ">i4"), "single": ("float", ">f4")}  # fmt: skip
ON_THE_SKY = ("ra_deg", "dec_deg")
HEAD, FOOT = (
    "<DATA><BINARY2><STREAM encoding='base64'>\n",
    "</STREAM></BINARY2></DATA>\n",
)


def export_votable(settings: Settings, inputs: Inputs, output: str | Path) -> None:
    """Write the table, a row per image that has an embedding.

    Parameters
    ----------
    settings : Settings
        Written into the file.
    inputs : Inputs
        What it is made from.
    output : path
        VOTable to write. The embedding is one column of D numbers; lists of ids are
        texts, separated by a space; texts are cut at 4096 characters.

    Raises
    ------
    AstromorphError
        The files do not belong together.
    """
    table = describe(inputs)
    widths = {
        c.name: width(output, c, c.length)
        for c in table.columns
        if c.kind in ("text", "ids")
    }
    layout = _layout(table, widths)
    before, after = _frame(table, widths, settings)
    with (
        atomic_write(output) as temporary,
        open(temporary, "w", encoding="utf-8", newline="\n") as file,
    ):
        file.write(before + HEAD)
        rows = (_records(b, table, layout).tobytes() for b in blocks(inputs))
        for line in _base64(rows):
            file.write(line + "\n")
        file.write(FOOT + after)
    LOG.info("%s: %d rows of %d columns", output, table.rows, len(table.columns))


def _layout(table: Table, widths: dict[str, int]) -> np.dtype[Any]:
    """A row in memory, as it is in the file."""
    fields: list[Any] = [("empty", "u1", (-(-len(table.columns) // 8),))]
    for k, column in enumerate(table.columns):
        if column.name in widths:
            size = 1 if column.ascii else 2
            fields.append((str(k), f"S{size * widths[column.name]}"))
        elif column.kind == "vector":
            fields.append((str(k), ">f4", (column.length,)))
        else:
            fields.append((str(k), FORMS[column.kind][1]))
    return np.dtype(fields)


def _frame(table: Table, widths: dict[str, int], settings: Settings) -> tuple[str, str]:
    """The file before and after its rows."""
    from astropy.io.votable import tree

    file = tree.VOTableFile(version="1.4")
    resource = tree.Resource(type="results")
    file.resources.append(resource)
    made = f"astromorph {versions()['astromorph']}"
    said = canonical_json(part_of(settings, "export_tables"))
    resource.infos.append(tree.Info(name="creator", value=made))
    resource.infos.append(tree.Info(name="settings", value=said))
    resource.coordinate_systems.append(tree.CooSys(ID="icrs", system="ICRS"))
    whole = tree.TableElement(file, name="embeddings", nrows=table.rows)
    whole.description = "Images, what they are, and where they lie among their like"
    resource.tables.append(whole)
    for k, column in enumerate(table.columns):
        whole.fields.append(_field(file, column, widths, k))
    buffer = io.BytesIO()
    file.to_xml(buffer, tabledata_format="binary2")
    before, end, after = buffer.getvalue().decode("utf-8").partition("</TABLE>")
    return before.rstrip(" "), f"  {end}{after}"


def _field(file: Any, column: Column, widths: dict[str, int], number: int) -> Any:
    """The column as VOTable describes it."""
    from astropy.io.votable import tree

    form, length = FORMS.get(column.kind, ("float", ""))[0], None
    if column.name in widths:
        form = "char" if column.ascii else "unicodeChar"
        length = str(widths[column.name])
    elif column.kind == "vector":
        length = str(column.length)
    name = column.name
    known = column.meaning != OF_THE_LIST
    field = tree.Field(
        file,
        # Names of the list may be no XML ids.
        ID=name if known else f"list_{number}",
        name=name if name.isprintable() else escaped_ascii(name),
        datatype=form,
        arraysize=length,
        unit=column.unit or None,
        ucd=column.ucd or None,
        ref="icrs" if name in ON_THE_SKY else None,
    )
    field.description = column.meaning
    return field


def _records(block: Block, table: Table, layout: np.dtype[Any]) -> NDArray[np.void]:
    """The rows `(N,)` as they are in the file, before base64."""
    records = np.zeros(len(block), layout)
    empty = np.zeros((len(block), len(table.columns)), bool)
    for k, column in enumerate(table.columns):
        values, empty[:, k] = _column(block, column, layout[str(k)].itemsize)
        records[str(k)] = values
    records["empty"] = np.packbits(empty, axis=1)
    return records


def _column(
    block: Block, column: Column, size: int
) -> tuple[NDArray[np.generic], NDArray[np.bool_] | bool]:
    """A column, and which of its cells are empty."""
    if column.kind in ("short", "single", "vector"):
        return block.values(column), False
    cells = block.cells(column.name)
    if column.kind == "number":
        found = numbers(cells)
        return found, np.isnan(found)
    if column.kind == "integer":
        return integers(cells)
    texts = [_text(cell, column, size) for cell in cells]
    return np.array(texts, f"S{size}"), np.array([not cell for cell in cells], bool)


def _text(cell: str, column: Column, size: int) -> bytes:
    if column.kind == "ids":
        return cut_ids(cell, size).encode("ascii")
    if column.ascii:
        return cut(cell.replace("\0", " "), size).encode("ascii")
    found = utf16(cell)
    # Signs beyond the first 65,536 take the place of two.
    return found if len(found) <= size else utf16(cut(cell, size // 4))


def _base64(parts: Iterable[bytes]) -> Iterator[str]:
    """Lines of base64 of the bytes of all parts, one after the other."""
    left = b""
    for part in parts:
        data = left + part
        whole = len(data) - len(data) % PIECE
        for start in range(0, whole, PIECE):
            yield base64.b64encode(data[start : start + PIECE]).decode("ascii")
        left = data[whole:]
    if left:
        yield base64.b64encode(left).decode("ascii")
