"""The rows of the exported tables: facts, analysis and embeddings joined, in blocks.

A table is read twice where its form wants to know the kinds and lengths of its columns
before its first row. Memory stays that of a block.
"""

import itertools
import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from astromorph.artefacts import tables as artefacts
from astromorph.artefacts.analysis_file import Analysis, read_analysis_parts
from astromorph.artefacts.cells import MAX_TEXT_LENGTH, Profile
from astromorph.artefacts.embeddings import embedding_length
from astromorph.artefacts.table_columns import (
    ANALYSED,
    DISTANCES,
    EMBEDDING,
    FACTS,
    OF_THE_LIST,
    Column,
    listed_names,
)
from astromorph.artefacts.tables import SPLIT_COLUMNS
from astromorph.errors import AstromorphError

LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Inputs:
    """The files that an export is made from.

    Attributes
    ----------
    catalogue, split : path
        What `validate` and `split` wrote.
    embeddings : tuple of path
        All shards, in the order of the list.
    analysis : path
        What `analyse` wrote.
    """

    catalogue: str | Path
    split: str | Path
    embeddings: tuple[str | Path, ...]
    analysis: str | Path


@dataclass(frozen=True, slots=True)
class Block:
    """Some rows of a table.

    Attributes
    ----------
    facts : tuple of dict of str to str
        N rows: the catalogue's cells, list columns under the names of
        `listed_names`, and `subset`.
    analysis : Analysis
        Of the same N images.
    vectors : ndarray, shape (N, D), float32
        Their embeddings.
    """

    facts: tuple[dict[str, str], ...]
    analysis: Analysis
    vectors: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.facts)

    def cells(self, name: str) -> list[str]:
        """A column of facts, or a text of the analysis; ids separated by a space."""
        if name == "role":
            return list(self.analysis.roles)
        if name == "neighbour_ids":
            return [" ".join(ids) for ids in self.analysis.neighbours]
        if name == "duplicate_ids":
            return [" ".join(ids) for ids in self.analysis.duplicates]
        return [row[name] for row in self.facts]

    def values(self, column: Column) -> NDArray[np.generic]:
        """Numbers of the analysis `(N,)`, or a vector column `(N, length)`, float32."""
        found = self.analysis
        if column.name == DISTANCES.name:
            missing = column.length - found.distances.shape[1]
            filled: NDArray[np.generic] = np.pad(
                found.distances, ((0, 0), (0, missing)), constant_values=np.nan
            )
            return filled
        return {
            "cluster": found.cluster,
            "cluster_kmeans": found.kmeans,
            "cluster_hdbscan": found.hdbscan,
            "x": found.map[:, 0],
            "y": found.map[:, 1],
            "pca_1": found.pca[:, 0],
            "pca_2": found.pca[:, 1],
            "outlier_score": found.outlier_score,
            "outlier_rank": found.outlier_rank,
            EMBEDDING.name: self.vectors,
        }[column.name]


@dataclass(frozen=True, slots=True)
class Table:
    """What a table will hold.

    Attributes
    ----------
    columns : tuple of Column
        In order; the last is the embedding.
    rows : int
        How many.
    """

    columns: tuple[Column, ...]
    rows: int


def blocks(inputs: Inputs) -> Iterator[Block]:
    """The rows, in the order of the list.

    Yields
    ------
    Block

    Raises
    ------
    AstromorphError
        The files do not belong together.
    """
    names = listed_names(artefacts.list_columns(inputs.catalogue))
    rows = artefacts.rows_with_embeddings(
        inputs.catalogue, inputs.split, inputs.embeddings
    )
    fates = artefacts.read_csv(inputs.split, SPLIT_COLUMNS)
    for analysis in read_analysis_parts(inputs.analysis):
        taken = list(itertools.islice(rows, len(analysis)))
        ids = tuple(row["image_id"] for row, _ in taken)
        if ids != analysis.image_ids:
            raise _of_others(inputs)
        facts = tuple(
            {names.get(name, name): cell for name, cell in row.items()}
            | {"subset": _fate(fates, row["image_id"])}
            for row, _ in taken
        )
        yield Block(facts, analysis, np.stack([vector for _, vector in taken]))
    if next(rows, None) is not None:
        raise _of_others(inputs)


def _fate(fates: Iterator[dict[str, str]], image_id: str) -> str:
    return next(fate["subset"] for fate in fates if fate["image_id"] == image_id)


def _of_others(inputs: Inputs) -> AstromorphError:
    return AstromorphError(
        f"{inputs.analysis}: its images are not those of the embeddings; "
        "run `analyse` again"
    )


def columns_of_list(catalogue: str | Path) -> list[str]:
    """The list's columns by their names in the tables; says which were renamed."""
    names = listed_names(artefacts.list_columns(catalogue))
    for column, name in names.items():
        if column != name:
            LOG.info(
                "the list's column `%s` is `%s` here: its name is taken", column, name
            )
    return list(names.values())


def describe(inputs: Inputs) -> Table:
    """Read all rows once to know kinds and lengths.

    Returns
    -------
    Table
        Facts of the catalogue, columns of the list (numbers where all cells are),
        the analysis, the embedding.

    Raises
    ------
    AstromorphError
        The files do not belong together.
    """
    own = [
        Profile(Column(name, "text", OF_THE_LIST), free=True)
        for name in columns_of_list(inputs.catalogue)
    ]
    facts = [*(Profile(column, free=False) for column in FACTS), *own]
    texts = [Profile(c, free=False) for c in ANALYSED if c.kind in ("text", "ids")]
    rows = distances = 0
    for block in blocks(inputs):
        rows += len(block)
        distances = max(distances, block.analysis.distances.shape[1])
        for profile in (*facts, *texts):
            for cell in block.cells(profile.column.name):
                profile.see(cell)
    found = {profile.column.name: profile.found() for profile in texts}
    length = embedding_length(inputs.embeddings)
    columns = [profile.found() for profile in facts]
    columns += [found.get(column.name, column) for column in ANALYSED]
    if distances:
        columns.insert(-1, replace(DISTANCES, length=distances))
    return Table((*columns, replace(EMBEDDING, length=length)), rows)


def width(output: str | Path, column: Column, longest: int) -> int:
    """Characters that a text column gets where all rows have the same; says of cuts.

    Parameters
    ----------
    output : path
        What is written.
    column : Column
        The column.
    longest : int
        Characters of its longest text.

    Returns
    -------
    int
        From 2, as one character is another type in some readers, to `MAX_TEXT_LENGTH`.
    """
    if longest > MAX_TEXT_LENGTH:
        LOG.warning(
            "%s: texts of more than %d characters are cut in `%s`; embeddings.csv and "
            "embeddings.parquet have them whole", output, MAX_TEXT_LENGTH, column.name,
        )  # fmt: skip
    return max(2, min(longest, MAX_TEXT_LENGTH))
