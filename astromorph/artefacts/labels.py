"""The column of labels: whether it has classes or numbers, and what is wrong with it.

A column has numbers if all of its filled cells are numbers, and one of them has a
fraction or more than `MAX_INTEGER_CLASSES` of them differ: vote fractions, redshifts,
masses, counts. Otherwise it has classes, as text or as integer codes.
"""

import difflib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from astromorph.artefacts.column_types import find_kind
from astromorph.artefacts.columns import CATALOGUE_COLUMNS
from astromorph.settings.sections import EvaluationSettings

MAX_INTEGER_CLASSES = 20
MIN_IMAGES_PER_CLASS = 5  # one for each fold of the cross-validation
MIN_NUMBERS = 25
MAX_COUNTED = 10_000  # different labels
SETTING = "`evaluation_settings.label`"
WITHOUT_LABELS = "the embedding is evaluated without labels"
LabelKind = Literal["classes", "numbers", "none"]


@dataclass
class Labels:
    """The different labels of a column, in constant memory.

    Attributes
    ----------
    column : str
        The name of the column.
    counts : Counter of str
        Filled cells; at most `MAX_COUNTED` different ones are counted.
    """

    column: str
    counts: Counter[str] = field(default_factory=Counter)

    def add(self, label: str) -> None:
        """Count a cell; an empty one, or ``nan``, has no label."""
        if is_label(label) and (label in self.counts or len(self.counts) < MAX_COUNTED):
            self.counts[label] += 1

    @property
    def kind(self) -> LabelKind:
        """Whether these are classes or numbers; `none` if all cells are empty."""
        import pandas as pd

        if not self.counts:
            return "none"
        labels = list(self.counts)
        if find_kind(pd.Series(labels, dtype="str")) == "text":
            return "classes"
        values = {float(label) for label in labels}
        has_fractions = any(not value.is_integer() for value in values)
        return (
            "numbers"
            if has_fractions or len(values) > MAX_INTEGER_CLASSES
            else "classes"
        )

    def problem(self) -> str:
        """Why the evaluation cannot use these labels; empty if it can."""
        kind = self.kind
        if kind == "none":
            return f"the column `{self.column}` is empty"
        if len(self.counts) == 1:
            noun = "number" if kind == "numbers" else "class"
            only = next(iter(self.counts))
            return f"the column `{self.column}` has one {noun}, `{only}`"
        if kind == "numbers":
            if self.counts.total() >= MIN_NUMBERS:
                return ""
            return (
                f"the column `{self.column}` has {self.counts.total()} numbers; at "
                f"least {MIN_NUMBERS} are needed"
            )
        enough = [n for n in self.counts.values() if n >= MIN_IMAGES_PER_CLASS]
        if len(enough) >= 2:
            return ""
        number = "one has" if enough else "none has"
        return (
            f"of {len(self.counts)} classes in the column `{self.column}`, "
            f"{number} at least {MIN_IMAGES_PER_CLASS} images; two are needed"
        )


def is_label(cell: str) -> bool:
    """Whether a cell has a label."""
    return cell.strip().lower() not in ("", "nan")


def missing_column(column: str, names: Sequence[str]) -> str:
    """What is wrong if the column of labels is not in the catalogue.

    Parameters
    ----------
    column : str
        `evaluation_settings.label`.
    names : sequence of str
        The columns of the catalogue.

    Returns
    -------
    str
        Empty if the column exists. Also empty if it has the default name and the list
        has nothing similar: it has no labels.
    """
    if column in names:
        return ""
    listed = [name for name in names if name not in CATALOGUE_COLUMNS]
    lowered = {name.lower(): name for name in listed}
    similar = difflib.get_close_matches(column.lower(), lowered, n=1, cutoff=0.75)
    if column == EvaluationSettings().label and not similar:
        return ""
    found = ", ".join(f"`{name}`" for name in listed[:20]) or "no further columns"
    hint = f"; do you mean `{lowered[similar[0]]}`?" if similar else ""
    return (
        f"{SETTING} is `{column}`, but the list has no such column; it has "
        f"{found}{hint}"
    )
