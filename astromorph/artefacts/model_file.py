"""The model file: the tensors and plain values needed to embed images."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from astromorph.artefacts.tensor_shard import load_values, save_values
from astromorph.provenance import versions

MODEL_FORMAT = "astromorph-model"
MODEL_VERSION = 1
REMEDY = "train a model with this version, or name another model file"


@dataclass(frozen=True, slots=True)
class ModelFile:
    """The contents of a model file.

    Attributes
    ----------
    state : dict of str to Tensor
        Encoder, projector, predictor and target with their buffers.
    settings : dict
        The settings of training; plain values.
    in_channels : int
        Channels of the images that the network expects, including `stacksize`.
    tensor_settings : str
        Canonical settings that the training images were prepared with.
    data_digest : str
        Digest of the ids of the training images.
    versions : dict of str to str
        Versions of Python and of packages.
    """

    state: dict[str, Tensor]
    settings: dict[str, Any]
    in_channels: int
    tensor_settings: str
    data_digest: str
    versions: dict[str, str] = field(default_factory=versions)


def save_model(path: str | Path, model: ModelFile) -> None:
    """Write a model file atomically."""
    save_values(
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


def read_model_file(path: str | Path) -> ModelFile:
    """Read a model file; nothing is unpickled and no network is built.

    Parameters
    ----------
    path : path
        The file that `train` wrote, such as `results/model/model.pt`.

    Returns
    -------
    ModelFile

    Raises
    ------
    AstromorphError
        The file is missing, damaged, pickled, or of another format version.
    """
    values = load_values(path, MODEL_FORMAT, MODEL_VERSION, REMEDY)
    return ModelFile(**{name: values[name] for name in ModelFile.__dataclass_fields__})
