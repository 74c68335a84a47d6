"""Nearest neighbours of each image, near-duplicates among them, and outlier scores.

Points `(N, K)`, float32; rows are images.
"""

import numpy as np
from numpy.typing import NDArray
from sklearn.neighbors import NearestNeighbors
from threadpoolctl import threadpool_limits

from astromorph.progress import track

Points = NDArray[np.float32]
Indices = NDArray[np.int64]

MAX_EXACT = 100_000  # images; for more, neighbours are approximate
ROWS_AT_A_TIME = 4096
CHANCE_PAIRS = 1.0  # expected near-duplicate pairs by chance in a set without any
MAX_ROUNDING = 1e-4  # distance up to which two images are equal except for rounding


def nearest_neighbours(
    points: Points,
    number: int,
    seed: int,
    threads: int = 0,
    max_exact: int = MAX_EXACT,
) -> tuple[Indices, Points]:
    """The nearest neighbours of each point, the nearest first.

    They are exact for up to 100,000 points; for more, nearest-neighbour descent (Dong
    et al. 2011) is used, which misses few.

    Parameters
    ----------
    points : ndarray, shape (N, K), float32
        One for each image.
    number : int
        Number of neighbours; M is the smaller of this number and N - 1.
    seed : int
        Seed of the descent.
    threads : int
        CPU threads; 0 for all cores.
    max_exact : int
        Number of points up to which all pairs are compared.

    Returns
    -------
    indices : ndarray, shape (N, M), int64
        Never the point itself; of equally near points, the first comes first.
    distances : ndarray, shape (N, M), float32
        0 for equal points.
    """
    number = min(number, len(points) - 1)
    if number < 1:
        return np.empty((len(points), 0), np.int64), np.empty((len(points), 0), "f4")
    indices = np.empty((len(points), number), np.int64)
    parts = _row_parts(len(points))
    # One more is needed, because a point is among its own neighbours.
    if len(points) > max_exact:
        candidates = _find_by_descent(points, number + 1, seed)
        for rows in parts:
            indices[rows] = _remove_self(candidates[rows], rows.start)
    else:
        finder = NearestNeighbors(n_neighbors=number + 1, algorithm="brute").fit(points)
        with threadpool_limits(threads or None, user_api="openmp"):
            for rows in track(parts, len(parts), f"parts of {ROWS_AT_A_TIME} images"):
                candidates = finder.kneighbors(points[rows], return_distance=False)
                indices[rows] = _remove_self(candidates, rows.start)
    return _sort_by_distance(points, indices)


def nearest_among(
    queries: Points, points: Points, number: int
) -> tuple[Indices, Points]:
    """The points nearest to each of some other points, the nearest first.

    All pairs are compared, whatever their number.

    Parameters
    ----------
    queries : ndarray, shape (Q, K), float32
        The points whose neighbours are searched.
    points : ndarray, shape (N, K), float32
        The points that are searched; at least one.
    number : int
        Number of neighbours; M is the smaller of this number and N.

    Returns
    -------
    indices : ndarray, shape (Q, M), int64
        Rows of `points`; of equally near points, the first comes first.
    distances : ndarray, shape (Q, M), float32
        0 for equal points.
    """
    number = min(number, len(points))
    indices = np.empty((len(queries), number), np.int64)
    distances = np.empty(indices.shape, np.float32)
    finder = NearestNeighbors(n_neighbors=number, algorithm="brute").fit(points)
    for rows in _row_parts(len(queries)):
        found = finder.kneighbors(queries[rows], return_distance=False)
        indices[rows], distances[rows] = _sorted_part(queries[rows], points, found)
    return indices, distances


def near_duplicates(indices: Indices, distances: Points) -> list[list[int]]:
    """For each image, those that are nearer to it than expected by chance.

    In a space of m dimensions with constant density around a point, the ratio of the
    volumes within distance d and within the distance of the n-th neighbour is
    u = (d / d_n)^m; by chance, the nearest of the n - 1 others has a smaller ratio with
    probability 1 - (1 - u)^(n - 1). m is estimated from the data (Facco et al. 2017).
    A pair counts if, for both images, this probability is so small that one such pair
    is expected among all N images. No scale has to be chosen, and dense and sparse
    regions are treated alike.

    Parameters
    ----------
    indices, distances : ndarray, shape (N, M)
        The result of `nearest_neighbours`.

    Returns
    -------
    list of list of int
        N lists, nearest first; the relation is symmetric. Images at distance 0 are
        always near-duplicates.
    """
    number, width = indices.shape
    if width == 0:
        return [[] for _ in range(number)]
    duplicates: list[dict[int, float]] = [{} for _ in range(number)]
    limits = duplicate_limits(distances)
    rows, columns = np.nonzero(distances <= limits[:, None])
    for row, column in zip(rows.tolist(), columns.tolist(), strict=True):
        other, distance = int(indices[row, column]), float(distances[row, column])
        if distance <= limits[other]:
            duplicates[row][other] = duplicates[other][row] = distance
    return [
        [other for _, other in sorted((d, other) for other, d in near.items())]
        for near in duplicates
    ]


def intrinsic_dimension(distances: Points) -> float:
    """Intrinsic dimension of the data from the two nearest neighbours of each point.

    The maximum-likelihood estimate of Facco et al. (2017), from the 90 % of points with
    the smallest ratios of the two distances, as they recommend.

    Parameters
    ----------
    distances : ndarray, shape (N, M), float
        Distances to the nearest neighbours, M at least 2.

    Returns
    -------
    float
        At least 1.
    """
    first, second = np.asarray(distances[:, :2], np.float64).T
    distinct = first > MAX_ROUNDING
    if np.count_nonzero(distinct) < 2:
        return 1.0
    log_ratios = np.sort(np.log(second[distinct] / first[distinct]))
    number = max(1, int(0.9 * len(log_ratios)))
    # The likelihood of a censored sample: the other ratios are at least as large.
    censored = (len(log_ratios) - number) * log_ratios[number - 1]
    total = float(log_ratios[:number].sum() + censored)
    return max(1.0, number / total) if total > 0 else 1.0


def outlier_scores(
    components: Points, indices: Indices
) -> tuple[Points, NDArray[np.int32]]:
    """Mean distance of each image to its nearest neighbours, and its rank.

    As in Angiulli & Pizzuti (2002), divided by the median of all images. Neighbours are
    nearest by cosine, but their distances are Euclidean, because unusual images are
    mostly farther from the mean as well. In tests, inserted outliers get better ranks
    in this way than by cosine alone or by the local outlier factor (docs/analysis.md).

    Parameters
    ----------
    components : ndarray, shape (N, K), float32
        Principal components, not scaled to length 1.
    indices : ndarray, shape (N, M), int64
        Nearest neighbours.

    Returns
    -------
    scores : ndarray, shape (N,), float32
        1 is typical; 0 if there are no neighbours.
    ranks : ndarray, shape (N,), int32
        From 1 for the largest score; ties are in the order of the images.
    """
    scores = np.zeros(len(indices), np.float32)
    if indices.shape[1]:
        for rows in _row_parts(len(indices)):
            differences = components[indices[rows]] - components[rows, None]
            scores[rows] = np.linalg.norm(differences, axis=2).mean(axis=1)
        median = float(np.median(scores))
        scores /= np.float32(median or 1)
    ranks = np.empty(len(scores), np.int32)
    ranks[np.argsort(-scores, kind="stable")] = np.arange(1, len(scores) + 1)
    return scores, ranks


def duplicate_limits(
    reference: Points, distances: Points | None = None
) -> NDArray[np.float64]:
    """Distance up to which another image is a near-duplicate of each image `(N,)`.

    Parameters
    ----------
    reference : ndarray, shape (R, M), float32
        Distances of the images of a run to their nearest neighbours, from which the
        dimension is estimated.
    distances : ndarray, shape (N, M), float32, optional
        Those of the images in question; by default `reference`.
    """
    distances = reference if distances is None else distances
    number, width = reference.shape
    if width < 3:
        return np.full(len(distances), MAX_ROUNDING)
    dimension = intrinsic_dimension(reference)
    share = 1 - (1 - CHANCE_PAIRS / number) ** (1 / (width - 1))
    limits = distances[:, -1] * share ** (1 / dimension)
    return np.asarray(np.maximum(MAX_ROUNDING, limits))


def _find_by_descent(points: Points, number: int, seed: int) -> Indices:
    from pynndescent import NNDescent  # imports numba, which takes seconds

    index = NNDescent(points, n_neighbors=max(number, 15), random_state=seed, n_jobs=1)
    indices, _ = index.neighbor_graph
    return np.asarray(indices[:, :number], np.int64)


def _remove_self(candidates: Indices, start: int) -> Indices:
    """Remove from each row its own index or, if that is missing, the last candidate.

    It is missing if more points than there are candidates are equal to it.
    """
    own = candidates == np.arange(start, start + len(candidates))[:, None]
    own[~own.any(axis=1), -1] = True
    return np.asarray(candidates[~own].reshape(len(candidates), -1), np.int64)


def _sort_by_distance(points: Points, indices: Indices) -> tuple[Indices, Points]:
    """Sort the neighbours of each point by distance."""
    distances = np.empty(indices.shape, np.float32)
    for rows in _row_parts(len(points)):
        indices[rows], distances[rows] = _sorted_part(
            points[rows], points, indices[rows]
        )
    return indices, distances


def _sorted_part(
    queries: Points, points: Points, neighbours: Indices
) -> tuple[Indices, Points]:
    """Sort by distances from differences, without rounding errors of dot products."""
    lengths = np.linalg.norm(points[neighbours] - queries[:, None], axis=2)
    order = np.lexsort((neighbours, lengths), axis=1)
    return (
        np.take_along_axis(neighbours, order, axis=1),
        np.take_along_axis(lengths, order, axis=1),
    )


def _row_parts(number: int) -> list[slice]:
    starts = range(0, number, ROWS_AT_A_TIME)
    return [slice(start, min(start + ROWS_AT_A_TIME, number)) for start in starts]
