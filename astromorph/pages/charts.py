"""Plots of a few numbers, drawn by the templates as SVG."""

from collections.abc import Mapping
from dataclasses import dataclass

WIDTH, LEFT, RIGHT = 760.0, 250.0, 640.0  # of a plot and its axis, in units of the SVG
LINE, GAP = 17.0, 14.0  # height of a line, and distance of two rows
TICKS = 5  # intervals of the axis


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
    [445.0, 640.0]
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
