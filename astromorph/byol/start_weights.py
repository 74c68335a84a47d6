"""The weights that training starts from: random, pretrained, or read from a file."""

import hashlib
import logging
import re
from importlib import resources
from pathlib import Path

import torch
from torch import Tensor, nn

from astromorph.artefacts.model_file import ModelFile, find_bad_weights
from astromorph.artefacts.tensor_shard import find_damage, load_values
from astromorph.byol.build import seeded_byol, training_settings_of
from astromorph.byol.byol import BYOL
from astromorph.byol.encoder_file import SUFFIX, read_encoder
from astromorph.errors import AstromorphError
from astromorph.models.encoders import (
    AstroMorphologyModel,
    NLayerResnet,
    SeparateChannels,
)
from astromorph.settings.presets import (
    RANDOM,
    SKY,
    TORCHVISION,
    start_weights_source,
)
from astromorph.settings.steps import TrainStepSettings
from astromorph.system.files import check_file

LOG = logging.getLogger(__name__)
WEIGHTS_FORMAT, WEIGHTS_VERSION = "astromorph-weights", 1
# Digests of the weights that come with the package. Steps depend on the source of this
# module, so that changed weights make training run again.
SKY_DIGESTS = {"n_layer_resnet": "5ee78651453e05bd", "amm": "fa2e0e6e96f5cf74"}
SKY_NETWORKS: dict[type[nn.Module], str] = {
    NLayerResnet: "n_layer_resnet",
    AstroMorphologyModel: "amm",
}
SETTING = "`network_settings.weights`"
REMEDY = f"set {SETTING} to random, sky, torchvision or another file"


def load_start_weights(byol: BYOL, settings: TrainStepSettings) -> bool:
    """Load the start weights of the settings into online and target network.

    Parameters
    ----------
    byol : BYOL
        A new network with these settings; its encoders are changed.
    settings : TrainStepSettings
        `network_name` and `network_settings` are used.

    Returns
    -------
    bool
        Whether the whole encoder has start weights. False if any of its layers is
        random, such as the linear layer of `representation_size`.

    Raises
    ------
    AstromorphError
        The weights are missing, or belong to another network.
    """
    source = start_weights_source(settings)
    if source == RANDOM:
        return False
    state = _read_state(source, settings.network_name)
    for encoder in (byol.encoder, byol.target[0]):
        random_layers = _load_matching(_without_head(encoder), state, source)
    layers = ", ".join(random_layers)
    remark = f"; random weights in {layers}" if random_layers else ""
    LOG.info("training starts from the weights `%s`%s", source, remark)
    has_head = byol.representation_size != byol.features
    return not (random_layers or has_head)


def start_from_sky(network: nn.Module) -> None:
    """Load weights that were trained on the simulated sky.

    By default, training in the workflow starts from them. Use a smaller learning rate
    with them, 0.0003 instead of 0.001.

    Parameters
    ----------
    network : NLayerResnet, AstroMorphologyModel or BYOL
        Changed in place, as by `load_state_dict`; in a BYOL around one of the first
        two, both online and target network are changed. Any number of channels is
        allowed; `layer4` of `NLayerResnet` keeps its random weights.

    Raises
    ------
    AstromorphError
        There are no such weights for this network.

    Examples
    --------
    >>> from astromorph import BYOL, AstroMorphologyModel
    >>> byol = BYOL(AstroMorphologyModel(in_channels=1), representation_size=64)
    >>> start_from_sky(byol)
    """
    if isinstance(network, BYOL):
        encoders = [network.encoder, network.target[0]]
    else:
        encoders = [network]
    for encoder in encoders:
        inner = _without_head(encoder)
        name = SKY_NETWORKS.get(type(inner))
        if name is None:
            raise AstromorphError(
                f"start_from_sky: found {type(inner).__name__}; there are weights for "
                f"{' and '.join(kind.__name__ for kind in SKY_NETWORKS)}"
            )
        _load_matching(inner, _read_sky_state(name), SKY)


def start_network(model: ModelFile) -> tuple[str, BYOL] | None:
    """The networks before training, if it did not start from random weights.

    Parameters
    ----------
    model : ModelFile
        The trained model.

    Returns
    -------
    source : str
        `sky`, `torchvision`, or `start` for a file.
    byol : BYOL
        In evaluation mode. A single None is returned instead of both if training
        started from random weights.

    Raises
    ------
    AstromorphError
        The start weights are no longer available.
    """
    settings = training_settings_of(model)
    source = start_weights_source(settings)
    if source == RANDOM:
        return None
    byol = seeded_byol(settings, model.in_channels)
    load_start_weights(byol, settings)
    return source if source in (SKY, TORCHVISION) else "start", byol.eval()


def sky_file(network_name: str) -> Path:
    """The package's file of weights that were trained on the simulated sky."""
    folder = resources.files("astromorph.byol") / "sky_weights"
    return Path(str(folder)) / f"{network_name}.pt"


def _without_head(encoder: nn.Module) -> nn.Module:
    """The network alone, without the linear layer of `representation_size`.

    For separate channels, it is the network that each of them goes through.
    """
    network: nn.Module = encoder[0] if isinstance(encoder, nn.Sequential) else encoder
    return network.network if isinstance(network, SeparateChannels) else network


def _read_state(source: str, network_name: str) -> dict[str, Tensor]:
    """The named tensors of a source of weights."""
    if source == SKY:
        if network_name not in SKY_DIGESTS:
            raise AstromorphError(
                f"{SETTING} is sky, which exists for {' and '.join(SKY_DIGESTS)}, "
                f"not for {network_name}; {REMEDY}"
            )
        return _read_sky_state(network_name)
    if source == TORCHVISION:
        return _read_torchvision_state(network_name)
    return _read_file_state(source)


def _read_sky_state(name: str) -> dict[str, Tensor]:
    """The weights that come with the package."""
    file = sky_file(name)
    values = load_values(file, WEIGHTS_FORMAT, WEIGHTS_VERSION, REMEDY)
    if hashlib.sha256(file.read_bytes()).hexdigest()[:16] != SKY_DIGESTS[name]:
        raise AstromorphError(
            f"{file}: this is not the file that came with the package; install "
            f"astromorph again, or {REMEDY}"
        )
    return dict(values["state"])


def _read_torchvision_state(name: str) -> dict[str, Tensor]:
    """The weights of torchvision, which are downloaded unless they are cached."""
    from torchvision.models import get_model_weights

    if name == "amm":
        raise AstromorphError(f"torchvision has no weights for amm; {REMEDY}")
    is_resnet = name == "n_layer_resnet"
    weights = get_model_weights("resnet18" if is_resnet else name).DEFAULT
    try:
        state = weights.get_state_dict(
            progress=False, check_hash=True, weights_only=True
        )
    except (OSError, RuntimeError) as error:
        file = weights.url.rpartition("/")[2]
        folder = Path(torch.hub.get_dir()) / "checkpoints"
        raise AstromorphError(
            f"{SETTING} is torchvision, but its weights cannot be downloaded "
            f"({error}); put the file {file} into {folder}, or {REMEDY}"
        ) from None
    prefix = "" if is_resnet else "body."
    return {f"{prefix}{key}": value for key, value in state.items()}


def _read_file_state(path: str) -> dict[str, Tensor]:
    """The encoder of a model file, or the tensors of a plain file."""
    check_file(path, REMEDY)
    is_safetensors = Path(path).suffix == SUFFIX
    damage = None if is_safetensors else find_damage(path)
    if damage:
        raise AstromorphError(f"{path}: this file is damaged ({damage}); {REMEDY}")
    try:
        if is_safetensors:
            values = read_encoder(path)
        else:
            values = torch.load(path, map_location="cpu", weights_only=True)
    except AstromorphError:
        raise
    except Exception as error:  # torch raises many kinds
        reason = " ".join(str(error).split())[:120]
        raise AstromorphError(
            f"{path}: the file contains no readable weights ({reason}); {REMEDY}"
        ) from None
    state = values.get("state", values) if isinstance(values, dict) else {}
    tensors = {k: v for k, v in dict(state).items() if isinstance(v, Tensor)}
    for problem in find_bad_weights(tensors):
        raise AstromorphError(f"{path}: {problem}; {REMEDY}")
    encoder = {
        re.sub(r"^encoder\.((0\.)?network\.)?", "", key): value
        for key, value in tensors.items()
        if key.startswith("encoder.")
    }
    return encoder or tensors


def _load_matching(
    network: nn.Module, state: dict[str, Tensor], source: str
) -> list[str]:
    """Load the tensors whose names match; return the layers that stay random."""
    own = network.state_dict()
    if source in (SKY, TORCHVISION) or not any(key in own for key in state):
        # The names of a plain ResNet are one level deeper in this package's networks.
        state = state | {f"body.{key}": value for key, value in state.items()}
    matching: dict[str, Tensor] = {}
    for key, value in state.items():
        if key in own:
            value = _fit_channels(value.float(), own[key])
            if value.shape != own[key].shape:
                raise AstromorphError(
                    f"{source}: `{key}` has the shape {tuple(value.shape)}, but "
                    f"{tuple(own[key].shape)} in this network; the weights belong to "
                    f"another network; {REMEDY}"
                )
            matching[key] = value.to(own[key].dtype)
    if not matching:
        raise AstromorphError(
            f"{source}: no tensor has the name of a tensor of this network; {REMEDY}"
        )
    network.load_state_dict(matching, strict=False)
    missing = {key for key, _ in network.named_parameters()} - set(matching)
    return sorted({".".join(key.split(".")[:2]) for key in missing})


def _fit_channels(value: Tensor, own: Tensor) -> Tensor:
    """Adapt first-layer filters to another number of channels, keeping their sum."""
    if value.ndim != 4 or value.shape[:1] + value.shape[2:] != (
        own.shape[:1] + own.shape[2:]
    ):
        return value
    channels = own.shape[1]
    if value.shape[1] == channels or value.shape[1] not in (1, 3):
        return value
    total = value.sum(dim=1, keepdim=True)
    return total.expand(-1, channels, -1, -1) / channels
