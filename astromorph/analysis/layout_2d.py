"""The two-dimensional layout of the map, by UMAP.

Points `(N, K)`, float32; rows are images.
"""

import warnings

import numpy as np
from numpy.typing import NDArray
from sklearn.neighbors import NearestNeighbors

from astromorph.analysis.clusters import sample_indices
from astromorph.analysis.neighbours import nearest_neighbours
from astromorph.settings.sections import AnalysisSettings

Points = NDArray[np.float32]

MIN_UMAP = 16  # points; fewer are laid out by components
ANCHORS = 5  # nearest points of the sample that position a point outside of it
ROWS_AT_A_TIME = 4096
INITIAL_SIZE = 10.0  # largest initial coordinate, as UMAP's own initialisation has it


def layout_2d(
    points: Points,
    components: Points,
    rules: AnalysisSettings,
    seed: int,
    threads: int = 0,
) -> Points:
    """Lay points out by UMAP (McInnes et al. 2018), identically at every call.

    It is initialised with the first two components, which determine the large-scale
    arrangement, and uses exact neighbours. Of more than `map_sample` points a sample is
    laid out; each of the others is positioned among its five nearest points of the
    sample, weighted by inverse distance.

    Parameters
    ----------
    points : ndarray, shape (N, K), float32
        At least one.
    components : ndarray, shape (N, 2), float32
        The first two components; also the layout of fewer than 16 distinct points.
    rules : AnalysisSettings
        `map_neighbours`, `map_distance` and `map_sample` are used.
    seed : int
        Of the sample and of UMAP.
    threads : int
        CPU threads that search neighbours; 0 for all cores.

    Returns
    -------
    ndarray, shape (N, 2), float32
    """
    if len(points) < MIN_UMAP or len(np.unique(points, axis=0)) < MIN_UMAP:
        return components
    sample = sample_indices(len(points), rules.map_sample, seed)
    sample_layout = _umap(points[sample], components[sample], rules, seed, threads)
    if len(sample) == len(points):
        return sample_layout
    layout = np.empty((len(points), 2), np.float32)
    layout[sample] = sample_layout
    others = np.setdiff1d(np.arange(len(points)), sample, assume_unique=True)
    layout[others] = _interpolate(points[others], points[sample], sample_layout)
    return layout


def _umap(
    points: Points,
    components: Points,
    rules: AnalysisSettings,
    seed: int,
    threads: int,
) -> Points:
    number = min(rules.map_neighbours, len(points) - 1)
    indices, distances = nearest_neighbours(points, number - 1, seed, threads)
    own = np.arange(len(points))[:, None]
    # UMAP counts a point among its own neighbours.
    indices = np.hstack([own, indices]).astype(np.int32)
    distances = np.hstack([np.zeros_like(own, np.float32), distances])
    initial = _make_initial_layout(components, seed)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"(umap|numba|pynndescent)\b")
        warnings.filterwarnings("ignore", "n_jobs value", UserWarning)
        warnings.filterwarnings("ignore", "precomputed_knn", UserWarning)
        import umap  # imports numba, which takes seconds

        fit = umap.UMAP(
            n_neighbors=number,
            min_dist=rules.map_distance,
            init=initial.copy(),
            random_state=seed,
            n_jobs=1,
            precomputed_knn=(indices, distances),
        )
        layout = fit.fit_transform(points)
    # UMAP leaves out points without a connection to others.
    missing = ~np.isfinite(layout).all(axis=1)
    layout[missing] = initial[missing]
    return np.asarray(layout, np.float32)


def _make_initial_layout(components: Points, seed: int) -> Points:
    """The first two components at UMAP's scale; noise separates equal points."""
    size = np.abs(components).max() or 1.0
    noise = np.random.default_rng(seed).normal(scale=1e-4, size=components.shape)
    return np.asarray(components * (INITIAL_SIZE / size) + noise, np.float32)


def _interpolate(others: Points, sample: Points, sample_layout: Points) -> Points:
    """Mean positions of the nearest points of the sample, by inverse distance."""
    finder = NearestNeighbors(n_neighbors=ANCHORS, algorithm="brute").fit(sample)
    layout = np.empty((len(others), 2), np.float32)
    for start in range(0, len(others), ROWS_AT_A_TIME):
        rows = slice(start, start + ROWS_AT_A_TIME)
        distances, indices = finder.kneighbors(others[rows])
        weights = 1 / np.maximum(distances, 1e-6)
        weights /= weights.sum(axis=1, keepdims=True)
        layout[rows] = (weights[:, :, None] * sample_layout[indices]).sum(axis=1)
    return layout
