"""Counts of what passed by, and the decision that a list is too bad to go on."""

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from astromorph.artefacts.tables import REJECTED
from astromorph.errors import AstromorphError
from astromorph.filelist.duplicates import DROPPED, DUPLICATE
from astromorph.settings.sections import ValidateSettings

EXAMPLES = 3
REASONS_SHOWN = 8
MIN_IMAGES = 2
MAX_KINDS = 200


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar of a histogram.

    Attributes
    ----------
    label : str
        Where the bin begins.
    count : int
        How many values are in it.
    share : float
        Its height, where the highest is 1.
    """

    label: str
    count: int
    share: float


class Histogram:
    """Counts of values in bins of equal width on a logarithmic or linear axis.

    Parameters
    ----------
    name : str
        What is counted, with its unit.
    per_unit : float
        Bins per factor of 10 (logarithmic), or per 1 (linear).
    logarithmic : bool
        Which axis; values that are not positive are left out of a logarithmic
        one.
    """

    def __init__(self, name: str, per_unit: float, logarithmic: bool = True) -> None:
        self.name = name
        self._per_unit = per_unit
        self._logarithmic = logarithmic
        self._bins: Counter[int] = Counter()

    def add(self, value: float | None) -> None:
        """Count a value."""
        if value is None or not math.isfinite(value):
            return
        if self._logarithmic:
            if value <= 0:
                return
            value = math.log10(value)
        self._bins[math.floor(value * self._per_unit + 1e-9)] += 1

    @property
    def bars(self) -> list[Bar]:
        """All bins from the first to the last, empty ones included."""
        if not self._bins:
            return []
        highest = max(self._bins.values())
        return [
            Bar(self._label(k), self._bins[k], self._bins[k] / highest)
            for k in range(min(self._bins), max(self._bins) + 1)
        ]

    def _label(self, k: int) -> str:
        edge = k / self._per_unit
        return f"{float(f'{10**edge:.3g}'):g}" if self._logarithmic else f"{edge:.2g}"


class Summary:
    """Counts by status and reason, in constant memory.

    Parameters
    ----------
    source : str
        What was checked; begins every message.
    """

    def __init__(self, source: str) -> None:
        self.source = source
        self.statuses: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()
        self.examples: dict[str, list[str]] = {}
        self.status_of: dict[str, str] = {}
        self.dropped = 0

    @property
    def total(self) -> int:
        """Rows."""
        return self.statuses.total()

    @property
    def usable(self) -> int:
        """Rows that were not rejected."""
        return self.total - self.statuses[REJECTED]

    @property
    def bad(self) -> int:
        """Rows that cannot be used; duplicates that were left out are not bad."""
        return self.statuses[REJECTED] - self.dropped

    def add(self, status: str, reason: str, path: str) -> None:
        """Count a row."""
        self.statuses[status] += 1
        self.dropped += reason.startswith(DROPPED)
        if reason:
            kind = reason_kind(reason)
            if kind not in self.reasons and len(self.reasons) >= MAX_KINDS:
                kind = "another reason"
            self.reasons[kind] += 1
            self.status_of[kind] = status
            examples = self.examples.setdefault(kind, [])
            if len(examples) < EXAMPLES:
                examples.append(path)

    def watch(self, rows: Iterable[dict[str, str]]) -> Iterator[dict[str, str]]:
        """Count rows of a table with `status`, `reason` and `path`, unchanged."""
        for row in rows:
            self.add(row["status"], row["reason"], row["path"])
            yield row

    def worst(self) -> Iterator[tuple[str, int, str, list[str]]]:
        """Reason, count, status and examples, rejections first, most frequent first."""
        order = sorted(
            self.reasons.items(),
            key=lambda item: (self.status_of[item[0]] != REJECTED, -item[1]),
        )
        for kind, count in order:
            yield kind, count, self.status_of[kind], self.examples[kind]

    def lines(self) -> Iterator[str]:
        """The summary as at most ten lines of text."""
        counts = ", ".join(f"{n} {status}" for status, n in self.statuses.items())
        yield f"{self.source}: {self.total} files: {counts}"
        worst = list(self.worst())
        for kind, count, _, examples in worst[:REASONS_SHOWN]:
            yield f"  {count} times: {kind}; such as {examples[0]}"
        if len(worst) > REASONS_SHOWN:
            rest = sum(count for _, count, _, _ in worst[REASONS_SHOWN:])
            yield f"  {rest} times: {len(worst) - REASONS_SHOWN} other reasons"


def reason_kind(reason: str) -> str:
    """A reason without the numbers and details that differ from file to file."""
    if reason.startswith(DUPLICATE):
        reason = reason.partition(" as ")[0] + " as another"
    reason = re.sub(r"^file \d+ of \d+ \(.*?\): ", "one of its files: ", reason)
    if reason.startswith(("the file is damaged", "the header is damaged")):
        reason = reason.partition(": ")[0]
    return re.sub(r"\d+(x\d+)*", "N", reason)


def stop_if_bad(summary: Summary, rules: ValidateSettings) -> None:
    """End the run where too few files can be used.

    Parameters
    ----------
    summary : Summary
        All rows.
    rules : ValidateSettings
        How many bad ones are too many.

    Raises
    ------
    AstromorphError
        With the worst reasons, how often each occurs, and three examples.
    """
    total, bad = summary.total, summary.bad
    if bad and rules.on_bad == "fail":
        why = "`validate_settings.on_bad` is fail"
    elif bad > rules.max_bad_fraction * total:
        why = (
            f"`validate_settings.max_bad_fraction` allows {rules.max_bad_fraction:.0%}"
        )
    elif summary.usable < MIN_IMAGES:
        why = f"training needs at least {MIN_IMAGES} images"
    else:
        return
    lines = [
        f"{summary.source}: {bad} of {total} listed files cannot be used; {why}. "
        "Correct the list or the settings, or allow more"
        if bad
        else f"{summary.source}: {summary.usable} of {total} listed files are left; "
        f"{why}. The list is too short"
    ]
    rejected = [row for row in summary.worst() if row[2] == REJECTED]
    for kind, count, _, examples in rejected[:REASONS_SHOWN]:
        lines.append(f"  {count} times: {kind}; such as {', '.join(examples)}")
    raise AstromorphError("\n".join(lines))
