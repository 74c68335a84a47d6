"""BYOL, "Bootstrap your own latent" (Grill et al. 2020, arXiv:2006.07733).

From one view of an image, a network learns to predict the output of its own slow
moving average for another view. The symbols are the paper's: the online network is the
encoder f, the projector g and the predictor q with weights theta; the target network
is f and g with weights xi.
"""

from collections.abc import Callable
from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.nn import functional

from astromorph.byol.augment import SkyAugmentation
from astromorph.checks import check_instance, check_integer, check_number
from astromorph.models.encoders import explaining_channels
from astromorph.models.hidden_layer import count_features, make_encoder

MAX_DEFAULT_PROJECTION = 256
Loss = Callable[[Tensor, Tensor], Tensor]
Augmentation = Callable[[Tensor], Tensor]


def cosine_loss(prediction: Tensor, target: Tensor) -> Tensor:
    """Squared distance between unit vectors, 2 - 2 cos (Grill et al. 2020, eq. 2).

    Parameters
    ----------
    prediction, target : Tensor, shape (N, P)
        Vectors of any length except 0.

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
    """Online and target network, and the loss between them.

    A plain module: it writes no files, logs nothing and stays on its device. In your
    own training loop, call `update_moving_average` after each optimizer step.

    Parameters
    ----------
    network : nn.Module
        A network for images `(N, C, H, W)`; `hidden_layer` chooses the part of it that
        becomes the encoder f.
    representation_size : int, optional
        Length D of an embedding, at least 1. If it differs from the number F of
        features of the encoder, a linear layer is added. The default is F.
    hidden_layer : int or str, optional
        The layer whose flattened output is the features: the index of a child of
        `network`, as in a list, or the name of a layer at any depth. The default is
        the output of `network`; if `network` ends in a classifier (a child named
        `fc`, `classifier`, `head` or `heads`), it is the input of the last linear
        layer.
    augmentation_function : callable, optional
        Maps images to one view of each, for ``forward(images, return_errors=True)``.
        The default is `SkyAugmentation`.
    normalization_function : callable, optional
        Applied to all images and views before the network, such as `MinMaxNorm`.
    use_momentum : bool
        If False, online and target network share their weights, with a stop-gradient
        (SimSiam, Chen & He 2021).
    projection_size : int, optional
        Length P of the vectors that are compared, at least 1. The default is half of
        `representation_size`, at most 256.
    projection_hidden_size : int, optional
        Hidden width of projector and predictor, at least 1. The default is twice
        `representation_size`.
    loss_fn : callable
        Maps predictions and targets `(N, P)` to losses `(N,)` or to their mean.
    moving_average_decay : float
        Default decay tau of `update_moving_average`, from 0 to 1.
    features : int, optional
        The number F of features, at least 1. By default it is measured with two
        images of zeros.
    image_shape : tuple of int, optional
        Shape ``(C, H, W)`` of those images. The default is the number of channels of
        the first convolution, and 64 by 64 pixels.

    Attributes
    ----------
    encoder, projector, predictor : nn.Module
        f, g and q, the online network.
    target : nn.Sequential
        f and g with the weights xi.
    representation_size, projection_size, projection_hidden_size : int
        D, P and the hidden width.
    features : int
        F.

    Raises
    ------
    ValueError
        The layer does not exist (the message lists those that do), the network fails
        on images of zeros, a class was given instead of an object, or a number is out
        of range.

    Examples
    --------
    >>> import torch
    >>> from astromorph.models.encoders import AstroMorphologyModel
    >>> byol = BYOL(AstroMorphologyModel(1), representation_size=32)
    >>> byol(torch.rand(2, 1, 40, 40)).shape
    torch.Size([2, 32])

    A torchvision network up to a layer:

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
        augmentation_function: Augmentation | None = None,
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
        check_instance("network", network)
        check_instance("augmentation_function", augmentation_function)
        check_instance("normalization_function", normalization_function)
        check_instance("loss_fn", loss_fn)
        encoder = make_encoder(network, hidden_layer)
        if features is None:
            features = count_features(encoder, image_shape)
        features = check_integer("features", features, 1)
        size = _size_or_default("representation_size", representation_size, features)
        half = max(1, min(size // 2, MAX_DEFAULT_PROJECTION))
        projection = _size_or_default("projection_size", projection_size, half)
        hidden = _size_or_default(
            "projection_hidden_size", projection_hidden_size, 2 * size
        )
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
            The images; they are not changed.
        return_errors : bool
            Return the loss of two views of each image, made by
            `augmentation_function`.

        Returns
        -------
        Tensor, shape (N, D), or ()
            Embeddings, or the loss.

        Raises
        ------
        ValueError
            The network expects another number of channels.
        """
        if return_errors:
            augment = self.augmentation_function or SkyAugmentation()
            return self.loss(make_view(augment, images), make_view(augment, images))
        # A copy, because the network may change its input.
        normalized = self.normalize(images.clone())
        with explaining_channels(
            self.encoder, images.shape[1] if images.ndim == 4 else None
        ):
            embedding: Tensor = self.encoder(normalized)
        self._check_embeddings(embedding)
        return embedding

    def loss(self, view_1: Tensor, view_2: Tensor) -> Tensor:
        """The symmetric loss of two views of the same images.

        Parameters
        ----------
        view_1, view_2 : Tensor, shape (N, C, H, W)
            One view of each image. In training mode N must be at least 2.

        Returns
        -------
        Tensor, shape ()
            From 0 to 8: `cosine_loss` for both orders of the views, summed, mean over
            the batch.

        Raises
        ------
        ValueError
            The views are not two batches of the same shape, or the network expects
            another number of channels.
        """
        if view_1.shape != view_2.shape or view_1.ndim != 4:
            raise ValueError(
                f"views: found the shapes {tuple(view_1.shape)} and "
                f"{tuple(view_2.shape)}; both must be (N, C, H, W)"
            )
        with explaining_channels(self.encoder, view_1.shape[1]):
            loss, _ = self.loss_and_embeddings(view_1, view_2)
        return loss

    def loss_and_embeddings(
        self, view_1: Tensor, view_2: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The loss, and the embeddings that it was computed from.

        Another loss on the embeddings, such as that of an auxiliary task, then needs
        no second forward pass of the encoder.

        Parameters
        ----------
        view_1, view_2 : Tensor, shape (N, C, H, W)
            One view of each image.

        Returns
        -------
        loss : Tensor, shape ()
            See `loss`.
        embeddings : Tensor, shape (2 N, D)
            Those of `view_1`, then those of `view_2`.
        """
        # Both views go through the networks as one batch: one pass is faster than two.
        views = self.normalize(torch.cat([view_1, view_2]))
        embeddings = self.encoder(views.clone())  # it may change its input
        self._check_embeddings(embeddings)
        predictions = self.predictor(self.projector(embeddings)).float()
        # The stop-gradient: only the online network learns from the loss.
        with torch.no_grad():
            projections = self._project_target(views).float()
        # The prediction from each view is compared with the target of the other view.
        target_1, target_2 = projections.chunk(2)
        targets = torch.cat([target_2, target_1])
        # The mean over both views is half of the sum of the two orders.
        return 2 * self.loss_fn(predictions, targets).mean(), embeddings

    def normalize(self, images: Tensor) -> Tensor:
        """Apply `normalization_function` to images `(N, C, H, W)`, if there is one."""
        if self.normalization_function is None:
            return images
        return self.normalization_function(images)

    @torch.no_grad()
    def update_moving_average(self, decay: float | None = None) -> None:
        """Move the target towards the online network: xi = tau xi + (1 - tau) theta.

        The running statistics of batch norm are not averaged: the target computes its
        own in its forward passes.

        Parameters
        ----------
        decay : float, optional
            tau, from 0 to 1, such as that of
            `astromorph.byol.optimise.moving_average_decay` at each step. The default
            is the attribute `moving_average_decay`.
        """
        decay = self.moving_average_decay if decay is None else decay
        check_number("decay", decay, 0, 1)
        online = nn.Sequential(self.encoder, self.projector)
        xi: list[Tensor] = list(self.target.parameters())
        theta: list[Tensor] = list(online.parameters())
        torch._foreach_lerp_(xi, theta, 1 - decay)

    def _project_target(self, views: Tensor) -> Tensor:
        if self.use_momentum:
            projections: Tensor = self.target(views)
        else:
            projections = self.projector(self.encoder(views))
        return projections

    def _check_embeddings(self, embeddings: Tensor) -> None:
        """Raise an error if the network does not return `(N, D)`."""
        if embeddings.ndim != 2 or embeddings.shape[1] != self.representation_size:
            raise ValueError(
                f"network: found embeddings of the shape {tuple(embeddings.shape)}, "
                f"but {self.features} `features` were given, or measured with images "
                "of another size; omit `features`, or give `image_shape`, or a "
                "`hidden_layer` whose output has the same size for all images"
            )


def make_view(augment: Augmentation, images: Tensor) -> Tensor:
    """One view of each image.

    Parameters
    ----------
    augment : callable
        Maps images `(N, C, H, W)` to one view of each.
    images : Tensor, shape (N, C, H, W)
        The images; they are not changed.

    Returns
    -------
    Tensor, shape (N, C, H', W')

    Raises
    ------
    ValueError
        `augment` returns something else.
    """
    is_safe = isinstance(augment, SkyAugmentation)  # others may change their input
    view = augment(images if is_safe else images.clone())
    if not isinstance(view, Tensor) or view.ndim != 4 or len(view) != len(images):
        shape = tuple(view.shape) if isinstance(view, Tensor) else ""
        raise ValueError(
            f"augmentation_function: found {type(view).__name__} {shape} for images of "
            f"the shape {tuple(images.shape)}; allowed is one view of each image, "
            "(N, C, H, W)"
        )
    return view


def mlp_head(in_features: int, hidden: int, out_features: int) -> nn.Sequential:
    """Projector or predictor: Linear, BatchNorm, ReLU, Linear."""
    return nn.Sequential(
        nn.Linear(in_features, hidden),
        nn.BatchNorm1d(hidden),
        nn.ReLU(inplace=True),
        nn.Linear(hidden, out_features),
    )


def _size_or_default(name: str, size: int | None, default: int) -> int:
    return default if size is None else check_integer(name, size, 1)
