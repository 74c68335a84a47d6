"""How good an embedding is, with labels and without.

Arrays `(N, D)`, float; rows are images.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from astromorph.byol.collapse import TINY, unit_vectors

Vectors = NDArray[np.floating]

NEIGHBOURS = 10
FOLDS = 5
WHITENED = 64  # principal components that whitening keeps, at most
ROWS_PER_COMPONENT = 4


@dataclass(frozen=True, slots=True)
class Score:
    """Balanced accuracy over the folds, and what was taken for what.

    Attributes
    ----------
    mean, spread : float
        Mean and standard deviation over the folds, from 0 to 1.
    confusion : list of list of int
        Rows are true classes, columns predicted ones.
    """

    mean: float
    spread: float
    confusion: list[list[int]]


def whiten(vectors: Vectors) -> NDArray[np.float64]:
    """The first 64 principal components, each with variance 1.

    No label is used. Directions of little variance, which hold much of what a
    network knows, then count as much as the first ones. The number is fixed, so
    that an embedding with one dominant direction is not cut short; few images
    give fewer, one for every four.

    Parameters
    ----------
    vectors : ndarray, shape (N, D)
        Embeddings, of at least one image.

    Returns
    -------
    ndarray, shape (N, K), float64
        K from 1 to 64. All 0 where the embeddings are all the same.

    Examples
    --------
    >>> vectors = np.random.default_rng(0).normal(size=(40, 5)) * [9, 1, 1, 1, 1]
    >>> white = whitened(vectors)
    >>> white.shape, white.std(axis=0).round(6).tolist()
    ((40, 5), [1.0, 1.0, 1.0, 1.0, 1.0])
    """
    centred = np.asarray(vectors, dtype=np.float64)
    centred = centred - centred.mean(axis=0)
    left, singular, _ = np.linalg.svd(centred, full_matrices=False)
    if len(singular) == 0 or singular[0] <= TINY:
        return np.zeros((len(centred), 1))
    kept = max(1, min(WHITENED, len(centred) // ROWS_PER_COMPONENT))
    kept = min(kept, int(np.count_nonzero(singular > TINY * singular[0])))
    return np.asarray(left[:, :kept] * np.sqrt(len(centred)))


def alignment(one: Vectors, other: Vectors) -> float:
    """Mean squared distance of two views of each image.

    Wang & Isola (2020), eq. 1, of normalised vectors.

    Parameters
    ----------
    one, other : ndarray, shape (N, D)
        Embeddings of both views.

    Returns
    -------
    float
        From 0 (the same) to 4.

    Examples
    --------
    >>> alignment(np.array([[1.0, 0.0]]), np.array([[0.0, 5.0]]))
    2.0
    """
    distance = unit_vectors(one) - unit_vectors(other)
    return float((distance**2).sum(axis=1).mean())


def uniformity(vectors: Vectors) -> float:
    """How evenly normalised vectors cover the sphere.

    Wang & Isola (2020), eq. 2: logarithm of the mean of ``exp(-2 d^2)`` over
    all pairs.

    Parameters
    ----------
    vectors : ndarray, shape (N, D)
        Embeddings.

    Returns
    -------
    float
        0 is collapsed, about -4 even; 0 for a single image.

    Examples
    --------
    >>> round(uniformity(np.eye(64)), 2), abs(round(uniformity(np.ones((4, 4))), 2))
    (-4.0, 0.0)
    """
    unit = unit_vectors(vectors)
    square = 2 - 2 * unit @ unit.T
    pairs = square[np.triu_indices(len(unit), 1)]
    return float(np.log(np.exp(-2 * pairs).mean())) if len(pairs) else 0.0


def retrieval(changed: Vectors, originals: Vectors) -> float:
    """Share of changed images whose nearest original, by cosine, is their own.

    Parameters
    ----------
    changed, originals : ndarray, shape (N, D)
        Embeddings of the same images in the same order.

    Returns
    -------
    float
        From 0 to 1.

    Examples
    --------
    >>> found_again(np.array([[1.0, 0.1], [1.0, 0.2]]), np.eye(2))
    0.5
    """
    similar = unit_vectors(changed) @ unit_vectors(originals).T
    return float((similar.argmax(axis=1) == np.arange(len(similar))).mean())


def knn_score(
    vectors: Vectors,
    labels: Sequence[str],
    groups: Sequence[str],
    neighbours: int = NEIGHBOURS,
) -> Score:
    """Balanced accuracy of the vote of the nearest neighbours, by cosine.

    Parameters
    ----------
    vectors : ndarray, shape (N, D)
        Embeddings.
    labels : sequence of str
        N classes; at least two, each with as many groups as there are folds.
    groups : sequence of str
        N names; rows of one group are never in training and test of a fold.
    neighbours : int
        How many vote, at least 1; by default 10.

    Returns
    -------
    Score
        Of five folds.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> vectors = rng.normal(size=(60, 2)) + np.repeat([[5, 0], [0, 5]], 30, axis=0)
    >>> labels, groups = ["a"] * 30 + ["b"] * 30, [str(k) for k in range(60)]
    >>> found = knn_score(vectors, labels, groups)
    >>> found.mean, found.confusion
    (1.0, [[30, 0], [0, 30]])
    """
    unit = unit_vectors(vectors)
    classes, codes = np.unique(list(labels), return_inverse=True)
    predicted = np.empty(len(codes), dtype=np.int64)
    folds = _folds(codes, groups)
    for train, test in folds:
        similar = unit[test] @ unit[train].T
        k = min(neighbours, len(train))
        nearest = np.argpartition(-similar, k - 1, axis=1)[:, :k]
        votes = np.zeros((len(test), len(classes)))
        # A tie goes to the class whose voters are closer.
        closeness = 1 + 1e-3 * np.take_along_axis(similar, nearest, axis=1)
        np.add.at(
            votes, (np.arange(len(test))[:, None], codes[train][nearest]), closeness
        )
        predicted[test] = votes.argmax(axis=1)
    return _score(codes, predicted, folds, len(classes))


def linear_score(
    vectors: Vectors, labels: Sequence[str], groups: Sequence[str]
) -> Score:
    """Balanced accuracy of logistic regression on standardised embeddings.

    Parameters
    ----------
    vectors : ndarray, shape (N, D)
        Embeddings.
    labels : sequence of str
        N classes; at least two, each with as many groups as there are folds.
    groups : sequence of str
        N names; rows of one group are never in training and test of a fold.

    Returns
    -------
    Score
        Of five folds.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> vectors = rng.normal(size=(60, 2)) + np.repeat([[5, 0], [0, 5]], 30, axis=0)
    >>> labels, groups = ["a"] * 30 + ["b"] * 30, [str(k) for k in range(60)]
    >>> linear_score(vectors, labels, groups).mean
    1.0
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    classes, codes = np.unique(list(labels), return_inverse=True)
    predicted = np.empty(len(codes), dtype=np.int64)
    folds = _folds(codes, groups)
    for train, test in folds:
        probe = make_pipeline(
            StandardScaler(), LogisticRegression(C=0.1, max_iter=2000)
        )
        probe.fit(np.asarray(vectors, np.float64)[train], codes[train])
        predicted[test] = probe.predict(np.asarray(vectors, np.float64)[test])
    return _score(codes, predicted, folds, len(classes))


def rank_correlation(one: Vectors, other: Vectors) -> float:
    """Spearman's rank correlation of two columns.

    Parameters
    ----------
    one, other : ndarray, shape (N,)
        Equal values share the mean of their ranks.

    Returns
    -------
    float
        From -1 to 1; 0 where a column is constant.

    Examples
    --------
    >>> round(rank_correlation([1, 2, 3], [10, 20, 1000]), 6)
    1.0
    """
    ranks = [_ranks(np.asarray(column, np.float64)) for column in (one, other)]
    deviations = [rank - rank.mean() for rank in ranks]
    norms = [float(np.linalg.norm(deviation)) for deviation in deviations]
    if min(norms) < TINY:
        return 0.0
    return float(deviations[0] @ deviations[1] / (norms[0] * norms[1]))


def principal_components(vectors: Vectors, number: int) -> NDArray[np.float64]:
    """The leading principal components, largest variance first.

    Parameters
    ----------
    vectors : ndarray, shape (N, D)
        Embeddings.
    number : int
        How many, at least 1.

    Returns
    -------
    ndarray, shape (N, K), float64
        K is `number`, or the smaller of N and D.

    Examples
    --------
    >>> components(np.array([[0.0, 0.0], [2.0, 0.0], [4.0, 0.1]]), 1).shape
    (3, 1)
    """
    centred = np.asarray(vectors, np.float64) - np.mean(vectors, axis=0)
    left, singular, _ = np.linalg.svd(centred, full_matrices=False)
    return np.asarray(left[:, :number] * singular[:number])


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ranks, the mean of them where values are equal."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray((last - (counts - 1) / 2)[inverse], dtype=np.float64)


def _folds(
    codes: NDArray[np.int64], groups: Sequence[str]
) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    from sklearn.model_selection import StratifiedGroupKFold

    cutter = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=0)
    return list(cutter.split(np.zeros((len(codes), 1)), codes, list(groups)))


def _score(
    codes: NDArray[np.int64],
    predicted: NDArray[np.int64],
    folds: list[tuple[NDArray[np.int64], NDArray[np.int64]]],
    classes: int,
) -> Score:
    scores = [_balanced(codes[test], predicted[test]) for _, test in folds]
    confusion = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(confusion, (codes, predicted), 1)
    return Score(float(np.mean(scores)), float(np.std(scores)), confusion.tolist())


def _balanced(true: NDArray[np.int64], predicted: NDArray[np.int64]) -> float:
    """Mean over the classes that occur of the share that was recognised."""
    shares = [float((predicted[true == c] == c).mean()) for c in np.unique(true)]
    return float(np.mean(shares))
