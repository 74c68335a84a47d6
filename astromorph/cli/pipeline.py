"""Run all steps without Snakemake, with the same output files.

Results that are up to date are kept: those made from the same settings, code, rows of
the list and files.
"""

import logging
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from astromorph.artefacts.run_files import RunFiles
from astromorph.artefacts.run_table import open_run
from astromorph.cli.closing import closing_lines, closing_lines_of_training
from astromorph.cli.execute import (
    check_model_channels,
    execute,
    is_up_to_date,
    jobs_of,
)
from astromorph.cli.steps import STEPS, Job, Step, wanted_steps
from astromorph.errors import AstromorphError
from astromorph.filelist.list_state import ListState
from astromorph.progress import track
from astromorph.settings.loading import check_reference_results
from astromorph.settings.references import check_reference_networks
from astromorph.system.workers import process_pool

LOG = logging.getLogger(__name__)
PREPARATION = ("validate", "preprocess", "split")
TRAINING = ("train", "report_history")


def run_train(job: Job) -> None:
    """From FITS files to a model.

    Parameters
    ----------
    job : Job
        All settings; `trained_network_name` names the model file to write, by
        default ``model/model.pt`` in the results folder. Files are read by `threads`
        processes.
    """
    run_steps(job, [STEPS[name] for name in (*PREPARATION, *TRAINING)])
    for line in closing_lines_of_training(job.files):
        LOG.info("%s", line)


def run_infer(job: Job) -> None:
    """From FITS files and a model to embeddings and exports.

    Parameters
    ----------
    job : Job
        All settings; `trained_network_name` names the model file to read, by
        default ``model/model.pt`` in the results folder.

    Raises
    ------
    AstromorphError
        The model file cannot be used; this is checked before the images are read.
    """
    check_reference_results(job.settings, job.source)
    check_reference_networks(job.settings, job.source)
    check_model_channels(job.settings, job.files.model)
    steps = wanted_steps(job.settings)
    run_steps(job, [step for step in steps if step.name not in TRAINING])
    for line in closing_lines(job.files, job.settings):
        LOG.info("%s", line)


def run_steps(job: Job, steps: Iterable[Step]) -> None:
    """Execute steps in order; steps that work on single shards, for each shard.

    Parameters
    ----------
    job : Job
        All settings of the run; its shards are planned here.
    steps : iterable of Step
        Values of `astromorph.cli.steps.STEPS`.
    """
    settings = job.settings
    state = ListState(job.datafile, settings.preprocess_settings.shard_size)
    job = replace(
        job,
        files=replace(job.files, shards=tuple(state.shards)),
        with_evaluation=STEPS["evaluate"].is_wanted(settings),
    )
    for step in steps:
        _execute_outdated(step, jobs_of(step, job, state))
        if step.name == "validate":
            LOG.info(
                "open %s: what the listed files contain", job.files.validation_page
            )


def _execute_outdated(step: Step, jobs: Iterable[Job]) -> None:
    """Execute the jobs of a step whose results are not up to date."""
    jobs = list(jobs)
    outdated = [job for job in jobs if not is_up_to_date(step, job)]
    if len(outdated) < len(jobs):
        kept = len(jobs) - len(outdated)
        shards = f" for {kept} of {len(jobs)} shards" if step.per_shard else ""
        LOG.info("%s: up to date%s", step.name, shards)
    threads = jobs[0].threads
    # Other steps use several threads for one job.
    if step.name == "preprocess" and threads > 1 and len(outdated) > 1:
        with process_pool(threads) as pool:
            running = [pool.submit(_execute, step.name, job) for job in outdated]
            for future in track(running, len(running), "shards"):
                future.result()
    else:
        for job in outdated:
            execute(step, job)


def _execute(step: str, job: Job) -> None:
    execute(STEPS[step], job)


def finished_run(results: str | Path, model: str | None = None) -> RunFiles:
    """The files of a run that has an analysis.

    Parameters
    ----------
    results : path
        The results folder.
    model : str, optional
        The model file, if it is not ``model/model.pt`` in that folder.

    Raises
    ------
    AstromorphError
        The run does not exist, or is not finished.
    """
    files = RunFiles.of_run(results, named_model=model)
    for path in (files.catalogue, files.split, files.analysis, files.analysis_summary):
        if not path.exists():
            raise no_finished_run(path)
    return open_run(results, model)


def no_finished_run(missing: Path) -> AstromorphError:
    """The error of a command that needs a file of a finished run."""
    return AstromorphError(
        f"{missing}: no such file; give the folder of a finished run with --results, "
        "or run `astromorph run` first"
    )


def files_of_run(results: str | Path, model: str | None = None) -> RunFiles:
    """The files of a run, with the shards that its split names, if there is one.

    Parameters
    ----------
    results : path
        The results folder.
    model : str, optional
        The model file, if it is not ``model/model.pt`` in that folder.
    """
    files = RunFiles.of_run(results, named_model=model)
    return open_run(results, model) if files.split.exists() else files
