"""Which results are up to date, which are older than their inputs, which are missing.

The inputs of all jobs are planned from the settings, the file list and the code, and
compared with the records in the folder.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from astromorph.artefacts.records import (
    Inputs,
    Record,
    all_records,
    read_record,
    size_of,
)
from astromorph.artefacts.run_files import RunFiles
from astromorph.cli.execute import job_name, jobs_of, planned_inputs
from astromorph.cli.steps import STEPS, Job, Step, wanted_steps
from astromorph.filelist.list_state import ListState
from astromorph.settings.sections import Settings

UP_TO_DATE, MISSING, INCOMPLETE = "up to date", "missing", "incomplete"
WITHOUT_RECORD = "without a record"
CHANGED_OUTPUT = "changed since they were made"


@dataclass(frozen=True, slots=True)
class JobState:
    """The state of the results of one job.

    Attributes
    ----------
    step, job : str
        The step and its job.
    outputs : tuple of Path
        Its files and folders.
    state : str
        ``"up to date"``, ``"missing"``, ``"incomplete"``, ``"without a record"``,
        ``"changed since they were made"``, or ``"older than the settings, file list"``
        and so on.
    planned : Inputs
        What the results are made from if the job is executed now.
    record : Record or None
        What the existing results were made from.
    """

    step: str
    job: str
    outputs: tuple[Path, ...]
    state: str
    planned: Inputs
    record: Record | None

    @property
    def is_up_to_date(self) -> bool:
        """Whether nothing has to be done."""
        return self.state == UP_TO_DATE


def job_states(
    settings: Settings, files: RunFiles, list_state: ListState
) -> list[JobState]:
    """The state of each job of a run with these settings.

    Parameters
    ----------
    settings : Settings
        All settings.
    files : RunFiles
        The files of the run, including all shards.
    list_state : ListState
        The state of the file list.

    Returns
    -------
    list of JobState
        In the order of execution.
    """
    planned = planned_run(settings, files, list_state)
    return [
        _job_state(STEPS[step], job, files, inputs)
        for (step, job), inputs in planned.items()
    ]


def planned_run(
    settings: Settings, files: RunFiles, list_state: ListState
) -> dict[tuple[str, str], Inputs]:
    """What the results of each job of a run are made from if it is executed now.

    Parameters
    ----------
    settings, files, list_state
        See `job_states`.

    Returns
    -------
    dict
        By step and job, in the order of execution.
    """
    evaluates = STEPS["evaluate"].is_wanted(settings)
    job = Job(settings, files, with_evaluation=evaluates)
    planned: dict[tuple[str, str], Inputs] = {}
    for step in wanted_steps(settings):
        for one in jobs_of(step, job, list_state):
            planned[step.name, job_name(step, one)] = planned_inputs(step, one, planned)
    return planned


def needed(
    states: Iterable[JobState], targets: Sequence[Path] | None
) -> list[JobState]:
    """The states of the jobs that write the targets, and of all jobs before them.

    Parameters
    ----------
    states : iterable of JobState
        The states of all jobs.
    targets : sequence of Path or None
        Outputs; None for all.
    """
    states = list(states)
    if targets is None:
        return states
    writers = {path: state.step for state in states for path in state.outputs}
    waiting = [writers[path] for path in targets if path in writers]
    steps: set[str] = set()
    while waiting:
        step = waiting.pop()
        if step not in steps:
            steps.add(step)
            waiting.extend(STEPS[step].after)
    return [state for state in states if state.step in steps]


def outdated_outputs(states: Iterable[JobState]) -> list[Path]:
    """Existing outputs that have to be made again."""
    return [
        path
        for state in states
        if not state.is_up_to_date
        for path in state.outputs
        if path.exists()
    ]


def outdated_steps(states: Iterable[JobState]) -> list[tuple[str, str]]:
    """Name and state of each step with results that have to be made again."""
    rows = summary(state for state in states if state.state != MISSING)
    return [(r["step"], r["state"]) for r in rows if r["state"] != UP_TO_DATE]


def summary(states: Iterable[JobState]) -> list[dict[str, str]]:
    """A table of the states, with a row for each step.

    Parameters
    ----------
    states : iterable of JobState
        The states of all jobs.

    Returns
    -------
    list of dict of str to str
        Columns ``step``, ``state``, ``settings``, ``file list``, ``finished (UTC)``.
    """
    by_step: dict[str, list[JobState]] = {}
    for state in states:
        by_step.setdefault(state.step, []).append(state)
    return [_summary_row(step, jobs) for step, jobs in by_step.items()]


def left_over(states: Iterable[JobState], files: RunFiles, trains: bool) -> list[Path]:
    """Outputs in the folder that are not part of a run with the present settings.

    Parameters
    ----------
    states : iterable of JobState
        The states of all jobs of the run.
    files : RunFiles
        The files of the run.
    trains : bool
        Whether the run trains; otherwise it may use the model in the folder.
    """
    known = {(state.step, state.job) for state in states}
    if not trains:
        known |= {("train", "train"), ("report_history", "report_history")}
    return [
        files.results / name
        for record in all_records(files)
        if (record.step, record.job) not in known
        for name in record.outputs
        if size_of(files.results / name) >= 0
    ]


def _job_state(step: Step, job: str, files: RunFiles, inputs: Inputs) -> JobState:
    outputs = tuple(step.outputs(files, job))
    record = read_record(files, step.name, job)
    state = _state(record, outputs, files.results, inputs)
    return JobState(step.name, job, outputs, state, inputs, record)


def _state(
    record: Record | None, outputs: Sequence[Path], results: Path, inputs: Inputs
) -> str:
    existing = [path.exists() for path in outputs]
    if not any(existing):
        return MISSING
    if not all(existing):
        return INCOMPLETE
    if record is None:
        return WITHOUT_RECORD
    if not record.has_complete_outputs(results):
        return CHANGED_OUTPUT
    differences = record.made_from.differences(inputs)
    names = [name.replace("_", " ") for name in differences]
    return f"older than the {', '.join(names)}" if names else UP_TO_DATE


def _summary_row(step: str, jobs: Sequence[JobState]) -> dict[str, str]:
    records = [job.record for job in jobs if job.record]
    counts = Counter(job.state for job in jobs)
    if len(counts) == 1:
        state = jobs[0].state
    else:
        state = ", ".join(f"{n} of {len(jobs)} {s}" for s, n in counts.items())
    return {
        "step": step,
        "state": state,
        "settings": _common(record.made_from.settings for record in records),
        "file list": _common(record.made_from.file_list for record in records),
        "finished (UTC)": max((_minute(r.finished) for r in records), default="-"),
    }


def _common(digests: Iterable[str]) -> str:
    """The digest that all have; otherwise their number."""
    different = set(digests)
    if len(different) > 1:
        return f"{len(different)} different"
    return different.pop() if different else "-"


def _minute(date: str) -> str:
    return date[:16].replace("T", " ")
