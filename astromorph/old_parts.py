"""To be removed with the shim in `byol.byol` that uses it."""

from typing import Any

from torch import Tensor, nn


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
