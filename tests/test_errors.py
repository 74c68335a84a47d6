"""Full disks, missing rights, memory that runs out: one message, no lost work."""

import errno
import json
import os
import re
import subprocess
import sys
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np
import pytest
import torch

from astromorph.artefacts.model_file import ModelFile, save_model
from astromorph.atomic import atomic_folder, atomic_write, keep_previous
from astromorph.byol.build import load_model, seeded_byol
from astromorph.catalogue.split import split
from astromorph.errors import WriteError, explain_error, explain_write_error
from astromorph.preprocessing.preprocess import preprocess
from astromorph.settings.loading import parse
from astromorph.settings.steps import part_of

LIMITED = """
import resource, sys, torch, torch._dynamo
import torchvision, pyarrow, astropy.io.fits
from astromorph.byol import byol
from astromorph.embedding import embed
from astromorph.embedding import infer
from astromorph.models import encoders as networks
from astromorph.preprocessing import preprocess as shards
from astromorph.cli.main import main
pages = int(open("/proc/self/statm").read().split()[0])
most = pages * resource.getpagesize() + int(sys.argv[1]) * 2**20
resource.setrlimit(resource.RLIMIT_AS, (most, most))
main(sys.argv[2:])
"""
# The fifth backward pass ends as on a GPU that fell off the bus.
LOST = """
import sys, torch
from astromorph.cli.main import main
passes, backward = [], torch.Tensor.backward
def lost(self, *rest, **more):
    passes.append(1)
    if len(passes) == 5:
        raise torch.AcceleratorError("CUDA error: unspecified launch failure")
    return backward(self, *rest, **more)
torch.Tensor.backward = lost
main(sys.argv[1:])
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
    state = seeded_byol(rules, 1).state_dict()
    save_model(path, ModelFile(state, part_of(rules, "train"), 1, "", ""))
    return path


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
def test_a_model_file_on_a_full_disk(disk, model):
    """Torch's writer hides what the disk said; the message does not."""
    folder = disk("small", "size=64k")
    values = load_model(model)[1]
    with pytest.raises(WriteError, match=r"m\.pt: the disk is full"):
        save_model(folder / "m.pt", values)
    assert not list(folder.iterdir())


@pytest.mark.slow
def test_an_input_that_vanished_is_named_and_may_come_back(prepared, model, tmp_path):
    """Inference without its tensors; with them the same command finishes."""
    tensors, output = tmp_path / "gone.pt", tmp_path / "e.parquet"
    command = ("infer", "-n", model, "--tensors", tensors, "--output", output)
    assert "gone.pt: there is no such file" in one_error(astromorph(*command))
    assert not output.exists()
    os.link(prepared / "00000.pt", tensors)
    done = astromorph(*command)
    assert done.returncode == 0, done.stderr
    assert output.exists()


def one_shard(folder: Path, sky: Path, size: int) -> Path:
    """All images of the sky as tensors, with their split beside them."""
    rules, path = parse({"preprocess_settings": {"size": size}}, ""), folder / "l.pt"
    preprocess(rules, sky, (0, 28), path, folder / "l.csv")
    split(rules, sky, [folder / "l.csv"], folder / "split.csv")
    return path


@pytest.fixture(scope="module")
def large(sky, tmp_path_factory) -> Path:
    """A shard of images of 512 pixels a side."""
    return one_shard(tmp_path_factory.mktemp("large"), sky, 512)


def arguments_of(
    step: str, folder: Path, sky: Path, tensors: Path, model: Path
) -> list[str]:
    """A command line whose results are in the folder."""
    if step == "preprocess":
        settings = {"preprocess_settings": {"size": 1024, "dtype": "float32"}}
        found = ["-d", sky, "--rows", "0", "28", "--tensors", folder / "a.pt"]
        found += ["--contents", folder / "a.csv"]
    elif step == "infer":
        settings = {}
        found = ["-n", model, "--tensors", tensors, "--output", folder / "e.parquet"]
    else:
        settings = {
            "network_name": "amm", "epochs": 2, "batch_size": 8,
            "network_settings": {"weights": "random"},
            "training_settings": {"simulated_images": 0, "checkpoint_minutes": 1e-6},
        }  # fmt: skip
        found = ["--tensors", tensors, "--split", tensors.parent / "split.csv"]
        found += ["-n", folder / "m.pt", "--history", folder / "h.csv"]
        found += ["--log-dir", folder / "log"]
    return [step, "--settings", json.dumps(settings), *map(str, found)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("step", "room"), [("preprocess", 40), ("infer", 500), ("train", 700)]
)
def test_memory_that_runs_out_is_said_and_more_of_it_finishes(
    step, room, sky, large, model, tmp_path
):
    """Both numpy's and torch's way of saying so end in one message."""
    command = arguments_of(step, tmp_path, sky, large, model)
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(room), *command],
        capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    line = one_error(done)
    assert "memory ran out" in line
    assert "`mem_mb`" in line
    assert not list(tmp_path.glob("*.p*"))
    done = astromorph(*command)
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.glob("*.p*"))


@pytest.mark.slow
def test_a_device_that_goes_away_costs_nothing(sky, model, tmp_path):
    """The fifth step meets what torch raises then; training ends as if it had not."""
    tensors, commands = one_shard(tmp_path, sky, 32), []
    for name in ("lost", "whole"):
        (tmp_path / name).mkdir()
        commands.append(arguments_of("train", tmp_path / name, sky, tensors, model))
    done = subprocess.run(
        [sys.executable, "-c", LOST, *commands[0]],
        capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    line = one_error(done)
    assert "the GPU failed or went away (CUDA error: unspecified launch f" in line
    assert "training goes on from its last checkpoint" in line
    assert not (tmp_path / "lost" / "m.pt").exists()
    said = [astromorph(*command).stderr for command in commands]
    assert re.search("goes on from .*: epoch 2", said[0]), said[0]
    assert "goes on from" not in said[1]
    states = [load_model(tmp_path / name / "m.pt")[0] for name in ("lost", "whole")]
    for name, value in states[1].state_dict().items():
        assert torch.equal(states[0].state_dict()[name], value), name


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
    said = explain_error(error)
    assert words in said
    assert "run the same again" in said


def test_errors_of_the_program_are_not_explained_away():
    """They keep their traceback."""
    assert explain_error(ValueError("a bug")) is None
    assert explain_error(OSError("a text alone")) is None


def test_an_error_about_another_file_keeps_its_name(tmp_path):
    """What is read while something is written is not blamed on the latter."""
    absent = pytest.raises(FileNotFoundError, match="absent")
    with absent, atomic_write(tmp_path / "out" / "a"):
        (tmp_path / "absent").read_text()
    broken = pytest.raises(WriteError, match="b: cannot be written")
    with broken, atomic_folder(tmp_path / "out" / "b"):
        raise OSError(errno.EIO, "Input/output error")
    assert "share of it" in explain_write_error(
        tmp_path / "c", OSError(errno.EDQUOT, "Quota")
    )


def test_the_last_good_file_has_a_second_name(tmp_path):
    """Deleting the first one, as Snakemake does, leaves it; a new one replaces it."""
    path = tmp_path / "a.pt"
    for text in ("one", "two"):
        with atomic_write(path) as temporary:
            temporary.write_text(text)
        keep_previous(path)
        assert os.stat(path).st_ino == os.stat(tmp_path / ".last" / "a.pt").st_ino
        path.unlink()
        assert (tmp_path / ".last" / "a.pt").read_text() == text
    assert np.array_equal(sorted(os.listdir(tmp_path / ".last")), ["a.pt"])
