"""The embeddings of a shard, as Parquet."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from astromorph.atomic import atomic_write
from astromorph.errors import AstromorphError

EMBEDDING_PREFIX = "emb_"
MADE_WITH_KEY = b"astromorph"  # of the metadata of the Parquet file
VECTORS_AT_A_TIME = 2048  # converted to text at a time


@dataclass(frozen=True, slots=True)
class Embeddings:
    """The embeddings of one shard.

    Attributes
    ----------
    image_ids : tuple of str
        N ids, in the order of the list.
    vectors : ndarray, shape (N, D), float32
        A row for each image.
    """

    image_ids: tuple[str, ...]
    vectors: NDArray[np.float32]


def write_embeddings(
    path: str | Path, embeddings: Embeddings, made_with: Mapping[str, str] | None = None
) -> None:
    """Write one shard's embeddings as Parquet: `image_id`, `emb_0`, `emb_1`, ...

    Parameters
    ----------
    path : path
        The file to write.
    embeddings : Embeddings
        Its contents.
    made_with : dict of str to str, optional
        What embeddings must have in common to be comparable, for `read_made_with`.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    vectors = embeddings.vectors
    columns: dict[str, Any] = {
        "image_id": pa.array(embeddings.image_ids, type=pa.string())
    }
    for k in range(vectors.shape[1]):
        columns[f"{EMBEDDING_PREFIX}{k}"] = pa.array(vectors[:, k], type=pa.float32())
    # The errors of a file that Python opens say what is wrong with the disk.
    with atomic_write(path) as temporary, open(temporary, "wb") as file:
        table = pa.table(columns)
        if made_with:
            table = table.replace_schema_metadata(
                {MADE_WITH_KEY: json.dumps(made_with, sort_keys=True)}
            )
        pq.write_table(table, file)


def read_embeddings(path: str | Path) -> Embeddings:
    """Read one shard's embeddings.

    Raises
    ------
    AstromorphError
        The file is missing, or not a Parquet file of embeddings.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path, partitioning=None)
        image_ids = tuple(table.column("image_id").to_pylist())
    except (OSError, KeyError, pa.ArrowInvalid) as error:
        raise _unreadable(path, error) from None
    columns = table.drop_columns(["image_id"]).columns
    vectors = np.empty((len(image_ids), len(columns)), dtype=np.float32)
    for k, column in enumerate(columns):
        vectors[:, k] = column.to_numpy()
    return Embeddings(image_ids, vectors)


def read_image_ids(path: str | Path) -> Any:
    """The ids of a shard's embeddings, `(N,)`, as an Arrow array of text.

    Raises
    ------
    AstromorphError
        The file is missing, or not a Parquet file of embeddings.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path, columns=["image_id"], partitioning=None)
        return table.column("image_id").combine_chunks()
    except (OSError, KeyError, pa.ArrowInvalid) as error:
        raise _unreadable(path, error) from None


def read_made_with(path: str | Path) -> dict[str, str]:
    """What one shard's embeddings were made with, as `write_embeddings` was told.

    Raises
    ------
    AstromorphError
        The file is missing or not a Parquet file, or it does not say.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        metadata = pq.read_schema(path).metadata or {}
        return {k: str(v) for k, v in json.loads(metadata[MADE_WITH_KEY]).items()}
    except KeyError:
        reason = "it does not say which model made them"
        raise _unreadable(path, reason) from None
    except (OSError, ValueError, AttributeError, pa.ArrowInvalid) as error:
        raise _unreadable(path, error) from None


def embedding_length(embeddings: Sequence[str | Path]) -> int:
    """D, the length of the embeddings, from the first shard's columns."""
    import pyarrow.parquet as pq

    names = pq.read_schema(embeddings[0]).names
    return sum(name.startswith(EMBEDDING_PREFIX) for name in names)


def vector_lines(vectors: NDArray[np.float32], separator: str) -> Iterator[str]:
    """The numbers of each row as text, with the fewest digits that keep the values.

    Parameters
    ----------
    vectors : ndarray, shape (N, D), float32
        The rows.
    separator : str
        Separator of the numbers.

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


def _unreadable(path: str | Path, error: object) -> AstromorphError:
    return AstromorphError(
        f"{path}: the embeddings cannot be read ({error}); run `infer` again"
    )
