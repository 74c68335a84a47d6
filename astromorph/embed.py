"""Embeddings of images by a trained network."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from astromorph.byol import BYOL
from astromorph.datasets import ImageSet
from astromorph.devices import choose_device
from astromorph.progress import track

if TYPE_CHECKING:
    from astromorph.settings import InferenceOptions


@torch.inference_mode()
def embed(
    byol: BYOL,
    data: ImageSet,
    settings: "InferenceOptions",
    change: Callable[[Tensor, Tensor], Tensor] | None = None,
) -> "np.ndarray[tuple[int, int], np.dtype[np.float32]]":
    """The encoder's embeddings `(N, D)`, float32, of N images in order.

    Parameters
    ----------
    byol : BYOL
        The network.
    data : CachedDataset or NativeDataset
        N images.
    settings : InferenceOptions
        Batch size and symmetry.
    change : callable, optional
        Images `(B, C, H, W)` and their numbers `(B,)` to what is embedded.

    Returns
    -------
    ndarray, shape (N, D), float32
    """
    device = choose_device()
    # Convolutions are faster where the channels of a pixel lie together.
    byol = byol.to(device).to(memory_format=torch.channels_last).eval()
    parts = list(data.batches(settings.batch_size))
    vectors = np.empty((len(data), byol.representation_size), np.float32)
    for indices in track(parts, len(parts), "batches"):
        images = data.batch(indices)
        images = (images if change is None else change(images, indices)).to(device)
        images = images.contiguous(memory_format=torch.channels_last)
        if settings.symmetry == "d4":
            embedding = torch.stack([byol(view) for view in d4(images)]).mean(dim=0)
        else:
            embedding = byol(images)
        vectors[indices.numpy()] = embedding.float().cpu().numpy()
    return vectors


def d4(images: Tensor) -> list[Tensor]:
    """The 8 flips and right-angle rotations of images `(N, C, H, W)`."""
    turned = [torch.rot90(images, k, (2, 3)) for k in range(4)]
    return turned + [view.flip(3) for view in turned]
