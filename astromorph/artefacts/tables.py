"""The tables of a run as pandas DataFrames: reading, writing, and the one join.

Steps exchange CSV, in which all cells are text; inside a process texts are Arrow's, so
that a million rows fit into memory. Every file is written under a temporary name in its
own folder and then renamed: a file that exists is complete.

`embedded_table` joins catalogue and split, `run_table` adds the analysis, and
`embedding_blocks` the embeddings, some ten thousand rows at a time. The index of these
tables is the row number in the catalogue, so that any table with a row for each listed
file joins by ``split.loc[table.index]``.
"""

import contextlib
import csv
import io
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from astromorph.artefacts.analysis_table import read_analysis_columns
from astromorph.artefacts.columns import (
    CATALOGUE_COLUMNS,
    CONTENTS_COLUMNS,
    EXPORT_COLUMNS,
    GALLERY_COLUMNS,
    HISTORY_COLUMNS,
    NONE,
    REJECTED,
    ROWS_AT_A_TIME,
    SPLIT_COLUMNS,
    STATISTICS,
    TEST,
    TRAIN,
    Status,
    arrow_array,
    listed_names,
)
from astromorph.artefacts.embeddings import read_embeddings, read_image_ids
from astromorph.artefacts.run_files import RunFiles, step_that_writes
from astromorph.atomic import atomic_write
from astromorph.errors import AstromorphError

if TYPE_CHECKING:  # steps that train import this module on machines without pandas
    from pandas import DataFrame, Series

# The names of columns are at home in `columns`.
__all__ = [
    "CATALOGUE_COLUMNS", "CONTENTS_COLUMNS", "EXPORT_COLUMNS", "FORMULA_STARTS",
    "GALLERY_COLUMNS", "HISTORY_COLUMNS", "NONE", "REJECTED", "SPLIT_COLUMNS",
    "STATISTICS", "TEST", "TRAIN", "Status", "csv_columns", "csv_line", "csv_lines",
    "embedded_table", "embedding_blocks", "find_in_catalogue", "list_columns",
    "listed_columns", "read_csv", "read_table", "run_table", "spreadsheet_safe",
    "undo_spreadsheet_safe", "vector_lines", "write_csv", "write_table",
]  # fmt: skip

LOG = logging.getLogger(__name__)
FORMULA_STARTS = "'=+-@\t\r"  # the apostrophe, which protects the others, is first
BYTES_AT_A_TIME = 2**20  # of a CSV that is read row by row
MAX_ROW_BYTES = 2**23  # of a CSV that is read as a whole
VECTORS_AT_A_TIME = 2048  # that are text at one time


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
        N rows of texts; empty cells are empty strings. The index counts from 0.

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


def listed_columns(files: RunFiles) -> dict[str, str]:
    """Names of the user's columns in the catalogue, and in all exported tables."""
    return listed_names(list_columns(files.catalogue))


def write_table(path: str | Path, table: "DataFrame", separator: str = ",") -> None:
    """Write a table as UTF-8 CSV, without its index.

    Parameters
    ----------
    path : path
        The file to write.
    table : DataFrame
        Missing values become empty cells; floats are written to be read back exactly;
        texts are made safe for spreadsheets; lists are joined by spaces.
    separator : str
        Between cells.
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
    """The rows of a table as lines of a CSV, without their ends; see `write_table`."""
    import pyarrow as pa
    import pyarrow.compute as pc

    cells = [_csv_cells(table[name], separator) for name in table]
    between = pa.scalar(separator, pa.large_string())
    lines: list[str] = pc.binary_join_element_wise(*cells, between).to_pylist()
    # A line without anything would be no row.
    return lines if len(cells) > 1 else [line or '""' for line in lines]


def write_csv(
    path: str | Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]
) -> None:
    """Write rows as UTF-8 CSV while they are made.

    Parameters
    ----------
    path : path
        The file to write.
    columns : sequence of str
        Names and order; a row without one of them gets an empty cell.
    rows : iterable of mapping
        None becomes an empty cell; floats are written to be read back exactly; texts
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
    """One row of a CSV file, with the end of its line; cells as for `write_csv`."""
    text = io.StringIO()
    # With another end of line Python would not quote a cell that contains a return, at
    # which readers, its own too, end a line.
    writer = csv.writer(text, delimiter=separator, lineterminator="\r\n")
    writer.writerow(
        [spreadsheet_safe(cell) if isinstance(cell, str) else cell for cell in cells]
    )
    return text.getvalue()[:-2] + "\n"


def vector_lines(vectors: NDArray[np.float32], separator: str) -> Iterator[str]:
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

    for start in range(0, len(vectors), VECTORS_AT_A_TIME):
        part = vectors[start : start + VECTORS_AT_A_TIME]
        texts = pa.array(part.ravel()).cast(pa.string())
        ends = np.arange(0, part.size + 1, part.shape[1], dtype=np.int32)
        rows = pa.ListArray.from_arrays(pa.array(ends), texts)
        yield from pc.binary_join(rows, separator).to_pylist()


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
    """The text that `spreadsheet_safe` was given."""
    if text[:1] == "'":
        rest = text.lstrip("'")
        return text[1:] if rest and rest[0] in FORMULA_STARTS[1:] else text
    return text


def embedded_table(
    files: RunFiles, columns: Sequence[str] | None = None
) -> "DataFrame":
    """Join catalogue and split, for the images that have an embedding.

    Images that the split does not use, such as duplicates, are left out.

    Parameters
    ----------
    files : RunFiles
        Catalogue, split and embeddings are read.
    columns : sequence of str, optional
        Columns of the result beside `image_id`; by default all.

    Returns
    -------
    DataFrame
        A row for each image, in the order of the list; the index is the row number in
        the catalogue. Columns of the catalogue as text, those of the user's list under
        the names of `columns.listed_names`, and `subset`.

    Raises
    ------
    AstromorphError
        A file is missing, or the files do not belong together.
    """
    names = {name: name for name in CATALOGUE_COLUMNS}
    names |= listed_columns(files)
    wanted = [
        name
        for name, new in names.items()
        if columns is None or new in columns or name == "image_id"
    ]
    catalogue = read_table(files.catalogue, wanted)
    split = read_table(files.split, ["image_id", "subset"])
    if not _equal(catalogue["image_id"], split["image_id"]):
        raise AstromorphError(
            f"{files.split}: its rows are not those of {files.catalogue}; "
            "run preprocess and split again"
        )
    if columns is None or "subset" in columns:
        catalogue["subset"] = split["subset"]
    rows = _embedded_rows(files, catalogue["image_id"])
    rows = rows[(split["subset"] != NONE).to_numpy()[rows]]
    if len(rows) < len(catalogue):
        catalogue = catalogue.iloc[rows]
    return catalogue.rename(columns=names)


def run_table(files: RunFiles, columns: Sequence[str] | None = None) -> "DataFrame":
    """Join catalogue, split and analysis, for the images that were analysed.

    Parameters
    ----------
    files : RunFiles
        Catalogue, split, embeddings and analysis are read.
    columns : sequence of str, optional
        Columns of the result beside `image_id`; by default all.

    Returns
    -------
    DataFrame
        As `embedded_table` has it, with `columns.ANALYSIS_COLUMNS`: numbers are int32
        and float32, ids and distances are Arrow's lists.

    Raises
    ------
    AstromorphError
        A file is missing, or the files do not belong together.
    """
    import pandas as pd

    for name, new in listed_columns(files).items():
        if new != name and (columns is None or new in columns):
            LOG.info("the list's column `%s` is `%s` here: its name is used", name, new)
    facts = embedded_table(files, columns)
    analysis = read_analysis_columns(files.analysis, columns)
    if not _equal(facts["image_id"], analysis["image_id"]):
        raise AstromorphError(
            f"{files.analysis}: its images are not those of the embeddings; "
            "run `analyse` again"
        )
    analysis.index = facts.index
    return pd.concat([facts, analysis.drop(columns="image_id")], axis=1)


def find_in_catalogue(
    files: RunFiles, image_ids: Sequence[str], columns: Sequence[str]
) -> "DataFrame":
    """Look up analysed images in the catalogue.

    Parameters
    ----------
    files : RunFiles
        The catalogue is read.
    image_ids : sequence of str
        N ids, in any order.
    columns : sequence of str
        Columns to read beside `image_id`, by their names in the catalogue.

    Returns
    -------
    DataFrame
        N rows of texts, in the order of the ids; the index is the row number in the
        catalogue.

    Raises
    ------
    AstromorphError
        The catalogue is missing or damaged, or an image is not in it.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    table = read_table(files.catalogue, ["image_id", *columns])
    ids = pa.array(image_ids, pa.large_string())
    found = pc.index_in(ids, value_set=arrow_array(table["image_id"]))
    if found.null_count:
        missing = ids.filter(pc.is_null(found))[0]
        raise AstromorphError(
            f"{files.catalogue}: the image {missing} of {files.analysis} is not in it; "
            "run validate and what follows again"
        )
    return table.iloc[found.to_numpy()]


def embedding_blocks(
    files: RunFiles, table: "DataFrame"
) -> Iterator[tuple["DataFrame", NDArray[np.float32]]]:
    """Join the embeddings to a table, some ten thousand rows at a time.

    Parameters
    ----------
    files : RunFiles
        Embeddings are read, shard by shard.
    table : DataFrame
        From `embedded_table` or `run_table`, or the same rows in the same order.

    Yields
    ------
    rows : DataFrame
        The next `ROWS_AT_A_TIME` rows of the table; at the end fewer.
    vectors : ndarray, shape (n, D), float32
        Their embeddings.

    Raises
    ------
    AstromorphError
        The embeddings are not those of the table.
    """
    begin = waiting = 0
    parts: list[NDArray[np.float32]] = []
    for vectors in _shard_vectors(files, table):
        parts.append(vectors)
        waiting += len(vectors)
        while waiting >= ROWS_AT_A_TIME:
            joined = np.concatenate(parts)
            parts = [joined[ROWS_AT_A_TIME:].copy()]
            waiting -= ROWS_AT_A_TIME
            vectors = joined[:ROWS_AT_A_TIME]
            del joined
            yield table.iloc[begin : begin + ROWS_AT_A_TIME], vectors
            begin += ROWS_AT_A_TIME
    if waiting:
        yield table.iloc[begin:], np.concatenate(parts)


def _shard_vectors(
    files: RunFiles, table: "DataFrame"
) -> Iterator[NDArray[np.float32]]:
    """The embeddings of the table's rows, shard by shard."""
    import pyarrow as pa
    import pyarrow.compute as pc

    done = 0
    for path in files.all_embeddings:
        shard = read_embeddings(path)
        ids = pa.array(shard.image_ids, pa.large_string())
        rows = table["image_id"].iloc[done : done + len(ids)]
        expected = arrow_array(rows)
        used = pc.is_in(ids, value_set=expected)
        number = pc.sum(used).as_py() or 0
        if not ids.filter(used).equals(expected[:number]):
            raise _foreign_embeddings(files, path)
        done += number
        yield shard.vectors[used.to_numpy(zero_copy_only=False)]
    if done < len(table):
        raise _foreign_embeddings(files, files.all_embeddings[-1])


def _foreign_embeddings(files: RunFiles, path: Path) -> AstromorphError:
    return AstromorphError(
        f"{path}: its images are not those of {files.catalogue} and {files.split}; "
        "run preprocess, split and infer again"
    )


def _embedded_rows(files: RunFiles, image_ids: "Series") -> NDArray[np.int64]:
    """The row number in the catalogue of each embedding, which must increase."""
    import pyarrow as pa
    import pyarrow.compute as pc

    shards = [read_image_ids(path) for path in files.all_embeddings]
    known = arrow_array(image_ids)
    embedded = pa.chunked_array(shards, pa.string()).cast(pa.large_string())
    found = pc.index_in(embedded, value_set=known).fill_null(-1)
    rows: NDArray[np.int64] = found.to_numpy().astype(np.int64)
    wrong = np.flatnonzero(np.diff(rows, prepend=-1) <= 0)
    if wrong.size:
        ends = np.cumsum([len(shard) for shard in shards])
        path = files.all_embeddings[int(np.searchsorted(ends, wrong[0], side="right"))]
        raise AstromorphError(
            f"{path}: {embedded[int(wrong[0])]} is not in {files.catalogue} and "
            f"{files.split}, or not in this order; run preprocess, split and infer "
            "again"
        )
    return rows


def _equal(one: "Series", other: "Series") -> bool:
    return len(one) == len(other) and bool((one.array == other.array).all())


@contextlib.contextmanager
def _explaining(path: str | Path) -> Iterator[None]:
    """Errors of reading say which step to run again."""
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
    """Names of the columns to read, and how Arrow reads them: as text."""
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
    """Cells as they were before `spreadsheet_safe`."""
    import pyarrow.compute as pc

    if not pc.any(pc.starts_with(texts, "'")).as_py():
        return texts
    return pc.replace_substring_regex(texts, r"^'('*[=+\-@\t\r])", r"\1")


def _csv_cells(values: "Series", separator: str) -> Any:
    """A column as it is written, quoted where it must be."""
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
