"""Full disks, missing rights, memory that runs out: one message, no lost work."""

import errno
import json
import os
import subprocess
import sys
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np
import pytest
import torch

from astromorph.artefacts import keep_last, replacing, replacing_folder
from astromorph.checkpoint import ModelFile, fresh, load_model, save_model
from astromorph.settings import parse, part_of
from astromorph.shards import preprocess
from astromorph.trouble import WriteError, explained, refused

LIMITED = """
import resource, sys, torch, torch._dynamo
import torchvision, pyarrow, astropy.io.fits
from astromorph import byol, embed, infer, networks, shards
from astromorph.cli import main
pages = int(open("/proc/self/statm").read().split()[0])
most = pages * resource.getpagesize() + int(sys.argv[1]) * 2**20
resource.setrlimit(resource.RLIMIT_AS, (most, most))
main(sys.argv[2:])
"""


@pytest.fixture
def disk(tmp_path):
    """Mounts a small disk of its own at a folder; unmounts them at the end."""
    mounted: list[Path] = []

    def mount(name: str, options: str) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        try:
            done = subprocess.run(command, capture_output=True, text=True)
        except FileNotFoundError:
            pytest.skip("no `mount` on this machine")
        if done.returncode:
            pytest.skip(f"no right to mount a small disk: {done.stderr.strip()}")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", str(folder)], check=True)


def resized(folder: Path, options: str) -> None:
    command = ["mount", "-o", f"remount,{options}", str(folder)]
    subprocess.run(command, check=True)


def astromorph(*arguments: str | Path) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "astromorph", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=240)


def one_error(done: subprocess.CompletedProcess) -> str:
    """The only line that says ERROR; no traceback is there."""
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    (line,) = [line for line in done.stderr.splitlines() if " ERROR " in line]
    return line


@pytest.fixture(scope="module")
def model(settings, tmp_path_factory) -> Path:
    """A model file with random weights, about 900 KB."""
    rules = parse(
        {"network_name": "amm", "network_settings": {"weights": "random"}}, ""
    )
    path = tmp_path_factory.mktemp("model") / "model.pt"
    state = fresh(rules, 1).state_dict()
    save_model(path, ModelFile(state, part_of(rules, "train"), 1, "", ""))
    return path


def test_a_full_disk_is_named_and_the_same_command_finishes(disk, sky):
    """Preprocessing: no half a shard, one message; with room again it is done."""
    folder = disk("full", "size=32k")
    command = (
        "preprocess", "-d", sky, "--rows", "0", "28",
        "--tensors", folder / "a.pt", "--contents", folder / "a.csv",
    )  # fmt: skip
    line = one_error(astromorph(*command))
    assert f"{folder / 'a.pt'}: the disk is full" in line
    assert "MB free" in line
    assert not (folder / "a.pt").exists()
    assert not list(folder.glob(".*.tmp"))
    resized(folder, "size=4m")
    done = astromorph(*command)
    assert done.returncode == 0, done.stderr
    assert (folder / "a.pt").exists()


def test_a_disk_that_is_read_only_is_named(disk, prepared, model):
    """Inference: the message names the file and its folder."""
    folder = disk("barred", "size=1m")
    resized(folder, "ro")
    command = (
        "infer", "-n", model, "--tensors", prepared / "00000.pt",
        "--output", folder / "e.parquet",
    )  # fmt: skip
    line = one_error(astromorph(*command))
    assert f"{folder / 'e.parquet'}: no right to write here (Read-only" in line
    resized(folder, "rw")
    assert astromorph(*command).returncode == 0


def test_a_training_outlives_a_checkpoint_that_cannot_be_written(
    disk, sky, prepared, tmp_path
):
    """The disk has room for a model, not for a checkpoint: warnings, and a model."""
    contents = [prepared / f"{k:05d}.csv" for k in range(2)]
    done = astromorph(
        "split", "-d", sky, "--contents", *contents, "--output", tmp_path / "split.csv"
    )
    assert done.returncode == 0, done.stderr
    folder = disk("small", "size=3m")
    rules = {
        "network_name": "amm", "network_settings": {"weights": "random"},
        "epochs": 1, "batch_size": 8,
        "training_settings": {"simulated_images": 0, "checkpoint_minutes": 1e-6},
    }  # fmt: skip
    done = astromorph(
        "train", "--settings", json.dumps(rules), "--split", tmp_path / "split.csv",
        "--tensors", *[prepared / f"{k:05d}.pt" for k in range(2)], "-n",
        folder / "model.pt", "--history", tmp_path / "h.csv", "--log-dir",
        tmp_path / "log",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("no checkpoint: ") > 2
    assert "the disk is full" in done.stderr
    load_model(folder / "model.pt")


def test_a_model_file_on_a_full_disk(disk, model):
    """Torch's writer hides what the disk said; the message does not."""
    folder = disk("small", "size=64k")
    values = load_model(model)[1]
    with pytest.raises(WriteError, match=r"m\.pt: the disk is full"):
        save_model(folder / "m.pt", values)
    assert not list(folder.iterdir())


def test_an_input_that_vanished_is_named(prepared, model, tmp_path):
    """Inference without its tensors."""
    done = astromorph(
        "infer", "-n", model, "--tensors", tmp_path / "gone.pt", "--output",
        tmp_path / "e.parquet",
    )  # fmt: skip
    assert "gone.pt: there is no such file" in one_error(done)


@pytest.fixture(scope="module")
def large(sky, tmp_path_factory) -> Path:
    """A shard of images of 512 pixels a side."""
    path = tmp_path_factory.mktemp("large") / "large.pt"
    rules = parse({"preprocess_settings": {"size": 512}}, "test")
    preprocess(rules, sky, (0, 28), path, path.with_suffix(".csv"))
    return path


@pytest.mark.parametrize("step", ["preprocess", "infer"])
def test_memory_that_runs_out_is_said(step, sky, large, model, tmp_path):
    """Both numpy's and torch's way of saying so end in one message."""
    arguments = {
        "preprocess": (
            "--settings", '{"preprocess_settings":{"size":1024,"dtype":"float32"}}',
            "-d", sky, "--rows", "0", "28", "--tensors", tmp_path / "a.pt",
            "--contents", tmp_path / "a.csv",
        ),
        "infer": (
            "-n", model, "--tensors", large, "--output", tmp_path / "e.parquet",
        ),
    }[step]  # fmt: skip
    room = {"preprocess": 40, "infer": 500}[step]
    command = [sys.executable, "-c", LIMITED, str(room), step, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    line = one_error(done)
    assert "memory ran out" in line
    assert "`mem_mb`" in line
    assert not list(tmp_path.glob("*.p*"))


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried 2 GiB"), "smaller `batch_s"),
        (RuntimeError("CUDA error: unspecified launch failure"), "nvidia-smi"),
        (BrokenProcessPool("a process was terminated"), "`core_limit`"),
        (FileNotFoundError(errno.ENOENT, "No such file", "a.pt"), "a.pt: no such file"),
        (OSError(errno.EIO, "Input/output error", "a.pt"), "a.pt: cannot be read"),
        (OSError(errno.ENOSPC, "No space left on device"), "the disk is full"),
    ],
)
def test_errors_of_the_machine_have_a_remedy(error, words):
    """Each says what to do."""
    said = explained(error)
    assert words in said
    assert "run the same again" in said


def test_errors_of_the_program_are_not_explained_away():
    """They keep their traceback."""
    assert explained(ValueError("a bug")) is None
    assert explained(OSError("a text alone")) is None


def test_an_error_about_another_file_keeps_its_name(tmp_path):
    """What is read while something is written is not blamed on the latter."""
    with pytest.raises(FileNotFoundError), replacing(tmp_path / "out" / "a"):
        (tmp_path / "absent").read_text()
    broken = pytest.raises(WriteError, match="b: cannot be written")
    with broken, replacing_folder(tmp_path / "out" / "b"):
        raise OSError(errno.EIO, "Input/output error")
    assert "share of it" in refused(tmp_path / "c", OSError(errno.EDQUOT, "Quota"))


def test_the_last_good_file_has_a_second_name(tmp_path):
    """Deleting the first one, as Snakemake does, leaves it; a new one replaces it."""
    path = tmp_path / "a.pt"
    for text in ("one", "two"):
        with replacing(path) as temporary:
            temporary.write_text(text)
        keep_last(path)
        assert os.stat(path).st_ino == os.stat(tmp_path / ".last" / "a.pt").st_ino
        path.unlink()
        assert (tmp_path / ".last" / "a.pt").read_text() == text
    assert np.array_equal(sorted(os.listdir(tmp_path / ".last")), ["a.pt"])
