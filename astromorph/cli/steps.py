"""The table of steps, and the target files of a run.

The rules of the workflow and the pipeline of the command line are both built from
`STEPS`, so that the same settings give the same files. Steps import their modules when
they run, so that the Snakefile, which reads this table for every job, does not import
torch.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from astromorph.artefacts.run_files import RunFiles
from astromorph.errors import AstromorphError
from astromorph.filelist.shards import Shard
from astromorph.provenance import canonical_json
from astromorph.settings.loading import required_datafile
from astromorph.settings.sections import Settings
from astromorph.settings.steps import part_of, train_step_settings

# The formats of the table of embeddings and their file name suffixes.
TABLE_ENDINGS = {"csv": "csv", "parquet": "parquet", "fits": "fits", "votable": "vot"}


@dataclass(frozen=True, slots=True)
class Job:
    """One execution of a step.

    Attributes
    ----------
    settings : Settings
        Those of the run, or the part that the step depends on with defaults elsewhere.
    files : RunFiles
        The files of the run.
    source : str
        Where the settings come from; messages about them begin with it.
    threads : int
        CPU threads or processes to use.
    shard : Shard or None
        The shard, for steps that work on a single one.
    with_evaluation : bool
        Whether the run has an evaluation, whose verdict the map shows.
    """

    settings: Settings
    files: RunFiles
    source: str = "settings"
    threads: int = 1
    shard: Shard | None = None
    with_evaluation: bool = False

    @property
    def datafile(self) -> str:
        """Name of the file list; raises an error if none is set."""
        return required_datafile(self.settings, self.source)

    @property
    def one_shard(self) -> Shard:
        """The shard of a step that works on a single one."""
        if self.shard is None:
            raise AstromorphError("--shard: give the shard that this step works on")
        return self.shard


def _validate(job: Job) -> None:
    from astromorph.catalogue.validate import validate

    settings = job.settings
    validate(
        job.datafile,
        job.files,
        settings.data_settings,
        settings.validate_settings,
        settings.preprocess_settings,
        job.threads,
    )


def _preprocess(job: Job) -> None:
    from astromorph.preprocessing.preprocess import preprocess

    settings = job.settings
    preprocess(
        job.datafile,
        job.one_shard,
        job.files,
        settings.data_settings,
        settings.preprocess_settings,
    )


def _split(job: Job) -> None:
    from astromorph.catalogue.split import split

    settings = job.settings
    split(
        job.datafile,
        job.files,
        settings.split_settings,
        settings.validate_settings,
        settings.seed,
    )


def _train(job: Job) -> None:
    from astromorph.training.train import train

    train(train_step_settings(job.settings), job.files, job.threads)


def _report_history(job: Job) -> None:
    from astromorph.export.report import plot_history

    plot_history(job.files)


def _infer(job: Job) -> None:
    from astromorph.embedding.infer import infer

    infer(job.files, job.one_shard.name, job.settings.inference_settings, job.threads)


def _evaluate(job: Job) -> None:
    from astromorph.embedding.evaluate import evaluate

    settings = job.settings
    evaluate(
        job.files,
        settings.inference_settings,
        settings.evaluation_settings,
        job.threads,
    )


def _analyse(job: Job) -> None:
    from astromorph.analysis.analyse import analyse

    settings = job.settings
    analyse(job.files, settings.analysis_settings, settings.seed, job.threads)


def _export_csv(job: Job) -> None:
    from astromorph.export.tables.csv import export_csv

    export_csv(job.files, job.settings.export_settings.csv_separator)


def _export_parquet(job: Job) -> None:
    from astromorph.export.tables.parquet import export_parquet

    export_parquet(job.files, _table_settings(job))


def _export_fits(job: Job) -> None:
    from astromorph.export.tables.fits import export_fits

    export_fits(job.files, _table_settings(job))


def _export_votable(job: Job) -> None:
    from astromorph.export.tables.votable import export_votable

    export_votable(job.files, _table_settings(job))


def _table_settings(job: Job) -> str:
    """The settings that are written into a table."""
    return canonical_json(part_of(job.settings, "export_tables"))


def _export_tensorboard(job: Job) -> None:
    from astromorph.export.tensorboard import export_tensorboard

    export_tensorboard(job.files, job.settings.export_settings.thumbnail_size)


def _export_map(job: Job) -> None:
    from astromorph.export.html_map.html_map import export_map

    rules = job.settings.export_settings
    export_map(
        job.files, rules.map_thumbnail_size, rules.map_one_file, job.with_evaluation
    )


def _export_gallery(job: Job) -> None:
    from astromorph.export.gallery.gallery import export_gallery

    settings = job.settings
    export_gallery(
        job.files,
        job.datafile,
        settings.data_settings,
        settings.export_settings,
        settings.evaluation_settings.label,
        settings.seed,
    )


def _report_settings(job: Job) -> None:
    from astromorph.export.report import write_settings_page

    write_settings_page(job.files, job.settings)


def _always(settings: Settings) -> bool:
    return True


def _trains(settings: Settings) -> bool:
    return not settings.trained_network_name


def _exports(form: Literal["parquet", "fits", "votable"]) -> Callable[[Settings], bool]:
    return lambda settings: form in settings.export_settings.tables


@dataclass(frozen=True, slots=True)
class Step:
    """A step of the workflow.

    Attributes
    ----------
    name : str
        The name of the rule. The subcommand has a space instead of the underscore.
    run : callable
        Executes the step.
    code : str
        The module, without the name of the package; the step runs again if its digest
        changes.
    targets : callable
        Those of its files that are targets of a run; all others are inputs of later
        steps.
    part : str
        Key of `astromorph.settings.steps.PARTS`; empty if the step has no settings.
    resources : str
        Name of its estimate in `astromorph.cli.resources`.
    is_wanted : callable
        Whether a run of the workflow with these settings has the step.
    """

    name: str
    run: Callable[[Job], None]
    code: str
    targets: Callable[[RunFiles], Iterable[Path]]
    part: str
    resources: str
    is_wanted: Callable[[Settings], bool] = _always


def _table_step(form: str, run: Callable[[Job], None], part: str, wanted: Any) -> Step:
    ending = TABLE_ENDINGS[form]
    return Step(
        f"export_{form}", run, f"export.tables.{form}",
        lambda files: [files.table(ending)], part, "export", wanted,
    )  # fmt: skip


# In the order in which the command line executes them.
STEPS = {
    step.name: step
    for step in (
        Step(
            "validate", _validate, "catalogue.validate",
            lambda files: [files.validation_page], "validate", "validate",
        ),
        Step(
            "preprocess", _preprocess, "preprocessing.preprocess",
            lambda files: [], "preprocess", "preprocess",
        ),
        Step(
            "split", _split, "catalogue.split",
            lambda files: [files.split], "split", "split",
        ),
        Step(
            "train", _train, "training.train",
            lambda files: [files.own_model], "train", "train", _trains,
        ),
        Step(
            "report_history", _report_history, "export.report",
            lambda files: [files.history_figure], "", "export", _trains,
        ),
        Step(
            "infer", _infer, "embedding.infer",
            lambda files: files.all_embeddings, "infer", "infer",
        ),
        Step(
            "evaluate", _evaluate, "embedding.evaluate",
            lambda files: [files.evaluation_page], "evaluate", "evaluate",
            lambda settings: settings.evaluation_settings.images > 0,
        ),
        Step(
            "analyse", _analyse, "analysis.analyse",
            lambda files: [files.analysis_page], "analyse", "analyse",
        ),
        _table_step(
            "csv", _export_csv, "export_csv", lambda settings: settings.export_to_csv
        ),
        _table_step("parquet", _export_parquet, "export_tables", _exports("parquet")),
        _table_step("fits", _export_fits, "export_tables", _exports("fits")),
        _table_step("votable", _export_votable, "export_tables", _exports("votable")),
        Step(
            "export_tensorboard", _export_tensorboard, "export.tensorboard",
            lambda files: [files.projector], "export_tensorboard", "export",
        ),
        Step(
            "export_map", _export_map, "export.html_map.html_map",
            lambda files: [files.map], "export_map", "export",
            lambda settings: settings.export_settings.map,
        ),
        Step(
            "export_gallery", _export_gallery, "export.gallery.gallery",
            lambda files: [files.gallery], "export_gallery", "gallery",
            lambda settings: settings.export_settings.gallery,
        ),
        Step(
            "report_settings", _report_settings, "export.report",
            lambda files: [files.settings_page], "report_settings", "report",
        ),
    )
}  # fmt: skip


def wanted_steps(settings: Settings) -> tuple[Step, ...]:
    """The steps of a run with these settings, in the order of execution."""
    return tuple(step for step in STEPS.values() if step.is_wanted(settings))


def targets(settings: Settings, files: RunFiles) -> list[Path]:
    """The target files of a run.

    Parameters
    ----------
    settings : Settings
        All of them; they determine which exports there are.
    files : RunFiles
        The files of the run, all shards included.

    Returns
    -------
    list of Path
        Files and folders, in the order of the steps.

    Examples
    --------
    >>> paths = targets(Settings(), RunFiles.of_run("results", shards=1))
    >>> [str(path) for path in paths][:3]
    ['results/validation.html', 'results/split.csv', 'results/model/model.pt']
    """
    steps = wanted_steps(settings)
    return [path for step in steps for path in step.targets(files)]
