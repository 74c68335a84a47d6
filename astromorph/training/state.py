"""Where a training stands: saved, and brought back into a trainer made alike."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler

from astromorph.artefacts.tensor_shard import load_values, save_values
from astromorph.byol.byol import BYOL
from astromorph.devices import Precision, choose_precision
from astromorph.errors import AstromorphError
from astromorph.models.encoders import MinMaxNorm
from astromorph.training.history import Epoch

if TYPE_CHECKING:
    from astromorph.training.auxiliary_task import AuxiliaryTask

TRAINER_FORMAT, TRAINER_VERSION = "astromorph-trainer", 2
REMEDY = "begin the training again, or name another file"


class Resumable(nn.Module):
    """What a training is made of, and how far it is.

    Attributes
    ----------
    byol : BYOL
        What is trained.
    teacher : Teacher or None
        Knows simulated images.
    optimizer : torch.optim.Optimizer
        Changes the weights.
    lr_scheduler : LRScheduler or None
        Changes the learning rate after each epoch.
    precision : Precision
        Of the network's sums.
    device : torch.device
        Where it is trained.
    step, epoch, done, lessons_seen : int
        Steps and epochs so far, batches of this epoch, simulated images so far.
    number, batch_size : int
        Images, and images per step, of the training that runs, or ran last; 0 before.
    normalises : bool
        Whether `MinMaxNorm` was put before the network for images of any range.
    history : list of Epoch
        One per epoch.
    before : tuple of float or None
        Effective rank and spread before the first step.
    """

    byol: BYOL
    teacher: "AuxiliaryTask | None"
    optimizer: torch.optim.Optimizer
    lr_scheduler: LRScheduler | None
    precision: Precision
    device: torch.device
    normalises: bool = False
    restored: bool = False

    def _begin(self) -> None:
        """Where a training stands that has not begun."""
        self.step = self.epoch = self.done = self.lessons_seen = 0
        self.number = self.batch_size = 0
        self.totals = torch.zeros(2, device=self.device)
        self.history: list[Epoch] = []
        self.before: tuple[float, float] | None = None

    def _go_on(self, images: int, batch_size: int) -> None:
        """Check that these go on with what was begun."""
        if not self.restored and self.step == self.epoch == 0:
            raise AstromorphError(
                "resume: found nothing to go on from; `load` a saved state first, or "
                "leave `resume` out"
            )
        if self.number not in (0, images):
            raise AstromorphError(
                f"resume: found {images} training images, but the training was begun "
                f"with {self.number}; give the same, or leave `resume` out"
            )
        if self.done and self.batch_size not in (0, batch_size):
            raise AstromorphError(
                f"batch_size: found {batch_size} in the middle of an epoch that was "
                f"begun with {self.batch_size}; give the same"
            )

    def state(self) -> dict[str, Any]:
        """All that a training needs to go on; tensors and plain values."""
        head = self.teacher.head.state_dict() if self.teacher is not None else {}
        return {
            "kinds": self._kinds(),
            "byol": self.byol.state_dict(),
            "head": head,
            "optimizer": self.optimizer.state_dict(),
            "lr_scheduler": self.lr_scheduler.state_dict() if self.lr_scheduler else {},
            "step": self.step,
            "epoch": self.epoch,
            "done": self.done,
            "lessons_seen": self.lessons_seen,
            "number": self.number,
            "batch_size": self.batch_size,
            "normalises": self.normalises,
            "totals": self.totals,
            "history": [asdict(epoch) for epoch in self.history],
            "before": self.before,
            "random": torch.get_rng_state(),
            "random_on_gpu": _gpu_state(self.device),
            "bfloat16": self.precision.dtype == torch.bfloat16,
        }

    def _kinds(self) -> dict[str, str]:
        """Names of the parts that a state does not bring with it."""
        norm = None if self.normalises else self.byol.normalization_function
        return {
            "optimizer": type(self.optimizer).__name__,
            "lr_scheduler": _name(self.lr_scheduler),
            "normalization_function": _name(norm),
            "teacher": _name(self.teacher),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Stand where another one, made alike, was when it gave its `state`.

        `MinMaxNorm`, where the other put it before the network for images of any
        range, is put before this one.

        Parameters
        ----------
        state : dict
            What `state` gave.

        Raises
        ------
        ValueError, RuntimeError, KeyError
            The other was made of other parts.
        """
        for part, here in self._kinds().items():
            there = state["kinds"][part]
            if there != here:
                raise ValueError(f"{part}: found {there}, here it is {here}")
        self.byol.load_state_dict(state["byol"])
        if self.teacher is not None:
            self.teacher.head.load_state_dict(state["head"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.lr_scheduler:
            self.lr_scheduler.load_state_dict(state["lr_scheduler"])
            # Else torch warns where an epoch ends before the first step from here.
            object.__setattr__(self.optimizer, "_opt_called", state["step"] > 0)
        if self.normalises != state["normalises"]:
            norm = MinMaxNorm() if state["normalises"] else None
            self.byol.normalization_function = norm
            self.normalises = state["normalises"]
        self.step, self.epoch = state["step"], state["epoch"]
        self.done, self.lessons_seen = state["done"], state["lessons_seen"]
        self.number, self.batch_size = state["number"], state["batch_size"]
        self.totals = state["totals"].to(self.device).clone()
        self.history = [Epoch(**epoch) for epoch in state["history"]]
        self.before = state["before"] and tuple(state["before"])
        torch.set_rng_state(state["random"])
        if self.device.type == "cuda" and state.get("random_on_gpu") is not None:
            torch.cuda.set_rng_state(state["random_on_gpu"], self.device)
        self.precision = choose_precision(
            "bfloat16" if state["bfloat16"] else "float32", self.device
        )
        self.restored = True

    def save(self, path: str | Path) -> None:
        """Write the state to a ``.pt`` file of tensors and plain values.

        Parameters
        ----------
        path : path
            The file, whole or not at all.

        Raises
        ------
        WriteError
            The disk is full, or may not be written to.
        """
        head = {"format": TRAINER_FORMAT, "format_version": TRAINER_VERSION}
        save_values(path, head | self.state())

    def load(self, path: str | Path) -> None:
        """Read what `save` wrote; go on with ``train_model(..., resume=True)``.

        Parameters
        ----------
        path : path
            The file.

        Raises
        ------
        AstromorphError
            The file is missing, damaged or pickled, or belongs to a trainer with
            another network, optimizer, scheduler or normalization; the message says
            which.
        """
        state = load_values(path, TRAINER_FORMAT, TRAINER_VERSION, REMEDY)
        try:
            self.restore(state)
        except (RuntimeError, ValueError, KeyError, TypeError) as error:
            reason = " ".join(str(error).split())[:300]
            raise AstromorphError(
                f"{path}: it does not fit this trainer ({reason}); make the trainer as "
                f"the one that wrote it, {REMEDY}"
            ) from None


def _gpu_state(device: torch.device) -> Tensor | None:
    """Of the random numbers of a GPU, which dropout there takes."""
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else None


def _name(part: Any) -> str:
    """What a part is called: a function's name, or that of an object's class."""
    if part is None:
        return "none"
    return str(getattr(part, "__qualname__", type(part).__qualname__))
