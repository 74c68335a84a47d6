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


def _inputs(files: RunFiles) -> Any:
    from astromorph.artefacts import table_rows

    record: Any = table_rows.Inputs  # type: ignore[attr-defined,unused-ignore]
    return record(files.catalogue, files.split, files.all_embeddings, files.analysis)


def export_csv(files: RunFiles, separator: Any) -> None:
    from astromorph.export.tables import csv as module

    step: Any = module.export_csv
    if _takes_files(step):
        step(files, separator)
        return
    rules = ExportSettings(csv_separator=separator)
    step(Settings(export_settings=rules), _inputs(files), files.table("csv"))


def _export_typed(step: Any, files: RunFiles, ending: str, made_with: str) -> None:
    import json

    if _takes_files(step):
        step(files, made_with)
        return
    settings = Settings.model_validate(json.loads(made_with))
    step(settings, _inputs(files), files.table(ending))


def export_parquet(files: RunFiles, made_with: str) -> None:
    from astromorph.export.tables.parquet import export_parquet as step

    _export_typed(step, files, "parquet", made_with)


def export_fits(files: RunFiles, made_with: str) -> None:
    from astromorph.export.tables.fits import export_fits as step

    _export_typed(step, files, "fits", made_with)


def export_votable(files: RunFiles, made_with: str) -> None:
    from astromorph.export.tables.votable import export_votable as step

    _export_typed(step, files, "vot", made_with)


def export_tensorboard(files: RunFiles, thumbnail_size: int) -> None:
    from astromorph.export import tensorboard as module

    step: Any = module.export_tensorboard
    if _takes_files(step):
        step(files, thumbnail_size)
        return
    settings = Settings(export_settings=ExportSettings(thumbnail_size=thumbnail_size))
    step(settings, _inputs(files), files.all_tensors, files.projector)


def export_map(
    files: RunFiles, thumbnail_size: int, max_one_file: int, with_evaluation: bool
) -> None:
    from astromorph.artefacts.tables import read_csv
    from astromorph.export.html_map import html_map as module

    step: Any = module.export_map
    if _takes_files(step):
        step(files, thumbnail_size, max_one_file, with_evaluation)
        return
    listed = sum(1 for _ in read_csv(files.split))
    rules = ExportSettings(map_thumbnail_size=thumbnail_size)
    step(
        Settings(export_settings=rules), files.catalogue, files.split, files.analysis,
        files.all_tensors, files.map,
        files.map_pictures if listed > max_one_file else None,
        files.evaluation if with_evaluation else None,
    )  # fmt: skip


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
