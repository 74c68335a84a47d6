"""The training loop, and `ByolTrainer` for people who bring their own parts."""

import logging
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler

from astromorph import distributed, metrics
from astromorph.augment import SkyAugmentation
from astromorph.batching import FEWEST_PER_BATCH
from astromorph.byol import BYOL
from astromorph.cache import load_plain, save_plain
from astromorph.datasets import (
    CachedDataset,
    ImageSet,
    NativeDataset,
    images_of,
)
from astromorph.devices import (
    Precision,
    choose_device,
    choose_precision,
    fits,
    on_device,
)
from astromorph.errors import AstromorphError
from astromorph.history import Epoch, announce_collapse, report, scalars
from astromorph.learner import Learner
from astromorph.networks import MinMaxNorm
from astromorph.optimise import (
    adamw,
    moving_average_decay,
    parameter_groups,
    warm_up_cosine,
)
from astromorph.progress import track

if TYPE_CHECKING:
    from astromorph.teacher import Teacher

LOG = logging.getLogger(__name__)
MOST_WATCHED, FEWEST_WATCHED = 512, 64  # images whose embeddings are measured
TEST_SEED = 1_000_003  # views of the test images are the same in every epoch
ORDER, LESSONS, VIEWS = 1, 2, 3  # what random numbers are for
TRAINER_FORMAT, TRAINER_VERSION = "astromorph-trainer", 1
REMEDY = "begin the training again, or name another file"


class ByolTrainer(nn.Module):
    """BYOL with a ready loop, and every part of it exchangeable.

    All random numbers of the loop follow from the seed and the number of the step,
    so that a training that went on from a saved state is the same as one that was
    never interrupted. (Those of an own augmentation are its own.)

    Parameters
    ----------
    network : nn.Module or BYOL
        Any network for images `(N, C, H, W)`, or a BYOL around one.
    hidden_layer : int or str, optional
        The layer whose output is the features; see `BYOL`.
    representation_size : int, optional
        Length D of an embedding; by default the number of features.
    augmentation_function : callable, optional
        Images `(N, C, H, W)` to one view of each; called twice per step. By
        default `SkyAugmentation`, which wants images from 0 to 1: where they are
        not, they are brought there by `MinMaxNorm`, and a warning says so.
    optimizer : callable
        ``optimizer(parameters, lr=learning_rate)``, such as a class of
        ``torch.optim``. `parameters` are two groups, of which the second, biases and
        norms, has no weight decay. By default AdamW.
    normalization_function : callable, optional
        Applied to images and views before the network; see `BYOL`.
    learning_rate : float
        Handed to `optimizer`.
    lr_scheduler : callable, optional
        ``lr_scheduler(optimizer, **lr_scheduler_options)``; stepped after each
        epoch.
    lr_scheduler_options : dict, optional
        Keywords for `lr_scheduler`.
    device : str
        ``"auto"``, ``"cpu"``, ``"cuda"``, ``"mps"``.
    schedule : callable or None
        ``schedule(step, steps)`` gives the factor on the learning rate at each
        step; None leaves it, as does a `lr_scheduler`.
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
    **byol_options
        Further keywords of `BYOL`: `loss_fn`, `projection_size`,
        `projection_hidden_size`, `use_momentum`, `moving_average_decay` (tau at the
        first step; it rises to 1), `image_shape`.

    Attributes
    ----------
    byol : BYOL
        What is trained.
    optimizer : torch.optim.Optimizer
        What `optimizer` made.
    device : torch.device
        Where it is trained.
    history : list of Epoch
        Of the training that runs, or ran last.

    Raises
    ------
    ValueError
        A layer does not exist (the message lists those that do), the network cannot
        be tried, or options are given twice.

    Examples
    --------
    >>> import torch
    >>> from astromorph.networks import AstroMorphologyModel
    >>> trainer = ByolTrainer(AstroMorphologyModel(1), device="cpu")
    >>> images = torch.rand(8, 1, 32, 32)
    >>> history = trainer.train_model(images, images[:4], epochs=1, batch_size=4)
    >>> len(history)
    1
    >>> trainer(images).shape
    torch.Size([8, 128])
    """

    learner: nn.Module

    def __init__(
        self,
        network: nn.Module,
        hidden_layer: int | str | None = None,
        representation_size: int | None = None,
        augmentation_function: Callable[[Tensor], Tensor] | None = None,
        optimizer: Callable[..., torch.optim.Optimizer] | None = None,
        normalization_function: Callable[[Tensor], Tensor] | None = None,
        learning_rate: float = 1e-3,
        lr_scheduler: Callable[..., LRScheduler] | None = None,
        lr_scheduler_options: dict[str, Any] | None = None,
        device: str = "auto",
        *,
        schedule: Callable[[int, int], float] | None = warm_up_cosine,
        precision: str = "auto",
        compile: bool = False,
        teacher: "Teacher | None" = None,
        lesson_weight: float = 2.0,
        seed: int = 0,
        **byol_options: Any,
    ) -> None:
        super().__init__()
        options = byol_options | {
            "hidden_layer": hidden_layer,
            "representation_size": representation_size,
            "normalization_function": normalization_function,
        }
        byol = _byol(network, options)
        self.device = choose_device(device)
        self.precision = _agreed(choose_precision(precision, self.device))
        learner = Learner(byol, teacher, lesson_weight).to(self.device)
        # Convolutions are faster where the channels of a pixel lie together.
        learner = learner.to(memory_format=torch.channels_last)
        if distributed.world() > 1 and self.device.type == "cuda":
            synced: Any = nn.SyncBatchNorm.convert_sync_batchnorm(learner)  # type: ignore[no-untyped-call]
            learner = synced
        self.byol, self.teacher = learner.byol, learner.teacher
        self.seed = seed
        self.augment = augmentation_function or SkyAugmentation(
            generator=torch.Generator()
        )
        self.optimizer = (optimizer or adamw)(
            parameter_groups(learner), lr=learning_rate
        )
        spread = distributed.spread_over(learner, self.device)
        if compile:
            spread = cast(nn.Module, torch.compile(spread))
        # Not a child of this module, whose children it holds.
        object.__setattr__(self, "learner", spread)
        self.lr_scheduler = (
            lr_scheduler(self.optimizer, **(lr_scheduler_options or {}))
            if lr_scheduler
            else None
        )
        self.schedule = None if lr_scheduler else schedule
        self.rates = [float(group["lr"]) for group in self.optimizer.param_groups]
        self._lesson_images = self._kept(teacher.images) if teacher else None
        self._lesson_order = (-1, torch.empty(0, dtype=torch.int64))
        self._begin()

    def _begin(self) -> None:
        """Where a training stands that has not begun."""
        self.step = self.epoch = self.done = self.lessons_seen = 0
        self.totals = torch.zeros(2, device=self.device)
        self.history: list[Epoch] = []
        self.before: tuple[float, float] | None = None

    def train_model(
        self,
        train_data: Any,
        test_data: Any = None,
        epochs: int = 10,
        batch_size: int = 128,
        log_dir: str | Path | None = None,
        save_file: str | Path | None = None,
        *,
        resume: bool = False,
        after_step: Callable[["ByolTrainer"], None] | None = None,
    ) -> list[Epoch]:
        """Train for some epochs.

        Parameters
        ----------
        train_data : Tensor, Dataset, DataLoader or sequence
            At least two images; see `astromorph.datasets.images_of`. They are taken
            into memory, and batches are made here, of images of like size.
        test_data : Tensor, Dataset, DataLoader, sequence or None
            Images that only measure the loss.
        epochs : int
            How often each image is seen.
        batch_size : int
            Images per step, simulated ones not counted.
        log_dir : path, optional
            Folder for TensorBoard scalars.
        save_file : path, optional
            Where `save` writes at the end.
        resume : bool
            Go on where a saved state was, with the same data and options; `epochs`
            is then the number of all.
        after_step : callable, optional
            Called with this object after each step, to save it or to stop it by an
            exception.

        Returns
        -------
        list of Epoch
            One per epoch.

        Raises
        ------
        AstromorphError
            There are fewer than two images, or the loss is no longer finite.
        """
        train, test = self._images(train_data), self._images(test_data)
        fewest = FEWEST_PER_BATCH * distributed.world()
        if train is None or len(train) < fewest:
            found = len(train) if train else 0
            raise AstromorphError(
                f"training: found {found} images; BYOL compares images of a batch and "
                f"needs at least {fewest}"
            )
        if not resume:
            self._begin()
        train, test = self._kept(train), self._kept(test) if test else None
        steps = epochs * sum(1 for _ in _batches(train, batch_size))
        watched = test if test and len(test) >= FEWEST_WATCHED else train
        watched = watched.subset(range(min(len(watched), MOST_WATCHED)))
        if self.before is None:
            self.before = self._measure(watched, batch_size)
        with scalars(log_dir if distributed.rank() == 0 else None) as write:
            for epoch in self.history:
                write(epoch)
            while self.epoch < epochs:
                losses = self._one_epoch(train, batch_size, steps, after_step)
                self.epoch += 1
                test_loss = self.test(test, batch_size) if test else None
                measured = self._measure(watched, batch_size)
                announce_collapse(measured, self.before, self.epoch)
                self.history.append(
                    Epoch(
                        self.epoch, losses[0], test_loss, losses[1],
                        float(self.optimizer.param_groups[0]["lr"]),
                        self._decay(steps), *measured,
                    )
                )  # fmt: skip
                write(self.history[-1])
                report(self.history[-1], epochs)
                if self.lr_scheduler:
                    self.lr_scheduler.step()
        if save_file is not None and distributed.rank() == 0:
            self.save(save_file)
        return self.history

    def train_epoch(
        self, train_data: Any, batch_size: int = 128, steps: int | None = None
    ) -> float:
        """See every image once, in a new order.

        Parameters
        ----------
        train_data : Tensor, Dataset, DataLoader or sequence
            The training images.
        batch_size : int
            Images per step, simulated ones not counted.
        steps : int, optional
            Of the whole training, for `schedule` and the moving average. By default
            both stay as they begin.

        Returns
        -------
        float
            BYOL's loss, mean over the images.
        """
        images = self._images(train_data)
        if images is None:
            raise AstromorphError("training: found 0 images; at least 2 are needed")
        loss, _ = self._one_epoch(self._kept(images), batch_size, steps, None)
        self.epoch += 1
        return loss

    def _one_epoch(
        self,
        data: ImageSet,
        batch_size: int,
        steps: int | None,
        after_step: Callable[["ByolTrainer"], None] | None,
    ) -> tuple[float, float | None]:
        """The rest of an epoch; mean losses over all of its images."""
        self.learner.train()
        order = torch.randperm(len(data), generator=self._random(ORDER, self.epoch))
        parts = list(_batches(data, batch_size, order))[self.done :]
        mine = (distributed.mine(part) for part in parts)
        batches = on_device(data.batch, mine, self.device)
        for part in track(parts, len(parts), "batches"):
            here, batch = next(batches)
            lessons = self._next_lessons(len(part))
            if self._lesson_images is not None and lessons is not None:
                known = self._lesson_images.batch(lessons).to(self.device)
                batch = torch.cat([batch, _resized(known, batch)])
            views = self._views(batch)
            with self.precision.autocast(self.device):
                loss, *both = self.learner(*views, lessons)
            self._update(loss * distributed.weight(len(here), len(part)), steps)
            self.totals += torch.stack(both).detach() * len(here)
            self.done += 1
            if after_step is not None:
                after_step(self)
        byol_loss, lesson_loss = (distributed.total(self.totals) / len(data)).tolist()
        self.totals, self.done = torch.zeros_like(self.totals), 0
        return _finite(byol_loss), lesson_loss if self.teacher is not None else None

    def _views(self, images: Tensor) -> list[Tensor]:
        """Two views of each image, the same whenever this step is done."""
        if isinstance(self.augment, SkyAugmentation):
            self.augment.generator = self._random(VIEWS, self.step, distributed.rank())
        return [_channels_last(self.augment(images)) for _ in range(2)]

    def _random(self, *purpose: int) -> torch.Generator:
        """Random numbers that follow from the seed and from what they are for."""
        words = np.random.SeedSequence([self.seed, *purpose]).generate_state(1)
        return torch.Generator().manual_seed(int(words[0]))

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
        """Numbers of the simulated images of this step; each comes in its turn."""
        if self.teacher is None:
            return None
        every, chosen = len(self.teacher), []
        for place in range(self.lessons_seen, self.lessons_seen + number):
            if self._lesson_order[0] != place // every:
                generator = self._random(LESSONS, place // every)
                order = torch.randperm(every, generator=generator)
                self._lesson_order = (place // every, order)
            chosen.append(int(self._lesson_order[1][place % every]))
        self.lessons_seen += number
        return distributed.mine(torch.tensor(chosen))

    def _images(self, data: Any) -> ImageSet | None:
        """Images that a user gave, from 0 to 1 where the augmentation needs that."""
        images = images_of(data)
        if images is None or data is images:
            return images
        if not isinstance(self.augment, SkyAugmentation) or _from_0_to_1(images):
            return images
        if self.byol.normalization_function is None:
            LOG.warning(
                "the images are not from 0 to 1, as the default augmentation needs "
                "them; `MinMaxNorm` is put before the network"
            )
            self.byol.normalization_function = MinMaxNorm()
        return _normalised(images)

    def _kept(self, data: ImageSet) -> ImageSet:
        """Images in the device's memory, where they fit."""
        if isinstance(data, CachedDataset) and fits(data.images, self.device):
            return CachedDataset(data.images.to(self.device), data.stacksize)
        return data

    @torch.no_grad()
    def test(self, test_data: Any, batch_size: int = 128) -> float:
        """Mean loss of images in evaluation mode; training goes on unaffected.

        With the default augmentation, the views are the same at every call.

        Parameters
        ----------
        test_data : Tensor, Dataset, DataLoader or sequence
            At least one image.
        batch_size : int
            Images at a time.

        Returns
        -------
        float
            From 0 to 8.
        """
        data = self._images(test_data)
        if data is None:
            raise AstromorphError("test: found 0 images; at least 1 is needed")
        training = self.byol.training
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
        self.byol.train(training)
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
    def forward(self, images: Tensor, return_errors: bool = False) -> Tensor:
        """Embeddings of images in evaluation mode, or their loss.

        Parameters
        ----------
        images : Tensor, shape (N, C, H, W)
            As in training.
        return_errors : bool
            Give the mean loss of two random views of each.

        Returns
        -------
        Tensor, shape (N, D), or (), float32, on the CPU
        """
        training = self.byol.training
        if return_errors:
            self.byol.augmentation_function = self.augment
        found: Tensor = self.byol.eval()(
            images.to(self.device), return_errors=return_errors
        )
        self.byol.train(training)
        return found.float().cpu()

    def state(self) -> dict[str, Any]:
        """All that a training needs to go on; tensors and plain values."""
        head = self.teacher.head.state_dict() if self.teacher is not None else {}
        return {
            "byol": self.byol.state_dict(),
            "head": head,
            "optimizer": self.optimizer.state_dict(),
            "lr_scheduler": self.lr_scheduler.state_dict() if self.lr_scheduler else {},
            "step": self.step,
            "epoch": self.epoch,
            "done": self.done,
            "lessons_seen": self.lessons_seen,
            "totals": self.totals,
            "history": [asdict(epoch) for epoch in self.history],
            "before": self.before,
            "random": torch.get_rng_state(),
            "bfloat16": self.precision.dtype == torch.bfloat16,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Stand where another one, made alike, was when it gave its `state`."""
        self.byol.load_state_dict(state["byol"])
        if self.teacher is not None:
            self.teacher.head.load_state_dict(state["head"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.lr_scheduler:
            self.lr_scheduler.load_state_dict(state["lr_scheduler"])
            # Else torch warns where an epoch ends before the first step from here.
            object.__setattr__(self.optimizer, "_opt_called", state["step"] > 0)
        self.step, self.epoch = state["step"], state["epoch"]
        self.done, self.lessons_seen = state["done"], state["lessons_seen"]
        self.totals = state["totals"].to(self.device).clone()
        self.history = [Epoch(**epoch) for epoch in state["history"]]
        self.before = state["before"] and tuple(state["before"])
        torch.set_rng_state(state["random"])
        self.precision = choose_precision(
            "bfloat16" if state["bfloat16"] else "float32", self.device
        )

    def save(self, path: str | Path) -> None:
        """Write the state to a ``.pt`` file of tensors and plain values.

        Parameters
        ----------
        path : path
            The file, whole or not at all.
        """
        head = {"format": TRAINER_FORMAT, "format_version": TRAINER_VERSION}
        save_plain(path, head | self.state())

    def load(self, path: str | Path) -> None:
        """Read what `save` wrote; go on with ``train_model(..., resume=True)``.

        Parameters
        ----------
        path : path
            The file.

        Raises
        ------
        AstromorphError
            The file is missing, damaged or pickled, or belongs to another network.
        """
        state = load_plain(path, TRAINER_FORMAT, TRAINER_VERSION, REMEDY)
        try:
            self.restore(state)
        except (RuntimeError, ValueError, KeyError, TypeError) as error:
            reason = " ".join(str(error).split())[:300]
            raise AstromorphError(
                f"{path}: it does not fit this trainer ({reason}); {REMEDY}"
            ) from None


def _agreed(precision: Precision) -> Precision:
    """One precision for all processes."""
    fast = distributed.agreed(precision.dtype == torch.bfloat16)
    return Precision(torch.bfloat16 if fast else torch.float32)


def _byol(network: nn.Module, options: dict[str, Any]) -> BYOL:
    given = {name: value for name, value in options.items() if value is not None}
    if not isinstance(network, BYOL):
        return BYOL(network, **given)
    if given:
        raise ValueError(
            f"{', '.join(given)}: the network is a BYOL already; give these to it"
        )
    return network


def _from_0_to_1(data: ImageSet) -> bool:
    """Whether all pixels are; NaN is not."""
    if isinstance(data, NativeDataset):
        return all(_within(image) for image in data.images)
    return all(_within(data.batch(part)) for part in data.batches(256))


def _within(images: Tensor) -> bool:
    return bool((images >= 0).all() and (images <= 1).all())


def _normalised(data: ImageSet) -> ImageSet:
    """The same images, each from 0 to 1."""
    norm = MinMaxNorm()
    if isinstance(data, NativeDataset):
        return NativeDataset([norm(image) for image in data.images], data.stacksize)
    parts = [norm(data.batch(part)) for part in data.batches(256)]
    return CachedDataset(torch.cat(parts))


def _batches(
    data: ImageSet, batch_size: int, order: Tensor | None = None
) -> Iterator[Tensor]:
    return data.batches(batch_size, order, FEWEST_PER_BATCH * distributed.world())


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
