"""The export `parquet`: the table with types, for pandas, polars and databases."""

import logging
from collections.abc import Sequence
from typing import Any

from astromorph.artefacts.column_types import EMBEDDING, Column, typed_columns
from astromorph.artefacts.embeddings import EMBEDDING_PREFIX, embedding_length
from astromorph.artefacts.run_files import Identity, RunFiles
from astromorph.artefacts.run_table import embedding_blocks, run_table
from astromorph.artefacts.tables import arrow_array
from astromorph.atomic import atomic_write
from astromorph.provenance import versions

LOG = logging.getLogger(__name__)


def export_parquet(files: RunFiles, settings_json: str) -> None:
    """Write the table of facts, analysis and embeddings as Parquet.

    There is a row for each analysed image. The embedding is `emb_0`, `emb_1`, ... as in
    the CSV; empty cells are null.

    Parameters
    ----------
    files : RunFiles
        Catalogue, split, embeddings and analysis are read, ``table("parquet")`` is
        written.
    settings_json : str
        The settings as canonical JSON; written into the file.

    Raises
    ------
    AstromorphError
        A file is missing, or the files do not match.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    output = files.table("parquet")
    length = embedding_length(files.all_embeddings)
    columns, table = typed_columns(run_table(files), length)
    schema = _schema(columns, settings_json, files.identity)
    texts = [f.name for f in schema if pa.types.is_string(f.type)]
    with (
        atomic_write(output) as temporary,
        # The errors of a file that Python opens say what is wrong with the disk.
        open(temporary, "wb") as file,
        pq.ParquetWriter(file, schema, use_dictionary=texts) as writer,
    ):
        for rows, vectors in embedding_blocks(files, table):
            arrays = _arrays(columns[:-1], rows, schema) + list(
                map(pa.array, vectors.T)
            )
            writer.write_batch(pa.record_batch(arrays, schema=schema))
    LOG.info("%s: %d rows of %d columns", output, len(table), len(schema))


def _schema(
    columns: Sequence[Column], settings_json: str, identity: Identity | None
) -> Any:
    """The schema: names, types, units and descriptions."""
    import pyarrow as pa

    types = {
        "text": pa.string(),
        "int64": pa.int64(),
        "float64": pa.float64(),
        "ids": pa.list_(pa.string()),
        "int32": pa.int32(),
        "float32": pa.float32(),
        "vector": pa.list_(pa.float32()),
    }
    fields = []
    for column in columns:
        notes = {
            "description": column.meaning,
            "ucd": column.ucd,
            "unit": column.unit,
        }
        notes = {key: value for key, value in notes.items() if value}
        if column.name == EMBEDDING.name:
            fields += [
                pa.field(f"{EMBEDDING_PREFIX}{k}", pa.float32(), metadata=notes)
                for k in range(column.length)
            ]
        else:
            fields.append(pa.field(column.name, types[column.kind], metadata=notes))
    creator = f"astromorph {versions()['astromorph']}"
    notes = {"creator": creator, "settings": settings_json}
    return pa.schema(fields, notes | (identity.to_dict() if identity else {}))


def _arrays(columns: Sequence[Column], rows: Any, schema: Any) -> list[Any]:
    """All columns except the embedding, one Arrow array each."""
    arrays = []
    for k, column in enumerate(columns):
        cells = rows[column.name]
        if column.kind == "text":
            cells = cells.where(cells != "")
        arrays.append(arrow_array(cells).cast(schema.field(k).type))
    return arrays
