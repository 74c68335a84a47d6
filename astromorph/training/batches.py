"""What the training loop does with images before they are seen."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from astromorph import distributed
from astromorph.datasets.any_images import first_non_finite
from astromorph.datasets.batching import MIN_BATCH
from astromorph.datasets.tensor_datasets import CachedDataset, ImageSet, NativeDataset
from astromorph.devices import fits_on_device
from astromorph.models.encoders import MinMaxNorm


def is_unit_range(data: ImageSet) -> bool:
    """Whether all pixels are; NaN is not."""
    if isinstance(data, NativeDataset):
        return all(_within(image) for image in data.images)
    return all(_within(data.batch(part)) for part in data.batches(256))


def _within(images: Tensor) -> bool:
    return bool((images >= 0).all() and (images <= 1).all())


def scale_to_unit_range(data: ImageSet) -> ImageSet:
    """The same images, each from 0 to 1."""
    norm = MinMaxNorm()
    if isinstance(data, NativeDataset):
        return NativeDataset([norm(image) for image in data.images], data.stacksize)
    parts = [norm(data.batch(part)) for part in data.batches(256)]
    return CachedDataset(torch.cat(parts))


def check_finite(images: Any) -> None:
    """Refuse images with pixels that a network can do nothing with.

    Parameters
    ----------
    images : Tensor or sequence of Tensor, each of shape (C, H, W)
        Not normalised by what comes before the network.

    Raises
    ------
    ValueError
        With the number of the first such image.
    """
    bad = first_non_finite(images)
    if bad is not None:
        raise ValueError(
            f"image {bad}: found NaN or infinite pixels; fill them, leave the image "
            "out, or give normalization_function=MinMaxNorm(), which makes them 0"
        )


def cache_on_device(data: ImageSet, device: torch.device) -> ImageSet:
    """Images in the device's memory, where they fit."""
    if isinstance(data, CachedDataset) and fits_on_device(data.images, device):
        return CachedDataset(data.images.to(device), data.stacksize)
    return data


def batches(
    data: ImageSet, batch_size: int, order: Tensor | None = None
) -> Iterator[Tensor]:
    """Indices of batches with images enough for every process."""
    return data.batches(batch_size, order, MIN_BATCH * distributed.world_size())


def channels_last(images: Tensor) -> Tensor:
    """Images with the channels of a pixel together, as convolutions like them."""
    return images.contiguous(memory_format=torch.channels_last)


def resize_like(images: Tensor, like: Tensor) -> Tensor:
    """Simulated images in the size of a batch of images of their own sizes."""
    if images.shape[2:] == like.shape[2:]:
        return images
    return nn.functional.interpolate(
        images, size=like.shape[2:], mode="bilinear", antialias=True
    )


@contextmanager
def evaluation_mode(network: nn.Module) -> Iterator[None]:
    """A network in evaluation mode; it is as it was afterwards, also after an error."""
    training = network.training
    network.eval()
    try:
        yield
    finally:
        network.train(training)


def random_generator(seed: int, *purpose: int) -> torch.Generator:
    """Random numbers that follow from a seed and from what they are for."""
    words = np.random.SeedSequence([seed, *purpose]).generate_state(1)
    return torch.Generator().manual_seed(int(words[0]))


class ShuffledCycle:
    """Numbers of simulated images: each comes once before one comes again.

    Parameters
    ----------
    number : int
        How many there are.
    seed, purpose : int
        Of the order, which is another one each time.
    """

    def __init__(self, number: int, seed: int, purpose: int) -> None:
        self.number, self.seed, self.purpose = number, seed, purpose
        self._order = (-1, torch.empty(0, dtype=torch.int64))

    def take(self, start: int, number: int) -> Tensor:
        """Numbers `(number,)`, int64, where `start` have been taken before."""
        chosen = []
        for place in range(start, start + number):
            turn = place // self.number
            if self._order[0] != turn:
                generator = random_generator(self.seed, self.purpose, turn)
                self._order = turn, torch.randperm(self.number, generator=generator)
            chosen.append(int(self._order[1][place % self.number]))
        return torch.tensor(chosen)
