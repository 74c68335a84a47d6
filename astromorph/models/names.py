"""The networks by the names that settings have for them."""

from torch import nn

from astromorph.models.encoders import (
    AstroMorphologyModel,
    NLayerResnet,
    TorchvisionEncoder,
)

__all__ = [
    "DEFAULT_MODELS",
    "AstroMorphologyModel",
    "NLayerResnet",
    "TorchvisionEncoder",
]

DEFAULT_MODELS: dict[str, type[nn.Module]] = {
    "n_layer_resnet": NLayerResnet,
    "amm": AstroMorphologyModel,
}
