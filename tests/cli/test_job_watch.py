"""What the terminal shows of a run: lines of the jobs' logs, bars, and the end."""

import io
import logging
import re
import time
from inspect import signature
from pathlib import Path

import pytest
from finished_run import catalogue_rows, write_run

from astromorph.cli.closing import NO_MAP, NO_VERDICT, closing_lines
from astromorph.cli.job_watch import JobWatch, watch_jobs
from astromorph.progress import AFTER_CTRL_C, Bars, Progress, show_bars_in_log
from astromorph.settings.loading import parse


class Terminal(io.StringIO):
    """A text file that says that it is a terminal."""

    def isatty(self) -> bool:
        """Always."""
        return True


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    return tmp_path


def tell(watch: JobWatch, event: str, **values: object) -> None:
    """What Snakemake logs about its jobs."""
    record = logging.LogRecord("snakemake", logging.INFO, "", 0, "", (), None)
    record.__dict__.update(values, event=event)
    watch.handle(record)


def start(watch: JobWatch, number: int, rule: str, log: str, *output: str) -> None:
    tell(watch, "job_info", jobid=number, rule_name=rule, log=[log], output=output)


def until(condition, seconds: float = 5) -> None:
    """Wait for the thread that reads the logs."""
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    assert condition()


TRAINING = """\
10:00:00 INFO 55 training images, 5 test images
10:00:01 INFO epoch 1 of 2: train loss 3.8
10:00:02 WARNING the embedding is collapsing
10:00:03 INFO epoch 2 of 2: train loss 3.5
10:00:04 INFO the model was written to \x1b[2Jmodel.pt
"""


def without_times(text: str) -> list[str]:
    return [line.partition(" ")[2] for line in text.splitlines()]


def test_a_line_for_each_epoch_warning_and_step(folder):
    """Plain lines, from the logs of the jobs, without those of earlier runs."""
    stream = io.StringIO()
    watch = JobWatch(stream, is_brief=True, targets=lambda: ["all"])
    tell(watch, "run_info", stats={"validate": 1, "train": 1, "all": 1, "total": 3})
    Path("train.log").write_text("09:00:00 INFO epoch 9 of 9: of the last run\n")
    start(watch, 1, "validate", "validate.log", "results/validation.html")
    start(watch, 2, "train", "train.log", "results/model.pt")
    Path("validate.log").write_text("10:00:00 INFO 60 files: 60 ok\n")
    tell(watch, "job_finished", job_id=1)
    lines = TRAINING.splitlines(keepends=True)
    Path("train.log").write_text("".join(lines[:2]) + lines[2][:9])
    until(lambda: "epoch 1" in stream.getvalue())
    assert "WARN" not in stream.getvalue()
    Path("train.log").write_text(TRAINING)
    tell(watch, "job_finished", job_id=2)
    tell(watch, "job_info", jobid=0, rule_name="all", log=[])
    tell(watch, "job_finished", job_id=0)
    watch.close()
    assert stream.getvalue().startswith("2 jobs to run\n")
    assert without_times(stream.getvalue())[1:] == [
        "[1 of 2] validate: 60 files: 60 ok",
        "open results/validation.html: what the listed files contain",
        "train: epoch 1 of 2: train loss 3.8",
        "train: WARNING the embedding is collapsing",
        "train: epoch 2 of 2: train loss 3.5",
        r"[2 of 2] train: the model was written to \x1b[2Jmodel.pt",
    ]


def test_a_terminal_has_bars_instead_of_epochs(folder):
    """The last epoch is a line; warnings are written above the bars."""
    stream = Terminal()
    watch = JobWatch(stream, is_brief=True)
    tell(watch, "run_info", stats={"train": 1, "total": 1})
    start(watch, 1, "train", "train.log")
    Path("train.log").write_text("10:00:01 INFO epoch 1 of 2: train loss 3.8\n")
    until(lambda: "train, epochs:  50%" in stream.getvalue())
    Path("train.log").write_text(TRAINING)
    tell(watch, "job_finished", job_id=1)
    watch.close()
    lines = stream.getvalue().splitlines()
    assert any(
        line.endswith("train: WARNING the embedding is collapsing") for line in lines
    )
    assert any(line.endswith("train: epoch 2 of 2: train loss 3.5") for line in lines)
    assert not any("train: epoch 1" in line for line in lines)


def test_the_answer_to_ctrl_c_is_shown_at_once(folder):
    """A training step can take many seconds, in which nothing else would be seen."""
    stream = Terminal()
    watch = JobWatch(stream, is_brief=True)
    tell(watch, "run_info", stats={"train": 1, "total": 1})
    start(watch, 1, "train", "train.log")
    Path("train.log").write_text(f"10:00:01 INFO {AFTER_CTRL_C}\n")
    until(lambda: f"10:00:01 train: {AFTER_CTRL_C}\n" in stream.getvalue())
    watch.close()


def test_the_remaining_time_of_a_loop_counts_from_its_first_item():
    """The training draws epochs with the bar that showed the simulated parts."""
    stream = Terminal()
    bars = Bars(stream)
    bars.show("train", Progress("parts simulated", 14, 24))
    bars.show("train", Progress("epochs", 1, 60))
    time.sleep(0.2)
    bars.show("train", Progress("epochs", 2, 60))
    *_, (minutes, seconds) = re.findall(r"2 of 60, (\d+):(\d+) left", stream.getvalue())
    assert 60 * int(minutes) + int(seconds) >= 58 * 0.2 - 1
    bars.close()


def test_shards_are_counted_and_failures_named(folder):
    """Not a line for each shard; the reason of a failure comes at the end."""
    stream = io.StringIO()
    watch = JobWatch(stream, is_brief=True)
    tell(watch, "run_info", stats={"preprocess": 3, "train": 1, "total": 4})
    for number in range(3):
        start(watch, number, "preprocess", f"{number}.log")
        Path(f"{number}.log").write_text(
            "10:00:00 INFO images read: 1 of 2, 1.0 per second\n"
        )
        tell(watch, "job_finished", job_id=number)
    start(watch, 3, "train", "train.log")
    Path("train.log").write_text("10:00:00 ERROR the loss is nan\n")
    tell(watch, "job_error", jobid=3)
    watch.close()
    assert without_times(stream.getvalue())[1:] == [
        "[3 of 4] preprocess: 3 of 3 shards",
        "train: failed (train.log)",
    ]


def test_a_step_that_the_user_interrupts_has_not_failed(folder):
    """Snakemake says that it ends the processes, then that their jobs have errors."""
    stream = io.StringIO()
    watch = JobWatch(stream, is_brief=True)
    tell(watch, "run_info", stats={"train": 1, "total": 1})
    start(watch, 1, "train", "train.log")
    text = "Terminating processes on user request, this might take some time."
    watch.handle(logging.LogRecord("snakemake", logging.INFO, "", 0, text, (), None))
    tell(watch, "job_error", jobid=1)
    watch.close()
    assert without_times(stream.getvalue())[1:] == ["train: interrupted (train.log)"]


@pytest.mark.parametrize("kind", [Terminal, io.StringIO])
def test_the_command_line_draws_epochs_as_a_bar_in_a_terminal(kind):
    """In a file each epoch is a line; an error is below no bar."""
    stream = kind()
    handler = logging.StreamHandler(stream)
    show_bars_in_log(handler)
    logger = logging.Logger("steps")
    logger.addHandler(handler)
    for epoch in (1, 2):
        logger.info("epoch %d of 3: train loss %.1f", epoch, 3.5)
    logger.warning("a warning")
    logger.error("training stopped by Ctrl-C in epoch 3 of 3")
    text = stream.getvalue()
    assert ("epoch 1 of 3" in text) == (kind is io.StringIO)
    assert ("epochs:  67%" in text) == ("\r" in text) == (kind is Terminal)
    assert "a warning\n" in text
    assert text.rpartition("\r")[2].endswith("by Ctrl-C in epoch 3 of 3\n")


class Workflow:
    """What `watch_jobs` asks of Snakemake's."""

    is_main_process, dryrun, touch = True, False, False
    default_target, overwrite_workdir = "all", "sample"
    is_module = False

    def __init__(self, *quiet: str) -> None:
        from snakemake.settings.enums import Quietness

        self.output_settings = self.modifier = self
        self.quiet = Quietness.parse_choices_set(quiet)


@pytest.mark.parametrize(
    ("quiet", "shown"),
    [
        (
            [],
            ["Select", "a warning", "Exiting", "Terminating", "own", "Nothing",
             "closed"],
        ),
        (
            ["rules", "host"],
            ["a warning", "Terminating", "own", "all results are up to date",
             "closed"],
        ),
        (["all"], []),
    ],
)  # fmt: skip
def test_snakemake_is_as_quiet_as_asked(monkeypatch, quiet, shown):
    """Its remarks are not shown if it is quiet about rules; NO_COLOR is respected."""
    from snakemake.logging import ColorizingTextHandler, DefaultFilter

    monkeypatch.setenv("NO_COLOR", "1")
    stream = io.StringIO()
    workflow = Workflow(*quiet)
    handler = ColorizingTextHandler(stream=stream)
    handler.nocolor = False
    options = len(signature(DefaultFilter).parameters) - 1  # `verbose` is new
    handler.addFilter(DefaultFilter(workflow.quiet, *[False] * options))
    handler.name = "DefaultStreamHandler"
    logger = logging.Logger("snakemake")
    logger.addHandler(handler)
    watch = watch_jobs(workflow, logger, lambda: stream.write("closed\n") and None)
    logger.info("Select jobs")
    logger.warning("a warning")
    logger.error("Exiting because a job execution failed. Look above.")
    logger.info("Terminating processes on user request, this might take some time.")
    logger.info("own", extra={"astromorph": True})
    logger.info("Nothing to be done (all requested files are present).")
    lines = stream.getvalue().splitlines()
    assert len(lines) == len(shown)
    assert all(map(str.startswith, lines, shown))
    assert (watch is None) == (quiet == ["all"])
    if watch:
        workflow.dryrun = True
        logger.info("Nothing to be done (all requested files are present).")
        assert stream.getvalue().count("closed") == 1


def test_the_last_lines_of_a_run(folder):
    """Images used and rejected, the verdict, the map, the home page, what is next."""
    status = ["ok", "ok", "warning", "rejected", "ok", "warning"]
    subsets = ["train", "train", "test", "none", "none", "embed"]
    rows = catalogue_rows(6, status=status)
    files = write_run(Path("results"), rows, subsets=subsets)
    verdict = '{"verdict": {"summary": "WORSE than \\u001b[2J", "better": false}}'
    files.evaluation.write_text(verdict)
    lines = closing_lines(files, parse({}, "test"), "sample")
    assert [line[:11].strip() for line in lines] == [
        *("images", "verdict", "map", "home page", "next"),
    ]
    assert lines[0][11:] == (
        "4 used (2 for training, 1 for testing, 1 only embedded), 1 rejected, "
        "1 left out; "
        "sample/results/validation.html says why"
    )
    assert lines[1][11:] == r"WORSE than \x1b[2J"
    assert lines[3][11:] == "sample/results/index.html"
    assert "sample/results/evaluation.html" in lines[4]
    without = {"evaluation_settings": {"images": 0}, "export_settings": {"map": False}}
    lines = closing_lines(files, parse(without, "test"))
    assert [line[11:] for line in lines[1:3]] == [NO_VERDICT, NO_MAP]
