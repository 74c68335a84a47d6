"""Embeddings of images by a trained network."""

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

if TYPE_CHECKING:
    from astromorph.settings.sections import InferenceSettings


@torch.inference_mode()
def embed(
    byol: BYOL,
    data: ImageSet,
    settings: "InferenceSettings",
    change: Callable[[Tensor, Tensor], Tensor] | None = None,
    device: torch.device | None = None,
) -> "np.ndarray[tuple[int, int], np.dtype[np.float32]]":
    """The encoder's embeddings `(N, D)`, float32, of N images in order.

    Parameters
    ----------
    byol : BYOL
        The network.
    data : CachedDataset or NativeDataset
        N images.
    settings : InferenceSettings
        Batch size and symmetry.
    change : callable, optional
        Images `(B, C, H, W)` and their numbers `(B,)` to what is embedded.
    device : torch.device, optional
        Where; by default the best there is.

    Returns
    -------
    ndarray, shape (N, D), float32
    """
    device = choose_device() if device is None else device
    # Convolutions are faster where the channels of a pixel lie together.
    byol = byol.to(device).to(memory_format=torch.channels_last).eval()
    parts = list(data.batches(settings.batch_size))
    vectors = np.empty((len(data), byol.representation_size), np.float32)
    for indices in track(parts, len(parts), "batches"):
        images = data.batch(indices)
        images = (images if change is None else change(images, indices)).to(device)
        images = images.contiguous(memory_format=torch.channels_last)
        if settings.symmetry == "d4":
            embedding = torch.stack(
                [byol(view) for view in dihedral_views(images)]
            ).mean(dim=0)
        else:
            embedding = byol(images)
        vectors[indices.numpy()] = embedding.float().cpu().numpy()
    return vectors


def embed_images(
    network: nn.Module, images: Any, symmetry: str = "d4", batch_size: int = 256
) -> "np.ndarray[tuple[int, int], np.dtype[np.float32]]":
    """Embeddings of images, as the workflow's step `infer` computes them.

    Parameters
    ----------
    network : BYOL or ByolTrainer
        In evaluation mode for the while, where it is (a BYOL on the CPU is used there:
        ``byol.to("cuda")`` before moves it).
    images : PreparedImages, Tensor, Dataset, DataLoader or sequence
        N images; see `astromorph.datasets.tensor_datasets.to_image_set`.
    symmetry : {'d4', 'none'}
        `d4` averages over the 8 flips and right-angle rotations, since the sky has no
        upright; `none` takes an eighth of the time and is ``network(images)``.
    batch_size : int
        Images at a time, at least 1.

    Returns
    -------
    ndarray, shape (N, D), float32
        In the order of the images; ``(0, D)`` without any.

    Raises
    ------
    AstromorphError
        `network` is neither, or an option is out of range.

    Examples
    --------
    >>> from astromorph import AstroMorphologyModel
    >>> images = torch.rand(3, 1, 32, 32)
    >>> found = embed_images(BYOL(AstroMorphologyModel(1)).eval(), images)
    >>> found.shape
    (3, 128)
    """
    from astromorph.settings.loading import parse

    byol = getattr(network, "byol", network)  # of a trainer
    if not isinstance(byol, BYOL):
        raise AstromorphError(
            f"network: found {type(network).__name__}; give a BYOL or a ByolTrainer, "
            "such as BYOL(network)"
        )
    options = {"symmetry": symmetry, "batch_size": batch_size}
    settings = parse({"inference_settings": options}, "embed_images")
    data = to_image_set(images)
    if data is None:
        return np.empty((0, byol.representation_size), np.float32)
    training = byol.training
    where = next(byol.parameters()).device
    found = embed(byol, data, settings.inference_settings, device=where)
    byol.train(training)
    return found


def dihedral_views(images: Tensor) -> list[Tensor]:
    """The 8 flips and right-angle rotations of images `(N, C, H, W)`."""
    turned = [torch.rot90(images, k, (2, 3)) for k in range(4)]
    return turned + [view.flip(3) for view in turned]
