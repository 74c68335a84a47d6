"""The steps of a training: views, loss, optimizer, target; epoch by epoch."""

import logging
import math
from collections.abc import Callable
from copy import copy
from typing import Any

import torch
from torch import Tensor, nn

from astromorph import distributed
from astromorph.byol.augment import SkyAugmentation
from astromorph.byol.byol import make_view
from astromorph.byol.optimise import moving_average_decay
from astromorph.datasets.tensor_datasets import ImageSet, to_image_set
from astromorph.devices import prefetch_to_device
from astromorph.errors import AstromorphError
from astromorph.models.encoders import MinMaxNorm, explaining_channels
from astromorph.progress import track
from astromorph.training.batch_norm import FEW_STEPS, remeasure_after_few_steps
from astromorph.training.batches import (
    ShuffledCycle,
    batches,
    channels_last,
    check_finite,
    evaluation_mode,
    is_unit_range,
    random_generator,
    resize_like,
    scale_to_unit_range,
)
from astromorph.training.state import Resumable
from astromorph.training.trainer_parts import Schedule, Views

LOG = logging.getLogger(__name__)
ORDER, LESSONS, VIEWS = 1, 2, 3  # what random numbers are for
TEST_SEED = 1_000_003  # views of the test images are the same in every epoch


class Steps(Resumable):
    """One epoch, one step, one test of a training.

    Attributes
    ----------
    learner : nn.Module
        BYOL and teacher, as the optimizer trains them.
    augment : callable
        Images to one view of each.
    schedule : callable or None
        Factor on the learning rate by step and number of steps.
    rates : list of float
        The learning rate of each group of parameters, before that factor.
    lesson_images : CachedDataset, MappedDataset, NativeDataset or None
        The teacher's images.
    turns : Turns or None
        When each of them comes.
    seed : int
        Of order and views.
    """

    learner: nn.Module
    augment: Views
    schedule: Schedule | None
    rates: list[float]
    lesson_images: ImageSet | None
    turns: ShuffledCycle | None
    seed: int

    def _one_epoch(
        self,
        data: ImageSet,
        batch_size: int,
        steps: int | None,
        after_step: Callable[[Any], None] | None,
    ) -> tuple[float, float | None]:
        """The rest of an epoch; mean losses over all of its images."""
        self.learner.train()
        order = torch.randperm(
            len(data), generator=random_generator(self.seed, ORDER, self.epoch)
        )
        parts = list(batches(data, batch_size, order))[self.done :]
        mine = (distributed.local_part(part) for part in parts)
        prepared = prefetch_to_device(data.batch, mine, self.device)
        for part in track(parts, len(parts), "batches"):
            here, batch = next(prepared)
            lessons = self._next_lessons(len(part))
            if self.lesson_images is not None and lessons is not None:
                known = self.lesson_images.batch(lessons).to(self.device)
                batch = torch.cat([batch, resize_like(known, batch)])
            views = self._views(batch)
            with (
                explaining_channels(self.byol.encoder, views[0].shape[1]),
                self.precision.autocast(self.device),
            ):
                loss, *both = self.learner(*views, lessons)
            self._update(loss * distributed.loss_weight(len(here), len(part)), steps)
            self.totals += torch.stack(both).detach() * len(here)
            self.done += 1
            if after_step is not None:
                after_step(self)
        byol_loss, lesson_loss = (
            distributed.all_reduce_sum(self.totals) / len(data)
        ).tolist()
        self.totals, self.done = torch.zeros_like(self.totals), 0
        finite(byol_loss)
        self.epoch += 1
        self._settle(data, batch_size)
        return byol_loss, lesson_loss if self.teacher is not None else None

    def _settle(self, data: ImageSet, batch_size: int) -> None:
        """After few steps, batch norm's running statistics are measured anew."""
        if self.step < FEW_STEPS:
            with explaining_channels(self.byol.encoder, data.channels):
                remeasure_after_few_steps(self.byol, data, batch_size, self.device)

    def _views(self, images: Tensor) -> list[Tensor]:
        """Two views of each image, the same whenever this step is done."""
        if isinstance(self.augment, SkyAugmentation):
            self.augment.generator = random_generator(
                self.seed, VIEWS, self.step, distributed.rank()
            )
        return [channels_last(make_view(self.augment, images)) for _ in range(2)]

    def _decay(self, steps: int | None) -> float:
        start = self.byol.moving_average_decay
        return start if steps is None else moving_average_decay(self.step, steps, start)

    def _update(self, loss: Tensor, steps: int | None) -> None:
        """One step of the optimizer, then of the target."""
        if self.schedule is not None and steps is not None:
            factor = self.schedule(self.step, steps)
            groups = self.optimizer.param_groups
            for group, rate in zip(groups, self.rates, strict=True):
                group["lr"] = factor * rate
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self.byol.update_moving_average(self._decay(steps))
        self.step += 1

    def _next_lessons(self, number: int) -> Tensor | None:
        """Numbers of the simulated images of this step, here."""
        if self.turns is None:
            return None
        chosen = self.turns.take(self.lessons_seen, number)
        self.lessons_seen += number
        return distributed.local_part(chosen)

    def _images(self, data: Any) -> ImageSet | None:
        """Images that a user gave, from 0 to 1 where the augmentation needs that."""
        images = to_image_set(data)
        if images is None or data is images:
            return images
        if not isinstance(self.augment, SkyAugmentation):
            if self.byol.normalization_function is None:
                check_finite(images.images)  # type: ignore[union-attr]
            return images
        if is_unit_range(images):
            return images
        if self.byol.normalization_function is None:
            LOG.warning(
                "the images are not from 0 to 1, as the default augmentation needs "
                "them; `MinMaxNorm` is put before the network"
            )
            self.byol.normalization_function = MinMaxNorm()
            self.normalises = True
        return scale_to_unit_range(images)

    @torch.no_grad()
    def _loss_of(self, data: ImageSet, batch_size: int) -> float:
        """Mean loss in evaluation mode, of views that are the same at every call."""
        augment = self.augment
        if isinstance(augment, SkyAugmentation):
            augment = copy(augment)
            augment.generator = torch.Generator().manual_seed(TEST_SEED)
        total = 0.0
        with evaluation_mode(self.byol):
            for indices in batches(data, batch_size):
                images = data.batch(indices).to(self.device)
                views = [channels_last(make_view(augment, images)) for _ in range(2)]
                with self.precision.autocast(self.device):
                    loss = self.byol.loss(*views)
                total += float(loss) * len(indices)
        return total / len(data)

    @torch.no_grad()
    def _embeddings(self, images: Tensor) -> Tensor:
        """Embeddings of a batch in evaluation mode, float32, on the CPU."""
        with evaluation_mode(self.byol):
            found: Tensor = self.byol(images.to(self.device))
        return found.float().cpu()


def finite(loss: float) -> None:
    """Refuse a loss that is none."""
    if not math.isfinite(loss):
        raise AstromorphError(
            f"training: the loss is {loss}; set a smaller `learning_rate`, or look for "
            "images with extreme values: their largest and smallest pixels"
        )
