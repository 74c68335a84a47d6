"""The model file: the tensors and plain values needed to embed images."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from astromorph.artefacts.tensor_shard import load_values, save_values
from astromorph.errors import AstromorphError
from astromorph.provenance import versions

MODEL_FORMAT = "astromorph-model"
MODEL_VERSION = 1
# The entries of a model file, and the type of each.
ENTRIES = {
    "state": dict,
    "settings": dict,
    "in_channels": int,
    "tensor_settings": str,
    "data_digest": str,
    "versions": dict,
}
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


def file_checksum(path: str | Path) -> str:
    """The SHA-256 of a file, 64 hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def save_model(path: str | Path, model: ModelFile) -> None:
    """Write a model file atomically.

    Raises
    ------
    AstromorphError
        A weight is infinite or NaN: the training has diverged.
    WriteError
        The disk is full or not writable.
    """
    for problem in find_bad_weights(model.state):
        raise AstromorphError(
            f"{path}: this model is not written: {problem}; train it with a smaller "
            "`learning_rate`"
        )
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
        The file is missing, damaged, pickled, of another format version, or a weight
        in it is not finite.
    """
    values = load_values(path, MODEL_FORMAT, MODEL_VERSION, REMEDY, verify=True)
    for problem in _problems(values):
        raise AstromorphError(f"{path}: {problem}; {REMEDY}")
    return ModelFile(**{name: values[name] for name in ENTRIES})


def _problems(values: dict[str, Any]) -> Iterator[str]:
    """What is wrong with the entries of a model file."""
    for name, kind in ENTRIES.items():
        if name not in values:
            yield f"its entry `{name}` is missing"
        elif not isinstance(values[name], kind) or values[name] is True:
            found = type(values[name]).__name__
            yield f"its entry `{name}` is of the type {found}, not {kind.__name__}"
    if values["in_channels"] < 1:
        found = values["in_channels"]
        yield f"its entry `in_channels` is {found}; allowed are integers of at least 1"
    for name in ("state", "settings", "versions"):
        for key in values[name]:
            if not isinstance(key, str):
                yield f"its entry `{name}` has the key {key!r}, which is not text"
    yield from find_bad_weights(values["state"])


def find_bad_weights(state: dict[str, Any]) -> Iterator[str]:
    """Describe the tensors that no network can use.

    Parameters
    ----------
    state : dict of str to Tensor
        Named weights.

    Yields
    ------
    str
        A tensor that has values which are infinite or NaN, or that is none.
    """
    for name, value in state.items():
        if not isinstance(value, Tensor) or value.layout != torch.strided:
            yield f"its weight `{name}` is not a plain tensor"
        elif value.is_floating_point() and not torch.isfinite(value).all():
            number = int((~torch.isfinite(value)).sum())
            yield (
                f"{number} of {value.numel()} values of its weight `{name}` are "
                "infinite or NaN, so that all embeddings would be, too (the training "
                "has diverged, or the file was changed)"
            )
