"""Counts of good and bad files, and the decision whether a run continues."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from astromorph.artefacts.columns import REJECTED, Status
from astromorph.errors import AstromorphError
from astromorph.filelist.duplicates import DROPPED, DUPLICATE
from astromorph.settings.sections import ValidateSettings
from astromorph.system.logs import printable, shortened

GRAVEST_FIRST: tuple[Status, ...] = (REJECTED, "warning", "ok")
MAX_EXAMPLES = 3  # paths for each reason
MAX_LISTED_REASONS = 8
MIN_IMAGES = 2
MAX_REASONS = 200  # counted separately
ANOTHER = "another reason"
# With fewer images, classes and clusters have a handful of members each.
TOO_FEW_IMAGES, FEW_IMAGES = 50, 200


class Summary:
    """Counts by status and reason, in constant memory.

    Parameters
    ----------
    source : str
        Name of the file list, which begins every message.
    """

    def __init__(self, source: str) -> None:
        self.source = source
        self.statuses: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()
        self._texts: dict[str, list[str]] = {}  # the first two different ones
        self._examples: dict[str, list[str]] = {}
        self._statuses_by_reason: dict[str, str] = {}
        self._dropped = 0

    @property
    def ranked_statuses(self) -> list[tuple[str, int]]:
        """Number of rows of each status, the gravest first."""
        return [(s, self.statuses[s]) for s in GRAVEST_FIRST if self.statuses[s]]

    @property
    def total(self) -> int:
        """Number of rows."""
        return self.statuses.total()

    @property
    def usable(self) -> int:
        """Number of rows that are not rejected."""
        return self.total - self.statuses[REJECTED]

    @property
    def bad(self) -> int:
        """Number of rejected rows, except duplicates that were left out."""
        return self.statuses[REJECTED] - self._dropped

    def add(self, status: str, reason: str, path: str) -> None:
        """Count a row."""
        self.statuses[status] += 1
        self._dropped += reason.startswith(DROPPED)
        if reason:
            general = shortened(printable(general_reason(reason)))
            if general not in self.reasons and len(self.reasons) >= MAX_REASONS:
                general = ANOTHER
            self.reasons[general] += 1
            text = shortened(printable(_without_details(reason)))
            texts = self._texts.setdefault(general, [])
            if text not in texts and len(texts) < 2:
                texts.append(text)
            self._statuses_by_reason[general] = status
            examples = self._examples.setdefault(general, [])
            if len(examples) < MAX_EXAMPLES:
                examples.append(shortened(printable(path)))

    def pass_through(self, rows: Iterable[dict[str, str]]) -> Iterator[dict[str, str]]:
        """Count rows with `status`, `reason` and `path`, and yield them unchanged."""
        for row in rows:
            self.add(row["status"], row["reason"], row["path"])
            yield row

    def ranked_reasons(self) -> Iterator[tuple[str, int, str, list[str]]]:
        """Reason, count, status and examples; rejections and frequent ones first."""
        order = sorted(
            self.reasons.items(),
            key=lambda item: (self._statuses_by_reason[item[0]] != REJECTED, -item[1]),
        )
        for reason, count in order:
            yield (
                reason if reason == ANOTHER else describe_reasons(self._texts[reason]),
                count,
                self._statuses_by_reason[reason],
                self._examples[reason],
            )

    def lines(self) -> Iterator[str]:
        """The summary as at most ten lines of text."""
        counts = ", ".join(f"{n} {status}" for status, n in self.ranked_statuses)
        yield f"{self.source}: {self.total} files: {counts}"
        reasons = list(self.ranked_reasons())
        for reason, count, _, examples in reasons[:MAX_LISTED_REASONS]:
            yield f"  {count} times: {reason}; for example {examples[0]}"
        others = reasons[MAX_LISTED_REASONS:]
        if others:
            count = sum(count for _, count, _, _ in others)
            yield f"  {count} times: {len(others)} other reasons"


def few_images_warning(number: int) -> str:
    """What to expect of a run with few images; empty for 200 or more.

    Also empty for less than 2, with which `stop_if_bad` stops the run.

    Examples
    --------
    >>> few_images_warning(2000), few_images_warning(0)
    ('', '')
    """
    if number < MIN_IMAGES:
        return ""
    images = f"{number} image{'s' if number != 1 else ''}"
    if number < TOO_FEW_IMAGES:
        return (
            f"{images} are too few to learn from and to judge the result: the run "
            "works, but training (unless `trained_network_name` replaces it) changes "
            "little of the weights that it starts from, and clusters, outliers and the "
            f"verdict are mostly chance; use {FEW_IMAGES} images or more"
        )
    if number < FEW_IMAGES:
        return (
            f"{images} are few: the embedding depends mostly on the weights that "
            "training starts from, and clusters and the verdict are uncertain; with "
            f"{FEW_IMAGES} images or more, results are more reliable"
        )
    return ""


def general_reason(reason: str) -> str:
    """A reason without the numbers and details that differ between files."""
    return re.sub(r"\d+(x\d+)*", "N", _without_details(reason))


def describe_reasons(reasons: Sequence[str]) -> str:
    """One text for reasons that have the same `general_reason`.

    Examples
    --------
    >>> describe_reasons(["it has 3 channels", "it has 3 channels"])
    'it has 3 channels'
    >>> describe_reasons(["it has 3 channels", "it has 4 channels"])
    'it has 3 channels (or other numbers)'
    """
    first, *others = dict.fromkeys(map(_without_details, reasons))
    return f"{first} (or other numbers)" if others else first


def _without_details(reason: str) -> str:
    if reason.startswith(DUPLICATE):
        reason = reason.partition(" as ")[0] + " as another"
    reason = re.sub(r"^file \d+ of \d+ \(.*?\): ", "one of its files: ", reason)
    if reason.startswith(("the file is damaged", "the header is damaged")):
        reason = reason.partition(": ")[0]
    return reason


def stop_if_bad(summary: Summary, rules: ValidateSettings) -> None:
    """Raise an error if too few files can be used.

    Parameters
    ----------
    summary : Summary
        All rows.
    rules : ValidateSettings
        The limits.

    Raises
    ------
    AstromorphError
        With the most frequent reasons, their counts and three examples each.
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
        "Correct the list or the settings, or allow more bad files"
        if bad
        else f"{summary.source}: {summary.usable} of {total} listed files remain; "
        f"{why}. The list is too short"
    ]
    rejected = [row for row in summary.ranked_reasons() if row[2] == REJECTED]
    for reason, count, _, examples in rejected[:MAX_LISTED_REASONS]:
        lines.append(f"  {count} times: {reason}; for example {', '.join(examples)}")
    raise AstromorphError("\n".join(lines))
