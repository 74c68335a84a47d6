"""Perturbations that an embedding of shapes should not depend on."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from astromorph.byol.augment import SkyAugmentation, gaussian_blur
from astromorph.datasets.tensor_datasets import ImageSet
from astromorph.embedding import metrics
from astromorph.settings.sections import AugmentationSettings

Perturbation = Callable[[Tensor, Tensor], Tensor]
Embedder = Callable[[ImageSet, Perturbation | None], NDArray[np.float32]]

# Noise and blur are left out: principal components of the pixels survive them best.
GEOMETRIC = ("rotated", "flipped", "shifted")
# With these strengths, `SkyAugmentation` only rotates and flips.
NO_STRENGTH = {
    "scale": (1.0, 1.0),
    "shift": 0.0,
    "gamma": 0.0,
    "contrast": 0.0,
    "brightness": 0.0,
    "blur": 0.0,
    "noise": 0.0,
    "channel_gain": 0.0,
    "erasing": 0.0,
}


def make_perturbations(noise: Tensor) -> dict[str, Perturbation]:
    """The perturbations by name, with random numbers that are the same at every call.

    Parameters
    ----------
    noise : Tensor, shape (N,), float32
        Standard deviation of the noise of each image, where the image spans 0 to 1.

    Returns
    -------
    dict of str to callable
        Each takes images `(B, C, H, W)` and their indices among the N `(B,)`, and
        returns perturbed images `(B, C, H, W)`.
    """

    def augment(**strengths: Any) -> Perturbation:
        settings = AugmentationSettings.model_validate(NO_STRENGTH | strengths)
        generator = torch.Generator().manual_seed(1)
        return lambda images, indices: SkyAugmentation(settings, generator)(images)

    def add_noise(images: Tensor, indices: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(2)
        sigma = noise[indices].view(-1, 1, 1, 1).to(images)
        added = torch.randn(images.shape, generator=generator).to(images)
        return (images + sigma * added).clamp(0, 1)

    def dim(images: Tensor, indices: Tensor) -> Tensor:
        background = images.flatten(2).median(dim=2).values[..., None, None]
        return background + 0.5 * (images - background)

    return {
        "rotated": augment(flip=False),
        "flipped": lambda images, indices: images.flip(3),
        "shifted": augment(rotation=False, flip=False, shift=0.08),
        "noisier": add_noise,
        "blurred": lambda images, indices: gaussian_blur(
            images, torch.ones(len(images))
        ),
        "fainter": dim,
    }


def measure_robustness(
    embed: Embedder, images: ImageSet, noise: Tensor
) -> dict[str, dict[str, float]]:
    """Retrieval and alignment of perturbed images, by perturbation.

    Parameters
    ----------
    embed : callable
        Embeds images, perturbed where a perturbation is given.
    images : CachedDataset, MappedDataset or NativeDataset
        N images.
    noise : Tensor, shape (N,), float32
        Standard deviation of their noise, as for `make_perturbations`.

    Returns
    -------
    dict
        `retrieval` and `alignment`, each a dict of str to float; see
        `astromorph.embedding.metrics`.
    """
    originals = embed(images, None)
    perturbed = {
        name: embed(images, perturbation)
        for name, perturbation in make_perturbations(noise).items()
    }
    return {
        "retrieval": {
            name: metrics.retrieval(vectors, originals)
            for name, vectors in perturbed.items()
        },
        "alignment": {
            name: metrics.alignment(vectors, originals)
            for name, vectors in perturbed.items()
        },
    }
