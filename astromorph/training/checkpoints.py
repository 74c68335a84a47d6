"""Checkpoints, from which interrupted training resumes.

They are in a folder whose name is a digest of everything that determines the training,
so that a checkpoint of other settings, data or code is never used.
"""

import hashlib
import logging
import math
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from astromorph import distributed
from astromorph.artefacts.run_files import RunFiles
from astromorph.artefacts.tensor_shard import load_values, save_values
from astromorph.byol.byol import BYOL
from astromorph.datasets.tensor_datasets import ImageSet, Subset
from astromorph.errors import AstromorphError, WriteError, is_machine_error
from astromorph.progress import AFTER_CTRL_C
from astromorph.provenance import canonical_json, code_digest, digest
from astromorph.settings.steps import TrainStepSettings
from astromorph.training.trainer import ByolTrainer

LOG = logging.getLogger(__name__)
CHECKPOINT_FORMAT, CHECKPOINT_VERSION = "astromorph-checkpoint", 3
MISMATCH_ERRORS = (RuntimeError, KeyError, ValueError, TypeError)  # from torch
REMEDY = "an earlier checkpoint is used"
IMAGES_AT_A_TIME = 256  # for a digest
DUE = 1  # a checkpoint is due; a signal, which comes first, is its number plus this
NUMBER_KEPT = 2  # the last checkpoint, and the one before in case it is damaged


class Checkpoints:
    """The checkpoints of one training run.

    Parameters
    ----------
    folder : path
        Contains a folder for each training run of a model.
    name : str
        Digest of everything that determines the training except the number of epochs,
        which is appended if each step depends on it.
    epochs : int
        Number of epochs of the training.
    minutes : float
        Minutes between checkpoints; if 0, they are written only after signals and at
        the end.
    fixed_pace : bool
        Whether the steps do not depend on the number of epochs, so that finished
        training can be continued with more epochs.
    """

    def __init__(
        self,
        folder: str | Path,
        name: str,
        epochs: int,
        minutes: float,
        fixed_pace: bool = False,
    ) -> None:
        self.folder = Path(folder) / (name if fixed_pace else f"{name}-{epochs}")
        self.epochs = epochs
        self.seconds = 60 * minutes if minutes else math.inf
        self.fixed_pace = fixed_pace
        self._name = name
        self._last_written = time.monotonic()
        self._signal: int | None = None

    def restore(self, trainer: ByolTrainer) -> bool:
        """Restore a trainer from the last usable checkpoint; False without one.

        The process of rank 0 chooses the checkpoint for all processes.
        """
        step = self._restore_last(trainer) if distributed.rank() == 0 else None
        chosen = distributed.broadcast(-1 if step is None else step)
        if distributed.rank() > 0 and chosen >= 0:
            _restore_trainer(trainer, self._read(self._path(chosen)))
        return chosen >= 0

    def _restore_last(self, trainer: ByolTrainer) -> int | None:
        """The step of the last checkpoint that can be used."""
        self._remove_unfinished()
        for path in self._paths():
            try:
                values = self._read(path)
                if values["trainer"]["progress"]["epoch"] > self.epochs:
                    continue  # from longer training at the same pace
                _restore_trainer(trainer, values)
            except (AstromorphError, *MISMATCH_ERRORS) as error:
                if is_machine_error(error):  # memory or device, not the file
                    raise
                _set_aside(path, error)
                continue
            LOG.info(
                "training resumes from %s: epoch %d of %d, step %d",
                *(path, trainer.epoch + 1, self.epochs, trainer.step),
            )
            return trainer.step
        self._explain_fresh_start()
        return None

    def _read(self, path: Path) -> dict[str, Any]:
        """The content of a checkpoint, after a check of all bytes."""
        values = load_values(
            path, CHECKPOINT_FORMAT, CHECKPOINT_VERSION, REMEDY, verify=True
        )
        if not torch.isfinite(values["loss_sums"]).all():
            raise AstromorphError(f"{path}: its loss is not finite")
        return values

    def after_step(self, trainer: ByolTrainer) -> None:
        """Write a checkpoint if one is due, or if a signal was received.

        All processes act together if one of them has a reason to.

        Raises
        ------
        Interrupted
            After a signal.
        KeyboardInterrupt
            After Ctrl-C.
        """
        is_due = time.monotonic() - self._last_written >= self.seconds
        reason = DUE if is_due else 0
        if self._signal is not None:
            reason = DUE + self._signal
        reason = distributed.all_reduce_max(reason)
        if not reason:
            return
        outcome = self._try_to_write(trainer)
        if reason > DUE:
            # A process that ends early would take the others with it.
            distributed.barrier()
            number = reason - DUE
            name = distributed.signal_name(number)
            message = (
                f"training stopped by {name} in epoch {trainer.epoch + 1} of "
                f"{self.epochs}; {outcome}"
            )
            # One message is enough: the process of rank 0 logs it.
            raise distributed.interruption(
                number, message if distributed.rank() == 0 else ""
            )

    def _try_to_write(self, trainer: ByolTrainer) -> str:
        """Write a checkpoint, or log why not; return how the training can resume.

        The process of rank 0 writes the contributions of all processes.
        """
        path = self._path(trainer.step)
        loss_sums = distributed.all_gather(trainer.progress.loss_sums)
        self._last_written = time.monotonic()
        reason = "the loss is not finite"
        try:
            if torch.isfinite(loss_sums).all():
                if distributed.rank() == 0:
                    self._write(path, trainer, loss_sums)
                return f"run the same command again to continue from {path}"
        except WriteError as error:
            reason = str(error)
        LOG.warning("no checkpoint was written: %s", reason)
        earlier = next(iter(self._paths()), None)
        if earlier:
            return f"run the same command again to continue from the earlier {earlier}"
        return "there is no checkpoint: run the same command to start again"

    def _write(self, path: Path, trainer: ByolTrainer, loss_sums: Tensor) -> None:
        values = {
            "format": CHECKPOINT_FORMAT,
            "format_version": CHECKPOINT_VERSION,
            "loss_sums": loss_sums,
            "trainer": trainer.state(),
        }
        save_values(path, values)
        self._remove_old(NUMBER_KEPT, trainer.step)
        self._last_written = time.monotonic()  # writing may take long

    def finish(self, trainer: ByolTrainer) -> None:
        """Write a checkpoint at the end of training, and remove earlier ones."""
        self._try_to_write(trainer)
        if distributed.rank() == 0:
            self._remove_old(1, trainer.step)

    def listening(self) -> AbstractContextManager[None]:
        """The context in which signals are handled after the current step."""

        def remember(number: int) -> None:
            self._signal = number
            if number == signal.SIGINT and distributed.rank() == 0:
                LOG.info(AFTER_CTRL_C)

        return distributed.handling_signals(remember)

    def _path(self, step: int) -> Path:
        return self.folder / f"step-{step:09d}.pt"

    def _paths(self) -> list[Path]:
        """All checkpoints, the last one first."""
        return sorted(self.folder.glob("step-*.pt"), reverse=True)

    def _remove_old(self, number_kept: int, step: int) -> None:
        """Remove all but the last checkpoints up to a step.

        Later ones may belong to longer training at the same pace.
        """
        earlier = [path for path in self._paths() if path <= self._path(step)]
        for old in earlier[number_kept:]:
            old.unlink(missing_ok=True)

    def _remove_unfinished(self) -> None:
        """Remove files that a killed process was writing."""
        for unfinished in self.folder.glob(".step-*.tmp"):
            unfinished.unlink(missing_ok=True)

    def _explain_fresh_start(self) -> None:
        """Log a warning if there are checkpoints of another number of epochs."""
        others = self.folder.parent.glob(f"{self._name}-*/step-*.pt")
        numbers = {int(path.parent.name.rpartition("-")[2]) for path in others}
        numbers -= {self.epochs}
        if numbers and not self.fixed_pace:
            LOG.warning(
                "%s has checkpoints of training for %s epochs; for %d epochs, learning "
                "rate and moving average differ from the first step, so training "
                "starts again",
                self.folder.parent,
                " and ".join(map(str, sorted(numbers))),
                self.epochs,
            )


def _restore_trainer(trainer: ByolTrainer, values: dict[str, Any]) -> None:
    trainer.restore(values["trainer"])
    own = values["loss_sums"][distributed.rank()]
    trainer.progress.loss_sums = own.to(trainer.device).clone()


def _set_aside(path: Path, error: Exception) -> None:
    """Rename a checkpoint that cannot be used."""
    reason = " ".join(str(error).split())[:200]
    renamed = path.with_suffix(".damaged")
    LOG.warning("%s cannot be used and is renamed to %s: %s", path, renamed, reason)
    path.replace(renamed)


def make_checkpoints(
    settings: TrainStepSettings,
    byol: BYOL,
    data: Sequence[Subset],
    tensor_settings: str,
    files: RunFiles,
    epochs: int,
) -> Checkpoints:
    """The checkpoints of a training run, named after everything that determines it.

    Parameters
    ----------
    settings : TrainStepSettings
        The settings that training depends on.
    byol : BYOL
        The networks with their start weights.
    data : sequence of Subset
        The training and the test images.
    tensor_settings : str
        How the images were prepared.
    files : RunFiles
        The files of the run.
    epochs : int
        Number of epochs of the training.

    Returns
    -------
    Checkpoints
    """
    values = settings.to_dict()
    # These determine when checkpoints are written, how fast a step is and how many
    # steps there are, but not the result of a step.
    for name in ("checkpoint_minutes", "compile"):
        del values["training_settings"][name]
    del values["epochs"]
    parts = [
        canonical_json(values),
        tensor_settings,
        code_digest("training.train"),
        torch.__version__,
        _weights_digest(byol),
        *(_subset_digest(subset) for subset in data),
    ]
    rules = settings.byol_settings
    is_constant = not rules.use_momentum or rules.moving_average_decay == 1
    return Checkpoints(
        files.checkpoints,
        digest(parts),
        epochs,
        settings.training_settings.checkpoint_minutes,
        fixed_pace=settings.exponential_lr and is_constant,
    )


def _weights_digest(byol: BYOL) -> str:
    sha = hashlib.sha256()
    for name, value in byol.state_dict().items():
        sha.update(f"{name} {tuple(value.shape)} {value.dtype}\0".encode())
        sha.update(value.detach().cpu().contiguous().view(-1).numpy().tobytes())
    return sha.hexdigest()


def _subset_digest(subset: Subset) -> str:
    """Digest of the ids, the statistics and the pixels of images."""
    sha = hashlib.sha256("\0".join([*subset.image_ids, ""]).encode())
    for name, column in sorted(subset.statistics.items()):
        sha.update(f"{name}\0".encode() + column.numpy().tobytes())
    if subset.images is not None:
        for batch in _consecutive_batches(subset.images):
            sha.update(f"{tuple(batch.shape)}\0".encode())
            sha.update(batch.contiguous().numpy().data)
    return sha.hexdigest()


def _consecutive_batches(images: ImageSet) -> Iterator[Tensor]:
    for start in range(0, len(images), IMAGES_AT_A_TIME):
        stop = min(start + IMAGES_AT_A_TIME, len(images))
        yield images.batch(torch.arange(start, stop))
