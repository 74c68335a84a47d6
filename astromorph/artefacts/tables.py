"""The tables between steps: CSV files, read and written as pandas DataFrames.

All cells are text, stored by Arrow, so that a million rows fit into memory. Every file
is written under a temporary name in its own folder and then renamed: a file that exists
is complete. `run_table` joins the tables of a run.
"""

import contextlib
import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from astromorph.artefacts.columns import CATALOGUE_COLUMNS, ROWS_AT_A_TIME
from astromorph.artefacts.run_files import step_that_writes
from astromorph.atomic import atomic_write
from astromorph.errors import AstromorphError
from astromorph.system.logs import escape_undecodable

if TYPE_CHECKING:  # pandas takes long to import; functions import it themselves
    from pandas import DataFrame, Series

FORMULA_STARTS = "'=+-@\t\r"  # the apostrophe, which protects the others, is first
BYTES_AT_A_TIME = 2**20  # block size of a CSV that is read row by row
MAX_ROW_BYTES = 2**23  # maximum row of a CSV that is read as a whole


def read_table(path: str | Path, columns: Sequence[str] | None = None) -> "DataFrame":
    """Read a CSV that an earlier step wrote.

    Parameters
    ----------
    path : path
        The file.
    columns : sequence of str, optional
        The columns to read, which the file must have; by default all.

    Returns
    -------
    DataFrame
        N rows of text; empty cells are empty strings. The index counts from 0.

    Raises
    ------
    AstromorphError
        The file is missing or damaged, or lacks a column.
    """
    import pyarrow as pa
    import pyarrow.csv as arrow_csv

    with _explaining(path):
        names, options = _options(path, columns, MAX_ROW_BYTES)
        table = arrow_csv.read_csv(path, **options)
    return pa.table([_restored(column) for column in table.columns], names).to_pandas()


def read_csv(path: str | Path, columns: Sequence[str] = ()) -> Iterator[dict[str, str]]:
    """Read a CSV that an earlier step wrote, row by row, in little memory.

    Parameters
    ----------
    path : path
        The file.
    columns : sequence of str
        Columns that it must have.

    Yields
    ------
    dict of str to str
        A row; empty cells are empty strings.

    Raises
    ------
    AstromorphError
        The file is missing or damaged, or lacks a column.
    """
    import pyarrow as pa
    import pyarrow.csv as arrow_csv

    with _explaining(path):
        names, options = _options(path, None, BYTES_AT_A_TIME)
        _require(path, columns, names)
        with arrow_csv.open_csv(path, **options) as batches:
            for batch in batches:
                restored = [_restored(column) for column in batch.columns]
                yield from pa.table(restored, names).to_pylist()


def csv_columns(path: str | Path) -> list[str]:
    """The header of a CSV file."""
    with _explaining(path), open(path, newline="", encoding="utf-8") as file:
        return [undo_spreadsheet_safe(name) for name in next(csv.reader(file), [])]


def list_columns(catalogue: str | Path) -> list[str]:
    """The columns of a catalogue that came from the user's file list."""
    return [c for c in csv_columns(catalogue) if c not in CATALOGUE_COLUMNS]


def write_table(path: str | Path, table: "DataFrame", separator: str = ",") -> None:
    """Write a table as UTF-8 CSV, without its index.

    Parameters
    ----------
    path : path
        The file to write.
    table : DataFrame
        Missing values become empty cells; floats can be read back exactly;
        texts are made safe for spreadsheets; lists are joined by spaces.
    separator : str
        Separator of the cells.
    """
    with (
        atomic_write(path) as temporary,
        open(temporary, "w", newline="", encoding="utf-8") as file,
    ):
        file.write(csv_line(map(str, table.columns), separator))
        for start in range(0, len(table), ROWS_AT_A_TIME):
            rows = table.iloc[start : start + ROWS_AT_A_TIME]
            file.writelines(f"{line}\n" for line in csv_lines(rows, separator))


def csv_lines(table: "DataFrame", separator: str = ",") -> list[str]:
    """The rows of a table as CSV lines without line endings; see `write_table`."""
    import pyarrow as pa
    import pyarrow.compute as pc

    cells = [_csv_cells(table[name], separator) for name in table]
    between = pa.scalar(separator, pa.large_string())
    lines: list[str] = pc.binary_join_element_wise(*cells, between).to_pylist()
    # An empty line would not be read as a row.
    return lines if len(cells) > 1 else [line or '""' for line in lines]


def write_csv(
    path: str | Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]
) -> None:
    """Write rows as UTF-8 CSV while they are generated.

    Parameters
    ----------
    path : path
        The file to write.
    columns : sequence of str
        Names and order; a row without one of them gets an empty cell.
    rows : iterable of mapping
        None becomes an empty cell; floats can be read back exactly; texts
        are made safe for spreadsheets.

    Raises
    ------
    ValueError
        A row has a column that is not among `columns`.
    """
    known = set(columns)
    with (
        atomic_write(path) as temporary,
        open(temporary, "w", newline="", encoding="utf-8") as file,
    ):
        file.write(csv_line(columns))
        for row in rows:
            if not known.issuperset(row):
                raise ValueError(f"{path}: no column for {sorted(set(row) - known)}")
            file.write(csv_line(row.get(name, "") for name in columns))


def csv_line(cells: Iterable[Any], separator: str = ",") -> str:
    r"""One row of a CSV file with its line ending; cells as for `write_csv`.

    Bytes of file names that are not UTF-8 are written as ``\xe9``.
    """
    text = io.StringIO()
    # With another line terminator, Python would not quote a cell that contains a
    # carriage return, which readers, including its own, treat as the end of a line.
    writer = csv.writer(text, delimiter=separator, lineterminator="\r\n")
    writer.writerow(
        [spreadsheet_safe(cell) if isinstance(cell, str) else cell for cell in cells]
    )
    return escape_undecodable(text.getvalue()[:-2]) + "\n"


def spreadsheet_safe(text: str) -> str:
    """Put an apostrophe before text that a spreadsheet would run as a formula.

    Numbers are left alone (OWASP, "CSV Injection").
    """
    if text[:1] not in FORMULA_STARTS or not text:
        return text
    if text[0] == "'":
        formula = text.lstrip("'")[:1] in FORMULA_STARTS[1:]
        return f"'{text}" if formula and text.strip("'") else text
    try:
        float(text)
    except ValueError:
        return f"'{text}"
    return text


def undo_spreadsheet_safe(text: str) -> str:
    """Undo `spreadsheet_safe`."""
    if text[:1] == "'":
        rest = text.lstrip("'")
        return text[1:] if rest and rest[0] in FORMULA_STARTS[1:] else text
    return text


@contextlib.contextmanager
def _explaining(path: str | Path) -> Iterator[None]:
    """Name the step to run again in errors of reading."""
    import pyarrow as pa

    step = step_that_writes(path)
    try:
        yield
    except FileNotFoundError:
        raise AstromorphError(f"{path}: no such file; run {step} first") from None
    except (pa.ArrowInvalid, UnicodeDecodeError, csv.Error) as error:
        raise AstromorphError(
            f"{path}: this is not a readable table ({error}); remove it and run {step} "
            "again"
        ) from None


def _require(path: str | Path, columns: Iterable[str], names: Sequence[str]) -> None:
    missing = [name for name in columns if name not in names]
    if missing:
        raise AstromorphError(
            f"{path}: the column `{missing[0]}` is missing; remove the file and run "
            f"{step_that_writes(path)} again"
        )


def _options(
    path: str | Path, columns: Sequence[str] | None, block: int
) -> tuple[list[str], dict[str, Any]]:
    """Names of the columns to read, and options that make Arrow read them as text."""
    import pyarrow as pa
    import pyarrow.csv as arrow_csv

    with open(path, newline="", encoding="utf-8") as file:
        header = {undo_spreadsheet_safe(n): n for n in next(csv.reader(file), [])}
    names = list(header if columns is None else columns)
    _require(path, names or CATALOGUE_COLUMNS[:1], list(header))
    stored = [header[name] for name in names]
    return names, {
        "read_options": arrow_csv.ReadOptions(block_size=block),
        "parse_options": arrow_csv.ParseOptions(newlines_in_values=True),
        "convert_options": arrow_csv.ConvertOptions(
            include_columns=stored,
            column_types=dict.fromkeys(stored, pa.large_string()),
        ),
    }


def _restored(texts: Any) -> Any:
    """Undo `spreadsheet_safe` in all cells."""
    import pyarrow.compute as pc

    if not pc.any(pc.starts_with(texts, "'")).as_py():
        return texts
    return pc.replace_substring_regex(texts, r"^'('*[=+\-@\t\r])", r"\1")


def _csv_cells(values: "Series", separator: str) -> Any:
    """The cells of a column as CSV text, quoted if necessary."""
    import pandas as pd
    import pyarrow as pa
    import pyarrow.compute as pc

    if pd.api.types.is_numeric_dtype(values.dtype):
        numbers = zip(values.isna(), values.to_numpy(object), strict=True)
        if values.dtype == np.float32:
            numbers = zip(values.isna(), values.to_numpy(), strict=True)
        return pa.array(
            ["" if missing else str(number) for missing, number in numbers],
            pa.large_string(),
        )
    if isinstance(values.dtype, pd.ArrowDtype):
        return pc.binary_join(arrow_array(values), " ").cast(pa.large_string())
    texts = arrow_array(values.astype("str").fillna(""))
    risky = pc.match_substring_regex(texts, r"^['=+\-@\t\r]")
    if pc.any(risky).as_py():
        safe = [spreadsheet_safe(text) for text in texts.filter(risky).to_pylist()]
        texts = pc.replace_with_mask(texts, risky, pa.array(safe, texts.type))
    special = pc.match_substring_regex(texts, f'[{separator}"\r\n]')
    if pc.any(special).as_py():
        doubled = pc.replace_substring(texts, '"', '""')
        mark, nothing = pa.scalar('"', texts.type), pa.scalar("", texts.type)
        quoted = pc.binary_join_element_wise(mark, doubled, mark, nothing)
        texts = pc.if_else(special, quoted, texts)
    return texts


def arrow_array(cells: "Series") -> Any:
    """Cells of a column as one Arrow array; a column can consist of several chunks."""
    import pyarrow as pa

    array = pa.array(cells, from_pandas=True)
    return array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array
