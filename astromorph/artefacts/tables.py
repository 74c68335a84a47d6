"""What the files between the steps hold: columns, readers, writers.

Every file is written under a temporary name in its own folder and then renamed,
so that a file that is there is complete.
"""

import contextlib
import csv
import glob
import io
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from astromorph.errors import AstromorphError
from astromorph.trouble import WriteError, writing

if TYPE_CHECKING:
    from numpy.typing import NDArray

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
    "epoch", "train_loss", "test_loss", "lesson_loss", "learning_rate",
    "moving_average_decay", "effective_rank", "spread",
)  # fmt: skip
# The facts that stand before the embedding in the CSV export.
EXPORT_COLUMNS = (
    "image_id", "path", "object", "ra_deg", "dec_deg", "rest_frequency_hz",
)  # fmt: skip
# Which image stands where on the contact sheets.
GALLERY_COLUMNS = ("sheet", "row", "column", "image_id", "object", "path", "note")
EMBEDDING_PREFIX = "emb_"
FORMULA_STARTS = "'=+-@\t\r"  # the apostrophe, which protects the others, is first


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Write a file whole or not at all.

    Parameters
    ----------
    path : path
        The file's final name. Missing folders are made.

    Yields
    ------
    Path
        A temporary name beside it, renamed when the block ends well and
        removed when it does not.

    Raises
    ------
    WriteError
        The disk is full, or may not be written to.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with writing(path, path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            os.replace(temporary, path)
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)


def on_disk(path: str | Path) -> None:
    """Wait until a file would outlive a loss of power."""
    with open(path, "rb+") as file:
        os.fsync(file.fileno())


def sweep_folder(path: str | Path) -> None:
    """Remove what processes that were killed left of a `replacing_folder`.

    Parameters
    ----------
    path : path
        The folder's final name. No other process may be writing it.
    """
    path = Path(path)
    for left in path.parent.glob(f".{glob.escape(path.name)}.*"):
        if left.is_dir() and {p.name for p in left.iterdir()} <= {"new", "old"}:
            shutil.rmtree(left, ignore_errors=True)


def keep_last(path: str | Path) -> None:
    """Give a finished file a second name, ``.last/NAME`` in its folder.

    Snakemake deletes what a step will write before the step begins. Under its
    second name the last good file stays until its successor is there, whatever
    becomes of that step. It takes no space: both names are one file.

    Parameters
    ----------
    path : path
        The file. Where the file system has no such links, nothing happens.
    """
    path = Path(path)
    last = path.parent / ".last" / path.name
    with contextlib.suppress(OSError, WriteError), replacing(last) as temporary:
        os.link(path, temporary)


@contextlib.contextmanager
def replacing_folder(path: str | Path) -> Iterator[Path]:
    """Write a folder whole or not at all; what it held before is gone then.

    Parameters
    ----------
    path : path
        The folder's final name.

    Yields
    ------
    Path
        An empty temporary folder beside it.

    Raises
    ------
    WriteError
        The disk is full, or may not be written to.
    """
    path = Path(path)
    with contextlib.ExitStack() as stack:
        stack.enter_context(writing(path, path.parent))
        path.parent.mkdir(parents=True, exist_ok=True)
        made = stack.enter_context(
            tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent)
        )
        temporary, old = Path(made) / "new", Path(made) / "old"
        temporary.mkdir()
        yield temporary
        if path.exists():
            os.replace(path, old)
        os.replace(temporary, path)


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
        replacing(path) as temporary,
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


def restored(text: str) -> str:
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
            reader.fieldnames = [restored(name) for name in reader.fieldnames or ()]
            missing = [c for c in columns if c not in (reader.fieldnames or ())]
            if missing:
                raise AstromorphError(
                    f"{path}: the column `{missing[0]}` is missing; "
                    "remove the file and run the step that writes it again"
                )
            for row in reader:
                yield {name: restored(cell) for name, cell in row.items()}
    except FileNotFoundError:
        raise AstromorphError(
            f"{path}: no such file; run the step that writes it first"
        ) from None


def csv_columns(path: str | Path) -> list[str]:
    """The header of a CSV file."""
    with open(path, newline="", encoding="utf-8") as file:
        return [restored(name) for name in next(csv.reader(file), [])]


def list_columns(catalogue: str | Path) -> list[str]:
    """The columns that came from the user's file list."""
    return [c for c in csv_columns(catalogue) if c not in CATALOGUE_COLUMNS]


@dataclass(frozen=True, slots=True)
class Embeddings:
    """The embeddings of one shard.

    Attributes
    ----------
    image_ids : tuple of str
        N ids, in the order of the list.
    vectors : ndarray, shape (N, D), float32
        One row per image.
    """

    image_ids: tuple[str, ...]
    vectors: "NDArray[np.float32]"


def write_embeddings(path: str | Path, embeddings: Embeddings) -> None:
    """Write one shard's embeddings as Parquet: `image_id`, `emb_0`, `emb_1`, ..."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    vectors = embeddings.vectors
    columns: dict[str, Any] = {
        "image_id": pa.array(embeddings.image_ids, type=pa.string())
    }
    for k in range(vectors.shape[1]):
        columns[f"{EMBEDDING_PREFIX}{k}"] = pa.array(vectors[:, k], type=pa.float32())
    with replacing(path) as temporary:
        pq.write_table(pa.table(columns), temporary)


def read_embeddings(path: str | Path) -> Embeddings:
    """Read what `write_embeddings` wrote.

    Raises
    ------
    AstromorphError
        The file is missing or no such Parquet file.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path, partitioning=None)
        image_ids = tuple(table.column("image_id").to_pylist())
    except (OSError, KeyError, pa.ArrowInvalid) as error:
        raise AstromorphError(
            f"{path}: no embeddings can be read here ({error}); run `infer` again"
        ) from None
    columns = table.drop_columns(["image_id"]).columns
    vectors = np.empty((len(image_ids), len(columns)), dtype=np.float32)
    for k, column in enumerate(columns):
        vectors[:, k] = column.to_numpy()
    return Embeddings(image_ids, vectors)


def embedded_rows(
    catalogue: str | Path, split: str | Path, embeddings: Sequence[str | Path]
) -> Iterator[tuple[dict[str, str], "NDArray[np.float32]"]]:
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


def embedding_length(embeddings: Sequence[str | Path]) -> int:
    """D, the length of the embeddings, from the first shard's columns."""
    import pyarrow.parquet as pq

    names = pq.read_schema(embeddings[0]).names
    return sum(name.startswith(EMBEDDING_PREFIX) for name in names)
