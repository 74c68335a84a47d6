"""What a model file says of itself, without building its network."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from astromorph.artefacts.tensor_shard import load_plain
from astromorph.byol.model_file import MODEL_FORMAT, MODEL_VERSION, REMEDY


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """How a model was made.

    Attributes
    ----------
    settings : dict
        The settings of training; plain values.
    in_channels : int
        Channels of the images that the network takes, `stacksize` included.
    tensor_settings : str
        The canonical settings that the training images were made with.
    data_digest : str
        Of the ids of the training images.
    versions : dict of str to str
        Of Python and the packages that made it.
    """

    settings: dict[str, Any]
    in_channels: int
    tensor_settings: str
    data_digest: str
    versions: dict[str, str]


def read_facts(path: str | Path) -> ModelFacts:
    """Read them; tensors and plain values alone, nothing is unpickled.

    Parameters
    ----------
    path : path
        What `train` wrote.

    Returns
    -------
    ModelFacts

    Raises
    ------
    AstromorphError
        The file is missing, damaged, pickled, or of another format version.
    """
    values = load_plain(path, MODEL_FORMAT, MODEL_VERSION, REMEDY)
    return ModelFacts(
        **{name: values[name] for name in ModelFacts.__dataclass_fields__}
    )
