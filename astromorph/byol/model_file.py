"""The model file: tensors and plain values, enough to embed images without more."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from astromorph.artefacts.tensor_shard import load_plain, save_plain
from astromorph.byol.byol import BYOL
from astromorph.errors import AstromorphError
from astromorph.models.encoders import build_network
from astromorph.provenance import digest, versions
from astromorph.settings.sections import Settings, parse, part_of
from astromorph.trouble import of_machine

MODEL_FORMAT = "astromorph-model"
MODEL_VERSION = 1
REMEDY = "train a model with this version, or name another model file"


@dataclass(frozen=True, slots=True)
class ModelFile:
    """What a model file holds.

    Attributes
    ----------
    state : dict of str to Tensor
        Encoder, projector, predictor and target with their buffers.
    settings : dict
        The settings of training; plain values.
    in_channels : int
        Channels of the images that the network takes, `stacksize` included.
    tensor_settings : str
        The canonical settings that the training images were made with.
    data_digest : str
        Of the ids of the training images.
    versions : dict of str to str
        Of Python and the packages.
    """

    state: dict[str, Tensor]
    settings: dict[str, Any]
    in_channels: int
    tensor_settings: str
    data_digest: str
    versions: dict[str, str] = field(default_factory=versions)


def build(settings: Settings, in_channels: int) -> BYOL:
    """The model that the settings describe, with fresh random weights."""
    network = build_network(
        settings.network_name, settings.network_settings, in_channels
    )
    byol = settings.byol_settings
    return BYOL(
        network,
        representation_size=byol.representation_size,
        projection_size=byol.projection_size,
        projection_hidden_size=byol.projection_hidden_size,
        use_momentum=byol.use_momentum,
        moving_average_decay=byol.moving_average_decay,
    )


def untrained(model: ModelFile) -> BYOL:
    """The network of a model file with the weights that its training began with.

    In evaluation mode. `train` draws them in the same way.
    """
    settings = parse(model.settings, "model file")
    return fresh(settings, model.in_channels).eval()


def fresh(settings: Settings, in_channels: int) -> BYOL:
    """The model that the settings describe, its weights drawn from their seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        return build(settings, in_channels)


def model_of(
    byol: BYOL,
    settings: Settings,
    in_channels: int,
    tensor_settings: str,
    image_ids: Sequence[str],
) -> ModelFile:
    """What a model file holds of a network that was trained.

    Parameters
    ----------
    byol : BYOL
        The network, such as `build` makes it from the settings.
    settings : Settings
        Those that describe it; the part of training is kept.
    in_channels : int
        Channels of the images, `stacksize` included.
    tensor_settings : str
        How the images were made; see
        `astromorph.preprocessing.in_memory.PreparedImages`.
    image_ids : sequence of str
        Ids of the training images.

    Returns
    -------
    ModelFile
    """
    state = {
        name: value.detach().cpu().contiguous()
        for name, value in byol.state_dict().items()
    }
    return ModelFile(
        state=state,
        settings=part_of(settings, "train"),
        in_channels=in_channels,
        tensor_settings=tensor_settings,
        data_digest=digest(image_ids),
    )


def save_model(path: str | Path, model: ModelFile) -> None:
    """Write a model file, whole or not at all."""
    save_plain(
        path,
        {
            "format": MODEL_FORMAT,
            "format_version": MODEL_VERSION,
            "package_version": model.versions["astromorph"],
            "state": model.state,
            "settings": model.settings,
            "in_channels": model.in_channels,
            "tensor_settings": model.tensor_settings,
            "data_digest": model.data_digest,
            "versions": model.versions,
        },
    )


def load_model(path: str | Path) -> tuple[BYOL, ModelFile]:
    """Read a model file and build its network, in evaluation mode.

    Parameters
    ----------
    path : path
        What the workflow or `astromorph train` wrote, `results/model/model.pt`.

    Returns
    -------
    byol : BYOL
        On the CPU; ``byol(images)`` gives embeddings `(N, D)`, ``byol.encoder`` is
        the network alone.
    model : ModelFile
        What else the file holds: settings, channels, versions.

    Raises
    ------
    AstromorphError
        The file is missing, damaged, pickled, of another format version, or
        its weights do not fit the network that its settings describe.
    """
    values = load_plain(path, MODEL_FORMAT, MODEL_VERSION, REMEDY)
    written_by = values["package_version"]
    try:
        settings = parse(values["settings"], str(path))
        byol = build(settings, values["in_channels"])
        byol.load_state_dict(values["state"])
    except (AstromorphError, RuntimeError, ValueError) as error:
        if of_machine(error):  # memory or device, not the file
            raise
        reason = " ".join(str(error).split())[:300]
        raise AstromorphError(
            f"{path}: written by astromorph {written_by}, its network cannot be built "
            f"by this version ({reason}); {REMEDY}"
        ) from None
    model = ModelFile(
        state=values["state"],
        settings=values["settings"],
        in_channels=values["in_channels"],
        tensor_settings=values["tensor_settings"],
        data_digest=values["data_digest"],
        versions=values["versions"],
    )
    return byol.eval(), model
