"""What the jobs of the workflow do, in a few lines of the terminal.

Each job writes its log to a file of its own. The main process of Snakemake reads these
files while the jobs run, on this machine or on a cluster, and shows what people wait
for: the progress of long steps, warnings, and one line for each step that ends. In a
terminal, progress is shown as bars, else as lines without control characters.
"""

import logging
import os
import re
import threading
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from astromorph.cli.workflow import INTERRUPTED_BY_USER
from astromorph.progress import (
    AFTER_CTRL_C,
    EPOCHS,
    SECONDS_BETWEEN_LINES,
    Bars,
    Progress,
    parse_progress,
    shows_bars,
)
from astromorph.system.logs import printable, shortened

# A line of the log of a step, as `astromorph.system.logs` writes it.
LOG_LINE = re.compile(r"(\d\d:\d\d:\d\d) (INFO|WARNING|ERROR) (.*)")
POLL_SECONDS = 0.5
SECONDS_UNTIL_SIGN = 60.0  # of life, if no line was written
STEPS_BAR = "steps"
MAX_BARS = 4  # of jobs that run at the same time
NOTHING_TO_DO = "Nothing to be done"
VALIDATION_PAGE = "validation.html"
# What Snakemake says about a failed job. Its error is shown when the workflow ends.
ABOUT_FAILED_JOBS = (
    "CalledProcessError",
    "Exiting because a job execution failed",
    "At least one job did not complete successfully",
)
# What it says when a run is interrupted.
ABOUT_INTERRUPTIONS = (INTERRUPTED_BY_USER, "Will exit after")
# Where a rule file has noticed an error in the settings or the list.
PLACE_IN_RULES = re.compile(r'(WorkflowError in file|  File) ".*", line \d+')


@dataclass(slots=True)
class _RunningJob:
    """A job, and how far its log has been read.

    Attributes
    ----------
    rule : str
        Its rule.
    log : Path
        Its log file.
    before : tuple of int or None
        Time and size of the log of an earlier job, which is not shown; None if there
        was none.
    pages : list of str
        Outputs that are announced when the job has ended.
    offset : int
        Bytes that were read.
    last : str
        The last line of information that was not shown.
    """

    rule: str
    log: Path
    before: tuple[int, int] | None
    pages: list[str]
    offset: int = 0
    last: str = ""

    def new_lines(self) -> list[str]:
        """Complete lines that were added to the log."""
        state = _file_state(self.log)
        if state is None or state == self.before:
            return []
        self.before = None
        if state[1] < self.offset:  # another attempt
            self.offset = 0
        try:
            with open(self.log, "rb") as file:
                file.seek(self.offset)
                text = file.read()
        except OSError:
            return []
        complete = text[: text.rfind(b"\n") + 1]
        self.offset += len(complete)
        return complete.decode("utf-8", "replace").splitlines()


class JobWatch(logging.Handler):
    """Shows what the jobs of a workflow do; a handler of Snakemake's logger.

    Parameters
    ----------
    stream : text file
        Where to write.
    is_brief : bool
        Whether Snakemake itself says nothing about jobs. Then their number, a bar of
        all steps and a sign of life are shown, too.
    targets : callable
        Returns the names of rules that only ask for the results of others.
    folder : path
        The folder of the run, if it is not that of the user.
    when_up_to_date : callable
        Called if no job has to run.
    is_running : callable
        Whether jobs are executed: not in a dry run. Snakemake knows it, and the
        target, when it has read the rules.
    """

    def __init__(
        self,
        stream: TextIO,
        is_brief: bool,
        targets: Callable[[], Collection[str]] = tuple,
        folder: str | Path = "",
        when_up_to_date: Callable[[], None] = lambda: None,
        is_running: Callable[[], bool] = lambda: True,
    ) -> None:
        super().__init__()
        self.name = "astromorph"
        self.bars = Bars(stream) if shows_bars(stream) else None
        self.stream = stream
        self.is_brief = is_brief
        self.targets = targets
        self.folder = Path(folder)
        self.when_up_to_date = when_up_to_date
        self.is_running = is_running
        self._numbers: dict[str, int] = {}  # of jobs, by rule
        self._ended: dict[str, int] = {}
        self._jobs: dict[int, _RunningJob] = {}
        self._is_interrupted = False  # by Ctrl-C
        self._last_line = time.monotonic()
        self._last_counts: dict[str, float] = {}
        self._is_closed = threading.Event()
        self._reader: threading.Thread | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Learn from Snakemake which jobs there are, start and end."""
        try:
            if self.is_running():
                self._learn(record)
        except Exception:  # what is shown must not end the run
            self.handleError(record)

    def _learn(self, record: logging.LogRecord) -> None:
        event, values = str(getattr(record, "event", "")), record.__dict__
        if event == "run_info":
            self._plan(values.get("stats") or {})
        elif event == "job_info":
            self._start(values)
        elif event == "job_finished":
            self._end(values.get("job_id"), failed=False)
        elif event == "job_error":
            self._end(values.get("jobid"), failed=True)
        elif record.getMessage().startswith(INTERRUPTED_BY_USER):
            self._is_interrupted = True
        elif record.getMessage().startswith(NOTHING_TO_DO):
            if self.is_brief:
                self._write("all results are up to date")
            self.when_up_to_date()

    def close(self) -> None:
        """Stop reading, and remove the bars."""
        self.acquire()  # the reader is not within a line
        try:
            self._is_closed.set()
            if self.bars:
                self.bars.close()
        finally:
            self.release()
        super().close()

    def _plan(self, numbers: Mapping[str, int]) -> None:
        hidden = {*self.targets(), "total"}
        self._numbers = {k: int(v) for k, v in numbers.items() if k not in hidden}
        if self.is_brief:
            self._write(f"{self._total} jobs to run")

    @property
    def _total(self) -> int:
        return sum(self._numbers.values())

    def _start(self, values: Mapping[str, Any]) -> None:
        rule, logs = str(values.get("rule_name")), values.get("log") or []
        if rule in self.targets() or not logs:
            return
        log = Path(re.split(r" \(", str(logs[0]))[0])
        pages = [
            str(path)
            for path in values.get("output") or []
            if Path(str(path)).name == VALIDATION_PAGE
        ]
        self._jobs[int(values["jobid"])] = _RunningJob(
            rule, log, _file_state(log), pages
        )
        self._show_steps()
        if self._reader is None:
            self._reader = threading.Thread(
                target=self._read_logs, name="job watch", daemon=True
            )
            self._reader.start()

    def _end(self, number: Any, failed: bool) -> None:
        job = self._jobs.pop(int(number), None) if number is not None else None
        if job is None:
            return
        self._read_log(job)
        if self.bars:
            self.bars.close(str(job.log))
        if failed:
            outcome = "interrupted" if self._is_interrupted else "failed"
            self._write(f"{_now()} {job.rule}: {outcome} ({job.log})")
        else:
            self._ended[job.rule] = self._ended.get(job.rule, 0) + 1
            self._report_end(job)
            for page in job.pages:
                page = printable(str(self.folder / page))
                self._write(f"{_now()} open {page}: what the listed files contain")
        self._show_steps()

    def _report_end(self, job: _RunningJob) -> None:
        """A line for a step that has ended, at most one every 20 s for its shards."""
        number, ended = self._numbers.get(job.rule, 1), self._ended[job.rule]
        position = f"[{sum(self._ended.values())} of {self._total}] {job.rule}"
        if number == 1:
            # Snakemake itself says that jobs of other workflows are done.
            if job.last or self.is_brief:
                self._write(f"{_now()} {position}: {job.last or 'done'}")
            return
        last = self._last_counts.setdefault(job.rule, time.monotonic())
        if ended == number or time.monotonic() - last >= SECONDS_BETWEEN_LINES:
            self._last_counts[job.rule] = time.monotonic()
            self._write(f"{_now()} {position}: {ended} of {number} shards")

    def _read_logs(self) -> None:
        while not self._is_closed.wait(POLL_SECONDS):
            self.acquire()
            try:
                if self._is_closed.is_set():
                    return
                for job in self._jobs.values():
                    self._read_log(job)
                if self.is_brief and self._jobs and not self.bars:
                    self._give_sign_of_life()
            finally:
                self.release()

    def _read_log(self, job: _RunningJob) -> None:
        for line in job.new_lines():
            match = LOG_LINE.fullmatch(line)
            if match is None:
                continue
            moment, level, message = match.groups()
            progress = parse_progress(message)
            if level == "WARNING":
                self._write(f"{moment} {job.rule}: WARNING {message}")
            elif level == "INFO" and progress:
                self._show_progress(job, moment, message, progress)
            elif message == AFTER_CTRL_C:
                self._write(f"{moment} {job.rule}: {message}")
            elif level == "INFO":  # errors are shown when the workflow ends
                job.last = message

    def _show_progress(
        self, job: _RunningJob, moment: str, message: str, progress: Progress
    ) -> None:
        is_last_epoch = progress.label == EPOCHS and progress.done == progress.total
        if not self.bars:
            if self._numbers.get(job.rule, 1) == 1:
                self._write(f"{moment} {job.rule}: {message}")
        elif is_last_epoch:
            self.bars.close(str(job.log))
            self._write(f"{moment} {job.rule}: {message}")
        elif len(self._jobs) <= MAX_BARS:
            labelled = f"{job.rule}, {progress.label}"
            self.bars.show(
                str(job.log),
                Progress(labelled, progress.done, progress.total, progress.note),
            )

    def _show_steps(self) -> None:
        if not (self.bars and self.is_brief and self._total):
            return
        running = ", ".join(sorted({job.rule for job in self._jobs.values()}))
        done = sum(self._ended.values())
        if done == self._total:
            self.bars.close(STEPS_BAR)
        else:
            progress = Progress(STEPS_BAR, done, self._total, running)
            self.bars.show(STEPS_BAR, progress, with_time=False)

    def _give_sign_of_life(self) -> None:
        if time.monotonic() - self._last_line >= SECONDS_UNTIL_SIGN:
            running = ", ".join(sorted({job.rule for job in self._jobs.values()}))
            self._write(f"{_now()} running: {running}")

    def _write(self, text: str) -> None:
        line = shortened(printable(text))
        self._last_line = time.monotonic()
        try:
            if self.bars:
                self.bars.write(line)
            else:
                print(line, file=self.stream, flush=True)
        except (OSError, ValueError):  # the terminal was closed
            pass


class _OnlyProblems(logging.Filter):
    """Lets warnings, errors and messages of this package pass, without repetitions."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is written."""
        message = record.getMessage()
        if any(text in message for text in ABOUT_FAILED_JOBS):
            return False
        if str(getattr(record, "event", "")) == "error":
            lines = message.splitlines()
            lines = [line for line in lines if not PLACE_IN_RULES.match(line)]
            record.msg, record.args = "\n".join(lines) or message, ()
        own = hasattr(record, "astromorph") or message.startswith(ABOUT_INTERRUPTIONS)
        return own or record.levelno >= logging.WARNING


def is_silent(workflow: Any) -> bool:
    """Whether the user wants no information at all (``--quiet all``)."""
    return "ALL" in {choice.name for choice in workflow.output_settings.quiet or ()}


def watch_jobs(
    workflow: Any, logger: logging.Logger, when_up_to_date: Callable[[], None]
) -> JobWatch | None:
    """Show in the terminal what the jobs of a workflow do.

    If Snakemake is quiet about rules (``--quiet rules``), its other remarks are not
    shown either; its own log file contains all of them. If it is also quiet about
    progress, it does not say when jobs end; then only their progress is shown.

    Parameters
    ----------
    workflow : snakemake.workflow.Workflow
        The workflow.
    logger : logging.Logger
        Snakemake's.
    when_up_to_date : callable
        Called if no job has to run, unless these rules are a module of another
        workflow.

    Returns
    -------
    JobWatch or None
        The handler that was added; None if nothing is to be shown: in jobs, and with
        ``--quiet all``.
    """
    quiet = {choice.name for choice in workflow.output_settings.quiet or ()}
    terminal = None
    for handler in list(logger.handlers):
        if handler.name == "astromorph":  # another workflow of the same process
            logger.removeHandler(handler)
        elif handler.name == "DefaultLogFileHandler":
            # `astromorph.cli.workflow.closing_errors` reads it.
            for quiet_filter in handler.filters:
                if hasattr(quiet_filter, "quiet"):
                    quiet_filter.quiet = set()
        elif handler.name == "DefaultStreamHandler":
            terminal = handler
    if not isinstance(terminal, logging.StreamHandler):
        return None
    if os.environ.get("NO_COLOR"):
        terminal.nocolor = True  # type: ignore[attr-defined]
    if not workflow.is_main_process or is_silent(workflow):
        return None
    if workflow.modifier.is_module:  # a part of another workflow
        when_up_to_date = _say_nothing
    is_brief = "RULES" in quiet and "PROGRESS" not in quiet
    watch = JobWatch(
        terminal.stream,
        is_brief,
        lambda: {"all", str(workflow.default_target)},
        workflow.overwrite_workdir or "",
        when_up_to_date,
        lambda: not (workflow.dryrun or workflow.touch),
    )
    if is_brief:
        terminal.addFilter(_OnlyProblems())
    if watch.bars:
        from tqdm.contrib import DummyTqdmFile

        terminal.setStream(DummyTqdmFile(terminal.stream))
    logger.addHandler(watch)
    return watch


def _say_nothing() -> None:
    pass


def _file_state(path: Path) -> tuple[int, int] | None:
    """Time and size of a file; None if there is none."""
    try:
        state = path.stat()
    except OSError:
        return None
    return state.st_mtime_ns, state.st_size


def _now() -> str:
    return time.strftime("%H:%M:%S")
