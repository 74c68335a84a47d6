"""The workflow on a real SLURM: slurmctld and slurmd on this machine's loopback."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml
from astropy.io import fits

from astromorph.sky.simulate import simulate

pytestmark = pytest.mark.slurm

ROOT = Path(__file__).parents[2]
PROGRAMS = ("slurmctld", "slurmd", "sbatch", "squeue", "munged")
# As in the README.
COMMAND = ["snakemake", "--profile", "slurm"]
# The profile checks its jobs after 40 s, then 50, then 60, because they take hours.
# Here they take seconds, so Python sleeps for at most half a second.
IMPATIENT = """
import asyncio
sleep = asyncio.sleep
asyncio.sleep = lambda delay, *rest: sleep(min(delay, 0.5), *rest)
"""
# Appended to byol.py in the clone: if there is a file `slow`, each training step takes
# half a second longer, because `update_moving_average` is called once per step.
SLOW_STEP = """

import pathlib
import time

_update_moving_average = BYOL.update_moving_average


def _update_slowly(self, decay=None):
    time.sleep(0.5 if pathlib.Path("slow").exists() else 0)
    _update_moving_average(self, decay)


BYOL.update_moving_average = _update_slowly
"""
EPOCHS = 60  # at half a second per step, so many that none of the kills comes too late
PATIENCE = 600  # seconds, of a busy machine
SETTINGS = {
    "datafile": "data/filelist.csv",
    "network_name": "amm",
    "epochs": 2,
    "batch_size": 16,
    "core_limit": 1,
    "preprocess_settings": {"size": 32, "shard_size": 20},
    # srun starts a task on each of two nodes.
    "training_settings": {"simulated_images": 20, "nodes": 2},
    "inference_settings": {"symmetry": "none"},
    "analysis_settings": {"map": "pca"},
}
# Each job starts Snakemake twice; the steps after this one show nothing more of SLURM.
TABLE = "results/export/embeddings.csv"


@pytest.fixture(scope="module")
def cluster() -> Iterator[dict[str, str]]:
    """Two nodes with four cores and two (false) GPUs each; the environment to use."""
    paths = os.pathsep.join([os.environ["PATH"], "/usr/sbin", "/sbin"])
    missing = [p for p in PROGRAMS if not shutil.which(p, path=paths)]
    if missing:
        pytest.skip(
            f"{', '.join(missing)} not found; on Debian: "
            "apt install slurmctld slurmd slurm-client munge"
        )
    with tempfile.TemporaryDirectory(prefix="slurm-") as folder:
        os.chmod(folder, 0o755)  # munged requires a socket that is accessible to all
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
        environment |= {
            "SLURM_LOCAL_DIR": f"{folder}/s", "SLURM_LOCAL_NODES": "2",
            "SLURM_LOCAL_CPUS": "4", "SLURM_LOCAL_GPUS": "2",
            "SLURM_LOCAL_MEM": "16000", "PYTHONPATH": folder,
        }  # fmt: skip
        Path(folder, "sitecustomize.py").write_text(IMPATIENT)
        script = ["bash", str(ROOT / "tests" / "workflow" / "slurm-local")]
        done = subprocess.run(
            [*script, "start"], env=environment, capture_output=True, text=True
        )
        if done.returncode and "resolves to" in done.stderr:
            pytest.skip(f"SLURM needs a host name on loopback: {done.stderr.strip()}")
        assert done.returncode == 0, done.stderr
        bin_folder = Path(sys.executable).parent
        environment["PATH"] = f"{folder}/s/bin:{bin_folder}:{environment['PATH']}"
        environment["SLURM_CONF"] = f"{folder}/s/etc/slurm.conf"
        yield environment
        subprocess.run([*script, "stop"], env=environment, capture_output=True)


def clone(folder: Path, settings: dict, images: int) -> Path:
    """A fresh copy of the repository, with images and settings."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"],
        cwd=ROOT, capture_output=True, check=True,
    )  # fmt: skip
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    simulate(folder / "data", images, seed=3)
    (folder / "config" / "config.yaml").write_text(yaml.safe_dump(settings))
    return folder


def snakemake(folder: Path, cluster: dict[str, str], *options: str) -> str:
    """Run Snakemake to its end; return its exit code and output."""
    command = ["timeout", "-k", "10", "900", *COMMAND, *options]
    done = subprocess.run(
        command, cwd=folder, env=cluster, capture_output=True, text=True
    )
    return f"exit {done.returncode}\n{done.stdout}{done.stderr}"


@pytest.fixture
def background() -> Iterator[Callable[..., subprocess.Popen]]:
    """Start Snakemake in the background; it is killed after the test."""
    with contextlib.ExitStack() as stack:

        def start(
            folder: Path, cluster: dict[str, str], *options: str
        ) -> subprocess.Popen:
            file = stack.enter_context(open(folder / "snakemake.out", "ab"))
            process = subprocess.Popen(
                [*COMMAND, *options], cwd=folder, env=cluster, stdout=file,
                stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
            stack.callback(kill, process)
            return process

        yield start


def kill(process: subprocess.Popen) -> None:
    """Kill a process and its children, as if the machine failed."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def wait_for(what: Callable[[], bool], say: Callable[[], str]) -> None:
    """Wait until a condition is true."""
    end = time.monotonic() + PATIENCE
    while not what():
        assert time.monotonic() < end, say()
        time.sleep(0.2)


def trainings(cluster: dict[str, str]) -> list[str]:
    """The training jobs that are running or about to end."""
    done = subprocess.run(
        ["squeue", "-h", "-t", "R,CG", "-o", "%i %k"], env=cluster, check=True,
        capture_output=True, text=True,
    )  # fmt: skip
    lines = [line.split(maxsplit=1) for line in done.stdout.splitlines()]
    return [number for number, comment in lines if "rule_train" in comment]


def scontrol(cluster: dict[str, str], *words: str) -> str:
    done = subprocess.run(
        ["scontrol", *words], env=cluster, check=True, capture_output=True, text=True
    )
    return done.stdout


def large_image(path: Path, side: int) -> None:
    """Write an image that needs more memory than its shard requests at first."""
    pixels = np.random.default_rng(0).integers(0, 50, (side, side), np.int16)
    pixels[side // 2 :, side // 2 :] += 900
    fits.PrimaryHDU(pixels).writeto(path, overwrite=True)


@pytest.fixture(scope="module")
def finished(cluster, tmp_path_factory) -> Path:
    """A clone in which the workflow failed at first and then made its table."""
    folder = clone(tmp_path_factory.mktemp("cluster"), SETTINGS, 40)
    large_image(folder / "data" / "sky_000010.fits", 13_000)
    blocked = folder / "results" / "tensors" / "00001.csv"
    (blocked / "in the way").mkdir(parents=True)
    output = snakemake(folder, cluster, TABLE, "--retries", "1")
    (folder / "first.log").write_text(output)
    shutil.rmtree(blocked)
    output = snakemake(folder, cluster, TABLE)
    (folder / "second.log").write_text(output)
    return folder


def test_a_failing_shard_stops_no_other_and_is_named(finished):
    """`keep-going`; the last lines name the job that failed."""
    output = (finished / "first.log").read_text()
    assert "exit 1" in output
    assert re.search(r"Error in rule preprocess", output), output
    assert "failed: preprocess: results/tensors/00001.csv: cannot be written" in output
    assert "failed: preprocess: results/tensors/00000" not in output
    assert "shard=00000" in output
    assert "Finished jobid" in output


def test_a_job_killed_for_memory_succeeds_with_more(finished, cluster):
    """The shard with the large image runs out of memory and is retried."""
    output = (finished / "first.log").read_text()
    jobs_log = Path(cluster["SLURM_LOCAL_DIR"], "log", "jobcomp.txt").read_text()
    requested = {int(m) for m in re.findall(r"mem=(\d+)M", jobs_log)}
    assert {1100, 2200} <= requested
    assert "Trying to restart job" in output, output
    rows = (finished / "results/tensors/00000.csv").read_text().splitlines()
    assert len(rows) == 21


def test_the_same_command_finishes_the_run(finished):
    """After the cause is removed; finished shards are kept."""
    output = (finished / "second.log").read_text()
    assert output.startswith("exit 0"), output
    ran = re.findall(r"^rule preprocess:", output, re.M)
    assert len(ran) == 1
    table = (finished / TABLE).read_text().splitlines()
    assert len(table) == 41


def test_two_tasks_on_two_machines_train_together(finished, cluster):
    """`nodes: 2`: srun starts a task on each, which communicate by gloo."""
    log = (finished / "results/logs/train/train.log").read_text()
    assert "epoch 2 of 2" in log
    assert "Warning" not in log
    jobs_log = Path(cluster["SLURM_LOCAL_DIR"], "log", "jobcomp.txt").read_text()
    assert "NodeList=n[1-2] NodeCnt=2" in jobs_log


@pytest.fixture
def training(finished, tmp_path) -> Path:
    """A copy of the finished run, set up to train again, slowly, on GPUs."""

    def linked_or_copied(old: str, new: str) -> None:
        (os.link if old.endswith(".fits") else shutil.copy2)(old, new)

    folder = tmp_path / "copy"
    shutil.copytree(finished, folder, copy_function=linked_or_copied)
    settings = SETTINGS | {
        "epochs": EPOCHS, "training_settings": {"simulated_images": 20}
    }  # fmt: skip
    (folder / "config" / "config.yaml").write_text(yaml.safe_dump(settings))
    with open(folder / "astromorph" / "byol" / "byol.py", "a") as module:
        module.write(SLOW_STEP)
    profile = folder / "slurm" / "config.yaml"
    profile.write_text(on_gpus(profile.read_text()))
    (folder / "slow").touch()
    return folder


def test_training_resumes_after_kill_cancel_and_time_limit(
    cluster, background, training
):
    """It resumes from its checkpoint each time and completes all epochs."""
    log = training / "results/logs/train/train.log"
    log.unlink(missing_ok=True)
    options = ["results/model/model.pt", "--retries", "4"]

    def trains_from(first: int) -> Callable[[], bool]:
        def so() -> bool:
            text = log.read_text() if log.exists() else ""
            begun = re.search(r"resumes from .*: epoch (\d+)", text)
            seen = re.findall(r"epoch (\d+) of", text.partition("resumes")[2] or text)
            behind = int(begun[1]) if begun else 0
            return behind >= first and bool(seen) and int(seen[-1]) > behind

        return so

    def epoch() -> int:
        return int(re.findall(r"epoch (\d+) of", log.read_text())[-1])

    def story() -> str:
        return log.read_text() + (training / "snakemake.out").read_text()[-5000:]

    run = background(training, cluster, *options)
    wait_for(trains_from(0), story)
    (job,) = trainings(cluster)
    assert re.search(r"TresPer\w+=\S*gpu:1", scontrol(cluster, "show", "job", job))
    kill(run)  # the machine of Snakemake fails; its job continues
    subprocess.run(["scancel", job], env=cluster, check=True)
    wait_for(lambda: "stopped by SIGTERM" in log.read_text(), story)
    wait_for(lambda: not trainings(cluster), story)
    output = snakemake(training, cluster, "--unlock")
    assert output.startswith("exit 0"), output

    run = background(training, cluster, *options)
    wait_for(trains_from(1), story)
    (job,), reached = trainings(cluster), epoch()
    subprocess.run(
        ["scancel", job], env=cluster, check=True
    )  # now while Snakemake watches
    wait_for(lambda: job not in trainings(cluster), story)
    wait_for(trains_from(reached), story)

    (job,), reached = trainings(cluster), epoch()
    scontrol(cluster, "update", f"JobId={job}", "EndTime=now")
    wait_for(lambda: job not in trainings(cluster), story)
    assert "JobState=TIMEOUT" in scontrol(cluster, "show", "job", job)
    wait_for(trains_from(reached), story)
    (training / "slow").unlink()
    assert run.wait(PATIENCE) == 0, story()
    history = (training / "results/model/history.csv").read_text().splitlines()
    assert [int(row.split(",")[0]) for row in history[1:]] == list(range(1, EPOCHS + 1))


def on_gpus(profile: str) -> str:
    """The profile with its lines for GPUs uncommented."""
    at = profile.index("# set-resources:")
    end = profile.index("\n\n", at)
    block = re.sub(r"^# ", "", profile[at:end], flags=re.M).replace(": gpu", ": debug")
    text = profile[:at] + block + profile[end:]
    assert yaml.safe_load(text)["set-resources"]["train"]["gpu"] == 1
    return text
