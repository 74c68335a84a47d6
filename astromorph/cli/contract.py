# ruff: noqa: D103
"""Step functions as the command line calls them, where some still take single paths.

Temporary: once a step takes ``files``, its wrapper here only passes the call on. When
all do, `steps.py` and `commands.py` import the steps themselves and this module goes.
"""

import inspect
from collections.abc import Callable
from typing import Any

from astromorph.artefacts.run_files import RunFiles
from astromorph.settings.sections import (
    DataSettings,
    EvaluationSettings,
    ExportSettings,
    Settings,
)


def _takes_files(step: Callable[..., Any]) -> bool:
    return "files" in inspect.signature(step).parameters


def export_gallery(
    files: RunFiles, datafile: str, data: DataSettings, rules: ExportSettings,
    label: str | None, seed: int,
) -> None:  # fmt: skip
    from astromorph.export.gallery import gallery as module

    step: Any = module.export_gallery
    if _takes_files(step):
        step(files, datafile, data, rules, label, seed)
        return
    evaluation = EvaluationSettings(label=label) if label else EvaluationSettings()
    settings = Settings(
        data_settings=data, export_settings=rules, evaluation_settings=evaluation,
        seed=seed,
    )  # fmt: skip
    step(
        settings, datafile, files.catalogue, files.analysis, files.all_tensors,
        files.model, files.gallery,
    )  # fmt: skip


def plot_history(files: RunFiles) -> None:
    from astromorph.export import history_figure as module

    step: Any = module.plot_history
    if _takes_files(step):
        step(files)
        return
    step(files.history, files.history_figure)


def write_settings_page(files: RunFiles, settings: Settings) -> None:
    from astromorph.export import settings_page as module

    step: Any = module.write_settings_page
    if _takes_files(step):
        step(files, settings)
        return
    step(settings, files.model, files.settings_page)
