"""Helpers for the rules of the workflow: shards, digests, resources and params."""

import atexit
import contextlib
import functools
import os
import re
import signal
import threading
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from astromorph.artefacts.records import Inputs, write_record
from astromorph.artefacts.run_files import RunFiles
from astromorph.artefacts.tables import read_csv
from astromorph.cli import resources, status
from astromorph.cli.execute import own_inputs
from astromorph.cli.steps import STEPS, Job, targets
from astromorph.errors import AstromorphError, describe_file_error
from astromorph.filelist.list_state import ListState
from astromorph.filelist.shards import Shard
from astromorph.locks import current_holder, exclusive
from astromorph.progress import INTERRUPTED
from astromorph.provenance import canonical_json
from astromorph.settings.loading import (
    check_names_occur_once,
    check_reference_results,
    parse,
    required_datafile,
)
from astromorph.settings.references import check_reference_networks
from astromorph.settings.sections import Settings
from astromorph.settings.steps import part_of

SOURCE = "settings (config/config.yaml, --configfile, --config)"
# Bytes; larger tables are not included in the report, which browsers must open.
MAX_REPORTED_BYTES = 20_000_000
CATALOGUE_ROW_BYTES, SPLIT_ROW_BYTES = 300, 200
MODEL_FORMAT = b"astromorph-model"  # in every model file
SNAKEMAKE_LOCKS = Path(".snakemake/locks")
DEFAULT_CLUSTER_CORES = 8  # on a cluster, Snakemake has no number of cores
# The beginning of every shell command. Snakemake's default prefix comes first, so that
# a job fails if its step fails before `| tee`. A step watches the parent of the shell,
# and ends if Snakemake is killed. The shell ignores the signals with which a cluster
# ends a job, or a terminal that is closed: it must wait while training writes a
# checkpoint. A step that is killed by
# the system (status 137) cannot log the reason.
SHELL_PREFIX = (
    "set -euo pipefail; export ASTROMORPH_PARENT_PID=$PPID; trap : TERM USR1 HUP; "
    "trap 'test $? -ne 137 || echo \"astromorph: "
    "killed, most likely out of memory; give the step more (mem_mb), or set a smaller "
    "batch_size, preprocess_settings.size or shard_size, then run the same command "
    "again\" >&2' EXIT; "
)
Function = Callable[..., Any]  # Snakemake passes wildcards and more, by name
# Snakemake writes a line, then indented lines of "name: value".
FAILED = re.compile(r"^Error in rule (\w+):\n((?:[ \t]+.*\n)+)", re.MULTILINE)
FINISHED = re.compile(r"^Finished jobid: (\d+)\b", re.MULTILINE)
# How the last error of a step begins that was stopped by Ctrl-C or another signal.
INTERRUPTIONS = ("training stopped by ", INTERRUPTED)
INTERRUPTED_BY_USER = "Terminating processes on user request"
# The errors at the end of a log; a message of several lines is logged line by line.
LOGGED_ERRORS = re.compile(r"(?:^\S+ ERROR .*\n)+", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class WorkflowPlan:
    """The settings, files and digests that the rules use.

    Attributes
    ----------
    settings : Settings
        All settings.
    datafile : str
        The file list.
    files : RunFiles
        The files of the run, all shards included, as the rules name them.
    placed_files : RunFiles
        The same files where they are: a module statement may add a prefix.
    list_state : ListState
        The shards, and digests of the list and of the files in it.
    cores : int
        CPU cores for a step that uses several.
    """

    settings: Settings
    datafile: str
    files: RunFiles
    placed_files: RunFiles
    list_state: ListState
    cores: int

    @property
    def shards(self) -> dict[str, Shard]:
        """The shards by name, in the order of the list."""
        return self.list_state.shards

    @property
    def number_of_images(self) -> int:
        """Number of rows of the file list."""
        return max(shard.stop for shard in self.shards.values())

    @property
    def has_own_model(self) -> bool:
        """Whether the run trains a model instead of using one given in the settings."""
        return STEPS["train"].is_wanted(self.settings)

    @property
    def has_evaluation(self) -> bool:
        """Whether the run evaluates its embeddings."""
        return STEPS["evaluate"].is_wanted(self.settings)

    @property
    def has_map_folder(self) -> bool:
        """Whether the thumbnails of the map are in a separate folder."""
        number = self.number_of_images + self.number_in_reference
        return number > self.settings.export_settings.map_one_file

    @property
    def number_in_reference(self) -> int:
        """Number of rows of the catalogue of the reference run; 0 without one."""
        folder = self.settings.analysis_settings.reference_results
        return _number_of_rows(RunFiles.of_run(folder).catalogue) if folder else 0

    @property
    def declared_list(self) -> list[str]:
        """The list as an input of rules.

        Snakemake always interprets braces in a name as wildcards. A list with such a
        name is omitted; the params contain everything that jobs depend on.
        """
        return [] if "{" in self.datafile else [self.datafile]

    def targets(self) -> list[Path]:
        """The target files of the run."""
        return targets(self.settings, self.files)

    def params(self, step: str, first_output: Path) -> dict[str, Any]:
        """The params of a rule: what makes its step run again, and where it works.

        Parameters
        ----------
        step : str
            The name of the rule.
        first_output : Path
            The first output that the rule declares, or one in the same folder.

        Returns
        -------
        dict
            `settings`: those that the step depends on, as one canonical string,
            since Snakemake stores params as a set of values without names.
            `inputs`: digests of these settings, of its code, and of the rows and files
            that it reads. `results`: the results folder.
        """
        row = STEPS[step]
        part = canonical_json(part_of(self.settings, row.part)) if row.part else "{}"
        return {
            # Functions, since Snakemake interprets braces in a string as wildcards.
            "settings": lambda wildcards: part,
            "inputs": lambda wildcards: self._inputs(step, wildcards).to_json(),
            "results": results_folder(first_output.relative_to(self.files.results)),
        }

    def _inputs(self, step: str, wildcards: Any) -> Inputs:
        shard = self.shards.get(wildcards.get("shard"))
        job = Job(self.settings, self.files, shard=shard)
        return own_inputs(STEPS[step], job, self.list_state)

    def states(self) -> list[status.JobState]:
        """The states of the results of all jobs."""
        return status.job_states(self.settings, self.placed_files, self.list_state)

    def resources(self, step: str, cores: int = 1) -> dict[str, Function]:
        """Memory and time that a job requests, more in each attempt."""

        def estimate(wildcards: Any, attempt: int) -> resources.Resources:
            shard = self.shards.get(wildcards.get("shard"))
            images = self.number_of_images + self.number_in_reference
            if shard:
                images = shard.stop - shard.start
            side = _native_side(self.settings, self.datafile)
            first = resources.resources_for(
                STEPS[step].resources, self.settings, images, cores, side
            )
            return first.at(attempt)

        return {
            "mem_mb": lambda wildcards, attempt: estimate(wildcards, attempt).mem_mb,
            "runtime": lambda wildcards, attempt: estimate(wildcards, attempt).minutes,
        }

    def is_reported(self, row_bytes: int) -> bool:
        """Whether a table is small enough for the report.

        Parameters
        ----------
        row_bytes : int
            Typical length of a row in bytes.
        """
        return self.number_of_images * row_bytes <= MAX_REPORTED_BYTES

    @property
    def table_row_bytes(self) -> int:
        """Typical length in bytes of a row of the table of embeddings, as CSV."""
        length = (
            self.settings.byol_settings.representation_size or resources.DEFAULT_LENGTH
        )
        return 300 + 12 * length


def workflow_files() -> Path:
    """The folder of the workflow, its profiles and settings in the package.

    In a clone, it contains links to the folders beside the package.
    """
    return Path(__file__).parents[1] / "workflow_files"


def snakefile() -> str:
    """The path of the workflow that comes with the package, for `include`."""
    return str((workflow_files() / "workflow" / "Snakefile").resolve())


def check_config_files(paths: Iterable[str | Path]) -> None:
    """Raise an error if a name is set twice in a file of settings.

    Snakemake uses the last value, and no other setting of an earlier section.

    Parameters
    ----------
    paths : iterable of path
        The files that Snakemake has read; those that are not on this machine, or are
        templates (``__use_yte__``), are skipped.

    Raises
    ------
    AstromorphError
        One line for each repeated name.
    """
    for path in map(Path, paths):
        if path.is_file() and "__use_yte__" not in (text := _read(path)):
            with contextlib.suppress(yaml.YAMLError):  # JSON may have tabs
                check_names_occur_once(text, str(path))


def plan_workflow(
    config: Mapping[str, Any],
    cores: int | None,
    place: Callable[[str], str] = str,
) -> WorkflowPlan:
    """Read the settings and the file list.

    Parameters
    ----------
    config : mapping
        Snakemake's configuration.
    cores : int or None
        The cores that Snakemake was given; None on a cluster.
    place : callable, optional
        Returns where a file of the rules is. A module statement of another workflow can
        add a prefix to all relative paths, or replace the beginning of some.

    Returns
    -------
    WorkflowPlan

    Raises
    ------
    AstromorphError
        A setting is not allowed, or the list cannot be read.
    """
    settings = _outside_prefix(parse(config, SOURCE), place)
    datafile = required_datafile(settings, SOURCE)
    check_reference_results(settings, SOURCE)
    check_reference_networks(settings, SOURCE)
    model = settings.trained_network_name
    if model and "{" in model:
        raise AstromorphError(
            f"`trained_network_name`: found {model!r}; the workflow does not allow "
            "braces in it; rename the file"
        )
    state = ListState(datafile, settings.preprocess_settings.shard_size)
    files = RunFiles.of_run("results", len(state.shards), model)
    return WorkflowPlan(
        settings,
        datafile,
        files,
        replace(files, results=Path(place(str(files.home))).parent),
        state,
        settings.core_limit or cores or DEFAULT_CLUSTER_CORES,
    )


def _outside_prefix(settings: Settings, place: Callable[[str], str]) -> Settings:
    """Make the names of the user's files absolute, if a module statement changes them.

    Only the results are in the folder of the prefix.
    """
    names = ("datafile", "trained_network_name", "marks")
    paths = {name: getattr(settings, name) for name in names}
    changed = {
        name: os.path.abspath(path)
        for name, path in paths.items()
        if path and place(path) != path
    }
    return settings.model_copy(update=changed)


def check_model(plan: WorkflowPlan) -> None:
    """Raise an error if `trained_network_name` names no model file.

    The steps that use the model check all of it, but the images are prepared before
    them. Here nothing is loaded, since each job calls this function.

    Parameters
    ----------
    plan : WorkflowPlan
        The run.
    """
    name = plan.settings.trained_network_name
    if not name:
        return
    advice = (
        "give a model file of astromorph, such as a copy of results/model/model.pt of "
        "the run that trained it, or leave out the setting to train a model"
    )
    start = f"{SOURCE}: `trained_network_name`: {name}"
    try:
        with zipfile.ZipFile(name) as file:
            values = [part for part in file.namelist() if part.endswith("/data.pkl")]
            is_model = bool(values) and MODEL_FORMAT in file.read(values[0])
    except OSError as error:
        raise AstromorphError(
            f"{start}: {describe_file_error(error, name)}; {advice}"
        ) from None
    except (zipfile.BadZipFile, ValueError, RuntimeError):
        is_model = False
    if not is_model:
        raise AstromorphError(f"{start}: this is not a model file; {advice}")


def results_folder(below: Path) -> Function:
    """A function for params: the results folder of a job.

    A storage provider copies the files to another folder, and a module statement may
    add a prefix, so that only the paths of the job determine where it is.

    Parameters
    ----------
    below : Path
        One of the outputs of the rule, relative to the results folder.

    Examples
    --------
    >>> folder = results_folder(Path("model/model.pt"))
    >>> folder(None, ["storage/results/model/model.pt"])
    'storage/results'
    """
    number = len(below.parts)

    def folder(wildcards: Any, output: Sequence[str]) -> str:
        for path in output:
            parts = Path(path).parts
            pairs = zip(below.parts, parts[-number:], strict=False)
            if len(parts) >= number and all(d == p for d, p in pairs if "{" not in d):
                return str(Path(*parts[:-number]))
        raise ValueError(
            f"output: found {output[0]}; allowed are paths that end in {below}, in one "
            "folder for all rules: use `replace_prefix` of a module statement"
        )

    return folder


def compares_records(dag_settings: Any, storage_settings: Any) -> bool:
    """Whether the results are in this folder, and outdated ones are made again.

    Parameters
    ----------
    dag_settings, storage_settings
        Snakemake's. ``--rerun-triggers mtime`` ignores settings, as the user wishes.
    """
    triggers = {str(trigger) for trigger in dag_settings.rerun_triggers}
    return "params" in triggers and not storage_settings.default_storage_provider


def outdated_results(
    plan: WorkflowPlan, targets: Iterable[str]
) -> tuple[list[str], list[str]]:
    """Existing results that have to be made again, whatever Snakemake's records say.

    Snakemake compares params only with its own records. These are lost if its folder is
    deleted, and may be older than the results after a power failure.

    Parameters
    ----------
    plan : WorkflowPlan
        The run.
    targets : iterable of str
        The targets on the command line, files or rules; empty for the whole run.

    Returns
    -------
    paths, reasons : list of str
        The results, and for each step why they are outdated.
    """
    states = status.needed(plan.states(), _target_files(plan, targets))
    return [str(path) for path in status.outdated_outputs(states)], [
        f"{name} is run again: its results are {state}"
        for name, state in status.outdated_steps(states)
    ]


def hold_lock(plan: WorkflowPlan) -> None:
    """Record that this Snakemake works in the folder, until its process ends.

    Snakemake's own lock does not say which process holds it. See `explain_lock`.
    """
    if threading.current_thread() is threading.main_thread():
        end_on_signals()
    stack = contextlib.ExitStack()
    # Snakemake allows two processes in one folder if they make different files.
    with contextlib.suppress(AstromorphError):
        stack.enter_context(exclusive(plan.placed_files.workflow_lock, "snakemake"))
        atexit.register(stack.close)


def end_on_signals() -> None:
    """On SIGTERM or SIGHUP, let Snakemake finish its running jobs and remove its lock.

    Snakemake's own handler of SIGTERM waits forever if the signal arrives while
    Snakemake records that a job has ended: the interrupted code holds the lock for
    which the handler waits. In a thread, the handler waits while this code continues
    and releases the lock. SIGHUP, which is sent when the terminal is closed and would
    end Snakemake at once, is handled in the same way.
    """
    handler = signal.getsignal(signal.SIGTERM)
    if not callable(handler):
        return

    def handle(*arguments: Any) -> None:
        threading.Thread(target=handler, args=arguments, daemon=True).start()

    signal.signal(signal.SIGTERM, handle)
    if signal.getsignal(signal.SIGHUP) == signal.SIG_DFL:
        signal.signal(signal.SIGHUP, handle)


def explain_lock(plan: WorkflowPlan) -> str:
    """Who holds Snakemake's lock of this folder, and what to do; empty without a lock.

    If the process was killed, its lock remains, and Snakemake refuses to work.
    """
    if not any(SNAKEMAKE_LOCKS.glob("*.lock")):
        return ""
    holder = current_holder(plan.placed_files.workflow_lock)
    if holder is None:
        return (
            "the Snakemake that locked this folder has ended without unlocking it: it "
            "was killed, or the power failed. If it did not run on another machine, "
            "run `snakemake --unlock` once and then the same command again"
        )
    return (
        f"Snakemake is running in this folder (process {holder.pid} on {holder.host}); "
        "wait for it to end, then run the same command again"
    )


def accept_results(plan: WorkflowPlan, targets: Iterable[str]) -> None:
    """Record that existing results are up to date, as ``snakemake --touch`` demands.

    Parameters
    ----------
    plan, targets
        See `outdated_results`.
    """
    files = plan.placed_files
    for state in status.needed(plan.states(), _target_files(plan, targets)):
        if not state.is_up_to_date and all(path.exists() for path in state.outputs):
            write_record(files, state.step, state.job, state.planned, state.outputs)


def _target_files(plan: WorkflowPlan, targets: Iterable[str]) -> list[Path] | None:
    """Files for the targets of a command; None for the whole run."""
    paths: list[Path] = []
    for target in targets:
        if target in STEPS:
            paths += STEPS[target].all_outputs(plan.placed_files)
        elif "/" in target:
            paths.append(Path(os.path.relpath(target)))
        else:
            return None  # a rule that asks for the whole run
    return paths or None


def sheet_title(sheet: str) -> str:
    """The name of a contact sheet in the report.

    Examples
    --------
    >>> sheet_title("cluster_00")
    'Cluster 00'
    """
    return sheet.replace("_", " ").capitalize()


def sheet_category(sheet: str) -> str:
    """The category of a contact sheet in the report."""
    return "Map" if sheet.startswith("map_") else "Galleries"


@functools.cache
def _number_of_rows(catalogue: Path) -> int:
    return sum(1 for _ in read_csv(catalogue, ["image_id"]))


@functools.cache
def _native_side(settings: Settings, datafile: str) -> int:
    """Side of images that keep their size, from the first headers of the list."""
    if settings.preprocess_settings.size != "native":
        return resources.DEFAULT_NATIVE_SIDE
    from astromorph.preprocessing import list_reference

    side = list_reference.native_side(datafile, settings.data_settings)
    return side or resources.DEFAULT_NATIVE_SIDE


@dataclass(frozen=True, slots=True)
class FailedJob:
    """A job that failed and did not succeed in a later attempt.

    Attributes
    ----------
    rule : str
        Its step.
    log : str
        The log file of the step; empty if it has none.
    reason : str
        The last error in that log, of one or more lines; empty if there is none.
    """

    rule: str
    log: str
    reason: str

    @property
    def is_interrupted(self) -> bool:
        """Whether it was stopped by the user or by a signal, such as a time limit."""
        return self.reason.startswith(INTERRUPTIONS)

    def __str__(self) -> str:
        reason = self.reason or "killed before it could log a reason"
        first, line_break, others = reason.partition("\n")
        log = f" ({self.log})" if self.log else ""
        return f"{self.rule}: {first}{log}{line_break}{others}"


def closing_errors(log: str | Path | Iterable[str | Path]) -> list[str]:
    """What a run that was not completed says last.

    Parameters
    ----------
    log : path or iterable of path
        Snakemake's own log of the run; since version 9 there may be several.

    Returns
    -------
    list of str
        The errors of the jobs that failed. Without any, the run was interrupted: then
        one line says how to continue.
    """
    logs = [log] if isinstance(log, str | Path) else log
    text = "\n".join(_read(path) for path in logs)
    jobs = _failed_jobs(text)
    by_user = INTERRUPTED_BY_USER in text
    failed = [
        job for job in jobs if not (job.is_interrupted or (by_user and not job.reason))
    ]
    if failed:
        return [f"failed: {job}" for job in failed]
    # Training says where it continues; all other steps start again.
    trained = [str(job) for job in jobs if job.reason.startswith(INTERRUPTIONS[0])]
    return [f"interrupted: {job}" for job in trained] or [
        "interrupted; run the same command again to continue"
    ]


def _failed_jobs(text: str) -> list[FailedJob]:
    """The jobs whose last attempt failed, in the order of their first failure."""
    finished = set(FINISHED.findall(text))
    failed = {}
    for rule, lines in FAILED.findall(text):
        facts = dict(_facts(lines))
        number = facts.get("jobid", "")
        if number not in finished:
            name = re.split(r", | \(", facts.get("log", ""))[0]
            failed[number] = FailedJob(rule, name, _last_error(name))
    return list(failed.values())


def _facts(lines: str) -> Iterator[tuple[str, str]]:
    for line in lines.splitlines():
        name, colon, value = line.strip().partition(": ")
        if colon:
            yield name, value


def _last_error(log: str) -> str:
    blocks = LOGGED_ERRORS.findall(_read(log) if log else "")
    lines = blocks[-1].splitlines() if blocks else []
    return "\n".join(line.partition(" ERROR ")[2] for line in lines)


def _read(path: str | Path) -> str:
    """The text of a log; empty if it does not exist."""
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
