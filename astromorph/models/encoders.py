"""Encoders: networks that turn images `(N, C, H, W)` into features `(N, F)`."""

import math
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from astromorph.checks import check_integer
from astromorph.models.hidden_layer import PROBE_SIDE

if TYPE_CHECKING:  # pydantic, which training alone does not need
    from astromorph.settings.sections import NetworkSettings

MAX_SEPARATE_CHANNELS = 5  # that `network_settings.channels: auto` keeps separate
# Factor of the differences between channels, which are smaller than their mean. Chosen
# with simulated sets of three channels: colours (0.82 to 0.89 for factors from 1 to 10,
# in balanced accuracy) and images before and after an event (0.95 for all of them).
DIFFERENCE_WEIGHT = 3.0
OWN_WEIGHTS = (None, "sky", "random")  # `network_settings.weights`
RESNET_FEATURES = {"layer1": 64, "layer2": 128, "layer3": 256, "layer4": 512}
AMM_FEATURES = 128


class NLayerResnet(nn.Module):
    """ResNet-18 (He et al. 2016) up to one of its four blocks.

    Parameters
    ----------
    in_channels : int
        Channels of the images, at least 1; by default 3.
    last_layer : {'layer1', 'layer2', 'layer3', 'layer4'}
        The last block in the network, for 64, 128, 256 or 512 features; by default
        layer4.

    Attributes
    ----------
    features : int
        Number of features F.

    Raises
    ------
    ValueError
        `last_layer` is not one of these, or `in_channels` is not an integer of at
        least 1.

    Examples
    --------
    >>> import torch
    >>> network = NLayerResnet(in_channels=1, last_layer="layer2")
    >>> network(torch.rand(2, 1, 64, 64)).shape, network.features
    (torch.Size([2, 128]), 128)
    """

    def __init__(
        self,
        in_channels: int = 3,
        last_layer: str = "layer4",
    ) -> None:
        super().__init__()
        in_channels = check_integer("in_channels", in_channels, 1)
        if last_layer not in RESNET_FEATURES:
            allowed = ", ".join(RESNET_FEATURES)
            raise ValueError(f"last_layer: found {last_layer!r}; allowed are {allowed}")
        # torchvision imports the compiler of PyTorch, which takes a second.
        from torchvision.models import resnet18

        resnet = resnet18(weights=None)
        if in_channels != 3:
            resnet.conv1 = _input_convolution(in_channels)
        layers = OrderedDict[str, nn.Module]()
        for name in ("conv1", "bn1", "relu", "maxpool", *RESNET_FEATURES):
            layers[name] = getattr(resnet, name)
            if name == last_layer:
                break
        self.body = nn.Sequential(layers)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.features = RESNET_FEATURES[last_layer]

    def forward(self, images: Tensor) -> Tensor:
        """Features `(N, F)` of images `(N, C, H, W)`, at least 16 pixels wide."""
        pooled: Tensor = self.avgpool(self.body(images)).flatten(1)
        return pooled


class AstroMorphologyModel(nn.Module):
    """The light network `amm`: five convolutions, 128 features.

    Parameters
    ----------
    in_channels : int
        Channels of the images, at least 1; by default 1.

    Attributes
    ----------
    features : int
        Number of features F.

    Raises
    ------
    ValueError
        `in_channels` is not an integer of at least 1.

    Examples
    --------
    >>> import torch
    >>> AstroMorphologyModel(in_channels=3)(torch.rand(2, 3, 40, 50)).shape
    torch.Size([2, 128])
    """

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
    """Any torchvision classification network without its last layer.

    Parameters
    ----------
    name : str
        Name of the network in torchvision. The weights are random.
    in_channels : int
        Channels of the images, at least 1; by default 3. For any other number, the
        first convolution is replaced.

    Attributes
    ----------
    features : int
        Number of features F.

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
        from torchvision import models  # as above, only if it is used

        super().__init__()
        if name not in models.list_models(models):
            raise ValueError(
                f"network: found {name!r}; allowed are n_layer_resnet, amm and "
                "torchvision's classification networks"
            )
        options: dict[str, Any] = {}
        if name == "googlenet":
            options = {"aux_logits": False, "init_weights": False}
        self.body: nn.Module = models.get_model(name, weights=None, **options)
        modules = list(self.body.named_modules())
        if name.startswith("squeezenet"):
            self.body.classifier = nn.AdaptiveAvgPool2d(1)
        else:
            linear = [path for path, m in modules if isinstance(m, nn.Linear)]
            _replace_module(self.body, linear[-1], nn.Identity())
        if in_channels != 3:
            path, first = next(p for p in modules if isinstance(p[1], nn.Conv2d))
            _replace_module(self.body, path, _with_in_channels(first, in_channels))
        with torch.no_grad():
            probe = torch.zeros(1, in_channels, PROBE_SIDE, PROBE_SIDE)
            self.features = int(self.body.eval()(probe).flatten(1).shape[1])
        self.body.train()

    def forward(self, images: Tensor) -> Tensor:
        """Features `(N, F)` of images `(N, C, H, W)`, at least 64 pixels wide."""
        features: Tensor = self.body(images)
        return features.flatten(1)


class SeparateChannels(nn.Module):
    """Sends each channel through the same network, and compares their features.

    A network that mixes all channels in its first layer, with filters that were trained
    on one channel, cannot tell channels apart. Here, the features are the mean over the
    channels, and the differences between each channel and the next.

    Parameters
    ----------
    network : nn.Module
        For images with one channel, with an attribute `features`: their number F.
    in_channels : int
        Channels C of the images, at least 2.

    Attributes
    ----------
    features : int
        Number of features, C F.
    in_channels : int
        C.

    Raises
    ------
    ValueError
        `in_channels` is not an integer of at least 2.

    Examples
    --------
    >>> import torch
    >>> encoder = SeparateChannels(AstroMorphologyModel(1), in_channels=3)
    >>> encoder(torch.rand(2, 3, 40, 40)).shape
    torch.Size([2, 384])
    """

    def __init__(self, network: nn.Module, in_channels: int) -> None:
        super().__init__()
        self.in_channels = check_integer("in_channels", in_channels, 2)
        self.network = network
        self.features = in_channels * int(network.features)  # type: ignore[arg-type]

    def forward(self, images: Tensor) -> Tensor:
        """Features `(N, C F)` of images `(N, C, H, W)`."""
        number, channels = images.shape[:2]
        if channels != self.in_channels:
            raise ValueError(
                f"images: found {channels} channels, but the network expects "
                f"{self.in_channels}"
            )
        features = self.network(images.reshape(-1, 1, *images.shape[2:]))
        features = features.reshape(number, channels, -1)
        differences = features[:, 1:] - features[:, :-1]
        joined = [features.mean(dim=1), DIFFERENCE_WEIGHT * differences.flatten(1)]
        return torch.cat(joined, dim=1)


class MinMaxNorm(nn.Module):
    """Scales each image to the range from 0 to 1.

    Bad pixels become 0, and so does an image in which all pixels are equal.
    """

    def forward(self, images: Tensor) -> Tensor:
        """Normalise images.

        Parameters
        ----------
        images : Tensor, shape (..., C, H, W)
            Of any range; not changed. NaN and infinite pixels are ignored.

        Returns
        -------
        Tensor, shape (..., C, H, W)
            From 0 to 1; all channels of an image have the same scale.

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
    """Explain the error of a network that expects another number of channels.

    Parameters
    ----------
    encoder : nn.Module
        The network that runs in the block.
    channels : int or None
        Channels of the images; None where unknown.

    Raises
    ------
    ValueError
        Instead of torch's error, if the numbers of channels differ.
    """
    try:
        yield
    except RuntimeError as error:
        first = next((m for m in encoder.modules() if isinstance(m, nn.Conv2d)), None)
        if first is None or channels is None or first.in_channels == channels:
            raise
        remedy = (
            f"create the network for {channels}, such as with in_channels={channels}"
        )
        if channels == 1:
            remedy += f", or repeat the channel: stacksize={first.in_channels}"
        raise ValueError(
            f"images: found {channels} channel{'s' * (channels > 1)}, but the network "
            f"expects {first.in_channels}; {remedy}"
        ) from error


Encoder = NLayerResnet | AstroMorphologyModel | TorchvisionEncoder | SeparateChannels


def build_network(
    network_name: str, settings: "NetworkSettings", in_channels: int, stacksize: int = 1
) -> Encoder:
    """Build the encoder chosen in the settings, with random weights.

    Parameters
    ----------
    network_name : str
        ``"n_layer_resnet"``, ``"amm"`` or the name of a torchvision network.
    settings : NetworkSettings
        Its architecture.
    in_channels : int
        Channels of the images, including repeated ones.
    stacksize : int
        How often a single channel is repeated. Equal channels are not kept separate.

    Raises
    ------
    ValueError
        There is no network of this name.
    """
    if _are_separate(settings, in_channels, stacksize):
        network = build_network(network_name, settings, 1)
        return SeparateChannels(network, in_channels)
    if network_name == "n_layer_resnet":
        return NLayerResnet(in_channels, settings.last_layer)
    if network_name == "amm":
        return AstroMorphologyModel(in_channels)
    return TorchvisionEncoder(network_name, in_channels)


def _are_separate(
    settings: "NetworkSettings", in_channels: int, stacksize: int
) -> bool:
    """Whether each channel goes through the network alone."""
    if in_channels == 1 or stacksize > 1 or settings.channels == "joint":
        return False
    if settings.channels == "separate":
        return True
    # Other weights may have been trained on several channels together.
    return in_channels <= MAX_SEPARATE_CHANNELS and settings.weights in OWN_WEIGHTS


def _input_convolution(in_channels: int) -> nn.Conv2d:
    """The first convolution of a ResNet, with its initialisation."""
    convolution = nn.Conv2d(
        in_channels, 64, kernel_size=7, stride=2, padding=3, bias=False
    )
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    return convolution


def _with_in_channels(convolution: nn.Conv2d, in_channels: int) -> nn.Conv2d:
    """A new convolution that differs only in its input channels."""
    return nn.Conv2d(
        in_channels,
        convolution.out_channels,
        convolution.kernel_size,  # type: ignore[arg-type]
        convolution.stride,  # type: ignore[arg-type]
        convolution.padding,  # type: ignore[arg-type]
        bias=convolution.bias is not None,
    )


def _replace_module(network: nn.Module, path: str, module: nn.Module) -> None:
    parent, _, name = path.rpartition(".")
    setattr(network.get_submodule(parent), name, module)


def _convolution(
    in_channels: int, out_channels: int, kernel_size: int = 3, stride: int = 1
) -> nn.Sequential:
    """A convolution with batch norm and ReLU."""
    padding = kernel_size // 2
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )
