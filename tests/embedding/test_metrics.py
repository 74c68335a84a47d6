"""Measures of an embedding whose answers are known."""

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score
from sklearn.neighbors import KNeighborsClassifier

from astromorph.byol.collapse import rank_me, spread
from astromorph.embedding import metrics

RNG = np.random.default_rng(0)


def clusters(number=200, classes=4, distance=8.0, size=16):
    """Well separated clouds, their labels, and each image its own group."""
    codes = np.arange(number) % classes
    centres = RNG.normal(size=(classes, size)) * distance
    vectors = centres[codes] + RNG.normal(size=(number, size))
    return vectors, [f"class {c}" for c in codes], [str(k) for k in range(number)]


def test_effective_rank_counts_directions():
    """As many as there are, and 1 for a collapsed embedding."""
    for rank in (1, 5, 20):
        vectors = np.zeros((300, 64))
        vectors[:, :rank] = np.linalg.qr(RNG.normal(size=(300, rank)))[0]
        assert rank_me(vectors) == pytest.approx(rank, rel=1e-3)
    assert rank_me(np.ones((50, 8))) == pytest.approx(1, abs=1e-3)


def test_spread_and_uniformity_know_a_collapse():
    """Directions that are alike everywhere, and one for all."""
    even, same = RNG.normal(size=(500, 32)), np.ones((500, 32))
    assert spread(even) == pytest.approx(1, abs=0.02)
    assert spread(same) == pytest.approx(0, abs=1e-6)
    assert metrics.uniformity(even) == pytest.approx(-4 + 16 / 2 / 32, abs=0.3)
    assert metrics.uniformity(same) == pytest.approx(0, abs=1e-6)


def test_alignment_is_a_squared_distance():
    """0 for equal directions whatever their length, 2 for right angles."""
    one = RNG.normal(size=(10, 4))
    assert metrics.alignment(one, 3 * one) == pytest.approx(0, abs=1e-9)
    assert metrics.alignment(np.eye(4), np.eye(4)[[1, 2, 3, 0]]) == pytest.approx(2)


def test_whitening_gives_uncorrelated_columns_of_variance_one():
    """Of the directions that matter; a constant has none."""
    vectors = RNG.normal(size=(400, 70)) * np.logspace(0, -4, 70)
    white = metrics.whiten(vectors)
    assert white.shape[1] == 64
    assert metrics.whiten(vectors[:40]).shape[1] == 10
    assert metrics.whiten(vectors[:, :9] * ([1] * 8 + [0])).shape[1] == 8
    np.testing.assert_allclose(white.T @ white / 400, np.eye(white.shape[1]), atol=1e-9)
    assert (metrics.whiten(np.ones((5, 3))) == 0).all()


def test_knn_agrees_with_scikit_learn():
    """Cosine, ten neighbours, the same folds."""
    vectors, labels, groups = clusters(distance=0.5)
    found = metrics.knn_score(vectors, labels, groups)
    codes = np.unique(labels, return_inverse=True)[1]
    scores = []
    for train, test in metrics._folds(codes, groups):
        voter = KNeighborsClassifier(10, metric="cosine")
        voter.fit(vectors[train], codes[train])
        predicted = voter.predict(vectors[test])
        scores.append(balanced_accuracy_score(codes[test], predicted))
    assert found.mean == pytest.approx(np.mean(scores), abs=0.03)  # ties differ
    assert np.sum(found.confusion) == len(labels)


@pytest.mark.parametrize("score", [metrics.knn_score, metrics.linear_score])
def test_separate_classes_are_told_apart_and_noise_is_not(score):
    """1 for clusters, chance for labels that mean nothing."""
    vectors, labels, groups = clusters()
    found = score(vectors, labels, groups)
    assert found.mean == pytest.approx(1, abs=0.01)
    assert found.spread < 0.01
    assert np.diag(found.confusion).sum() >= 199
    shuffled = list(RNG.permutation(labels))
    assert score(vectors, shuffled, groups).mean == pytest.approx(0.25, abs=0.12)


def test_one_object_is_never_on_both_sides():
    """Copies in one group do not help: without groups they would."""
    vectors = np.repeat(RNG.normal(size=(60, 8)), 3, axis=0)
    labels = [str(k) for k in np.repeat(RNG.integers(0, 2, 60), 3)]
    alone = [str(k) for k in range(180)]
    together = [str(k // 3) for k in range(180)]
    leaking = metrics.knn_score(vectors, labels, alone, neighbours=1)
    honest = metrics.knn_score(vectors, labels, together, neighbours=1)
    assert leaking.mean > 0.95
    assert honest.mean < 0.75


def test_ranks_know_monotonic_relations():
    """1 for any rising function, 0 for a constant, ties share their rank."""
    x = RNG.normal(size=100)
    assert metrics.rank_correlation(x, np.exp(3 * x)) == pytest.approx(1)
    assert metrics.rank_correlation(x, -(x**3)) == pytest.approx(-1)
    assert metrics.rank_correlation(x, np.ones(100)) == 0
    assert metrics.rank_correlation([1, 1, 2], [5, 5, 9]) == pytest.approx(1)


def test_images_are_found_again():
    """All of them where nothing changed, few where everything did."""
    vectors = RNG.normal(size=(100, 16))
    assert metrics.retrieval(2 * vectors, vectors) == 1
    assert metrics.retrieval(RNG.normal(size=(100, 16)), vectors) < 0.1
