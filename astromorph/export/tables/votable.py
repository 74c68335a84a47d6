"""The export `votable`: the table in the format of the Virtual Observatory.

astropy writes the header, VOTable 1.4. The rows are BINARY2: fixed-width rows in
base64, each of which begins with one bit per column, 1 if the cell is empty (VOTable
standard, section 5.4). They are written in blocks, so that only some ten thousand of
them are in memory.
"""

import base64
import io
import itertools
import logging
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from astromorph.artefacts.column_types import (
    Column,
    encode_utf16,
    escape_to_ascii,
    is_listed,
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
from astromorph.provenance import versions

if TYPE_CHECKING:  # pandas takes long to import; functions import it themselves
    from pandas import DataFrame

LOG = logging.getLogger(__name__)
LINE = 57 * 1000  # bytes that become a line of base64; a multiple of 3
FORMATS = {
    "int64": ("long", ">i8"),
    "float64": ("double", ">f8"),
    "int32": ("int", ">i4"),
    "float32": ("float", ">f4"),
}
COORDINATES = "icrs"  # id of the coordinate system
XML_ID = re.compile(r"[A-Za-z_][\w.-]*", re.ASCII)
SKY_POSITION = ("ra_deg", "dec_deg")
STREAM_START = "<DATA><BINARY2><STREAM encoding='base64'>\n"
STREAM_END = "</STREAM></BINARY2></DATA>\n"


def export_votable(files: RunFiles, settings_json: str) -> None:
    """Write the table of facts, analysis and embeddings as VOTable.

    There is a row for each analysed image. The embedding is one column of D numbers;
    lists of ids are texts, separated by spaces; texts are cut at 4096 characters.

    Parameters
    ----------
    files : RunFiles
        Catalogue, split, embeddings and analysis are read, ``table("vot")`` is written.
    settings_json : str
        The settings as canonical JSON; written into the file.

    Raises
    ------
    AstromorphError
        A file is missing, or the files do not match.
    """
    write_votable(files.table("vot"), files, run_table(files), settings_json)


def write_votable(
    output: Path, files: RunFiles, table: "DataFrame", settings_json: str
) -> None:
    """Write some rows of a run with their embeddings as VOTable.

    Parameters
    ----------
    output : path
        The file to write.
    files : RunFiles
        Embeddings are read.
    table : DataFrame
        The result of `run_table`, or some of its rows in the same order; at least one.
    settings_json : str
        The settings as canonical JSON; written into the file.
    """
    length = embedding_length(files.all_embeddings)
    columns, table = typed_columns(table, length)
    widths = text_widths(output, columns, escaped=False)
    layout = _layout(columns, widths)
    before, after = _frame(columns, widths, len(table), settings_json, files.identity)
    with (
        atomic_write(output) as temporary,
        open(temporary, "w", encoding="utf-8", newline="\n") as file,
    ):
        file.write(before + STREAM_START)
        records = (
            _records(columns, rows, vectors, layout).tobytes()
            for rows, vectors in embedding_blocks(files, table)
        )
        for line in _base64(records):
            file.write(line + "\n")
        file.write(STREAM_END + after)
    LOG.info("%s: %d rows of %d columns", output, len(table), len(columns))


def _layout(columns: Sequence[Column], widths: Mapping[str, int]) -> np.dtype[Any]:
    """The memory layout of a row, the same as in the file."""
    fields: list[Any] = [("empty", "u1", (-(-len(columns) // 8),))]
    for k, column in enumerate(columns):
        if column.name in widths:
            size = 1 if column.ascii else 2
            fields.append((str(k), f"S{size * widths[column.name]}"))
        elif column.kind == "vector":
            fields.append((str(k), ">f4", (column.length,)))
        else:
            fields.append((str(k), FORMATS[column.kind][1]))
    return np.dtype(fields)


def _frame(
    columns: Sequence[Column],
    widths: Mapping[str, int],
    rows: int,
    settings_json: str,
    identity: Identity | None,
) -> tuple[str, str]:
    """The parts of the file before and after its rows."""
    from astropy.io.votable import tree

    file = tree.VOTableFile(version="1.4")
    resource = tree.Resource(type="results")
    file.resources.append(resource)
    creator = f"astromorph {versions()['astromorph']}"
    notes = {"creator": creator, "settings": settings_json}
    for name, text in (notes | (identity.to_dict() if identity else {})).items():
        resource.infos.append(tree.Info(name=name, value=text))
    resource.coordinate_systems.append(tree.CooSys(ID=COORDINATES, system="ICRS"))
    element = tree.TableElement(file, name="embeddings", nrows=rows)
    element.description = "Facts, analysis and embedding of each image"
    resource.tables.append(element)
    ids = _xml_ids(columns)
    for column in columns:
        element.fields.append(_field(file, column, widths, ids[column.name]))
    buffer = io.BytesIO()
    file.to_xml(buffer, tabledata_format="binary2")
    before, end, after = buffer.getvalue().decode("utf-8").partition("</TABLE>")
    return before.rstrip(" "), f"  {end}{after}"


def _xml_ids(columns: Sequence[Column]) -> dict[str, str]:
    """The XML id of each column, which astropy uses as its name.

    It is the name of the column, with an underscore for each character that an id
    cannot have, and a number at its end if it would be that of another column.
    """
    ids = {column.name: column.name for column in columns if not is_listed(column)}
    used = {COORDINATES, *ids.values()}
    listed = [column.name for column in columns if is_listed(column)]
    # A name that needs no change is not taken by another one.
    for name in sorted(listed, key=lambda name: XML_ID.fullmatch(name) is None):
        plain = re.sub(r"[^\w.-]", "_", name, flags=re.ASCII)
        plain = plain if XML_ID.fullmatch(plain) else f"_{plain}"
        ids[name] = next(
            new
            for number in itertools.count(1)
            if (new := f"{plain}_{number}" if number > 1 else plain) not in used
        )
        used.add(ids[name])
    return ids


def _field(file: Any, column: Column, widths: Mapping[str, int], xml_id: str) -> Any:
    """The VOTable field of a column."""
    from astropy.io.votable import tree

    form, length = FORMATS.get(column.kind, ("float", ""))[0], None
    if column.name in widths:
        form = "char" if column.ascii else "unicodeChar"
        length = str(widths[column.name])
    elif column.kind == "vector":
        length = str(column.length)
    name = column.name
    field = tree.Field(
        file,
        ID=xml_id,
        name=name if name.isprintable() else escape_to_ascii(name),
        datatype=form,
        arraysize=length,
        unit=column.unit or None,
        ucd=column.ucd or None,
        ref=COORDINATES if name in SKY_POSITION else None,
    )
    field.description = column.meaning
    return field


def _records(
    columns: Sequence[Column],
    rows: Any,
    vectors: NDArray[np.float32],
    layout: np.dtype[Any],
) -> NDArray[np.void]:
    """The rows `(N,)` as they are in the file, before base64."""
    records = np.zeros(len(rows), layout)
    empty = np.zeros((len(rows), len(columns)), bool)
    for k, column in enumerate(columns[:-1]):
        values, empty[:, k] = _values(
            rows[column.name], column, layout[str(k)].itemsize
        )
        records[str(k)] = values
    records[str(len(columns) - 1)] = vectors
    records["empty"] = np.packbits(empty, axis=1)
    return records


def _values(
    cells: Any, column: Column, size: int
) -> tuple[NDArray[np.generic], NDArray[np.bool_] | bool]:
    """A column as the file stores it, and which of its cells are empty."""
    if column.kind == "vector":
        return padded_lists(cells, column.length), False
    if column.kind == "int64":
        return cells.to_numpy(np.int64, na_value=0), cells.isna().to_numpy()
    if column.kind == "float64":
        return cells.to_numpy(), cells.isna().to_numpy()
    if column.kind not in ("text", "ids"):
        return cells.to_numpy(), False
    texts = to_texts(cells)
    empty = np.array([not text for text in texts], bool)
    encoded = [_encode(text, column, size) for text in texts]
    return np.array(encoded, f"S{size}"), empty


def _encode(text: str, column: Column, size: int) -> bytes:
    """A text, cut to `size` bytes."""
    if column.kind == "ids":
        return shorten_ids(text, size).encode("ascii")
    if column.ascii:
        return shorten(text.replace("\0", " "), size).encode("ascii")
    encoded = encode_utf16(text)
    # Characters above U+FFFF take the space of two.
    return encoded if len(encoded) <= size else encode_utf16(shorten(text, size // 4))


def _base64(parts: Iterable[bytes]) -> Iterator[str]:
    """The concatenated bytes of all parts as lines of base64."""
    left = b""
    for part in parts:
        data = left + part
        element = len(data) - len(data) % LINE
        for start in range(0, element, LINE):
            yield base64.b64encode(data[start : start + LINE]).decode("ascii")
        left = data[element:]
    if left:
        yield base64.b64encode(left).decode("ascii")
