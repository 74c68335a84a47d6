"""Encoders: networks that turn images `(N, C, H, W)` into features `(N, F)`."""

from collections import OrderedDict

from torch import Tensor, nn
from torchvision.models import resnet18

from astromorph.settings import NetworkSettings

RESNET_FEATURES = {"layer1": 64, "layer2": 128, "layer3": 256, "layer4": 512}
AMM_FEATURES = 128


class NLayerResnet(nn.Module):
    """ResNet-18 (He et al. 2016) up to one of its four blocks.

    Parameters
    ----------
    in_channels : int
        Channels of the images.
    last_layer : {'layer1', 'layer2', 'layer3', 'layer4'}
        The last block that is kept: 64, 128, 256 or 512 features.

    Attributes
    ----------
    features : int
        Length F of what comes out.

    Raises
    ------
    ValueError
        `last_layer` is none of the four.
    """

    def __init__(self, in_channels: int = 3, last_layer: str = "layer4") -> None:
        super().__init__()
        if last_layer not in RESNET_FEATURES:
            allowed = ", ".join(RESNET_FEATURES)
            raise ValueError(f"last_layer: found {last_layer!r}; allowed are {allowed}")
        whole = resnet18(weights=None)
        if in_channels != 3:
            whole.conv1 = nn.Conv2d(in_channels, 64, 7, stride=2, padding=3, bias=False)
            nn.init.kaiming_normal_(
                whole.conv1.weight, mode="fan_out", nonlinearity="relu"
            )
        kept = OrderedDict[str, nn.Module]()
        for name in ("conv1", "bn1", "relu", "maxpool", *RESNET_FEATURES):
            kept[name] = getattr(whole, name)
            if name == last_layer:
                break
        self.body = nn.Sequential(kept)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.features = RESNET_FEATURES[last_layer]

    def forward(self, images: Tensor) -> Tensor:
        """Features `(N, F)` of images `(N, C, H, W)`, at least 16 pixels wide."""
        pooled: Tensor = self.avgpool(self.body(images)).flatten(1)
        return pooled


class AstroMorphologyModel(nn.Module):
    """A light network of five convolutions, `amm`: 128 features.

    Parameters
    ----------
    in_channels : int
        Channels of the images.

    Attributes
    ----------
    features : int
        Length F of what comes out.
    """

    def __init__(self, in_channels: int = 1) -> None:
        super().__init__()
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


def build_network(
    network_name: str, settings: NetworkSettings, in_channels: int
) -> NLayerResnet | AstroMorphologyModel:
    """The network that the settings name, with fresh random weights.

    Raises
    ------
    ValueError
        The name is not known.
    """
    if network_name == "n_layer_resnet":
        return NLayerResnet(in_channels, settings.last_layer)
    if network_name == "amm":
        return AstroMorphologyModel(in_channels)
    raise ValueError(
        f"network_name: found {network_name!r}; allowed are n_layer_resnet and amm"
    )


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
