"""The table of steps, and the target files of a run.

The rules of the workflow and the pipeline of the command line are both built from
`STEPS`, so that the same settings give the same files. Steps import their modules when
they run, so that the Snakefile, which reads this table for every job, does not import
torch.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from astromorph.artefacts.records import Inputs, read_record
from astromorph.artefacts.run_files import RunFiles
from astromorph.errors import AstromorphError
from astromorph.filelist.list_state import ListState
from astromorph.filelist.shards import Shard, file_state
from astromorph.provenance import canonical_json, digest
from astromorph.settings.loading import required_datafile
from astromorph.settings.presets import needs_head
from astromorph.settings.references import weights_files
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
    inputs : Inputs or None
        Digests of what the step itself depends on, if they are known already.
    """

    settings: Settings
    files: RunFiles
    source: str = "settings"
    threads: int = 1
    shard: Shard | None = None
    with_evaluation: bool = False
    inputs: Inputs | None = None

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
        settings.evaluation_settings.label,
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
        job.files,
        rules.map_thumbnail_size,
        rules.map_one_file,
        job.with_evaluation,
        rules.gallery,
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


def _rank(job: Job) -> None:
    from astromorph.ranking.rank import rank

    rank(job.files, job.settings.marks)


def _report_settings(job: Job) -> None:
    from astromorph.export.report import write_settings_page

    write_settings_page(job.files, job.settings)


def _report_home(job: Job) -> None:
    from astromorph.export.home import write_home

    results = {
        step.name: step.all_outputs(job.files)
        for step in previous_steps(STEPS["report_home"], job)
    }
    write_home(job.files, job.settings.datafile, results, job.with_evaluation)


def _always(settings: Settings) -> bool:
    return True


def _trains(settings: Settings) -> bool:
    return not settings.trained_network_name


def _exports(form: Literal["parquet", "fits", "votable"]) -> Callable[[Settings], bool]:
    return lambda settings: form in settings.export_settings.tables


# The digests of the file list and of files that a step itself depends on, for
# `astromorph.artefacts.records.Inputs`.
Sources = tuple[str, str]


def _sources_of_validate(job: Job, state: ListState) -> Sources:
    return state.rows, state.files


def _sources_of_preprocess(job: Job, state: ListState) -> Sources:
    shard = job.one_shard
    rows, listed_files = state.shard_rows(shard), state.shard_files(shard)
    if needs_head(job.settings):
        return digest([rows, state.head_rows]), digest([listed_files, state.head_files])
    return rows, listed_files


def _sources_of_split(job: Job, state: ListState) -> Sources:
    return state.groups, ""


def _start_weights(job: Job, state: ListState) -> Sources:
    weights = job.settings.network_settings.weights
    return "", file_state([weights]) if weights else ""


def _named_model(job: Job, state: ListState) -> Sources:
    """The state of a model that this run has not trained."""
    files = job.files
    if files.model == files.own_model:
        is_trained = read_record(files, "train", "train") is not None
        if is_trained or not job.settings.trained_network_name:
            return "", ""
    return "", file_state([str(files.model)])


def _references(job: Job, state: ListState) -> Sources:
    """The states of the weights of other networks."""
    files = weights_files(job.settings.evaluation_settings.references)
    return "", file_state(files) if files else ""


def _marks(job: Job, state: ListState) -> Sources:
    """The content of the file of marks; empty if it cannot be read."""
    try:
        content = Path(job.settings.marks).read_bytes()
    except (OSError, ValueError):
        return "", ""
    return "", digest([content.decode("utf-8", "surrogateescape")])


def _reference_analysis(job: Job, state: ListState) -> Sources:
    """The state of the earlier run among whose images those of this run are placed."""
    folder = job.settings.analysis_settings.reference_results
    if not folder:
        return "", ""
    files = RunFiles.of_run(folder)
    names = (files.analysis, files.analysis_summary, files.catalogue, files.split)
    return "", file_state([str(path) for path in names])


def _no_sources(job: Job, state: ListState) -> Sources:
    return "", ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A step of the workflow.

    Attributes
    ----------
    name : str
        The name of the rule. The subcommand has a space instead of the underscore.
    run : callable
        Executes the step: the function `_{name}` of this module, whose code counts as
        code of the step.
    code : str
        The module, without the name of the package; the step runs again if its digest
        changes.
    part : str
        Key of `astromorph.settings.steps.PARTS`; empty if the step has no settings.
    outputs : callable
        The files and folders that it writes, given the files of the run and, for a
        step that works on a single shard, the name of the shard.
    extra_output : callable or None
        A folder that it writes only for long lists.
    after : tuple of str
        The steps whose outputs it reads.
    sources : callable
        What it reads beside them.
    per_shard : bool
        Whether it works on single shards.
    resources : str
        Name of its estimate in `astromorph.cli.resources`.
    is_wanted : callable
        Whether a run of the workflow with these settings has the step.
    """

    name: str
    run: Callable[[Job], None]
    code: str
    part: str
    outputs: Callable[[RunFiles, str], Sequence[Path]]
    extra_output: Callable[[RunFiles], Path] | None = None
    after: tuple[str, ...] = ()
    sources: Callable[[Job, ListState], Sources] = _no_sources
    per_shard: bool = False
    resources: str = "export"
    is_wanted: Callable[[Settings], bool] = _always

    def all_outputs(self, files: RunFiles) -> list[Path]:
        """Its outputs for all shards."""
        jobs = files.shards if self.per_shard else ("",)
        return [path for shard in jobs for path in self.outputs(files, shard)]


EMBEDDED = ("validate", "split", "infer")  # what each table and page of images reads


def _table_step(form: str, run: Callable[[Job], None], part: str, wanted: Any) -> Step:
    return Step(
        name=f"export_{form}",
        run=run,
        code=f"export.tables.{form}",
        part=part,
        outputs=lambda files, shard: [files.table(TABLE_ENDINGS[form])],
        after=(*EMBEDDED, "analyse"),
        is_wanted=wanted,
    )


# In the order in which the command line executes them.
STEPS = {
    step.name: step
    for step in (
        Step(
            name="validate",
            run=_validate,
            code="catalogue.validate",
            part="validate",
            outputs=lambda files, shard: [files.catalogue, files.validation_page],
            sources=_sources_of_validate,
            resources="validate",
        ),
        Step(
            name="preprocess",
            run=_preprocess,
            code="preprocessing.preprocess",
            part="preprocess",
            outputs=lambda files, shard: [files.tensors(shard), files.contents(shard)],
            sources=_sources_of_preprocess,
            per_shard=True,
            resources="preprocess",
        ),
        Step(
            name="split",
            run=_split,
            code="catalogue.split",
            part="split",
            outputs=lambda files, shard: [files.split],
            after=("preprocess",),
            sources=_sources_of_split,
            resources="split",
        ),
        Step(
            name="train",
            run=_train,
            code="training.train",
            part="train",
            outputs=lambda files, shard: [files.model, files.history, files.scalars],
            after=("preprocess", "split"),
            sources=_start_weights,
            resources="train",
            is_wanted=_trains,
        ),
        Step(
            name="report_history",
            run=_report_history,
            code="export.report",
            part="",
            outputs=lambda files, shard: [files.history_figure],
            after=("train",),
            is_wanted=_trains,
        ),
        Step(
            name="infer",
            run=_infer,
            code="embedding.infer",
            part="infer",
            outputs=lambda files, shard: [files.embeddings(shard)],
            after=("train", "preprocess"),
            sources=_named_model,
            per_shard=True,
            resources="infer",
        ),
        Step(
            name="evaluate",
            run=_evaluate,
            code="embedding.evaluate",
            part="evaluate",
            outputs=lambda files, shard: [files.evaluation, files.evaluation_page],
            after=("train", *EMBEDDED, "preprocess"),
            sources=_references,
            resources="evaluate",
            is_wanted=lambda settings: settings.evaluation_settings.images > 0,
        ),
        Step(
            name="analyse",
            run=_analyse,
            code="analysis.analyse",
            part="analyse",
            outputs=lambda files, shard: [
                files.analysis,
                files.analysis_summary,
                files.analysis_page,
            ],
            after=(*EMBEDDED, "preprocess"),
            sources=_reference_analysis,
            resources="analyse",
        ),
        _table_step(
            "csv", _export_csv, "export_csv", lambda settings: settings.export_to_csv
        ),
        _table_step("parquet", _export_parquet, "export_tables", _exports("parquet")),
        _table_step("fits", _export_fits, "export_tables", _exports("fits")),
        _table_step("votable", _export_votable, "export_tables", _exports("votable")),
        Step(
            name="export_tensorboard",
            run=_export_tensorboard,
            code="export.tensorboard",
            part="export_tensorboard",
            outputs=lambda files, shard: [files.projector],
            after=(*EMBEDDED, "analyse", "preprocess"),
        ),
        Step(
            name="export_map",
            run=_export_map,
            code="export.html_map.html_map",
            part="export_map",
            outputs=lambda files, shard: [files.map],
            extra_output=lambda files: files.map_pictures,
            after=(*EMBEDDED, "evaluate", "analyse", "preprocess"),
            is_wanted=lambda settings: settings.export_settings.map,
        ),
        Step(
            name="export_gallery",
            run=_export_gallery,
            code="export.gallery.gallery",
            part="export_gallery",
            outputs=lambda files, shard: [files.gallery],
            after=("train", "validate", "analyse", "preprocess"),
            sources=_named_model,
            resources="gallery",
            is_wanted=lambda settings: settings.export_settings.gallery,
        ),
        Step(
            name="rank",
            run=_rank,
            code="ranking.rank",
            part="rank",
            outputs=lambda files, shard: [
                files.ranking,
                files.ranking_page,
                files.ranking_sheets,
            ],
            after=(*EMBEDDED, "analyse", "preprocess"),
            sources=_marks,
            resources="rank",
            is_wanted=lambda settings: bool(settings.marks),
        ),
        Step(
            name="report_settings",
            run=_report_settings,
            code="export.report",
            part="report_settings",
            outputs=lambda files, shard: [files.settings_page],
            after=("train",),
            sources=_named_model,
            resources="report",
        ),
    )
}


# Written when everything that it leads to is complete.
STEPS["report_home"] = Step(
    name="report_home",
    run=_report_home,
    code="export.home",
    part="report_home",
    outputs=lambda files, shard: [files.home],
    after=tuple(STEPS),
    sources=_named_model,
    resources="gallery",
)


def previous_steps(step: Step, job: Job) -> Iterator[Step]:
    """The steps whose results a job of a step reads.

    Parameters
    ----------
    step : Step
        One of `STEPS`.
    job : Job
        Settings and files; those of `after` that are not part of its run are omitted.

    Yields
    ------
    Step
        In the order of `after`.
    """
    for previous in map(STEPS.__getitem__, step.after):
        if previous.name in ("train", "report_history"):
            # A model of another run is a file that the step depends on.
            is_in_run = job.files.model == job.files.own_model
        elif previous.name == "evaluate":
            is_in_run = job.with_evaluation
        else:
            is_in_run = previous.is_wanted(job.settings)
        if is_in_run:
            yield previous


def wanted_steps(settings: Settings) -> tuple[Step, ...]:
    """The steps of a run with these settings, in the order of execution."""
    return tuple(step for step in STEPS.values() if step.is_wanted(settings))


def targets(settings: Settings, files: RunFiles) -> list[Path]:
    """The target files of a run: the outputs of all its steps.

    Intermediate files are targets too. Snakemake makes a missing intermediate file only
    if it is needed, so that an interrupted step would pass for a finished one.

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
    ['results/catalogue.csv', 'results/validation.html', 'results/tensors/00000.pt']
    """
    steps = wanted_steps(settings)
    return [path for step in steps for path in step.all_outputs(files)]
