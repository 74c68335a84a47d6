"""The table of the analysis: Parquet between `analyse` and the exports.

One row for each image that has an embedding and is not excluded by the split, in the
order of the list: the rows of `run_table.embedded_table`.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from astromorph.artefacts.columns import ROWS_AT_A_TIME
from astromorph.atomic import atomic_write
from astromorph.errors import AstromorphError

if TYPE_CHECKING:  # pandas takes long to import; functions import it themselves
    from pandas import DataFrame

ANALYSIS_COLUMNS = (
    "image_id",
    "cluster",
    "cluster_kmeans",
    "cluster_hdbscan",
    "x",
    "y",
    "pca_1",
    "pca_2",
    "outlier_score",
    "outlier_rank",
    "role",
    "neighbour_ids",
    "neighbour_distances",
    "duplicate_ids",
)
# Further columns of the analysis of new images among those of a reference run.
REFERENCE_COLUMNS = ("new", "novelty")
REFERENCE_KEY = b"astromorph_reference"  # of the metadata of the Parquet file
# Added to ids of the reference that belong to other images in the run.
OLD_SUFFIX = "-old"
ORDINARY, REPRESENTATIVE, ODD = "", "representative", "odd"
REMEDY = "run `analyse` again"


@dataclass(frozen=True, slots=True)
class Analysis:
    """The results of the analysis of N images.

    Attributes
    ----------
    image_ids : tuple of str
        N ids, in the order of the list.
    cluster : ndarray, shape (N,), int32
        Cluster of each image, from 0, the largest; -1 for none.
    kmeans, hdbscan : ndarray, shape (N,), int32
        Clusters of each method; `cluster` equals one of them.
    map : ndarray, shape (N, 2), float32
        Positions on the map.
    pca : ndarray, shape (N, 2), float32
        The first two principal components.
    outlier_score : ndarray, shape (N,), float32
        Distance of an image from similar ones; larger values are more unusual.
    outlier_rank : ndarray, shape (N,), int32
        1 is the most unusual.
    roles : tuple of str
        "representative" and "odd" for one image each per cluster, else empty.
    neighbours : tuple of tuple of str
        Ids of the nearest images, the nearest first.
    distances : ndarray, shape (N, K), float32
        Their distances.
    duplicates : tuple of tuple of str
        Ids of near-duplicates.
    new : ndarray or None, shape (N,), bool
        Whether an image is not in the reference run; None without a reference.
    novelty : ndarray or None, shape (N,), float32
        Percentage of the images of the reference that are nearer to their neighbours;
        None without a reference.
    """

    image_ids: tuple[str, ...]
    cluster: NDArray[np.int32]
    kmeans: NDArray[np.int32]
    hdbscan: NDArray[np.int32]
    map: NDArray[np.float32]
    pca: NDArray[np.float32]
    outlier_score: NDArray[np.float32]
    outlier_rank: NDArray[np.int32]
    roles: tuple[str, ...]
    neighbours: tuple[tuple[str, ...], ...]
    distances: NDArray[np.float32]
    duplicates: tuple[tuple[str, ...], ...]
    new: NDArray[np.bool_] | None = None
    novelty: NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.image_ids)


def write_analysis(
    path: str | Path, analysis: Analysis, reference: str | Path | None = None
) -> None:
    """Write an analysis atomically, with `ANALYSIS_COLUMNS`.

    Parameters
    ----------
    path : path
        The file to write.
    analysis : Analysis
        Its contents; with `new` and `novelty`, the file has `REFERENCE_COLUMNS` too.
    reference : path, optional
        The results folder of the reference run, whose images are in the analysis.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    texts = pa.list_(pa.string())
    distances = (
        pa.FixedSizeListArray.from_arrays(
            pa.array(analysis.distances.ravel()), analysis.distances.shape[1]
        )
        if analysis.distances.shape[1]
        else pa.nulls(len(analysis), pa.list_(pa.float32()))
    )
    columns: dict[str, Any] = {
        "image_id": pa.array(analysis.image_ids, type=pa.string()),
        "cluster": pa.array(analysis.cluster, type=pa.int32()),
        "cluster_kmeans": pa.array(analysis.kmeans, type=pa.int32()),
        "cluster_hdbscan": pa.array(analysis.hdbscan, type=pa.int32()),
        "x": pa.array(analysis.map[:, 0], type=pa.float32()),
        "y": pa.array(analysis.map[:, 1], type=pa.float32()),
        "pca_1": pa.array(analysis.pca[:, 0], type=pa.float32()),
        "pca_2": pa.array(analysis.pca[:, 1], type=pa.float32()),
        "outlier_score": pa.array(analysis.outlier_score, type=pa.float32()),
        "outlier_rank": pa.array(analysis.outlier_rank, type=pa.int32()),
        "role": pa.array(analysis.roles, type=pa.string()),
        "neighbour_ids": pa.array(analysis.neighbours, type=texts),
        "neighbour_distances": distances.cast(pa.list_(pa.float32())),
        "duplicate_ids": pa.array(analysis.duplicates, type=texts),
    }
    if analysis.new is not None:
        columns["new"] = pa.array(analysis.new.astype(np.uint8))
        columns["novelty"] = pa.array(analysis.novelty, type=pa.float32())
    table = pa.table(columns)
    if reference is not None:
        table = table.replace_schema_metadata({REFERENCE_KEY: os.fsencode(reference)})
    # The errors of a file that Python opens say what is wrong with the disk.
    with atomic_write(path) as temporary, open(temporary, "wb") as file:
        pq.write_table(table, file, row_group_size=ROWS_AT_A_TIME)


def read_reference(path: str | Path) -> Path | None:
    """The results folder of the run among whose images an analysis places others.

    Returns
    -------
    Path or None
        None if the analysis has no reference.

    Raises
    ------
    AstromorphError
        The file is missing, or not a Parquet file.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        metadata = pq.read_schema(path).metadata or {}
    except (OSError, pa.ArrowInvalid) as error:
        raise _unreadable(path, error) from None
    folder = metadata.get(REFERENCE_KEY)
    return None if folder is None else Path(os.fsdecode(folder))


def read_analysis_parts(path: str | Path) -> Iterator[Analysis]:
    """Read an analysis in blocks of `ROWS_AT_A_TIME` rows.

    Raises
    ------
    AstromorphError
        The file is missing, or not a Parquet file of an analysis.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            further = [name for name in REFERENCE_COLUMNS if name in names]
            columns = [*ANALYSIS_COLUMNS, *further]
            for batch in file.iter_batches(ROWS_AT_A_TIME, columns=columns):
                yield _from_batch(batch)
    except (OSError, KeyError, pa.ArrowInvalid) as error:
        raise _unreadable(path, error) from None


def read_analysis(path: str | Path) -> Analysis:
    """Read an analysis.

    Raises
    ------
    AstromorphError
        The file is missing, or not a Parquet file of an analysis.
    """
    return _concatenate(list(read_analysis_parts(path)), path)


def read_analysis_columns(
    path: str | Path, columns: Sequence[str] | None = None
) -> "DataFrame":
    """Read columns of an analysis as a table.

    Parameters
    ----------
    path : path
        The file that `write_analysis` wrote.
    columns : sequence of str, optional
        Names outside `ANALYSIS_COLUMNS` and `REFERENCE_COLUMNS` are ignored, and so are
        the latter if the analysis has no reference; `image_id` is always read. By
        default all columns are read.

    Returns
    -------
    DataFrame
        One row for each image; numbers are int32 and float32, `new` is uint8, ids and
        distances are Arrow lists.

    Raises
    ------
    AstromorphError
        The file is missing, is not a Parquet file of an analysis, or has no rows.
    """
    import pandas as pd
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        stored = pq.read_schema(path).names
    except (OSError, pa.ArrowInvalid) as error:
        raise _unreadable(path, error) from None
    wanted = [
        name
        for name in (
            *ANALYSIS_COLUMNS,
            *(name for name in REFERENCE_COLUMNS if name in stored),
        )
        if columns is None or name in columns or name == "image_id"
    ]

    def pandas_type(arrow: Any) -> Any:
        return pd.ArrowDtype(arrow) if pa.types.is_list(arrow) else None

    try:
        table = pq.read_table(path, columns=wanted, partitioning=None)
    except (OSError, KeyError, pa.ArrowInvalid) as error:
        raise _unreadable(path, error) from None
    if table.column_names != wanted:
        raise _unreadable(path, "columns are missing")
    if not table.num_rows:
        raise _empty(path)
    return table.to_pandas(types_mapper=pandas_type)


def _unreadable(path: str | Path, reason: object) -> AstromorphError:
    return AstromorphError(f"{path}: the analysis cannot be read ({reason}); {REMEDY}")


def _empty(path: str | Path) -> AstromorphError:
    return AstromorphError(f"{path}: the analysis contains no images; {REMEDY}")


def _from_batch(batch: Any) -> Analysis:
    def numbers(name: str) -> Any:
        return batch.column(name).to_numpy(zero_copy_only=False)

    def texts(name: str) -> tuple[tuple[str, ...], ...]:
        return tuple(tuple(t or ()) for t in batch.column(name).to_pylist())

    rows = [row or [] for row in batch.column("neighbour_distances").to_pylist()]
    width = max(map(len, rows), default=0)
    return Analysis(
        image_ids=tuple(batch.column("image_id").to_pylist()),
        cluster=numbers("cluster"),
        kmeans=numbers("cluster_kmeans"),
        hdbscan=numbers("cluster_hdbscan"),
        map=np.stack([numbers("x"), numbers("y")], axis=1),
        pca=np.stack([numbers("pca_1"), numbers("pca_2")], axis=1),
        outlier_score=numbers("outlier_score"),
        outlier_rank=numbers("outlier_rank"),
        roles=tuple(batch.column("role").to_pylist()),
        neighbours=texts("neighbour_ids"),
        distances=np.array(rows, np.float32).reshape(len(rows), width),
        duplicates=texts("duplicate_ids"),
        new=numbers("new").astype(bool) if "new" in batch.schema.names else None,
        novelty=numbers("novelty") if "novelty" in batch.schema.names else None,
    )


def _concatenate(parts: Sequence[Analysis], path: str | Path) -> Analysis:
    if not parts:
        raise _empty(path)

    def concatenated(name: str) -> Any:
        values = [getattr(part, name) for part in parts]
        if values[0] is None:
            return None
        if isinstance(values[0], tuple):
            return tuple(value for some in values for value in some)
        return np.concatenate(values)

    return Analysis(**{name: concatenated(name) for name in Analysis.__slots__})
