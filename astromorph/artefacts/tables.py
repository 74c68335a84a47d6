"""What the files between the steps hold: columns, readers, writers.

Every file is written under a temporary name in its own folder and then renamed,
so that a file that is there is complete.
"""

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from astromorph.artefacts.embeddings import read_embeddings
from astromorph.atomic import atomic_write
from astromorph.errors import AstromorphError

Status = Literal["ok", "warning", "rejected"]
REJECTED: Status = "rejected"

# The catalogue: a row per listed file. Further columns of the list follow.
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
# What a shard really holds: a row per row of the catalogue.
STATISTICS = (
    "background",
    "noise",
    "minimum",
    "maximum",
    "valid_fraction",
    "stretched_background",
    "stretched_noise",
)
CONTENTS_COLUMNS = (
    "image_id", "path", "status", "reason", "position", "height", "width", "content",
    "object", "ra_deg", "dec_deg", "band", "reach_arcsec", "field_arcsec", *STATISTICS,
)  # fmt: skip
# What became of each listed file.
SPLIT_COLUMNS = (
    "image_id", "path", "status", "reason", "subset", "group", "shard", "position",
)  # fmt: skip
TRAIN, TEST, NONE = "train", "test", "none"
HISTORY_COLUMNS = (
    "epoch", "train_loss", "test_loss", "auxiliary_loss", "learning_rate",
    "moving_average_decay", "effective_rank", "spread",
)  # fmt: skip
# The facts that stand before the embedding in the CSV export.
EXPORT_COLUMNS = (
    "image_id", "path", "object", "ra_deg", "dec_deg", "rest_frequency_hz",
)  # fmt: skip
# Which image stands where on the contact sheets.
GALLERY_COLUMNS = ("sheet", "row", "column", "image_id", "object", "path", "note")
FORMULA_STARTS = "'=+-@\t\r"  # the apostrophe, which protects the others, is first


def write_csv(
    path: str | Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]
) -> None:
    """Write rows as UTF-8 CSV, one at a time.

    Parameters
    ----------
    path : path
        The file to write.
    columns : sequence of str
        Names and order; a row without one of them gets an empty cell.
    rows : iterable of mapping
        None becomes an empty cell; floats are written to be read back exactly;
        texts are made safe for spreadsheets, as `spreadsheet_safe` says.

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


def csv_line(cells: Iterable[Any]) -> str:
    """One row of a CSV file, with the end of its line.

    Parameters
    ----------
    cells : iterable
        As for `write_csv`.
    """
    text = io.StringIO()
    # With another end of line Python would not quote a cell that holds a return, at
    # which readers, its own too, end a line.
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(
        [spreadsheet_safe(cell) if isinstance(cell, str) else cell for cell in cells]
    )
    return text.getvalue()[:-2] + "\n"


def spreadsheet_safe(text: str) -> str:
    """Text that no spreadsheet takes for a formula: an apostrophe goes before it.

    Numbers stay as they are (OWASP, "CSV Injection").
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
    """What `spreadsheet_safe` was given."""
    if text[:1] == "'":
        rest = text.lstrip("'")
        return text[1:] if rest and rest[0] in FORMULA_STARTS[1:] else text
    return text


def read_csv(path: str | Path, columns: Sequence[str] = ()) -> Iterator[dict[str, str]]:
    """Read the rows of a CSV that an earlier step wrote, one at a time.

    Parameters
    ----------
    path : path
        The file to read.
    columns : sequence of str
        Columns that it must have.

    Yields
    ------
    dict of str to str
        A row; empty cells are empty strings.

    Raises
    ------
    AstromorphError
        The file is missing or lacks a column.
    """
    try:
        with open(path, newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            reader.fieldnames = [
                undo_spreadsheet_safe(name) for name in reader.fieldnames or ()
            ]
            missing = [c for c in columns if c not in (reader.fieldnames or ())]
            if missing:
                raise AstromorphError(
                    f"{path}: the column `{missing[0]}` is missing; "
                    "remove the file and run the step that writes it again"
                )
            for row in reader:
                yield {name: undo_spreadsheet_safe(cell) for name, cell in row.items()}
    except FileNotFoundError:
        raise AstromorphError(
            f"{path}: no such file; run the step that writes it first"
        ) from None


def csv_columns(path: str | Path) -> list[str]:
    """The header of a CSV file."""
    with open(path, newline="", encoding="utf-8") as file:
        return [undo_spreadsheet_safe(name) for name in next(csv.reader(file), [])]


def list_columns(catalogue: str | Path) -> list[str]:
    """The columns that came from the user's file list."""
    return [c for c in csv_columns(catalogue) if c not in CATALOGUE_COLUMNS]


def rows_with_embeddings(
    catalogue: str | Path, split: str | Path, embeddings: Sequence[str | Path]
) -> Iterator[tuple[dict[str, str], NDArray[np.float32]]]:
    """Catalogue rows that have an embedding, each with its own, shard by shard.

    What the split left out, such as duplicates, is passed over.

    Parameters
    ----------
    catalogue, split : path
        What `validate` and `split` wrote.
    embeddings : sequence of path
        All shards, in the order of the list.

    Yields
    ------
    row : dict of str to str
        Of the catalogue.
    vector : ndarray, shape (D,), float32

    Raises
    ------
    AstromorphError
        An embedding belongs to no later row of the two tables.
    """
    rows = zip(
        read_csv(catalogue, CATALOGUE_COLUMNS),
        read_csv(split, SPLIT_COLUMNS),
        strict=False,
    )
    for path in embeddings:
        shard = read_embeddings(path)
        for image_id, vector in zip(shard.image_ids, shard.vectors, strict=True):
            row, fate = next(
                ((r, s) for r, s in rows if r["image_id"] == image_id), (None, None)
            )
            if row is None or fate is None or fate["image_id"] != image_id:
                raise AstromorphError(
                    f"{path}: {image_id} is not in {catalogue} and {split}, or not in "
                    "this order; run preprocess, split and infer again"
                )
            if fate["subset"] != NONE:
                yield row, vector
