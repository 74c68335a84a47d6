"""BYOL, "Bootstrap your own latent" (Grill et al. 2020).

A network learns to predict, from one view of an image, what its own slow
average makes of another view. The symbols are the paper's: the online network
is encoder f, projector g and predictor q with weights theta; the target is f and
g with weights xi.
"""

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from astromorph.moved import moved
from astromorph.networks import encoder_of, features_of

LARGEST_DEFAULT_PROJECTION = 256
Loss = Callable[[Tensor, Tensor], Tensor]


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

    Examples
    --------
    >>> import torch
    >>> one = torch.tensor([[3.0, 0.0], [1.0, 0.0]])
    >>> cosine_loss(one, torch.tensor([[1.0, 0.0], [0.0, 2.0]]))
    tensor([0., 2.])
    """
    return 2 - 2 * functional.cosine_similarity(prediction, target, dim=-1)


class BYOL(nn.Module):
    """Online and target networks, and the loss between them.

    A plain module: it writes nothing, logs nothing and stays on the device where it
    is put. In a loop of your own, call `update_moving_average` after each step of
    the optimizer.

    Parameters
    ----------
    network : nn.Module
        Turns images `(N, C, H, W)` into something; what is used of it, the encoder
        f, is chosen by `hidden_layer`.
    representation_size : int, optional
        Length D of an embedding; where it differs from the number F of the
        encoder's features, a linear layer maps them. By default F.
    hidden_layer : int or str, optional
        The layer whose output, flattened, is the features: the number of a child of
        `network`, counted as in a list, or the name of a layer at any depth. By
        default the last output, or, where the network ends in a classifier (a
        child named `fc`, `classifier`, `head` or `heads`), what enters its last
        linear layer.
    augmentation_function : callable, optional
        Images to one view of each, for ``forward(images, return_errors=True)``. By
        default `SkyAugmentation`.
    normalization_function : callable, optional
        Applied to all images and views before the network sees them, such as
        `MinMaxNorm`.
    use_momentum : bool
        False shares the weights between online and target network, behind a
        stop-gradient (SimSiam, Chen & He 2021).
    projection_size : int, optional
        Length P of the vectors that are compared. By default half of
        `representation_size`, at most 256.
    projection_hidden_size : int, optional
        Hidden width of projector and predictor. By default twice
        `representation_size`.
    loss_fn : callable
        Predictions and targets `(N, P)` to losses `(N,)` or their mean.
    moving_average_decay : float
        tau where `update_moving_average` is told no other, from 0 to 1.
    features : int, optional
        F, where it is known. By default the network is tried with two images.
    image_shape : tuple of int, optional
        ``(C, H, W)`` of the images that it is tried with. By default the channels
        of its first convolution, and 64 by 64 pixels.

    Attributes
    ----------
    encoder, projector, predictor : nn.Module
        f, g and q, the online network.
    target : nn.Sequential
        f and g with the slow weights.
    representation_size, projection_size, projection_hidden_size : int
        As above.

    Raises
    ------
    ValueError
        There is no such layer (the message lists them), or the network cannot be
        tried.

    Examples
    --------
    >>> import torch
    >>> from astromorph.networks import AstroMorphologyModel
    >>> byol = BYOL(AstroMorphologyModel(1), representation_size=32)
    >>> byol(torch.rand(2, 1, 40, 40)).shape
    torch.Size([2, 32])

    A network of torchvision up to a layer:

    >>> from torchvision.models import resnet18
    >>> byol = BYOL(resnet18(), hidden_layer="layer2")
    >>> byol.representation_size  # 128 channels of 8 by 8 pixels
    8192
    """

    def __init__(
        self,
        network: nn.Module,
        representation_size: int | None = None,
        hidden_layer: int | str | None = None,
        augmentation_function: Callable[[Tensor], Tensor] | None = None,
        normalization_function: Callable[[Tensor], Tensor] | None = None,
        use_momentum: bool = True,
        projection_size: int | None = None,
        projection_hidden_size: int | None = None,
        loss_fn: Loss = cosine_loss,
        moving_average_decay: float = 0.99,
        *,
        features: int | None = None,
        image_shape: tuple[int, int, int] | None = None,
    ) -> None:
        super().__init__()
        encoder = encoder_of(network, hidden_layer)
        if features is None:
            features = features_of(encoder, image_shape)
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
        self.augmentation_function = augmentation_function
        self.normalization_function = normalization_function
        self.loss_fn = loss_fn
        self.moving_average_decay = moving_average_decay

    def forward(self, images: Tensor, return_errors: bool = False) -> Tensor:
        """Embeddings of images, or the loss of two random views of them.

        Parameters
        ----------
        images : Tensor, shape (N, C, H, W), float32
            Left as they are.
        return_errors : bool
            Give the loss: `augmentation_function` makes two views of each image.

        Returns
        -------
        Tensor, shape (N, D), or ()
            Embeddings, or the loss.
        """
        if return_errors:
            augment = self._augment()
            return self.loss(augment(images), augment(images))
        embedding: Tensor = self.encoder(self.normalised(images))
        return embedding

    def normalised(self, images: Tensor) -> Tensor:
        """Images `(N, C, H, W)` as the network sees them."""
        if self.normalization_function is None:
            return images
        return self.normalization_function(images)

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

        Raises
        ------
        ValueError
            The views are no two batches of the same shape.
        """
        if view_1.shape != view_2.shape or view_1.ndim != 4:
            raise ValueError(
                f"views: found the shapes {tuple(view_1.shape)} and "
                f"{tuple(view_2.shape)}; both must be (N, C, H, W)"
            )
        views = self.normalised(torch.cat([view_1, view_2]))
        return self.compare(self.encoder(views), views)

    def compare(self, embeddings: Tensor, views: Tensor) -> Tensor:
        """The same loss, where the embeddings of the views are known.

        Parameters
        ----------
        embeddings : Tensor, shape (2 N, D)
            What the encoder makes of the views.
        views : Tensor, shape (2 N, C, H, W)
            One view of each image, then the other of each, normalised.

        Returns
        -------
        Tensor, shape ()
        """
        prediction = self.predictor(self.projector(embeddings)).float()
        with torch.no_grad():
            projection = self._target(views).float()
        of_view_1, of_view_2 = projection.chunk(2)
        others = torch.cat([of_view_2, of_view_1])
        return 2 * self.loss_fn(prediction, others).mean()

    @torch.no_grad()
    def update_moving_average(self, decay: float | None = None) -> None:
        """Move the target towards the online network: xi = tau xi + (1 - tau) theta.

        Parameters
        ----------
        decay : float, optional
            tau, from 0 to 1, such as `moving_average_decay` of
            `astromorph.optimise` gives at each step; by default the
            `moving_average_decay` of this object. Running statistics of batch norm
            are the target's own, from its own forward passes, and are not averaged.
        """
        decay = self.moving_average_decay if decay is None else decay
        online = nn.Sequential(self.encoder, self.projector)
        xi: list[Tensor] = list(self.target.parameters())
        theta: list[Tensor] = list(online.parameters())
        torch._foreach_lerp_(xi, theta, 1 - decay)

    def _augment(self) -> Callable[[Tensor], Tensor]:
        if self.augmentation_function is None:
            from astromorph.augment import SkyAugmentation

            self.augmentation_function = SkyAugmentation()
        return self.augmentation_function

    def _target(self, images: Tensor) -> Tensor:
        if self.use_momentum:
            projection: Tensor = self.target(images)
        else:
            projection = self.projector(self.encoder(images))
        return projection


def mlp(inside: int, hidden: int, outside: int) -> nn.Sequential:
    """Projector and predictor: Linear, BatchNorm, ReLU, Linear."""
    return nn.Sequential(
        nn.Linear(inside, hidden),
        nn.BatchNorm1d(hidden),
        nn.ReLU(inplace=True),
        nn.Linear(hidden, outside),
    )


_MOVED = {
    "ByolTrainer": "astromorph.trainer",
    "MinMaxNorm": "astromorph.networks",
}


def __getattr__(name: str) -> Any:
    return moved(__name__, _MOVED, name)
