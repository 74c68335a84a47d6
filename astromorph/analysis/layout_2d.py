"""Places on a flat map for points of many dimensions: UMAP.

Points `(N, K)`, float32; rows are images.
"""

import warnings
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from astromorph.analysis.clusters import sample_indices
from astromorph.analysis.neighbours import nearest_neighbours

if TYPE_CHECKING:
    from astromorph.settings.sections import AnalysisSettings

Points = NDArray[np.float32]

FEWEST = 16  # points from which on UMAP has anything to lay out
PLACED_BY = 5  # nearest points of the sample among which another is placed
ROWS_AT_A_TIME = 4096
SPREAD = 10.0  # UMAP begins with coordinates of this size


def layout_2d(
    points: Points,
    plane: Points,
    rules: "AnalysisSettings",
    seed: int,
    threads: int = 0,
) -> Points:
    """Lay points out by UMAP (McInnes et al. 2018), the same at every call.

    It begins with the first two components, so that the large picture is theirs, and
    uses exact neighbours. Of more than `map_sample` points a sample is laid out; each
    of the others is placed among its five nearest of the sample, nearer ones counting
    more.

    Parameters
    ----------
    points : ndarray, shape (N, K), float32
        At least one.
    plane : ndarray, shape (N, 2), float32
        The first two components; they are the map of fewer than 16 points.
    rules : AnalysisSettings
        `map_neighbours`, `map_distance` and `map_sample` are used.
    seed : int
        Of the sample and of UMAP.
    threads : int
        Cores that look for neighbours; 0 for all.

    Returns
    -------
    ndarray, shape (N, 2), float32
    """
    if len(points) < FEWEST or len(np.unique(points, axis=0)) < FEWEST:
        return plane
    sample = sample_indices(len(points), rules.map_sample, seed)
    places = _umap(points[sample], plane[sample], rules, seed, threads)
    if len(sample) == len(points):
        return places
    found = np.empty((len(points), 2), np.float32)
    found[sample] = places
    others = np.setdiff1d(np.arange(len(points)), sample, assume_unique=True)
    found[others] = _among(points[others], points[sample], places)
    return found


def _umap(
    points: Points,
    plane: Points,
    rules: "AnalysisSettings",
    seed: int,
    threads: int,
) -> Points:
    neighbours = min(rules.map_neighbours, len(points) - 1)
    indices, distances = nearest_neighbours(points, neighbours - 1, seed, threads)
    own = np.arange(len(points))[:, None]
    # UMAP counts a point among its own neighbours.
    indices = np.hstack([own, indices]).astype(np.int32)
    distances = np.hstack([np.zeros_like(own, np.float32), distances])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"(umap|numba|pynndescent)\b")
        warnings.filterwarnings("ignore", "n_jobs value", UserWarning)
        warnings.filterwarnings("ignore", "precomputed_knn", UserWarning)
        import umap

        fit = umap.UMAP(
            n_neighbors=neighbours,
            min_dist=rules.map_distance,
            init=_beginning(plane, seed),
            random_state=seed,
            n_jobs=1,
            precomputed_knn=(indices, distances),
        )
        places = fit.fit_transform(points)
    # What has no ties to others is left out by UMAP.
    lost = ~np.isfinite(places).all(axis=1)
    places[lost] = _beginning(plane, seed)[lost]
    return np.asarray(places, np.float32)


def _beginning(plane: Points, seed: int) -> Points:
    """The first two components at the size that UMAP works at, none on another."""
    size = np.abs(plane).max() or 1.0
    noise = np.random.default_rng(seed).normal(scale=1e-4, size=plane.shape)
    return np.asarray(plane * (SPREAD / size) + noise, np.float32)


def _among(others: Points, points: Points, places: Points) -> Points:
    """Means of the places of the nearest points, weighted by one over distance."""
    from sklearn.neighbors import NearestNeighbors

    finder = NearestNeighbors(n_neighbors=PLACED_BY, algorithm="brute").fit(points)
    found = np.empty((len(others), 2), np.float32)
    for start in range(0, len(others), ROWS_AT_A_TIME):
        rows = slice(start, start + ROWS_AT_A_TIME)
        distances, indices = finder.kneighbors(others[rows])
        weights = 1 / np.maximum(distances, 1e-6)
        weights /= weights.sum(axis=1, keepdims=True)
        found[rows] = (weights[:, :, None] * places[indices]).sum(axis=1)
    return found
