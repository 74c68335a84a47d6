"""BYOL networks from settings, and from model files."""

from collections.abc import Sequence
from pathlib import Path

import torch

from astromorph.artefacts.model_file import REMEDY, ModelFile, read_model_file
from astromorph.byol.byol import BYOL
from astromorph.errors import AstromorphError, is_machine_error
from astromorph.models.encoders import build_network
from astromorph.provenance import digest
from astromorph.settings.loading import parse
from astromorph.settings.sections import Settings
from astromorph.settings.steps import part_of


def build_byol(settings: Settings, in_channels: int) -> BYOL:
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


def initial_byol(model: ModelFile) -> BYOL:
    """The network of a model file with the weights that its training began with.

    In evaluation mode. `train` draws them in the same way.
    """
    settings = parse(model.settings, "model file")
    return seeded_byol(settings, model.in_channels).eval()


def seeded_byol(settings: Settings, in_channels: int) -> BYOL:
    """The model that the settings describe, its weights drawn from their seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        return build_byol(settings, in_channels)


def make_model_file(
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
        The network, such as `build_byol` makes it from the settings.
    settings : Settings
        Those that describe it; the part of training is kept.
    in_channels : int
        Channels of the images, `stacksize` included.
    tensor_settings : str
        How the images were made; see
        `astromorph.datasets.prepared_images.PreparedImages`.
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
    model = read_model_file(path)
    try:
        byol = build_byol(parse(model.settings, str(path)), model.in_channels)
        byol.load_state_dict(model.state)
    except (AstromorphError, RuntimeError, ValueError) as error:
        if is_machine_error(error):  # memory or device, not the file
            raise
        reason = " ".join(str(error).split())[:300]
        written_by = model.versions["astromorph"]
        raise AstromorphError(
            f"{path}: written by astromorph {written_by}, its network cannot be built "
            f"by this version ({reason}); {REMEDY}"
        ) from None
    return byol.eval(), model
