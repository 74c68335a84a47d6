"""Kill runs of the real workflow at random; the same command must complete them.

    python benchmarks/kills.py --trials 50 --seed 0

Each trial starts from a copy of a finished run on simulated images. Something changes:
a setting of one of the sections, an image, a label, the rows of the list, the start
weights. `snakemake` is started and, at a random time, SIGINT, SIGTERM or SIGKILL is
sent to Snakemake, to a step or to all processes. Then the same command is run until it
succeeds, at most three times, after `snakemake --unlock` where the message says so. All
results must be those of an undisturbed run after the same change in a new folder, bit
for bit; TensorBoard's files contain times, so that of these the values are compared.
"""

import argparse
import contextlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch
from astropy.io import fits
from faults import comparable, different_names

from astromorph.artefacts.run_files import RunFiles
from astromorph.byol.start_weights import sky_file
from astromorph.cli.status import job_states
from astromorph.cli.steps import STEPS
from astromorph.filelist.list_state import ListState
from astromorph.settings.loading import parse
from astromorph.sky.simulate import simulate

ROOT = Path(__file__).parents[1]
CONFIG, LIST, WEIGHTS = Path("config/config.yaml"), "fits/filelist.csv", "weights.pt"
SETTINGS = {
    "datafile": LIST,
    "network_name": "amm",
    "epochs": 1,
    "batch_size": 16,
    "network_settings": {"weights": WEIGHTS},
    "byol_settings": {"representation_size": 12},
    "training_settings": {"simulated_images": 0},
    "preprocess_settings": {"size": 32, "shard_size": 16},
    "analysis_settings": {"map": "pca"},
    "export_settings": {"tables": ["parquet", "fits", "votable"], "gallery_images": 6},
}
# One for each section, and those that belong to none.
CHANGES_OF_SETTINGS = {
    "seed": 3,
    "epochs": 2,
    "batch_size": 12,
    "export_to_csv": False,
    "data_settings.header_columns": ["OBJECT"],
    "validate_settings.on_duplicate": "drop",
    "preprocess_settings.size": 40,
    "preprocess_settings.shard_size": 20,
    "split_settings.test_fraction": 0.3,
    "network_settings.weights": "random",
    "byol_settings.representation_size": 8,
    "augmentation_settings.noise": 0.0,
    "training_settings.optimizer": "lars",
    "inference_settings.symmetry": "none",
    "evaluation_settings.images": 20,
    "analysis_settings.neighbours": 5,
    "export_settings.thumbnail_size": 16,
}
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)
TARGETS = ("Snakemake", "a step", "all")
MAX_COMMANDS = 3
SECONDS = 900  # for one command
UNLOCK = "snakemake --unlock"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trials", type=int, default=50, help="(%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="(%(default)s)")
    parser.add_argument("--images", type=int, default=40, help="(%(default)s)")
    options = parser.parse_args()
    # Processes in the background of a shell ignore it, and so do all that they start.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with tempfile.TemporaryDirectory() as folder:
        new = Path(folder) / "new"
        make_inputs(new, options.images)
        print(f"{options.images} images")
        failed = run(Path(folder), new, options.trials, options.seed)
    sys.exit(bool(failed))


def run(folder: Path, new: Path, trials: int, seed: int) -> int:
    """Run all trials; returns how many did not end as an undisturbed run."""
    draw = random.Random(seed)
    finished = folder / "finished"
    shutil.copytree(new, finished)
    begin = time.monotonic()
    expect_success(finished)
    seconds = time.monotonic() - begin
    print(f"undisturbed: {seconds:.0f} s\n")
    print("| trial | change | kill | s | step that ran | commands | identical |")
    print("|---|---|---|---|---|---|---|", flush=True)
    expected: dict[str, dict[str, bytes]] = {}
    failed = commands = 0
    for trial in range(trials):
        name = draw.choice(list(CHANGES))
        if name not in expected:
            expected[name] = undisturbed(folder, new, name)
        disturbed = folder / f"trial-{trial}"
        shutil.copytree(finished, disturbed, symlinks=True)
        CHANGES[name](disturbed)
        # Most reruns are shorter than the first run.
        after = draw.random() ** 2 * seconds
        kill = Kill(draw.choice(TARGETS), draw.choice(SIGNALS), after)
        step = interrupt(disturbed, kill, draw)
        number, status, text = finish(disturbed)
        found = outputs(disturbed)
        different = different_names(found, expected[name])
        is_good = status == 0 and not different
        print(
            f"| {trial} | {name} | {kill.number.name} to {kill.target} | "
            f"{kill.seconds:.0f} | {step} | {number} | {'yes' if is_good else 'NO'} |",
            flush=True,
        )
        commands += number
        if not is_good:
            failed += 1
            print(f"trial {trial}: status {status}, different: {different}\n{text}")
        if is_good:
            shutil.rmtree(disturbed)
    print(f"\n{trials - failed} of {trials} identical after {commands} commands")
    return failed


def make_inputs(folder: Path, images: int) -> None:
    """Write images, list, weights and settings."""
    simulate(folder / "fits", images, seed=1)
    shutil.copy(sky_file("amm"), folder / WEIGHTS)
    (folder / CONFIG).parent.mkdir()
    (folder / CONFIG).write_text(json.dumps(SETTINGS))


def undisturbed(folder: Path, new: Path, name: str) -> dict[str, bytes]:
    """The results of a run without interruption, in a folder without results."""
    other = folder / "undisturbed"
    shutil.copytree(new, other)
    CHANGES[name](other)
    expect_success(other)
    found = outputs(other)
    shutil.rmtree(other)
    return found


# Changes: each is applied to a finished run and to a folder without results.
Change = Callable[[Path], None]


def change_setting(name: str, value: object) -> Change:
    """A change of one setting, such as ``section.name``."""

    def change(folder: Path) -> None:
        settings = json.loads((folder / CONFIG).read_text())
        section, _, key = name.rpartition(".")
        (settings.setdefault(section, {}) if section else settings)[key] = value
        (folder / CONFIG).write_text(json.dumps(settings))

    return change


def replace_image(folder: Path) -> None:
    path = sorted((folder / "fits").glob("*.fits"))[3]
    with fits.open(path, memmap=False) as opened:
        hdus = fits.HDUList([hdu.copy() for hdu in opened])
    for hdu in hdus:
        if hdu.data is not None:
            hdu.data = hdu.data[::-1].copy()
    hdus.writeto(path, overwrite=True)
    os.utime(path, (2e9, 2e9))  # the same in both folders


def append_row(folder: Path) -> None:
    first = sorted((folder / "fits").glob("*.fits"))[0]
    copy = first.with_name("zzz.fits")
    shutil.copy2(first, copy)
    with open(folder / LIST) as file:
        row = file.read().splitlines()[1]
    assert first.name in row
    with open(folder / LIST, "a") as file:
        file.write(row.replace(first.name, copy.name) + "\n")


def remove_row(folder: Path) -> None:
    lines = (folder / LIST).read_text().splitlines(keepends=True)
    (folder / LIST).write_text("".join(lines[:5] + lines[6:]))


def change_label(folder: Path) -> None:
    lines = (folder / LIST).read_text().splitlines()
    column = lines[0].split(",").index("label")
    cells = lines[4].split(",")
    cells[column] = "another"
    lines[4] = ",".join(cells)
    (folder / LIST).write_text("\n".join(lines) + "\n")


def replace_weights(folder: Path) -> None:
    values = torch.load(folder / WEIGHTS, weights_only=True)
    values["state"] = {
        name: value * 1.01 if value.is_floating_point() else value
        for name, value in values["state"].items()
    }
    torch.save(values, folder / WEIGHTS)
    os.utime(folder / WEIGHTS, (2e9, 2e9))


CHANGES: dict[str, Change] = {
    **{name: change_setting(name, v) for name, v in CHANGES_OF_SETTINGS.items()},
    "an image replaced": replace_image,
    "a row appended": append_row,
    "a row removed": remove_row,
    "a label changed": change_label,
    "weights replaced": replace_weights,
}


@dataclass(frozen=True)
class Kill:
    """A signal to a process after some time."""

    target: str
    number: signal.Signals
    seconds: float


def start(folder: Path, *options: str) -> subprocess.Popen[str]:
    """Start Snakemake in a process group of its own; its output is in a file."""
    command = [sys.executable, "-m", "snakemake", "-s", str(ROOT / "Snakefile")]
    paths = (str(ROOT), os.environ.get("PYTHONPATH"))
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "SOURCE_DATE_EPOCH": "0",
    }
    with open(folder / "output.txt", "w") as output:
        return subprocess.Popen(
            [*command, *(options or ("--cores", "2"))], cwd=folder, env=environment,
            start_new_session=True, text=True, stdout=output, stderr=output,
        )  # fmt: skip


def command(folder: Path, *options: str) -> tuple[int, str]:
    """Exit status and output of a command."""
    status = start(folder, *options).wait(SECONDS)
    return status, (folder / "output.txt").read_text(errors="replace")


def expect_success(folder: Path) -> None:
    status, text = command(folder)
    if status:
        sys.exit(f"an undisturbed run fails: {text}")


def running_steps(process: subprocess.Popen[str]) -> list[tuple[psutil.Process, str]]:
    """Processes of steps, and the names of the steps."""
    found = []
    with contextlib.suppress(psutil.Error):
        for child in psutil.Process(process.pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                words = child.cmdline()
                if words[1:3] == ["-m", "astromorph"]:
                    name = words[3]
                    if name in ("export", "report"):
                        name += f" {words[4]}"
                    found.append((child, name))
    return found


def interrupt(folder: Path, kill: Kill, draw: random.Random) -> str:
    """Run Snakemake and send the signal.

    Returns
    -------
    str
        The steps that ran, or what Snakemake did.
    """
    process = start(folder)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(kill.seconds)
    if process.poll() is not None:
        return "(had ended)"
    steps = running_steps(process)
    with contextlib.suppress(ProcessLookupError, psutil.Error):
        if kill.target == "all":
            os.killpg(process.pid, kill.number)
        elif kill.target == "a step" and steps:
            draw.choice(steps)[0].send_signal(kill.number)
        else:
            process.send_signal(kill.number)
    process.wait(SECONDS)
    return ", ".join(name for _, name in steps) or "(between steps)"


def finish(folder: Path) -> tuple[int, int, str]:
    """Run the same command until it succeeds: its number, exit status and output."""
    number, status, text = 0, -1, ""
    while status and number < MAX_COMMANDS:
        status, text = command(folder)
        number += 1
        if status and UNLOCK in text:
            command(folder, "--unlock")
    return number, status, text


def outputs(folder: Path) -> dict[str, bytes]:
    """The content of all results of the present settings."""
    settings = parse(json.loads((folder / CONFIG).read_text()), "test")
    places = re.escape(os.fsencode(folder.parent)) + rb"/[\w-]+"
    with contextlib.chdir(folder):
        state = ListState(LIST, settings.preprocess_settings.shard_size)
        files = RunFiles.of_run("results", len(state.shards))
        found: dict[str, bytes] = {}
        for job in job_states(settings, files, state):
            paths = [*job.outputs]
            if extra := STEPS[job.step].extra_output:
                paths.append(extra(files))
            for path in paths:
                entries = sorted(path.rglob("*")) if path.is_dir() else [path]
                for entry in filter(Path.is_file, entries):
                    name = entry.name if "tfevents" not in entry.name else "scalars"
                    key = f"{entry.parent}/{name}"
                    # The map shows the folder in which it was made.
                    content = re.sub(places, b"", comparable(entry))
                    found[key] = found.get(key, b"") + content
            found[f"{job.step} {job.job}"] = job.state.encode()
    return found


if __name__ == "__main__":
    main()
