"""A training that is killed goes on and ends the same."""

import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest
import torch

from astromorph.cache import load_plain
from astromorph.checkpoint import MODEL_FORMAT
from astromorph.errors import AstromorphError
from astromorph.networks import AstroMorphologyModel
from astromorph.resume import Checkpoints, Interrupted
from astromorph.split import split
from astromorph.trainer import ByolTrainer

SETTINGS = {
    "network_name": "amm", "epochs": 12, "batch_size": 4,
    "training_settings": {"simulated_images": 16, "checkpoint_minutes": 1e-4},
}  # fmt: skip


def images(number: int = 20) -> torch.Tensor:
    return torch.rand(number, 1, 32, 32, generator=torch.Generator().manual_seed(1))


def trainer() -> ByolTrainer:
    torch.manual_seed(0)
    return ByolTrainer(AstroMorphologyModel(1), device="cpu", precision="float32")


def trained(checkpoints: Checkpoints, epochs: int = 3) -> ByolTrainer:
    made = trainer()
    goes_on = checkpoints.restore(made)
    with checkpoints.listening():
        made.train_model(
            images(), None, epochs, 8, resume=goes_on, after_step=checkpoints.after_step
        )
    checkpoints.finish(made)
    return made


def test_a_signal_is_heeded_after_the_step(tmp_path):
    """A checkpoint, a message that names it, and the handlers as they were."""
    before = signal.getsignal(signal.SIGTERM)
    checkpoints = Checkpoints(tmp_path, "a", 3, 0)
    made = trainer()

    def after(now: ByolTrainer) -> None:
        if now.step == 4:
            os.kill(os.getpid(), signal.SIGUSR1)
        checkpoints.after_step(now)

    with (
        pytest.raises(Interrupted, match=r"stopped by SIGUSR1 in epoch 2 of 3; .*run"),
        checkpoints.listening(),
    ):
        made.train_model(images(), None, 3, 8, after_step=after)
    assert signal.getsignal(signal.SIGTERM) is before
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["step-000000004.pt"]
    again = trained(Checkpoints(tmp_path, "a", 3, 0))
    whole = trained(Checkpoints(tmp_path, "b", 3, 0))
    for name, value in whole.byol.state_dict().items():
        assert torch.equal(again.byol.state_dict()[name], value)


def test_a_damaged_checkpoint_is_set_aside_and_the_one_before_used(tmp_path, caplog):
    """With a message; the end is the same."""
    caplog.set_level("INFO")
    checkpoints = Checkpoints(tmp_path, "a", 3, 1e-9)

    def stop(now: ByolTrainer) -> None:
        checkpoints.after_step(now)
        if now.step == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trainer().train_model(images(), None, 3, 8, after_step=stop)
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert names == ["step-000000004.pt", "step-000000005.pt"]
    last = tmp_path / "a" / names[1]
    last.write_bytes(last.read_bytes()[:5000])
    again = trained(Checkpoints(tmp_path, "a", 3, 0))
    assert "step-000000005.pt is set aside" in caplog.text
    assert "goes on from" in caplog.text
    assert (tmp_path / "a" / "step-000000005.damaged").exists()
    whole = trained(Checkpoints(tmp_path, "b", 3, 0))
    for name, value in whole.byol.state_dict().items():
        assert torch.equal(again.byol.state_dict()[name], value)


def test_a_finished_training_is_not_done_again(tmp_path):
    """Its end is there; other settings or data have another folder."""
    whole = trained(Checkpoints(tmp_path, "a", 3, 0))
    steps = whole.step
    again = trained(Checkpoints(tmp_path, "a", 3, 0))
    assert again.step == steps
    assert again.history == whole.history
    assert not Checkpoints(tmp_path, "b", 3, 0).restore(trainer())


def test_more_epochs_go_on_where_the_pace_allows_it(tmp_path, caplog):
    """Else training starts afresh, and says why."""
    trained(Checkpoints(tmp_path, "a", 3, 0))
    assert not Checkpoints(tmp_path, "a", 5, 0).restore(trainer())
    assert "is of a training of 3 epochs; with 5, learning rate" in caplog.text
    made = trainer()
    assert Checkpoints(tmp_path, "a", 5, 0, fixed_pace=True).restore(made)
    assert made.epoch == 3
    assert not Checkpoints(tmp_path, "a", 2, 0, fixed_pace=True).restore(trainer())


@pytest.fixture
def run(prepared, sky, settings, tmp_path):
    """What starts a training of the command line in a folder of its own."""
    tensors = [str(prepared / f"0000{k}.pt") for k in range(2)]
    tables = [prepared / f"0000{k}.csv" for k in range(2)]
    split(settings, sky, tables, tmp_path / "split.csv")

    def start(folder: str, **changes) -> subprocess.Popen[str]:
        place = tmp_path / folder
        place.mkdir(exist_ok=True)
        command = [sys.executable, "-m", "astromorph", "train", "--threads", "1"]
        named = {"settings": json.dumps(SETTINGS | changes), "split": "../split.csv",
                 "trained-network-name": "model.pt", "history": "history.csv",
                 "log-dir": "logs"}  # fmt: skip
        command += [f"--{name}={value}" for name, value in named.items()]
        return subprocess.Popen(
            [*command, "--tensors", *tensors], cwd=place, stderr=subprocess.PIPE,
            text=True,
        )  # fmt: skip

    return start


def test_killed_five_times_it_ends_with_the_same_model(run, tmp_path):
    """SIGKILL at random moments; bit for bit the same weights and history."""
    whole = run("whole")
    _, log = whole.communicate()
    assert whole.returncode == 0, log
    rng, kills = random.Random(4), 0
    while kills < 5:
        process = run("killed")
        found = set((tmp_path / "killed").rglob("step-*.pt"))
        # From its first new checkpoint on, at some moment.
        while process.poll() is None:
            if set((tmp_path / "killed").rglob("step-*.pt")) - found:
                time.sleep(rng.uniform(0, 0.05))
                process.kill()
            time.sleep(0.002)
        process.communicate()
        if process.returncode == 0:
            break
        kills += 1
    assert kills >= 2
    last = run("killed")
    _, log = last.communicate()
    assert last.returncode == 0, log
    models = [
        load_plain(tmp_path / name / "model.pt", MODEL_FORMAT, 1, "")
        for name in ("whole", "killed")
    ]
    for name, value in models[0]["state"].items():
        assert torch.equal(models[1]["state"][name], value), name
    texts = [(tmp_path / n / "history.csv").read_text() for n in ("whole", "killed")]
    assert texts[0] == texts[1]


def test_told_to_end_it_says_how_to_go_on(run, tmp_path):
    """SIGTERM: a checkpoint, exit code 1, no model."""
    process = run("told", epochs=2000)
    while not list((tmp_path / "told").rglob("step-*.pt")):
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.05)
    process.terminate()
    _, log = process.communicate()
    assert process.returncode == 1
    assert "stopped by SIGTERM" in log
    assert "run the same again to go on" in log
    assert not (tmp_path / "told" / "model.pt").exists()


def test_checkpoints_that_are_pickles_are_not_read(tmp_path, caplog):
    """They are set aside like damaged ones."""
    folder = tmp_path / "a"
    folder.mkdir()
    torch.save({"trainer": AstroMorphologyModel(1)}, folder / "step-000000001.pt")
    assert not Checkpoints(tmp_path, "a", 3, 0).restore(trainer())
    assert "could run any program" in caplog.text
    with pytest.raises(AstromorphError):
        raise Interrupted("so that it ends the command line with a message")
