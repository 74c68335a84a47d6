"""Losses and embedding measures over the epochs, as a figure for the report."""

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from astromorph.artefacts.tables import HISTORY_COLUMNS, read_csv
from astromorph.atomic import atomic_write
from astromorph.errors import AstromorphError

LOG = logging.getLogger(__name__)
# Okabe & Ito (2008); lines and marks differ too.
BLUE, ORANGE, GREEN, GRAY = "#0072b2", "#d55e00", "#009e73", "#57606a"
MAX_MARKED = 40  # epochs up to which each has a mark
DPI, WIDTH, ROW = 110, 9.0, 2.9  # of the figure, in inches


@dataclass(frozen=True, slots=True)
class Line:
    """A column of the history as it is drawn."""

    column: str
    label: str
    colour: str
    style: str
    mark: str


@dataclass(frozen=True, slots=True)
class Panel:
    """A pair of axes."""

    title: str
    axis: str
    lines: tuple[Line, ...]


PANELS = (
    Panel(
        "BYOL's loss",
        "loss (0 to 8)",
        (
            Line("train_loss", "training images", BLUE, "-", "o"),
            Line("test_loss", "held out", ORANGE, "--", "s"),
        ),
    ),
    Panel(
        "Auxiliary task on simulated images",
        "loss",
        (Line("auxiliary_loss", "auxiliary loss", GREEN, "-", "^"),),
    ),
    Panel(
        "Effective rank: 1 is collapsed",
        "number of directions",
        (Line("effective_rank", "effective rank", BLUE, "-", "o"),),
    ),
    Panel(
        "Spread: 0 is collapsed, 1 even",
        "spread",
        (Line("spread", "spread", BLUE, "-", "o"),),
    ),
    Panel(
        "Learning rate",
        "learning rate",
        (Line("learning_rate", "learning rate", GRAY, "-", "o"),),
    ),
)


def plot_history(history: str | Path, output: str | Path) -> None:
    """Draw the history of a training.

    Parameters
    ----------
    history : path
        What `train` wrote.
    output : path
        PNG to write. A panel without a number is left out.

    Raises
    ------
    AstromorphError
        The file is missing, lacks a column, or holds no epoch.
    """
    rows = list(read_csv(history, HISTORY_COLUMNS))
    if not rows:
        raise AstromorphError(f"{history}: there is no epoch in it; run `train` again")
    columns = {name: [_number(row[name]) for row in rows] for name in HISTORY_COLUMNS}
    from matplotlib import style

    with style.context("default"):
        figure = draw_history(columns)
        with atomic_write(output) as temporary:
            figure.savefig(
                temporary, format="png", dpi=DPI, metadata={"Software": None}
            )
    LOG.info("%s: %d epochs", output, len(rows))


def draw_history(columns: Mapping[str, Sequence[float]]) -> Any:
    """The figure.

    Parameters
    ----------
    columns : dict of str to sequence of float
        Those of the history; NaN where there is no number.

    Returns
    -------
    matplotlib.figure.Figure
    """
    from matplotlib.figure import Figure

    panels = [
        panel
        for panel in PANELS
        if any(_known(columns[line.column]) for line in panel.lines)
    ]
    rows = -(-len(panels) // 2)
    figure = Figure(figsize=(WIDTH, ROW * rows), layout="constrained")
    grid = figure.subplots(rows, 2, squeeze=False).ravel()
    for axes, panel in zip(grid, panels, strict=False):
        _draw(axes, panel, columns)
    for axes in grid[len(panels) :]:
        axes.axis("off")
    return figure


def _draw(axes: Any, panel: Panel, columns: Mapping[str, Sequence[float]]) -> None:
    from matplotlib.ticker import MaxNLocator

    epochs = columns["epoch"]
    marked = len(epochs) <= MAX_MARKED
    for line in panel.lines:
        if _known(columns[line.column]):
            axes.plot(
                epochs, columns[line.column], color=line.colour, linestyle=line.style,
                marker=line.mark if marked else "", markersize=4, label=line.label,
            )  # fmt: skip
    axes.set_title(panel.title, loc="left", fontsize=10)
    axes.set_xlabel("epoch")
    axes.set_ylabel(panel.axis)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#e3e7eb", linewidth=0.7)
    axes.ticklabel_format(axis="y", scilimits=(-3, 4))
    # A measure that is not finite, after a training that diverged, has no place.
    highest = max(
        v for line in panel.lines for v in columns[line.column] if math.isfinite(v)
    )
    axes.set_ylim(0, 1.08 * highest if highest > 0 else 1)
    if len(panel.lines) > 1:
        axes.legend(frameon=False)


def _known(values: Sequence[float]) -> bool:
    return any(math.isfinite(value) for value in values)


def _number(cell: str) -> float:
    return float(cell) if cell else math.nan
