"""The regression, its quality, and which images to mark next."""

import numpy as np
import pytest
from scipy.optimize import minimize
from sklearn.metrics import average_precision_score

from astromorph.analysis.components import quantise
from astromorph.ranking.marks import Marks
from astromorph.ranking.model import (
    INVERSE_REGULARISATION,
    MAX_BACKGROUND,
    Target,
    background_rows,
    find_targets,
    fit_target,
    most_informative,
)
from astromorph.ranking.quality import cross_validate, precision_at_ranks

DRAW = np.random.default_rng(0)
KINDS = DRAW.random(300) < 0.2
POINTS = DRAW.normal(size=(300, 4)) * 0.3 + np.outer(KINDS, [1.2, 0, 0, 0])


def target(rows) -> Target:
    return Target("interesting", np.array(rows), KINDS[rows])


def test_the_regression_has_the_smallest_loss():
    """The documented loss, minimised by another program."""
    rows = np.arange(60)
    some = target(rows)
    model = fit_target(POINTS, some, rows)
    signs = np.where(some.labels, 1, -1)
    share = np.where(some.labels, some.positives, some.negatives)
    weights = len(rows) / 2 / share

    def loss(x):
        margins = signs * (POINTS[rows] @ x[:-1] + x[-1])
        fit = weights @ np.logaddexp(0, -margins)
        return fit + (x[:-1] ** 2).sum() / 2 / INVERSE_REGULARISATION

    best = minimize(loss, np.zeros(5), tol=1e-12).x
    found = [*model.coefficients, model.intercept]
    assert found == pytest.approx(best, abs=1e-5)
    assert loss(np.array(found)) <= loss(best) + 1e-12
    expected = 1 / (1 + np.exp(-(POINTS @ best[:-1] + best[-1])))
    assert model.scores(POINTS) == pytest.approx(expected, abs=1e-5)


def test_examples_alone_find_their_kind():
    """Unmarked images take the place of counter-examples."""
    rows = np.flatnonzero(KINDS)[:5]
    scores = fit_target(POINTS, target(rows), rows).scores(POINTS)
    others = np.setdiff1d(np.arange(300), rows)
    assert average_precision_score(KINDS[others], scores[others]) > 0.7
    background = background_rows(300, rows)
    assert not np.isin(background, rows).any()
    assert background_rows(5, [1, 3]).tolist() == [0, 2, 4]
    many = background_rows(10_000, [0])
    assert len(many) == len(set(many.tolist())) == MAX_BACKGROUND
    assert {len(part) for part in np.split(many, np.searchsorted(many, [5000]))} == {
        250
    }


def test_a_run_of_examples_only_has_undecided_scores():
    """Nothing distinguishes them."""
    rows = np.arange(3)
    one = Target("interesting", rows, np.ones(3, bool))
    assert fit_target(POINTS[:3], one, rows).scores(POINTS[:3]).tolist() == [0.5] * 3


def test_targets_of_marks_and_classes():
    """Counter-examples of a class are other classes and what is not interesting."""
    marks = Marks(
        (2, 4, 6, 8),
        ("interesting", "not interesting", "", "interesting"),
        ("ring", "", "disk", ""),
    )
    found = {
        (t.name, t.is_class): dict(zip(t.rows.tolist(), t.labels.tolist(), strict=True))
        for t in find_targets(marks)
    }
    assert found == {
        ("interesting", False): {2: True, 4: False, 8: True},
        ("disk", True): {2: False, 4: False, 6: True},
        ("ring", True): {2: True, 4: False, 6: False},
    }
    assert find_targets(Marks((1,), ("not interesting",), ("",))) == []


def test_quality_is_that_of_unseen_marks():
    """A real difference is found; marks at random give the share of examples."""
    rows = np.arange(150)
    quality = cross_validate(POINTS, target(rows), rows)
    assert quality.low < quality.average_precision < quality.high
    assert quality.average_precision > 0.7
    assert quality.low > quality.share == pytest.approx(KINDS[:150].mean())
    assert quality.precision[-1] == pytest.approx(quality.share)
    assert (quality.precision_low <= quality.precision_high).all()
    mixed = Target("x", rows, DRAW.permutation(KINDS[:150]))
    random = cross_validate(POINTS, mixed, rows)
    assert random.low < random.share + 0.1 < quality.low


def test_few_marks_give_no_quality():
    """Four examples, or four counter-examples, are too few."""
    for labels, enough in (([4, 30], False), ([30, 4], False), ([5, 5], True)):
        rows = np.concatenate([
            np.flatnonzero(KINDS)[: labels[0]], np.flatnonzero(~KINDS)[: labels[1]]
        ])  # fmt: skip
        assert (cross_validate(POINTS, target(rows), rows) is not None) is enough


def test_precision_at_ranks_counts_ties_as_random():
    """Without ties it is the number of hits divided by the rank."""
    labels = np.array([True, False, True, True])
    precision = precision_at_ranks(labels, np.array([4.0, 3, 2, 1]))
    assert precision == pytest.approx([1, 1 / 2, 2 / 3, 3 / 4])
    assert precision_at_ranks(labels, np.zeros(4)) == pytest.approx([0.75] * 4)


def test_the_most_informative_images_are_uncertain_and_differ():
    """Of equal images one is chosen first, and certain ones only after all others."""
    points = np.array([[0, 0], [0, 0], [0, 0], [0, 0], [1, 0], [0, 1], [9, 9.0]])
    scores = np.array([0.5, 0.5, 0.5, 0.5, 0.45, 0.6, 0.99])
    assert most_informative(points, scores, [0], 4).tolist() == [1, 4, 5, 6]
    scores = np.concatenate([scores, np.full(60, 0.999)])
    points = np.concatenate([points, DRAW.normal(size=(60, 2)) + 50])
    first = most_informative(points, scores, [], 1).tolist()
    assert first == [0]
    assert len(most_informative(points, scores, range(65), 50)) == 2


def test_eight_bits_keep_the_coordinates():
    """To half a step; a component without variation stays zero."""
    points = DRAW.normal(size=(50, 3)).astype(np.float32)
    points[:, 1] = 0
    components = quantise(points)
    assert components.codes.dtype == np.int8
    steps = np.abs(points).max(axis=0) / 127
    assert (np.abs(components.values() - points) <= steps / 2 + 1e-7).all()
    assert not components.codes[:, 1].any()
