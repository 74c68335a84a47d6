"""Execute the jobs of steps, and record what their results were made from.

The workflow, the command line and single steps all execute steps here. A record is
removed before a step changes its outputs, and written when they are complete and on the
disk, so that a result of an interrupted step has none. A model for images with another
number of channels is refused before any step is executed.
"""

import functools
import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from astromorph.artefacts.records import (
    UNKNOWN_INPUTS,
    Inputs,
    now,
    read_record,
    remove_record,
    write_record,
)
from astromorph.artefacts.run_files import Identity, RunFiles
from astromorph.cli.steps import Job, Step, previous_steps
from astromorph.errors import AstromorphError
from astromorph.filelist.list_state import ListState
from astromorph.locks import exclusive
from astromorph.parent_watch import VARIABLE
from astromorph.processes import is_launched, started_rank
from astromorph.provenance import canonical_json, code_digest, digest, function_digest
from astromorph.settings.sections import PreprocessSettings, Settings
from astromorph.settings.steps import part_of

# Seconds that a step of a workflow waits for the same step of a killed workflow, whose
# steps are about to end.
WAIT_FOR_PREVIOUS = 90.0


def execute(step: Step, job: Job) -> None:
    """Execute a job of a step and record what its results were made from.

    Of several processes that train together, one writes the record: that which started
    the others, or the first one of those that srun started.

    Parameters
    ----------
    step : Step
        One of `astromorph.cli.steps.STEPS`.
    job : Job
        Settings, files and, for a step that works on single shards, the shard.

    Raises
    ------
    AstromorphError
        Another process executes the same job, or the step fails.
    """
    if started_rank() > 0 or is_launched():
        step.run(job)
        return
    files, name = job.files, job_name(step, job)
    lock = files.record(step.name, name).with_suffix(".lock")
    wait = WAIT_FOR_PREVIOUS if os.environ.get(VARIABLE) else 0.0
    with exclusive(lock, f"the step `{step.name}`", wait):
        made_from = planned_inputs(step, job)
        remove_record(files, step.name, name)
        identity = Identity(
            made_from.settings, made_from.file_list, now().date().isoformat()
        )
        step.run(replace(job, files=replace(files, identity=identity)))
        outputs = list(step.outputs(files, name))
        if step.extra_output and step.extra_output(files).exists():
            outputs.append(step.extra_output(files))
        write_record(files, step.name, name, made_from, outputs)


def is_up_to_date(step: Step, job: Job) -> bool:
    """Whether the results of a job are complete and made from its present inputs.

    Parameters
    ----------
    step, job
        See `execute`.
    """
    record = read_record(job.files, step.name, job_name(step, job))
    return (
        record is not None
        and record.has_complete_outputs(job.files.results)
        and record.made_from == planned_inputs(step, job)
    )


def job_name(step: Step, job: Job) -> str:
    """The name of a job in the paths of its files: the shard, or the step."""
    return job.one_shard.name if step.per_shard else step.name


def planned_inputs(
    step: Step, job: Job, planned: Mapping[tuple[str, str], Inputs] | None = None
) -> Inputs:
    """What a job makes its results from if it is executed.

    Parameters
    ----------
    step, job
        See `execute`.
    planned : mapping, optional
        What previous jobs, by step and job, will make their results from. That of all
        others is read from their records.
    """
    planned = planned or {}
    settings = job.settings
    state = ListState(settings.datafile or "", settings.preprocess_settings.shard_size)
    own = job.inputs or own_inputs(step, job, state)
    return own.with_previous(
        planned[key] if key in planned else _recorded_inputs(job.files, *key)
        for key in previous_jobs(step, job)
    )


def own_inputs(step: Step, job: Job, state: ListState) -> Inputs:
    """Digests of what a step itself depends on, without the steps before it.

    Parameters
    ----------
    step, job
        See `execute`.
    state : ListState
        The state of the file list; not used by most steps.
    """
    file_list, files = step.sources(job, state)
    settings = _settings_digest(job.settings, step.part)
    return Inputs(settings, file_list, files, step_code(step))


def step_code(step: Step) -> str:
    """Digest of the code of a step: of its module, and of the call of that module.

    Parameters
    ----------
    step : Step
        One of `astromorph.cli.steps.STEPS`.

    Returns
    -------
    str
        16 hexadecimal digits.
    """
    call = function_digest("cli.steps", f"_{step.name}")
    return digest([code_digest(step.code), call])


def jobs_of(step: Step, job: Job, state: ListState) -> Iterator[Job]:
    """The jobs of a step in a run, with digests of what each itself depends on.

    Parameters
    ----------
    step : Step
        One of `astromorph.cli.steps.STEPS`.
    job : Job
        Settings and files of the run, including all shards.
    state : ListState
        The state of the file list.

    Yields
    ------
    Job
        One for each shard, if the step works on single shards; otherwise one.
    """
    for shard in state.shards.values() if step.per_shard else [None]:
        one = replace(job, shard=shard)
        yield replace(one, inputs=own_inputs(step, one, state))


@functools.cache
def _settings_digest(settings: Settings, part: str) -> str:
    return digest([canonical_json(part_of(settings, part)) if part else "{}"])


def previous_jobs(step: Step, job: Job) -> Iterator[tuple[str, str]]:
    """The jobs whose results a job reads.

    Parameters
    ----------
    step, job
        See `execute`.

    Yields
    ------
    step, job : str
        Names, for `astromorph.artefacts.records.read_record`.
    """
    for previous in previous_steps(step, job):
        name = previous.name
        if not previous.per_shard:
            yield name, name
        elif step.per_shard:
            yield name, job.one_shard.name
        else:
            yield from ((name, shard) for shard in job.files.shards)


def _recorded_inputs(files: RunFiles, step: str, job: str) -> Inputs:
    """What the results of a job were made from; of unknown digests without a record."""
    record = read_record(files, step, job)
    return record.made_from if record else UNKNOWN_INPUTS


def check_model_channels(settings: Settings, model_file: Path) -> None:
    """Raise an error if a model is for images with another number of channels.

    The step `infer` checks all images, but after they have been prepared. Here only the
    first usable image of the list is looked at.

    Parameters
    ----------
    settings : Settings
        Those of the run.
    model_file : Path
        The model that embeds its images.
    """
    from astromorph.byol.build import load_model, training_settings_of
    from astromorph.preprocessing.list_reference import find_reference

    _, model = load_model(model_file)
    datafile, data = str(settings.datafile), settings.data_settings
    try:
        channels = find_reference(datafile, data, PreprocessSettings()).channels
    except AstromorphError:
        return  # the step `validate` says of each file why it cannot be used
    if channels * training_settings_of(model).stacksize != model.in_channels:
        raise AstromorphError(
            f"{model_file}: this model expects images with {model.in_channels} "
            f"channels, but the first image of {datafile} has {channels}; train a "
            "model on these images, or set `data_settings` as for the model"
        )
