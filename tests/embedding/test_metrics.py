"""Measures of embeddings, for cases with known values."""

import numpy as np
import pytest
from scipy.stats import rankdata, spearmanr
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import StratifiedGroupKFold

from astromorph.byol.collapse import rank_me, spread
from astromorph.embedding import metrics
from astromorph.embedding.metrics import knn_regression_score, ridge_score

RNG = np.random.default_rng(0)


def clusters(number=200, classes=4, distance=8.0, size=16):
    """Gaussian clusters, their labels, and a group for each image."""
    codes = np.arange(number) % classes
    centres = RNG.normal(size=(classes, size)) * distance
    vectors = centres[codes] + RNG.normal(size=(number, size))
    return vectors, [f"class {c}" for c in codes], [str(k) for k in range(number)]


def test_effective_rank_counts_directions():
    """The number of directions, and 1 for a collapsed embedding."""
    for rank in (1, 5, 20):
        vectors = np.zeros((300, 64))
        vectors[:, :rank] = np.linalg.qr(RNG.normal(size=(300, rank)))[0]
        assert rank_me(vectors) == pytest.approx(rank, rel=1e-3)
    assert rank_me(np.ones((50, 8))) == pytest.approx(1, abs=1e-3)


def test_spread_and_uniformity_detect_a_collapse():
    """Evenly distributed embeddings, and equal ones."""
    even, equal = RNG.normal(size=(500, 32)), np.ones((500, 32))
    assert spread(even) == pytest.approx(1, abs=0.02)
    assert spread(equal) == pytest.approx(0, abs=1e-6)
    assert metrics.uniformity(even) == pytest.approx(-4 + 16 / 2 / 32, abs=0.3)
    assert metrics.uniformity(equal) == pytest.approx(0, abs=1e-6)


def test_alignment_is_a_squared_distance():
    """0 for parallel vectors of any length, 2 for orthogonal ones."""
    vectors = RNG.normal(size=(10, 4))
    assert metrics.alignment(vectors, 3 * vectors) == pytest.approx(0, abs=1e-9)
    assert metrics.alignment(np.eye(4), np.eye(4)[[1, 2, 3, 0]]) == pytest.approx(2)


def test_principal_components_are_those_of_the_singular_value_decomposition():
    """Up to their sign; equal embeddings have none."""
    vectors = RNG.normal(size=(50, 6)) * [9, 7, 5, 3, 2, 1] + 4
    left, singular_values, _ = np.linalg.svd(vectors - vectors.mean(axis=0))
    expected = left[:, :3] * singular_values[:3]
    components = metrics.principal_components(vectors, 3)
    np.testing.assert_allclose(np.abs(components), np.abs(expected), atol=1e-9)
    assert metrics.principal_components(vectors[:4], 5).shape == (4, 4)
    equal = metrics.principal_components(np.ones((5, 3)), 2)
    assert equal.shape == (5, 2)
    assert not equal.any()


def test_whitened_columns_are_uncorrelated_and_have_variance_one():
    """Their number depends on that of the images; equal images have none."""
    vectors = RNG.normal(size=(400, 70)) * np.logspace(0, -4, 70)
    whitened = metrics.whiten(vectors)
    assert whitened.shape[1] == 64
    assert metrics.whiten(vectors[:40]).shape[1] == 10
    assert metrics.whiten(vectors[:, :9] * ([1] * 8 + [0])).shape[1] == 8
    np.testing.assert_allclose(whitened.T @ whitened / 400, np.eye(64), atol=1e-9)
    assert (metrics.whiten(np.ones((5, 3))) == 0).all()


def test_knn_score_equals_that_of_a_direct_vote():
    """Cosine, ten neighbours, ties go to the nearer class, mean over the folds."""
    vectors, labels, groups = clusters(distance=0.5)
    score = metrics.knn_score(vectors, labels, groups)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    names, codes = np.unique(labels, return_inverse=True)
    predicted, accuracies = np.empty_like(codes), []
    folds = StratifiedGroupKFold(5, shuffle=True, random_state=0)
    for train, test in folds.split(vectors, codes, groups):
        similarity = unit[test] @ unit[train].T
        for row, k in zip(similarity, test, strict=True):
            nearest = np.argsort(-row)[:10]
            votes = np.zeros(len(names))
            np.add.at(votes, codes[train[nearest]], 1 + 1e-3 * row[nearest])
            predicted[k] = votes.argmax()
        accuracies.append(balanced_accuracy_score(codes[test], predicted[test]))
    assert score.mean == pytest.approx(np.mean(accuracies))
    assert score.std == pytest.approx(np.std(accuracies))
    expected = np.zeros((4, 4), int)
    np.add.at(expected, (codes, predicted), 1)
    assert score.confusion == expected.tolist()


@pytest.mark.parametrize("score", [metrics.knn_score, metrics.linear_score])
def test_separate_classes_score_one_and_random_labels_score_chance(score):
    """Accuracy 1 for separate clusters, 1/4 for random labels."""
    vectors, labels, groups = clusters()
    separate = score(vectors, labels, groups)
    assert separate.mean == pytest.approx(1, abs=0.01)
    assert separate.std < 0.01
    assert np.diag(separate.confusion).sum() >= 199
    shuffled = list(RNG.permutation(labels))
    assert score(vectors, shuffled, groups).mean == pytest.approx(0.25, abs=0.12)


def test_a_class_that_is_missing_in_a_fold_is_left_out_of_its_mean():
    """A class of two groups is missing in three folds; no warning is raised."""
    labels = ["a"] * 60 + ["b"] * 40
    groups = [str(k) for k in range(60)] + ["b1"] * 20 + ["b2"] * 20
    vectors = np.random.default_rng(1).normal(size=(100, 3))
    score = metrics.knn_score(vectors, labels, groups, neighbours=1)
    (a_as_a, a_as_b), _ = score.confusion
    assert a_as_b > 0
    # About 0.3 if the missing class counted as 0.
    assert 0.45 < score.mean < a_as_a / 60


def test_images_of_one_group_are_in_one_fold():
    """Copies of an image increase the score unless they are in the same group."""
    vectors = np.repeat(RNG.normal(size=(60, 8)), 3, axis=0)
    labels = [str(k) for k in np.repeat(RNG.integers(0, 2, 60), 3)]
    separate_groups = [str(k) for k in range(180)]
    shared_groups = [str(k // 3) for k in range(180)]
    leaking = metrics.knn_score(vectors, labels, separate_groups, neighbours=1)
    grouped = metrics.knn_score(vectors, labels, shared_groups, neighbours=1)
    assert leaking.mean > 0.95
    assert grouped.mean < 0.75


def test_rank_correlation_measures_monotonic_relations():
    """1 for any increasing function, 0 for a constant; ties share their rank."""
    x = RNG.normal(size=100)
    assert metrics.rank_correlation(x, np.exp(3 * x)) == pytest.approx(1)
    assert metrics.rank_correlation(x, -(x**3)) == pytest.approx(-1)
    assert metrics.rank_correlation(x, np.ones(100)) == 0
    assert metrics.rank_correlation([1, 1, 2], [5, 5, 9]) == pytest.approx(1)
    y = np.round(x) + RNG.normal(size=100).round()
    expected = np.corrcoef(rankdata(np.round(x)), rankdata(y))[0, 1]
    assert metrics.rank_correlation(np.round(x), y) == pytest.approx(expected)


def test_retrieval_is_the_share_of_images_nearest_to_their_original():
    """All without a perturbation, few for unrelated embeddings."""
    vectors = RNG.normal(size=(100, 16))
    assert metrics.retrieval(2 * vectors, vectors) == 1
    assert metrics.retrieval(RNG.normal(size=(100, 16)), vectors) < 0.1


def test_a_regression_is_that_of_scikit_learn_in_the_same_folds():
    """Ranks decide the folds, and images of a group are in one of them."""
    rng = np.random.default_rng(5)
    vectors = rng.normal(size=(120, 6))
    numbers = np.exp(vectors[:, 0] + 0.3 * rng.normal(size=120))
    groups = np.arange(120) // 2
    order = numbers.argsort(kind="stable")
    fifths = np.empty(120, int)
    fifths[order] = np.arange(120) // 24
    r2, correlations = [], []
    folds = StratifiedGroupKFold(5, shuffle=True, random_state=0)
    for train, test in folds.split(vectors, fifths, groups.astype(str)):
        assert not set(groups[train]) & set(groups[test])
        unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        nearest = np.argsort(-unit[test] @ unit[train].T, axis=1)[:, :10]
        predicted = numbers[train][nearest].mean(axis=1)
        residual = ((numbers[test] - predicted) ** 2).sum()
        r2.append(1 - residual / ((numbers[test] - numbers[test].mean()) ** 2).sum())
        correlations.append(spearmanr(predicted, numbers[test]).statistic)
    score = knn_regression_score(vectors, numbers, groups.astype(str))
    assert score.mean == pytest.approx(np.mean(correlations))
    assert score.std == pytest.approx(np.std(correlations))
    assert (score.r2_mean, score.r2_std) == pytest.approx((np.mean(r2), np.std(r2)))


def test_a_linear_relation_is_found_and_chance_is_zero():
    """Also with more components than images, where an unpenalised fit would fail."""
    rng = np.random.default_rng(6)
    vectors, groups = rng.normal(size=(100, 150)), [str(k) for k in range(100)]
    vectors[:, 0] *= 30
    vectors[:, 1:] += vectors[:, :1] * rng.normal(size=149)
    score = ridge_score(vectors, vectors[:, 0] * 1e10, groups)
    assert score.mean > 0.9 and score.r2_mean > 0.8
    for regression in (ridge_score, knn_regression_score):
        score = regression(vectors, rng.normal(size=100), groups)
        assert abs(score.mean) < 0.3 and score.r2_mean < 0.1
