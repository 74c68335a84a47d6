"""Histograms with round bins of values whose range is not known in advance."""

import itertools
import math
from collections import Counter
from dataclasses import dataclass

MAX_BINS = 16
DIGITS = 3  # significant digits of the values that are counted
LINEAR_BELOW = 8.0  # ratio of the largest and the smallest value
# Edges within a factor of 10, from many bins to few.
DECADES = ((1, 1.5, 2, 3, 5, 7), (1, 2, 5), (1, 3), (1,))


@dataclass(frozen=True, slots=True)
class Bin:
    """A bin of a histogram.

    Attributes
    ----------
    low, high : float
        Its edges; a value at the lower edge is in the bin.
    count : int
        Number of values in it.
    """

    low: float
    high: float
    count: int


class Histogram:
    """Counts of values, in memory that does not depend on their number.

    Values are counted with three significant digits, rounded down. This moves no value
    to another bin, because edges have no further digits.

    Parameters
    ----------
    name : str
        The quantity, with its unit.
    counted : str
        What is counted: the name of the vertical axis.
    fraction : bool
        Whether values are from 0 to 1, on a linear axis from 0. Otherwise they are
        positive, on a logarithmic axis if they differ by a factor of 8 or more; values
        that are not positive are ignored.
    min_step : float
        Smallest width of a bin on a linear axis.
    """

    def __init__(
        self, name: str, counted: str, fraction: bool = False, min_step: float = 1e-9
    ) -> None:
        self.name = name
        self.counted = counted
        self._fraction = fraction
        self._min_step = min_step
        self._counts: Counter[float] = Counter()

    def add(self, value: float | None) -> None:
        """Count a value; None and values that are not finite are ignored."""
        if value is None or not math.isfinite(value):
            return
        if value > 0:
            self._counts[_round_down(value)] += 1
        elif self._fraction:
            self._counts[0.0] += 1

    @property
    def number(self) -> int:
        """How many values have been counted."""
        return self._counts.total()

    @property
    def common_value(self) -> float | None:
        """What all values are, with three significant digits; None if they differ.

        Also None if fewer than two values have been counted.

        Examples
        --------
        >>> histogram = Histogram("Longer side, pixels", "files")
        >>> for side in (100, 100):
        ...     histogram.add(side)
        >>> histogram.common_value, histogram.number
        (100.0, 2)
        """
        return (
            next(iter(self._counts)) if len(self._counts) == 1 < self.number else None
        )

    @property
    def logarithmic(self) -> bool:
        """Whether the bins are of equal width on a logarithmic axis."""
        if self._fraction or not self._counts:
            return False
        return max(self._counts) >= LINEAR_BELOW * min(self._counts)

    @property
    def bins(self) -> list[Bin]:
        """All bins from the lowest value to the highest, including empty ones.

        Examples
        --------
        >>> histogram = Histogram("Longer side, pixels", "files")
        >>> for side in (48, 50, 59, 100):
        ...     histogram.add(side)
        >>> [(one.low, one.high, one.count) for one in histogram.bins][:2]
        [(45.0, 50.0, 1), (50.0, 55.0, 1)]
        """
        if not self._counts:
            return []
        low, high = min(self._counts), max(self._counts)
        if self.logarithmic:
            edges = _logarithmic_edges(low, high)
        else:
            lowest = 0.0 if self._fraction else low
            edges = _linear_edges(lowest, high, self._min_step)
        return [
            Bin(one, other, sum(n for v, n in self._counts.items() if one <= v < other))
            for one, other in itertools.pairwise(edges)
        ]


def _round_down(value: float) -> float:
    """A positive value with three significant digits."""
    exponent = math.floor(math.log10(value)) - DIGITS + 1
    # Dividing by a power of 10 is exact where multiplying by a fraction is not.
    digits = value / 10**exponent if exponent > 0 else value * 10**-exponent
    return _decimal(math.floor(digits + 1e-6), exponent)


def _decimal(digits: float, exponent: int) -> float:
    """``digits * 10**exponent`` as the nearest number, such as 0.3 instead of 3 * 0.1.

    Examples
    --------
    >>> _decimal(3, -1), _decimal(15, 2)
    (0.3, 1500.0)
    """
    return float(f"{digits}e{exponent}")


def _logarithmic_edges(low: float, high: float) -> list[float]:
    """Round edges whose bins contain both values; as many as are allowed."""
    first, last = math.floor(math.log10(low)), math.floor(math.log10(high)) + 1
    for decade in DECADES:
        edges = [_decimal(m, k) for k in range(first, last + 1) for m in decade]
        edges = _needed(edges, low, high)
        if len(edges) <= MAX_BINS + 1:
            break
    return edges


def _linear_edges(low: float, high: float, min_step: float) -> list[float]:
    """Multiples of a round step whose bins contain both values."""
    # Equal values have a bin of a fiftieth of their size.
    wanted = max((high - low) / (MAX_BINS - 1), high / 50, min_step)
    exponent = math.floor(math.log10(wanted))
    digits, exponent = next(
        (digits, exponent + k)
        for k, digits in ((0, 1), (0, 2), (0, 5), (1, 1))
        if _decimal(digits, exponent + k) >= wanted
    )
    step = _decimal(digits, exponent)
    first, last = (math.floor(value / step + 1e-9) for value in (low, high))
    return [_decimal(digits * k, exponent) for k in range(first, last + 2)]


def _needed(edges: list[float], low: float, high: float) -> list[float]:
    """The edges from the last one that is not above `low` to the first above `high`."""
    first = max(k for k, edge in enumerate(edges) if edge <= low)
    last = min(k for k, edge in enumerate(edges) if edge > high)
    return edges[first : last + 1]
