"""The training loop, and the loss that it minimises."""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from astromorph import distributed
from astromorph.byol.byol import BYOL
from astromorph.byol.optimise import moving_average_decay
from astromorph.datasets.tensor_datasets import ImageSet
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

Report = Callable[[int, float, float, float, float], float]


def run_training_loop(
    objective: nn.Module,
    state: TrainingState,
    batches: TrainingBatches,
    views: Views,
    schedule: "Schedule",
    epochs: int,
    report: Report,
    after_step: Callable[[], None],
) -> None:
    """Train until a number of epochs is reached, from wherever `state` is.

    Parameters
    ----------
    objective : nn.Module
        An `Objective`, wrapped where several processes train together.
    state : TrainingState
        The networks, the optimizer and the progress; all of them are changed.
    batches : TrainingBatches
        The images in the order in which they are used.
    views : Views
        Two random views of each image.
    schedule : Schedule
        Learning rate and decay of the moving average at each step.
    epochs : int
        The number of epochs at the end.
    report : callable
        Called after each epoch with its number, both losses, the learning rate and
        the decay; returns the loss that `ReduceLROnPlateau` watches.
    after_step : callable
        Called after each step, to write a checkpoint or to stop by an exception.
    """
    byol, optimizer, progress = state.byol, state.optimizer, state.progress
    while progress.epoch < epochs:
        objective.train()
        # A training that was interrupted within an epoch starts at its next batch.
        for batch in batches.remaining(progress):
            # The random numbers of a step follow from the seed and the step alone, so
            # that a resumed training has the same views as an uninterrupted one.
            view_1, view_2 = views.at_step(progress.step, batch.images)

            # One forward pass of the encoder for BYOL's loss and the auxiliary task.
            with explaining_channels(byol.encoder, view_1.shape[1]), state.autocast():
                loss, losses = objective(view_1, view_2, batch.simulated)

            schedule.set_learning_rate(progress.step)
            optimizer.zero_grad(set_to_none=True)
            # Gradients are averaged over the processes, whose parts of the batch may
            # differ by one image: weighted, the average is that of the whole batch.
            (loss * batch.weight).backward()
            optimizer.step()

            # The target gets no gradient: it is a slow average of the online network.
            byol.update_moving_average(schedule.decay(progress.step))

            progress.finish_step(losses, batch.local_size, batch.size)
            after_step()

        train_loss, auxiliary_loss = progress.finish_epoch(len(batches.images))
        check_finite_loss(train_loss)
        # Evaluation mode needs running statistics, which few steps leave unsettled.
        remeasure_after_few_steps(byol, batches, progress.step)
        rate, decay = schedule.learning_rate, schedule.decay(progress.step)
        watched = report(progress.epoch, train_loss, auxiliary_loss, rate, decay)
        schedule.finish_epoch(watched)


class Objective(nn.Module):
    """The loss that is minimised: BYOL's, plus that of the auxiliary task.

    One module, because processes that train together average the gradients of one
    module's forward pass.

    Parameters
    ----------
    byol : BYOL
        Online and target network.
    auxiliary_task : AuxiliaryTask, optional
        What the encoder learns from simulated images.
    auxiliary_weight : float
        Weight of the auxiliary task's loss; BYOL's has the weight 1.
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
            Which simulated images these are.

        Returns
        -------
        loss : Tensor, shape ()
            The weighted sum of both losses.
        losses : Tensor, shape (2,)
            BYOL's loss and the auxiliary task's, without gradient; the second is 0
            where there is none.
        """
        byol_loss, embeddings = self.byol.loss_and_embeddings(view_1, view_2)
        if self.auxiliary_task is None or simulated is None:
            return byol_loss, _detached(byol_loss, torch.zeros_like(byol_loss))
        of_simulated = [part[-len(simulated) :] for part in embeddings.chunk(2)]
        auxiliary_loss = self.auxiliary_task(
            torch.cat(of_simulated), simulated.repeat(2)
        )
        loss = byol_loss + self.auxiliary_weight * auxiliary_loss
        return loss, _detached(byol_loss, auxiliary_loss)


class Schedule:
    """Learning rate and decay of the moving average over a training.

    Parameters
    ----------
    optimizer : torch.optim.Optimizer
        Its learning rates are set.
    base_rates : list of float
        Learning rate of each of its parameter groups, before the factor.
    factor : callable, optional
        ``factor(step, steps)`` multiplies the base rates at each step.
    lr_scheduler : LRScheduler, optional
        Changes the learning rate after each epoch.
    start_decay : float
        Decay at the first step; it rises to 1 at the last.
    steps : int, optional
        Steps of the whole training. Without it, neither changes by step.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        base_rates: list[float],
        factor: Callable[[int, int], float] | None,
        lr_scheduler: LRScheduler | None,
        start_decay: float,
        steps: int | None,
    ) -> None:
        self.optimizer = optimizer
        self.base_rates = base_rates
        self.factor = factor
        self.lr_scheduler = lr_scheduler
        self.start_decay = start_decay
        self.steps = steps

    @property
    def learning_rate(self) -> float:
        """The present learning rate of the first parameter group."""
        return float(self.optimizer.param_groups[0]["lr"])

    def set_learning_rate(self, step: int) -> None:
        """Set the learning rates of a step, counted from 0."""
        if self.factor is None or self.steps is None:
            return
        factor = self.factor(step, self.steps)
        groups = self.optimizer.param_groups
        for group, rate in zip(groups, self.base_rates, strict=True):
            group["lr"] = factor * rate

    def decay(self, step: int) -> float:
        """Decay of the moving average after a step, counted from 0."""
        if self.steps is None:
            return self.start_decay
        return moving_average_decay(step, self.steps, self.start_decay)

    def finish_epoch(self, loss: float) -> None:
        """Let `lr_scheduler` set the learning rate of the next epoch.

        Parameters
        ----------
        loss : float
            What `ReduceLROnPlateau` watches.
        """
        if isinstance(self.lr_scheduler, ReduceLROnPlateau):
            self.lr_scheduler.step(loss)
        elif self.lr_scheduler is not None:
            self.lr_scheduler.step()


@torch.no_grad()
def compute_mean_loss(
    state: TrainingState, views: Views, images: ImageSet, batch_size: int
) -> float:
    """BYOL's loss in evaluation mode, mean over images.

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
        N images, each embedded in its own size.
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


def wrap_objective(
    objective: Objective, device: torch.device, compile: bool
) -> nn.Module:
    """An objective that processes train together, and that torch may compile."""
    wrapped = distributed.wrap_for_training(objective, device)
    if not compile:
        return wrapped
    compiled: nn.Module = torch.compile(wrapped)  # type: ignore[assignment]
    return compiled


def check_finite_loss(loss: float) -> None:
    """Stop a training that has diverged.

    Raises
    ------
    AstromorphError
        The loss is infinite or NaN.
    """
    if not math.isfinite(loss):
        raise AstromorphError(
            f"training: the loss is {loss}; set a smaller `learning_rate`, or look for "
            "images with extreme values: their largest and smallest pixels"
        )


def _detached(byol_loss: Tensor, auxiliary_loss: Tensor) -> Tensor:
    return torch.stack([byol_loss, auxiliary_loss]).detach()
