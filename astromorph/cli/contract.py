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
    AnalysisSettings,
    DataSettings,
    EvaluationSettings,
    ExportSettings,
    InferenceSettings,
    PreprocessSettings,
    Settings,
    SplitSettings,
    ValidateSettings,
)


def _takes_files(step: Callable[..., Any]) -> bool:
    return "files" in inspect.signature(step).parameters


def validate(
    datafile: str, files: RunFiles, data: DataSettings, rules: ValidateSettings,
    preprocessing: PreprocessSettings, processes: int = 1,
) -> None:  # fmt: skip
    from astromorph.catalogue import validate as module

    step: Any = module.validate
    if _takes_files(step):
        step(datafile, files, data, rules, preprocessing, processes)
        return
    settings = Settings(
        data_settings=data, validate_settings=rules, preprocess_settings=preprocessing
    )
    step(settings, datafile, files.catalogue, files.validation_page, processes)


def preprocess(
    datafile: str, shard: Any, files: RunFiles, data: DataSettings,
    preprocessing: PreprocessSettings,
) -> None:  # fmt: skip
    from astromorph.preprocessing import preprocess as module

    step: Any = module.preprocess
    if _takes_files(step):
        step(datafile, shard, files, data, preprocessing)
        return
    settings = Settings(data_settings=data, preprocess_settings=preprocessing)
    rows = (shard.start, shard.stop)
    outputs = files.tensors(shard.name), files.contents(shard.name)
    step(settings, datafile, rows, *outputs)


def split(
    datafile: str, files: RunFiles, rules: SplitSettings, validation: ValidateSettings,
    seed: int,
) -> None:  # fmt: skip
    from astromorph.catalogue import split as module

    step: Any = module.split
    if _takes_files(step):
        step(datafile, files, rules, validation, seed)
        return
    settings = Settings(split_settings=rules, validate_settings=validation, seed=seed)
    step(settings, datafile, files.all_contents, files.split)


def train(settings: Settings, files: RunFiles, threads: int = 0) -> None:
    from astromorph.settings import steps as parts
    from astromorph.training import train as module

    step: Any = module.train
    if _takes_files(step):
        step(parts.train_step_settings(settings), files, threads)  # type: ignore[attr-defined,unused-ignore]
        return
    step(
        settings, files.split, files.all_tensors, files.model, files.history,
        files.scalars, threads,
    )  # fmt: skip


def infer(
    files: RunFiles, shard: str, rules: InferenceSettings, threads: int = 0
) -> None:
    from astromorph.embedding import infer as module

    step: Any = module.infer
    if _takes_files(step):
        step(files, shard, rules, threads)
        return
    settings = Settings(inference_settings=rules)
    step(settings, files.model, files.tensors(shard), files.embeddings(shard), threads)


def evaluate(
    files: RunFiles, inference: InferenceSettings, rules: EvaluationSettings,
    threads: int = 0,
) -> None:  # fmt: skip
    from astromorph.embedding import evaluate as module

    step: Any = module.evaluate
    if _takes_files(step):
        step(files, inference, rules, threads)
        return
    step(
        Settings(inference_settings=inference, evaluation_settings=rules), files.model,
        files.all_tensors, files.all_embeddings, (files.catalogue, files.split),
        files.evaluation, files.evaluation_page, threads,
    )  # fmt: skip


def analyse(
    files: RunFiles, rules: AnalysisSettings, seed: int, threads: int = 0
) -> None:
    from astromorph.analysis import analyse as module

    step: Any = module.analyse
    if _takes_files(step):
        step(files, rules, seed, threads)
        return
    step(
        Settings(analysis_settings=rules, seed=seed), files.catalogue, files.split,
        files.all_embeddings, files.analysis, files.analysis_summary,
        files.analysis_page, threads,
    )  # fmt: skip


def similar(
    files: RunFiles, paths: list[str], count: int, output: str | None,
    table: str | None, datafile: str | None = None,
) -> list[dict[str, str]]:  # fmt: skip
    from astromorph.analysis import similar as module

    step: Any = module.similar
    if _takes_files(step):
        return list(step(files, paths, count, output, table, datafile))
    return list(step(_run(files), paths, count, output, table, datafile))


def _run(files: RunFiles) -> Any:
    from astromorph.analysis import similar as module

    record: Any = module.Run  # type: ignore[attr-defined,unused-ignore]
    return record(
        files.catalogue, files.split, files.model, files.analysis,
        files.analysis_summary, files.all_tensors, files.all_embeddings,
    )  # fmt: skip


def export_csv(files: RunFiles, separator: Any) -> None:
    from astromorph.export.tables.csv import export_csv as step

    step(files, separator)


def export_parquet(files: RunFiles, made_with: str) -> None:
    from astromorph.export.tables.parquet import export_parquet as step

    step(files, made_with)


def export_fits(files: RunFiles, made_with: str) -> None:
    from astromorph.export.tables.fits import export_fits as step

    step(files, made_with)


def export_votable(files: RunFiles, made_with: str) -> None:
    from astromorph.export.tables.votable import export_votable as step

    step(files, made_with)


def export_tensorboard(files: RunFiles, thumbnail_size: int) -> None:
    from astromorph.export.tensorboard import export_tensorboard as step

    step(files, thumbnail_size)


def export_map(
    files: RunFiles, thumbnail_size: int, max_one_file: int, with_evaluation: bool
) -> None:
    from astromorph.export.html_map.html_map import export_map as step

    step(files, thumbnail_size, max_one_file, with_evaluation)


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
