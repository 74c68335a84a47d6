"""Encoders: networks that turn images `(N, C, H, W)` into features `(N, F)`."""

import math
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

import torch
import torchvision
from torch import Tensor, nn
from torchvision.models import get_model, list_models, resnet18

from astromorph.checks import check_integer
from astromorph.models.hidden_layer import PROBE_SIDE
from astromorph.moved import old_attribute, old_keywords

if TYPE_CHECKING:
    from astromorph.settings.sections import NetworkSettings

RESNET_FEATURES = {"layer1": 64, "layer2": 128, "layer3": 256, "layer4": 512}
AMM_FEATURES = 128


class NLayerResnet(nn.Module):
    """ResNet-18 (He et al. 2016) up to one of its four blocks.

    Parameters
    ----------
    in_channels : int
        Channels of the images, at least 1; by default 3.
    last_layer : {'layer1', 'layer2', 'layer3', 'layer4'}
        The last block that is kept: 64, 128, 256 or 512 features; by default layer4.
    stem : {'standard', 'small'}
        What stands before the blocks. `standard` shrinks the image to a quarter
        of its side before the first block; `small` to half, with 3 by 3 filters:
        more detail of small images, four times the work. By default standard.

    Attributes
    ----------
    features : int
        Length F of what comes out.

    Raises
    ------
    ValueError
        `last_layer` or `stem` is none of those, or `in_channels` no whole number
        of at least 1.

    Examples
    --------
    >>> import torch
    >>> network = NLayerResnet(in_channels=1, last_layer="layer2")
    >>> network(torch.rand(2, 1, 64, 64)).shape, network.features
    (torch.Size([2, 128]), 128)
    """

    MOVED_LAYERS: ClassVar[dict[str, str]] = {
        name: f"body.{name}"
        for name in ("conv1", "bn1", "relu", "maxpool", *RESNET_FEATURES)
    }

    def __init__(
        self,
        in_channels: int | str = 3,
        last_layer: str = "layer4",
        stem: str = "standard",
    ) -> None:
        super().__init__()
        # The last layer was once the only argument.
        channels = 3 if isinstance(in_channels, str) else in_channels
        channels = check_integer("in_channels", channels, 1)
        last_layer = in_channels if isinstance(in_channels, str) else last_layer
        if last_layer not in RESNET_FEATURES:
            allowed = ", ".join(RESNET_FEATURES)
            raise ValueError(f"last_layer: found {last_layer!r}; allowed are {allowed}")
        if stem not in ("standard", "small"):
            raise ValueError(f"stem: found {stem!r}; allowed are standard, small")
        every = resnet18(weights=None)
        if stem == "small":
            every.conv1 = _fresh_convolution(channels, 64, 3, 2)
            every.maxpool = nn.Identity()
        elif channels != 3:
            every.conv1 = _fresh_convolution(channels, 64, 7, 2)
        kept = OrderedDict[str, nn.Module]()
        for name in ("conv1", "bn1", "relu", "maxpool", *RESNET_FEATURES):
            kept[name] = getattr(every, name)
            if name == last_layer:
                break
        self.body = nn.Sequential(kept)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.features = RESNET_FEATURES[last_layer]

    embedding_dim = old_attribute("NLayerResnet", "embedding_dim", "features")

    def forward(self, images: Tensor) -> Tensor:
        """Features `(N, F)` of images `(N, C, H, W)`, at least 16 pixels wide."""
        pooled: Tensor = self.avgpool(self.body(images)).flatten(1)
        return pooled


class AstroMorphologyModel(nn.Module):
    """A light network of five convolutions, `amm`: 128 features.

    Parameters
    ----------
    in_channels : int
        Channels of the images, at least 1; by default 1.

    Attributes
    ----------
    features : int
        Length F of what comes out.

    Raises
    ------
    ValueError
        `in_channels` is no whole number of at least 1.

    Examples
    --------
    >>> import torch
    >>> AstroMorphologyModel(in_channels=3)(torch.rand(2, 3, 40, 50)).shape
    torch.Size([2, 128])
    """

    # Where the layers of version 0.1 ended, with other numbers of channels.
    MOVED_LAYERS: ClassVar[dict[str, str]] = {
        "conv1": "body.0.0", "bn1": "body.0.1", "relu": "body.0.2",
        "maxpool": "body.1", "layer1": "body.3", "layer2": "body.5",
    }  # fmt: skip

    @old_keywords(last_layer="nothing: this network has no such choice")
    def __init__(self, in_channels: int = 1) -> None:
        super().__init__()
        in_channels = check_integer("in_channels", in_channels, 1)
        self.body = nn.Sequential(
            _convolution(in_channels, 32, kernel_size=7, stride=2),
            nn.MaxPool2d(kernel_size=3, stride=2, padding=1),
            _convolution(32, 32),
            _convolution(32, 64),
            _convolution(64, 64, stride=2),
            _convolution(64, AMM_FEATURES),
        )
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.features = AMM_FEATURES

    def forward(self, images: Tensor) -> Tensor:
        """Features `(N, 128)` of images `(N, C, H, W)`."""
        pooled: Tensor = self.avgpool(self.body(images)).flatten(1)
        return pooled


class TorchvisionEncoder(nn.Module):
    """Any classification network of torchvision without its last layer.

    Parameters
    ----------
    name : str
        As torchvision names it; random weights.
    in_channels : int
        Channels of the images, at least 1, by default 3; the first convolution is
        made for them.

    Attributes
    ----------
    features : int
        Length F of what comes out.

    Raises
    ------
    ValueError
        torchvision has no such network.

    Examples
    --------
    >>> import torch
    >>> network = TorchvisionEncoder("squeezenet1_1", in_channels=1)
    >>> network(torch.rand(2, 1, 64, 64)).shape
    torch.Size([2, 512])
    """

    def __init__(self, name: str, in_channels: int = 3) -> None:
        super().__init__()
        if name not in list_models(torchvision.models):
            raise ValueError(
                f"network: found {name!r}; allowed are n_layer_resnet, amm and "
                "torchvision's classification networks"
            )
        further: dict[str, Any] = {}
        if name == "googlenet":
            further = {"aux_logits": False, "init_weights": False}
        self.body: nn.Module = get_model(name, weights=None, **further)
        last = [k for k, m in self.body.named_modules() if isinstance(m, nn.Linear)]
        if name.startswith("squeezenet"):
            self.body.classifier = nn.AdaptiveAvgPool2d(1)
        else:
            _replace(self.body, last[-1], nn.Identity())
        if in_channels != 3:
            first, old = next(
                (k, m) for k, m in self.body.named_modules() if isinstance(m, nn.Conv2d)
            )
            _replace(self.body, first, _like(old, in_channels))
        with torch.no_grad():
            probe = torch.zeros(1, in_channels, PROBE_SIDE, PROBE_SIDE)
            self.features = int(self.body.eval()(probe).flatten(1).shape[1])
        self.body.train()

    def forward(self, images: Tensor) -> Tensor:
        """Features `(N, F)` of images `(N, C, H, W)`, at least 64 pixels wide."""
        features: Tensor = self.body(images)
        return features.flatten(1)


class MinMaxNorm(nn.Module):
    """Brings each image to the range from 0 to 1.

    Bad pixels become 0, as does an image of one value.
    """

    def forward(self, images: Tensor) -> Tensor:
        """Normalise images.

        Parameters
        ----------
        images : Tensor, shape (..., C, H, W)
            Of any range; left as they are. NaN and infinite pixels count for
            nothing.

        Returns
        -------
        Tensor, shape (..., C, H, W)
            From 0 to 1, all channels of an image on one scale.

        Examples
        --------
        >>> import torch
        >>> MinMaxNorm()(torch.tensor([[[2.0, 4.0, float("nan")]]]))
        tensor([[[0., 1., 0.]]])
        """
        good = images.isfinite()
        axes = tuple(range(-min(3, images.ndim), 0))
        low = images.where(good, math.inf).amin(dim=axes, keepdim=True)
        high = images.where(good, -math.inf).amax(dim=axes, keepdim=True)
        span = high - low
        scaled = (images - low) / span.where(span > 0, 1)
        return scaled.where(good & (span > 0), 0)


@contextmanager
def explaining_channels(encoder: nn.Module, channels: int | None) -> Iterator[None]:
    """Say it in words where a network fails for images of other channels than it takes.

    Parameters
    ----------
    encoder : nn.Module
        What runs inside.
    channels : int or None
        Of the images; None where it is not known.

    Raises
    ------
    ValueError
        In place of torch's error.
    """
    try:
        yield
    except RuntimeError as error:
        first = next((m for m in encoder.modules() if isinstance(m, nn.Conv2d)), None)
        if first is None or channels is None or first.in_channels == channels:
            raise
        wanted = first.in_channels
        remedy = f"make the network for {channels}, such as with in_channels={channels}"
        if channels == 1:
            remedy += f", or repeat the channel: stacksize={wanted}"
        raise ValueError(
            f"images: found {channels} channel{'s' * (channels > 1)}, but the network "
            f"takes {wanted}; {remedy}"
        ) from error


Encoder = NLayerResnet | AstroMorphologyModel | TorchvisionEncoder


def build_network(
    network_name: str, settings: "NetworkSettings", in_channels: int
) -> Encoder:
    """The network that the settings name, with fresh random weights.

    Raises
    ------
    ValueError
        The name is not known.
    """
    if network_name == "n_layer_resnet":
        return NLayerResnet(in_channels, settings.last_layer, settings.stem)
    if network_name == "amm":
        return AstroMorphologyModel(in_channels)
    return TorchvisionEncoder(network_name, in_channels)


def _fresh_convolution(
    in_channels: int, outside: int, kernel_size: int, stride: int
) -> nn.Conv2d:
    made = nn.Conv2d(
        in_channels, outside, kernel_size, stride, kernel_size // 2, bias=False
    )
    nn.init.kaiming_normal_(made.weight, mode="fan_out", nonlinearity="relu")
    return made


def _like(old: nn.Conv2d, in_channels: int) -> nn.Conv2d:
    """A convolution like another one, for other channels."""
    return nn.Conv2d(
        in_channels,
        old.out_channels,
        old.kernel_size,  # type: ignore[arg-type]
        old.stride,  # type: ignore[arg-type]
        old.padding,  # type: ignore[arg-type]
        bias=old.bias is not None,
    )


def _replace(network: nn.Module, path: str, new: nn.Module) -> None:
    """Put another module in the place of one inside a network."""
    parent, _, name = path.rpartition(".")
    setattr(network.get_submodule(parent), name, new)


def _convolution(
    inside: int, outside: int, kernel_size: int = 3, stride: int = 1
) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(
            inside, outside, kernel_size, stride, padding=kernel_size // 2, bias=False
        ),
        nn.BatchNorm2d(outside),
        nn.ReLU(inplace=True),
    )
