"""The export `csv`: the table of facts, analysis and embeddings as CSV."""

import logging

from astromorph.artefacts.column_types import ANALYSED, PLACED
from astromorph.artefacts.columns import EXPORT_COLUMNS
from astromorph.artefacts.embeddings import (
    EMBEDDING_PREFIX,
    embedding_length,
    vector_lines,
)
from astromorph.artefacts.run_files import RunFiles
from astromorph.artefacts.run_table import embedding_blocks, listed_columns, run_table
from astromorph.artefacts.tables import csv_line, csv_lines
from astromorph.atomic import atomic_write

LOG = logging.getLogger(__name__)
SEPARATORS = {"comma": ",", "semicolon": ";"}


def export_csv(files: RunFiles, separator: str) -> None:
    """Write the table of facts, analysis and embeddings as CSV.

    There is a row for each analysed image, with `EXPORT_COLUMNS`, the additional
    columns of the file list, the analysis and `emb_0` to `emb_{D-1}`. The ids in a list
    are separated by spaces.

    Parameters
    ----------
    files : RunFiles
        Catalogue, split, embeddings and analysis are read, ``table("csv")`` is written.
    separator : str
        ``"comma"`` or ``"semicolon"``.

    Raises
    ------
    AstromorphError
        A file is missing, or the files do not match.
    """
    output, sign = files.table("csv"), SEPARATORS[separator]
    names = [*EXPORT_COLUMNS, *listed_columns(files).values()]
    names += [column.name for column in (*PLACED, *ANALYSED)]
    table = run_table(files, names)
    names = [name for name in names if name in table]
    table = table[names]
    length = embedding_length(files.all_embeddings)
    header = [*names, *(f"{EMBEDDING_PREFIX}{k}" for k in range(length))]
    with (
        atomic_write(output) as temporary,
        open(temporary, "w", newline="", encoding="utf-8") as file,
    ):
        file.write(csv_line(header, sign))
        for rows, vectors in embedding_blocks(files, table):
            facts, numbers = csv_lines(rows, sign), vector_lines(vectors, sign)
            for left, right in zip(facts, numbers, strict=True):
                file.write(f"{left}{sign}{right}\n")
    LOG.info("%s: %d rows of %d columns", output, len(table), len(header))
