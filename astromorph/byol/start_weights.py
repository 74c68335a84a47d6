"""What training starts from: random weights, the simulated sky's, or a file's."""

import hashlib
import logging
from importlib import resources
from pathlib import Path

import torch
from torch import Tensor, nn

from astromorph.artefacts.model_file import ModelFile
from astromorph.artefacts.tensor_shard import load_values
from astromorph.byol.build import seeded_byol
from astromorph.byol.byol import BYOL
from astromorph.errors import AstromorphError
from astromorph.models.encoders import AstroMorphologyModel, NLayerResnet
from astromorph.settings.loading import parse
from astromorph.settings.sections import Settings

LOG = logging.getLogger(__name__)
RANDOM, SKY, TORCHVISION = "random", "sky", "torchvision"
WEIGHTS_FORMAT, WEIGHTS_VERSION = "astromorph-weights", 1
# Of the files that come with the package. Steps depend on the text of this module,
# so that other weights make training run again.
WITH_SKY = {"n_layer_resnet": "901ccc96b045e998", "amm": "0e00a9ea0f07d207"}
OF_SKY: dict[type[nn.Module], str] = {
    NLayerResnet: "n_layer_resnet",
    AstroMorphologyModel: "amm",
}
SETTING = "`network_settings.weights`"
REMEDY = f"set {SETTING} to random, sky, torchvision or another file"


def start_weights_source(settings: Settings) -> str:
    """What the settings start from: `random`, `sky`, `torchvision` or a file.

    Parameters
    ----------
    settings : Settings
        `network_name` and `network_settings` are used.
    """
    rules = settings.network_settings
    if rules.weights is not None:
        return rules.weights
    fits = settings.network_name in WITH_SKY and rules.stem == "standard"
    return SKY if fits else RANDOM


def load_start_weights(byol: BYOL, settings: Settings) -> None:
    """Give online and target network the weights that the settings name.

    Parameters
    ----------
    byol : BYOL
        Freshly made; its encoder changes.
    settings : Settings
        `network_name` and `network_settings` are used.

    Raises
    ------
    AstromorphError
        The weights are missing, or fit another network.
    """
    source = start_weights_source(settings)
    if source == RANDOM:
        return
    state = _state(source, settings)
    for encoder in (byol.encoder, byol.target[0]):
        network = encoder[0] if isinstance(encoder, nn.Sequential) else encoder
        fresh = _load(network, state, source)
    LOG.info(
        "training starts from the weights `%s`%s",
        source, f"; random are {', '.join(fresh)}" if fresh else "",
    )  # fmt: skip


def start_from_sky(network: nn.Module) -> None:
    """Give a network the weights that it learned from the simulated sky.

    What training starts from by default in the workflow. From given weights a
    smaller learning rate does, 0.0003 in place of 0.001.

    Parameters
    ----------
    network : NLayerResnet, AstroMorphologyModel or BYOL
        Changed in place, as by its `load_state_dict`; of a BYOL around one of the
        two, online and target network are. Any number of channels; `layer4` of
        `NLayerResnet` keeps its random weights.

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
        inner = encoder[0] if isinstance(encoder, nn.Sequential) else encoder
        name = OF_SKY.get(type(inner))
        if name is None:
            raise AstromorphError(
                f"start_from_sky: found {type(inner).__name__}; there are weights for "
                f"{' and '.join(kind.__name__ for kind in OF_SKY)}"
            )
        _load(inner, _sky_state(name), SKY)


def start_network(model: ModelFile) -> tuple[str, BYOL] | None:
    """The network as training found it, where it began with given weights.

    Parameters
    ----------
    model : ModelFile
        What training made.

    Returns
    -------
    source : str
        `sky`, `torchvision` or `start`.
    byol : BYOL
        In evaluation mode. None in place of both where training began with random
        weights.

    Raises
    ------
    AstromorphError
        The weights are no longer where they were.
    """
    settings = parse(model.settings, "model file")
    source = start_weights_source(settings)
    if source == RANDOM:
        return None
    byol = seeded_byol(settings, model.in_channels)
    load_start_weights(byol, settings)
    return source if source in (SKY, TORCHVISION) else "start", byol.eval()


def sky_file(network_name: str) -> Path:
    """Where the weights of a network that come with the package lie."""
    folder = resources.files("astromorph.byol") / "sky_weights"
    return Path(str(folder)) / f"{network_name}.pt"


def _state(source: str, settings: Settings) -> dict[str, Tensor]:
    name = settings.network_name
    if source == SKY:
        if name not in WITH_SKY:
            raise AstromorphError(
                f"{SETTING} is sky, which there is for {' and '.join(WITH_SKY)}, not "
                f"for {name}; {REMEDY}"
            )
        return _sky_state(name)
    if source == TORCHVISION:
        return _of_torchvision(name)
    return _of_file(source)


def _sky_state(name: str) -> dict[str, Tensor]:
    """The weights that come with the package."""
    file = sky_file(name)
    values = load_values(file, WEIGHTS_FORMAT, WEIGHTS_VERSION, REMEDY)
    if hashlib.sha256(file.read_bytes()).hexdigest()[:16] != WITH_SKY[name]:
        raise AstromorphError(
            f"{file}: this is not the file that came with the package; install "
            f"astromorph again, or {REMEDY}"
        )
    return dict(values["state"])


def _of_torchvision(name: str) -> dict[str, Tensor]:
    from torchvision.models import get_model_weights

    if name == "amm":
        raise AstromorphError(f"torchvision has no weights for amm; {REMEDY}")
    known = "resnet18" if name == "n_layer_resnet" else name
    weights = get_model_weights(known).DEFAULT
    try:
        state = weights.get_state_dict(
            progress=False, check_hash=True, weights_only=True
        )
    except (OSError, RuntimeError) as error:
        file = weights.url.rpartition("/")[2]
        folder = Path(torch.hub.get_dir()) / "checkpoints"
        raise AstromorphError(
            f"{SETTING} is torchvision, but its weights cannot be fetched from here "
            f"({error}); put the file {file} into {folder}, or {REMEDY}"
        ) from None
    prefix = "" if name == "n_layer_resnet" else "body."
    return {f"{prefix}{key}": value for key, value in state.items()}


def _of_file(path: str) -> dict[str, Tensor]:
    """The encoder of a model of ours, or a plain file of named tensors."""
    try:
        values = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise AstromorphError(f"{path}: there is no such file; {REMEDY}") from None
    except Exception as error:  # torch raises many kinds
        reason = " ".join(str(error).split())[:120]
        raise AstromorphError(
            f"{path}: weights cannot be read from it ({reason}); {REMEDY}"
        ) from None
    state = values.get("state", values) if isinstance(values, dict) else {}
    tensors = {k: v for k, v in dict(state).items() if isinstance(v, Tensor)}
    ours = {
        key.removeprefix("encoder."): value
        for key, value in tensors.items()
        if key.startswith("encoder.")
    }
    return ours or tensors


def _load(network: nn.Module, state: dict[str, Tensor], source: str) -> list[str]:
    """Copy what fits by name; the layers that keep their random weights."""
    own = network.state_dict()
    if source in (SKY, TORCHVISION) or not any(key in own for key in state):
        # A bare ResNet's names lie one level deeper in ours.
        state = state | {f"body.{key}": value for key, value in state.items()}
    fitting: dict[str, Tensor] = {}
    for key, value in state.items():
        if key in own:
            value = _channels(value.float(), own[key])
            if value.shape != own[key].shape:
                raise AstromorphError(
                    f"{source}: `{key}` has the shape {tuple(value.shape)}, this "
                    f"network's has {tuple(own[key].shape)}; the weights belong to "
                    f"another network; {REMEDY}"
                )
            fitting[key] = value.to(own[key].dtype)
    if not fitting:
        raise AstromorphError(
            f"{source}: none of its tensors has the name of one of this network; "
            f"{REMEDY}"
        )
    network.load_state_dict(fitting, strict=False)
    missing = {key for key, _ in network.named_parameters()} - set(fitting)
    return sorted({".".join(key.split(".")[:2]) for key in missing})


def _channels(value: Tensor, own: Tensor) -> Tensor:
    """Filters of the first layer for another number of channels: the mean of all."""
    if value.ndim != 4 or value.shape[:1] + value.shape[2:] != (
        own.shape[:1] + own.shape[2:]
    ):
        return value
    number = own.shape[1]
    if value.shape[1] == number or value.shape[1] not in (1, 3):
        return value
    total = value.sum(dim=1, keepdim=True)
    return total.expand(-1, number, -1, -1) / number
