"""Groups of images: k-means, HDBSCAN, and how far to trust them.

Points `(N, K)`, float32; rows are images.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from astromorph.progress import track

Points = NDArray[np.float32]
Labels = NDArray[np.int32]
Grouping = Callable[[Points], Labels]

SAMPLE = 10_000  # images on which the number of clusters and stability are found
SILHOUETTES = 4_000  # images of which silhouettes are taken; time grows as the square
STARTS = 4  # of k-means, of which the best counts
REFITS = 10
LEADING = 8  # components in which HDBSCAN looks for crowds
CROWDED = 40_000  # images that HDBSCAN looks at; its time grows as the square


@dataclass(frozen=True, slots=True)
class Trust:
    """How well a grouping is founded.

    Attributes
    ----------
    silhouette : float or None
        Mean, from -1 to 1; None where there are no two clusters.
    silhouettes : tuple of float or None
        Mean by cluster.
    stability : float or None
        Mean adjusted Rand index of refits to random halves, 1 where all agree.
    stabilities : tuple of float or None
        By cluster, the mean Jaccard index of its nearest in each refit.
    """

    silhouette: float | None
    silhouettes: tuple[float | None, ...]
    stability: float | None
    stabilities: tuple[float | None, ...]


def kmeans(points: Points, number: int, seed: int) -> "Labels":
    """Labels of k-means, the largest cluster 0.

    Parameters
    ----------
    points : ndarray, shape (N, K), float32
        At least one.
    number : int
        Clusters; fewer are made where there are fewer different points.
    seed : int
        Of the starts.

    Returns
    -------
    ndarray, shape (N,), int32
    """
    from sklearn.cluster import KMeans

    number = min(number, _different(points, number))
    if number == 1:
        return np.zeros(len(points), np.int32)
    fit = KMeans(number, n_init=STARTS, random_state=seed).fit(points)
    return by_size(fit.labels_)


def choose_number(points: Points, most: int, seed: int) -> dict[int, float]:
    """Mean silhouette of k-means by number of clusters; the largest is the best.

    Numbers run from 2 to `most`, and no farther than the root of N: smaller groups
    than that are chance. Of more than 10,000 points a sample is looked at.

    Returns
    -------
    dict of int to float
        Empty where there are too few points for two clusters.
    """
    sample = points[sample_indices(len(points), SAMPLE, seed)]
    last = min(most, int(np.sqrt(len(points))), _different(sample, most + 1) - 1)
    numbers = range(2, last + 1)
    found: dict[int, float] = {}
    for number in track(numbers, len(numbers), "numbers of clusters"):
        labels = kmeans(sample, number, seed)
        mean, _ = silhouettes(sample, labels, seed)
        if mean is not None:
            found[number] = mean
    return found


def hdbscan(points: Points, smallest: int, seed: int) -> "Labels":
    """Labels of HDBSCAN (Campello et al. 2015), the largest 0, -1 in no cluster.

    It looks for crowds in the leading eight components: in more dimensions all
    points are about as far from each other, and most of them fall out. Of more than
    40,000 points a sample is clustered, and each of the others goes with the nearest
    of it.

    Parameters
    ----------
    points : ndarray, shape (N, K), float32
        At least one.
    smallest : int
        Images that make a cluster.
    seed : int
        Of the sample.

    Returns
    -------
    ndarray, shape (N,), int32
    """
    from sklearn.cluster import HDBSCAN
    from sklearn.neighbors import NearestNeighbors

    if len(points) < 2 * smallest or _different(points, 2) < 2:
        return np.full(len(points), -1, np.int32)
    leading = np.ascontiguousarray(points[:, :LEADING], np.float64)
    sample = sample_indices(len(points), CROWDED, seed)
    enough = max(2, round(smallest * len(sample) / len(points)))
    fit = HDBSCAN(min_cluster_size=enough, algorithm="kd_tree", copy=True)
    labels = fit.fit_predict(leading[sample])
    if len(sample) < len(points):
        finder = NearestNeighbors(n_neighbors=1, algorithm="kd_tree")
        nearest = finder.fit(leading[sample]).kneighbors(leading, return_distance=False)
        labels = labels[nearest[:, 0]]
    return by_size(labels)


def by_size(labels: NDArray[Any]) -> "Labels":
    """The same clusters, the largest 0; of equal ones the one with the first image.

    -1 stays.
    """
    names, first, counts = np.unique(labels, return_index=True, return_counts=True)
    kept = names >= 0
    order = np.lexsort((first[kept], -counts[kept]))
    renamed = {int(name): k for k, name in enumerate(names[kept][order])}
    return np.array([renamed.get(int(label), -1) for label in labels], np.int32)


def measure_trust(
    points: Points, labels: "Labels", again: "Grouping", seed: int
) -> Trust:
    """Silhouettes (Rousseeuw 1987) and stability under resampling (Hennig 2007).

    Parameters
    ----------
    points : ndarray, shape (N, K), float32
        Of more than some thousands a sample is looked at.
    labels : ndarray, shape (N,), int32
        Clusters, from 0; -1 in none.
    again : callable
        Points to labels: what made them.
    seed : int
        Of samples and halves.

    Returns
    -------
    Trust
    """
    number = int(labels.max()) + 1
    mean, each = silhouettes(points, labels, seed)
    agreements, by_cluster = _refitted(points, labels, again, seed)
    stability = float(np.mean(agreements)) if agreements else None
    return Trust(
        mean,
        tuple(each[k] for k in range(number)),
        stability,
        tuple(
            float(np.mean(by_cluster[k])) if by_cluster[k] else None
            for k in range(number)
        ),
    )


def silhouettes(
    points: Points, labels: "Labels", seed: int
) -> tuple[float | None, list[float | None]]:
    """Mean silhouette of all clustered points and by cluster; None where there is none.

    Of more than 4,000 points a sample is looked at.
    """
    from sklearn.metrics import silhouette_samples

    number = int(labels.max(initial=-1)) + 1
    each: list[float | None] = [None] * number
    clustered = np.flatnonzero(labels >= 0)
    chosen = clustered[sample_indices(len(clustered), SILHOUETTES, seed)]
    here = labels[chosen]
    if not 2 <= len(np.unique(here)) < len(here):
        return None, each
    values = silhouette_samples(points[chosen], here)
    for k in np.unique(here).tolist():
        each[k] = float(values[here == k].mean())
    return float(values.mean()), each


def member_roles(
    points: Points, labels: "Labels"
) -> tuple[dict[int, int], dict[int, int]]:
    """Of each cluster the image nearest to its centre, and the one farthest from it.

    Returns
    -------
    representatives, odd : dict of int to int
        Cluster to image. A cluster of one image has no odd one.
    """
    representatives, odd = {}, {}
    for k in range(int(labels.max(initial=-1)) + 1):
        members = np.flatnonzero(labels == k)
        centre = points[members].mean(axis=0, dtype=np.float64)
        distance = np.linalg.norm(points[members] - centre, axis=1)
        nearest = int(distance.argmin())
        representatives[k] = int(members[nearest])
        if len(members) > 1:
            distance[nearest] = -1
            odd[k] = int(members[distance.argmax()])
    return representatives, odd


def sample_indices(number: int, most: int, seed: int) -> NDArray[np.int64]:
    """Which of `number` are in a sample of at most `most`, in order."""
    if number <= most:
        return np.arange(number)
    generator = np.random.default_rng([seed, number, most])
    return np.sort(generator.choice(number, most, replace=False))


def _refitted(
    points: Points, labels: "Labels", again: "Grouping", seed: int
) -> tuple[list[float], list[list[float]]]:
    """Agreement with each refit to a half, and of each cluster with its nearest."""
    from sklearn.metrics import adjusted_rand_score

    number = int(labels.max(initial=-1)) + 1
    agreements: list[float] = []
    by_cluster: list[list[float]] = [[] for _ in range(number)]
    sample = sample_indices(len(points), SAMPLE, seed)
    if number == 0 or len(sample) < 4:
        return agreements, by_cluster
    halves = list(_halves(sample, seed))
    for half in track(halves, len(halves), "refits"):
        here, other = labels[half], again(points[half])
        agreements.append(float(adjusted_rand_score(here, other)))
        for k in np.unique(here[here >= 0]).tolist():
            by_cluster[k].append(_jaccard(here == k, other))
    return agreements, by_cluster


def _halves(sample: NDArray[np.int64], seed: int) -> Iterator[NDArray[np.int64]]:
    generator = np.random.default_rng([seed, len(sample)])
    for _ in range(REFITS):
        yield np.sort(generator.choice(sample, len(sample) // 2, replace=False))


def _jaccard(members: NDArray[np.bool_], other: "Labels") -> float:
    """Of the cluster of `other` that is most like `members`: shared over all."""
    best = 0.0
    for k in range(int(other.max(initial=-1)) + 1):
        theirs = other == k
        shared = np.count_nonzero(members & theirs)
        best = max(best, shared / np.count_nonzero(members | theirs))
    return best


def _different(points: Points, most: int) -> int:
    """How many different points there are, as far as it is known that `most` are."""
    few = len(np.unique(points[: 4 * most], axis=0))
    return few if few >= most else len(np.unique(points, axis=0))
