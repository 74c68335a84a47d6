"""The nearest images of each, near-duplicates among them, and what has none near.

Points `(N, K)`, float32; rows are images.
"""

import numpy as np
from numpy.typing import NDArray

from astromorph.progress import track

Points = NDArray[np.float32]
Places = NDArray[np.int64]

EXACT_UP_TO = 100_000  # images; beyond, neighbours are found by descent
ROWS_AT_A_TIME = 4096
BY_CHANCE = 1.0  # pairs that a set without near-duplicates may be said to have
SAME = 1e-4  # distance below which two images are equal but for rounding


def nearest_neighbours(
    points: Points,
    number: int,
    seed: int,
    threads: int = 0,
    exact_up_to: int = EXACT_UP_TO,
) -> "tuple[Places, Points]":
    """The nearest other points of each, the nearest first.

    Exact up to 100,000 points; beyond, by nearest-neighbour descent (Dong et al.
    2011), which misses few.

    Parameters
    ----------
    points : ndarray, shape (N, K), float32
        One for each image.
    number : int
        How many are wanted; there are N - 1 at most.
    seed : int
        Of the descent.
    threads : int
        Cores that look; 0 for all.
    exact_up_to : int
        Most points for which every pair is looked at.

    Returns
    -------
    indices : ndarray, shape (N, M), int64
        Never a point itself; of equally near ones the first comes first.
    distances : ndarray, shape (N, M), float32
        0 for equal points.
    """
    wanted = min(number, len(points) - 1)
    if wanted < 1:
        return np.empty((len(points), 0), np.int64), np.empty((len(points), 0), "f4")
    indices = np.empty((len(points), wanted), np.int64)
    if len(points) > exact_up_to:
        found = _by_descent(points, wanted + 1, seed)
        for rows in _parts(len(points)):
            indices[rows] = _without_itself(found[rows], rows.start)
    else:
        from sklearn.neighbors import NearestNeighbors
        from threadpoolctl import threadpool_limits

        finder = NearestNeighbors(n_neighbors=wanted + 1, algorithm="brute").fit(points)
        parts = _parts(len(points))
        with threadpool_limits(threads or None, user_api="openmp"):
            for rows in track(parts, len(parts), f"parts of {ROWS_AT_A_TIME} images"):
                found = finder.kneighbors(points[rows], return_distance=False)
                indices[rows] = _without_itself(found, rows.start)
    return _measured(points, indices)


def nearest_to_point(
    point: Points, points: Points, number: int
) -> "tuple[Places, Points]":
    """The nearest points `(M,)` to one `(K,)`, and their distances `(M,)`."""
    distances = np.linalg.norm(points - point, axis=1)
    order = np.argsort(distances, kind="stable")[:number]
    return order, distances[order]


def near_duplicates(indices: "Places", distances: Points) -> "list[list[int]]":
    """For each image those that are closer to it than chance explains.

    Around a point in a space of m dimensions that is evenly filled nearby, the share
    of the volume up to the n-th neighbour that lies within a nearer one, u = (d /
    d_n)^m, is smaller than that by chance with probability 1 - (1 - u)^(n - 1). m is
    the data's own (Facco et al. 2017, from the two nearest). A pair counts where this
    probability, seen from both sides, is so small that all N images together
    would give one such pair. The rule asks for no scale and adapts to crowded and
    empty places.

    Parameters
    ----------
    indices, distances : ndarray, shape (N, M)
        As `nearest_neighbours` gives them.

    Returns
    -------
    list of list of int
        N lists, nearest first; if a is in b's, b is in a's. Images at distance 0 are
        duplicates whatever lies around them.
    """
    number, width = indices.shape
    found: list[dict[int, float]] = [{} for _ in range(number)]
    if width == 0:
        return [[] for _ in range(number)]
    limits = duplicate_limits(distances)
    rows, columns = np.nonzero(distances <= limits[:, None])
    for row, column in zip(rows.tolist(), columns.tolist(), strict=True):
        other, distance = int(indices[row, column]), float(distances[row, column])
        if distance <= limits[other]:
            found[row][other] = found[other][row] = distance
    return [sorted(near, key=lambda k, near=near: (near[k], k)) for near in found]  # type: ignore[misc]


def duplicate_limits(distances: Points) -> NDArray[np.float64]:
    """How close to each image another must be to be its near-duplicate `(N,)`."""
    number, width = distances.shape
    if width < 3:
        return np.full(number, SAME)
    dimension = intrinsic_dimension(distances)
    share = 1 - (1 - BY_CHANCE / number) ** (1 / (width - 1))
    return np.asarray(np.maximum(SAME, distances[:, -1] * share ** (1 / dimension)))


def intrinsic_dimension(distances: Points) -> float:
    """Dimension of the data, from how much farther the second neighbour is.

    Facco et al. (2017): the maximum-likelihood estimate, of the nine tenths with the
    smallest ratios, as they advise.

    Parameters
    ----------
    distances : ndarray, shape (N, M), float
        To the nearest, M at least 2.

    Returns
    -------
    float
        At least 1.
    """
    one, two = np.asarray(distances[:, :2], np.float64).T
    apart = one > SAME
    if np.count_nonzero(apart) < 2:
        return 1.0
    ratios = np.sort(np.log(two[apart] / one[apart]))
    kept = max(1, int(0.9 * len(ratios)))
    # Of a sample cut off at its upper end: the cut ones are as long as the longest.
    total = float(ratios[:kept].sum() + (len(ratios) - kept) * ratios[kept - 1])
    return max(1.0, kept / total) if total > 0 else 1.0


def outlier_scores(
    components: Points, indices: "Places"
) -> tuple[Points, NDArray[np.int32]]:
    """How far each image lies from its like, and its rank, 1 the farthest.

    The mean distance to its nearest images (Angiulli & Pizzuti 2002), over the median
    of all. The nearest are those by cosine; the distances are not, because what has
    no like mostly lies farther from the mean too. Planted oddities come out on top so,
    which they do less by cosine alone or by the local outlier factor
    (docs/analysis.md).

    Parameters
    ----------
    components : ndarray, shape (N, K), float32
        Not of length 1.
    indices : ndarray, shape (N, M), int64
        Their nearest.

    Returns
    -------
    scores : ndarray, shape (N,), float32
        1 is usual; 0 where there are no others.
    ranks : ndarray, shape (N,), int32
        From 1; of equal scores the first image has the first rank.
    """
    scores = np.zeros(len(indices), np.float32)
    if indices.shape[1]:
        for rows in _parts(len(indices)):
            difference = components[indices[rows]] - components[rows, None]
            scores[rows] = np.linalg.norm(difference, axis=2).mean(axis=1)
        usual = float(np.median(scores))
        scores /= np.float32(usual or 1)
    ranks = np.empty(len(scores), np.int32)
    ranks[np.argsort(-scores, kind="stable")] = np.arange(1, len(scores) + 1)
    return scores, ranks


def _by_descent(points: Points, number: int, seed: int) -> "Places":
    from pynndescent import NNDescent

    index = NNDescent(points, n_neighbors=max(number, 15), random_state=seed, n_jobs=1)
    found, _ = index.neighbor_graph
    return np.asarray(found[:, :number], np.int64)


def _without_itself(found: "Places", start: int) -> "Places":
    """Rows without their own number, or without their last where it is not there."""
    own = found == np.arange(start, start + len(found))[:, None]
    own[~own.any(axis=1), -1] = True
    return np.asarray(found[~own].reshape(len(found), -1), np.int64)


def _measured(points: Points, indices: "Places") -> "tuple[Places, Points]":
    """Distances without the rounding of squares, and the order that they give."""
    distances = np.empty(indices.shape, np.float32)
    for rows in _parts(len(points)):
        chosen = indices[rows]
        difference = points[chosen] - points[rows, None]
        distance = np.linalg.norm(difference, axis=2)
        order = np.lexsort((chosen, distance), axis=1)
        indices[rows] = np.take_along_axis(chosen, order, axis=1)
        distances[rows] = np.take_along_axis(distance, order, axis=1)
    return indices, distances


def _parts(number: int) -> list[slice]:
    starts = range(0, number, ROWS_AT_A_TIME)
    return [slice(start, min(start + ROWS_AT_A_TIME, number)) for start in starts]
