"""The encoder inside a network: its layers up to the one whose output is used."""

from typing import Any

import torch
from torch import Tensor, nn

CLASSIFIERS = ("fc", "classifier", "head", "heads")  # attribute names in torchvision
PROBE_SIDE = 64  # pixels; every network in the settings accepts this size


class HiddenLayer(nn.Module):
    """A network up to one of its layers.

    Parameters
    ----------
    network : nn.Module
        The network. All of it runs, including the layers after the chosen one.
    layer : int or str
        The layer whose output is the features: the index of a child, or a name.
    before : bool
        Use the layer's input instead of its output; by default False.

    Raises
    ------
    ValueError
        The network has no such layer; the message lists its layers.

    Examples
    --------
    >>> import torch
    >>> network = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
    >>> HiddenLayer(network, 2)(torch.rand(2, 1, 9, 9)).shape
    torch.Size([2, 8])
    >>> HiddenLayer(network, "fc")
    Traceback (most recent call last):
    ValueError: hidden_layer: found 'fc'; Sequential has the layers 0 (0), 1 (1), 2 (2)
    """

    def __init__(
        self, network: nn.Module, layer: int | str, before: bool = False
    ) -> None:
        super().__init__()
        find_layer(network, layer)
        self.network = network
        self.layer = layer
        self.before = before

    def forward(self, images: Tensor) -> Tensor:
        """Features `(N, F)` of images `(N, C, H, W)`: the layer's output, flattened."""
        features: list[Tensor] = []

        def save(layer: nn.Module, inputs: Any, output: Tensor) -> None:
            features.append(inputs[0] if self.before else output)

        # The hook is removed after each call: copies of the network would share it.
        hook = find_layer(self.network, self.layer).register_forward_hook(save)
        try:
            self.network(images)
        finally:
            hook.remove()
        if not features:
            raise ValueError(f"hidden_layer: the network never uses {self.layer!r}")
        return features[-1].flatten(1)


def find_layer(network: nn.Module, layer: int | str) -> nn.Module:
    """Find a layer of a network by the index of a child or by name.

    Parameters
    ----------
    network : nn.Module
        The network.
    layer : int or str
        The index of a child, negative from the end; or a name such as ``"body.0"``.

    Returns
    -------
    nn.Module

    Raises
    ------
    ValueError
        The network has no such layer; the message lists its layers.
    """
    children = list(network.children())
    if type(layer) is int and -len(children) <= layer < len(children):
        return children[layer]
    by_name = dict(network.named_modules())
    if isinstance(layer, str) and layer and layer in by_name:
        module: nn.Module = by_name[layer]
        return module
    names = [name for name, _ in network.named_children()]
    known = ", ".join(f"{k} ({name})" for k, name in enumerate(names))
    nested = [name for name in by_name if "." in name][:20]
    raise ValueError(
        f"hidden_layer: found {layer!r}; {type(network).__name__} has the layers "
        f"{known}" + (f", and within them {', '.join(nested)}" if nested else "")
    )


def make_encoder(
    network: nn.Module, hidden_layer: int | str | None = None
) -> nn.Module:
    """Make an encoder from a network.

    Parameters
    ----------
    network : nn.Module
        Any network for images.
    hidden_layer : int or str, optional
        The layer whose output is the features; see `find_layer`. By default, the
        input of the last linear layer of a classifier named as in torchvision; for
        other networks, and those with an integer attribute `features`, the output of
        the network.

    Returns
    -------
    nn.Module
        Maps images `(N, C, H, W)` to features `(N, F)`. The network itself if its
        output is used.

    Raises
    ------
    ValueError
        The network has no such layer.

    Examples
    --------
    >>> from torchvision.models import resnet18
    >>> count_features(make_encoder(resnet18()))  # the input of its last layer
    512
    """
    if hidden_layer is not None:
        return HiddenLayer(network, hidden_layer)
    name = next(reversed([name for name, _ in network.named_children()]), "")
    if name not in CLASSIFIERS or isinstance(getattr(network, "features", None), int):
        return network
    linear = [
        f"{name}.{nested}".rstrip(".")
        for nested, layer in network.get_submodule(name).named_modules()
        if isinstance(layer, nn.Linear)
    ]
    return HiddenLayer(network, linear[-1], before=True) if linear else network


def count_features(
    encoder: nn.Module, image_shape: tuple[int, int, int] | None = None
) -> int:
    """Count the features of an encoder, and freeze the parameters that it never uses.

    Parameters
    ----------
    encoder : nn.Module
        Maps images `(N, C, H, W)` to features `(N, F)`.
    image_shape : tuple of int, optional
        ``(C, H, W)`` of the images that the encoder is tested with. By default, the
        input channels of its first convolution and 64 by 64 pixels.

    Returns
    -------
    int
        F.

    Raises
    ------
    ValueError
        The encoder fails with such images, or its output is not `(N, F)`.

    Examples
    --------
    >>> count_features(nn.Sequential(nn.Flatten(), nn.Linear(12, 5)), (3, 2, 2))
    5
    """
    known = getattr(encoder, "features", None)
    if isinstance(known, int):
        return known
    convolutions = (m for m in encoder.modules() if isinstance(m, nn.Conv2d))
    first = next(convolutions, None)
    shape = image_shape or (first.in_channels if first else 1, PROBE_SIDE, PROBE_SIDE)
    training = {module: module.training for module in encoder.modules()}
    parameters = [p for p in encoder.parameters() if p.requires_grad]
    device = next(encoder.parameters(), torch.empty(0)).device
    try:
        with torch.enable_grad():
            features = encoder.eval()(torch.zeros(2, *shape, device=device))
        if features.ndim != 2 or len(features) != 2:
            raise RuntimeError(
                f"its output has the shape {tuple(features.shape)}, not (2, F)"
            )
        gradients = (
            torch.autograd.grad(features.sum(), parameters, allow_unused=True)
            if parameters
            else ()
        )
    except (RuntimeError, ValueError, TypeError, AttributeError, IndexError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(
            f"network: it fails on test images of the shape {(2, *shape)}: {reason}; "
            "give a `hidden_layer`, `image_shape=(C, H, W)` of your images, or both"
        ) from None
    finally:
        for module, mode in training.items():
            module.training = mode
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.requires_grad_(gradient is not None)
    return int(features.shape[1])
