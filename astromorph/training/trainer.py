"""`ByolTrainer`: a complete training loop with replaceable parts."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler

from astromorph import distributed
from astromorph.byol.byol import BYOL, Augmentation
from astromorph.byol.optimise import (
    Schedule,
    StepSchedule,
    adamw,
    make_optimizer,
    make_scheduler,
    warm_up_cosine,
)
from astromorph.checks import check_integer, check_number
from astromorph.datasets.any_images import to_batch
from astromorph.datasets.batching import MIN_BATCH
from astromorph.datasets.tensor_datasets import ImageSet, to_image_set
from astromorph.devices import Precision, choose_device, choose_precision
from astromorph.errors import AstromorphError
from astromorph.training.batch_norm import remeasure_after_few_steps
from astromorph.training.batches import (
    TrainingBatches,
    Views,
    cache_on_device,
    check_batch_size,
    check_finite,
    choose_augmentation,
    load_images,
)
from astromorph.training.history import Epoch, Reporter, measure_collapse
from astromorph.training.loop import (
    Objective,
    agree_on_precision,
    compute_embeddings,
    compute_mean_loss,
    place_objective,
    run_training_loop,
    warn_of_separate_processes,
    wrap_objective,
)
from astromorph.training.state import Progress, TrainingState

if TYPE_CHECKING:  # the simulated images need more packages than the trainer
    from astromorph.training.auxiliary_task import AuxiliaryTask

LOG = logging.getLogger(__name__)
# Images whose embeddings are monitored for collapse; test images if there are enough.
MAX_WATCHED, MIN_WATCHED = 512, 64
BATCH_SIZE = 128  # images per step
EMBEDDING_BATCH_SIZE = 512  # images that `forward` embeds at a time


class ByolTrainer(nn.Module):
    """BYOL with a complete training loop, every part of which can be replaced.

    The seed and the number of the step determine the random numbers of the loop, so
    that training resumed from a saved state gives the same result as uninterrupted
    training. (An augmentation of your own draws its own random numbers.)

    Parameters
    ----------
    network : nn.Module or BYOL
        Any network for images `(N, C, H, W)`, or a BYOL around one.
    hidden_layer : int or str, optional
        The layer whose output is the features; see `BYOL`.
    representation_size : int, optional
        Length D of an embedding, at least 1. The default is the number of features.
    augmentation_function : callable, optional
        Maps images `(N, C, H, W)` to one view of each; called twice per step. The
        default is that of `network` if it is a BYOL that has one, else
        `SkyAugmentation`, which needs images from 0 to 1: others are scaled by
        `MinMaxNorm`, with a warning.
    optimizer : callable, optional
        Called as ``optimizer(parameters, lr=learning_rate)``, such as a class of
        ``torch.optim``. `parameters` are two groups; the second, of biases and norms,
        has no weight decay. The default is AdamW with a weight decay of 0.01.
    normalization_function : callable, optional
        Applied to images and views before the network; see `BYOL`.
    learning_rate : float
        Argument of `optimizer`, above 0.
    lr_scheduler : callable, optional
        Called as ``lr_scheduler(optimizer, **lr_scheduler_options)``; stepped after
        each epoch. ``ReduceLROnPlateau`` receives the test loss, or the training loss
        if there are no test images.
    lr_scheduler_options : dict, optional
        Keyword arguments for `lr_scheduler`.
    device : str
        ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ``"mps"``.
    schedule : callable or None
        ``schedule(step, steps)`` returns the factor for the learning rate at each
        step, counted from 0; if None, the learning rate is constant. The default is
        `warm_up_cosine`, or None if there is an `lr_scheduler`.
    precision : {'auto', 'float32', 'bfloat16'}
        Number format of the network's arithmetic; `auto` measures which is faster.
    compile : bool
        Compile the network with ``torch.compile``.
    auxiliary_task : AuxiliaryTask, optional
        Simulated images with known shapes; they make up half of each batch.
    auxiliary_weight : float
        Weight of the loss of the auxiliary task relative to that of BYOL, at least 0.
    seed : int
        Determines the order of the images and the default augmentation, at least 0.
        The weights of `network` are used unchanged: for reproducible ones, call
        ``torch.manual_seed`` before you create it, and before you create this object,
        which draws the weights of the heads.
    **byol_options
        Further arguments of `BYOL`: `loss_fn`, `projection_size`,
        `projection_hidden_size`, `use_momentum`, `moving_average_decay` (tau at the
        first step, 0.99 by default; it rises to 1), `features`, `image_shape`.

    Attributes
    ----------
    byol : BYOL
        The networks that are trained.
    auxiliary_task : AuxiliaryTask or None
        The auxiliary task.
    optimizer : torch.optim.Optimizer
        The result of the parameter `optimizer`.
    augment : callable
        Makes the views.
    device : torch.device
        Where the training runs.
    step, epoch : int
        Steps and epochs so far.
    history : list of Epoch
        One record for each epoch of the current or last training.

    Raises
    ------
    ValueError
        The layer does not exist (the message lists those that do), the network fails
        on images of zeros, an object was given instead of a class or the reverse, a
        number is out of range, or options contradict each other.

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
    DEFAULT_AUGMENTATION_FUNCTION: ClassVar[Augmentation | None] = None
    _objective: nn.Module

    def __init__(
        self,
        network: nn.Module,
        hidden_layer: int | str | None = None,
        representation_size: int | None = None,
        augmentation_function: Augmentation | None = None,
        optimizer: Callable[..., torch.optim.Optimizer] | None = None,
        normalization_function: Callable[[Tensor], Tensor] | None = None,
        learning_rate: float = 1e-3,
        lr_scheduler: Callable[..., LRScheduler] | None = None,
        lr_scheduler_options: dict[str, Any] | None = None,
        device: str = "auto",
        *,
        schedule: StepSchedule | None = warm_up_cosine,
        precision: str = "auto",
        compile: bool = False,
        auxiliary_task: "AuxiliaryTask | None" = None,
        auxiliary_weight: float = 2.0,
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
        weight = check_number("auxiliary_weight", auxiliary_weight, 0)
        if not isinstance(network, BYOL):
            options["augmentation_function"] = augmentation_function
        byol = _make_byol(network, options)
        warn_of_separate_processes()
        self.device = choose_device(device)
        objective = place_objective(
            Objective(byol, auxiliary_task, weight), self.device
        )
        self.byol, self.auxiliary_task = objective.byol, objective.auxiliary_task
        kind = type(self)
        self.augment = choose_augmentation(
            byol, augmentation_function, kind.DEFAULT_AUGMENTATION_FUNCTION
        )
        self.optimizer = make_optimizer(
            objective, optimizer or kind.DEFAULT_OPTIMIZER, learning_rate
        )
        # Not a submodule: it contains the submodules of this object.
        wrapped = wrap_objective(objective, self.device, compile)
        object.__setattr__(self, "_objective", wrapped)
        self.lr_scheduler, self.schedule = make_scheduler(
            self.optimizer, lr_scheduler, lr_scheduler_options, schedule
        )
        self._base_rates = [float(g["lr"]) for g in self.optimizer.param_groups]
        self._state = TrainingState(
            self.byol,
            self.auxiliary_task,
            self.optimizer,
            self.lr_scheduler,
            self.device,
            agree_on_precision(choose_precision(precision, self.device)),
        )

    @property
    def progress(self) -> Progress:
        """Progress of the training."""
        return self._state.progress

    @property
    def precision(self) -> Precision:
        """Number format of the network's arithmetic."""
        return self._state.precision

    @property
    def step(self) -> int:
        """Steps so far."""
        return self.progress.step

    @property
    def epoch(self) -> int:
        """Epochs so far."""
        return self.progress.epoch

    @property
    def history(self) -> list[Epoch]:
        """One record for each epoch of the current or last training."""
        return self.progress.history

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
        """Train for a number of epochs.

        Parameters
        ----------
        train_data : Tensor, ndarray, Dataset, DataLoader or iterable
            At least two images; see `astromorph.datasets.tensor_datasets.to_image_set`.
            Each image is read into memory once, so that random transforms of a dataset
            are applied once. Batches are formed here, from images of similar size.
        test_data : Tensor, ndarray, Dataset, DataLoader, iterable or None
            Images that are not used for training, whose loss is measured.
        epochs : int
            Number of times that each image is used, at least 1.
        batch_size : int
            Images per step, without simulated ones; at least 2, because BYOL compares
            the images of a batch.
        log_dir : path, optional
            Folder for TensorBoard scalars.
        save_file : path, optional
            File to which `save` writes the state at the end, and after Ctrl-C.
        resume : bool
            Continue from a saved state, with the same data and options; `epochs` is
            then the total number.
        after_step : callable, optional
            Called with this object after each step, to save it or to raise an
            exception that stops the training.

        Returns
        -------
        list of Epoch
            One record for each epoch.

        Raises
        ------
        AstromorphError
            There are fewer than two images, the loss is not finite, or there is no
            training to resume with these data.
        ValueError
            An item is not an image or has NaN pixels, the network expects another
            number of channels, or a number is out of range.
        KeyboardInterrupt
            After Ctrl-C: when the current step is finished and the state is written to
            `save_file`, if it is given. ``train_model(..., resume=True)`` continues, in
            this object or in one that has loaded the file. A second Ctrl-C stops the
            training at once.
        """
        epochs = check_integer("epochs", epochs, 1)
        batch_size = check_batch_size(batch_size, train_data)
        batches = self._make_batches(
            train_data, batch_size, MIN_BATCH * distributed.world_size()
        )
        test_images = self._load_images(test_data)
        if test_images is not None:
            test_images = cache_on_device(test_images, self.device)
        watched = _choose_watched(test_images, batches.images)
        if resume:
            self._state.check_resumable(len(batches.images), batch_size)
        else:
            self._state.reset()
        self.progress.images = len(batches.images)
        self.progress.batch_size = batch_size
        reporter = Reporter(
            self.progress.history,
            epochs,
            self._measure_initial_collapse(watched, batches),
            has_auxiliary_task=self.auxiliary_task is not None,
            use_momentum=self.byol.use_momentum,
            compute_test_loss=lambda: self._mean_loss(test_images, batch_size),
            compute_embeddings=lambda: compute_embeddings(
                self.byol, watched, batch_size
            ),
        )
        with (
            reporter.writing_to(log_dir if distributed.rank() == 0 else None),
            distributed.delaying_interrupt() as is_interrupted,
        ):

            def finish_step() -> None:
                if after_step is not None:
                    after_step(self)
                if is_interrupted():
                    self._stop(save_file)

            run_training_loop(
                self._objective,
                self._state,
                batches,
                Views(self.augment, self.seed),
                self._make_schedule(epochs * len(batches), self.lr_scheduler),
                epochs,
                report=reporter.finish_epoch,
                after_step=finish_step,
            )
        if save_file is not None and distributed.rank() == 0:
            self.save(save_file)
        return self.history

    def train_epoch(
        self, train_data: Any, batch_size: int = BATCH_SIZE, steps: int | None = None
    ) -> float:
        """Train on every image once, in a new order; `history` does not change.

        Parameters
        ----------
        train_data : Tensor, ndarray, Dataset, DataLoader or iterable
            The training images, at least 2.
        batch_size : int
            Images per step, without simulated ones; at least 2.
        steps : int, optional
            Steps of the whole training, for `schedule` and the moving average. By
            default, neither the learning rate nor the decay changes.

        Returns
        -------
        float
            BYOL's mean loss over the images, from 0 to 8.
        """
        batch_size = check_batch_size(batch_size, train_data)
        batches = self._make_batches(train_data, batch_size, MIN_BATCH)
        losses: list[float] = []

        def report(epoch: int, train_loss: float, *others: float) -> float:
            losses.append(train_loss)
            return train_loss

        run_training_loop(
            self._objective,
            self._state,
            batches,
            Views(self.augment, self.seed),
            self._make_schedule(steps, lr_scheduler=None),
            self.epoch + 1,
            report,
            after_step=lambda: None,
        )
        return losses[0]

    def test(self, test_data: Any, batch_size: int = BATCH_SIZE) -> float:
        """Mean loss of images in evaluation mode; it does not affect the training.

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
        images = self._load_images(test_data)
        batch_size = check_integer("batch_size", batch_size, 1)
        loss = self._mean_loss(images, batch_size)
        if loss is None:
            raise AstromorphError("test: found 0 images; at least 1 is needed")
        return loss

    @torch.no_grad()
    def forward(self, images: Any, return_errors: bool = False) -> Tensor:
        """Embeddings of images in evaluation mode, or their loss.

        Parameters
        ----------
        images : Tensor or ndarray of shape (N, C, H, W), Dataset, DataLoader, list
            As in training, of any real type and byte order; they are not changed.
            Give images of different sizes as a dataset, a loader or a list.
        return_errors : bool
            Return the mean loss of two views of each image, as `test` does.

        Returns
        -------
        Tensor, shape (N, D), or (), float32, on the CPU
            In the order of the images; each is embedded at its own size, unpadded.

        Raises
        ------
        ValueError
            An item is not an image or has NaN pixels, or the network expects another
            number of channels.
        """
        if isinstance(images, Tensor | np.ndarray):
            images = to_batch(images)
        if return_errors:
            loss = self._mean_loss(self._load_images(images), BATCH_SIZE)
            if loss is None:
                raise ValueError("images: found none; at least 1 is needed")
            return torch.tensor(loss)
        image_set = to_image_set(images)
        if image_set is None:
            return torch.empty(0, self.byol.representation_size)
        if self.byol.normalization_function is None and image_set is not images:
            check_finite(image_set.images)  # type: ignore[union-attr]
        return compute_embeddings(self.byol, image_set, EMBEDDING_BATCH_SIZE)

    def state(self) -> dict[str, Any]:
        """Everything needed to resume the training, as tensors and plain values."""
        return self._state.to_dict()

    def restore(self, state: dict[str, Any]) -> None:
        """Restore the state of a trainer with the same arguments.

        If that trainer added `MinMaxNorm` before its network, because its images were
        not in the range from 0 to 1, it is added to this one as well.

        Parameters
        ----------
        state : dict
            The return value of `state`.

        Raises
        ------
        ValueError, RuntimeError, KeyError
            The other trainer had different parts.
        """
        self._state.restore(state)

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
        self._state.save(path)

    def load(self, path: str | Path) -> None:
        """Read a file of `save`; continue with ``train_model(..., resume=True)``.

        Parameters
        ----------
        path : path
            The file.

        Raises
        ------
        AstromorphError
            The file is missing, damaged or pickled, or belongs to a trainer with
            another network, optimizer, scheduler or normalization, which the message
            names.
        """
        self._state.load(path)

    def _stop(self, save_file: str | Path | None) -> NoReturn:
        """Save the state if there is a file for it, and stop the training."""
        message = f"training stopped in epoch {self.epoch + 1}, step {self.step}"
        if save_file is not None:
            self.save(save_file)
            message += f"; its state was written to {save_file}"
        raise KeyboardInterrupt(f"{message}; continue it with `resume=True`")

    def _load_images(self, data: Any) -> ImageSet | None:
        return load_images(data, self.augment, self._state)

    def _make_batches(
        self, data: Any, batch_size: int, min_images: int
    ) -> TrainingBatches:
        images = self._load_images(data)
        if images is None or len(images) < min_images:
            raise AstromorphError(
                f"training: found {len(images) if images else 0} images; BYOL compares "
                f"the images of a batch and needs at least {min_images}"
            )
        return TrainingBatches(
            images, batch_size, self.seed, self.device, self.auxiliary_task
        )

    def _make_schedule(
        self, steps: int | None, lr_scheduler: LRScheduler | None
    ) -> Schedule:
        return Schedule(
            self.optimizer,
            self._base_rates,
            self.schedule,
            lr_scheduler,
            self.byol.moving_average_decay,
            steps,
        )

    def _measure_initial_collapse(
        self, watched: ImageSet, batches: TrainingBatches
    ) -> tuple[float, float]:
        """Effective rank and spread before the first training step."""
        collapse = self.progress.initial_collapse
        if collapse is None:
            with self._state.autocast():
                remeasure_after_few_steps(self.byol, batches, self.step)
            embeddings = compute_embeddings(self.byol, watched, batches.batch_size)
            collapse = measure_collapse(embeddings.numpy())
            self.progress.initial_collapse = collapse
        return collapse

    def _mean_loss(self, images: ImageSet | None, batch_size: int) -> float | None:
        """BYOL's loss in evaluation mode; None without images."""
        if images is None:
            return None
        views = Views(self.augment, self.seed)
        return compute_mean_loss(self._state, views, images, batch_size)


def _make_byol(network: nn.Module, options: dict[str, Any]) -> BYOL:
    """The network itself if it is a BYOL, else one around it."""
    given = {name: value for name, value in options.items() if value is not None}
    if not isinstance(network, BYOL):
        return BYOL(network, **given)
    if given:
        raise ValueError(
            f"{', '.join(given)}: the network is already a BYOL; give these to it"
        )
    return network


def _choose_watched(test_images: ImageSet | None, train_images: ImageSet) -> ImageSet:
    """The images whose embeddings are monitored for collapse."""
    is_enough = test_images is not None and len(test_images) >= MIN_WATCHED
    images = test_images if test_images is not None and is_enough else train_images
    return images.subset(range(min(len(images), MAX_WATCHED)))
