"""The rows of a run: catalogue, split, analysis and embeddings, joined in one place.

`embedded_table` joins catalogue and split, `run_table` adds the analysis, and
`embedding_blocks` the embeddings, `ROWS_AT_A_TIME` rows at a time. The index of these
tables is the row number in the catalogue, so that a table with one row for each listed
file, such as the split, is joined by ``split.loc[table.index]``.

The analysis can place the images among those of a reference run
(`analysis_settings.reference_results`). Then `run_table` and all functions that start
with it also have the images of the reference, after those of the run; their index is
the row number in its catalogue plus `REFERENCE_ROWS`.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from astromorph.artefacts.analysis_table import (
    OLD_SUFFIX,
    read_analysis_columns,
    read_reference,
)
from astromorph.artefacts.column_types import listed_names
from astromorph.artefacts.columns import CATALOGUE_COLUMNS, NONE, ROWS_AT_A_TIME
from astromorph.artefacts.embeddings import read_embeddings, read_image_ids
from astromorph.artefacts.run_files import RenamedShard, RunFiles, ShardFile
from astromorph.artefacts.tables import (
    arrow_array,
    csv_columns,
    list_columns,
    read_table,
)
from astromorph.errors import AstromorphError
from astromorph.provenance import digest

if TYPE_CHECKING:  # pandas takes long to import; functions import it themselves
    from pandas import DataFrame, Series

LOG = logging.getLogger(__name__)
REFERENCE_ROWS = 2**40  # added to the row numbers of the reference run


def open_run(results: str | Path, model: str | Path | None = None) -> RunFiles:
    """The files of a run that has a split, with all of its shards.

    Parameters
    ----------
    results : path
        The results folder.
    model : path, optional
        The model file, if it is not ``model/model.pt`` in that folder.

    Raises
    ------
    AstromorphError
        The split is missing or damaged.
    """
    files = RunFiles.of_run(results, named_model=model)
    names = read_table(files.split, ["shard"])["shard"].unique()
    return replace(files, shards=tuple(names))


def reference_of(files: RunFiles) -> RunFiles | None:
    """The run among whose images those of another run were placed, if there is one.

    Raises
    ------
    AstromorphError
        The analysis is missing or damaged, or the reference no longer exists.
    """
    folder = read_reference(files.analysis)
    return None if folder is None else open_run(folder)


def reference_names(files: RunFiles, reference: RunFiles) -> dict[str, str]:
    """What images of the reference are called, if the list of the run has their ids.

    Ids are computed from listed paths, so that different images of two lists can have
    the same id.

    Parameters
    ----------
    files : RunFiles
        A run; its catalogue and its analysis are read.
    reference : RunFiles
        The result of `reference_of`.

    Returns
    -------
    dict of str to str
        Id in the reference to id in the analysis of the run: the same with
        `OLD_SUFFIX`, or empty if the image is the same in both runs. Ids that only the
        reference has are left out.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    own, others = (
        arrow_array(read_table(run.catalogue, ["image_id"])["image_id"])
        for run in (files, reference)
    )
    both = others.filter(pc.is_in(others, value_set=own))
    if not len(both):
        return {}
    analysed = arrow_array(read_analysis_columns(files.analysis, [])["image_id"])
    suffixed = pa.array([f"{name}{OLD_SUFFIX}" for name in both.to_pylist()])
    is_old = pc.is_in(suffixed, value_set=analysed.cast(suffixed.type))
    new = pc.if_else(is_old, suffixed, "")
    return dict(zip(both.to_pylist(), new.to_pylist(), strict=True))


def _rename(table: "DataFrame", names: dict[str, str]) -> "DataFrame":
    """Rows of the reference with the ids of `reference_names`."""
    if not names:
        return table
    new = [names.get(name, name) for name in table["image_id"]]
    return table.assign(image_id=new)[[name != "" for name in new]]


def all_tensors(files: RunFiles) -> tuple[ShardFile, ...]:
    """The shards of prepared images, followed by those of the reference run."""
    reference = reference_of(files)
    if reference is None:
        return files.all_tensors
    names = reference_names(files, reference)
    others = (RenamedShard(path, names) for path in reference.all_tensors)
    return (*files.all_tensors, *others)


def number_of_listed(files: RunFiles) -> int:
    """Number of rows of the catalogue, and of that of the reference run."""
    runs = (files, reference_of(files))
    return sum(len(read_table(run.catalogue, ["image_id"])) for run in runs if run)


def list_digest(files: RunFiles) -> str:
    """A digest of the ids of all listed images, and of those of the reference run.

    It is the same in all steps of a run and in other runs of the same list.
    """
    runs = (files, reference_of(files))
    return digest(
        image_id
        for run in runs
        if run
        for image_id in read_table(run.catalogue, ["image_id"])["image_id"]
    )


def listed_columns(files: RunFiles) -> dict[str, str]:
    """Names of the user's columns in the catalogue, and in all exported tables.

    The columns of the reference run, if there is one, follow.
    """
    names = list_columns(files.catalogue)
    if reference := reference_of(files):
        names += [n for n in list_columns(reference.catalogue) if n not in names]
    return listed_names(names)


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
        Columns of the result in addition to `image_id`; by default all.

    Returns
    -------
    DataFrame
        One row for each image, in the order of the list; the index is the row number in
        the catalogue. Columns are those of the catalogue as text, those of the user's
        list under the names of `columns.listed_names`, and `subset`.

    Raises
    ------
    AstromorphError
        A file is missing, or the files do not match.
    """
    return _embedded_table(files, columns, listed_names(list_columns(files.catalogue)))


def _embedded_table(
    files: RunFiles, columns: Sequence[str] | None, listed: dict[str, str]
) -> "DataFrame":
    """The same, given the names of the columns of the list in exported tables."""
    names = {name: name for name in CATALOGUE_COLUMNS}
    names |= {name: listed[name] for name in list_columns(files.catalogue)}
    wanted = [
        name
        for name, new in names.items()
        if columns is None or new in columns or name == "image_id"
    ]
    catalogue = read_table(files.catalogue, wanted)
    split = read_table(files.split, ["image_id", "subset"])
    if not _equal(catalogue["image_id"], split["image_id"]):
        raise AstromorphError(
            f"{files.split}: its rows do not match {files.catalogue}; "
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
        Columns of the result in addition to `image_id`; by default all.

    Returns
    -------
    DataFrame
        The table of `embedded_table` with `analysis_table.ANALYSIS_COLUMNS`: numbers
        are int32 and float32, ids and distances are Arrow lists. With a reference run,
        also `analysis_table.REFERENCE_COLUMNS`, and after the images of the run those
        of the reference, without those that are in both. Cells of columns that only
        one of the two lists has are empty.

    Raises
    ------
    AstromorphError
        A file is missing, or the files do not match.
    """
    import pandas as pd

    listed = listed_columns(files)
    for name, new in listed.items():
        if new != name and (columns is None or new in columns):
            LOG.info("the column `%s` of the list is exported as `%s`", name, new)
    facts = _embedded_table(files, columns, listed)
    if reference := reference_of(files):
        others = _embedded_table(reference, columns, listed)
        others.index += REFERENCE_ROWS
        others = _rename(others, reference_names(files, reference))
        facts = pd.concat([facts, others]).fillna("")
    analysis = read_analysis_columns(files.analysis, columns)
    if not _equal(facts["image_id"], analysis["image_id"]):
        raise AstromorphError(
            f"{files.analysis}: its images do not match the embeddings; "
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
        Columns to read in addition to `image_id`, by their names in the catalogue.

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
    if reference := reference_of(files):
        names = reference_names(files, reference)
        table = _with_catalogue_of(reference, table, names)
    ids = pa.array(image_ids, pa.large_string())
    found = pc.index_in(ids, value_set=arrow_array(table["image_id"]))
    if found.null_count:
        missing = ids.filter(pc.is_null(found))[0]
        raise AstromorphError(
            f"{files.catalogue}: the image {missing} of {files.analysis} is missing; "
            "run validate and the following steps again"
        )
    return table.iloc[found.to_numpy()]


def _with_catalogue_of(
    reference: RunFiles, table: "DataFrame", names: dict[str, str]
) -> "DataFrame":
    """Append the catalogue of the reference run; columns that it lacks are empty."""
    import pandas as pd

    known = csv_columns(reference.catalogue)
    others = read_table(reference.catalogue, [name for name in table if name in known])
    others.index += REFERENCE_ROWS
    return pd.concat([table, _rename(others, names)]).fillna("")


def embedding_blocks(
    files: RunFiles, table: "DataFrame"
) -> Iterator[tuple["DataFrame", NDArray[np.float32]]]:
    """Join the embeddings to a table, `ROWS_AT_A_TIME` rows at a time.

    Parameters
    ----------
    files : RunFiles
        Embeddings are read, shard by shard.
    table : DataFrame
        From `embedded_table` or `run_table`, or the same rows in the same order.

    Yields
    ------
    rows : DataFrame
        The next `ROWS_AT_A_TIME` rows of the table; fewer at the end.
    vectors : ndarray, shape (n, D), float32
        Their embeddings.

    Raises
    ------
    AstromorphError
        The embeddings do not match the table.
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
    is_own = table.index < REFERENCE_ROWS
    yield from _vectors_of_run(files, table[is_own], {})
    if not is_own.all() and (reference := reference_of(files)):
        names = reference_names(files, reference)
        yield from _vectors_of_run(reference, table[~is_own], names)


def _vectors_of_run(
    files: RunFiles, table: "DataFrame", names: dict[str, str]
) -> Iterator[NDArray[np.float32]]:
    import pyarrow as pa
    import pyarrow.compute as pc

    done = 0
    for path in files.all_embeddings:
        shard = read_embeddings(path)
        image_ids = [names.get(name, name) for name in shard.image_ids]
        ids = pa.array(image_ids, pa.large_string())
        rows = table["image_id"].iloc[done : done + len(ids)]
        expected = arrow_array(rows)
        used = pc.is_in(ids, value_set=expected)
        number = pc.sum(used).as_py() or 0
        if not ids.filter(used).equals(expected[:number]):
            raise _mismatch_error(files, path)
        done += number
        yield shard.vectors[used.to_numpy(zero_copy_only=False)]
    if done < len(table):
        raise _mismatch_error(files, files.all_embeddings[-1])


def _mismatch_error(files: RunFiles, path: Path) -> AstromorphError:
    return AstromorphError(
        f"{path}: its images do not match {files.catalogue} and {files.split}; "
        "run preprocess, split and infer again"
    )


def _embedded_rows(files: RunFiles, image_ids: "Series") -> NDArray[np.int64]:
    """The row numbers of the embeddings in the catalogue, which must increase."""
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
            f"{files.split}, or not in the same order; run preprocess, split and infer "
            "again"
        )
    return rows


def _equal(one: "Series", other: "Series") -> bool:
    return len(one) == len(other) and bool((one.array == other.array).all())
