"""`ByolTrainer`: a ready training for people who bring their own parts."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau
from torch.utils.data import DataLoader

from astromorph import distributed
from astromorph.byol.byol import BYOL
from astromorph.byol.optimise import adamw, warm_up_cosine
from astromorph.checks import check_integer, check_number
from astromorph.datasets.any_images import to_batch
from astromorph.datasets.batching import MIN_BATCH
from astromorph.datasets.tensor_datasets import ImageSet, to_image_set
from astromorph.devices import choose_device, choose_precision
from astromorph.errors import AstromorphError
from astromorph.moved import Number, old_attribute, old_keywords, told
from astromorph.training.batches import (
    ShuffledCycle,
    batches,
    cache_on_device,
    check_finite,
)
from astromorph.training.history import (
    Epoch,
    log_epoch,
    measure_collapse,
    scalar_writer,
    warn_of_collapse,
)
from astromorph.training.learner import Learner
from astromorph.training.trainer_parts import (
    Views,
    agreed,
    byol_of,
    optimizer_of,
    scheduler_of,
    views_of,
    warn_if_alone,
)
from astromorph.training.trainer_steps import LESSONS, Steps

if TYPE_CHECKING:
    from astromorph.training.auxiliary_task import AuxiliaryTask

LOG = logging.getLogger(__name__)
MAX_WATCHED, MIN_WATCHED = 512, 64  # images whose embeddings are measured
BATCH_SIZE, AT_ONCE = 128, 512  # images per step, and that `forward` embeds at a time


class ByolTrainer(Steps):
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
        Length D of an embedding, at least 1; by default the number of features.
    augmentation_function : callable, optional
        Images `(N, C, H, W)` to one view of each; called twice per step. By
        default that of a `network` that is a BYOL, if it has one, else
        `SkyAugmentation`, which wants images from 0 to 1: where they are
        not, they are brought there by `MinMaxNorm`, and a warning says so.
    optimizer : callable, optional
        ``optimizer(parameters, lr=learning_rate)``, such as a class of
        ``torch.optim``. `parameters` are two groups, of which the second, biases and
        norms, has no weight decay. By default AdamW with a weight decay of 0.01.
    normalization_function : callable, optional
        Applied to images and views before the network; see `BYOL`.
    learning_rate : float
        Handed to `optimizer`, above 0.
    lr_scheduler : callable, optional
        ``lr_scheduler(optimizer, **lr_scheduler_options)``; stepped after each
        epoch. ``ReduceLROnPlateau`` is told the test loss, or the training loss
        where nothing is held out.
    lr_scheduler_options : dict, optional
        Keywords for `lr_scheduler`.
    device : str
        ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ``"mps"``.
    schedule : callable or None
        ``schedule(step, steps)`` gives the factor on the learning rate at each
        step, counted from 0; None leaves it. By default `warm_up_cosine`, and none
        beside a `lr_scheduler`.
    precision : {'auto', 'float32', 'bfloat16'}
        Of the network's sums; `auto` measures which is faster.
    compile : bool
        Let ``torch.compile`` make the network faster.
    teacher : Teacher, optional
        Simulated images with known shapes; they make up half of each batch.
    lesson_weight : float
        Of the teacher's loss against BYOL's, at least 0.
    seed : int
        Of the order of the images and of the default augmentation, at least 0. The
        network comes with its weights: for the same ones each time, call
        ``torch.manual_seed`` before it is made, and for the heads before this object
        is.
    **byol_options
        Further keywords of `BYOL`: `loss_fn`, `projection_size`,
        `projection_hidden_size`, `use_momentum`, `moving_average_decay` (tau at the
        first step, 0.99 if not given; it rises to 1), `image_shape`.

    Attributes
    ----------
    byol : BYOL
        What is trained.
    optimizer : torch.optim.Optimizer
        What `optimizer` made.
    augment : callable
        What makes the views.
    device : torch.device
        Where it is trained.
    step, epoch : int
        Steps and epochs so far.
    history : list of Epoch
        Of the training that runs, or ran last.

    Raises
    ------
    ValueError
        A layer does not exist (the message lists those that do), the network cannot
        be tried, an object stands for a class, a number is out of its range, or
        options are given twice.

    Examples
    --------
    >>> import torch
    >>> from astromorph.models.encoders import AstroMorphologyModel
    >>> trainer = ByolTrainer(AstroMorphologyModel(1), device="cpu")
    >>> images = torch.rand(8, 1, 32, 32)
    >>> history = trainer.train_model(images, images[:4], epochs=1, batch_size=4)
    >>> len(history)
    1
    >>> trainer(images).shape
    torch.Size([8, 128])
    """

    DEFAULT_OPTIMIZER: ClassVar[Callable[..., torch.optim.Optimizer]] = adamw
    DEFAULT_AUGMENTATION_FUNCTION: ClassVar[Views | None] = None

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
        teacher: "AuxiliaryTask | None" = None,
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
        self.seed = check_integer("seed", seed, 0)
        weight = check_number("lesson_weight", lesson_weight, 0)
        if not isinstance(network, BYOL):
            options["augmentation_function"] = augmentation_function
        byol = byol_of(network, options)
        warn_if_alone()
        self.device = choose_device(device)
        self.precision = agreed(choose_precision(precision, self.device))
        learner = Learner(byol, teacher, weight).to(self.device)
        # Convolutions are faster where the channels of a pixel lie together.
        learner = learner.to(memory_format=torch.channels_last)
        if distributed.world_size() > 1 and self.device.type == "cuda":
            synced: Any = nn.SyncBatchNorm.convert_sync_batchnorm(learner)  # type: ignore[no-untyped-call]
            learner = synced
        self.byol, self.teacher = learner.byol, learner.teacher
        kind = type(self)
        self.augment = views_of(
            byol, augmentation_function, kind.DEFAULT_AUGMENTATION_FUNCTION
        )
        self.optimizer = optimizer_of(
            learner, optimizer or kind.DEFAULT_OPTIMIZER, learning_rate
        )
        spread = distributed.wrap_for_training(learner, self.device)
        if compile:
            spread = cast(nn.Module, torch.compile(spread))
        # Not a child of this module, whose children it holds.
        object.__setattr__(self, "learner", spread)
        self.lr_scheduler, self.schedule = scheduler_of(
            self.optimizer, lr_scheduler, lr_scheduler_options, schedule
        )
        self.rates = [float(group["lr"]) for group in self.optimizer.param_groups]
        self.lesson_images = (
            cache_on_device(teacher.images, self.device) if teacher else None
        )
        self.turns = (
            ShuffledCycle(len(teacher), self.seed, LESSONS) if teacher else None
        )
        self._begin()

    @old_keywords(writer="`log_dir=`; the writer was never written to")
    def train_model(
        self,
        train_data: Any,
        test_data: Any = None,
        epochs: int = 10,
        batch_size: int = BATCH_SIZE,
        log_dir: str | Path | None = None,
        save_file: str | Path | None = None,
        *,
        resume: bool = False,
        after_step: Callable[["ByolTrainer"], None] | None = None,
    ) -> list[Epoch]:
        """Train for some epochs.

        Parameters
        ----------
        train_data : Tensor, ndarray, Dataset, DataLoader or iterable
            At least two images; see `astromorph.datasets.tensor_datasets.to_image_set`.
            They are taken into memory, each once, so that a random transform of a
            dataset is drawn once; batches are made here, of images of like size.
        test_data : Tensor, ndarray, Dataset, DataLoader, iterable or None
            Images that only measure the loss.
        epochs : int
            How often each image is seen, at least 1.
        batch_size : int
            Images per step, simulated ones not counted; at least 2, as BYOL compares
            the images of a batch.
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
            There are fewer than two images, the loss is no longer finite, or there
            is nothing to go on from with these data.
        ValueError
            An image is none or has pixels that are NaN, the channels are not those of
            the network, or a number is out of its range.
        """
        epochs = check_integer("epochs", epochs, 1)
        batch_size = batch_of(batch_size, train_data)
        train, test = self._images(train_data), self._images(test_data)
        fewest = MIN_BATCH * distributed.world_size()
        if train is None or len(train) < fewest:
            found = len(train) if train else 0
            raise AstromorphError(
                f"training: found {found} images; BYOL compares images of a batch and "
                f"needs at least {fewest}"
            )
        if resume:
            self._go_on(len(train), batch_size)
        else:
            self._begin()
        self.number, self.batch_size = len(train), batch_size
        train = cache_on_device(train, self.device)
        test = cache_on_device(test, self.device) if test else None
        steps = epochs * sum(1 for _ in batches(train, batch_size))
        watched = test if test and len(test) >= MIN_WATCHED else train
        watched = watched.subset(range(min(len(watched), MAX_WATCHED)))
        if self.before is None:
            self._settle(train, batch_size)
            self.before = self._measure(watched, batch_size)
        with scalar_writer(log_dir if distributed.rank() == 0 else None) as write:
            for epoch in self.history:
                write(epoch)
            while self.epoch < epochs:
                losses = self._one_epoch(train, batch_size, steps, after_step)
                test_loss = self._loss_of(test, batch_size) if test else None
                now = self._measure(watched, batch_size)
                warn_of_collapse(now, self.before, self.epoch, self.byol.use_momentum)
                self.history.append(
                    Epoch(
                        self.epoch, losses[0], test_loss, losses[1],
                        float(self.optimizer.param_groups[0]["lr"]),
                        self._decay(steps), *now,
                    )
                )  # fmt: skip
                write(self.history[-1])
                log_epoch(self.history[-1], epochs)
                self._next_rate(losses[0] if test_loss is None else test_loss)
        if save_file is not None and distributed.rank() == 0:
            self.save(save_file)
        return self.history

    @old_keywords(summary_writer="`log_dir=` of train_model")
    def train_epoch(
        self, train_data: Any, batch_size: int = BATCH_SIZE, steps: int | None = None
    ) -> float:
        """See every image once, in a new order; `history` is left as it is.

        Parameters
        ----------
        train_data : Tensor, ndarray, Dataset, DataLoader or iterable
            The training images, at least 2.
        batch_size : int
            Images per step, simulated ones not counted; at least 2.
        steps : int, optional
            Of the whole training, for `schedule` and the moving average. By default
            both stay as they begin.

        Returns
        -------
        float
            BYOL's loss, mean over the images, from 0 to 8.
        """
        batch_size = batch_of(batch_size, train_data)
        images = self._images(train_data)
        if images is None or len(images) < MIN_BATCH:
            found = len(images) if images else 0
            raise AstromorphError(
                f"training: found {found} images; at least 2 are needed"
            )
        data = cache_on_device(images, self.device)
        loss, _ = self._one_epoch(data, batch_size, steps, None)
        return Number(loss)

    def test(self, test_data: Any, batch_size: int = BATCH_SIZE) -> float:
        """Mean loss of images in evaluation mode; training goes on unaffected.

        With the default augmentation, the views are the same at every call.

        Parameters
        ----------
        test_data : Tensor, ndarray, Dataset, DataLoader or iterable
            At least one image.
        batch_size : int
            Images at a time, at least 1.

        Returns
        -------
        float
            From 0 to 8.
        """
        data = self._images(test_data)
        if data is None:
            raise AstromorphError("test: found 0 images; at least 1 is needed")
        return Number(self._loss_of(data, check_integer("batch_size", batch_size, 1)))

    @torch.no_grad()
    def forward(self, images: Any, return_errors: bool = False) -> Tensor:
        """Embeddings of images in evaluation mode, or their loss.

        Parameters
        ----------
        images : Tensor or ndarray of shape (N, C, H, W), Dataset, DataLoader, list
            As in training, of any real type and byte order, and left as they are.
            Images of different sizes come as a dataset, a loader or a list.
        return_errors : bool
            Give the mean loss of two views of each, as `test` does.

        Returns
        -------
        Tensor, shape (N, D), or (), float32, on the CPU
            In the order of the images; each is embedded by itself, without padding.

        Raises
        ------
        ValueError
            An image is none or has pixels that are NaN, or the channels are not those
            of the network.
        """
        if isinstance(images, Tensor | np.ndarray):
            images = to_batch(images)
        if return_errors:
            data = self._images(images)
            if data is None:
                raise ValueError("images: found none; at least 1 is needed")
            return torch.tensor(self._loss_of(data, BATCH_SIZE))
        data = to_image_set(images)
        if data is None:
            return torch.empty(0, self.byol.representation_size)
        if self.byol.normalization_function is None and data is not images:
            check_finite(data.images)  # type: ignore[union-attr]
        return self._each(data, AT_ONCE)

    def _each(self, data: ImageSet, batch_size: int) -> Tensor:
        """Embeddings `(N, D)` of images, each in its own size."""
        vectors = torch.empty(len(data), self.byol.representation_size)
        for indices in data.batches(batch_size):
            vectors[indices] = self._embeddings(data.batch(indices))
        return vectors

    def _measure(self, data: ImageSet, batch_size: int) -> tuple[float, float]:
        """Effective rank and spread of the embeddings of some images."""
        return measure_collapse(self._each(data, batch_size).numpy())

    def _next_rate(self, loss: float) -> None:
        """The learning rate of the next epoch, where a scheduler sets it."""
        if isinstance(self.lr_scheduler, ReduceLROnPlateau):
            self.lr_scheduler.step(loss)
        elif self.lr_scheduler:
            self.lr_scheduler.step()

    def to_device(self, device: str) -> None:
        """Go to another device before training, as version 0.1 did."""
        told("ByolTrainer.to_device", "the argument `device` of ByolTrainer")
        self.device = choose_device(device)
        self.to(self.device)
        self.totals = self.totals.to(self.device)
        for state in self.optimizer.state.values():
            for name, value in state.items():
                if isinstance(value, Tensor) and value.ndim:
                    state[name] = value.to(self.device)

    augmentation_function = old_attribute(
        "ByolTrainer", "augmentation_function", "augment"
    )
    normalization_function = old_attribute(
        "ByolTrainer", "normalization_function", "byol.normalization_function"
    )


def batch_of(batch_size: Any, data: Any) -> int:
    """Images per step, as they are counted here."""
    if batch_size is None or hasattr(batch_size, "add_scalar"):
        # Version 0.1 had a writer in this place, which was never written to.
        told("the fourth argument of train_model, `writer`,", "`batch_size`", 5)
        batch_size = BATCH_SIZE
    size = check_integer("batch_size", batch_size, 1)
    if size < MIN_BATCH:
        LOG.warning("batch_size: 1 is too few, as BYOL compares images; 2 are taken")
        size = MIN_BATCH
    loader = data.batch_size if isinstance(data, DataLoader) else None
    if loader not in (None, 1, size):
        LOG.warning(
            "the loader's batches of %d are not kept: a step takes %d images "
            "(`batch_size`)", loader, size,
        )  # fmt: skip
    return size
