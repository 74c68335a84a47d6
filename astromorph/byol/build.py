"""BYOL networks from settings and from model files."""

from collections.abc import Sequence
from pathlib import Path

import torch

from astromorph.artefacts.model_file import REMEDY, ModelFile, read_model_file
from astromorph.byol.byol import BYOL
from astromorph.errors import AstromorphError, is_machine_error
from astromorph.models.encoders import build_network
from astromorph.provenance import digest
from astromorph.settings.loading import parse
from astromorph.settings.steps import TrainStepSettings, train_step_settings


def build_byol(settings: TrainStepSettings, in_channels: int) -> BYOL:
    """The networks that the settings describe, with random weights.

    Parameters
    ----------
    settings : TrainStepSettings
        `network_name`, `network_settings`, `stacksize` and `byol_settings` are used.
    in_channels : int
        Channels of the images, `stacksize` included.

    Returns
    -------
    BYOL
    """
    network = build_network(
        settings.network_name,
        settings.network_settings,
        in_channels,
        settings.stacksize,
    )
    rules = settings.byol_settings
    return BYOL(
        network,
        representation_size=rules.representation_size,
        projection_size=rules.projection_size,
        projection_hidden_size=rules.projection_hidden_size,
        use_momentum=rules.use_momentum,
        moving_average_decay=rules.moving_average_decay,
    )


def seeded_byol(settings: TrainStepSettings, in_channels: int) -> BYOL:
    """The same as `build_byol`, with weights determined by `settings.seed`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        return build_byol(settings, in_channels)


def initial_byol(model: ModelFile) -> BYOL:
    """The networks of a model file with the random weights that its seed determines.

    They are in evaluation mode. Training draws the same weights.
    """
    return seeded_byol(training_settings_of(model), model.in_channels).eval()


def training_settings_of(
    model: ModelFile, source: str = "model file"
) -> TrainStepSettings:
    """The settings that a model was trained with.

    Parameters
    ----------
    model : ModelFile
        The model.
    source : str
        Its file, for error messages.

    Raises
    ------
    AstromorphError
        A setting is unknown, or its value is not allowed.
    """
    return train_step_settings(parse(model.settings, source))


def make_model_file(
    byol: BYOL,
    settings: TrainStepSettings,
    in_channels: int,
    tensor_settings: str,
    image_ids: Sequence[str],
) -> ModelFile:
    """The content of a model file, for `save_model`.

    Parameters
    ----------
    byol : BYOL
        The trained networks, built by `build_byol` from `settings`.
    settings : TrainStepSettings
        The settings that they were trained with, which the file records.
    in_channels : int
        Channels of the images, `stacksize` included.
    tensor_settings : str
        How the images were prepared; see
        `astromorph.datasets.fits_images.PreparedImages`.
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
        settings=settings.to_dict(),
        in_channels=in_channels,
        tensor_settings=tensor_settings,
        data_digest=digest(image_ids),
    )


def load_model(path: str | Path) -> tuple[BYOL, ModelFile]:
    """Read a model file and build its networks, in evaluation mode.

    Parameters
    ----------
    path : path
        A file written by the workflow or by `astromorph train`, such as
        ``results/model/model.pt``.

    Returns
    -------
    byol : BYOL
        On the CPU; ``byol(images)`` returns embeddings `(N, D)`, ``byol.encoder`` is
        the network alone.
    model : ModelFile
        The rest of the file: settings, channels, versions.

    Raises
    ------
    AstromorphError
        The file is missing, damaged, pickled or of another format version, or its
        weights are not finite or do not fit the network that its settings describe.
    """
    model = read_model_file(path)
    try:
        byol = build_byol(training_settings_of(model, str(path)), model.in_channels)
        byol.load_state_dict(model.state)
    except (AstromorphError, RuntimeError, ValueError, TypeError) as error:
        if is_machine_error(error):  # memory or device: the file is not at fault
            raise
        reason = " ".join(str(error).split())[:300]
        written_by = model.versions.get("astromorph", "(unknown)")
        raise AstromorphError(
            f"{path}: written by astromorph {written_by}, its network cannot be built "
            f"by this version ({reason}); {REMEDY}"
        ) from None
    return byol.eval(), model
