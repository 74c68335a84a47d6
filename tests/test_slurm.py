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

from astromorph.simulate import simulate

ROOT = Path(__file__).parents[1]
PROGRAMS = ("slurmctld", "slurmd", "sbatch", "squeue", "munged")
# What the README says; the rest of the profile waits for jobs of minutes.
COMMAND = ["snakemake", "--profile", "slurm"]
QUICK = ["--slurm-init-seconds-before-status-checks", "6"]
SETTINGS = {
    "datafile": "data/filelist.csv",
    "network_name": "amm",
    "epochs": 2,
    "batch_size": 16,
    "core_limit": 2,
    "preprocess_settings": {"size": 32, "shard_size": 20},
    "training_settings": {"simulated_images": 20},
    "inference_settings": {"symmetry": "none"},
}


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
        os.chmod(folder, 0o755)  # munged wants its socket to be within all's reach
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
        environment |= {
            "SLURM_LOCAL_DIR": f"{folder}/s", "SLURM_LOCAL_NODES": "2",
            "SLURM_LOCAL_CPUS": "4", "SLURM_LOCAL_GPUS": "2",
        }  # fmt: skip
        script = ["bash", str(ROOT / "tests" / "slurm-local")]
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
    """A fresh copy of what the repository holds, with images and settings."""
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
    """Run it to its end; the exit code and all that it said."""
    command = ["timeout", "-k", "10", "500", *COMMAND, *QUICK, *options]
    done = subprocess.run(
        command, cwd=folder, env=cluster, capture_output=True, text=True
    )
    return f"exit {done.returncode}\n{done.stdout}{done.stderr}"


@pytest.fixture
def background() -> Iterator[Callable[..., subprocess.Popen]]:
    """Starts it beside the test; none outlives the test."""
    with contextlib.ExitStack() as stack:

        def start(
            folder: Path, cluster: dict[str, str], *options: str
        ) -> subprocess.Popen:
            file = stack.enter_context(open(folder / "snakemake.out", "ab"))
            process = subprocess.Popen(
                [*COMMAND, *QUICK, *options], cwd=folder, env=cluster, stdout=file,
                stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
            stack.callback(kill, process)
            return process

        yield start


def kill(process: subprocess.Popen) -> None:
    """With all that it started, as a machine that goes down does."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def wait_for(what: Callable[[], bool], seconds: float, say: Callable[[], str]) -> None:
    """Wait until something is so."""
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, say()
        time.sleep(0.2)


def jobs(cluster: dict[str, str], form: str = "%i") -> list[str]:
    """What squeue says of the jobs that run."""
    done = subprocess.run(
        ["squeue", "-h", "-t", "R", "-o", form], env=cluster, capture_output=True,
        text=True, check=True,
    )  # fmt: skip
    return done.stdout.split()


def large_image(path: Path, side: int) -> None:
    """An image of which reading takes more memory than its shard asks for at first."""
    pixels = np.random.default_rng(0).integers(0, 50, (side, side), np.int16)
    pixels[side // 2 :, side // 2 :] += 900
    fits.PrimaryHDU(pixels).writeto(path, overwrite=True)


@pytest.fixture(scope="module")
def finished(cluster, tmp_path_factory) -> Path:
    """A clone in which the workflow has met trouble and was finished."""
    folder = clone(tmp_path_factory.mktemp("cluster"), SETTINGS, 60)
    large_image(folder / "data" / "sky_000030.fits", 14_000)
    blocked = folder / "results" / "tensors" / "00002.csv"
    (blocked / "in the way").mkdir(parents=True)
    said = snakemake(folder, cluster)
    (folder / "first.log").write_text(said)
    shutil.rmtree(blocked)
    said = snakemake(folder, cluster)
    (folder / "second.log").write_text(said)
    return folder


def test_a_failing_shard_stops_no_other_and_is_named(finished):
    """`keep-going`; the end says which job failed."""
    said = (finished / "first.log").read_text()
    assert "exit 1" in said
    assert re.search(r"Error in rule preprocess", said), said
    assert "failed: preprocess: results/tensors/00002.csv: cannot be written" in said
    assert "failed: preprocess: results/tensors/00001" not in said
    assert "shard=00000" in said
    assert "Finished jobid" in said


def test_a_job_killed_for_memory_succeeds_with_more(finished, cluster):
    """The shard with the large image ends out of memory, and is tried again."""
    said = (finished / "first.log").read_text()
    jobs_log = Path(cluster["SLURM_LOCAL_DIR"], "log", "jobcomp.txt").read_text()
    asked = {int(m) for m in re.findall(r"mem=(\d+)M", jobs_log)}
    assert {1100, 2200} & asked == {1100, 2200} or max(asked) > 2 * min(asked), asked
    assert "Trying to restart job" in said, said
    rows = (finished / "results/tensors/00001.csv").read_text().splitlines()
    assert len(rows) == 21


def test_the_same_command_finishes_the_whole_workflow(finished):
    """Once what was in the way is gone; shards that were done stay."""
    said = (finished / "second.log").read_text()
    assert said.startswith("exit 0"), said
    ran = re.findall(r"^rule preprocess:", said, re.M)
    assert len(ran) == 1
    for name in ("export/embeddings.csv", "export/tensorboard", "evaluation.html"):
        assert (finished / "results" / name).exists()
    table = (finished / "results/export/embeddings.csv").read_text().splitlines()
    assert len(table) == 61


def test_two_tasks_on_two_machines_train_together(finished, cluster):
    """`nodes: 2`: srun starts a task on each, gloo joins them."""
    training = SETTINGS["training_settings"] | {"nodes": 2}
    settings = SETTINGS | {"training_settings": training}
    (finished / "config" / "config.yaml").write_text(yaml.safe_dump(settings))
    said = snakemake(finished, cluster, "results/model/model.pt")
    assert said.startswith("exit 0"), said
    log = (finished / "results/logs/train/train.log").read_text()
    assert "epoch 2 of 2" in log
    assert "Warning" not in log
    jobs_log = Path(cluster["SLURM_LOCAL_DIR"], "log", "jobcomp.txt").read_text()
    assert "NodeList=n[1-2] NodeCnt=2" in jobs_log


def test_a_training_outlives_kill_cancel_and_time_limit(cluster, background, tmp_path):
    """Each time it goes on from its checkpoint, and it ends with all its epochs."""
    epochs = 400
    folder = clone(tmp_path, SETTINGS | {"epochs": epochs}, 60)
    profile = folder / "slurm" / "config.yaml"
    profile.write_text(on_gpus(profile.read_text()))
    log = folder / "results/logs/train/train.log"
    model = "results/model/model.pt"
    asked = [model, "--retries", "10"]

    def trains_from(first: int) -> Callable[[], bool]:
        def so() -> bool:
            text = log.read_text() if log.exists() else ""
            begun = re.search(r"goes on from .*: epoch (\d+)", text)
            seen = re.findall(r"epoch (\d+) of", text)
            behind = int(begun[1]) if begun else 0
            return behind >= first and bool(seen) and int(seen[-1]) > behind + 1

        return so

    def story() -> str:
        return (folder / "snakemake.out").read_text()[-5000:]

    run = background(folder, cluster, *asked)
    wait_for(trains_from(0), 120, story)
    (job,) = jobs(cluster)
    asks = subprocess.run(
        ["scontrol", "show", "job", job], env=cluster, capture_output=True, text=True
    )
    assert re.search(r"TresPer\w+=\S*gpu:1", asks.stdout), asks.stdout
    kill(run)  # the machine on which Snakemake ran goes down; its job lives on
    subprocess.run(["scancel", *jobs(cluster)], env=cluster, check=True)
    wait_for(lambda: "stopped by SIGTERM" in log.read_text(), 30, log.read_text)
    wait_for(lambda: not jobs(cluster), 30, story)
    said = snakemake(folder, cluster, "--unlock")
    assert said.startswith("exit 0"), said

    run = background(folder, cluster, *asked)
    wait_for(trains_from(2), 120, story)
    (job,) = jobs(cluster)
    subprocess.run(["scancel", job], env=cluster, check=True)  # and now under its eyes
    wait_for(lambda: job not in jobs(cluster) and trains_from(3)(), 120, story)
    run.wait(400)  # the next attempts reach their limit of a minute
    assert run.returncode == 0, story()
    jobs_log = Path(cluster["SLURM_LOCAL_DIR"], "log", "jobcomp.txt").read_text()
    assert "JobState=TIMEOUT" in jobs_log
    history = (folder / "results/model/history.csv").read_text().splitlines()
    assert [int(row.split(",")[0]) for row in history[1:]] == list(range(1, epochs + 1))


def on_gpus(profile: str) -> str:
    """The profile with its lines for GPUs uncommented, and a minute for training."""
    at = profile.index("# set-resources:")
    end = profile.index("\n\n", at)
    block = re.sub(r"^# ", "", profile[at:end], flags=re.M).replace(": gpu", ": debug")
    text = profile[:at] + block + profile[end:]
    text = text.replace("train:\n    gpu: 1\n", "train:\n    gpu: 1\n    runtime: 1\n")
    assert yaml.safe_load(text)["set-resources"]["train"]["runtime"] == 1
    return text
