"""Interrupted training resumes and ends with the same model."""

import os
import random
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from astromorph.artefacts.model_file import MODEL_FORMAT
from astromorph.artefacts.run_files import RunFiles
from astromorph.artefacts.tensor_shard import load_values
from astromorph.byol.byol import BYOL
from astromorph.datasets.tensor_datasets import CachedDataset, read_subset
from astromorph.errors import AstromorphError, WriteError
from astromorph.models.encoders import AstroMorphologyModel
from astromorph.settings.loading import parse
from astromorph.settings.steps import train_step_settings
from astromorph.training import checkpoints as checkpoints_module
from astromorph.training.checkpoints import Checkpoints, Interrupted, make_checkpoints
from astromorph.training.trainer import ByolTrainer

SETTINGS = {
    "network_name": "amm",
    "epochs": 12,
    "batch_size": 4,
    "training_settings": {"simulated_images": 16, "checkpoint_minutes": 1e-4},
}


def images(number: int = 20) -> torch.Tensor:
    return torch.rand(number, 1, 32, 32, generator=torch.Generator().manual_seed(1))


def make_trainer() -> ByolTrainer:
    torch.manual_seed(0)
    return ByolTrainer(AstroMorphologyModel(1), device="cpu", precision="float32")


def train_to_end(checkpoints: Checkpoints, epochs: int = 3) -> ByolTrainer:
    trainer = make_trainer()
    resume = checkpoints.restore(trainer)
    with checkpoints.listening():
        trainer.train_model(
            images(), None, epochs, 8, resume=resume, after_step=checkpoints.after_step
        )
    checkpoints.finish(trainer)
    return trainer


def test_a_signal_interrupts_after_the_step(tmp_path):
    """The message names a checkpoint; the signal handlers are restored."""
    before = signal.getsignal(signal.SIGTERM)
    checkpoints = Checkpoints(tmp_path, "a", 3, 0)
    trainer = make_trainer()

    def after(now: ByolTrainer) -> None:
        if now.step == 4:
            os.kill(os.getpid(), signal.SIGUSR1)
        checkpoints.after_step(now)

    with (
        pytest.raises(
            Interrupted, match=r"stopped by SIGUSR1 in epoch 2 of 3; run .*4\.pt"
        ),
        checkpoints.listening(),
    ):
        trainer.train_model(images(), None, 3, 8, after_step=after)
    assert signal.getsignal(signal.SIGTERM) is before
    assert [path.name for path in (tmp_path / "a-3").iterdir()] == ["step-000000004.pt"]
    resumed = train_to_end(Checkpoints(tmp_path, "a", 3, 0))
    uninterrupted = train_to_end(Checkpoints(tmp_path, "b", 3, 0))
    for name, value in uninterrupted.byol.state_dict().items():
        assert torch.equal(resumed.byol.state_dict()[name], value)


def test_the_checkpoint_before_a_damaged_one_is_used(tmp_path, caplog):
    """A warning is logged; the model at the end is the same."""
    caplog.set_level("INFO")
    checkpoints = Checkpoints(tmp_path, "a", 3, 1e-9)

    def stop(now: ByolTrainer) -> None:
        checkpoints.after_step(now)
        if now.step == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_trainer().train_model(images(), None, 3, 8, after_step=stop)
    names = sorted(path.name for path in (tmp_path / "a-3").iterdir())
    assert names == ["step-000000004.pt", "step-000000005.pt"]
    last = tmp_path / "a-3" / names[1]
    last.write_bytes(last.read_bytes()[:5000])
    resumed = train_to_end(Checkpoints(tmp_path, "a", 3, 0))
    assert "step-000000005.pt cannot be used and is renamed to" in caplog.text
    assert "resumes from" in caplog.text
    assert (tmp_path / "a-3" / "step-000000005.damaged").exists()
    uninterrupted = train_to_end(Checkpoints(tmp_path, "b", 3, 0))
    for name, value in uninterrupted.byol.state_dict().items():
        assert torch.equal(resumed.byol.state_dict()[name], value)


def test_finished_training_is_not_repeated(tmp_path):
    """No steps remain; other settings or data have another folder."""
    uninterrupted = train_to_end(Checkpoints(tmp_path, "a", 3, 0))
    again, steps = make_trainer(), []
    assert Checkpoints(tmp_path, "a", 3, 0).restore(again)
    again.train_model(images(), None, 3, 8, resume=True, after_step=steps.append)
    assert steps == []
    assert again.step == uninterrupted.step
    assert again.history == uninterrupted.history
    assert not Checkpoints(tmp_path, "b", 3, 0).restore(make_trainer())


def test_changed_bytes_of_a_checkpoint_are_detected(tmp_path, caplog):
    """Not only a truncated file, which torch itself detects."""
    train_to_end(Checkpoints(tmp_path, "a", 3, 0))
    (path,) = (tmp_path / "a-3").iterdir()
    with open(path, "r+b") as file:
        file.seek(path.stat().st_size // 2)
        file.write(bytes(64))
    assert not Checkpoints(tmp_path, "a", 3, 0).restore(make_trainer())
    assert "cannot be used and is renamed to" in caplog.text
    assert "damaged" in caplog.text


def test_no_checkpoint_is_written_if_the_loss_is_not_finite(tmp_path, caplog):
    """Training resumes from the previous checkpoint."""
    checkpoints = Checkpoints(tmp_path, "a", 3, 1e-9)

    def make_loss_infinite(now: ByolTrainer) -> None:
        if now.step == 2:
            now.progress.loss_sums[0] = float("nan")
        checkpoints.after_step(now)

    with pytest.raises(AstromorphError, match="the loss is nan"):
        make_trainer().train_model(images(), None, 3, 8, after_step=make_loss_infinite)
    assert [p.name for p in (tmp_path / "a-3").iterdir()] == ["step-000000001.pt"]
    assert "no checkpoint was written: the loss is not finite" in caplog.text
    resumed = train_to_end(Checkpoints(tmp_path, "a", 3, 0))
    uninterrupted = train_to_end(Checkpoints(tmp_path, "b", 3, 0))
    assert resumed.history == uninterrupted.history


def train_and_interrupt(
    checkpoints: Checkpoints, epochs: int, step: int, match: str = "SIGTERM"
) -> None:
    """Train until a signal is received in a step."""

    def after(now: ByolTrainer) -> None:
        if now.step == step:
            os.kill(os.getpid(), signal.SIGTERM)
        checkpoints.after_step(now)

    trainer = make_trainer()
    resume = checkpoints.restore(trainer)
    with pytest.raises(Interrupted, match=match), checkpoints.listening():
        trainer.train_model(images(), None, epochs, 8, resume=resume, after_step=after)


def test_training_starts_again_with_another_number_of_epochs(tmp_path, caplog):
    """A warning explains this; the new training can be resumed as well."""
    train_to_end(Checkpoints(tmp_path, "a", 3, 0))
    assert not Checkpoints(tmp_path, "a", 5, 0).restore(make_trainer())
    assert (
        "has checkpoints of training for 3 epochs; for 5 epochs, learning"
        in caplog.text
    )
    train_and_interrupt(Checkpoints(tmp_path, "a", 5, 0), 5, 7)
    trainer = make_trainer()
    assert Checkpoints(tmp_path, "a", 5, 0).restore(trainer)
    assert trainer.step == 7


def test_with_a_fixed_pace_all_numbers_of_epochs_share_checkpoints(tmp_path):
    """Shorter training does not remove the checkpoints of longer training."""
    train_to_end(Checkpoints(tmp_path, "a", 3, 0, fixed_pace=True))
    trainer = make_trainer()
    assert Checkpoints(tmp_path, "a", 5, 0, fixed_pace=True).restore(trainer)
    assert trainer.epoch == 3
    train_and_interrupt(Checkpoints(tmp_path, "a", 2, 0, fixed_pace=True), 2, 4)
    trainer = make_trainer()
    assert Checkpoints(tmp_path, "a", 2, 0, fixed_pace=True).restore(trainer)
    assert trainer.step == 4
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert names == ["step-000000004.pt", "step-000000009.pt"]


@pytest.fixture
def start(start_training, tmp_path):
    """A function that starts training by the command line in a separate folder."""

    def start(folder: str, **changes) -> subprocess.Popen[str]:
        (tmp_path / folder).mkdir(exist_ok=True)
        return start_training(tmp_path / folder, **SETTINGS | changes)

    return start


def finish(process: subprocess.Popen[str], folder: Path) -> str:
    """Wait until training succeeds; return its log."""
    code, log = process.wait(300), (folder / "log").read_text()
    assert code == 0, log
    return log


@pytest.mark.slow
def test_training_killed_five_times_ends_with_the_same_model(start, tmp_path):
    """By SIGKILL at random times; weights and history are the same bit for bit."""
    runs = [RunFiles(tmp_path / name / "results") for name in ("whole", "killed")]
    finish(start("whole", epochs=24), tmp_path / "whole")
    files = runs[1]
    rng = random.Random(4)
    for _ in range(5):
        process = start("killed", epochs=24)
        earlier = set(files.checkpoints.rglob("step-*.pt"))
        # At a random time after its first new checkpoint.
        while process.poll() is None:
            if set(files.checkpoints.rglob("step-*.pt")) - earlier:
                time.sleep(rng.uniform(0, 0.05))
                process.kill()
            time.sleep(0.002)
        assert process.wait() == -signal.SIGKILL
    log = finish(start("killed", epochs=24), tmp_path / "killed")
    assert "resumes from" in log
    left = {path.name for path in files.model.parent.iterdir()}
    assert left == {"model.pt", ".last", "history.csv", "checkpoints"}
    assert [path.name for path in files.scalars.parent.iterdir()] == ["train"]
    assert_same_model(*runs)
    assert runs[0].history.read_text() == runs[1].history.read_text()


def assert_same_model(one: RunFiles, other: RunFiles, without: str = "none") -> None:
    """Compare models bit for bit, except the named part."""
    models = [load_values(run.model, MODEL_FORMAT, 1, "") for run in (one, other)]
    for name, value in models[0]["state"].items():
        if not name.startswith(without):
            assert torch.equal(models[1]["state"][name], value), name


@pytest.mark.slow
def test_training_with_a_fixed_pace_is_continued_with_more_epochs(start, tmp_path):
    """`epochs: 3`, then 6, has the same result as six epochs at once."""
    pace = {"exponential_lr": True, "byol_settings": {"use_momentum": False}}
    more, at_once = (RunFiles(tmp_path / n / "results") for n in ("more", "at once"))
    finish(start("more", epochs=3, **pace), tmp_path / "more")
    first = more.history.read_text()
    log = finish(start("more", epochs=6, **pace), tmp_path / "more")
    assert "resumes from" in log
    finish(start("at once", epochs=6, **pace), tmp_path / "at once")
    assert more.history.read_text().startswith(first)
    # Without momentum nothing learns from the target, whose pace follows from the
    # number of epochs.
    assert_same_model(more, at_once, without="target.")
    finish(start("cosine", epochs=2), tmp_path / "cosine")
    log = finish(start("cosine", epochs=3), tmp_path / "cosine")
    assert "has checkpoints of training for 2 epochs; for 3" in log
    assert "resumes from" not in log


@pytest.mark.slow
def test_checkpoints_belong_to_settings_and_data(split_run, tmp_path):
    """They do not depend on how often they are written or the number of epochs."""
    data = [
        read_subset(split_run.split, split_run.all_tensors, subset, 1)
        for subset in ("train", "test")
    ]
    torch.manual_seed(0)
    starts = [BYOL(AstroMorphologyModel(1), representation_size=16) for _ in range(2)]

    def name(changes: dict, data=data, tensor_settings="{}", byol=starts[0]) -> str:
        settings = train_step_settings(parse(SETTINGS | changes, "test"))
        checkpoints = make_checkpoints(
            settings, byol, data, tensor_settings, split_run, 3
        )
        return checkpoints.folder.name

    (train, test), flipped = data, CachedDataset(data[0].images.images.flip(2))

    same = name({})
    assert name({"training_settings": {"simulated_images": 16}}) == same
    assert name({"epochs": 99}) == same
    others = [
        name({"learning_rate": 0.1}),
        name({"seed": 1}),
        name({"batch_size": 5}),
        name({}, data=data[::-1]),
        name({}, data=data[:1]),
        name({}, tensor_settings="x"),
        name({}, byol=starts[1]),
        name({}, data=[replace(train, images=flipped), test]),
    ]
    assert len({same, *others}) == 9


@pytest.mark.slow
def test_an_interrupted_step_logs_how_to_resume(start, tmp_path):
    """After SIGTERM, there is a checkpoint, exit code 1 and no model."""
    process = start("run", epochs=2000)
    files = RunFiles(tmp_path / "run" / "results")
    while not list(files.checkpoints.rglob("step-*.pt")):
        assert process.poll() is None, (tmp_path / "run" / "log").read_text()
        time.sleep(0.05)
    process.terminate()
    assert process.wait() == 1
    log = (tmp_path / "run" / "log").read_text()
    assert "stopped by SIGTERM" in log
    assert "run the same command to resume from" in log
    assert not files.model.exists()


def test_an_interruption_without_a_checkpoint_is_reported(tmp_path, monkeypatch):
    """If the disk is full, training can only start again."""

    def fail(path: Path, values: dict) -> None:
        raise WriteError(f"{path}: the disk is full")

    monkeypatch.setattr(checkpoints_module, "save_values", fail)
    message = "there is no checkpoint: run the same command to start again"
    train_and_interrupt(Checkpoints(tmp_path, "a", 3, 0), 3, 2, match=message)


def test_checkpoints_that_are_pickles_are_not_read(tmp_path, caplog):
    """They are renamed, as damaged ones are."""
    folder = tmp_path / "a-3"
    folder.mkdir()
    torch.save({"trainer": AstroMorphologyModel(1)}, folder / "step-000000001.pt")
    assert not Checkpoints(tmp_path, "a", 3, 0).restore(make_trainer())
    assert "could run any program" in caplog.text


def test_an_interruption_ends_the_command_line_with_a_message():
    """It is an error of the package, for which no traceback is shown."""
    assert issubclass(Interrupted, AstromorphError)
