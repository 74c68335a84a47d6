"""Models of version 0.1, brought over from a plain `state_dict`.

Their files are pickles, which can run any program, and are never read. In the
environment that made one, this writes its tensors alone::

    import torch
    model = torch.load("old.pt", weights_only=False)
    torch.save(model.state_dict(), "state.pt")
"""

import logging
from pathlib import Path

import torch
from torch import Tensor

from astromorph.artefacts.model_file import ModelFile, save_model
from astromorph.byol.build import build_byol
from astromorph.errors import AstromorphError
from astromorph.settings.loading import parse
from astromorph.settings.steps import part_of

LOG = logging.getLogger(__name__)
LAYERS = ("layer1", "layer2", "layer3", "layer4")
# Where parts of a model were and are.
PREFIXES = {
    "byol.online_encoder.network.": "encoder.body.",
    "byol.online_encoder.projector.model.": "projector.",
    "byol.online_predictor.model.": "predictor.",
    "byol.target_encoder.network.": "target.0.body.",
    "byol.target_encoder.projector.model.": "target.1.",
}
LOST = (".body.fc.",)  # the last layer was never part of an embedding


def convert(state: str | Path, model: str | Path) -> None:
    """Make a model file of the tensors of a model of version 0.1.

    Parameters
    ----------
    state : path
        What the lines above wrote, of a `ByolTrainer` around `n_layer_resnet`.
    model : path
        The model file to write.

    Raises
    ------
    AstromorphError
        The file is missing, pickled or damaged, or holds another network.
    """
    tensors = _read(state)
    found: dict[str, Tensor] = {}
    for name, value in tensors.items():
        for old, new in PREFIXES.items():
            if name.startswith(old):
                found[name.replace(old, new, 1)] = value
    found = {k: v for k, v in found.items() if not any(lost in k for lost in LOST)}
    if "encoder.body.conv1.bias" in found or "encoder.body.conv1.weight" not in found:
        raise AstromorphError(
            f"{state}: found {len(tensors)} tensors, not those of a ByolTrainer around "
            "n_layer_resnet of version 0.1; only such models can be brought over (amm "
            "has other layers now): train a new one"
        )
    last = [name for name in LAYERS if f"encoder.body.{name}.0.conv1.weight" in found]
    hidden, size = found["projector.0.weight"].shape
    channels = int(found["encoder.body.conv1.weight"].shape[1])
    settings = parse(
        {
            "network_settings": {"last_layer": last[-1], "weights": "random"},
            "data_settings": {"stacksize": channels},
            "byol_settings": {
                "representation_size": size,
                "projection_hidden_size": hidden,
                "projection_size": len(found["projector.3.weight"]),
            },
        },
        str(state),
    )
    try:
        build_byol(settings, channels).load_state_dict(found)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise AstromorphError(
            f"{state}: its tensors do not make a whole model ({reason}); write the "
            "`state_dict` of the whole ByolTrainer"
        ) from None
    made = ModelFile(found, part_of(settings, "train"), channels, "{}", "")
    save_model(model, made)
    LOG.info("%s: a model of %s, %d features", model, last[-1], size)


def _read(path: str | Path) -> dict[str, Tensor]:
    try:
        values = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise AstromorphError(f"{path}: there is no such file") from None
    except Exception as error:  # torch raises many kinds
        reason = " ".join(str(error).split())[:120]
        raise AstromorphError(
            f"{path}: this is no plain file of tensors ({reason}); `astromorph convert "
            "--help` says how to make one where the model was made"
        ) from None
    tensors = values if isinstance(values, dict) else {}
    return {k: v for k, v in tensors.items() if isinstance(v, Tensor)}
