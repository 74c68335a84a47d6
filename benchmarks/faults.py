"""Let every write of every step fail because the disk is full; print what happens.

    python benchmarks/faults.py               # each call, about an hour
    python benchmarks/faults.py --sample 4    # four calls of each job

Each step of a small run is executed again and again, and the k-th call that writes to
the results folder fails, for every k: create, write, close, rename, fsync, mkdir and
link, also those of libraries in C and C++. Either one call fails, or the disk stays
full after half of a write. The step starts without results, or with those of other
settings. Then the step is executed again with enough space.

A step that fails must end with one error that names a file and says that the disk is
full, without a traceback. Results that `astromorph status` calls up to date, and those
of the second execution, must be those of an undisturbed run, bit for bit. Checkpoints
and TensorBoard's files contain times: of the former, names are compared, of the latter,
values. A C compiler is needed.
"""

import argparse
import contextlib
import ctypes
import gc
import importlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LIBRARY = "FULL_DISK_LIBRARY"  # names the compiled full_disk.c, which is preloaded
LIST = "fits/filelist.csv"
SETTINGS = {
    "datafile": LIST,
    "marks": "marks.csv",
    "network_name": "amm",
    "epochs": 1,
    "batch_size": 4,
    "network_settings": {"weights": "random"},
    "byol_settings": {"representation_size": 12},
    "training_settings": {"simulated_images": 0},
    "preprocess_settings": {"size": 32, "shard_size": 6},
    "analysis_settings": {"map": "pca"},
    "evaluation_settings": {"images": 12},
    "export_settings": {"tables": ["parquet", "fits", "votable"], "gallery_images": 4},
}
IMAGES, SHARDS = 12, 2
CONFIG, RESULTS = Path("config.json"), Path("results")
SECONDS = 60  # for one execution of a step
FULL = "the disk is full"
Content = dict[str, bytes]


@dataclass(frozen=True)
class StepJob:
    """One job of a step, and the command that executes it."""

    step: str
    name: str
    command: tuple[str, ...]


@dataclass(frozen=True)
class Execution:
    """What became of one execution of a job.

    Attributes
    ----------
    status : int
        Exit status; negative for a signal.
    text : str
        What was logged.
    calls : tuple of int
        Calls that write to the results folder: those that can fail once, and those that
        fail on a disk that stays full.
    failed : str
        The first call that failed, with its file.
    modules : list of str
        The modules that the step imported.
    """

    status: int
    text: str
    calls: Sequence[int]
    failed: str
    modules: Sequence[str]


def jobs() -> Iterator[StepJob]:
    """The jobs of the run, in order."""
    from astromorph.cli.steps import wanted_steps
    from astromorph.settings.loading import parse

    common = ("-c", str(CONFIG), "--results", str(RESULTS), "--threads", "1")
    for step in wanted_steps(parse(SETTINGS, "settings")):
        words = tuple(step.name.split("_")) + common
        if step.name in ("export_map", "report_home"):
            words += ("--evaluation",)
        if step.per_shard:
            for number in range(SHARDS):
                size = IMAGES // SHARDS
                rows = (str(number * size), str((number + 1) * size))
                name = f"{number:05d}"
                job = (*words, "--shard", name)
                if step.name == "preprocess":
                    job += ("--rows", *rows)
                yield StepJob(step.name, name, job)
        elif step.name in ("validate", "report_history", "report_settings"):
            yield StepJob(step.name, step.name, words)
        else:
            yield StepJob(step.name, step.name, (*words, "--shards", str(SHARDS)))


def execute(job: StepJob, k: int = 0, stays_full: bool = False) -> Execution:
    """Execute a job in a child process, in which the k-th call that writes fails."""
    Path("report.json").unlink(missing_ok=True)
    child = os.fork()
    if child == 0:
        _execute_in_child(job, k, stays_full)
    deadline = time.monotonic() + SECONDS
    while (ended := os.waitpid(child, os.WNOHANG))[0] == 0:
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
        time.sleep(0.002)
    text = Path("log.txt").read_text(errors="replace")
    report: dict[str, Any] = {"calls": (0, 0), "failed": "", "modules": []}
    with contextlib.suppress(OSError, ValueError):
        report = json.loads(Path("report.json").read_text())
    return Execution(os.waitstatus_to_exitcode(ended[1]), text, **report)


def _execute_in_child(job: StepJob, k: int, stays_full: bool) -> None:
    import traceback

    from astromorph.cli.main import main

    library = ctypes.CDLL(os.environ[LIBRARY])
    library.full_disk_start.argtypes = [ctypes.c_char_p, ctypes.c_long, ctypes.c_int]
    library.full_disk_calls.argtypes = [ctypes.c_int]
    library.full_disk_calls.restype = ctypes.c_long
    library.full_disk_failed.restype = ctypes.c_char_p
    log = os.open("log.txt", os.O_CREAT | os.O_TRUNC | os.O_WRONLY | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    before = set(sys.modules)
    status = 0
    library.full_disk_start(os.fsencode(RESULTS.absolute()), k, stays_full)
    try:
        main(job.command)
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else 1
    except BaseException:
        traceback.print_exc()
        status = 1
    calls = [library.full_disk_calls(stays) for stays in (False, True)]
    failed = library.full_disk_failed().decode()
    library.full_disk_start(b"", 0, 0)
    sys.stdout.flush()
    sys.stderr.flush()
    modules = [] if k else sorted(set(sys.modules) - before)
    report = {"calls": calls, "failed": failed, "modules": modules}
    Path("report.json").write_text(json.dumps(report))
    os._exit(status)


def results() -> Content:
    """The content of all files, folders as empty ones."""
    return {
        str(path): b"" if path.is_dir() else comparable(path)
        for path in sorted(RESULTS.rglob("*"))
        if "tfevents" not in path.name
    } | {
        f"{path.parent}/scalars": comparable(path)
        for path in sorted(RESULTS.rglob("*tfevents*"))
    }


def comparable(path: Path) -> bytes:
    """The content of a file, without times in TensorBoard's files and checkpoints."""
    if path.parent.parent.name == "checkpoints":
        return b""
    if "tfevents" not in path.name:
        return path.read_bytes()
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    events = list(EventFileLoader(str(path)).Load())
    for event in events:
        event.wall_time = 0
        for value in event.summary.value:
            if "hparams" in value.tag:
                value.ClearField("metadata")  # contains the time of the start
    return b"".join(event.SerializeToString(deterministic=True) for event in events)


class State:
    """The results folder at one time, to return to it."""

    def __init__(self) -> None:
        self.files = {
            path: None if path.is_dir() else path.read_bytes()
            for path in sorted(RESULTS.rglob("*"))
        }
        self.stamps = {path: _stamp(path) for path in self.files}

    def restore(self) -> None:
        """Return to this state."""
        for path in sorted(RESULTS.rglob("*"), reverse=True):
            if path not in self.files:
                path.rmdir() if path.is_dir() else path.unlink()
        for path, content in self.files.items():
            if content is None:
                path.mkdir(exist_ok=True)
            elif not path.exists() or _stamp(path) != self.stamps[path]:
                path.unlink(missing_ok=True)
                path.write_bytes(content)
                self.stamps[path] = _stamp(path)


def _stamp(path: Path) -> tuple[int, int, int]:
    facts = path.stat()
    return facts.st_ino, facts.st_size, 0 if path.is_dir() else facts.st_mtime_ns


def make_older(job: StepJob) -> None:
    """Turn the results of a job into those of other settings, of the same size."""
    record = RESULTS / "provenance" / job.step / f"{job.name}.json"
    values = json.loads(record.read_text())
    values["made_from"]["settings"] = "0" * 16
    record.write_text(json.dumps(values))
    for name in values["outputs"]:
        paths = [RESULTS / name, *(RESULTS / name).rglob("*")]
        for path in filter(Path.is_file, paths):
            content = path.read_bytes()
            path.unlink()
            path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


def is_up_to_date(job: StepJob) -> bool:
    """Whether `astromorph status` calls the results of a job up to date."""
    from astromorph.artefacts.run_files import RunFiles
    from astromorph.cli.status import job_states
    from astromorph.filelist.list_state import ListState
    from astromorph.settings.loading import parse

    settings = parse(SETTINGS, "settings")
    state = ListState(LIST, settings.preprocess_settings.shard_size)
    states = job_states(settings, RunFiles.of_run(RESULTS, SHARDS), state)
    (own,) = (s for s in states if (s.step, s.job) == (job.step, job.name))
    return own.is_up_to_date


def problems(job: StepJob, failed: Execution, expected: Content) -> Iterator[str]:
    """What is wrong after an execution that met a full disk, and after the next one."""
    if "Traceback" in failed.text:
        yield "traceback"
    up_to_date = is_up_to_date(job)
    # Checkpoints and second names of finished files are left out without space.
    names = different_names(results(), expected)
    differences = [n for n in names if "/.last" not in n and "/checkpoints/" not in n]
    if failed.status == 0:
        if not up_to_date:
            yield "status 0, but not up to date"
        if differences:
            yield f"status 0, but different: {differences}"
    elif failed.status != 1:
        yield f"status {failed.status}"
    else:
        errors = [line for line in failed.text.splitlines() if " ERROR " in line]
        if len(errors) != 1:
            yield f"{len(errors)} errors in the log"
        elif FULL not in errors[0] or str(RESULTS) not in errors[0]:
            yield f"error that does not say so: {errors[0]}"
        if up_to_date:
            yield "failed, but up to date"
    again = execute(job)
    if again.status != 0:
        yield f"second execution: status {again.status}: {again.text[-300:]}"
    elif not is_up_to_date(job):
        yield "second execution: not up to date"
    if differences := different_names(results(), expected):
        yield f"second execution: different: {differences}"


def different_names(found: Content, expected: Content) -> list[str]:
    """Names of the files that differ."""
    names = sorted(found.keys() | expected.keys())
    return [name for name in names if found.get(name) != expected.get(name)]


def try_job(job: StepJob, sample: int, draw: random.Random) -> tuple[int, list[str]]:
    """Let calls of a job fail, and leave its undisturbed results.

    Returns
    -------
    number : int
        Executions with a full disk.
    found : list of str
        The problems.
    """
    without = State()
    first = execute(job)
    if first.status != 0:
        sys.exit(f"{job.step}: the undisturbed run fails: {first.text}")
    for name in first.modules:  # so that no child has to import them
        with contextlib.suppress(Exception):
            importlib.import_module(name)
    gc.freeze()  # so that the collector does not copy the memory of this process
    expected, finished = results(), State()
    make_older(job)
    older = State()
    older.restore()
    second = execute(job)
    number, found = 0, []
    if differences := different_names(results(), expected):
        found.append(f"{job.step} {job.name}, undisturbed: {differences}")
    starts = (("without results", without, first), ("older results", older, second))
    trials = [
        (stays_full, k, counted.calls[stays_full], title, start)
        for stays_full in (False, True)
        for title, start, counted in starts
        for k in range(1, counted.calls[stays_full] + 1)
    ]
    if sample:
        trials = draw.sample(trials, min(sample, len(trials)))
    for stays_full, k, calls, title, start in trials:
        start.restore()
        failed = execute(job, k, stays_full)
        number += bool(failed.failed)
        what = "full" if stays_full else "once"
        found += [
            f"{job.step} {job.name}, {title}, call {k} of {calls} "
            f"({failed.failed}, {what}): {problem}"
            for problem in problems(job, failed, expected)
        ]
    finished.restore()
    return number, found


def preload(folder: Path) -> None:
    """Start this program again with the library that makes the disk full."""
    compiler = next(filter(shutil.which, ("gcc", "cc", "clang")), None)
    if compiler is None:
        sys.exit("a C compiler (gcc, cc or clang) is needed")
    library = folder.absolute() / "full_disk.so"
    source = Path(__file__).with_name("full_disk.c")
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"], check=True
    )
    environment = {
        **os.environ,
        LIBRARY: str(library),
        "LD_PRELOAD": str(library),
        "SOURCE_DATE_EPOCH": "0",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(Path(__file__).parents[1]),
    }
    done = subprocess.run([sys.executable, *sys.argv], env=environment)
    sys.exit(done.returncode)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--sample",
        type=int,
        default=0,
        help="number of calls of each job that are made to fail (all)",
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="chooses them (%(default)s)"
    )
    parser.add_argument("--steps", nargs="*", help="only these steps")
    options = parser.parse_args()
    if LIBRARY not in os.environ:
        with tempfile.TemporaryDirectory() as folder:
            preload(Path(folder))
    del os.environ["LD_PRELOAD"]
    os.chdir(Path(os.environ[LIBRARY]).parent)
    found = run(options.sample, options.seed, options.steps)
    sys.stdout.flush()
    os._exit(bool(found))  # some of the imported libraries print warnings at the end


def run(sample: int, seed: int, steps: Sequence[str] | None) -> list[str]:
    from astromorph.sky.simulate import simulate

    simulate("fits", IMAGES, seed=1)
    CONFIG.write_text(json.dumps(SETTINGS))
    Path("marks.csv").write_text("path,mark\nfits/sky_000000.fits,interesting\n")
    RESULTS.mkdir()
    draw = random.Random(seed)
    print("| step | full disks | problems | seconds |\n|---|---|---|---|")
    everything = []
    for job in jobs():
        if steps and job.step not in steps:
            if (done := execute(job)).status:
                sys.exit(done.text)
            continue
        begin = time.monotonic()
        number, found = try_job(job, sample, draw)
        name = job.step if job.name == job.step else f"{job.step} {job.name}"
        seconds = time.monotonic() - begin
        print(f"| {name} | {number} | {len(found)} | {seconds:.0f} |", flush=True)
        for line in found:
            print(line, file=sys.stderr, flush=True)
        everything += found
    return everything


if __name__ == "__main__":
    main()
