"""A training that is killed goes on and ends the same."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from astromorph.artefacts.model_file import MODEL_FORMAT
from astromorph.artefacts.tensor_shard import load_values
from astromorph.byol.byol import BYOL
from astromorph.catalogue.split import split
from astromorph.datasets.tensor_datasets import CachedDataset, read_subset
from astromorph.errors import AstromorphError
from astromorph.models.encoders import AstroMorphologyModel
from astromorph.settings.loading import parse
from astromorph.training.checkpoints import Checkpoints, Interrupted, make_checkpoints
from astromorph.training.trainer import ByolTrainer

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
    assert [path.name for path in (tmp_path / "a-3").iterdir()] == ["step-000000004.pt"]
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
    names = sorted(path.name for path in (tmp_path / "a-3").iterdir())
    assert names == ["step-000000004.pt", "step-000000005.pt"]
    last = tmp_path / "a-3" / names[1]
    last.write_bytes(last.read_bytes()[:5000])
    again = trained(Checkpoints(tmp_path, "a", 3, 0))
    assert "step-000000005.pt is set aside" in caplog.text
    assert "goes on from" in caplog.text
    assert (tmp_path / "a-3" / "step-000000005.damaged").exists()
    whole = trained(Checkpoints(tmp_path, "b", 3, 0))
    for name, value in whole.byol.state_dict().items():
        assert torch.equal(again.byol.state_dict()[name], value)


def test_a_finished_training_is_not_done_again(tmp_path):
    """Its end is there; other settings or data have another folder."""
    whole = trained(Checkpoints(tmp_path, "a", 3, 0))
    again, steps = trainer(), []
    assert Checkpoints(tmp_path, "a", 3, 0).restore(again)
    again.train_model(images(), None, 3, 8, resume=True, after_step=steps.append)
    assert steps == []
    assert again.step == whole.step
    assert again.history == whole.history
    assert not Checkpoints(tmp_path, "b", 3, 0).restore(trainer())


def test_changed_bytes_of_a_checkpoint_are_noticed(tmp_path, caplog):
    """Not only a file that is cut short, which torch notices by itself."""
    trained(Checkpoints(tmp_path, "a", 3, 0))
    (path,) = (tmp_path / "a-3").iterdir()
    with open(path, "r+b") as file:
        file.seek(path.stat().st_size // 2)
        file.write(bytes(64))
    assert not Checkpoints(tmp_path, "a", 3, 0).restore(trainer())
    assert "is set aside, it cannot be used" in caplog.text
    assert "damaged" in caplog.text


def test_a_loss_that_is_none_is_not_kept(tmp_path, caplog):
    """After a fault of the machine the checkpoint before it is used, or none."""
    checkpoints = Checkpoints(tmp_path, "a", 3, 1e-9)

    def spoil(now: ByolTrainer) -> None:
        if now.step == 2:
            now.totals[0] = float("nan")
        checkpoints.after_step(now)

    with pytest.raises(AstromorphError, match="the loss is nan"):
        trainer().train_model(images(), None, 3, 8, after_step=spoil)
    assert [p.name for p in (tmp_path / "a-3").iterdir()] == ["step-000000001.pt"]
    assert "no checkpoint: the loss is not finite" in caplog.text
    again = trained(Checkpoints(tmp_path, "a", 3, 0))
    whole = trained(Checkpoints(tmp_path, "b", 3, 0))
    assert again.history == whole.history


def stopped(checkpoints: Checkpoints, epochs: int, step: int) -> None:
    """A training that is told to end after a step."""

    def after(now: ByolTrainer) -> None:
        if now.step == step:
            os.kill(os.getpid(), signal.SIGTERM)
        checkpoints.after_step(now)

    made = trainer()
    goes_on = checkpoints.restore(made)
    with pytest.raises(Interrupted), checkpoints.listening():
        made.train_model(images(), None, epochs, 8, resume=goes_on, after_step=after)


def test_more_epochs_go_on_where_the_pace_allows_it(tmp_path, caplog):
    """Else training starts afresh, and says why; and then resumes as any other."""
    trained(Checkpoints(tmp_path, "a", 3, 0))
    assert not Checkpoints(tmp_path, "a", 5, 0).restore(trainer())
    assert "has a training of 3 epochs; with 5, learning rate" in caplog.text
    stopped(Checkpoints(tmp_path, "a", 5, 0), 5, 7)
    made = trainer()
    assert Checkpoints(tmp_path, "a", 5, 0).restore(made)
    assert made.step == 7


def test_with_a_constant_pace_more_or_fewer_epochs_share_checkpoints(tmp_path):
    """Fewer leave those of the longer training where they are, and resume too."""
    trained(Checkpoints(tmp_path, "a", 3, 0, fixed_pace=True))
    made = trainer()
    assert Checkpoints(tmp_path, "a", 5, 0, fixed_pace=True).restore(made)
    assert made.epoch == 3
    stopped(Checkpoints(tmp_path, "a", 2, 0, fixed_pace=True), 2, 4)
    made = trainer()
    assert Checkpoints(tmp_path, "a", 2, 0, fixed_pace=True).restore(made)
    assert made.step == 4
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert names == ["step-000000004.pt", "step-000000009.pt"]


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


@pytest.mark.slow
def test_killed_five_times_it_ends_with_the_same_model(run, tmp_path):
    """SIGKILL at random moments; bit for bit the same weights and history."""
    finished(run("whole", epochs=24))
    rng = random.Random(4)
    for _ in range(5):
        process = run("killed", epochs=24)
        checkpoints = tmp_path / "killed" / "checkpoints"
        found = set(checkpoints.rglob("step-*.pt"))
        # From its first new checkpoint on, at some moment.
        while process.poll() is None:
            if set(checkpoints.rglob("step-*.pt")) - found:
                time.sleep(rng.uniform(0, 0.05))
                process.kill()
            time.sleep(0.002)
        process.communicate()
        assert process.returncode == -signal.SIGKILL
    assert "goes on from" in finished(run("killed", epochs=24))
    left = {path.name for path in (tmp_path / "killed").iterdir()}
    assert left == {"model.pt", ".last", "history.csv", "logs", "checkpoints"}
    assert_same_model(tmp_path / "whole", tmp_path / "killed")
    texts = [(tmp_path / n / "history.csv").read_text() for n in ("whole", "killed")]
    assert texts[0] == texts[1]


def assert_same_model(one: Path, other: Path, without: str = "none") -> None:
    """Bit for bit, but for the part of the model that is named."""
    models = [load_values(f / "model.pt", MODEL_FORMAT, 1, "") for f in (one, other)]
    for name, value in models[0]["state"].items():
        if not name.startswith(without):
            assert torch.equal(models[1]["state"][name], value), name


def finished(process: subprocess.Popen[str]) -> str:
    """The log of a training that came to its end."""
    _, log = process.communicate()
    assert process.returncode == 0, log
    return log


@pytest.mark.slow
def test_more_epochs_of_the_settings_go_on_where_the_pace_is_constant(run, tmp_path):
    """`epochs: 3` to 6: the first three stay, and the end is that of six at once."""
    pace = {"exponential_lr": True, "byol_settings": {"use_momentum": False}}
    finished(run("more", epochs=3, **pace))
    first = (tmp_path / "more" / "history.csv").read_text()
    assert "goes on from" in finished(run("more", epochs=6, **pace))
    finished(run("at once", epochs=6, **pace))
    assert (tmp_path / "more" / "history.csv").read_text().startswith(first)
    # Without momentum nothing learns from the target, whose pace is that of all epochs.
    assert_same_model(tmp_path / "more", tmp_path / "at once", without="target.")
    finished(run("cosine", epochs=2))
    log = finished(run("cosine", epochs=3))
    assert "has a training of 2 epochs; with 3" in log
    assert "goes on from" not in log


@pytest.mark.slow
def test_checkpoints_belong_to_settings_and_data(run, prepared, tmp_path):
    """Others are never used; how often they are written, and how long, is no matter."""
    tensors = [prepared / f"0000{k}.pt" for k in range(2)]
    data = [
        read_subset(tmp_path / "split.csv", tensors, subset, 1)
        for subset in ("train", "test")
    ]

    torch.manual_seed(0)
    starts = [BYOL(AstroMorphologyModel(1), representation_size=16) for _ in range(2)]

    def named(changes: dict, data=data, made_with="{}", byol=starts[0]) -> str:
        rules = parse(SETTINGS | changes, "test")
        model = tmp_path / "m.pt"
        return make_checkpoints(rules, byol, data, made_with, model, 3).folder.name

    (train, test), turned = data, CachedDataset(data[0].images.images.flip(2))

    same = named({})
    assert named({"training_settings": {"simulated_images": 16}}) == same
    assert named({"epochs": 99}) == same
    others = [
        named({"learning_rate": 0.1}), named({"seed": 1}), named({"batch_size": 5}),
        named({}, data=data[::-1]), named({}, data=data[:1]), named({}, made_with="x"),
        named({}, byol=starts[1]),
        named({}, data=[replace(train, images=turned), test]),
    ]  # fmt: skip
    assert len({same, *others}) == 9


@pytest.mark.slow
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
    folder = tmp_path / "a-3"
    folder.mkdir()
    torch.save({"trainer": AstroMorphologyModel(1)}, folder / "step-000000001.pt")
    assert not Checkpoints(tmp_path, "a", 3, 0).restore(trainer())
    assert "could run any program" in caplog.text


def test_an_interruption_ends_the_command_line_with_a_message():
    """It is an error of the package, which has no traceback there."""
    assert issubclass(Interrupted, AstromorphError)
