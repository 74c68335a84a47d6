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
