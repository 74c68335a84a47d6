"""Clusters of images by k-means and HDBSCAN, and their quality.

Points `(N, K)`, float32; rows are images.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import HDBSCAN, KMeans
from sklearn.metrics import adjusted_rand_score, silhouette_samples
from sklearn.neighbors import NearestNeighbors

from astromorph.progress import track
from astromorph.settings.sections import AnalysisSettings

Points = NDArray[np.float32]
Labels = NDArray[np.int32]
ClusteringMethod = Callable[[Points], Labels]

BY_KMEANS, BY_HDBSCAN = "kmeans", "hdbscan"
MAX_SAMPLE = 10_000  # images used to choose the number of clusters and for stability
MAX_SILHOUETTES = 4_000  # images with a silhouette; its time grows as the square
KMEANS_STARTS = 4
REFITS = 10
HDBSCAN_COMPONENTS = 8
MAX_HDBSCAN = 100_000  # images clustered by HDBSCAN; its time grows as the square


@dataclass(frozen=True, slots=True)
class ClusterQuality:
    """How well a clustering describes the data.

    Attributes
    ----------
    silhouette : float or None
        Mean silhouette, from -1 to 1; None with fewer than two clusters.
    silhouettes : tuple of float or None
        Mean silhouette of each cluster.
    stability : float or None
        Mean adjusted Rand index with refits to random halves; 1 if all refits agree.
    stabilities : tuple of float or None
        Mean Jaccard index of each cluster with the most similar cluster of each refit.
    """

    silhouette: float | None
    silhouettes: tuple[float | None, ...]
    stability: float | None
    stabilities: tuple[float | None, ...]


@dataclass(frozen=True, slots=True)
class Clustering:
    """The clusters of N images by one method.

    Attributes
    ----------
    labels : ndarray, shape (N,), int32
        Clusters from 0, the largest first; -1 for images in no cluster.
    quality : ClusterQuality
        Silhouettes and stability.
    representatives, odd_members : dict of int to int
        For each cluster, the image nearest to its centre, and the one farthest from it.
    """

    labels: Labels
    quality: ClusterQuality
    representatives: dict[int, int]
    odd_members: dict[int, int]

    @property
    def sizes(self) -> list[int]:
        """Number of images in each cluster."""
        return [int(n) for n in np.bincount(self.labels[self.labels >= 0])]


@dataclass(frozen=True, slots=True)
class Clusterings:
    """The clusters by both methods, and how their parameters were chosen.

    Attributes
    ----------
    by_method : dict of str to Clustering
        The keys are `BY_KMEANS` and `BY_HDBSCAN`.
    silhouette_by_number : dict of int to float
        Mean silhouette of k-means by number of clusters; empty if the number is set.
    min_cluster_size : int
        Minimum number of images in a cluster of HDBSCAN.
    """

    by_method: dict[str, Clustering]
    silhouette_by_number: dict[int, float]
    min_cluster_size: int


def find_clusters(points: Points, rules: AnalysisSettings, seed: int) -> Clusterings:
    """Cluster points by k-means and by HDBSCAN.

    Parameters
    ----------
    points : ndarray, shape (N, K), float32
        At least one.
    rules : AnalysisSettings
        `clusters`, `max_clusters` and `min_cluster_size` are used.
    seed : int
        Seed of the starts of k-means and of all samples.

    Returns
    -------
    Clusterings
    """
    scores: dict[int, float] = {}
    number = rules.clusters
    if number is None:
        scores = score_numbers(points, rules.max_clusters, seed)
        number = max(scores, key=scores.__getitem__, default=1)
    min_size = rules.min_cluster_size or int(np.clip(len(points) // 100, 5, 100))
    min_share = min_size / len(points)

    def hdbscan_of_part(part: Points) -> Labels:
        return hdbscan(part, max(2, round(min_share * len(part))), seed)

    labels = {
        BY_KMEANS: kmeans(points, number, seed),
        BY_HDBSCAN: hdbscan(points, min_size, seed),
    }
    refits: dict[str, ClusteringMethod] = {
        BY_KMEANS: partial(kmeans, number=number, seed=seed),
        BY_HDBSCAN: hdbscan_of_part,
    }
    by_method = {
        name: Clustering(
            labels[name],
            measure_quality(points, labels[name], refits[name], seed),
            *find_exemplars(points, labels[name]),
        )
        for name in labels
    }
    return Clusterings(by_method, scores, min_size)


def kmeans(points: Points, number: int, seed: int) -> Labels:
    """Cluster points by k-means, the best of four starts.

    Parameters
    ----------
    points : ndarray, shape (N, K), float32
        At least one.
    number : int
        Number of clusters; fewer if there are fewer distinct points.
    seed : int
        Seed of the starts.

    Returns
    -------
    ndarray, shape (N,), int32
        Clusters from 0, the largest first.
    """
    number = min(number, _count_distinct(points, number))
    if number == 1:
        return np.zeros(len(points), np.int32)
    fit = KMeans(number, n_init=KMEANS_STARTS, random_state=seed).fit(points)
    return sort_by_size(fit.labels_)


def score_numbers(points: Points, max_number: int, seed: int) -> dict[int, float]:
    """Mean silhouette of k-means by number of clusters.

    Numbers run from 2 to `max_number`, or to the square root of N if it is smaller,
    since smaller clusters arise by chance. A sample of more than 10,000 points is used.

    Returns
    -------
    dict of int to float
        Empty if there are too few points for two clusters.
    """
    sample = points[sample_indices(len(points), MAX_SAMPLE, seed)]
    distinct = _count_distinct(sample, max_number + 1)
    last = min(max_number, int(np.sqrt(len(points))), distinct - 1)
    numbers = range(2, last + 1)
    scores: dict[int, float] = {}
    for number in track(numbers, len(numbers), "numbers of clusters"):
        labels = kmeans(sample, number, seed)
        mean, _ = silhouettes(sample, labels, seed)
        if mean is not None:
            scores[number] = mean
    return scores


def hdbscan(points: Points, min_size: int, seed: int) -> Labels:
    """Cluster points by HDBSCAN (Campello et al. 2015).

    Only the leading eight components are used: with more, distances become similar and
    most points are in no cluster. Of more than 100,000 points, a sample is clustered,
    and each other point is assigned to the cluster of the nearest point in the sample.

    Parameters
    ----------
    points : ndarray, shape (N, K), float32
        At least one.
    min_size : int
        Minimum number of images in a cluster.
    seed : int
        Seed of the sample.

    Returns
    -------
    ndarray, shape (N,), int32
        Clusters from 0, the largest first; -1 for points in no cluster.
    """
    if len(points) < 2 * min_size or _count_distinct(points, 2) < 2:
        return np.full(len(points), -1, np.int32)
    leading = np.ascontiguousarray(points[:, :HDBSCAN_COMPONENTS], np.float64)
    sample = sample_indices(len(points), MAX_HDBSCAN, seed)
    min_size_in_sample = max(2, round(min_size * len(sample) / len(points)))
    fit = HDBSCAN(min_cluster_size=min_size_in_sample, algorithm="kd_tree", copy=True)
    labels = fit.fit_predict(leading[sample])
    if len(sample) < len(points):
        finder = NearestNeighbors(n_neighbors=1, algorithm="kd_tree")
        nearest = finder.fit(leading[sample]).kneighbors(leading, return_distance=False)
        labels = labels[nearest[:, 0]]
    return sort_by_size(labels)


def sort_by_size(labels: NDArray[Any]) -> Labels:
    """Renumber clusters by size, the largest 0; of equal ones, the first comes first.

    Parameters
    ----------
    labels : ndarray, shape (N,)
        Any integers; negative for points in no cluster.

    Returns
    -------
    ndarray, shape (N,), int32
        Clusters from 0; -1 for points in no cluster.
    """
    names, first, counts = np.unique(labels, return_index=True, return_counts=True)
    is_cluster = names >= 0
    order = np.lexsort((first[is_cluster], -counts[is_cluster]))
    new = {int(name): k for k, name in enumerate(names[is_cluster][order])}
    return np.array([new.get(int(label), -1) for label in labels], np.int32)


def measure_quality(
    points: Points, labels: Labels, refit: ClusteringMethod, seed: int
) -> ClusterQuality:
    """Silhouettes (Rousseeuw 1987) and stability under resampling (Hennig 2007).

    Parameters
    ----------
    points : ndarray, shape (N, K), float32
        For more than some thousands, a sample is used.
    labels : ndarray, shape (N,), int32
        Clusters from 0; -1 for points in no cluster.
    refit : callable
        The method that produced the labels; maps points to labels.
    seed : int
        Seed of the samples.

    Returns
    -------
    ClusterQuality
    """
    silhouette, by_cluster = silhouettes(points, labels, seed)
    agreements, overlaps = _compare_with_refits(points, labels, refit, seed)
    return ClusterQuality(
        silhouette,
        tuple(by_cluster),
        float(np.mean(agreements)) if agreements else None,
        tuple(float(np.mean(values)) if values else None for values in overlaps),
    )


def silhouettes(
    points: Points, labels: Labels, seed: int
) -> tuple[float | None, list[float | None]]:
    """Mean silhouette of all clustered points, and of each cluster.

    Parameters
    ----------
    points : ndarray, shape (N, K), float32
        For more than 4,000, a sample is used.
    labels : ndarray, shape (N,), int32
        Clusters from 0; -1 for points in no cluster.
    seed : int
        Seed of the sample.

    Returns
    -------
    silhouette : float or None
        From -1 to 1; None with fewer than two clusters, or if each sampled point is a
        cluster of its own.
    by_cluster : list of float or None
        None for all clusters in these cases, and for a cluster without a point in the
        sample.
    """
    by_cluster: list[float | None] = [None] * _count_clusters(labels)
    clustered = np.flatnonzero(labels >= 0)
    sample = clustered[sample_indices(len(clustered), MAX_SILHOUETTES, seed)]
    sampled = labels[sample]
    clusters = np.unique(sampled)
    if not 2 <= len(clusters) < len(sampled):
        return None, by_cluster
    values = silhouette_samples(points[sample], sampled)
    for k in clusters.tolist():
        by_cluster[k] = float(values[sampled == k].mean())
    return float(values.mean()), by_cluster


def find_exemplars(
    points: Points, labels: Labels
) -> tuple[dict[int, int], dict[int, int]]:
    """The image nearest to the centre of each cluster, and the one farthest from it.

    Parameters
    ----------
    points : ndarray, shape (N, K), float32
        One point per image.
    labels : ndarray, shape (N,), int32
        Clusters from 0; -1 for points in no cluster.

    Returns
    -------
    representatives, odd_members : dict of int to int
        The image for each cluster. A cluster of one image has no odd member.
    """
    representatives, odd_members = {}, {}
    for k in range(_count_clusters(labels)):
        members = np.flatnonzero(labels == k)
        centre = points[members].mean(axis=0, dtype=np.float64)
        distances = np.linalg.norm(points[members] - centre, axis=1)
        nearest = int(distances.argmin())
        representatives[k] = int(members[nearest])
        if len(members) > 1:
            distances[nearest] = -1
            odd_members[k] = int(members[distances.argmax()])
    return representatives, odd_members


def sample_indices(number: int, max_number: int, seed: int) -> NDArray[np.int64]:
    """Indices of a random sample of at most `max_number` of `number`, in order."""
    if number <= max_number:
        return np.arange(number)
    generator = np.random.default_rng([seed, number, max_number])
    return np.sort(generator.choice(number, max_number, replace=False))


def _compare_with_refits(
    points: Points, labels: Labels, refit: ClusteringMethod, seed: int
) -> tuple[list[float], list[list[float]]]:
    """Adjusted Rand index with each refit; Jaccard indices by cluster."""
    number = _count_clusters(labels)
    agreements: list[float] = []
    overlaps: list[list[float]] = [[] for _ in range(number)]
    sample = sample_indices(len(points), MAX_SAMPLE, seed)
    if number == 0 or len(sample) < 4:
        return agreements, overlaps
    halves = list(_draw_halves(sample, seed))
    for half in track(halves, len(halves), "refits"):
        original, refitted = labels[half], refit(points[half])
        agreements.append(float(adjusted_rand_score(original, refitted)))
        for k in np.unique(original[original >= 0]).tolist():
            overlaps[k].append(_max_jaccard(original == k, refitted))
    return agreements, overlaps


def _draw_halves(sample: NDArray[np.int64], seed: int) -> Iterator[NDArray[np.int64]]:
    generator = np.random.default_rng([seed, len(sample)])
    for _ in range(REFITS):
        yield np.sort(generator.choice(sample, len(sample) // 2, replace=False))


def _max_jaccard(members: NDArray[np.bool_], labels: Labels) -> float:
    """Jaccard index of a set of images with the most similar cluster."""
    best = 0.0
    for k in range(_count_clusters(labels)):
        others = labels == k
        intersection = np.count_nonzero(members & others)
        best = max(best, intersection / np.count_nonzero(members | others))
    return best


def _count_clusters(labels: Labels) -> int:
    return int(labels.max(initial=-1)) + 1


def _count_distinct(points: Points, enough: int) -> int:
    """Number of distinct points; may stop counting at `enough`."""
    first = len(np.unique(points[: 4 * enough], axis=0))
    return first if first >= enough else len(np.unique(points, axis=0))
