"""Pages and figures of the report: settings, and the training history.

Torch, which reads model files, is imported where it is needed: the figure is drawn
without it.
"""

import json
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from astromorph.artefacts.columns import HISTORY_COLUMNS
from astromorph.artefacts.run_files import RunFiles
from astromorph.artefacts.tables import read_csv
from astromorph.atomic import atomic_write
from astromorph.errors import AstromorphError
from astromorph.pages.html import write_page
from astromorph.provenance import canonical_json, versions
from astromorph.settings.loading import parse
from astromorph.settings.sections import Section, Settings
from astromorph.settings.steps import PARTS, part_of

if TYPE_CHECKING:
    from astromorph.artefacts.model_file import ModelFile

LOG = logging.getLogger(__name__)
# These settings affect where and how a run works, but not its results.
LEFT_OUT = frozenset({"trained_network_name", "core_limit", "export_to_csv"})
# Okabe & Ito (2008); line styles and markers differ too.
BLUE, ORANGE, GREEN, GRAY = "#0072b2", "#d55e00", "#009e73", "#57606a"
MAX_EPOCHS_WITH_MARKERS = 40
DPI, WIDTH, ROW_HEIGHT = 110, 9.0, 2.9  # lengths in inches
Columns = Mapping[str, Sequence[float]]


@dataclass(frozen=True, slots=True)
class SettingRow:
    """A setting as a row of the page.

    Attributes
    ----------
    name : str
        Name without its section.
    value, default : str
        Formatted as in YAML.
    is_changed : bool
        Whether the value differs from the default.
    description : str
        What the setting does.
    """

    name: str
    value: str
    default: str
    is_changed: bool
    description: str


def write_settings_page(files: RunFiles, settings: Settings) -> None:
    """Write the page.

    Parameters
    ----------
    files : RunFiles
        `model` is read without unpickling; `settings_page` is written.
    settings : Settings
        Settings of the run. Those that training depends on are replaced by those in
        the model file.

    Raises
    ------
    AstromorphError
        The model file cannot be read.
    """
    from astromorph.artefacts.model_file import read_model_file

    model = read_model_file(files.model)
    sections = dict(list_settings(_effective_settings(settings, model)))
    changed = [
        (section, row)
        for section, rows in sections.items()
        for row in rows
        if row.is_changed
    ]
    preprocessing = canonical_json(part_of(settings, "preprocess"))
    write_page(
        files.settings_page,
        "settings.html",
        files,
        sections=sections,
        changed=changed,
        training=[name for name in PARTS["train"] if name != "seed"],
        model=model,
        versions=[(n, model.versions.get(n, ""), v) for n, v in versions().items()],
        differences=_differences(model.tensor_settings, preprocessing),
    )
    LOG.info("%s: settings and versions", files.settings_page)


def list_settings(settings: Settings) -> Iterator[tuple[str, list[SettingRow]]]:
    """List all settings that can affect results, by section.

    Parameters
    ----------
    settings : Settings
        All settings.

    Yields
    ------
    section : str
        Name of the section; ``general`` for settings outside of sections.
    rows : list of SettingRow
    """
    names = type(settings).model_fields
    defaults = Settings()
    general = [n for n in names if not isinstance(getattr(settings, n), Section)]
    yield (
        "general",
        [_row(settings, defaults, name) for name in general if name not in LEFT_OUT],
    )
    for name in names:
        section = getattr(settings, name)
        if isinstance(section, Section):
            keys = type(section).model_fields
            yield name, [_row(section, getattr(defaults, name), key) for key in keys]


def _row(section: Section, defaults: Section, name: str) -> SettingRow:
    value, default = getattr(section, name), getattr(defaults, name)
    description = type(section).model_fields[name].description or ""
    plain, plain_default = (
        part.model_dump(mode="json", include={name})[name]
        for part in (section, defaults)
    )
    return SettingRow(
        name,
        _as_yaml(plain),
        _as_yaml(plain_default),
        value != default,
        " ".join(description.split()),
    )


def _as_yaml(value: Any) -> str:
    """A value as in a settings file, strings without quotes unless they are empty."""
    if isinstance(value, str):
        return value or '""'
    return json.dumps(value, ensure_ascii=False)


def _effective_settings(settings: Settings, model: "ModelFile") -> Settings:
    """The settings that results depend on; those of training come from the model."""
    values = settings.model_dump(mode="json")
    for name, value in model.settings.items():
        if isinstance(value, dict):
            values[name] = {**values[name], **value}
        elif name != "seed":
            values[name] = value
    return parse(values, "settings and model file")


def _differences(training_json: str, run_json: str) -> list[tuple[str, str, str]]:
    """Preprocessing settings that differ between training and this run."""
    training, run = (
        {
            f"{section}.{key}": value
            for section, values in json.loads(text).items()
            for key, value in values.items()
        }
        for text in (training_json, run_json)
    )
    return [
        (name, _as_yaml(training.get(name)), _as_yaml(run.get(name)))
        for name in sorted({*training, *run})
        if training.get(name) != run.get(name)
    ]


@dataclass(frozen=True, slots=True)
class Curve:
    """A column of the history and its style."""

    column: str
    label: str
    colour: str = BLUE
    line_style: str = "-"
    marker: str = "o"


@dataclass(frozen=True, slots=True)
class Panel:
    """Axes with one or more curves."""

    title: str
    y_label: str
    curves: tuple[Curve, ...]


PANELS = (
    Panel(
        "BYOL loss",
        "loss (0 to 8)",
        (
            Curve("train_loss", "training images"),
            Curve("test_loss", "test images", ORANGE, "--", "s"),
        ),
    ),
    Panel(
        "Auxiliary task: labelled simulated images",
        "loss",
        (Curve("auxiliary_loss", "auxiliary loss", GREEN, marker="^"),),
    ),
    Panel(
        "Effective rank (1: collapsed)",
        "number of dimensions",
        (Curve("effective_rank", "effective rank"),),
    ),
    Panel(
        "Spread (0: collapsed, 1: uniform)",
        "spread",
        (Curve("spread", "spread"),),
    ),
    Panel(
        "Learning rate",
        "learning rate",
        (Curve("learning_rate", "learning rate", GRAY),),
    ),
)


def plot_history(files: RunFiles) -> None:
    """Draw the training history.

    Parameters
    ----------
    files : RunFiles
        `history` is read, `history_figure` is written. Panels without data are
        omitted.

    Raises
    ------
    AstromorphError
        The history is missing, lacks a column, or has no epochs.
    """
    rows = list(read_csv(files.history, HISTORY_COLUMNS))
    if not rows:
        raise AstromorphError(f"{files.history}: it has no epochs; run `train` again")
    columns = {
        name: [float(row[name]) if row[name] else math.nan for row in rows]
        for name in HISTORY_COLUMNS
    }
    from matplotlib import style

    with style.context("default"):
        figure = draw_history(columns)
        with atomic_write(files.history_figure) as temporary:
            figure.savefig(
                temporary, format="png", dpi=DPI, metadata={"Software": None}
            )
    LOG.info("%s: %d epochs", files.history_figure, len(rows))


def draw_history(columns: Columns) -> Any:
    """Draw the figure.

    Parameters
    ----------
    columns : dict of str to sequence of float
        Columns of the history; NaN for missing numbers.

    Returns
    -------
    matplotlib.figure.Figure
    """
    from matplotlib.figure import Figure

    panels = [
        panel
        for panel in PANELS
        if any(_has_numbers(columns[curve.column]) for curve in panel.curves)
    ]
    rows = -(-len(panels) // 2)
    figure = Figure(figsize=(WIDTH, ROW_HEIGHT * rows), layout="constrained")
    grid = figure.subplots(rows, 2, squeeze=False).ravel()
    for axes, panel in zip(grid, panels, strict=False):
        _draw_panel(axes, panel, columns)
    for axes in grid[len(panels) :]:
        axes.axis("off")
    return figure


def _draw_panel(axes: Any, panel: Panel, columns: Columns) -> None:
    from matplotlib.ticker import MaxNLocator

    epochs = columns["epoch"]
    with_markers = len(epochs) <= MAX_EPOCHS_WITH_MARKERS
    for curve in panel.curves:
        if _has_numbers(columns[curve.column]):
            axes.plot(
                epochs,
                columns[curve.column],
                color=curve.colour,
                linestyle=curve.line_style,
                marker=curve.marker if with_markers else "",
                markersize=4,
                label=curve.label,
            )
    axes.set_title(panel.title, loc="left", fontsize=10)
    axes.set_xlabel("epoch")
    axes.set_ylabel(panel.y_label)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#e3e7eb", linewidth=0.7)
    axes.set_ylim(0, _upper_limit(panel, columns))
    if len(panel.curves) > 1:
        axes.legend(frameon=False)


def _upper_limit(panel: Panel, columns: Columns) -> float:
    """Upper limit of the y axis; ignores infinite values of diverged training."""
    highest = max(
        value
        for curve in panel.curves
        for value in columns[curve.column]
        if math.isfinite(value)
    )
    return 1.08 * highest if highest > 0 else 1


def _has_numbers(values: Sequence[float]) -> bool:
    return any(math.isfinite(value) for value in values)
