"""Other networks that embed the images of an evaluation, with weights from a file."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from astromorph.artefacts.model_file import find_bad_weights
from astromorph.artefacts.tensor_shard import find_damage
from astromorph.errors import AstromorphError
from astromorph.models.efficientnet_lite import EfficientNetLite0
from astromorph.models.encoders import TorchvisionEncoder
from astromorph.settings.references import SETTING, weights_file
from astromorph.settings.sections import Reference
from astromorph.system.files import check_file

SIDE = 128  # pixels, to which images are resized
# Means and standard deviations of the channels in ImageNet, as torchvision uses them.
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
MAX_CHANNELS = 5  # that are embedded one by one
REMEDY = f"correct {SETTING}"


class ReferenceNetwork(nn.Module):
    """A network for photographs, applied to images of any size and number of channels.

    Images are resized to 128 by 128 pixels and normalised like those of ImageNet. A
    single channel is repeated. Of two, four or five channels, each is embedded alone
    and the embeddings are joined; more than five are averaged.

    Parameters
    ----------
    encoder : nn.Module
        For images `(N, 3, 128, 128)`, with an attribute `features`: their number F.
    channels : int
        Channels C of the images.

    Attributes
    ----------
    representation_size : int
        Length of an embedding, F or C F.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, encoder: nn.Module, channels: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.is_separate = channels not in (1, 3) and channels <= MAX_CHANNELS
        features = int(encoder.features)  # type: ignore[arg-type]
        self.representation_size = features * (channels if self.is_separate else 1)
        self.register_buffer("mean", torch.tensor(MEAN)[:, None, None])
        self.register_buffer("deviation", torch.tensor(DEVIATION)[:, None, None])

    def forward(self, images: Tensor) -> Tensor:
        """Embeddings `(N, D)` of images `(N, C, H, W)` from 0 to 1."""
        images = functional.interpolate(
            images, size=(SIDE, SIDE), mode="bilinear", antialias=True
        )
        if self.is_separate:
            return torch.cat(
                [self._encode(one) for one in images.chunk(images.shape[1], 1)], dim=1
            )
        if images.shape[1] > MAX_CHANNELS:
            images = images.mean(dim=1, keepdim=True)
        return self._encode(images)

    def _encode(self, images: Tensor) -> Tensor:
        colour = images.expand(-1, 3, -1, -1)
        features: Tensor = self.encoder((colour - self.mean) / self.deviation)
        return features


def reference_name(reference: str | Reference) -> str:
    """The name of a reference in the evaluation."""
    return reference.name if isinstance(reference, Reference) else reference


def load_reference(reference: str | Reference, channels: int) -> ReferenceNetwork:
    """A reference of the settings, with its weights.

    Parameters
    ----------
    reference : str or Reference
        An element of `evaluation_settings.references`.
    channels : int
        Channels of the images.

    Returns
    -------
    ReferenceNetwork
        In evaluation mode.

    Raises
    ------
    AstromorphError
        Its file is missing or damaged, or contains the weights of another network.
    """
    file = weights_file(reference)
    state = _read_state(file)
    encoder: nn.Module
    if isinstance(reference, Reference):
        encoder = TorchvisionEncoder(reference.network)
        body: nn.Module = encoder.body
        name, head = reference.network, _names_of_head(reference.network, body)
    else:
        encoder = body = EfficientNetLite0()
        name, head = reference, {"_fc.weight", "_fc.bias"}
    _load(body, state, head, f"{file}: these are not the weights of {name}")
    return ReferenceNetwork(encoder, channels).eval()


def _read_state(file: Path) -> dict[str, Tensor]:
    """The named tensors of a file; no code in it is executed."""
    check_file(file, REMEDY)
    if damage := find_damage(file):
        raise AstromorphError(f"{file}: this file is damaged ({damage}); {REMEDY}")
    try:
        values: Any = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds
        reason = " ".join(str(error).split())[:120]
        raise AstromorphError(
            f"{file}: the file contains no readable weights ({reason}); {REMEDY}"
        ) from None
    if isinstance(values, Mapping):
        values = values.get("state_dict", values)
    if not isinstance(values, Mapping):
        raise AstromorphError(
            f"{file}: found a {type(values).__name__} instead of named tensors, a "
            f"`state_dict`; {REMEDY}"
        )
    state = {str(name): value for name, value in values.items()}
    for problem in find_bad_weights(state):
        raise AstromorphError(f"{file}: {problem}; {REMEDY}")
    return state


def _names_of_head(network: str, body: nn.Module) -> set[str]:
    """The tensors of a torchvision network that its encoder does not have."""
    from torchvision.models import get_model

    options = {"init_weights": False} if network == "googlenet" else {}
    with torch.device("meta"):
        whole = get_model(network, weights=None, **options)
    return set(whole.state_dict()) - set(body.state_dict())


def _load(
    network: nn.Module, state: dict[str, Tensor], head: set[str], problem: str
) -> None:
    """Load tensors, all of which must belong to the network or to its head."""
    own = network.state_dict()
    # Older files do not count the batches of batch norm.
    needed = {name for name in own if not name.endswith("num_batches_tracked")}
    if missing := sorted(needed - set(state)):
        raise AstromorphError(
            f"{problem}: {len(missing)} of {len(needed)} tensors are missing, such as "
            f"`{missing[0]}`; {REMEDY}"
        )
    if unknown := sorted(set(state) - set(own) - head):
        raise AstromorphError(
            f"{problem}: it has no tensor `{unknown[0]}`"
            + (f" and {len(unknown) - 1} others" if len(unknown) > 1 else "")
            + f"; {REMEDY}"
        )
    for name in needed:
        if state[name].shape != own[name].shape:
            raise AstromorphError(
                f"{problem}: `{name}` has the shape {tuple(state[name].shape)} instead "
                f"of {tuple(own[name].shape)}; {REMEDY}"
            )
    network.load_state_dict({name: state[name] for name in needed}, strict=False)
