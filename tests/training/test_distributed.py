"""Several processes that train one network, on CPUs with gloo."""

import contextlib
import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from astromorph import distributed
from astromorph.artefacts.model_file import MODEL_FORMAT
from astromorph.artefacts.tensor_shard import load_values
from astromorph.byol.byol import BYOL
from astromorph.catalogue.split import split
from astromorph.errors import AstromorphError
from astromorph.models.encoders import AstroMorphologyModel
from astromorph.sky.training_set import DrawingRules, draw_labelled_images
from astromorph.training.auxiliary_task import AuxiliaryTask
from astromorph.training.trainer import ByolTrainer

pytestmark = pytest.mark.slow

# A process of its own as one of those that torchrun starts.
PROGRAM = """
import sys
from tests.test_distributed import steps_of_sgd
import torch
from astromorph import distributed
torch.set_num_threads(1)
with distributed.joined(2):
    made = steps_of_sgd()
    if distributed.rank() == 0:
        torch.save(made, sys.argv[1])
    if len(sys.argv) > 2 and distributed.rank() == 1:
        raise SystemExit("this process dies")
    distributed.total(torch.ones(1))
"""
ROOT = Path(__file__).parents[2]


def without_batch_norm(network: nn.Module) -> nn.Module:
    """Batch norm looks at the images of one process; here it stands aside."""
    for name, child in network.named_children():
        if isinstance(child, (nn.BatchNorm1d, nn.BatchNorm2d)):
            setattr(network, name, nn.Identity())
        else:
            without_batch_norm(child)
    return network


def steps_of_sgd() -> dict[str, object]:
    """A few steps on views that do not depend on the process; losses and weights."""
    torch.manual_seed(0)
    byol = without_batch_norm(BYOL(AstroMorphologyModel(1), features=128))
    teacher = AuxiliaryTask(
        draw_labelled_images(DrawingRules(seed=0, size=24), 21), 128
    )
    made = ByolTrainer(
        byol,
        augmentation_function=lambda images: images * 0.9,
        optimizer=torch.optim.SGD,
        learning_rate=0.05,
        device="cpu",
        precision="float32",
        teacher=teacher,
    )
    images = torch.rand(21, 1, 24, 24, generator=torch.Generator().manual_seed(1))
    history = made.train_model(images, None, epochs=2, batch_size=8)
    losses = [(epoch.train_loss, epoch.lesson_loss) for epoch in history]
    return {"losses": losses, "state": made.byol.state_dict()}


def torchrun(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    (folder / "program.py").write_text(PROGRAM)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone",
               "--nproc-per-node=2", str(folder / "program.py")]  # fmt: skip
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [*command, *arguments], cwd=folder, env=environment, capture_output=True,
        text=True, timeout=300,
    )  # fmt: skip


def test_two_processes_are_one(tmp_path):
    """Losses and weights after some steps equal those of one process.

    The batches hold 7 images, so that the parts are unequal.
    """
    done = torchrun(tmp_path, str(tmp_path / "out.pt"))
    assert done.returncode == 0, done.stderr
    together = torch.load(tmp_path / "out.pt", weights_only=True)
    alone = steps_of_sgd()
    assert torch.tensor(together["losses"]).shape == (2, 2)
    torch.testing.assert_close(
        torch.tensor(together["losses"]), torch.tensor(alone["losses"])
    )
    start = torch.manual_seed(0) and without_batch_norm(
        BYOL(AstroMorphologyModel(1), features=128)
    )
    moved = False
    for name, value in alone["state"].items():
        torch.testing.assert_close(together["state"][name], value, msg=name)
        moved |= not torch.equal(value, start.state_dict()[name])
    assert moved


def test_a_process_that_dies_ends_the_run(tmp_path):
    """With its error; nobody waits for it."""
    done = torchrun(tmp_path, str(tmp_path / "out.pt"), "die")
    assert done.returncode != 0
    assert "this process dies" in done.stderr


@pytest.fixture
def begin(prepared, sky, settings, tmp_path):
    """A split, and a function that begins to train on it with the command line."""
    tensors = [str(prepared / f"0000{k}.pt") for k in range(2)]
    tables = [prepared / f"0000{k}.csv" for k in range(2)]
    split(settings, sky, tables, tmp_path / "split.csv")

    def begin(folder: Path, epochs: int, **values) -> subprocess.Popen[str]:
        chosen = {
            "network_name": "amm", "epochs": epochs, "batch_size": 8,
            "training_settings": {"simulated_images": 16, **values},
        }  # fmt: skip
        command = [sys.executable, "-m", "astromorph", "train", "--threads", "2"]
        named = {"settings": json.dumps(chosen), "split": tmp_path / "split.csv",
                 "trained-network-name": "model.pt", "history": "history.csv",
                 "log-dir": "logs"}  # fmt: skip
        command += [f"--{name}={value}" for name, value in named.items()]
        with open(folder / "log", "a") as log:
            return subprocess.Popen(
                [*command, "--tensors", *tensors], cwd=folder, stderr=log, text=True
            )

    return begin


@pytest.fixture
def inputs(begin, tmp_path):
    """A function that trains to the end, and gives code and log."""

    def train(**values) -> subprocess.CompletedProcess[str]:
        process = begin(tmp_path, 2, **values)
        code = process.wait(300)
        log = (tmp_path / "log").read_text()
        return subprocess.CompletedProcess([], code, stderr=log)

    return train


def test_the_command_line_starts_the_processes(inputs, tmp_path):
    """`devices: 2` gives one model, one history and the log of one process."""
    done = inputs(devices=2)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("epoch 2 of 2") == 1
    model = load_values(tmp_path / "model.pt", MODEL_FORMAT, 1, "")
    assert all(
        v.isfinite().all() for v in model["state"].values() if v.is_floating_point()
    )
    with open(tmp_path / "history.csv", newline="") as file:
        assert len(list(csv.DictReader(file))) == 2
    assert list((tmp_path / "logs").iterdir())


def test_an_error_in_the_processes_is_the_run_s(inputs, tmp_path):
    """The message of the process that failed, then what failed; nothing is written."""
    (tmp_path / "split.csv").write_text(
        (tmp_path / "split.csv").read_text().replace(",train,", ",test,")
    )
    done = inputs(devices=2)
    assert done.returncode == 1
    assert "no image is in the training set" in done.stderr
    assert "one of 2 processes that trained together has failed" in done.stderr
    assert not (tmp_path / "model.pt").exists()


def worker(rank: int, folder: Path) -> int:
    """The process of a rank whose working folder this is."""
    for place in Path("/proc").glob("[0-9]*"):
        try:
            environment = (place / "environ").read_bytes().split(b"\0")
            here = os.readlink(place / "cwd") == str(folder)
            if here and f"RANK={rank}".encode() in environment:
                return int(place.name)
        except OSError:
            continue
    raise AssertionError(f"no process is rank {rank}")


def ended(process: subprocess.Popen[str], folder: Path) -> str:
    """The log of a training that was told to end, which it did as it should."""
    assert process.wait(60) == 1
    log = (folder / "log").read_text()
    assert "stopped by SIGTERM in epoch" in log, log
    assert "Connection closed" not in log
    path = max((folder / "checkpoints").rglob("step-*.pt"))
    assert f"{path.relative_to(folder)} holds it" in log
    return log


def test_two_processes_end_together_and_go_on(begin, tmp_path):
    """One hears of the end before the other, or only their parent does."""
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    for folder in (whole, cut):
        folder.mkdir()
    assert begin(whole, 30, devices=2).wait(300) == 0
    process = begin(cut, 30, devices=2)
    wait_for(process, cut, "epoch 2 of 30")
    first, second = worker(0, cut), worker(1, cut)
    os.kill(second, signal.SIGTERM)
    time.sleep(0.2)
    with contextlib.suppress(ProcessLookupError):
        os.kill(first, signal.SIGTERM)
    ended(process, cut)
    (cut / "log").unlink()
    process = begin(cut, 30, devices=2)
    wait_for(process, cut, "goes on from")
    process.send_signal(signal.SIGUSR1)
    ended(process, cut)
    assert begin(cut, 30, devices=2).wait(300) == 0
    texts = [(folder / "history.csv").read_text() for folder in (whole, cut)]
    assert texts[0] == texts[1]
    models = [load_values(f / "model.pt", MODEL_FORMAT, 1, "") for f in (whole, cut)]
    for name, value in models[0]["state"].items():
        assert torch.equal(models[1]["state"][name], value), name


def wait_for(process: subprocess.Popen[str], folder: Path, words: str) -> None:
    while words not in (folder / "log").read_text():
        assert process.poll() is None, (folder / "log").read_text()
        time.sleep(0.02)


def test_several_machines_need_srun(inputs):
    """One process cannot start others elsewhere."""
    done = inputs(nodes=2)
    assert done.returncode == 1
    assert "run the step with srun" in done.stderr


def test_alone_nothing_is_shared(monkeypatch):
    """One process has all images, its own loss, and joins nobody."""
    indices = torch.arange(5)
    assert torch.equal(distributed.local_part(indices), indices)
    assert distributed.loss_weight(3, 3) == 1
    assert distributed.all_reduce_sum(torch.tensor(2.0)) == 2
    network = nn.Linear(1, 1)
    assert distributed.wrap_for_training(network, torch.device("cpu")) is network
    monkeypatch.delenv("RANK", raising=False)
    assert not distributed.is_started()
    with distributed.process_group(1):
        assert (distributed.rank(), distributed.world_size()) == (0, 1)


def test_srun_s_numbers_are_understood(monkeypatch):
    """A step of four tasks, where the settings ask for three: an error."""
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "")  # so that what is set is taken back
        monkeypatch.delenv(name)
    for name, value in {"PROCID": "2", "NTASKS": "4", "STEP_NUM_TASKS": "4"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    assert distributed.is_started()
    with (
        pytest.raises(AstromorphError, match="is 3, but 4 processes were started"),
        distributed.process_group(3),
    ):
        pass
    assert os.environ["RANK"] == "2"
    assert distributed.threads_per_process(8) == 8
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert distributed.threads_per_process(8) == 2
