"""BYOL, "Bootstrap your own latent" (Grill et al. 2020).

A network learns to predict, from one view of an image, what its own slow
average makes of another view. The symbols are the paper's: the online network
is encoder f, projector g and predictor q with weights theta; the target is f and
g with weights xi.
"""

from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.nn import functional

LARGEST_DEFAULT_PROJECTION = 256


class BYOL(nn.Module):
    """Online and target networks, and the loss between them.

    Parameters
    ----------
    encoder : nn.Module
        Turns images `(N, C, H, W)` into features `(N, F)`.
    features : int
        F.
    representation_size : int, optional
        Length of an embedding; where it differs from F, a linear layer maps the
        features. By default F.
    projection_size : int, optional
        Length of the vectors that are compared. By default half of
        `representation_size`, at most 256.
    projection_hidden_size : int, optional
        Hidden width of projector and predictor. By default twice
        `representation_size`.
    use_momentum : bool
        False shares the weights between online and target network.

    Examples
    --------
    >>> import torch
    >>> from astromorph.networks import AstroMorphologyModel
    >>> byol = BYOL(AstroMorphologyModel(1), features=128)
    >>> byol(torch.rand(2, 1, 32, 32)).shape
    torch.Size([2, 128])
    """

    def __init__(
        self,
        encoder: nn.Module,
        features: int,
        representation_size: int | None = None,
        projection_size: int | None = None,
        projection_hidden_size: int | None = None,
        use_momentum: bool = True,
    ) -> None:
        super().__init__()
        size = representation_size or features
        projection = projection_size or max(
            1, min(size // 2, LARGEST_DEFAULT_PROJECTION)
        )
        hidden = projection_hidden_size or 2 * size
        if size != features:
            encoder = nn.Sequential(encoder, nn.Linear(features, size))
        self.encoder = encoder
        self.projector = mlp(size, hidden, projection)
        self.predictor = mlp(projection, hidden, projection)
        self.target = deepcopy(nn.Sequential(self.encoder, self.projector))
        self.target.requires_grad_(False)
        self.representation_size = size
        self.projection_size = projection
        self.projection_hidden_size = hidden
        self.use_momentum = use_momentum

    def forward(self, images: Tensor) -> Tensor:
        """Embeddings `(N, D)` of images `(N, C, H, W)`."""
        embedding: Tensor = self.encoder(images)
        return embedding

    def loss(self, view_1: Tensor, view_2: Tensor) -> Tensor:
        """The symmetric loss of two views of the same images.

        Parameters
        ----------
        view_1, view_2 : Tensor, shape (N, C, H, W)
            In training N must be at least 2.

        Returns
        -------
        Tensor, shape ()
            From 0 to 8: `cosine_loss` of both orders of the views, summed, mean
            over the batch.
        """
        views = torch.cat([view_1, view_2])
        return self.compare(self.encoder(views), views)

    def compare(self, embeddings: Tensor, views: Tensor) -> Tensor:
        """The same loss, where the embeddings of the views are known.

        Parameters
        ----------
        embeddings : Tensor, shape (2 N, D)
            What the encoder makes of the views.
        views : Tensor, shape (2 N, C, H, W)
            One view of each image, then the other of each.

        Returns
        -------
        Tensor, shape ()
        """
        prediction = self.predictor(self.projector(embeddings)).float()
        with torch.no_grad():
            projection = self._target(views).float()
        of_view_1, of_view_2 = projection.chunk(2)
        others = torch.cat([of_view_2, of_view_1])
        return 2 * cosine_loss(prediction, others).mean()

    @torch.no_grad()
    def update_moving_average(self, decay: float) -> None:
        """Move the target towards the online network: xi = tau xi + (1 - tau) theta.

        Parameters
        ----------
        decay : float
            tau, from 0 to 1. Running statistics of batch norm are the target's
            own, from its own forward passes, and are not averaged.
        """
        online = nn.Sequential(self.encoder, self.projector)
        xi: list[Tensor] = list(self.target.parameters())
        theta: list[Tensor] = list(online.parameters())
        torch._foreach_lerp_(xi, theta, 1 - decay)

    def _target(self, images: Tensor) -> Tensor:
        if self.use_momentum:
            projection: Tensor = self.target(images)
        else:
            projection = self.projector(self.encoder(images))
        return projection


def cosine_loss(prediction: Tensor, target: Tensor) -> Tensor:
    """Squared distance of two unit vectors, 2 - 2 cos (Grill et al. 2020, eq. 2).

    Parameters
    ----------
    prediction, target : Tensor, shape (N, P)
        Of any length but 0.

    Returns
    -------
    Tensor, shape (N,)
        From 0 (parallel) to 4 (opposite).
    """
    return 2 - 2 * functional.cosine_similarity(prediction, target, dim=-1)


def mlp(inside: int, hidden: int, outside: int) -> nn.Sequential:
    """Projector and predictor: Linear, BatchNorm, ReLU, Linear."""
    return nn.Sequential(
        nn.Linear(inside, hidden),
        nn.BatchNorm1d(hidden),
        nn.ReLU(inplace=True),
        nn.Linear(hidden, outside),
    )
