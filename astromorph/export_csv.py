"""The export `csv`: one table with facts, the list's own columns and embeddings."""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from astromorph import artefacts
from astromorph.artefacts import EMBEDDING_PREFIX, EXPORT_COLUMNS

LOG = logging.getLogger(__name__)


def export_csv(
    catalogue: str | Path,
    split: str | Path,
    embeddings: Sequence[str | Path],
    output: str | Path,
) -> None:
    """Write the table, a row per image that has an embedding.

    Parameters
    ----------
    catalogue, split : path
        What `validate` and `split` wrote.
    embeddings : sequence of path
        All shards, in the order of the list.
    output : path
        CSV to write: `EXPORT_COLUMNS`, the further columns of the file list,
        `emb_0` to `emb_{D-1}`. Memory stays that of one shard.

    Raises
    ------
    AstromorphError
        Catalogue and embeddings do not belong together.
    """
    further = artefacts.list_columns(catalogue)
    facts = (*EXPORT_COLUMNS, *further)
    length = artefacts.embedding_length(embeddings)
    names = [f"{EMBEDDING_PREFIX}{k}" for k in range(length)]
    written = 0

    def rows() -> Iterator[dict[str, Any]]:
        nonlocal written
        for row, vector in artefacts.embedded_rows(catalogue, split, embeddings):
            written += 1
            cells = {name: row[name] for name in facts}
            yield cells | dict(zip(names, map(str, vector), strict=True))

    artefacts.write_csv(output, (*facts, *names), rows())
    LOG.info("%s: %d rows of %d columns", output, written, len(facts) + length)
