"""The space in which distances between embeddings are measured.

Its axes are the principal components of the embeddings, scaled by a power of their
standard deviation; each image is represented by its direction from the mean.

scikit-learn takes a second to import. The map needs only the axes, so that the layout
imports it where it needs it.
"""

import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from astromorph.settings.sections import AnalysisSettings

Vectors = NDArray[np.float32]
ROUNDING = 1e-6  # relative difference between float32 embeddings of equal images
ROWS_AT_A_TIME = 8192
ROWS_PER_COMPONENT = 4
MIN_COMPONENTS = 8
MIN_ANGULAR = 3  # dimensions; with fewer, directions contain too little information
Points = NDArray[np.float32]
MIN_UMAP = 16  # points; fewer are laid out by principal components
ANCHORS = 5  # points of the sample that determine the position of another point
PLACED_AT_A_TIME = 4096
INITIAL_SIZE = 10.0  # largest initial coordinate, as in UMAP's own initialisation


@dataclass(frozen=True, slots=True)
class Space:
    """A linear map from embeddings to the space of the analysis.

    Attributes
    ----------
    mean : ndarray, shape (D,), float64
        Mean of the embeddings.
    axes : ndarray, shape (D, K), float64
        Principal axes, scaled.
    min_length : float
        Shorter vectors are not scaled to length 1: they only differ by rounding.
    explained : ndarray, shape (K,), float64
        Share of the variance in each component.
    """

    mean: NDArray[np.float64]
    axes: NDArray[np.float64]
    min_length: float
    explained: NDArray[np.float64]

    @property
    def angular(self) -> bool:
        """Whether points have length 1."""
        return int(self.axes.shape[1]) >= MIN_ANGULAR

    def project(self, vectors: Vectors) -> Vectors:
        """Project embeddings, which need not be those that the space was fitted to.

        Euclidean distances between points run from 0 to 2: 1.41 means unrelated, 2
        opposite. In one or two dimensions, the points are the components.

        Parameters
        ----------
        vectors : ndarray, shape (N, D), float32
            Embeddings.

        Returns
        -------
        ndarray, shape (N, K), float32
        """
        return self._project(vectors, to_unit_length=self.angular)

    def components(self, vectors: Vectors) -> Vectors:
        """Scaled principal components of embeddings, `(N, K)`, float32."""
        return self._project(vectors, to_unit_length=False)

    def _project(self, vectors: Vectors, *, to_unit_length: bool) -> Vectors:
        points = np.empty((len(vectors), self.axes.shape[1]), np.float32)
        for rows in _row_parts(len(vectors)):
            part = (np.asarray(vectors[rows], np.float64) - self.mean) @ self.axes
            if to_unit_length:
                length = np.linalg.norm(part, axis=1, keepdims=True)
                part /= np.maximum(length, self.min_length)
            points[rows] = part
        return points


def fit_space(vectors: Vectors, whiten: float, components: int) -> Space:
    """Fit the space to embeddings.

    Distances are cosine distances about the mean: a brighter image of the same object
    has the same direction, but is farther from the mean. For radio galaxies and the
    simulated sky, the twelve nearest images are of the same kind more often by cosine
    than by Euclidean distance, and most often with a `whiten` of 0.5, for trained and
    untrained networks alike; docs/analysis.md has the numbers.

    Parameters
    ----------
    vectors : ndarray, shape (N, D), float32
        Embeddings, at least one.
    whiten : float
        Each component is divided by this power of its standard deviation: 0 leaves
        components unchanged, 1 gives all of them the same variance.
    components : int
        Maximum number of components. It is limited to one for every four images, but
        not below eight; components without variance are left out.

    Returns
    -------
    Space
    """
    mean: NDArray[np.float64] = np.asarray(vectors.mean(axis=0, dtype=np.float64))
    deviations, axes = _principal_axes(vectors, mean)
    total = float((deviations**2).sum())
    size = float(np.sqrt(np.mean(mean**2) * len(mean)))
    if not len(deviations) or deviations[0] <= ROUNDING * size or total == 0:
        return Space(mean, np.zeros((len(mean), 1)), 1.0, np.zeros(1))
    number = min(components, max(MIN_COMPONENTS, len(vectors) // ROWS_PER_COMPONENT))
    significant = np.count_nonzero(deviations > ROUNDING * deviations[0])
    number = min(number, int(significant))
    scale = deviations[:number] ** -whiten
    typical_length = float(np.sqrt(((deviations[:number] * scale) ** 2).sum()))
    explained = deviations[:number] ** 2 / total
    return Space(mean, axes[:, :number] * scale, ROUNDING * typical_length, explained)


def _principal_axes(
    vectors: Vectors, mean: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Standard deviations, the largest first, and axes `(D, K)` with fixed signs.

    scikit-learn's PCA is not suitable. For 100,000 float32 embeddings of length 512
    (205 MB), its solver "full" took twice as long and another 593 MB; the errors of
    "covariance_eigh", which sums in float32, reached 70 %, because the mean is large
    compared with the variance; `IncrementalPCA` took four times as long.
    """
    number, length = vectors.shape
    if number <= length:
        centred = np.asarray(vectors, np.float64) - mean
        _, singular_values, rows = np.linalg.svd(centred, full_matrices=False)
        deviations, axes = singular_values / np.sqrt(number), rows.T
    else:
        # Summed in parts: a copy in double precision would not fit into memory.
        covariance = np.zeros((length, length))
        for part in _row_parts(number):
            centred = np.asarray(vectors[part], np.float64) - mean
            covariance += centred.T @ centred
        variances, columns = np.linalg.eigh(covariance / number)
        deviations = np.sqrt(np.maximum(variances[::-1], 0))
        axes = columns[:, ::-1]
    largest = np.abs(axes).argmax(axis=0)
    signs = np.sign(axes[largest, np.arange(axes.shape[1])])
    return deviations, axes * signs


def _row_parts(number: int) -> Iterator[slice]:
    for start in range(0, number, ROWS_AT_A_TIME):
        yield slice(start, start + ROWS_AT_A_TIME)


def layout_2d(
    points: Points,
    components: Points,
    rules: AnalysisSettings,
    seed: int,
    threads: int = 0,
) -> Points:
    """Lay points out by UMAP (McInnes et al. 2018), identically at every call.

    The layout is initialised with the first two components, which determine the
    large-scale arrangement, and uses the neighbours of `nearest_neighbours`. Of more
    than `map_sample` points, a sample is laid out; each other point is placed at the
    mean of its five nearest points of the sample, weighted by inverse distance.

    Parameters
    ----------
    points : ndarray, shape (N, K), float32
        At least one.
    components : ndarray, shape (N, 2), float32
        The first two components; also the layout of fewer than 16 distinct points.
    rules : AnalysisSettings
        `map_neighbours`, `map_distance` and `map_sample` are used.
    seed : int
        Seed of the sample and of UMAP.
    threads : int
        CPU threads for the neighbour search; 0 for all cores.

    Returns
    -------
    ndarray, shape (N, 2), float32
    """
    if len(points) < MIN_UMAP or len(np.unique(points, axis=0)) < MIN_UMAP:
        return components
    from astromorph.analysis.clusters import sample_indices

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
    from astromorph.analysis.neighbours import nearest_neighbours

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

        _keep_compiled(sys.modules[umap.UMAP.__module__])
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


def _keep_compiled(module: Any) -> None:
    """Let numba keep two functions of UMAP on disk, as it keeps others of UMAP.

    Otherwise each process compiles them, which takes longer than all else here unless
    there are thousands of images.
    """
    for name in ("smooth_knn_dist", "compute_membership_strengths"):
        enable = getattr(getattr(module, name, None), "enable_caching", None)
        if enable is not None:
            enable()


def _make_initial_layout(components: Points, seed: int) -> Points:
    """The first two components at UMAP's scale; noise separates equal points."""
    size = np.abs(components).max() or 1.0
    noise = np.random.default_rng(seed).normal(scale=1e-4, size=components.shape)
    return np.asarray(components * (INITIAL_SIZE / size) + noise, np.float32)


def _interpolate(others: Points, sample: Points, sample_layout: Points) -> Points:
    """Mean positions of the nearest points of the sample, by inverse distance."""
    from sklearn.neighbors import NearestNeighbors

    finder = NearestNeighbors(n_neighbors=ANCHORS, algorithm="brute").fit(sample)
    layout = np.empty((len(others), 2), np.float32)
    for start in range(0, len(others), PLACED_AT_A_TIME):
        rows = slice(start, start + PLACED_AT_A_TIME)
        distances, indices = finder.kneighbors(others[rows])
        weights = 1 / np.maximum(distances, 1e-6)
        weights /= weights.sum(axis=1, keepdims=True)
        layout[rows] = (weights[:, :, None] * sample_layout[indices]).sum(axis=1)
    return layout
