"""Plots of a few numbers, drawn by the templates as SVG."""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

WIDTH, LEFT, RIGHT = 680.0, 165.0, 555.0  # of a plot and its axis, in units of the SVG
LINE, GAP = 17.0, 14.0  # height of a line, and distance of two rows
TICKS = 5  # intervals of the axis
HISTOGRAM = (420.0, 150.0)  # width and height of the axes of a histogram
MAX_COUNT_TICKS = 5
DIGIT_WIDTH, TICK_GAP = 7.5, 10.0  # of a number at an axis, and between two


@dataclass(frozen=True, slots=True)
class Tick:
    """A value of the axis, and its position."""

    x: float
    text: str


@dataclass(frozen=True, slots=True)
class PlottedValue:
    """A value of a series.

    Attributes
    ----------
    series : int
        Number of the series, from 0.
    x, y : float
        Its position.
    low, high : float or None
        Ends of its interval; None without one.
    text : str
        The value as a number.
    """

    series: int
    x: float
    y: float
    low: float | None
    high: float | None
    text: str


@dataclass(frozen=True, slots=True)
class PlottedRow:
    """The values of all series for one quantity.

    Attributes
    ----------
    title : str
        The quantity.
    middle : float
        Vertical position of the title.
    values : tuple of PlottedValue
        One for each series.
    """

    title: str
    middle: float
    values: tuple[PlottedValue, ...]


@dataclass(frozen=True, slots=True)
class Plot:
    """A plot of several quantities with a common horizontal axis.

    Attributes
    ----------
    rows : tuple of PlottedRow
        From top to bottom.
    ticks : tuple of Tick
        Values of the axis.
    height : float
        Height without the numbers of the axis.
    chance : float or None
        Position of the value that chance gives.
    bars : bool
        Whether values are bars instead of dots.
    width, left : float
        Width of the plot, and position of the smallest value.
    """

    rows: tuple[PlottedRow, ...]
    ticks: tuple[Tick, ...]
    height: float
    chance: float | None
    bars: bool
    width: float = WIDTH
    left: float = LEFT


def make_plot(
    values: Mapping[str, Mapping[int, tuple[float, float | None]]],
    chance: float | None = None,
    bars: bool = False,
) -> Plot:
    """Place values on an axis that begins at 0, or below the lowest value.

    Parameters
    ----------
    values : mapping of str to mapping of int to tuple
        For each quantity and number of a series a value from -1 to 1, and its standard
        deviation if it has one.
    chance : float, optional
        The value that chance gives.
    bars : bool
        Draw bars, for values of at least 0, instead of dots.

    Returns
    -------
    Plot
        The axis ends at 1.

    Examples
    --------
    >>> plot = make_plot({"accuracy": {0: (0.5, 0.1), 2: (1.0, None)}})
    >>> [value.x for value in plot.rows[0].values]
    [360.0, 555.0]
    >>> [tick.text for tick in plot.ticks]
    ['0.0', '0.2', '0.4', '0.6', '0.8', '1.0']
    """
    lowest = min(
        (v - (s or 0) for row in values.values() for v, s in row.values()), default=0
    )
    # Below 0, the axis begins at a multiple of a half.
    low = 0.0 if lowest >= 0 else -0.5 if lowest >= -0.5 else -1.0

    def place(value: float) -> float:
        share = min(max((value - low) / (1 - low), 0), 1)
        return round(LEFT + share * (RIGHT - LEFT), 1)

    rows = []
    top = GAP / 2
    for title, row in values.items():
        placed = tuple(
            PlottedValue(
                series=series,
                x=place(value),
                y=top + (k + 0.5) * LINE,
                low=None if std is None else place(value - std),
                high=None if std is None else place(value + std),
                text=f"{value:.2f}" if std is None else f"{value:.3f} ± {std:.3f}",
            )
            for k, (series, (value, std)) in enumerate(row.items())
        )
        rows.append(PlottedRow(title, top + len(row) * LINE / 2, placed))
        top += len(row) * LINE + GAP
    steps = [low + k * (1 - low) / TICKS for k in range(TICKS + 1)]
    return Plot(
        rows=tuple(rows),
        ticks=tuple(Tick(place(value), f"{value:.1f}") for value in steps),
        height=top - GAP / 2,
        chance=None if chance is None else place(chance),
        bars=bars,
    )


@dataclass(frozen=True, slots=True)
class HistogramBar:
    """A bar of a histogram, from the bottom upwards.

    Attributes
    ----------
    x, width, height : float
        In units of the SVG.
    title : str
        The range and the count.
    """

    x: float
    width: float
    height: float
    title: str


@dataclass(frozen=True, slots=True)
class HistogramPlot:
    """A histogram with both axes.

    Attributes
    ----------
    bars : tuple of HistogramBar
        The bins that are not empty.
    x_ticks : tuple of Tick
        Edges of bins; those with a number are far enough apart, the others have none.
    y_ticks : tuple of Tick
        Whole numbers; `x` is the distance from the top.
    width, height : float
        Size of the axes.
    """

    bars: tuple[HistogramBar, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    width: float
    height: float


def plot_histogram(
    edges: Sequence[float], counts: Sequence[int], logarithmic: bool
) -> HistogramPlot:
    """Place the bars of a histogram.

    Parameters
    ----------
    edges : sequence of float
        Edges of N bins, increasing; positive on a logarithmic axis.
    counts : sequence of int
        N counts, not all 0.
    logarithmic : bool
        Whether the horizontal axis is logarithmic.

    Returns
    -------
    HistogramPlot

    Examples
    --------
    >>> plot = plot_histogram([0, 10, 20], [30, 7], logarithmic=False)
    >>> [(bar.width, bar.height, bar.title) for bar in plot.bars]
    [(210.0, 150.0, '0 to 10: 30'), (210.0, 35.0, '10 to 20: 7')]
    >>> [tick.text for tick in plot.y_ticks]
    ['0', '10', '20', '30']
    """
    width, height = HISTOGRAM
    scaled = [math.log10(edge) if logarithmic else edge for edge in edges]
    span = scaled[-1] - scaled[0]
    places = [round(width * (x - scaled[0]) / span, 1) for x in scaled]
    step = _count_step(max(counts))
    top = step * math.ceil(max(counts) / step)
    bars = tuple(
        HistogramBar(
            x=places[k],
            width=round(places[k + 1] - places[k], 1),
            height=round(height * count / top, 1),
            title=f"{_number(edges[k])} to {_number(edges[k + 1])}: {count:,}",
        )
        for k, count in enumerate(counts)
        if count
    )
    return HistogramPlot(
        bars=bars,
        x_ticks=_edge_ticks(edges, places, logarithmic),
        y_ticks=tuple(
            Tick(round(height * (1 - n / top), 1), f"{n:,}")
            for n in range(0, top + 1, step)
        ),
        width=width,
        height=height,
    )


def _count_step(highest: int) -> int:
    """A round distance of the ticks of an axis that ends at or above a count."""
    power = 1
    while highest > 5 * power * (MAX_COUNT_TICKS - 1):
        power *= 10
    steps = (digit * power for digit in (1, 2, 5))
    return next(step for step in steps if highest <= step * (MAX_COUNT_TICKS - 1))


def _edge_ticks(
    edges: Sequence[float], places: Sequence[float], logarithmic: bool
) -> tuple[Tick, ...]:
    """A tick for each edge; of the numbers, as many and as round ones as fit."""
    for numbered in _choices(edges, logarithmic):
        texts = {k: _number(edges[k]) for k in numbered}
        if all(
            places[k] - places[j]
            >= DIGIT_WIDTH * (len(texts[j]) + len(texts[k])) / 2 + TICK_GAP
            for j, k in itertools.pairwise(numbered)
        ):
            break
    return tuple(Tick(x, texts.get(k, "")) for k, x in enumerate(places))


def _choices(edges: Sequence[float], logarithmic: bool) -> Iterator[list[int]]:
    """Which edges have a number: from all to the first and the last one."""
    yield list(range(len(edges)))
    if logarithmic:
        digits = [f"{edge:.1e}".partition("e") for edge in edges]
        for leading in (("1.0", "2.0", "5.0"), ("1.0",)):
            yield [k for k, (first, _, _) in enumerate(digits) if first in leading]
        yield [
            k
            for k, (first, _, power) in enumerate(digits)
            if first == "1.0" and int(power) % 3 == 0
        ]
    else:
        step = edges[1] - edges[0]
        for n in (2, 5, 10):
            yield [k for k, edge in enumerate(edges) if round(edge / step) % n == 0]
    yield [0, len(edges) - 1]


def _number(value: float) -> str:
    """A number at an axis, such as 0.05, 1500 or 2e6."""
    return f"{value:g}".replace("e+0", "e").replace("e-0", "e-")
