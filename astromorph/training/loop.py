"""The training loop, and what it measures without learning."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from astromorph.byol.byol import BYOL
from astromorph.byol.optimise import Schedule
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
    """Train until `state` has a number of epochs, from wherever it is.

    `objective` is an `Objective`, wrapped where several processes train together.
    `report` receives the number of an epoch, both losses, learning rate and decay, and
    returns the loss that `ReduceLROnPlateau` watches. `after_step` writes checkpoints,
    or stops the training by an exception.
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
