"""A full disk, missing permissions, too little memory: one message, no lost work."""

import errno
import gc
import json
import os
import re
import shutil
import sqlite3
import subprocess
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import command_line
import numpy as np
import pytest
import torch

from astromorph.artefacts.model_file import ModelFile, save_model
from astromorph.artefacts.run_files import RunFiles
from astromorph.atomic import atomic_folder, atomic_write, keep_previous
from astromorph.byol.build import load_model, seeded_byol
from astromorph.catalogue.split import split
from astromorph.errors import WriteError, explain_error, explain_write_error
from astromorph.filelist.shards import Shard
from astromorph.preprocessing.preprocess import preprocess
from astromorph.settings.loading import parse
from astromorph.settings.steps import part_of, train_step_settings
from astromorph.training.history import Epoch, scalar_writer

# Both programs run in processes that have already imported PyTorch.
LIMITED = """
import resource, sys
from astromorph.byol import byol
from astromorph.embedding import embed
from astromorph.embedding import infer
from astromorph.models import encoders as networks
from astromorph.preprocessing import preprocess as shards
from astromorph.cli.main import main
pages = int(open("/proc/self/statm").read().split()[0])
limit = pages * resource.getpagesize() + int(sys.argv[1]) * 2**20
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
main(sys.argv[2:])
"""
# The fifth backward pass raises what torch raises when a GPU fails.
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
    """Mounts a small disk at a new folder; all are unmounted at the end."""
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
            pytest.skip(f"no permission to mount a small disk: {done.stderr.strip()}")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", str(folder)], check=True)


def remount(folder: Path, options: str) -> None:
    command = ["mount", "-o", f"remount,{options}", str(folder)]
    subprocess.run(command, check=True)


def astromorph(*arguments: str | Path) -> subprocess.CompletedProcess:
    return command_line.run(list(map(str, arguments)), Path.cwd(), timeout=240)


def python(code: str, folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    """Execute a program in its folder, as a script with arguments."""
    program = folder / "program.py"
    program.write_text(code)
    return command_line.run(list(arguments), Path.cwd(), program, timeout=240)


def one_error(done: subprocess.CompletedProcess) -> str:
    """Return the only ERROR line, and check that there is no traceback."""
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
    state = seeded_byol(train_step_settings(rules), 1).state_dict()
    save_model(path, ModelFile(state, part_of(rules, "train"), 1, "", ""))
    return path


@pytest.mark.slow
def test_a_full_disk_is_named_and_the_same_command_succeeds_later(disk, sky):
    """`preprocess` leaves no incomplete shard, and finishes when there is space."""
    folder = disk("full", "size=32k")
    command = (
        "preprocess", "-d", sky, "--shard", "a", "--rows", "0", "28",
        "--results", folder,
    )  # fmt: skip
    tensors = folder / "tensors" / "a.pt"
    line = one_error(astromorph(*command))
    assert f"{tensors}: the disk is full" in line
    assert "MB free" in line
    assert not tensors.exists()
    assert not list(folder.rglob(".*.tmp"))
    remount(folder, "size=4m")
    done = astromorph(*command)
    assert done.returncode == 0, done.stderr
    assert tensors.exists()


@pytest.mark.slow
def test_a_read_only_disk_is_named(disk, prepared, model):
    """The message of `infer` names the first file that it writes, and its folder."""
    folder = disk("barred", "size=1m")
    (folder / "tensors").symlink_to(prepared)
    (folder / "embeddings").mkdir()
    remount(folder, "ro")
    command = ("infer", "-n", model, "--results", folder, "--shard", "00000")
    line = one_error(astromorph(*command))
    first = folder / "provenance" / "infer" / "00000.lock"
    assert f"{first}: no permission to write here (Read-only" in line
    remount(folder, "rw")
    assert astromorph(*command).returncode == 0


@pytest.mark.slow
def test_training_continues_if_a_checkpoint_cannot_be_written(
    disk, sky, prepared, tmp_path
):
    """If the disk has space only for a model, training logs warnings and writes it."""
    (tmp_path / "tensors").symlink_to(prepared)
    run = ("--results", tmp_path, "--shards", "2")
    done = astromorph("split", "-d", sky, *run)
    assert done.returncode == 0, done.stderr
    folder = disk("small", "size=3m")
    rules = {
        "network_name": "amm", "network_settings": {"weights": "random"},
        "epochs": 1, "batch_size": 8,
        "training_settings": {"simulated_images": 0, "checkpoint_minutes": 1e-6},
    }  # fmt: skip
    done = astromorph(
        "train", "--settings", json.dumps(rules), *run, "-n", folder / "model.pt"
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("no checkpoint was written: ") > 2
    assert "the disk is full" in done.stderr
    load_model(folder / "model.pt")


@pytest.mark.slow
def test_a_model_file_on_a_full_disk_is_explained(disk, model):
    """The disk error that torch hides is in the message."""
    folder = disk("small", "size=64k")
    values = load_model(model)[1]
    with pytest.raises(WriteError, match=r"m\.pt: the disk is full"):
        save_model(folder / "m.pt", values)
    assert not list(folder.iterdir())


@pytest.mark.slow
def test_a_missing_input_is_named_and_may_be_restored(prepared, model, tmp_path):
    """`infer` fails without its tensors, and succeeds when they are restored."""
    tensors = tmp_path / "tensors" / "00000.pt"
    output = tmp_path / "embeddings" / "00000.parquet"
    command = ("infer", "-n", model, "--results", tmp_path, "--shard", "00000")
    assert "00000.pt: there is no such file" in one_error(astromorph(*command))
    assert not output.exists()
    tensors.parent.mkdir()
    os.link(prepared / "00000.pt", tensors)
    done = astromorph(*command)
    assert done.returncode == 0, done.stderr
    assert output.exists()


def one_shard(folder: Path, sky: Path, size: int) -> Path:
    """All images of a list as tensors, with their split beside them."""
    settings = parse({"preprocess_settings": {"size": size}}, "")
    files, data = RunFiles.of_run(folder, shards=1), settings.data_settings
    rows = len(sky.read_text().splitlines()) - 1
    preprocess(sky, Shard("00000", 0, rows), files, data, settings.preprocess_settings)
    split(sky, files, settings.split_settings, settings.validate_settings, 0)
    return files.tensors("00000")


@pytest.fixture(scope="module")
def large(sky, tmp_path_factory) -> Path:
    """A shard of half of the images, of 512 by 512 pixels."""
    half = sky.with_name("half.csv")
    half.write_text("\n".join(sky.read_text().splitlines()[:15]))
    return one_shard(tmp_path_factory.mktemp("large"), half, 512)


def arguments_for(
    step: str, folder: Path, sky: Path, tensors: Path, model: Path, epochs: int = 2
) -> list[str]:
    """A command line that writes to the folder."""
    if step == "preprocess":
        settings = {"preprocess_settings": {"size": 1024, "dtype": "float32"}}
        found = ["-d", sky, "--shard", "a", "--rows", "0", "28"]
    elif step == "infer":
        settings = {"inference_settings": {"symmetry": "none"}}
        (folder / "tensors").symlink_to(tensors.parent)
        found = ["-n", model, "--shard", "00000"]
    else:
        settings = {
            "network_name": "amm", "epochs": epochs, "batch_size": 8,
            "network_settings": {"weights": "random"},
            "training_settings": {"simulated_images": 0, "checkpoint_minutes": 1e-6},
        }  # fmt: skip
        (folder / "tensors").symlink_to(tensors.parent)
        (folder / "split.csv").symlink_to(tensors.parents[1] / "split.csv")
        found = ["--shards", "1", "-n", folder / "m.pt"]
    found += ["--results", folder]
    return [step, "--settings", json.dumps(settings), *map(str, found)]


def outputs_of(step: str, folder: Path) -> list[Path]:
    """The tensors, embeddings or model that the step wrote."""
    names = {"preprocess": "tensors/*.pt", "infer": "embeddings/*.parquet"}
    return list(folder.glob(names.get(step, "*.pt")))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("step", "room"), [("preprocess", 40), ("infer", 250), ("train", 700)]
)
def test_too_little_memory_is_explained_and_more_memory_suffices(
    step, room, sky, large, model, tmp_path
):
    """The errors of numpy and torch lead to the same message."""
    command = arguments_for(step, tmp_path, sky, large, model, epochs=1)
    line = one_error(python(LIMITED, tmp_path, str(room), *command))
    assert "out of memory" in line
    assert "`mem_mb`" in line
    assert not outputs_of(step, tmp_path)
    done = astromorph(*command)
    assert done.returncode == 0, done.stderr
    assert outputs_of(step, tmp_path)


@pytest.mark.slow
def test_training_resumes_exactly_after_a_gpu_failure(sky, model, tmp_path):
    """The model equals that of a training without the failure in its fifth step."""
    tensors, commands = one_shard(tmp_path, sky, 32), []
    for name in ("lost", "whole"):
        (tmp_path / name).mkdir()
        commands.append(arguments_for("train", tmp_path / name, sky, tensors, model))
    line = one_error(python(LOST, tmp_path, *commands[0]))
    assert "the GPU failed (CUDA error: unspecified launch f" in line
    assert "training continues from its last checkpoint" in line
    assert not (tmp_path / "lost" / "m.pt").exists()
    said = [astromorph(*command).stderr for command in commands]
    assert re.search("resumes from .*: epoch 2", said[0]), said[0]
    assert "resumes from" not in said[1]
    states = [load_model(tmp_path / name / "m.pt")[0] for name in ("lost", "whole")]
    for name, value in states[1].state_dict().items():
        assert torch.equal(states[0].state_dict()[name], value), name


@pytest.mark.slow
def test_a_full_disk_is_one_error_for_tensorboard(disk, capfd):
    """Its thread prints no traceback; an interruption is not hidden by it."""
    folder = disk("scalars", "size=20k")
    record = Epoch(1, 4.2, 4.1, 0.1, 1e-3, 0.99, 12.5, 0.4)
    is_full = pytest.raises(WriteError, match="scalars: the disk is full")
    with is_full, scalar_writer(folder) as write:
        for _ in range(400):
            write(record)
    for path in folder.iterdir():
        path.unlink()
    with pytest.raises(KeyboardInterrupt), scalar_writer(folder) as write:
        for _ in range(10):
            write(record)
        (folder / "rest").write_bytes(bytes(shutil.disk_usage(folder).free))
        raise KeyboardInterrupt
    gc.collect()
    printed = capfd.readouterr()
    assert "Traceback" not in printed.out + printed.err


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried 2 GiB"), "smaller `batch_s"),
        (RuntimeError("CUDA error: unspecified launch failure"), "nvidia-smi"),
        (BrokenProcessPool("a process was terminated"), "`core_limit`"),
        (FileNotFoundError(errno.ENOENT, "No such file", "a.pt"), "a.pt: no such file"),
        (OSError(errno.EIO, "Input/output error", "a.pt"), "a.pt: cannot be read"),
        (OSError(errno.ENOSPC, "No space left on device"), "the disk is full"),
        (sqlite3.OperationalError("database or disk is full"), "set TMPDIR to"),
    ],
)
def test_system_errors_are_explained_with_a_remedy(error, remedy):
    """Each message says what to do."""
    message = explain_error(error)
    assert remedy in message
    assert "run the same command again" in message


def test_errors_of_the_program_are_not_explained():
    """The command line prints their traceback."""
    assert explain_error(ValueError("a bug")) is None
    assert explain_error(OSError("a text alone")) is None


def test_an_error_about_another_file_keeps_its_name(tmp_path):
    """An error of reading is not attributed to the file that is being written."""
    absent = pytest.raises(FileNotFoundError, match="absent")
    with absent, atomic_write(tmp_path / "out" / "a"):
        (tmp_path / "absent").read_text()
    broken = pytest.raises(WriteError, match="b: cannot be written")
    with broken, atomic_folder(tmp_path / "out" / "b"):
        raise OSError(errno.EIO, "Input/output error")
    assert "your quota is used up" in explain_write_error(
        tmp_path / "c", OSError(errno.EDQUOT, "Quota")
    )


def test_the_previous_file_has_a_second_name(tmp_path):
    """It survives when Snakemake deletes the first name; a new file replaces it."""
    path = tmp_path / "a.pt"
    for text in ("one", "two"):
        with atomic_write(path) as temporary:
            temporary.write_text(text)
        keep_previous(path)
        assert os.stat(path).st_ino == os.stat(tmp_path / ".last" / "a.pt").st_ino
        path.unlink()
        assert (tmp_path / ".last" / "a.pt").read_text() == text
    assert np.array_equal(sorted(os.listdir(tmp_path / ".last")), ["a.pt"])
