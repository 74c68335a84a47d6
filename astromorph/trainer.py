"""The training loop, and `ByolTrainer` for people who bring their own parts."""

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler

from astromorph import distributed, metrics
from astromorph.augment import SkyAugmentation
from astromorph.byol import BYOL
from astromorph.datasets import FEWEST_PER_BATCH, CachedDataset, ImageSet
from astromorph.devices import choose_device, choose_precision, fits, on_device
from astromorph.errors import AstromorphError
from astromorph.history import Epoch, announce_collapse, report, scalars
from astromorph.optimise import adamw, moving_average_decay, warm_up_cosine
from astromorph.progress import track

if TYPE_CHECKING:
    from astromorph.teacher import Teacher

MOST_WATCHED, FEWEST_WATCHED = 512, 64  # images whose embeddings are measured
TEST_SEED = 1_000_003  # views of the test images are the same in every epoch


class Learner(nn.Module):
    """What is trained: BYOL and, where there are lessons, their teacher.

    Parameters
    ----------
    byol : BYOL
        Online and target networks.
    teacher : Teacher, optional
        Knows the simulated images.
    lesson_weight : float
        Of the teacher's loss against BYOL's.
    """

    def __init__(
        self, byol: BYOL, teacher: "Teacher | None" = None, lesson_weight: float = 0.0
    ) -> None:
        super().__init__()
        self.byol = byol
        self.teacher = teacher
        self.lesson_weight = lesson_weight

    def forward(
        self, view_1: Tensor, view_2: Tensor, lessons: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The loss of two views of some images.

        Parameters
        ----------
        view_1, view_2 : Tensor, shape (N, C, H, W)
            The last K of them are simulated.
        lessons : Tensor, shape (K,), int64, optional
            Numbers of the simulated images.

        Returns
        -------
        loss, byol_loss, lesson_loss : Tensor, shape ()
            The first is the weighted sum of the others.
        """
        views = torch.cat([view_1, view_2])
        embeddings = self.byol.encoder(views)
        byol_loss = self.byol.compare(embeddings, views)
        if self.teacher is None or lessons is None:
            return byol_loss, byol_loss, torch.zeros_like(byol_loss)
        known = [part[-len(lessons) :] for part in embeddings.chunk(2)]
        lesson_loss = self.teacher(torch.cat(known), lessons.repeat(2))
        return byol_loss + self.lesson_weight * lesson_loss, byol_loss, lesson_loss


class ByolTrainer:
    """BYOL with a ready loop, and every part of it exchangeable.

    Parameters
    ----------
    byol : BYOL
        Encoder, heads and loss.
    augmentation_function : callable, optional
        Images `(N, C, H, W)` to one view of each; called twice per step. By
        default `SkyAugmentation`, drawing from `seed`.
    optimizer : callable, optional
        ``optimizer(byol, learning_rate)`` gives a torch optimizer. By default
        AdamW without decay on biases and norms.
    learning_rate : float
        Handed to `optimizer`.
    lr_scheduler : callable, optional
        ``lr_scheduler(optimizer, **lr_scheduler_options)``; stepped after each
        epoch.
    lr_scheduler_options : dict, optional
        Keywords for `lr_scheduler`.
    schedule : callable or None
        ``schedule(step, steps)`` gives the factor on the learning rate at each
        step; None leaves it, as does a `lr_scheduler`.
    decay : float
        Share of the target that is kept per step at the start.
    device : str
        ``"auto"``, ``"cpu"``, ``"cuda"``, ``"mps"``.
    precision : {'auto', 'float32', 'bfloat16'}
        Of the network's sums; `auto` measures which is faster.
    compile : bool
        Let ``torch.compile`` make the network faster.
    teacher : Teacher, optional
        Simulated images with known shapes; they make up half of each batch.
    lesson_weight : float
        Of the teacher's loss against BYOL's.
    seed : int
        Of the order of the images and of the default augmentation.

    Examples
    --------
    >>> import torch
    >>> from astromorph.networks import AstroMorphologyModel
    >>> byol = BYOL(AstroMorphologyModel(1), features=128)
    >>> trainer = ByolTrainer(byol, device="cpu")
    >>> images = torch.rand(8, 1, 32, 32)
    >>> history = trainer.train_model(images, images[:4], epochs=1, batch_size=4)
    >>> len(history)
    1
    """

    def __init__(
        self,
        byol: BYOL,
        augmentation_function: Callable[[Tensor], Tensor] | None = None,
        optimizer: Callable[[nn.Module, float], torch.optim.Optimizer] = adamw,
        learning_rate: float = 1e-3,
        lr_scheduler: Callable[..., LRScheduler] | None = None,
        lr_scheduler_options: dict[str, Any] | None = None,
        schedule: Callable[[int, int], float] | None = warm_up_cosine,
        decay: float = 0.99,
        device: str = "auto",
        seed: int = 0,
        precision: str = "auto",
        compile: bool = False,
        teacher: "Teacher | None" = None,
        lesson_weight: float = 2.0,
    ) -> None:
        self.device = choose_device(device)
        self.precision = choose_precision(precision, self.device)
        learner = Learner(byol, teacher, lesson_weight)
        learner = learner.to(self.device)
        # Convolutions are faster where the channels of a pixel lie together.
        learner = learner.to(memory_format=torch.channels_last)
        if distributed.world() > 1 and self.device.type == "cuda":
            synced: Any = nn.SyncBatchNorm.convert_sync_batchnorm(learner)  # type: ignore[no-untyped-call]
            learner = synced
        self.byol, self.teacher = learner.byol, teacher
        self.generator = torch.Generator().manual_seed(seed)
        own = torch.Generator().manual_seed(seed + 1 + distributed.rank() * 1_000_003)
        self.augment = augmentation_function or SkyAugmentation(generator=own)
        self.optimizer = optimizer(learner, learning_rate)
        self.learner = distributed.spread_over(learner, self.device)
        if compile:
            self.learner = cast(nn.Module, torch.compile(self.learner))
        self.lr_scheduler = (
            lr_scheduler(self.optimizer, **(lr_scheduler_options or {}))
            if lr_scheduler
            else None
        )
        self.schedule = None if lr_scheduler else schedule
        self.rates = [float(group["lr"]) for group in self.optimizer.param_groups]
        self.decay = decay
        self.step = 0
        self._lessons = torch.empty(0, dtype=torch.int64)
        self._lesson_images = self._kept(teacher.images) if teacher else None

    def train_model(
        self,
        train_data: Tensor | ImageSet,
        test_data: Tensor | ImageSet | None,
        epochs: int,
        batch_size: int = 128,
        log_dir: str | Path | None = None,
    ) -> list[Epoch]:
        """Train for some epochs.

        Parameters
        ----------
        train_data : Tensor, CachedDataset or NativeDataset
            Images `(N, C, H, W)` from 0 to 1, N at least 2.
        test_data : Tensor, CachedDataset, NativeDataset or None
            Images that only measure the loss.
        epochs : int
            How often each image is seen.
        batch_size : int
            Images per step.
        log_dir : path, optional
            Folder for TensorBoard scalars.

        Returns
        -------
        list of Epoch
            One per epoch.

        Raises
        ------
        AstromorphError
            There are fewer than two images, or the loss is no longer finite.
        """
        train, test = _dataset(train_data), _dataset(test_data)
        fewest = FEWEST_PER_BATCH * distributed.world()
        if train is None or len(train) < fewest:
            found = len(train) if train else 0
            raise AstromorphError(
                f"training: found {found} images; BYOL compares images of a batch and "
                f"needs at least {fewest}"
            )
        train, test = self._kept(train), self._kept(test) if test else None
        steps = epochs * sum(1 for _ in _batches(train, batch_size))
        history: list[Epoch] = []
        watched = test if test and len(test) >= FEWEST_WATCHED else train
        watched = watched.subset(range(min(len(watched), MOST_WATCHED)))
        before = self._measure(watched, batch_size)
        with scalars(log_dir if distributed.rank() == 0 else None) as write:
            for number in range(1, epochs + 1):
                losses = self.train_epoch(train, batch_size, steps)
                rate = float(self.optimizer.param_groups[0]["lr"])
                test_loss = self.test(test, batch_size) if test else None
                decay = moving_average_decay(self.step, steps, self.decay)
                measured = self._measure(watched, batch_size)
                announce_collapse(measured, before, number)
                history.append(
                    Epoch(
                        number, losses[0], test_loss, losses[1], rate, decay, *measured
                    )
                )
                write(history[-1])
                report(history[-1], epochs)
                if self.lr_scheduler:
                    self.lr_scheduler.step()
        return history

    def train_epoch(
        self, data: ImageSet, batch_size: int, steps: int
    ) -> tuple[float, float | None]:
        """See every image once, in a new order.

        Parameters
        ----------
        data : CachedDataset or NativeDataset
            The training images.
        batch_size : int
            Images per step, simulated ones not counted.
        steps : int
            Of the whole training: the moving average slows down towards them.

        Returns
        -------
        byol_loss, lesson_loss : float
            Means over the images; the second is None without lessons.
        """
        self.learner.train()
        order = torch.randperm(len(data), generator=self.generator)
        totals = torch.zeros(2, device=self.device)
        parts = list(_batches(data, batch_size, order))
        mine = (distributed.mine(part) for part in parts)
        batches = on_device(data.batch, mine, self.device)
        for part in track(parts, len(parts), "batches"):
            here, batch = next(batches)
            lessons = self._next_lessons(len(part))
            if self._lesson_images is not None and lessons is not None:
                known = self._lesson_images.batch(lessons).to(self.device)
                batch = torch.cat([batch, _resized(known, batch)])
            views = [_channels_last(self.augment(batch)) for _ in range(2)]
            with self.precision.autocast(self.device):
                loss, *both = self.learner(*views, lessons)
            self._update(loss * distributed.weight(len(here), len(part)), steps)
            totals += torch.stack(both).detach() * len(here)
        byol_loss, lesson_loss = (distributed.total(totals) / len(data)).tolist()
        return _finite(byol_loss), lesson_loss if self.teacher is not None else None

    def _update(self, loss: Tensor, steps: int) -> None:
        """One step of the optimizer, then of the target."""
        if self.schedule is not None:
            factor = self.schedule(self.step, steps)
            groups = self.optimizer.param_groups
            for group, rate in zip(groups, self.rates, strict=True):
                group["lr"] = factor * rate
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        decay = moving_average_decay(self.step, steps, self.decay)
        self.byol.update_moving_average(decay)
        self.step += 1

    def _next_lessons(self, number: int) -> Tensor | None:
        """Numbers of the simulated images of this step; each comes in its turn."""
        if self.teacher is None:
            return None
        while len(self._lessons) < number:
            order = torch.randperm(len(self.teacher), generator=self.generator)
            self._lessons = torch.cat([self._lessons, order])
        chosen, self._lessons = self._lessons[:number], self._lessons[number:]
        return distributed.mine(chosen)

    def _kept(self, data: ImageSet) -> ImageSet:
        """Images in the device's memory, where they fit."""
        if isinstance(data, CachedDataset) and fits(data.images, self.device):
            return CachedDataset(data.images.to(self.device), data.stacksize)
        return data

    @torch.no_grad()
    def test(self, data: ImageSet, batch_size: int) -> float:
        """Mean loss of images in evaluation mode; training goes on unaffected.

        With the default augmentation, the views are the same at every call.
        """
        self.byol.eval()
        augment = self.augment
        if isinstance(augment, SkyAugmentation):
            fixed = torch.Generator().manual_seed(TEST_SEED)
            augment = SkyAugmentation(augment.settings, fixed, augment.stacksize)
        total = 0.0
        for indices in _batches(data, batch_size):
            images = data.batch(indices).to(self.device)
            views = [_channels_last(augment(images)) for _ in range(2)]
            with self.precision.autocast(self.device):
                loss = self.byol.loss(*views)
            total += float(loss) * len(indices)
        self.byol.train()
        return total / len(data)

    @torch.no_grad()
    def _measure(self, data: ImageSet, batch_size: int) -> tuple[float, float]:
        """Effective rank and spread of the embeddings of some images."""
        parts = [self.forward(data.batch(k)) for k in data.batches(batch_size)]
        vectors = torch.cat(parts).numpy()
        if not np.isfinite(vectors).all():
            return math.nan, math.nan
        return metrics.rank_me(vectors), metrics.spread(vectors)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Embeddings `(N, D)`, float32 on the CPU, of images `(N, C, H, W)`."""
        training = self.byol.training
        embeddings: Tensor = self.byol.eval()(images.to(self.device)).float().cpu()
        self.byol.train(training)
        return embeddings


def _batches(
    data: ImageSet, batch_size: int, order: Tensor | None = None
) -> Iterator[Tensor]:
    return data.batches(batch_size, order, FEWEST_PER_BATCH * distributed.world())


def _dataset(data: Tensor | ImageSet | None) -> ImageSet | None:
    if isinstance(data, Tensor):
        data = CachedDataset(data)
    return data if data is not None and len(data) else None


def _finite(loss: float) -> float:
    if math.isfinite(loss):
        return loss
    raise AstromorphError(
        f"training: the loss is {loss}; set a smaller `learning_rate`, or look for "
        "images with extreme values in the tables beside the tensors"
    )


def _channels_last(images: Tensor) -> Tensor:
    return images.contiguous(memory_format=torch.channels_last)


def _resized(images: Tensor, like: Tensor) -> Tensor:
    """Simulated images in the size of a batch of images of their own sizes."""
    if images.shape[2:] == like.shape[2:]:
        return images
    return nn.functional.interpolate(
        images, size=like.shape[2:], mode="bilinear", antialias=True
    )
