"""Compatibility with version 0.1: what its user guide documents still works.

Most of it needs no code here: the keys of its settings files are settings, and
`ByolTrainer`, `BYOL`, `AstroMorphologyModel`, `NLayerResnet` and `MinMaxNorm` take the
keywords that the guide documents. This module adds the rest:

- the commands ``astromorph training -c`` and ``astromorph inference -c -n``;
- `FilelistDataset`, the guide's name for `FitsFilelistDataset`;
- ``astromorph convert``, which turns the weights of a model into a model file.

Model files of version 0.1 are pickles. Reading a pickle can execute arbitrary code, so
they are never opened. In the environment where the model was trained, these lines write
only its tensors::

    import torch
    model = torch.load("old.pt", weights_only=False)
    torch.save(model.state_dict(), "state.pt")
"""

import argparse
import json
import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any

from astromorph.atomic import atomic_write
from astromorph.errors import AstromorphError
from astromorph.system.files import check_file

if TYPE_CHECKING:  # the command line has to start without torch and pydantic
    from torch import Tensor

    from astromorph.datasets.fits_images import (
        FitsFilelistDataset as FilelistDataset,
    )
    from astromorph.settings.sections import Settings

__all__ = ["FilelistDataset", "add_commands", "convert"]
LOG = logging.getLogger(__name__)
RESULTS = "results"  # the output folder of both commands
TEST_FRACTION = 0.2  # the default of version 0.1
LAYERS = ("layer1", "layer2", "layer3", "layer4")
# Prefixes of a model's tensors in version 0.1 and in model files.
PREFIXES = {
    "byol.online_encoder.network.": "encoder.body.",
    "byol.online_encoder.projector.model.": "projector.",
    "byol.online_predictor.model.": "predictor.",
    "byol.target_encoder.network.": "target.0.body.",
    "byol.target_encoder.projector.model.": "target.1.",
}
UNUSED = ".body.fc."  # the last layer, which was never part of an embedding
UNREADABLE = (
    UnpicklingError,
    RuntimeError,
    OSError,
    ValueError,
    EOFError,
    KeyError,
)  # what torch.load raises
# Tensors that every ByolTrainer around n_layer_resnet has.
REQUIRED = (
    "encoder.body.conv1.weight",
    "encoder.body.layer1.0.conv1.weight",
    "projector.0.weight",
    "projector.3.weight",
)


def __getattr__(name: str) -> Any:
    if name == "FilelistDataset":
        from astromorph.datasets.fits_images import FitsFilelistDataset

        return FitsFilelistDataset
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def add_commands(steps: Any, run: Callable[[list[str]], None]) -> None:
    """Add the subcommands `training`, `inference` and `convert` to a parser.

    Parameters
    ----------
    steps : argparse subparsers
        The result of `argparse.ArgumentParser.add_subparsers`.
    run : callable
        Runs another subcommand; its argument is the list of command-line words.
    """
    summary = "Version 0.1: train with the settings of a file; now `astromorph train`."
    training = steps.add_parser("training", description=summary)
    training.add_argument(
        "-c", "--configfile", "--config-file", required=True, help="settings, TOML"
    )
    training.set_defaults(command=lambda options: run(train_arguments(options)))

    summary = "Version 0.1: embed with a trained model; now `astromorph infer`."
    inference = steps.add_parser("inference", description=summary)
    inference.add_argument("-c", "--configfile", "--config-file", help="settings, TOML")
    inference.add_argument("-d", "--datafile", help="file list")
    inference.add_argument("-m", "--maskfile", help="not used; leave it out")
    inference.add_argument("-n", "--trained_network_name", "--trained-network-name")
    inference.set_defaults(command=lambda options: run(infer_arguments(options)))

    summary = (
        "Make a model file from the weights of a model of version 0.1. Model files of "
        "version 0.1 are pickles and are never read. In the environment where the "
        'model was trained, write its tensors with python -c "import torch; '
        "torch.save(torch.load('old.pt', weights_only=False).state_dict(), "
        "'state.pt')\"."
    )
    weights = steps.add_parser("convert", help=summary, description=summary)
    weights.add_argument("state", metavar="STATE", help="the tensors, such as state.pt")
    weights.add_argument("model", metavar="MODEL", help="the model file to write")
    weights.set_defaults(command=lambda options: convert(options.state, options.model))


def train_arguments(options: argparse.Namespace) -> list[str]:
    """Arguments of ``astromorph train`` that are equivalent to ``training``.

    In version 0.1, `trained_network_name` did not name the model that training wrote.
    """
    LOG.warning("`astromorph training` is now `astromorph train`")
    overrides = {**_overrides(options.configfile), "trained_network_name": None}
    return [
        *("train", "-c", options.configfile, "--settings", json.dumps(overrides)),
        *_datafile_arguments(options.configfile, None),
    ]


def infer_arguments(options: argparse.Namespace) -> list[str]:
    """Arguments of ``astromorph infer`` that are equivalent to ``inference``.

    Raises
    ------
    AstromorphError
        A mask was given; masks were never used.
    """
    LOG.warning("`astromorph inference` is now `astromorph infer`")
    if options.maskfile:
        raise AstromorphError(
            f"--maskfile {options.maskfile}: masks are not used, and never were; "
            "omit the option"
        )
    config = options.configfile
    arguments = ["infer", "--settings", json.dumps(_overrides(config))]
    if config:
        arguments += ["-c", config]
    if options.trained_network_name:
        arguments += ["--trained-network-name", options.trained_network_name]
    return [*arguments, *_datafile_arguments(config, options.datafile)]


def _overrides(config: str | None) -> dict[str, Any]:
    """The default settings of version 0.1 that the file does not override."""
    from astromorph.settings.loading import load

    if config and "split_settings" in load(config):
        return {}
    LOG.info("a fifth of the images is the test set, as in version 0.1")
    return {"split_settings": {"test_fraction": TEST_FRACTION}}


def _datafile_arguments(config: str | None, datafile: str | None) -> list[str]:
    """The option that names the file list.

    In version 0.1, relative paths in the list were relative to the working directory.
    If the files are found there, a copy of the list with absolute paths is used.
    """
    from astromorph.filelist.entries import read_filelist
    from astromorph.settings.loading import load, parse

    settings = parse(load(config) if config else {}, config or "command line")
    datafile = datafile or settings.datafile
    if not datafile:
        return []
    entries = list(read_filelist(datafile))
    first = entries[0]
    if os.path.exists(first.path) or not os.path.exists(first.listed_path):
        return ["--datafile", datafile]
    copy = Path(RESULTS) / "filelist.txt"
    with atomic_write(copy) as temporary:
        lines = (f"{os.path.abspath(entry.listed_path)}\n" for entry in entries)
        temporary.write_text("".join(lines), encoding="utf-8")
    LOG.info("%s lists the files with absolute paths", copy)
    return ["--datafile", str(copy)]


def convert(state: str | Path, model: str | Path) -> None:
    """Make a model file from the weights of a model of version 0.1.

    Parameters
    ----------
    state : path
        The `state_dict` of a `ByolTrainer` around `n_layer_resnet`, written as shown
        at the top of this module.
    model : path
        The model file to write.

    Raises
    ------
    AstromorphError
        The file is missing, pickled or damaged, or contains another network.
    """
    from astromorph.artefacts.model_file import ModelFile, save_model
    from astromorph.byol.build import build_byol
    from astromorph.settings.steps import part_of, train_step_settings

    tensors = _read_tensors(state)
    weights = _rename(tensors)
    if "encoder.body.conv1.bias" in weights or not weights.keys() >= {*REQUIRED}:
        raise AstromorphError(
            f"{state}: found {len(tensors)} tensors, not those of a ByolTrainer around "
            "n_layer_resnet of version 0.1; no other model can be converted (the "
            "layers of amm have changed): train a new one"
        )
    settings, channels = _settings_of_model(weights, str(state))
    try:
        build_byol(train_step_settings(settings), channels).load_state_dict(weights)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise AstromorphError(
            f"{state}: the tensors are not a complete model ({reason}); write the "
            "`state_dict` of the whole ByolTrainer"
        ) from None
    part = part_of(settings, "train")
    layer = settings.network_settings.last_layer
    save_model(model, ModelFile(weights, part, channels, "{}", ""))
    LOG.info("%s: model file of a network up to %s", model, layer)


def _rename(tensors: Mapping[str, "Tensor"]) -> dict[str, "Tensor"]:
    """Rename tensors as in a model file, and leave out those that are not used."""
    renamed = {
        name.replace(old, new, 1): value
        for name, value in tensors.items()
        for old, new in PREFIXES.items()
        if name.startswith(old)
    }
    return {name: value for name, value in renamed.items() if UNUSED not in name}


def _settings_of_model(
    weights: Mapping[str, "Tensor"], source: str
) -> tuple["Settings", int]:
    """Settings of a network with tensors of these shapes, and its input channels."""
    from astromorph.settings.loading import parse

    layers = [n for n in LAYERS if f"encoder.body.{n}.0.conv1.weight" in weights]
    hidden_size, size = weights["projector.0.weight"].shape
    channels = int(weights["encoder.body.conv1.weight"].shape[1])
    settings = {
        "network_settings": {"last_layer": layers[-1], "weights": "random"},
        "data_settings": {"stacksize": channels},
        "byol_settings": {
            "representation_size": size,
            "projection_hidden_size": hidden_size,
            "projection_size": len(weights["projector.3.weight"]),
        },
    }
    return parse(settings, source), channels


def _read_tensors(path: str | Path) -> dict[str, "Tensor"]:
    import torch

    check_file(path, "give the weights that version 0.1 wrote")
    try:
        values = torch.load(path, map_location="cpu", weights_only=True)
    except UNREADABLE as error:
        reason = " ".join(str(error).split())[:120]
        raise AstromorphError(
            f"{path}: this is not a plain file of tensors ({reason}); `astromorph "
            "convert --help` explains how to write one"
        ) from None
    tensors = values if isinstance(values, dict) else {}
    return {k: v for k, v in tensors.items() if isinstance(v, torch.Tensor)}
