"""The verdict on an embedding, with its confidence intervals."""

import numpy as np
import pytest
from scipy.stats import spearmanr

from astromorph.embedding.verdict import (
    PIXELS,
    TRAINED,
    UNTRAINED,
    Difference,
    Results,
    compare,
    give_verdict,
    score,
)

RNG = np.random.default_rng(5)


def classified(accuracies, number=300, groups=None, seed=0):
    """Results of three classifiers for two classes with these accuracies."""
    rng = np.random.default_rng(seed)
    true = np.array(["ring", "disk"])[np.arange(number) % 2]
    limits = np.where(true == "ring", *accuracies)[:, None]
    values = (rng.random((number, 3)) < limits).astype(float)
    return Results("classes", values, true, groups or [str(k) for k in range(number)])


def test_the_score_is_the_mean_balanced_accuracy():
    """Each class has the same weight, however many images it has."""
    true = ["a"] * 8 + ["b"] * 2
    values = np.zeros((10, 2))
    values[:8, 0] = values[8, 1] = 1
    results = Results("classes", values, true, list("0123456789"))
    assert score(results) == pytest.approx(((1 + 0) / 2 + (0 + 0.5) / 2) / 2)


def test_the_score_of_numbers_is_the_rank_correlation():
    """The mean over the regressions."""
    true = RNG.normal(size=50)
    values = np.stack([true + RNG.normal(size=50), -true], axis=1)
    results = Results("numbers", values, true, [str(k) for k in range(50)])
    expected = (spearmanr(values[:, 0], true).statistic - 1) / 2
    assert score(results) == pytest.approx(expected)


def test_the_interval_contains_the_true_difference():
    """In about 95 of 100 trials of paired results."""
    inside = 0
    for trial in range(100):
        one = classified((0.8, 0.6), 200, seed=2 * trial)
        other = classified((0.7, 0.6), 200, seed=2 * trial + 1)
        difference = compare(one, other)
        inside += difference.low <= 0.05 <= difference.high
    assert 89 <= inside <= 100


def test_images_of_one_object_are_drawn_together():
    """Copies of images do not narrow the interval."""
    one, other = classified((0.9, 0.7), 60), classified((0.8, 0.7), 60, seed=1)

    def copied(results, groups):
        values = np.repeat(results.values, 5, axis=0)
        return Results("classes", values, np.repeat(results.true, 5), groups)

    groups = [str(k // 5) for k in range(300)]
    widths = []
    for names in (groups, [str(k) for k in range(300)]):
        difference = compare(copied(one, names), copied(other, names))
        widths.append(difference.high - difference.low)
    single = compare(one, other)
    assert widths[0] == pytest.approx(single.high - single.low, rel=0.1)
    assert widths[1] < 0.6 * widths[0]


def test_equal_networks_differ_by_zero():
    """The results are paired: an interval of no width."""
    results = classified((0.8, 0.7))
    difference = compare(results, results)
    assert (difference.mean, difference.low, difference.high) == (0, 0, 0)
    assert difference.outcome == "equal"


@pytest.mark.parametrize(
    ("trained", "untrained", "pixels", "start", "outcome", "expected"),
    [
        (0.9, 0.7, 0.5, None, "better", "better than the untrained network (+0."),
        (0.7, 0.7, 0.5, None, "equal", "not clearly different from the untr"),
        (0.5, 0.7, 0.5, None, "worse", "WORSE than the untrained network (-0."),
        (0.8, 0.6, 0.9, None, "better", "worse than principal components of the pix"),
        (0.8, 0.6, 0.5, 0.9, "better", "worse than the weights that training started"),
        (0.8, 0.6, 0.5, 0.6, "better", "better than the weights that training star"),
    ],
)
def test_the_verdict_is_one_sentence(
    trained, untrained, pixels, start, outcome, expected
):
    """With differences from all references, and advice unless it is the best."""
    values = {TRAINED: trained, UNTRAINED: untrained, PIXELS: pixels, "sky": start}
    results = {
        name: classified((value, value), 1000, seed=seed)
        for seed, (name, value) in enumerate(values.items())
        if value is not None
    }
    verdict = give_verdict(results)
    assert verdict["outcome"] == outcome
    is_worse_than_start = start is not None and start > trained
    assert verdict["better"] is (outcome == "better" and not is_worse_than_start)
    assert expected in verdict["sentence"]
    assert set(verdict["differences"]) == set(results) - {TRAINED}
    is_best = outcome == "better" and (start is None or start < trained)
    assert ("start_share" in verdict["sentence"]) is is_worse_than_start
    assert ("list more images" in verdict["sentence"]) is not is_best


@pytest.mark.parametrize(
    ("mean", "error", "outcome"),
    [
        (0.05, 0.01, "better"),
        (-0.05, 0.01, "worse"),
        (0.05, 0.06, "equal"),
        (-0.006, 0.001, "equal"),  # certain, but negligible
    ],
)
def test_a_difference_has_to_be_certain_and_not_negligible(mean, error, outcome):
    """The interval excludes 0, and the difference is at least 0.01."""
    assert Difference(mean, mean - error, mean + error).outcome == outcome


@pytest.mark.parametrize(
    ("trained", "untrained", "doubt"),
    [
        (0.7, 0.7, "the difference is uncertain: "),
        (0.95, 0.3, "; but this can be chance: "),
        (0.3, 0.95, "; but this can be chance: "),
    ],
)
def test_few_images_of_a_class_are_named(trained, untrained, doubt):
    """The advice is to label more, not to train longer."""
    values = {TRAINED: trained, UNTRAINED: untrained, PIXELS: 0.2}
    results = {
        name: classified((value, value), 30, seed=seed)
        for seed, (name, value) in enumerate(values.items())
    }
    sentence = give_verdict(results)["sentence"]
    assert doubt + "the class `disk` has 15 images; label more images" in sentence
    assert "train longer" not in sentence


def test_without_labels_retrieval_decides():
    """The fraction of images that are found after perturbations."""
    found = (RNG.random((200, 3)) < [0.9, 0.8, 0.7]).astype(float)
    groups = [str(k) for k in range(200)]
    results = {
        TRAINED: Results("retrieval", found, (), groups),
        UNTRAINED: Results(
            "retrieval", found * (RNG.random((200, 3)) < 0.5), (), groups
        ),
        PIXELS: Results("retrieval", found * 0, (), groups),
    }
    verdict = give_verdict(results)
    assert verdict["outcome"] == "better"
    assert verdict["measure"] == "retrieval"
    assert verdict["scores"][TRAINED] == pytest.approx(found.mean())
    assert "in retrieval of rotated" in verdict["sentence"]
    assert "chance" not in verdict["sentence"]
    few = {
        name: Results("retrieval", one.values[:12], (), groups[:12])
        for name, one in results.items()
    }
    sentence = give_verdict(few)["sentence"]
    assert sentence.endswith("chance: 12 images were compared; list more images")
