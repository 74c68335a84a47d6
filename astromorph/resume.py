"""Checkpoints of a training: written while it runs, found when it runs again.

They lie in a folder that is named by what the training is made of, so that one of
other settings, data or code is never taken for it.
"""

import hashlib
import logging
import math
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import torch

from astromorph import distributed
from astromorph.cache import load_plain, save_plain
from astromorph.errors import AstromorphError
from astromorph.provenance import canonical_json, code_digest, digest
from astromorph.settings import Settings, part_of
from astromorph.trouble import WriteError, of_machine

if TYPE_CHECKING:
    from astromorph.datasets import Subset
    from astromorph.trainer import ByolTrainer

LOG = logging.getLogger(__name__)
CHECKPOINT_FORMAT, CHECKPOINT_VERSION = "astromorph-checkpoint", 1
UNFIT = (RuntimeError, KeyError, ValueError, TypeError)  # what torch says of a misfit
KEPT = 2  # the last one, and the one before should it be damaged
# What a job gets before its time is up: SLURM sends the first, or both.
SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


class Interrupted(AstromorphError):
    """A signal ended the training; a checkpoint is there."""


class Checkpoints:
    """The checkpoints of one training.

    Parameters
    ----------
    folder : path
        Where those of all trainings of a model lie.
    name : str
        Digest of what this one is made of, but for the number of epochs.
    epochs : int
        How many are asked for.
    minutes : float
        How often one is written; 0 only at signals and at the end.
    fixed_pace : bool
        Whether a step does not depend on how many there will be, so that a training
        can go on beyond what was asked for at first.
    """

    def __init__(
        self,
        folder: str | Path,
        name: str,
        epochs: int,
        minutes: float,
        fixed_pace: bool = False,
    ) -> None:
        self.folder = Path(folder) / name
        self.epochs = epochs
        self.seconds = 60 * minutes if minutes else math.inf
        self.fixed_pace = fixed_pace
        self._last = time.monotonic()
        self._signal: int | None = None

    def restore(self, trainer: "ByolTrainer") -> bool:
        """Bring a trainer to where the last whole checkpoint was; False without."""
        for path in self._found():
            try:
                values = load_plain(path, CHECKPOINT_FORMAT, CHECKPOINT_VERSION, "")
                if not self._allowed(path, int(values["epochs"]), values["trainer"]):
                    return False
                trainer.restore(values["trainer"])
            except (AstromorphError, *UNFIT) as error:
                if of_machine(error):  # memory or device, not the file
                    raise
                self._set_aside(path, error)
                continue
            LOG.info(
                "training goes on from %s: epoch %d of %d, step %d",
                path, trainer.epoch + 1, self.epochs, trainer.step,
            )  # fmt: skip
            return True
        return False

    def after_step(self, trainer: "ByolTrainer") -> None:
        """Write a checkpoint where it is time to, or a signal came.

        Raises
        ------
        Interrupted
            After a signal.
        """
        if self._signal is None and time.monotonic() - self._last < self.seconds:
            return
        held = self._try_to_write(trainer)
        if self._signal is not None:
            name = signal.Signals(self._signal).name
            raise Interrupted(
                f"training: stopped by {name} in epoch {trainer.epoch + 1} of "
                f"{self.epochs}; {held}; run the same again to go on"
            )

    def write(self, trainer: "ByolTrainer") -> Path:
        """Write a checkpoint; the first process does."""
        path = self.folder / f"step-{trainer.step:09d}.pt"
        if distributed.rank() == 0:
            values = {
                "format": CHECKPOINT_FORMAT,
                "format_version": CHECKPOINT_VERSION,
                "epochs": self.epochs,
                "trainer": trainer.state(),
            }
            save_plain(path, values)
            for old in self._found()[KEPT:]:
                old.unlink(missing_ok=True)
        self._last = time.monotonic()
        return path

    def _try_to_write(self, trainer: "ByolTrainer") -> str:
        """Write a checkpoint; that it cannot be written does not end a training."""
        try:
            return f"{self.write(trainer)} holds it"
        except WriteError as error:
            LOG.warning("no checkpoint: %s", error)
            self._last = time.monotonic()
            kept = next(iter(self._found()), None)
            return f"{kept} holds what was before" if kept else "nothing holds it"

    def finish(self, trainer: "ByolTrainer") -> None:
        """The end is there: it stays, the others go."""
        self._try_to_write(trainer)
        if distributed.rank() == 0:
            for old in self._found()[1:]:
                old.unlink(missing_ok=True)

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Heed signals in the meantime; only a main thread can."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def heed(number: int, frame: FrameType | None) -> None:
            self._signal = number

        before = {number: signal.signal(number, heed) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _found(self) -> list[Path]:
        """Checkpoints, the last first."""
        return sorted(self.folder.glob("step-*.pt"), reverse=True)

    def _allowed(self, path: Path, epochs: int, state: dict[str, Any]) -> bool:
        if epochs == self.epochs:
            return True
        if self.fixed_pace and state["epoch"] <= self.epochs:
            return True
        LOG.warning(
            "%s is of a training of %d epochs; with %d, learning rate and moving "
            "average differ from the first step on, so that training starts afresh",
            path, epochs, self.epochs,
        )  # fmt: skip
        return False

    def _set_aside(self, path: Path, error: Exception) -> None:
        reason = " ".join(str(error).split())[:200]
        LOG.warning("%s is set aside, it cannot be used: %s", path, reason)
        if distributed.rank() == 0:
            path.replace(path.with_suffix(".damaged"))


def checkpoints_of(
    settings: Settings,
    data: "Sequence[Subset]",
    made_with: str,
    model: str | Path,
    epochs: int,
) -> Checkpoints:
    """The checkpoints of the training that these make.

    Parameters
    ----------
    settings : Settings
        The part that `train` depends on.
    data : sequence of Subset
        The training and the test images.
    made_with : str
        The settings of the tensors.
    model : path
        The model file; the checkpoints lie beside it.
    epochs : int
        How many are asked for.
    """
    part = part_of(settings, "train")
    rules = part["training_settings"]
    # What changes when, or by whom, the same is done.
    every = [rules.pop(name) for name in ("checkpoint_minutes", "compile")]
    del part["epochs"]
    parts = [canonical_json(part), made_with, code_digest("train"), torch.__version__]
    name = digest([*parts, *(_contents(subset) for subset in data)])
    byol = settings.byol_settings
    constant = not byol.use_momentum or byol.moving_average_decay == 1
    return Checkpoints(
        Path(model).parent / "checkpoints",
        name,
        epochs,
        float(every[0]),
        settings.exponential_lr and constant,
    )


def _contents(subset: "Subset") -> str:
    """Digest of what images are: their ids, and what was measured of their pixels."""
    sha = hashlib.sha256()
    for image_id in subset.image_ids:
        sha.update(image_id.encode())
    for name, column in sorted(subset.statistics.items()):
        sha.update(name.encode() + column.numpy().tobytes())
    return sha.hexdigest()
