"""The encoder that a user's network holds: up to one of its layers."""

from typing import Any

import torch
from torch import Tensor, nn

from astromorph.moved import told

CLASSIFIERS = ("fc", "classifier", "head", "heads")  # as torchvision names them
PROBE_SIDE = 64  # pixels; every network that is offered takes such an image


class HiddenLayer(nn.Module):
    """A network up to one of its layers.

    Parameters
    ----------
    network : nn.Module
        All of it is kept and run.
    layer : int or str
        Whose output counts: the number of a child or the name of a layer.
    before : bool
        What enters the layer counts instead; by default what leaves it.

    Raises
    ------
    ValueError
        There is no such layer; the message lists those that there are.

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
        caught: list[Tensor] = []

        def catch(layer: nn.Module, inputs: Any, output: Tensor) -> None:
            caught.append(inputs[0] if self.before else output)

        # A hook for this call alone: copies of the network then have their own.
        hook = find_layer(self.network, self.layer).register_forward_hook(catch)
        try:
            self.network(images)
        finally:
            hook.remove()
        if not caught:
            raise ValueError(f"hidden_layer: the network never uses {self.layer!r}")
        return caught[-1].flatten(1)


def find_layer(network: nn.Module, layer: int | str) -> nn.Module:
    """A layer of a network, by the number of a child or by name.

    Raises
    ------
    ValueError
        There is no such layer; the message lists those that there are.
    """
    children = list(network.children())
    new = getattr(network, "MOVED_LAYERS", {}).get(layer)
    if new is not None:
        told(f"the layer {layer} of {type(network).__name__}", new)
        layer = new
    if type(layer) is int and -len(children) <= layer < len(children):
        return children[layer]
    by_name = dict(network.named_modules())
    if isinstance(layer, str) and layer and layer in by_name:
        found: nn.Module = by_name[layer]
        return found
    names = [name for name, _ in network.named_children()]
    known = ", ".join(f"{k} ({name})" for k, name in enumerate(names))
    deeper = [name for name in by_name if "." in name][:20]
    raise ValueError(
        f"hidden_layer: found {layer!r}; {type(network).__name__} has the layers "
        f"{known}" + (f", and within them {', '.join(deeper)}" if deeper else "")
    )


def make_encoder(
    network: nn.Module, hidden_layer: int | str | None = None
) -> nn.Module:
    """What of a network gives the features.

    Parameters
    ----------
    network : nn.Module
        Any.
    hidden_layer : int or str, optional
        See `astromorph.BYOL`.

    Returns
    -------
    nn.Module
        Images `(N, C, H, W)` to features `(N, F)`; the network itself, where its own
        output is meant.

    Raises
    ------
    ValueError
        There is no such layer.

    Examples
    --------
    >>> from torchvision.models import resnet18
    >>> features_of(encoder_of(resnet18()))  # what enters its last linear layer
    512
    """
    if hidden_layer is not None:
        return HiddenLayer(network, hidden_layer)
    name = next(reversed([name for name, _ in network.named_children()]), "")
    if name not in CLASSIFIERS or isinstance(getattr(network, "features", None), int):
        return network
    inside = [
        f"{name}.{deeper}".rstrip(".")
        for deeper, layer in network.get_submodule(name).named_modules()
        if isinstance(layer, nn.Linear)
    ]
    return HiddenLayer(network, inside[-1], before=True) if inside else network


def count_features(
    encoder: nn.Module, image_shape: tuple[int, int, int] | None = None
) -> int:
    """How many features an encoder gives; what it does not use is frozen.

    Parameters
    ----------
    encoder : nn.Module
        Images `(N, C, H, W)` to features `(N, F)`.
    image_shape : tuple of int, optional
        ``(C, H, W)`` of the two images that it is tried with. By default the
        channels of its first convolution, and 64 by 64 pixels.

    Returns
    -------
    int
        F.

    Raises
    ------
    ValueError
        It cannot be tried, or does not give `(N, F)`.

    Examples
    --------
    >>> features_of(nn.Sequential(nn.Flatten(), nn.Linear(12, 5)), (3, 2, 2))
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
            found = encoder.eval()(torch.zeros(2, *shape, device=device))
        if found.ndim != 2 or len(found) != 2:
            raise RuntimeError(f"it gives {tuple(found.shape)} in place of (2, F)")
        used = (
            torch.autograd.grad(found.sum(), parameters, allow_unused=True)
            if parameters
            else ()
        )
    except (RuntimeError, ValueError, TypeError, AttributeError, IndexError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(
            f"network: it cannot be tried with images {(2, *shape)}: {reason}; name a "
            "`hidden_layer`, `image_shape=(C, H, W)` of your images, or both"
        ) from None
    finally:
        for module, mode in training.items():
            module.training = mode
    for parameter, gradient in zip(parameters, used, strict=True):
        parameter.requires_grad_(gradient is not None)
    return int(found.shape[1])
