"""The export `parquet`: the table with types, for pandas, polars and databases."""

import logging
from pathlib import Path
from typing import Any

from astromorph.artefacts.cells import integers, numbers
from astromorph.artefacts.embeddings import EMBEDDING_PREFIX
from astromorph.artefacts.table_columns import EMBEDDING, Column
from astromorph.artefacts.table_rows import Block, Inputs, Table, blocks, describe
from astromorph.atomic import atomic_write
from astromorph.provenance import canonical_json, versions
from astromorph.settings.sections import Settings
from astromorph.settings.steps import part_of

LOG = logging.getLogger(__name__)


def export_parquet(settings: Settings, inputs: Inputs, output: str | Path) -> None:
    """Write the table, a row per image that has an embedding.

    Parameters
    ----------
    settings : Settings
        Written into the file.
    inputs : Inputs
        What it is made from.
    output : path
        Parquet to write. The embedding is `emb_0`, `emb_1`, ... as in the CSV; empty
        cells are null. Memory stays that of some ten thousand rows.

    Raises
    ------
    AstromorphError
        The files do not belong together.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = describe(inputs)
    schema = _schema(table, settings)
    texts = [f.name for f in schema if pa.types.is_string(f.type)]
    with (
        atomic_write(output) as temporary,
        pq.ParquetWriter(temporary, schema, use_dictionary=texts) as writer,
    ):
        for block in blocks(inputs):
            arrays = [
                array for column in table.columns for array in _arrays(block, column)
            ]
            writer.write_batch(pa.record_batch(arrays, schema=schema))
    LOG.info("%s: %d rows of %d columns", output, table.rows, len(schema))


def _schema(table: Table, settings: Settings) -> Any:
    """Names, types, units and meanings."""
    import pyarrow as pa

    types = {
        "text": pa.string(),
        "integer": pa.int64(),
        "number": pa.float64(),
        "ids": pa.list_(pa.string()),
        "short": pa.int32(),
        "single": pa.float32(),
        "vector": pa.list_(pa.float32()),
    }
    fields = []
    for column in table.columns:
        said = {"description": column.meaning, "ucd": column.ucd, "unit": column.unit}
        notes = {key: value for key, value in said.items() if value}
        if column.name == EMBEDDING.name:
            fields += [
                pa.field(f"{EMBEDDING_PREFIX}{k}", pa.float32(), metadata=notes)
                for k in range(column.length)
            ]
        else:
            fields.append(pa.field(column.name, types[column.kind], metadata=notes))
    made = {
        "creator": f"astromorph {versions()['astromorph']}",
        "settings": canonical_json(part_of(settings, "export_tables")),
    }
    return pa.schema(fields, metadata=made)


def _arrays(block: Block, column: Column) -> list[Any]:
    """The column as one array, or the embedding as D of them."""
    import pyarrow as pa

    name = column.name
    if name == EMBEDDING.name:
        return [pa.array(block.vectors[:, k]) for k in range(column.length)]
    if name in ("neighbour_ids", "duplicate_ids"):
        lists = [ids.split() for ids in block.cells(name)]
        return [pa.array(lists, pa.list_(pa.string()))]
    if column.kind == "vector":
        return [pa.array(block.analysis.distances.tolist(), pa.list_(pa.float32()))]
    if column.kind in ("short", "single"):
        return [pa.array(block.values(column))]
    cells = block.cells(name)
    if column.kind == "integer":
        values, empty = integers(cells)
        return [pa.array(values, mask=empty)]
    if column.kind == "number":
        return [pa.array(numbers(cells), from_pandas=True)]
    return [pa.array([cell or None for cell in cells], pa.string())]
