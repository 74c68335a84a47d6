"""A sample that has something of every cluster, where not all images can be shown."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from astromorph.artefacts.analysis_file import read_analysis_parts

ODDEST = 1000  # outliers that are kept, the oddest first
SEED = 0


def choose_shown(analysis: str | Path, most: int) -> NDArray[np.bool_]:
    """Which rows of an analysis are shown where at most so many can be.

    Parameters
    ----------
    analysis : path
        What `analyse` wrote.
    most : int
        How many can be shown.

    Returns
    -------
    ndarray, shape (N,), bool
        All, or a sample: see `stratified_sample`. Kept are the representatives and odd
        members of clusters, and the oddest images of all.
    """
    parts = [
        (part.cluster, part.outlier_rank, np.array([bool(r) for r in part.roles]))
        for part in read_analysis_parts(analysis)
    ]
    cluster, rank, role = (np.concatenate(some) for some in zip(*parts, strict=True))
    return stratified_sample(cluster, rank, role, most)


def stratified_sample(
    cluster: NDArray[np.int32],
    rank: NDArray[np.int32],
    role: NDArray[np.bool_],
    most: int,
) -> NDArray[np.bool_]:
    """Draw rows by cluster, in proportion to how many it has.

    Parameters
    ----------
    cluster : ndarray, shape (N,), int32
        The strata.
    rank : ndarray, shape (N,), int32
        1 is the oddest. The first thousand are kept, or a tenth of the sample where
        that is fewer.
    role : ndarray, shape (N,), bool
        True is kept before all others.
    most : int
        Rows of the sample, at least 1.

    Returns
    -------
    ndarray, shape (N,), bool
        All rows where they are no more than `most`, else exactly `most`. The same
        each time.
    """
    number = len(cluster)
    if number <= most:
        return np.ones(number, bool)
    wanted = role | (rank <= min(ODDEST, most // 10))
    draw = np.random.default_rng(SEED).random(number)
    # Within a cluster by lot; the k-th of n stands at (k + a half) / n. So the first
    # rows by place have as much of each cluster as there is of it, and no row less.
    by_cluster = np.lexsort((draw, cluster))
    _, starts, counts = np.unique(
        cluster[by_cluster], return_index=True, return_counts=True
    )
    within = np.arange(number) - np.repeat(starts, counts)
    place = np.empty(number)
    place[by_cluster] = (within + 0.5) / np.repeat(counts, counts)
    first = np.lexsort((draw, place, ~wanted))[:most]
    chosen = np.zeros(number, bool)
    chosen[first] = True
    return chosen
