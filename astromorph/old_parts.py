"""Small parts that version 0.1 had and nothing here needs.

They serve code that was written for it.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset


class BaseDataset(Dataset[Tensor]):
    """What a dataset of images was derived from.

    Attributes
    ----------
    stacksize : int
        How often an image is repeated.
    """

    def __init__(self, stacksize: int = 1) -> None:
        self.stacksize = stacksize


def make_4D(image: Tensor, stacksize: int = 1) -> Tensor:
    """An image `(H, W)` as a batch `(1, stacksize, H, W)`."""
    return image[None, None].repeat(1, stacksize, 1, 1)


def augment_image(image: Tensor, stacksize: int = 1) -> Tensor:
    """Four copies `(4, stacksize, H, W)`: as it is, turned, mirrored, both."""
    one = make_4D(image, stacksize)
    turned = one.rot90(2, (2, 3))
    return torch.cat([one, turned, one.flip(3), turned.flip(3)])


class OldEncoder(nn.Module):
    """Encoder and projector in one, as they were.

    Parameters
    ----------
    network : nn.Module
        The encoder f.
    projector : nn.Module
        The projector g.
    """

    def __init__(self, network: nn.Module, projector: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.projector = projector

    def forward(self, images: Tensor, return_projection: bool = True) -> Any:
        """Projections and embeddings of images `(N, C, H, W)`, or these alone."""
        embedding = self.network(images)
        return (
            (self.projector(embedding), embedding) if return_projection else embedding
        )
