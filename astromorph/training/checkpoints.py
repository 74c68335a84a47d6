"""Checkpoints of a training: written while it runs, found when it runs again.

They lie in a folder that is named by what the training is made of, so that one of
other settings, data or code is never taken for it.
"""

import hashlib
import logging
import math
import signal
import time
import zipfile
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from astromorph import distributed
from astromorph.artefacts.tensor_shard import load_values, save_values
from astromorph.errors import AstromorphError, WriteError, is_machine_error
from astromorph.provenance import canonical_json, code_digest, digest
from astromorph.settings.sections import Settings
from astromorph.settings.steps import part_of

if TYPE_CHECKING:
    from astromorph.byol.byol import BYOL
    from astromorph.datasets.tensor_datasets import ImageSet, Subset
    from astromorph.training.trainer import ByolTrainer

LOG = logging.getLogger(__name__)
CHECKPOINT_FORMAT, CHECKPOINT_VERSION = "astromorph-checkpoint", 2
UNFIT = (RuntimeError, KeyError, ValueError, TypeError)  # what torch says of a misfit
BROKEN = (zipfile.BadZipFile, OSError, EOFError)
AT_ONCE = 256  # images that enter a digest together
DUE = 1  # it is time for a checkpoint; numbers of signals are larger
KEPT = 2  # the last one, and the one before should it be damaged


class Interrupted(AstromorphError):
    """A signal ended the training; a checkpoint is there."""


class Checkpoints:
    """The checkpoints of one training.

    Parameters
    ----------
    folder : path
        Where those of all trainings of a model lie.
    name : str
        Digest of what this one is made of, but for the number of epochs, which is
        put behind it where each step depends on it.
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
        of_all = Path(folder) / name
        self.folder = of_all if fixed_pace else of_all.with_name(f"{name}-{epochs}")
        self.epochs = epochs
        self.seconds = 60 * minutes if minutes else math.inf
        self.fixed_pace = fixed_pace
        self._name = name
        self._last = time.monotonic()
        self._signal: int | None = None

    def restore(self, trainer: "ByolTrainer") -> bool:
        """Bring a trainer to where the last whole checkpoint was; False without.

        Of several processes the first one chooses, and the others follow.
        """
        step = self._restore_last(trainer) if distributed.rank() == 0 else None
        chosen = distributed.broadcast(-1 if step is None else step)
        if distributed.rank() > 0 and chosen >= 0:
            self._bring(trainer, self._read(self._path(chosen)))
        return chosen >= 0

    def _restore_last(self, trainer: "ByolTrainer") -> int | None:
        """The step of the last checkpoint that can be used."""
        self._sweep()
        for path in self._found():
            try:
                values = self._read(path)
                if values["trainer"]["epoch"] > self.epochs:
                    continue  # of a longer training at the same pace
                self._bring(trainer, values)
            except (AstromorphError, *UNFIT) as error:
                if is_machine_error(error):  # memory or device, not the file
                    raise
                self._set_aside(path, error)
                continue
            LOG.info(
                "training goes on from %s: epoch %d of %d, step %d",
                path, trainer.epoch + 1, self.epochs, trainer.step,
            )  # fmt: skip
            return trainer.step
        self._say_why_afresh()
        return None

    def _bring(self, trainer: "ByolTrainer", values: dict[str, Any]) -> None:
        trainer.restore(values["trainer"])
        own = values["totals"][distributed.rank()]
        trainer.totals = own.to(trainer.device).clone()

    def _read(self, path: Path) -> dict[str, Any]:
        """A checkpoint of which every byte is as it was written."""
        try:
            with zipfile.ZipFile(path) as archive:
                damaged = archive.testzip()
        except BROKEN as error:
            damaged = str(error)
        if damaged:
            raise AstromorphError(f"{path}: damaged ({damaged})")
        values = load_values(path, CHECKPOINT_FORMAT, CHECKPOINT_VERSION, "")
        if not torch.isfinite(values["totals"]).all():
            raise AstromorphError(f"{path}: its loss is not finite")
        return values

    def after_step(self, trainer: "ByolTrainer") -> None:
        """Write a checkpoint where it is time to, or a signal came.

        Of several processes all do what one of them has reason to.

        Raises
        ------
        Interrupted
            After a signal.
        """
        due = time.monotonic() - self._last >= self.seconds
        reason = distributed.all_reduce_max(self._signal or (DUE if due else 0))
        if not reason:
            return
        held = self._try_to_write(trainer)
        if reason > DUE:
            # Who ends early takes the others with it.
            distributed.barrier()
            name = signal.Signals(reason).name
            raise Interrupted(
                f"training: stopped by {name} in epoch {trainer.epoch + 1} of "
                f"{self.epochs}; {held}; run the same again to go on"
            )

    def _try_to_write(self, trainer: "ByolTrainer") -> str:
        """Write a checkpoint; that it cannot be written does not end a training.

        The first process does, what all of them know.
        """
        path, totals = self._path(trainer.step), distributed.all_gather(trainer.totals)
        self._last = time.monotonic()
        reason = "the loss is not finite"
        try:
            if torch.isfinite(totals).all():
                if distributed.rank() == 0:
                    self._write(path, trainer, totals)
                return f"{path} holds it"
        except WriteError as error:
            reason = str(error)
        LOG.warning("no checkpoint: %s", reason)
        kept = next(iter(self._found()), None)
        return f"{kept} holds what was before" if kept else "nothing holds it"

    def _write(self, path: Path, trainer: "ByolTrainer", totals: Tensor) -> None:
        values = {
            "format": CHECKPOINT_FORMAT,
            "format_version": CHECKPOINT_VERSION,
            "totals": totals,
            "trainer": trainer.state(),
        }
        save_values(path, values)
        self._keep(KEPT, trainer.step)
        self._last = time.monotonic()  # writing may take long

    def finish(self, trainer: "ByolTrainer") -> None:
        """The end is there: it stays, those before it go."""
        self._try_to_write(trainer)
        if distributed.rank() == 0:
            self._keep(1, trainer.step)

    def listening(self) -> AbstractContextManager[None]:
        """Heed signals in the meantime."""

        def heed(number: int) -> None:
            self._signal = number

        return distributed.handling_signals(heed)

    def _path(self, step: int) -> Path:
        return self.folder / f"step-{step:09d}.pt"

    def _found(self) -> list[Path]:
        """Checkpoints, the last first."""
        return sorted(self.folder.glob("step-*.pt"), reverse=True)

    def _keep(self, number: int, step: int) -> None:
        """Of the checkpoints up to a step the last ones stay.

        Behind it there may be those of a longer training, where the pace is constant.
        """
        upto = [path for path in self._found() if path <= self._path(step)]
        for old in upto[number:]:
            old.unlink(missing_ok=True)

    def _sweep(self) -> None:
        """What a killed process left half-written goes."""
        for left in self.folder.glob(".step-*.tmp"):
            left.unlink(missing_ok=True)

    def _say_why_afresh(self) -> None:
        """Where there is a training of another number of epochs."""
        others = self.folder.parent.glob(f"{self._name}-*/step-*.pt")
        of = sorted(
            {int(path.parent.name.rpartition("-")[2]) for path in others}
            - {self.epochs}
        )
        if of and not self.fixed_pace:
            LOG.warning(
                "%s has a training of %s epochs; with %d, learning rate and moving "
                "average differ from the first step on, so that training starts afresh",
                self.folder.parent, " and of ".join(map(str, of)), self.epochs,
            )  # fmt: skip

    def _set_aside(self, path: Path, error: Exception) -> None:
        reason = " ".join(str(error).split())[:200]
        LOG.warning("%s is set aside, it cannot be used: %s", path, reason)
        path.replace(path.with_suffix(".damaged"))


def make_checkpoints(
    settings: Settings,
    byol: "BYOL",
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
    byol : BYOL
        With the weights that it starts from.
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
    code = code_digest("training.train")
    parts = [canonical_json(part), made_with, code, torch.__version__]
    parts.append(_weights(byol))
    name = digest([*parts, *(_contents(subset) for subset in data)])
    pace = settings.byol_settings
    constant = not pace.use_momentum or pace.moving_average_decay == 1
    return Checkpoints(
        Path(model).parent / "checkpoints",
        name,
        epochs,
        float(every[0]),
        settings.exponential_lr and constant,
    )


def _weights(byol: "BYOL") -> str:
    """Digest of a network's state."""
    sha = hashlib.sha256()
    for name, value in byol.state_dict().items():
        sha.update(f"{name} {tuple(value.shape)} {value.dtype}\0".encode())
        sha.update(value.detach().cpu().contiguous().view(-1).numpy().tobytes())
    return sha.hexdigest()


def _contents(subset: "Subset") -> str:
    """Digest of what images are: ids, pixels, and what was measured of them."""
    sha = hashlib.sha256("\0".join([*subset.image_ids, ""]).encode())
    for name, column in sorted(subset.statistics.items()):
        sha.update(f"{name}\0".encode() + column.numpy().tobytes())
    if subset.images is not None:
        _add_pixels(sha, subset.images)
    return sha.hexdigest()


def _add_pixels(sha: "hashlib._Hash", images: "ImageSet") -> None:
    for start in range(0, len(images), AT_ONCE):
        indices = torch.arange(start, min(start + AT_ONCE, len(images)))
        batch = images.batch(indices)
        sha.update(f"{tuple(batch.shape)}\0".encode())
        sha.update(batch.contiguous().numpy().data)
