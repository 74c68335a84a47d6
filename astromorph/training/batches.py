"""Training batches: their order, their division among processes, their views."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from astromorph import distributed
from astromorph.byol.augment import SkyAugmentation
from astromorph.byol.byol import BYOL, Augmentation, make_view
from astromorph.checks import check_instance, check_integer
from astromorph.datasets.any_images import first_non_finite
from astromorph.datasets.batching import MIN_BATCH
from astromorph.datasets.tensor_datasets import (
    CachedDataset,
    ImageSet,
    NativeDataset,
    to_image_set,
)
from astromorph.devices import fits_on_device, prefetch_to_device
from astromorph.models.encoders import MinMaxNorm
from astromorph.progress import track
from astromorph.training.state import Progress, TrainingState

if TYPE_CHECKING:  # the simulated images need more packages than the loop
    from astromorph.training.auxiliary_task import AuxiliaryTask

LOG = logging.getLogger(__name__)
# Purposes of random numbers; each has its own sequence.
ORDER, SIMULATED_ORDER, VIEWS = 1, 2, 3
TEST_SEED = 1_000_003  # the views of test images are the same in every epoch
IMAGES_AT_A_TIME = 256


@dataclass(frozen=True, slots=True)
class Batch:
    """The part of a batch that this process trains on.

    Attributes
    ----------
    images : Tensor, shape (B + K, C, H, W), float32
        B images of the data, then K simulated ones.
    simulated : Tensor, shape (K,), int64, or None
        Indices of the simulated images; None without an auxiliary task.
    local_size : int
        B.
    size : int
        Number of images of the data in the batch of all processes.
    """

    images: Tensor
    simulated: Tensor | None
    local_size: int
    size: int

    @property
    def weight(self) -> float:
        """Weight of this part's loss, so that the mean over parts is the batch's."""
        return distributed.loss_weight(self.local_size, self.size)


class TrainingBatches:
    """The training images, in batches.

    Parameters
    ----------
    images : CachedDataset, MappedDataset or NativeDataset
        The training images.
    batch_size : int
        Number of images of the data in each batch of all processes.
    seed : int
        Determines the order.
    device : torch.device
        Where the batches are used.
    auxiliary_task : AuxiliaryTask, optional
        As many of its simulated images as there are images of the data are added to
        each batch.
    """

    def __init__(
        self,
        images: ImageSet,
        batch_size: int,
        seed: int,
        device: torch.device,
        auxiliary_task: "AuxiliaryTask | None" = None,
    ) -> None:
        self.images = cache_on_device(images, device)
        self.batch_size = batch_size
        self.seed = seed
        self.device = device
        self._simulated_images: ImageSet | None = None
        if auxiliary_task is not None:
            self._simulated_images = cache_on_device(auxiliary_task.images, device)
            self._simulated_order = ShuffledCycle(len(auxiliary_task), seed)

    def __len__(self) -> int:
        """The number of batches in an epoch."""
        return sum(1 for _ in batch_indices(self.images, self.batch_size))

    def remaining(self, progress: Progress) -> Iterator[Batch]:
        """The batches of the current epoch that have not been used yet.

        Every image is used once in an epoch, in an order that is determined by the
        seed and the number of the epoch.
        """
        generator = random_generator(self.seed, ORDER, progress.epoch)
        order = torch.randperm(len(self.images), generator=generator)
        parts = list(batch_indices(self.images, self.batch_size, order))
        parts = parts[progress.batches_done :]
        images_seen = progress.images_seen
        local_parts = (distributed.local_part(part) for part in parts)
        loaded = prefetch_to_device(self.images.batch, local_parts, self.device)
        for part in track(parts, len(parts), "batches"):
            indices, images = next(loaded)
            simulated = self._next_simulated(images_seen, len(part))
            if simulated is not None and self._simulated_images is not None:
                others = self._simulated_images.batch(simulated).to(self.device)
                images = torch.cat([images, resize_like(others, images)])
            yield Batch(images, simulated, len(indices), len(part))
            images_seen += len(part)

    def _next_simulated(self, images_seen: int, number: int) -> Tensor | None:
        """Indices of the simulated images that are added to a batch on this process."""
        if self._simulated_images is None:
            return None
        chosen = self._simulated_order.take(images_seen, number)
        return distributed.local_part(chosen)


class Views:
    """Two random views of each image.

    The random numbers of the default augmentation are determined by the seed, the step
    and the rank of the process. Other augmentations draw their own.

    Parameters
    ----------
    augment : callable
        Maps images `(N, C, H, W)` to one view of each.
    seed : int
        Determines the random numbers.
    """

    def __init__(self, augment: Augmentation, seed: int) -> None:
        # A copy, because its generator is replaced; the user's object is not changed.
        is_seeded = isinstance(augment, SkyAugmentation)
        self.augment = copy(augment) if is_seeded else augment
        self.seed = seed

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Two views of images `(N, C, H, W)`."""
        first = channels_last(make_view(self.augment, images))
        return first, channels_last(make_view(self.augment, images))

    def at_step(self, step: int, images: Tensor) -> tuple[Tensor, Tensor]:
        """Two views of images `(N, C, H, W)`, the same whenever a step is repeated."""
        self._draw_from(random_generator(self.seed, VIEWS, step, distributed.rank()))
        return self(images)

    def for_testing(self) -> "Views":
        """The same augmentation with random numbers that are the same at each call."""
        views = Views(self.augment, self.seed)
        views._draw_from(torch.Generator().manual_seed(TEST_SEED))
        return views

    def _draw_from(self, generator: torch.Generator) -> None:
        if isinstance(self.augment, SkyAugmentation):
            self.augment.generator = generator


def choose_augmentation(
    byol: BYOL, given: Augmentation | None, default: Augmentation | None
) -> Augmentation:
    """The given augmentation, else that of `byol`, else the default of the trainer."""
    own = byol.augmentation_function
    if given is not None and own is not None and own is not given:
        raise ValueError(
            "augmentation_function: the network is a BYOL that already has one; give "
            "only one of them"
        )
    check_instance("augmentation_function", given)
    return given or own or default or SkyAugmentation()


class ShuffledCycle:
    """Indices in random order, each used once before any is used again.

    Parameters
    ----------
    number : int
        Number of indices.
    seed : int
        Determines the order, which differs in each round.

    Examples
    --------
    >>> cycle = ShuffledCycle(3, seed=0)
    >>> sorted(cycle.take(0, 3).tolist()), len(cycle.take(3, 5))
    ([0, 1, 2], 5)
    """

    def __init__(self, number: int, seed: int) -> None:
        self.number = number
        self.seed = seed
        self._round = -1
        self._order = torch.empty(0, dtype=torch.int64)

    def take(self, start: int, number: int) -> Tensor:
        """The next indices `(number,)`, int64, after the first `start` ones."""
        chosen = []
        for place in range(start, start + number):
            round_, position = divmod(place, self.number)
            if self._round != round_:
                generator = random_generator(self.seed, SIMULATED_ORDER, round_)
                self._round = round_
                self._order = torch.randperm(self.number, generator=generator)
            chosen.append(int(self._order[position]))
        return torch.tensor(chosen)


def random_generator(seed: int, *purpose: int) -> torch.Generator:
    """A generator of random numbers for a purpose, seeded by `seed`."""
    words = np.random.SeedSequence([seed, *purpose]).generate_state(1)
    return torch.Generator().manual_seed(int(words[0]))


def check_batch_size(batch_size: int, data: Any) -> int:
    """Images per step, at least 2."""
    size = check_integer("batch_size", batch_size, 1)
    if size < MIN_BATCH:
        LOG.warning("batch_size: found 1; 2 is used, because BYOL compares images")
        size = MIN_BATCH
    loader_size = data.batch_size if isinstance(data, DataLoader) else None
    if loader_size not in (None, 1, size):
        LOG.warning(
            "the batch size of the loader, %d, is not used: a step uses %d images "
            "(`batch_size`)",
            *(loader_size, size),
        )
    return size


def load_images(
    data: Any, augment: Augmentation, state: TrainingState
) -> ImageSet | None:
    """Load a user's images, scaled to 0 to 1 if the default augmentation needs that.

    Parameters
    ----------
    data : Tensor, ndarray, Dataset, DataLoader, iterable or None
        See `astromorph.datasets.tensor_datasets.to_image_set`.
    augment : callable
        Makes the views.
    state : TrainingState
        If the images have to be scaled and its network has no normalization function,
        `MinMaxNorm` is added to it, with a warning.

    Returns
    -------
    CachedDataset, MappedDataset, NativeDataset or None
        None without images.
    """
    images = to_image_set(data)
    if images is None or data is images:
        return images
    is_normalized = state.byol.normalization_function is not None
    if not isinstance(augment, SkyAugmentation):
        if not is_normalized:
            check_finite(images.images)  # type: ignore[union-attr]
        return images
    if is_unit_range(images):
        return images
    if not is_normalized:
        LOG.warning(
            "the images are not in the range from 0 to 1, which the default "
            "augmentation needs; `MinMaxNorm` is added before the network"
        )
        state.scale_images()
    return scale_to_unit_range(images)


def batch_indices(
    images: ImageSet, batch_size: int, order: Tensor | None = None
) -> Iterator[Tensor]:
    """Indices of batches with enough images for every process."""
    return images.batches(batch_size, order, MIN_BATCH * distributed.world_size())


def cache_on_device(images: ImageSet, device: torch.device) -> ImageSet:
    """The same images, in the memory of the device if they fit into it."""
    if isinstance(images, CachedDataset) and fits_on_device(images.images, device):
        return CachedDataset(images.images.to(device), images.stacksize)
    return images


def channels_last(images: Tensor) -> Tensor:
    """The same images in the memory layout in which convolutions are fastest."""
    return images.contiguous(memory_format=torch.channels_last)


def resize_like(images: Tensor, like: Tensor) -> Tensor:
    """Images resampled to the height and width of others."""
    if images.shape[2:] == like.shape[2:]:
        return images
    return nn.functional.interpolate(
        images, size=like.shape[2:], mode="bilinear", antialias=True
    )


def is_unit_range(images: ImageSet) -> bool:
    """Whether all pixels are from 0 to 1; False if any is NaN."""
    if isinstance(images, NativeDataset):
        return all(_is_unit_range(image) for image in images.images)
    parts = images.batches(IMAGES_AT_A_TIME)
    return all(_is_unit_range(images.batch(part)) for part in parts)


def _is_unit_range(pixels: Tensor) -> bool:
    return bool((pixels >= 0).all() and (pixels <= 1).all())


def scale_to_unit_range(images: ImageSet) -> ImageSet:
    """The same images, each scaled to the range from 0 to 1."""
    norm = MinMaxNorm()
    if isinstance(images, NativeDataset):
        return NativeDataset([norm(image) for image in images.images], images.stacksize)
    parts = images.batches(IMAGES_AT_A_TIME)
    return CachedDataset(torch.cat([norm(images.batch(part)) for part in parts]))


def check_finite(images: Any) -> None:
    """Raise an error if an image has pixels that are NaN or infinite.

    Parameters
    ----------
    images : Tensor or sequence of Tensor, each of shape (C, H, W)
        Images that are not normalised before the network.

    Raises
    ------
    ValueError
        With the number of the first such image.
    """
    bad = first_non_finite(images)
    if bad is not None:
        raise ValueError(
            f"image {bad}: found NaN or infinite pixels; fill them, omit the image, or "
            "give normalization_function=MinMaxNorm(), which sets them to 0"
        )


@contextmanager
def evaluation_mode(network: nn.Module) -> Iterator[None]:
    """Put a network into evaluation mode, and restore its mode even after an error."""
    training = network.training
    network.eval()
    try:
        yield
    finally:
        network.train(training)
