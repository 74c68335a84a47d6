"""A finished run, a change, an interruption, the same command again: nothing is stale.

Every step is interrupted in every way and after every kind of change that makes it run
again. The steps are those of `quick_steps`, so that an interruption takes seconds; all
else is real. `docs/reruns.md` contains the table of what is tried.
"""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from astromorph.artefacts.model_file import MODEL_FORMAT
from astromorph.artefacts.run_files import RunFiles
from astromorph.cli.status import JobState, job_states
from astromorph.cli.steps import STEPS
from astromorph.filelist.list_state import ListState
from astromorph.settings.loading import parse

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
PROJECT = ("Snakefile", "workflow", "profiles", "envs", "astromorph", "config")
SETTINGS = {
    "datafile": "list.csv",
    "preprocess_settings": {"shard_size": 2},
    "network_settings": {"weights": "weights.pt"},
    "marks": "marks.csv",
}
SECONDS = 120  # for one command


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

    def command(self, *options: str, **variables: str) -> subprocess.Popen:
        """Start Snakemake in a process group of its own."""
        project = self.path / "project"
        environment = {
            **os.environ,
            "PYTHONPATH": f"{ROOT / 'tests/workflow/quick_steps'}:{project}",
            "SOURCE_DATE_EPOCH": "0",
            **variables,
        }
        return subprocess.Popen(
            [sys.executable, "-m", "snakemake", "-s", str(project / "Snakefile"),
             *(options or ("--cores", "2"))],
            cwd=self.path, env=environment, start_new_session=True, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def run(self, *options: str) -> tuple[int, str]:
        """Exit status and output of a command, with the one that it names, if any."""
        process = self.command(*options)
        text = finish(process)
        if "run `snakemake --unlock` once" in text:
            self.unlock()
            process = self.command(*options)
            text = finish(process)
        return process.returncode, text

    def unlock(self) -> None:
        """Run the command that the message about a lock names."""
        process = self.command("--unlock")
        finish(process)
        assert process.returncode == 0

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

    def outdate(self, step: str) -> None:
        """Remove the records of a step that has finished beside an interrupted one."""
        for record in (self.results / "provenance" / step).glob("*.json"):
            record.unlink()


def finish(process: subprocess.Popen) -> str:
    """Wait for a command and return its output; no process of it is left behind."""
    try:
        return process.communicate(timeout=SECONDS)[0]
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise


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
            shutil.copytree(source, copy, ignore=shutil.ignore_patterns("__pycache__"))
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
        file.writestr(
            "other/data.pkl", MODEL_FORMAT
        )  # all that is checked at the start
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


def interrupt(folder: Folder, step: str, how: Interruption) -> None:
    """Run the command and interrupt it in a step; it must not end with status 0.

    A step that has finished beside the previous one, on the other core, runs again.
    """
    signs = folder.path / "signs"
    shutil.rmtree(signs, ignore_errors=True)
    signs.mkdir()
    folder.outdate(step)
    before = folder.path / "before"
    if how.name == "power cut":
        shutil.rmtree(before, ignore_errors=True)
        if (folder.path / ".snakemake").exists():
            shutil.copytree(folder.path / ".snakemake", before)
    if any((folder.path / ".snakemake" / "locks").glob("*")):
        folder.unlock()
    variables = {"STOP_STEP": step, "STOP_FILE": str(signs / "stopped")}
    if how.name == "failing job":
        process = folder.command(**variables, FAIL="yes")
        text = finish(process)
        assert process.returncode != 0, text
        return
    process = folder.command(**variables)
    pid = wait_for(signs / "stopped", process)
    for number, target in ((how.snakemake, process.pid), (how.step, pid)):
        if number:
            with contextlib.suppress(ProcessLookupError):
                os.kill(target, number)
    time.sleep(0.3)
    if not how.step and how.snakemake != signal.SIGKILL:
        (signs / "release").touch()  # the step ends as if nothing had happened
    text = finish(process)
    assert process.returncode != 0, text
    if how.name == "power cut":
        lose_what_was_not_written(folder, before)


def wait_for(file: Path, process: subprocess.Popen) -> int:
    """The process of the step, once it has stopped."""
    for _ in range(10 * SECONDS):
        with contextlib.suppress(OSError, ValueError):
            return int(file.read_text())
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.1)
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


def cases() -> Iterator[tuple[str, list[tuple[str, Interruption]]]]:
    """For each change the interruptions, in the order of the steps.

    Together they contain each pair of step and interruption, of step and change, and
    of change and interruption.
    """
    plan: dict[str, dict[str, list[Interruption]]] = {c.__name__: {} for c in CHANGES}
    for number, step in enumerate(STEPS):
        able = [c.__name__ for c, steps in CHANGES.items() if step in steps]
        for turn, how in enumerate(INTERRUPTIONS):
            name = able[(number + turn) % len(able)]
            plan[name].setdefault(step, []).append(how)
        for turn, name in enumerate(able):
            if step not in plan[name]:
                plan[name][step] = [INTERRUPTIONS[(number + turn) % len(INTERRUPTIONS)]]
    for name, by_step in plan.items():
        yield name, [(step, how) for step in STEPS for how in by_step.get(step, [])]


CASES = dict(cases())


def test_all_pairs_are_tried():
    """Of steps, changes and interruptions."""
    changes = {c.__name__: steps for c, steps in CHANGES.items()}
    tried = [(s, c, how.name) for c, pairs in CASES.items() for s, how in pairs]
    assert {(s, c) for s, c, _ in tried} == {
        (s, c) for c, steps in changes.items() for s in steps
    }
    names = [how.name for how in INTERRUPTIONS]
    assert {(s, how) for s, _, how in tried} == {(s, h) for s in STEPS for h in names}
    assert {(c, how) for _, c, how in tried} == {(c, h) for c in changes for h in names}


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Folder:
    """A finished run."""
    folder = new_folder(tmp_path_factory.mktemp("run") / "finished")
    status, text = folder.run()
    assert status == 0, text
    return folder


def test_the_table_of_steps_agrees_with_the_rules(finished):
    """`Step.after` names the steps whose outputs are inputs of the rule."""
    process = finished.command("--rulegraph")
    text = finish(process)
    names = dict(re.findall(r'(\d+)\[label = "(\w+)"', text))
    edges = re.findall(r"(\d+) -> (\d+)", text)
    inputs = {name: set() for name in STEPS}
    for first, second in edges:
        if names[second] in STEPS:
            inputs[names[second]].add(names[first])
    assert inputs == {name: set(step.after) for name, step in STEPS.items()}


def test_the_guide_says_what_was_tried():
    """A row for each interruption, with the number of interrupted steps."""
    text = (ROOT / "docs" / "reruns.md").read_text()
    tried = Counter(how.name for pairs in CASES.values() for _, how in pairs)
    rows = re.findall(r"^\| ([^|]+) \| [^|]+ \| (\d+) interruptions \|$", text, re.M)
    assert {name: int(number) for name, number in rows} == tried


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_an_interrupted_rerun_ends_as_an_undisturbed_run(finished, tmp_path, change):
    """The change, then an interruption of each step, then the same command again."""
    folder = Folder(tmp_path / "interrupted")
    shutil.copytree(finished.path, folder.path, symlinks=True)
    old = folder.outputs()
    change(folder)
    for step, how in CASES[change.__name__]:
        interrupt(folder, step, how)
    status, text = folder.run()
    assert status == 0, text
    undisturbed = new_folder(tmp_path / "undisturbed")
    change(undisturbed)
    status, text = undisturbed.run()
    assert status == 0, text
    assert folder.outputs() == undisturbed.outputs() != old
    status, text = folder.run("--cores", "2")
    assert "Nothing to be done" in text
