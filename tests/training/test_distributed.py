"""Several processes that train one network together, on CPUs with gloo."""

import contextlib
import csv
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from command_line import Command
from torch import nn

from astromorph import distributed
from astromorph.artefacts.model_file import MODEL_FORMAT
from astromorph.artefacts.run_files import RunFiles
from astromorph.artefacts.tensor_shard import load_values
from astromorph.byol.byol import BYOL
from astromorph.errors import AstromorphError
from astromorph.models.encoders import AstroMorphologyModel
from astromorph.processes import is_running
from astromorph.sky.training_set import DrawingRules, draw_labelled_images
from astromorph.training.auxiliary_task import AuxiliaryTask
from astromorph.training.trainer import ByolTrainer

pytestmark = pytest.mark.slow

# The program of each process that torchrun starts.
PROGRAM = """
import sys
from training.test_distributed import train_some_steps
import torch
from astromorph import distributed
torch.set_num_threads(1)
with distributed.process_group(2):
    result = train_some_steps()
    if distributed.rank() == 0:
        torch.save(result, sys.argv[1])
    distributed.all_reduce_sum(torch.ones(1))  # the file has been written
    if len(sys.argv) > 2 and distributed.rank() == 1:
        raise SystemExit("this process dies")
    distributed.all_reduce_sum(torch.ones(1))
"""
ROOT = Path(__file__).parents[2]
EPOCHS = 20


def without_batch_norm(network: nn.Module) -> nn.Module:
    """Replace batch norm, whose statistics are computed separately in each process."""
    for name, child in network.named_children():
        if isinstance(child, (nn.BatchNorm1d, nn.BatchNorm2d)):
            setattr(network, name, nn.Identity())
        else:
            without_batch_norm(child)
    return network


def train_some_steps() -> dict[str, object]:
    """Losses and weights after a few steps, with deterministic views."""
    torch.manual_seed(0)
    byol = without_batch_norm(BYOL(AstroMorphologyModel(1), features=128))
    task = AuxiliaryTask(draw_labelled_images(DrawingRules(seed=0, size=24), 21), 128)
    trainer = ByolTrainer(
        byol,
        augmentation_function=lambda images: images * 0.9,
        optimizer=torch.optim.SGD,
        learning_rate=0.05,
        device="cpu",
        precision="float32",
        auxiliary_task=task,
    )
    images = torch.rand(21, 1, 24, 24, generator=torch.Generator().manual_seed(1))
    history = trainer.train_model(images, None, epochs=2, batch_size=8)
    losses = [(epoch.train_loss, epoch.auxiliary_loss) for epoch in history]
    return {"losses": losses, "state": trainer.byol.state_dict()}


def torchrun(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    (folder / "program.py").write_text(PROGRAM)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone",
               "--nproc-per-node=2", str(folder / "program.py")]  # fmt: skip
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]),
        "OMP_NUM_THREADS": "1",
    }
    return subprocess.run(
        [*command, *arguments], cwd=folder, env=environment, capture_output=True,
        text=True, timeout=300,
    )  # fmt: skip


@pytest.fixture(scope="module")
def dying(tmp_path_factory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """Two processes that trained together; then one of them raised an error."""
    path = tmp_path_factory.mktemp("dying") / "out.pt"
    return path, torchrun(path.parent, str(path), "die")


def test_two_processes_train_like_one(dying):
    """Losses and weights are the same within rounding.

    The batches have 7 images, so that the parts of the processes differ in size.
    """
    path, done = dying
    assert path.exists(), done.stderr
    together = torch.load(path, weights_only=True)
    alone = train_some_steps()
    assert torch.tensor(together["losses"]).shape == (2, 2)
    torch.testing.assert_close(
        torch.tensor(together["losses"]), torch.tensor(alone["losses"])
    )
    start = torch.manual_seed(0) and without_batch_norm(
        BYOL(AstroMorphologyModel(1), features=128)
    )
    has_changed = False
    for name, value in alone["state"].items():
        torch.testing.assert_close(together["state"][name], value, msg=name)
        has_changed |= not torch.equal(value, start.state_dict()[name])
    assert has_changed


def test_a_process_that_dies_ends_the_run(dying):
    """The error is shown; the other process does not wait."""
    assert dying[1].returncode != 0
    assert "this process dies" in dying[1].stderr


@pytest.fixture(scope="module")
def start(start_training):
    """A function that starts to train with some `training_settings`."""

    def start(folder: Path, epochs: int, **values) -> Command:
        rules = {"simulated_images": 16, **values}
        folder.mkdir(exist_ok=True)
        return start_training(
            folder, epochs=epochs, batch_size=8, training_settings=rules
        )

    return start


@pytest.fixture(scope="module")
def together(start, tmp_path_factory) -> Path:
    """The folder of a training of two processes that the command line started."""
    folder = tmp_path_factory.mktemp("together")
    assert start(folder, EPOCHS, devices=2).wait(300) == 0, read_log(folder)
    return folder


def test_the_command_line_starts_the_processes(together):
    """`devices: 2` gives one model, one history and the log of one process."""
    assert read_log(together).count(f"epoch {EPOCHS} of {EPOCHS}") == 1
    files = RunFiles(together / "results")
    model = load_values(files.model, MODEL_FORMAT, 1, "")
    assert all(
        v.isfinite().all() for v in model["state"].values() if v.is_floating_point()
    )
    with open(files.history, newline="") as file:
        assert len(list(csv.DictReader(file))) == EPOCHS
    assert list(files.scalars.iterdir())


def test_an_error_in_a_process_ends_the_step(start, split_run, tmp_path):
    """Its message and the failed processes are logged; nothing is written."""
    files = RunFiles(tmp_path / "results")
    shutil.copytree(split_run.results, files.results, symlinks=True)
    files.split.write_text(files.split.read_text().replace(",train,", ",test,"))
    assert start(tmp_path, 2, devices=2).wait(300) == 1
    log = read_log(tmp_path)
    assert "no image is in the training set" in log
    assert "one of 2 processes that train together has failed" in log
    assert not files.model.exists()


def find_process(rank: int, folder: Path) -> int:
    """Id of the process with a rank that runs in a folder."""
    for place in Path("/proc").glob("[0-9]*"):
        try:
            environment = (place / "environ").read_bytes().split(b"\0")
            works_here = os.readlink(place / "cwd") == str(folder)
            if works_here and f"RANK={rank}".encode() in environment:
                return int(place.name)
        except OSError:
            continue
    raise AssertionError(f"no process has the rank {rank}")


def check_interrupted(
    process: Command, folder: Path, signal_name: str, code: int = 1
) -> None:
    """The training was stopped by a signal after it wrote a checkpoint.

    There are two errors in the log: of the process of rank 0, and of the step.
    """
    assert process.wait(60) == code
    log = read_log(folder)
    assert f"training stopped by {signal_name} in epoch" in log, log
    path = max((folder / "results/model/checkpoints").rglob("step-*.pt"))
    assert f"continue from {path.relative_to(folder)}" in log
    last = log.splitlines()[-2:]
    assert all(" ERROR " in line for line in last), log
    assert log.count(" ERROR ") == len(last), log
    assert "Traceback" not in log


def test_two_processes_are_interrupted_together_and_resume(together, start, tmp_path):
    """One receives the signal before the other, or only their parent does."""
    folder = tmp_path / "interrupted"
    process = start(folder, EPOCHS, devices=2)
    wait_for(process, folder, f"epoch 2 of {EPOCHS}")
    first, second = find_process(0, folder), find_process(1, folder)
    os.kill(second, signal.SIGUSR1)
    time.sleep(0.2)
    with contextlib.suppress(ProcessLookupError):
        os.kill(first, signal.SIGUSR1)
    check_interrupted(process, folder, "SIGUSR1")
    for number, name, code in (
        (signal.SIGTERM, "SIGTERM", 1), (signal.SIGINT, "Ctrl-C", 130)
    ):  # fmt: skip
        process = start(folder, EPOCHS, devices=2)
        wait_for(process, folder, "resumes from")
        process.send_signal(number)
        check_interrupted(process, folder, name, code)
    assert start(folder, EPOCHS, devices=2).wait(300) == 0
    runs = [RunFiles(path / "results") for path in (together, folder)]
    assert runs[0].history.read_text() == runs[1].history.read_text()
    models = [load_values(files.model, MODEL_FORMAT, 1, "") for files in runs]
    for name, value in models[0]["state"].items():
        assert torch.equal(models[1]["state"][name], value), name


def test_all_processes_end_if_the_first_one_is_killed(start, tmp_path):
    """They write a checkpoint, and do not train beside the next run."""
    process = start(tmp_path, 2000, devices=2)
    wait_for(process, tmp_path, "epoch 1 of 2000")
    ranks = find_process(0, tmp_path), find_process(1, tmp_path)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    deadline = time.monotonic() + 30
    while any(map(is_running, ranks)):
        assert time.monotonic() < deadline, read_log(tmp_path)
        time.sleep(0.1)
    log = read_log(tmp_path)
    assert "training stopped by SIGTERM in epoch" in log
    assert list((tmp_path / "results/model/checkpoints").rglob("step-*.pt"))


def read_log(folder: Path) -> str:
    return (folder / "log").read_text()


def wait_for(process: Command, folder: Path, words: str) -> None:
    while words not in read_log(folder):
        assert process.poll() is None, read_log(folder)
        time.sleep(0.02)


def test_several_machines_need_srun(start, tmp_path):
    """A process cannot start processes on other machines."""
    assert start(tmp_path, 2, nodes=2).wait(300) == 1
    assert "run the step with srun" in read_log(tmp_path)


def test_a_single_process_needs_no_communication(monkeypatch):
    """It uses all images and its own loss, and communicates with no others."""
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


def test_the_environment_of_srun_is_used(monkeypatch):
    """It is an error if it has four tasks, but the settings ask for three."""
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "")  # so that the value is restored
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
