"""Interrupted training resumes and ends with the same model."""

import os
import random
import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from command_line import Command

from astromorph import distributed
from astromorph.artefacts.model_file import MODEL_FORMAT
from astromorph.artefacts.run_files import RunFiles
from astromorph.artefacts.tensor_shard import load_values
from astromorph.byol.byol import BYOL
from astromorph.datasets.tensor_datasets import CachedDataset, read_subset
from astromorph.distributed import Interrupted
from astromorph.errors import AstromorphError, WriteError
from astromorph.models.encoders import AstroMorphologyModel
from astromorph.settings.loading import parse
from astromorph.settings.steps import train_step_settings
from astromorph.training import checkpoints as checkpoints_module
from astromorph.training.checkpoints import Checkpoints, make_checkpoints
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


def test_training_goes_on_without_a_terminal_under_nohup():
    """A signal that the user chose to ignore remains ignored."""
    received = list[int]()
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with distributed.handling_signals(received.append):
            os.kill(os.getpid(), signal.SIGHUP)
            os.kill(os.getpid(), signal.SIGUSR1)
        assert received == [signal.SIGUSR1]
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGHUP])
def test_a_signal_interrupts_after_the_step(tmp_path, number):
    """The message names a checkpoint; the signal handlers are restored."""
    before = signal.getsignal(signal.SIGTERM)
    checkpoints = Checkpoints(tmp_path, "a", 3, 0)
    trainer = make_trainer()

    def after(now: ByolTrainer) -> None:
        if now.step == 4:
            os.kill(os.getpid(), number)
        checkpoints.after_step(now)

    with (
        pytest.raises(
            Interrupted,
            match=rf"stopped by {number.name} in epoch 2 of 3; run .*4\.pt",
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


def test_a_second_interrupt_ends_at_once(tmp_path, monkeypatch):
    """The first one is remembered; a launcher may pass it on once more."""
    checkpoints = Checkpoints(tmp_path, "a", 3, 0)
    with checkpoints.listening():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        monkeypatch.setattr(distributed, "SECONDS_OF_ONE_INTERRUPT", 0)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_interrupted_trainer_saves_its_state_and_continues(tmp_path):
    """In the same object, or in another one that has loaded the file."""

    def interrupt(now: ByolTrainer) -> None:
        if now.step == 4:
            os.kill(os.getpid(), signal.SIGINT)

    whole, stopped, loaded = make_trainer(), make_trainer(), make_trainer()
    whole.train_model(images(), None, 3, 8)
    options = {"epochs": 3, "batch_size": 8, "save_file": tmp_path / "state.pt"}
    with pytest.raises(KeyboardInterrupt, match=r"epoch 2, step 4; .*state\.pt; cont"):
        stopped.train_model(images(), **options, after_step=interrupt)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    loaded.load(tmp_path / "state.pt")
    for trainer in (stopped, loaded):
        trainer.train_model(images(), epochs=3, batch_size=8, resume=True)
        assert trainer.history == whole.history
        for name, value in whole.byol.state_dict().items():
            assert torch.equal(trainer.byol.state_dict()[name], value)


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

    def start(folder: str, **changes) -> Command:
        (tmp_path / folder).mkdir(exist_ok=True)
        return start_training(tmp_path / folder, **SETTINGS | changes)

    return start


def finish(process: Command, folder: Path) -> str:
    """Wait until training succeeds; return its log."""
    code, log = process.wait(300), (folder / "log").read_text()
    assert code == 0, log
    return log


@pytest.mark.slow
def test_training_killed_three_times_ends_with_the_same_model(start, tmp_path):
    """By SIGKILL at random times; weights and history are the same bit for bit."""
    runs = [RunFiles(tmp_path / name / "results") for name in ("whole", "killed")]
    finish(start("whole", epochs=24), tmp_path / "whole")
    files = runs[1]
    rng = random.Random(4)
    for _ in range(3):
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


def wait_for_checkpoint(process: Command, folder: Path) -> RunFiles:
    files = RunFiles(folder / "results")
    while not list(files.checkpoints.rglob("step-*.pt")):
        assert process.poll() is None, (folder / "log").read_text()
        time.sleep(0.05)
    return files


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "name", "code"),
    [(signal.SIGTERM, "SIGTERM", 1), (signal.SIGINT, "Ctrl-C", 130)],
)
def test_an_interrupted_step_logs_how_to_resume(start, tmp_path, number, name, code):
    """There is a checkpoint of this step, one error in the log, and no model."""
    process = start("run", epochs=2000)
    files = wait_for_checkpoint(process, tmp_path / "run")
    process.send_signal(number)
    assert process.wait() == code
    log = (tmp_path / "run" / "log").read_text()
    (error,) = [line for line in log.splitlines() if " ERROR " in line]
    assert f"training stopped by {name} in epoch" in error
    last = max(files.checkpoints.rglob("step-*.pt")).relative_to(tmp_path / "run")
    assert f"run the same command again to continue from {last}" in error
    assert not files.model.exists()
    assert not list(files.results.rglob(".*lock"))
    assert not list(files.results.rglob(".*tmp"))


@pytest.mark.slow
def test_a_second_training_in_the_same_folder_is_refused(start, tmp_path):
    """It names the first, which ends as if there had been no second."""
    folder = tmp_path / "run"
    first = start("run", epochs=2000)
    files = wait_for_checkpoint(first, folder)
    shutil.copy(folder / "log", folder / "first.log")
    for options in ({}, {"trained_network_name": "other/model.pt"}):
        second = start("run", epochs=2000, **options)
        assert second.wait(60) == 1
        log = (folder / "log").read_text()
        assert "the step `train` is running in this folder" in log
        assert f"`kill {first.pid}`" in log
        assert first.poll() is None
    first.terminate()
    assert first.wait() == 1
    assert list(files.checkpoints.rglob("step-*.pt"))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["results/split.csv/model.pt", "results/model"])
def test_a_model_that_cannot_be_written_is_found_before_the_training(
    start, tmp_path, name
):
    """Its place is below a file, or is a folder."""
    (tmp_path / "run" / "results" / "model").mkdir(parents=True)
    (tmp_path / "run" / "results" / "split.csv").touch()
    assert start("run", trained_network_name=name).wait(60) == 1
    log = (tmp_path / "run" / "log").read_text()
    assert f"{name}: cannot be written" in log
    assert "Traceback" not in log
    assert "training images" not in log


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
