"""The training state, which is saved so that training can be resumed bit for bit."""

from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.optim.lr_scheduler import LRScheduler

from astromorph import distributed
from astromorph.artefacts.tensor_shard import load_values, save_values
from astromorph.byol.byol import BYOL
from astromorph.devices import Precision, choose_precision
from astromorph.errors import AstromorphError
from astromorph.models.encoders import MinMaxNorm
from astromorph.training.history import Epoch

if TYPE_CHECKING:  # the simulated images need more packages than the loop
    from astromorph.training.auxiliary_task import AuxiliaryTask

STATE_FORMAT, STATE_VERSION = "astromorph-trainer", 3
REMEDY = "start the training again, or name another file"


@dataclass(slots=True)
class Progress:
    """Progress of the training.

    Attributes
    ----------
    step, epoch : int
        Steps and epochs so far.
    batches_done : int
        Batches of the current epoch so far.
    images_seen : int
        Images of the data so far, repetitions included. With an auxiliary task, as
        many simulated images have been used.
    images, batch_size : int
        Number of training images, and images per step; 0 before training.
    loss_sums : Tensor, shape (2,)
        The losses of BYOL and of the auxiliary task, summed over the images of this
        epoch on this process.
    history : list of Epoch
        One record for each epoch so far.
    initial_collapse : tuple of float or None
        Effective rank and spread of embeddings before the first step.
    """

    step: int = 0
    epoch: int = 0
    batches_done: int = 0
    images_seen: int = 0
    images: int = 0
    batch_size: int = 0
    loss_sums: Tensor = field(default_factory=lambda: torch.zeros(2))
    history: list[Epoch] = field(default_factory=list)
    initial_collapse: tuple[float, float] | None = None

    def finish_step(self, losses: Tensor, local_size: int, size: int) -> None:
        """Count a step.

        Parameters
        ----------
        losses : Tensor, shape (2,)
            Both losses, averaged over the images of this process.
        local_size, size : int
            Images of the data in the batch: on this process, and on all processes.
        """
        self.loss_sums += losses * local_size
        self.images_seen += size
        self.batches_done += 1
        self.step += 1

    def mean_losses(self, images: int) -> tuple[float, float]:
        """Losses of the epoch, of all processes.

        Parameters
        ----------
        images : int
            Number of training images on all processes.

        Returns
        -------
        byol_loss, auxiliary_loss : float
            Averages over all images of the epoch.
        """
        means = distributed.all_reduce_sum(self.loss_sums) / images
        byol_loss, auxiliary_loss = means.tolist()
        return byol_loss, auxiliary_loss

    def finish_epoch(self) -> None:
        """Count an epoch."""
        self.loss_sums = torch.zeros_like(self.loss_sums)
        self.batches_done = 0
        self.epoch += 1

    def check_resumable(self, images: int, batch_size: int) -> None:
        """Raise an error if the interrupted training had other data or batches.

        Parameters
        ----------
        images : int
            Number of training images now.
        batch_size : int
            Images per step now.

        Raises
        ------
        AstromorphError
            The numbers differ.
        """
        if self.images not in (0, images):
            raise AstromorphError(
                f"resume: found {images} training images, but the training was started "
                f"with {self.images}; give the same images, or omit `resume`"
            )
        if self.batches_done and self.batch_size not in (0, batch_size):
            raise AstromorphError(
                f"batch_size: found {batch_size} in the middle of an epoch that was "
                f"started with {self.batch_size}; give the same `batch_size`"
            )


@dataclass(slots=True)
class TrainingState:
    """Everything that changes during training, and how it is saved and restored.

    Attributes
    ----------
    byol : BYOL
        Online and target network.
    auxiliary_task : AuxiliaryTask or None
        The prediction task on simulated images.
    optimizer : torch.optim.Optimizer
        Updates the weights.
    lr_scheduler : LRScheduler or None
        Changes the learning rate after each epoch.
    device : torch.device
        Where the training runs.
    precision : Precision
        Number format of the network's arithmetic.
    progress : Progress
        Progress of the training.
    scales_images : bool
        Whether the trainer added `MinMaxNorm` before the network, because the images
        are not in the range from 0 to 1.
    is_restored : bool
        Whether `restore` was called.
    """

    byol: BYOL
    auxiliary_task: "AuxiliaryTask | None"
    optimizer: torch.optim.Optimizer
    lr_scheduler: LRScheduler | None
    device: torch.device
    precision: Precision
    progress: Progress = field(default_factory=Progress)
    scales_images: bool = False
    is_restored: bool = False

    def __post_init__(self) -> None:
        self.reset()

    def autocast(self) -> torch.autocast:
        """The context in which the networks compute losses."""
        return self.precision.autocast(self.device)

    def reset(self) -> None:
        """Reset the progress; the weights do not change."""
        self.progress = Progress(loss_sums=torch.zeros(2, device=self.device))

    def check_resumable(self, images: int, batch_size: int) -> None:
        """Raise an error if there is no training to resume with this data.

        Raises
        ------
        AstromorphError
            No training was started or restored, or it had other data or batches.
        """
        if not self.is_restored and self.progress.step == self.progress.epoch == 0:
            raise AstromorphError(
                "resume: found no training to resume; `load` a saved state first, or "
                "omit `resume`"
            )
        self.progress.check_resumable(images, batch_size)

    def scale_images(self) -> None:
        """Add `MinMaxNorm` before the network."""
        self.byol.normalization_function = MinMaxNorm()
        self.scales_images = True

    def to_dict(self) -> dict[str, Any]:
        """Everything needed to resume the training, as tensors and plain values."""
        task, scheduler = self.auxiliary_task, self.lr_scheduler
        progress = {f.name: getattr(self.progress, f.name) for f in fields(Progress)}
        progress["history"] = [asdict(epoch) for epoch in self.progress.history]
        return {
            "parts": self._part_names(),
            "byol": self.byol.state_dict(),
            "head": task.head.state_dict() if task is not None else {},
            "optimizer": self.optimizer.state_dict(),
            "lr_scheduler": scheduler.state_dict() if scheduler is not None else {},
            "progress": progress,
            "scales_images": self.scales_images,
            "random": torch.get_rng_state(),
            "random_on_gpu": _gpu_random_state(self.device),
            "bfloat16": self.precision.dtype == torch.bfloat16,
        }

    def restore(self, values: dict[str, Any]) -> None:
        """Restore the saved state of training with the same parts.

        Parameters
        ----------
        values : dict
            What `to_dict` returned.

        Raises
        ------
        ValueError, RuntimeError, KeyError
            The saved state has other parts.
        """
        for name, part in self._part_names().items():
            saved = values["parts"][name]
            if saved != part:
                raise ValueError(f"{name}: found {saved}, here it is {part}")
        self.byol.load_state_dict(values["byol"])
        if self.auxiliary_task is not None:
            self.auxiliary_task.head.load_state_dict(values["head"])
        self.optimizer.load_state_dict(values["optimizer"])
        progress = values["progress"]
        if self.lr_scheduler is not None:
            self.lr_scheduler.load_state_dict(values["lr_scheduler"])
            # Otherwise, torch warns if the epoch ends before another step.
            object.__setattr__(self.optimizer, "_opt_called", progress["step"] > 0)
        if self.scales_images != values["scales_images"]:
            norm = MinMaxNorm() if values["scales_images"] else None
            self.byol.normalization_function = norm
            self.scales_images = values["scales_images"]
        collapse = progress["initial_collapse"]
        self.progress = Progress(
            **progress
            | {
                "loss_sums": progress["loss_sums"].to(self.device).clone(),
                "history": [Epoch(**epoch) for epoch in progress["history"]],
                "initial_collapse": collapse and tuple(collapse),
            }
        )
        torch.set_rng_state(values["random"])
        if self.device.type == "cuda" and values.get("random_on_gpu") is not None:
            torch.cuda.set_rng_state(values["random_on_gpu"], self.device)
        name = "bfloat16" if values["bfloat16"] else "float32"
        self.precision = choose_precision(name, self.device)
        self.is_restored = True

    def save(self, path: str | Path) -> None:
        """Write the state to a ``.pt`` file of tensors and plain values.

        Parameters
        ----------
        path : path
            The file; it is written completely or not at all.

        Raises
        ------
        WriteError
            The disk is full, or there is no permission to write.
        """
        head = {"format": STATE_FORMAT, "format_version": STATE_VERSION}
        save_values(path, head | self.to_dict())

    def load(self, path: str | Path) -> None:
        """Read a file that `save` wrote.

        Parameters
        ----------
        path : path
            The file.

        Raises
        ------
        AstromorphError
            The file is missing, damaged or pickled, or the saved state has other parts,
            which the message names.
        """
        values = load_values(path, STATE_FORMAT, STATE_VERSION, REMEDY, verify=True)
        try:
            self.restore(values)
        except (RuntimeError, ValueError, KeyError, TypeError) as error:
            reason = " ".join(str(error).split())[:300]
            raise AstromorphError(
                f"{path}: it does not match this trainer ({reason}); create a trainer "
                f"with the same arguments as the one that wrote it, {REMEDY}"
            ) from None

    def _part_names(self) -> dict[str, str]:
        """Names of the parts that are not saved and must be the same when restoring."""
        norm = None if self.scales_images else self.byol.normalization_function
        return {
            "optimizer": _name(self.optimizer),
            "lr_scheduler": _name(self.lr_scheduler),
            "normalization_function": _name(norm),
            "auxiliary_task": _name(self.auxiliary_task),
        }


def _gpu_random_state(device: torch.device) -> Tensor | None:
    """State of the random number generator of a GPU, which dropout uses there."""
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else None


def _name(part: Any) -> str:
    """The name of a function, or of an object's class."""
    if part is None:
        return "none"
    return str(getattr(part, "__qualname__", type(part).__qualname__))
