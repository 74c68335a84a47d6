"""Embed images with a trained network."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from astromorph.byol.byol import BYOL
from astromorph.datasets.tensor_datasets import ImageSet, to_image_set
from astromorph.devices import choose_device
from astromorph.errors import AstromorphError
from astromorph.progress import track

if TYPE_CHECKING:  # pydantic is not needed to embed
    from astromorph.embedding.references import ReferenceNetwork
    from astromorph.settings.sections import InferenceSettings


@torch.inference_mode()
def embed(
    byol: "BYOL | ReferenceNetwork",
    images: ImageSet,
    settings: "InferenceSettings",
    perturbation: Callable[[Tensor, Tensor], Tensor] | None = None,
    device: torch.device | None = None,
) -> "np.ndarray[tuple[int, int], np.dtype[np.float32]]":
    """Embed images with the encoder of a network.

    Parameters
    ----------
    byol : BYOL or ReferenceNetwork
        The network; it is put into evaluation mode and moved to the device.
    images : CachedDataset, MappedDataset or NativeDataset
        N images.
    settings : InferenceSettings
        Batch size and symmetry.
    perturbation : callable, optional
        Takes images `(B, C, H, W)` and their indices `(B,)`, and returns the images
        to embed instead.
    device : torch.device, optional
        Where to compute; by default the best device available.

    Returns
    -------
    ndarray, shape (N, D), float32
        In the order of the images.
    """
    device = choose_device() if device is None else device
    # Convolutions are faster if the channels of a pixel are adjacent in memory.
    byol = byol.to(device).to(memory_format=torch.channels_last).eval()
    batches = list(images.batches(settings.batch_size))
    vectors = np.empty((len(images), byol.representation_size), np.float32)
    for indices in track(batches, len(batches), "batches"):
        batch = images.batch(indices)
        if perturbation is not None:
            batch = perturbation(batch, indices)
        batch = batch.to(device).contiguous(memory_format=torch.channels_last)
        if settings.symmetry == "d4":
            views = [byol(view) for view in dihedral_views(batch)]
            embedding = torch.stack(views).mean(dim=0)
        else:
            embedding = byol(batch)
        vectors[indices.numpy()] = embedding.float().cpu().numpy()
    return vectors


def embed_images(
    network: nn.Module, images: Any, symmetry: str = "d4", batch_size: int = 256
) -> "np.ndarray[tuple[int, int], np.dtype[np.float32]]":
    """Embed images as the workflow's step `infer` does.

    Parameters
    ----------
    network : BYOL or ByolTrainer
        It is put into evaluation mode during the call and stays on its device; to use
        another one, call ``byol.to("cuda")`` first.
    images : PreparedImages, Tensor, Dataset, DataLoader or sequence
        N images; see `astromorph.datasets.tensor_datasets.to_image_set`.
    symmetry : {'d4', 'none'}
        `d4` averages over the 8 flips and right-angle rotations, since the orientation
        on the sky is arbitrary; `none` takes an eighth of the time and is the same as
        ``network(images)``.
    batch_size : int
        Images per batch, at least 1.

    Returns
    -------
    ndarray, shape (N, D), float32
        In the order of the images; ``(0, D)`` if there are none.

    Raises
    ------
    AstromorphError
        `network` is of another type, or an option is out of range.

    Examples
    --------
    >>> from astromorph import AstroMorphologyModel
    >>> images = torch.rand(3, 1, 32, 32)
    >>> vectors = embed_images(BYOL(AstroMorphologyModel(1)).eval(), images)
    >>> vectors.shape
    (3, 128)
    """
    from astromorph.settings.loading import parse

    byol = getattr(network, "byol", network)  # a trainer has one
    if not isinstance(byol, BYOL):
        raise AstromorphError(
            f"network: found {type(network).__name__}; give a BYOL or a ByolTrainer, "
            "such as BYOL(network)"
        )
    options = {"symmetry": symmetry, "batch_size": batch_size}
    settings = parse({"inference_settings": options}, "embed_images")
    image_set = to_image_set(images)
    if image_set is None:
        return np.empty((0, byol.representation_size), np.float32)
    training = byol.training
    device = next(byol.parameters()).device
    vectors = embed(byol, image_set, settings.inference_settings, device=device)
    byol.train(training)
    return vectors


def dihedral_views(images: Tensor) -> list[Tensor]:
    """The 8 flips and right-angle rotations of images `(N, C, H, W)`."""
    rotated = [torch.rot90(images, k, (2, 3)) for k in range(4)]
    return rotated + [view.flip(3) for view in rotated]
