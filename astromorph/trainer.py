"""The training loop, and `ByolTrainer` for people who bring their own parts."""

import logging
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler

from astromorph import metrics
from astromorph.augment import SkyAugmentation
from astromorph.byol import BYOL
from astromorph.datasets import (
    FEWEST_PER_BATCH,
    CachedDataset,
    ImageSet,
)
from astromorph.errors import AstromorphError
from astromorph.optimise import adamw, moving_average_decay, warm_up_cosine
from astromorph.progress import track

LOG = logging.getLogger(__name__)
MOST_WATCHED, FEWEST_WATCHED = 512, 64  # images whose embeddings are measured
COLLAPSED = 0.3  # share of the measures before training below which it is one
TEST_SEED = 1_000_003  # views of the test images are the same in every epoch


@dataclass(frozen=True, slots=True)
class Epoch:
    """What one epoch came to.

    Attributes
    ----------
    epoch : int
        From 1.
    train_loss : float
        Mean over the images, from 0 to 8.
    test_loss : float or None
        The same for the held-out images; None where there are none.
    learning_rate : float
        Of its last step.
    moving_average_decay : float
        After its last step.
    effective_rank, spread : float
        Of the embeddings of up to 512 held-out images (training ones where too
        few are held out): 1 and 0 are a collapse.
    """

    epoch: int
    train_loss: float
    test_loss: float | None
    learning_rate: float
    moving_average_decay: float
    effective_rank: float
    spread: float


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
    ) -> None:
        self.device = choose_device(device)
        self.byol = byol.to(self.device)
        self.generator = torch.Generator().manual_seed(seed)
        self.augment = augmentation_function or SkyAugmentation(
            generator=self.generator
        )
        self.optimizer = optimizer(self.byol, learning_rate)
        self.lr_scheduler = (
            lr_scheduler(self.optimizer, **(lr_scheduler_options or {}))
            if lr_scheduler
            else None
        )
        self.schedule = None if lr_scheduler else schedule
        self.rates = [float(group["lr"]) for group in self.optimizer.param_groups]
        self.decay = decay
        self.step = 0

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
        if train is None or len(train) < 2:
            found = len(train) if train else 0
            raise AstromorphError(
                f"training: found {found} images; BYOL compares images of a batch and "
                "needs at least 2"
            )
        steps = epochs * sum(1 for _ in _batches(train, batch_size))
        history: list[Epoch] = []
        watched = test if test and len(test) >= FEWEST_WATCHED else train
        watched = watched.subset(range(min(len(watched), MOST_WATCHED)))
        before = self._measure(watched, batch_size)
        with _scalars(log_dir) as write:
            for number in range(1, epochs + 1):
                train_loss = self.train_epoch(train, batch_size, steps)
                rate = float(self.optimizer.param_groups[0]["lr"])
                test_loss = self.test(test, batch_size) if test else None
                decay = moving_average_decay(self.step, steps, self.decay)
                measured = self._measure(watched, batch_size)
                _announce(measured, before, number)
                history.append(
                    Epoch(number, train_loss, test_loss, rate, decay, *measured)
                )
                write(history[-1])
                _report(history[-1], epochs)
                if self.lr_scheduler:
                    self.lr_scheduler.step()
        return history

    def train_epoch(self, data: ImageSet, batch_size: int, steps: int) -> float:
        """See every image once, in a new order.

        Parameters
        ----------
        data : CachedDataset or NativeDataset
            The training images.
        batch_size : int
            Images per step.
        steps : int
            Of the whole training: the moving average slows down towards them.

        Returns
        -------
        float
            Mean loss of the images.
        """
        self.byol.train()
        order = torch.randperm(len(data), generator=self.generator)
        total = torch.zeros((), device=self.device)
        parts = list(_batches(data, batch_size, order))
        for indices in track(parts, len(parts), "batches"):
            images = data.batch(indices).to(self.device)
            loss = self.byol.loss(self.augment(images), self.augment(images))
            if self.schedule is not None:
                factor = self.schedule(self.step, steps)
                for group, rate in zip(
                    self.optimizer.param_groups, self.rates, strict=True
                ):
                    group["lr"] = factor * rate
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()
            decay = moving_average_decay(self.step, steps, self.decay)
            self.byol.update_moving_average(decay)
            self.step += 1
            total += loss.detach() * len(indices)
        return _finite(float(total) / len(data))

    @torch.no_grad()
    def test(self, data: ImageSet, batch_size: int) -> float:
        """Mean loss of images in evaluation mode; training goes on unaffected.

        With the default augmentation, the views are the same at every call.
        """
        self.byol.eval()
        augment = self.augment
        if isinstance(augment, SkyAugmentation):
            fixed = torch.Generator().manual_seed(TEST_SEED)
            augment = SkyAugmentation(augment.settings, fixed)
        total = 0.0
        for indices in _batches(data, batch_size):
            images = data.batch(indices).to(self.device)
            loss = self.byol.loss(augment(images), augment(images))
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


def choose_device(name: str = "auto") -> torch.device:
    """The device of a name; ``"auto"`` takes CUDA, else MPS, else the CPU."""
    if name != "auto":
        return torch.device(name)
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def _batches(
    data: ImageSet, batch_size: int, order: Tensor | None = None
) -> Iterator[Tensor]:
    return data.batches(batch_size, order, FEWEST_PER_BATCH)


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


def _announce(
    now: tuple[float, float], before: tuple[float, float], epoch: int
) -> None:
    """Warn where the embeddings begin to be all the same."""
    if now[0] < COLLAPSED * before[0] or now[1] < COLLAPSED * before[1]:
        LOG.warning(
            "epoch %d: the embedding collapses (effective rank %.2f, spread %.4f; %.2f "
            "and %.4f before training); set a smaller `learning_rate`, a larger "
            "`batch_size`, or `byol_settings.use_momentum: true`", epoch, *now, *before,
        )  # fmt: skip


def _report(epoch: Epoch, epochs: int) -> None:
    test = "none held out" if epoch.test_loss is None else f"{epoch.test_loss:.4f}"
    LOG.info(
        "epoch %d of %d: train loss %.4f, test loss %s, effective rank %.1f",
        epoch.epoch, epochs, epoch.train_loss, test, epoch.effective_rank,
    )  # fmt: skip


@contextmanager
def _scalars(log_dir: str | Path | None) -> Iterator[Callable[[Epoch], None]]:
    """What writes an epoch's scalars for TensorBoard; nothing without a folder."""
    if log_dir is None:
        yield lambda epoch: None
        return
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(log_dir)) as writer:

        def write(epoch: Epoch) -> None:
            scalars = {
                "loss/train": epoch.train_loss,
                "loss/test": epoch.test_loss,
                "embedding/effective_rank": epoch.effective_rank,
                "embedding/spread": epoch.spread,
                "schedule/learning_rate": epoch.learning_rate,
                "schedule/moving_average_decay": epoch.moving_average_decay,
            }
            for name, value in scalars.items():
                if value is not None:
                    writer.add_scalar(name, value, epoch.epoch)

        yield write
