"""The training loop, the objective that it minimises, and the test loss."""

import logging
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from astromorph import distributed
from astromorph.byol.byol import BYOL
from astromorph.byol.optimise import Schedule
from astromorph.datasets.tensor_datasets import ImageSet
from astromorph.devices import Precision
from astromorph.errors import AstromorphError
from astromorph.models.encoders import explaining_channels
from astromorph.training.batch_norm import remeasure_after_few_steps
from astromorph.training.batches import (
    TrainingBatches,
    Views,
    batch_indices,
    evaluation_mode,
)
from astromorph.training.state import TrainingState

if TYPE_CHECKING:  # the simulated images need more packages than the loop
    from astromorph.training.auxiliary_task import AuxiliaryTask

LOG = logging.getLogger(__name__)


def run_training_loop(
    objective: nn.Module,
    state: TrainingState,
    batches: TrainingBatches,
    views: Views,
    schedule: Schedule,
    epochs: int,
    report: Callable[[int, float, float, float, float], float],
    after_step: Callable[[], None],
) -> None:
    """Continue training from `state` until it has completed `epochs` epochs.

    `objective` is an `Objective`, wrapped if several processes train together.
    `report` receives the number of an epoch, both losses, learning rate and decay, and
    returns the loss that `ReduceLROnPlateau` monitors. `after_step` writes checkpoints,
    or raises an exception to stop the training.
    """
    byol, optimizer, progress = state.byol, state.optimizer, state.progress
    while progress.epoch < epochs:
        objective.train()
        # Training that was interrupted within an epoch continues with its next batch.
        for batch in batches.remaining(progress):
            # Only the seed and the step determine the random numbers of a step, so that
            # resumed training has the same views as uninterrupted training.
            view_1, view_2 = views.at_step(progress.step, batch.images)

            # One forward pass of the encoder for BYOL's loss and the auxiliary task.
            with explaining_channels(byol.encoder, view_1.shape[1]), state.autocast():
                loss, losses = objective(view_1, view_2, batch.simulated)

            schedule.set_learning_rate(progress.step)
            optimizer.zero_grad(set_to_none=True)
            # Gradients are averaged over processes, whose parts of the batch may differ
            # by one image. The weight makes the average that of the whole batch.
            (loss * batch.weight).backward()
            optimizer.step()

            # The target gets no gradient: it is a slow average of the online network.
            byol.update_moving_average(schedule.decay(progress.step))

            progress.finish_step(losses, batch.local_size, batch.size)
            after_step()

        train_loss, auxiliary_loss = progress.mean_losses(len(batches.images))
        check_finite_loss(train_loss)
        progress.finish_epoch()
        # Evaluation mode uses running statistics, which are wrong after few steps.
        with state.autocast():
            remeasure_after_few_steps(byol, batches, progress.step)
        rate, decay = schedule.learning_rate, schedule.decay(progress.step)
        watched = report(progress.epoch, train_loss, auxiliary_loss, rate, decay)
        schedule.finish_epoch(watched)


@torch.no_grad()
def compute_mean_loss(
    state: TrainingState, views: Views, images: ImageSet, batch_size: int
) -> float:
    """BYOL's mean loss over images, in evaluation mode.

    With the default augmentation, the views are the same at every call.

    Parameters
    ----------
    state : TrainingState
        The network; it is not changed.
    views : Views
        Two views of each image.
    images : CachedDataset, MappedDataset or NativeDataset
        At least one image.
    batch_size : int
        Images at a time.

    Returns
    -------
    float
        From 0 to 8.
    """
    views = views.for_testing()
    total = 0.0
    with evaluation_mode(state.byol):
        for indices in batch_indices(images, batch_size):
            view_1, view_2 = views(images.batch(indices).to(state.device))
            with state.autocast():
                loss = state.byol.loss(view_1, view_2)
            total += float(loss) * len(indices)
    return total / len(images)


@torch.no_grad()
def compute_embeddings(byol: BYOL, images: ImageSet, batch_size: int) -> Tensor:
    """Embeddings `(N, D)` of images in evaluation mode, float32, on the CPU.

    Parameters
    ----------
    byol : BYOL
        The network; it is not changed.
    images : CachedDataset, MappedDataset or NativeDataset
        N images, each embedded at its own size.
    batch_size : int
        Images at a time.
    """
    device = next(byol.parameters()).device
    embeddings = torch.empty(len(images), byol.representation_size)
    with evaluation_mode(byol):
        for indices in images.batches(batch_size):
            batch = images.batch(indices).to(device)
            embeddings[indices] = byol(batch).float().cpu()
    return embeddings


def check_finite_loss(loss: float) -> None:
    """Raise an error if training has diverged.

    Raises
    ------
    AstromorphError
        The loss is infinite or NaN.
    """
    if not math.isfinite(loss):
        raise AstromorphError(
            f"training: the loss is {loss}; set a smaller `learning_rate`, or look for "
            "images with extremely large or small pixel values"
        )


class Objective(nn.Module):
    """The loss that is minimised: that of BYOL plus that of the auxiliary task.

    It is a single module, because distributed training averages the gradients of one
    module's forward pass.

    Parameters
    ----------
    byol : BYOL
        Online and target network.
    auxiliary_task : AuxiliaryTask, optional
        The prediction task on simulated images.
    auxiliary_weight : float
        Weight of the loss of the auxiliary task; that of BYOL has weight 1.
    """

    def __init__(
        self,
        byol: BYOL,
        auxiliary_task: "AuxiliaryTask | None" = None,
        auxiliary_weight: float = 0.0,
    ) -> None:
        super().__init__()
        self.byol = byol
        self.auxiliary_task = auxiliary_task
        self.auxiliary_weight = auxiliary_weight

    def forward(
        self, view_1: Tensor, view_2: Tensor, simulated: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """The loss of two views of a batch.

        Parameters
        ----------
        view_1, view_2 : Tensor, shape (N, C, H, W)
            One view of each image; the last K images are simulated.
        simulated : Tensor, shape (K,), int64, optional
            Indices of the simulated images.

        Returns
        -------
        loss : Tensor, shape ()
            The weighted sum of both losses.
        losses : Tensor, shape (2,)
            The losses of BYOL and of the auxiliary task, without gradient; the second
            is 0 if there is no such task.
        """
        byol_loss, embeddings = self.byol.loss_and_embeddings(view_1, view_2)
        if self.auxiliary_task is None or simulated is None:
            return byol_loss, _detached(byol_loss, torch.zeros_like(byol_loss))
        simulated_parts = [part[-len(simulated) :] for part in embeddings.chunk(2)]
        auxiliary_loss = self.auxiliary_task(
            torch.cat(simulated_parts), simulated.repeat(2)
        )
        loss = byol_loss + self.auxiliary_weight * auxiliary_loss
        return loss, _detached(byol_loss, auxiliary_loss)


def _detached(byol_loss: Tensor, auxiliary_loss: Tensor) -> Tensor:
    return torch.stack([byol_loss, auxiliary_loss]).detach()


def place_objective(objective: Objective, device: torch.device) -> Objective:
    """Move the networks to a device, in the memory layout that is fastest there."""
    objective = objective.to(device)
    # Convolutions are faster if the channels of a pixel are adjacent in memory.
    objective = objective.to(memory_format=torch.channels_last)
    if distributed.world_size() > 1 and device.type == "cuda":
        synced: Any = nn.SyncBatchNorm.convert_sync_batchnorm(objective)  # type: ignore[no-untyped-call]
        objective = synced
    return objective


def wrap_objective(
    objective: Objective, device: torch.device, compile: bool
) -> nn.Module:
    """The objective, wrapped for distributed training and compiled if requested."""
    wrapped = distributed.wrap_for_training(objective, device)
    if not compile:
        return wrapped
    compiled: nn.Module = torch.compile(wrapped)  # type: ignore[assignment]
    return compiled


def agree_on_precision(precision: Precision) -> Precision:
    """bfloat16 if all processes chose it, else float32."""
    is_fast = distributed.all_agree(precision.dtype == torch.bfloat16)
    return Precision(torch.bfloat16 if is_fast else torch.float32)


def warn_of_separate_processes() -> None:
    """Log a warning if several processes were started but do not train together."""
    number = distributed.unjoined_processes()
    if number > 1:
        LOG.warning(
            "%d processes were started, but each trains separately and writes the same "
            "files; put the program into `with astromorph.distributed.process_group"
            "(%d):`",
            *(number, number),
        )
