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
# With fewer, scores are so uncertain that a verdict can be chance.
FEW_IMAGES_PER_CLASS, FEW_NUMBERS = 25, 50
MAX_NAMED = 5  # classes in a message
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
    known_kind : str, optional
        The kind, if these are some of the labels of a column whose kind is known.
    """

    column: str
    counts: Counter[str] = field(default_factory=Counter)
    known_kind: LabelKind | None = None

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
        if self.known_kind:
            return self.known_kind
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

    @property
    def classes(self) -> dict[str, int]:
        """The classes with enough images for an evaluation, and their numbers."""
        return {
            name: number
            for name, number in self.counts.items()
            if number >= MIN_IMAGES_PER_CLASS
        }

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
        if len(self.classes) >= 2:
            return ""
        number = "one has" if self.classes else "none has"
        return (
            f"of {len(self.counts)} classes in the column `{self.column}`, "
            f"{number} at least {MIN_IMAGES_PER_CLASS} images; two are needed"
        )

    def advice(self) -> str:
        """What to do if there is a problem."""
        kind = self.kind
        other = f"name a column with labels in {SETTING}"
        if kind == "none":
            return f"to use labels, fill it or {other}"
        if kind == "numbers":
            return f"to use labels, add more different numbers or {other}"
        if len(self.counts) == 1:
            return f"to use labels, label images of a second class or {other}"
        if len(self.counts) > self.counts.total() / 2:
            return f"these may be names, not classes: {other}"
        return f"to use labels, label more images of each class or {other}"

    def describe(self) -> str:
        """How the evaluation uses these labels, if there is no problem."""
        if self.kind == "numbers":
            values = [float(label) for label in self.counts]
            text = (
                f"the column `{self.column}` has {self.counts.total()} numbers from "
                f"{min(values):g} to {max(values):g}; the embedding is evaluated by "
                "how well it predicts them"
            )
            if all(value.is_integer() for value in values):
                code = next(iter(self.counts))
                text += (
                    f"; if these are codes of classes, write them as text: `c{code}`"
                )
            return text
        left_out = [name for name in self.counts if name not in self.classes]
        text = (
            f"the column `{self.column}` has {len(self.counts)} classes; the embedding "
            "is evaluated by how well it separates "
        )
        if not left_out:
            return text + "them"
        names = ", ".join(f"`{name}`" for name in sorted(left_out)[:MAX_NAMED])
        names += ", ..." if len(left_out) > MAX_NAMED else ""
        return (
            f"{text}{len(self.classes)} of them; {names} "
            f"{'has' if len(left_out) == 1 else 'have'} fewer than "
            f"{MIN_IMAGES_PER_CLASS} images"
        )

    def caution(self) -> str:
        """Why scores will be uncertain, and what to do; empty with enough labels."""
        if self.kind == "numbers":
            number, enough = self.counts.total(), f"{FEW_NUMBERS} images"
            found = f"the column `{self.column}` has {number} numbers"
            is_enough = number >= FEW_NUMBERS
        else:
            name, number = min(self.classes.items(), key=lambda item: item[1])
            found = f"the class `{name}` has {number} images"
            enough = f"{FEW_IMAGES_PER_CLASS} images of each class"
            is_enough = number >= FEW_IMAGES_PER_CLASS
        if is_enough:
            return ""
        return (
            f"{found}, so that the scores and the verdict of the evaluation are "
            f"uncertain; label at least {enough}"
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
