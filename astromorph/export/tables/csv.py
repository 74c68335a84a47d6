"""The export `csv`: one table with facts, the list's own columns and embeddings."""

import csv
import io
import logging
from collections.abc import Iterable, Iterator
from pathlib import Path

from astromorph.artefacts.cells import lines
from astromorph.artefacts.embeddings import EMBEDDING_PREFIX, embedding_length
from astromorph.artefacts.table_columns import ANALYSED
from astromorph.artefacts.table_rows import Block, Inputs, blocks, columns_of_list
from astromorph.artefacts.tables import EXPORT_COLUMNS, spreadsheet_safe
from astromorph.atomic import atomic_write
from astromorph.settings.sections import Settings

LOG = logging.getLogger(__name__)
SEPARATORS = {"comma": ",", "semicolon": ";"}


def export_csv(settings: Settings, inputs: Inputs, output: str | Path) -> None:
    """Write the table, a row per image that has an embedding.

    Parameters
    ----------
    settings : Settings
        `export_settings.csv_separator` is used.
    inputs : Inputs
        What it is made from.
    output : path
        CSV to write: `EXPORT_COLUMNS`, the further columns of the file list, the
        analysis, `emb_0` to `emb_{D-1}`. Lists of ids are separated by spaces. Memory
        stays that of some ten thousand rows.

    Raises
    ------
    AstromorphError
        The files do not belong together.
    """
    separator = SEPARATORS[settings.export_settings.csv_separator]
    facts = (*EXPORT_COLUMNS, *columns_of_list(inputs.catalogue))
    length = embedding_length(inputs.embeddings)
    names = [*facts, *(column.name for column in ANALYSED)]
    names += [f"{EMBEDDING_PREFIX}{k}" for k in range(length)]
    written = 0
    with (
        atomic_write(output) as temporary,
        open(temporary, "w", newline="", encoding="utf-8") as file,
    ):
        header = csv.writer(file, delimiter=separator, lineterminator="\n")
        header.writerow(map(spreadsheet_safe, names))
        for block in blocks(inputs):
            written += len(block)
            vectors = lines(block.vectors, separator)
            for left, right in zip(
                _left(block, facts, separator), vectors, strict=True
            ):
                file.write(f"{left}{separator}{right}\n")
    LOG.info("%s: %d rows of %d columns", output, written, len(names))


def _left(block: Block, facts: tuple[str, ...], separator: str) -> Iterator[str]:
    """The row before its embedding, for each row."""
    columns: list[Iterable[str]] = [
        map(spreadsheet_safe, block.cells(name)) for name in facts
    ]
    for column in ANALYSED:
        if column.kind in ("text", "ids"):
            columns.append(block.cells(column.name))
        else:
            columns.append(map(str, block.values(column)))
    for row in zip(*columns, strict=True):
        buffer = io.StringIO()
        # Cells with what is in the terminator are put in quotes.
        csv.writer(buffer, delimiter=separator, lineterminator="\r\n").writerow(row)
        yield buffer.getvalue()[:-2]
