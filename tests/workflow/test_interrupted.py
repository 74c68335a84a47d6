"""A finished run, a change, an interruption, the same command again: nothing is stale.

Every step is interrupted in every way and after every kind of change that makes it run
again; steps that run beside each other are interrupted together. The steps are those of
`quick_steps`, so that an interruption takes seconds; all else is real. `docs/reruns.md`
contains the table of what is tried.
"""

import contextlib
import itertools
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from command_line import PipedCommand

from astromorph.artefacts.model_file import MODEL_FORMAT
from astromorph.artefacts.run_files import RunFiles
from astromorph.cli.status import JobState, job_states
from astromorph.cli.steps import STEPS
from astromorph.filelist.list_state import ListState
from astromorph.settings.loading import parse

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
QUICK_STEPS = ROOT / "tests" / "workflow" / "quick_steps"
PROJECT = ("Snakefile", "workflow", "profiles", "envs", "astromorph", "config")
SETTINGS = {
    "datafile": "list.csv",
    "preprocess_settings": {"shard_size": 2},
    "network_settings": {"weights": "weights.pt"},
    "marks": "marks.csv",
    "core_limit": 1,  # so that steps run beside each other
}
# Executes the steps as `astromorph train` and `astromorph infer` do.
ALL_STEPS = """
import yaml
from astromorph.artefacts.run_files import RunFiles
from astromorph.cli.pipeline import run_steps
from astromorph.cli.steps import Job, wanted_steps
from astromorph.settings.loading import parse

settings = parse(yaml.safe_load(open("config/config.yaml")), "test")
files = RunFiles.of_run("results", 0, settings.trained_network_name)
run_steps(Job(settings, files), wanted_steps(settings))
"""
CORES = ("--cores", "16")  # more than there are jobs at once
SECONDS = 120  # for one command
# What Snakemake logs when it has received SIGTERM.
NOTICED = "Will exit after finishing currently running jobs"


@dataclass(frozen=True)
class Folder:
    """A folder with a copy of the project, images and a configuration."""

    path: Path

    @property
    def results(self) -> Path:
        """The results folder."""
        return self.path / "results"

    def configure(self, **changes) -> None:
        """Change settings."""
        settings = {**yaml.safe_load(self.config.read_text()), **changes}
        self.config.write_text(yaml.safe_dump(settings))

    @property
    def config(self) -> Path:
        """Where Snakemake reads settings."""
        return self.path / "config" / "config.yaml"

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables of all processes."""
        return {
            **os.environ,
            "PYTHONPATH": f"{QUICK_STEPS}:{self.path / 'project'}",
            "SOURCE_DATE_EPOCH": "0",
        }

    def command(
        self, *options: str, forks: bool = False, **variables: str
    ) -> PipedCommand:
        """Start Snakemake in a process group of its own.

        With `forks`, its steps are forked from a process that has imported the package.
        """
        snakefile = str(self.path / "project" / "Snakefile")
        arguments = ["-s", snakefile, *(options or CORES)]
        environment = self.environment | variables
        return PipedCommand(arguments, self.path, "snakemake", environment, forks)

    def run(self, *options: str) -> tuple[int, str]:
        """Exit status and output of a command, with the one that it names, if any."""
        process = self.command(*options, forks=True)
        text = process.finish(SECONDS)
        if "run `snakemake --unlock` once" in text:
            self.unlock()
            process = self.command(*options, forks=True)
            text = process.finish(SECONDS)
        return process.poll(), text

    def unlock(self) -> None:
        """Run the command that the message about a lock names."""
        process = self.command("--unlock")
        text = process.finish(SECONDS)
        assert process.poll() == 0, text

    def states(self) -> list[JobState]:
        """The states of all jobs, according to the package of this process."""
        settings = parse(yaml.safe_load(self.config.read_text()), "test")
        with contextlib.chdir(self.path):
            size = settings.preprocess_settings.shard_size
            state = ListState(settings.datafile, size)
            model = settings.trained_network_name
            files = RunFiles.of_run("results", len(state.shards), model)
            return job_states(settings, files, state)

    def outputs(self) -> dict[str, bytes]:
        """The content of every result."""
        paths = [path for state in self.states() for path in state.outputs]
        return {str(path): content(self.path / path) for path in paths}

    def run_without_snakemake(self) -> None:
        """Make all results in one process, in the order of the steps."""
        done = subprocess.run(
            [sys.executable, "-c", ALL_STEPS], cwd=self.path, env=self.environment,
            capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr

    def logged(self, text: str) -> int:
        """How often Snakemake has written a text to its logs."""
        logs = (self.path / ".snakemake" / "log").glob("*.log")
        return sum(log.read_text().count(text) for log in logs)

    def outdate(self, step: str) -> None:
        """Remove the records of a step that has ended after all."""
        for record in (self.results / "provenance" / step).glob("*.json"):
            record.unlink()


def content(path: Path) -> bytes:
    if path.is_dir():
        return b"".join(content(entry) for entry in sorted(path.iterdir()))
    return path.read_bytes() if path.exists() else b"missing"


def new_folder(path: Path) -> Folder:
    """A folder before its first run."""
    folder = Folder(path)
    folder.config.parent.mkdir(parents=True)
    folder.config.write_text(yaml.safe_dump(SETTINGS))
    for name in PROJECT:
        source, copy = ROOT / name, path / "project" / name
        if source.is_dir():
            # Compiled modules are copied too, except those that are being written.
            shutil.copytree(source, copy, ignore=shutil.ignore_patterns("*.pyc.*"))
        else:
            copy.parent.mkdir(exist_ok=True)
            shutil.copy(source, copy)
    for name in (
        "0.fits",
        "1.fits",
        "2.fits",
        "3.fits",
        "weights.pt",
        "marks.csv",
    ):
        (path / name).write_text(name)
    with zipfile.ZipFile(path / "other.pt", "w") as file:
        # All that is checked at the start; with a fixed time, so that copies are equal.
        file.writestr(zipfile.ZipInfo("other/data.pkl"), MODEL_FORMAT)
    rows = "".join(f"{k}.fits,a,g\n" for k in range(4))
    (path / "list.csv").write_text("path,label,group\n" + rows)
    return folder


# Changes: each is applied to a finished run and to a folder without results.
def change_setting(folder: Folder) -> None:
    folder.configure(preprocess_settings={"shard_size": 2, "size": 48})


def change_code(folder: Folder) -> None:
    """An edit of a module that all steps import."""
    module = folder.path / "project" / "astromorph" / "atomic.py"
    with open(module, "a") as file:
        file.write("\nEDITED = True\n")


def append_row(folder: Folder) -> None:
    (folder.path / "4.fits").write_text("4.fits")
    with open(folder.path / "list.csv", "a") as file:
        file.write("4.fits,b,g\n")


def replace_image(folder: Folder) -> None:
    (folder.path / "0.fits").write_text("another image")


def replace_weights(folder: Folder) -> None:
    (folder.path / "weights.pt").write_text("other weights")


def name_model(folder: Folder) -> None:
    folder.configure(trained_network_name="other.pt")


def lose_records(folder: Folder) -> None:
    """Another setting, and Snakemake's own records are lost."""
    folder.configure(seed=7, preprocess_settings={"shard_size": 2, "size": 48})
    shutil.rmtree(folder.path / ".snakemake", ignore_errors=True)


ALL = tuple(STEPS)
AFTER_WEIGHTS = ALL[ALL.index("train") :]
AFTER_MODEL = tuple(n for n in ALL[ALL.index("infer") :])
CHANGES: dict[Callable[[Folder], None], tuple[str, ...]] = {
    change_setting: ALL,
    change_code: ALL,
    append_row: ALL,
    replace_image: ALL,
    replace_weights: AFTER_WEIGHTS,
    name_model: AFTER_MODEL,
    lose_records: ALL,
}


# Interruptions: of a step that has written a part of its outputs.
@dataclass(frozen=True)
class Interruption:
    """Signals to the step and to Snakemake, or what else ends a run."""

    name: str
    step: int = 0
    snakemake: int = 0


INTERRUPTIONS = (
    Interruption("Ctrl-C", signal.SIGINT, signal.SIGINT),
    Interruption("SIGKILL of the step", signal.SIGKILL),
    Interruption("SIGKILL of Snakemake", 0, signal.SIGKILL),
    Interruption("SIGKILL of both", signal.SIGKILL, signal.SIGKILL),
    Interruption("SIGTERM of the step", signal.SIGTERM),
    Interruption("SIGTERM of Snakemake", 0, signal.SIGTERM),
    Interruption("SIGTERM of both", signal.SIGTERM, signal.SIGTERM),
    Interruption("power cut", signal.SIGKILL, signal.SIGKILL),
    Interruption("failing job"),
)


def interrupt(folder: Folder, steps: tuple[str, ...], how: Interruption) -> None:
    """Run the command and interrupt it in some steps; it must not end with status 0."""
    signs = folder.path / "signs"
    shutil.rmtree(signs, ignore_errors=True)
    signs.mkdir()
    for step in steps:
        folder.outdate(step)
    before = folder.path / "before"
    if how.name == "power cut":
        shutil.rmtree(before, ignore_errors=True)
        if (folder.path / ".snakemake").exists():
            shutil.copytree(folder.path / ".snakemake", before)
    # As `--unlock` does, which the last command of each test may need.
    shutil.rmtree(folder.path / ".snakemake" / "locks", ignore_errors=True)
    process = folder.command(STOP_STEPS=",".join(steps), STOP_FOLDER=str(signs))
    pids = [wait_for(signs / step, process) for step in steps]
    said = folder.logged(NOTICED)
    targets = [(how.snakemake, process.pid), *((how.step, pid) for pid in pids)]
    for number, target in targets:
        if number:
            with contextlib.suppress(ProcessLookupError):
                os.kill(target, number)
    if how.name == "failing job":
        (signs / "fail").touch()
    elif not how.step and how.snakemake != signal.SIGKILL:
        while folder.logged(NOTICED) == said:
            assert process.poll() is None, process.finish(SECONDS)
            time.sleep(0.02)
        (signs / "release").touch()  # the steps end as if nothing had happened
    text = process.finish(SECONDS)
    assert process.poll() != 0, text
    if how.name == "Ctrl-C":
        assert "interrupted; run the same command again to continue" in text
        assert "failed: " not in text
    if how.name == "power cut":
        lose_what_was_not_written(folder, before)


def wait_for(file: Path, process: PipedCommand) -> int:
    """The process of a step, once it has stopped."""
    for _ in range(50 * SECONDS):
        with contextlib.suppress(OSError, ValueError):
            return int(file.read_text())
        assert process.poll() is None, process.finish(SECONDS)
        time.sleep(0.02)
    raise TimeoutError(file)


def lose_what_was_not_written(folder: Folder, before: Path) -> None:
    """Lose what was not on the disk: Snakemake's records and outputs in progress."""
    shutil.rmtree(folder.path / ".snakemake")
    if before.exists():
        shutil.copytree(before, folder.path / ".snakemake")
    start = before.stat().st_mtime if before.exists() else 0.0
    recorded = {
        str(folder.results / name)
        for record in folder.results.glob("provenance/*/*.json")
        for name in yaml.safe_load(record.read_text())["outputs"]
    }
    for path in folder.results.rglob("*"):
        in_records = any(str(p) in recorded for p in (path, *path.parents))
        if path.is_file() and not in_records and path.stat().st_mtime > start:
            path.write_bytes(b"") if "provenance" not in path.parts else None


def stages() -> list[tuple[str, ...]]:
    """The steps that run beside each other, in the order in which they run."""
    place: dict[str, int] = {}
    for name, step in STEPS.items():
        place[name] = 1 + max((place[previous] for previous in step.after), default=-1)
    numbers = range(1 + max(place.values()))
    return [tuple(n for n in STEPS if place[n] == number) for number in numbers]


Case = tuple[tuple[str, ...], Interruption]


def cases() -> dict[str, list[Case]]:
    """For each change the interrupted steps, in the order in which they run.

    Together they contain each pair of step and interruption, of step and change, and
    of change and interruption. Each case is one that adds the most pairs.
    """
    pairs = {}
    for (number, stage), how, (change, affected) in itertools.product(
        enumerate(stages()), INTERRUPTIONS, CHANGES.items()
    ):
        steps = tuple(step for step in stage if step in affected)
        if steps:
            pairs[number, steps, how, change.__name__] = {
                (change.__name__, how.name),
                *((step, how.name) for step in steps),
                *((step, change.__name__) for step in steps),
            }
    left = set().union(*pairs.values())
    plan = []
    while left:
        plan.append(max(pairs, key=lambda case: len(pairs[case] & left)))
        left -= pairs[plan[-1]]
    plan.sort(key=lambda case: case[0])
    return {
        change.__name__: [case[1:3] for case in plan if case[3] == change.__name__]
        for change in CHANGES
    }


CASES = cases()


def tried() -> list[tuple[str, str, str]]:
    """Each interrupted step, with its interruption and the change before it."""
    return [
        (step, how.name, change)
        for change, pairs in CASES.items()
        for steps, how in pairs
        for step in steps
    ]


def test_all_pairs_are_tried():
    """Of steps, changes and interruptions."""
    changes = {c.__name__: steps for c, steps in CHANGES.items()}
    names = [how.name for how in INTERRUPTIONS]
    assert {(s, c) for s, _, c in tried()} == {
        (s, c) for c, steps in changes.items() for s in steps
    }
    assert {(s, how) for s, how, _ in tried()} == set(itertools.product(STEPS, names))
    assert {(c, h) for _, h, c in tried()} == set(itertools.product(changes, names))


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Folder:
    """A finished run."""
    folder = new_folder(tmp_path_factory.mktemp("run") / "finished")
    status, text = folder.run()
    assert status == 0, text
    return folder


def test_the_table_of_steps_agrees_with_the_rules(finished):
    """`Step.after` names the steps whose outputs are inputs of the rule."""
    text = finished.command("--rulegraph").finish(SECONDS)
    names = dict(re.findall(r'(\d+)\[label = "(\w+)"', text))
    edges = re.findall(r"(\d+) -> (\d+)", text)
    inputs = {name: set() for name in STEPS}
    for first, second in edges:
        if names[second] in STEPS:
            inputs[names[second]].add(names[first])
    assert inputs == {name: set(step.after) for name, step in STEPS.items()}


def test_the_guide_says_what_was_tried():
    """A row for each interruption, with the number of interrupted runs."""
    text = (ROOT / "docs" / "reruns.md").read_text()
    runs = Counter(how.name for pairs in CASES.values() for _, how in pairs)
    rows = re.findall(r"^\| ([^|]+) \| [^|]+ \| (\d+) interrupted runs \|$", text, re.M)
    assert {name: int(number) for name, number in rows} == runs


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_an_interrupted_rerun_ends_as_an_undisturbed_run(finished, tmp_path, change):
    """The change, then interruptions of all steps, then the same command again.

    The undisturbed run is one without Snakemake and its records.
    """
    folder = Folder(tmp_path / "interrupted")
    shutil.copytree(finished.path, folder.path, symlinks=True)
    old = folder.outputs()
    change(folder)
    for steps, how in CASES[change.__name__]:
        interrupt(folder, steps, how)
    status, text = folder.run()
    assert status == 0, text
    undisturbed = new_folder(tmp_path / "undisturbed")
    change(undisturbed)
    undisturbed.run_without_snakemake()
    assert folder.outputs() == undisturbed.outputs() != old
    _, text = folder.run()
    assert "Nothing to be done" in text


# Snakemake receives SIGTERM while it records that a job has ended.
SIGTERM_WITHIN = """
import os, signal
from snakemake.scheduling.job_scheduler import JobScheduler
finish_jobs = JobScheduler._finish_jobs

def finish_jobs_and_signal(self):
    ended = len(self._tofinish)
    finish_jobs(self)
    if ended:
        os.kill(os.getpid(), signal.SIGTERM)

JobScheduler._finish_jobs = finish_jobs_and_signal
"""


def test_sigterm_while_the_end_of_a_job_is_recorded(finished, tmp_path):
    """Snakemake ends after the running jobs and removes the lock of the folder."""
    folder = Folder(tmp_path / "signalled")
    shutil.copytree(finished.path, folder.path, symlinks=True)
    change_setting(folder)
    hook = folder.path / "sitecustomize.py"
    quick = (QUICK_STEPS / "sitecustomize.py").read_text()
    hook.write_text(quick + SIGTERM_WITHIN)
    places = f"{folder.path}:{folder.path / 'project'}"
    process = folder.command(forks=True, PYTHONPATH=places)
    text = process.finish(SECONDS)
    assert process.poll() != 0, text
    assert NOTICED in text
    assert not list((folder.path / ".snakemake" / "locks").glob("*"))
    hook.unlink()
    status, text = folder.run()
    assert status == 0, text
