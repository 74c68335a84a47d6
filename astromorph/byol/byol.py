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

from astromorph.checks import check_instance, check_integer, check_number
from astromorph.models.encoders import explaining_channels
from astromorph.models.hidden_layer import count_features, make_encoder
from astromorph.moved import old_attribute, told
from astromorph.old_parts import OldEncoder

MAX_DEFAULT_PROJECTION = 256
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
        Length D of an embedding, at least 1; where it differs from the number F of the
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
        Length P of the vectors that are compared, at least 1. By default half of
        `representation_size`, at most 256.
    projection_hidden_size : int, optional
        Hidden width of projector and predictor, at least 1. By default twice
        `representation_size`.
    loss_fn : callable
        Predictions and targets `(N, P)` to losses `(N,)` or their mean.
    moving_average_decay : float
        tau where `update_moving_average` is told no other, from 0 to 1.
    features : int, optional
        F, at least 1, where it is known. By default the network is tried with two
        images.
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
    features : int
        F.

    Raises
    ------
    ValueError
        There is no such layer (the message lists them), the network cannot be
        tried, a class stands for an object, or a number is out of its range.

    Examples
    --------
    >>> import torch
    >>> from astromorph.models.encoders import AstroMorphologyModel
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
        for name, part in {
            "network": network,
            "augmentation_function": augmentation_function,
            "normalization_function": normalization_function,
            "loss_fn": loss_fn,
        }.items():
            check_instance(name, part)
        encoder = make_encoder(network, hidden_layer)
        if features is None:
            features = count_features(encoder, image_shape)
        features = check_integer("features", features, 1)
        size = _size("representation_size", representation_size, features)
        half = max(1, min(size // 2, MAX_DEFAULT_PROJECTION))
        projection = _size("projection_size", projection_size, half)
        hidden = _size("projection_hidden_size", projection_hidden_size, 2 * size)
        decay = check_number("moving_average_decay", moving_average_decay, 0, 1)
        if size != features:
            encoder = nn.Sequential(encoder, nn.Linear(features, size))
        self.encoder = encoder
        self.projector = mlp_head(size, hidden, projection)
        self.predictor = mlp_head(projection, hidden, projection)
        self.target = deepcopy(nn.Sequential(self.encoder, self.projector))
        self.target.requires_grad_(False)
        self.representation_size = size
        self.projection_size = projection
        self.projection_hidden_size = hidden
        self.use_momentum = use_momentum
        self.augmentation_function = augmentation_function
        self.normalization_function = normalization_function
        self.loss_fn = loss_fn
        self.moving_average_decay = decay
        self.features = features

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

        Raises
        ------
        ValueError
            The images have another number of channels than the network takes.
        """
        if return_errors:
            augment = self.augmentation_function or _of_the_sky()
            return self.loss(make_view(augment, images), make_view(augment, images))
        # A copy, as the network may change its input.
        seen = self.normalised(images.clone())
        with explaining_channels(
            self.encoder, images.shape[1] if images.ndim == 4 else None
        ):
            embedding: Tensor = self.encoder(seen)
        self._check(embedding)
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
        with explaining_channels(self.encoder, view_1.shape[1]):
            return self.compare(self.encoder(views.clone()), views)

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
        self._check(embeddings)
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
            `astromorph.byol.optimise` gives at each step; by default the
            `moving_average_decay` of this object. Running statistics of batch norm
            are the target's own, from its own forward passes, and are not averaged.
        """
        decay = self.moving_average_decay if decay is None else decay
        check_number("decay", decay, 0, 1)
        online = nn.Sequential(self.encoder, self.projector)
        xi: list[Tensor] = list(self.target.parameters())
        theta: list[Tensor] = list(online.parameters())
        torch._foreach_lerp_(xi, theta, 1 - decay)

    def _check(self, embeddings: Tensor) -> None:
        """Refuse a network that gives something else than it was said to."""
        if embeddings.ndim != 2 or embeddings.shape[1] != self.representation_size:
            raise ValueError(
                f"network: it gives embeddings of the shape {tuple(embeddings.shape)}, "
                f"but {self.features} `features` were named or found for images of "
                "another size; leave `features` out, name `image_shape`, or a "
                "`hidden_layer` whose output has one size for all images"
            )

    online_predictor = old_attribute("BYOL", "online_predictor", "predictor")

    @property
    def online_encoder(self) -> nn.Module:
        """As version 0.1 called `encoder` and `projector`, in one."""
        told("BYOL.online_encoder", "BYOL.encoder and BYOL.projector")
        return OldEncoder(self.encoder, self.projector)

    @property
    def target_encoder(self) -> nn.Module:
        """As version 0.1 called `target`, the encoder before its projector."""
        told("BYOL.target_encoder", "BYOL.target")
        return OldEncoder(self.target[0], self.target[1])

    def _target(self, images: Tensor) -> Tensor:
        if self.use_momentum:
            projection: Tensor = self.target(images)
        else:
            projection = self.projector(self.encoder(images))
        return projection


def make_view(augment: Callable[[Tensor], Any], images: Tensor) -> Tensor:
    """A view of each image, which is left as it is.

    Parameters
    ----------
    augment : callable
        Images `(N, C, H, W)` to views of the same number.
    images : Tensor, shape (N, C, H, W)
        Any.

    Returns
    -------
    Tensor, shape (N, C, H', W')

    Raises
    ------
    ValueError
        What it gives is something else.
    """
    view = augment(images.clone())
    if isinstance(view, tuple) and view:
        told("a tuple from augmentation_function", "its first element alone", 4)
        view = view[0]
    if not isinstance(view, Tensor) or view.ndim != 4 or len(view) != len(images):
        shape = tuple(view.shape) if isinstance(view, Tensor) else ""
        raise ValueError(
            f"augmentation_function: found {type(view).__name__} {shape} for images of "
            f"the shape {tuple(images.shape)}; allowed is one view of each image, "
            "(N, C, H, W)"
        )
    return view


def _of_the_sky() -> Callable[[Tensor], Tensor]:
    from astromorph.byol.augment import SkyAugmentation

    return SkyAugmentation()


def _size(name: str, given: int | None, default: int) -> int:
    return default if given is None else check_integer(name, given, 1)


def mlp_head(inside: int, hidden: int, outside: int) -> nn.Sequential:
    """Projector and predictor: Linear, BatchNorm, ReLU, Linear."""
    return nn.Sequential(
        nn.Linear(inside, hidden),
        nn.BatchNorm1d(hidden),
        nn.ReLU(inplace=True),
        nn.Linear(hidden, outside),
    )
