"""The networks by the names that settings have for them."""

from typing import Any

from torch import nn

from astromorph.moved import moved, old_modules
from astromorph.networks import (
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


old_modules(__name__)


def __getattr__(name: str) -> Any:
    return moved(__name__, {}, name)
