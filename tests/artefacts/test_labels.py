"""The column of labels: classes, numbers, or neither."""

import pytest

from astromorph.artefacts.labels import Labels, missing_column


def labels(cells) -> Labels:
    result = Labels("votes")
    for cell in cells:
        result.add(cell)
    return result


@pytest.mark.parametrize(
    ("cells", "kind"),
    [
        (["FRI", "FRII", ""], "classes"),
        (["0", "1", "nan", ""], "classes"),
        (["0.0", "1.0"], "classes"),
        ([str(k) for k in range(20)], "classes"),
        ([str(k) for k in range(21)], "numbers"),
        (["0.25", "1"], "numbers"),
        (["1e-3", "2.5E10", "", "NaN"], "numbers"),
        (["-2", "5.5"], "numbers"),
        ([f"c{k}" for k in range(50)], "classes"),
        (["007", "0.5"], "classes"),
        (["", "nan"], "none"),
    ],
)
def test_numbers_have_fractions_or_many_different_integers(cells, kind):
    """All other columns are classes."""
    assert labels(cells * 3).kind == kind


@pytest.mark.parametrize(
    ("cells", "problem"),
    [
        (["a"] * 5 + ["b"] * 5, ""),
        ([f"0.{k}" for k in range(100, 125)], ""),
        (["a"] * 9, "the column `votes` has one class, `a`"),
        (
            ["a"] * 9 + ["b"] * 4,
            "of 2 classes in the column `votes`, one has at least 5",
        ),
        (
            [f"{k}.5" for k in range(24)],
            "the column `votes` has 24 numbers; at least 25 are needed",
        ),
        (["0.5"] * 40, "the column `votes` has one number, `0.5`"),
        ([""] * 9, "the column `votes` is empty"),
    ],
)
def test_labels_that_cannot_be_used_have_a_reason(cells, problem):
    """It names the column and what is needed."""
    assert labels(cells).problem()[: len(problem) or None] == problem


@pytest.mark.parametrize(
    ("cells", "advice"),
    [
        ([""] * 9, "fill it or name a column with labels in `evaluation_settings.l"),
        (["a"] * 9, "label images of a second class or name"),
        (["0.5"] * 40, "add more different numbers or name"),
        ([f"NGC {k}" for k in range(9)], "these may be names, not classes: name"),
        (["a"] * 9 + ["b"] * 4, "label more images of each class or name"),
    ],
)
def test_labels_that_cannot_be_used_have_advice(cells, advice):
    """It fits the problem."""
    assert labels(cells).problem()
    assert advice in labels(cells).advice()


@pytest.mark.parametrize(
    ("cells", "description", "caution"),
    [
        (["a", "b"] * 25, "has 2 classes; the embedding is evaluated by how well it "
         "separates them", ""),
        (["a", "b"] * 9 + ["a"], "separates them",
         "the class `b` has 9 images, so that the scores and the verdict of the "
         "evaluation are uncertain; label at least 25 images of each class"),
        (["a", "b"] * 25 + ["c"] * 4, "separates 2 of them; `c` has fewer than 5", ""),
        (["a", "b"] * 25 + ["c", "d", "d"], "; `c`, `d` have fewer than 5 images", ""),
        ([f"0.{k}" for k in range(100, 140)], "has 40 numbers from 0.1 to 0.139; the "
         "embedding is evaluated by how well it predicts them",
         "has 40 numbers, so that the scores and the verdict of the evaluation are "
         "uncertain; label at least 50 images"),
        ([str(k) for k in range(100)], "if these are codes of classes, write them as "
         "text: `c0`", ""),
    ],
)  # fmt: skip
def test_labels_are_described_and_few_ones_are_named(cells, description, caution):
    """How they are used, and what makes the evaluation uncertain."""
    assert description in labels(cells).describe()
    assert labels(cells).caution().endswith(caution)
    assert bool(labels(cells).caution()) == bool(caution)


def test_a_sample_of_a_column_has_its_kind():
    """A few of many different integers are numbers too."""
    sample = Labels("votes", known_kind="numbers")
    for k in range(30):
        sample.add(str(k % 3))
    assert sample.kind == "numbers"
    assert "has 30 numbers from 0 to 2" in sample.describe()
    assert "label at least 50 images" in sample.caution()


@pytest.mark.parametrize(
    ("column", "names", "problem"),
    [
        ("label", ["image_id", "path"], ""),
        ("label", ["path", "z"], ""),
        ("label", ["path", "Label"], "it has `Label`; do you mean `Label`?"),
        (
            "kind",
            ["path", "type"],
            "is `kind`, but the list has no such column; it has `ty",
        ),
        ("morfology", ["z", "morphology"], "do you mean `morphology`?"),
        ("z", ["path"], "it has no further columns"),
        ("telescope", ["path", "telescope"], ""),
    ],
)
def test_a_missing_column_is_named_with_a_similar_one(column, names, problem):
    """A list without labels, under the default name, is no mistake."""
    found = missing_column(column, names)
    assert problem in found
    assert bool(found) == bool(problem)
