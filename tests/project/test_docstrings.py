"""Public docstrings are whole: every parameter, what comes back, nothing else."""

import importlib
import inspect

import pytest
from numpydoc.validate import validate

import astromorph

# No text, undocumented or unknown parameters, no types, no return.
CHECKED = {"GL08", "SS01", "PR01", "PR02", "PR04", "PR07", "RT01", "YD01"}
FURTHER = [
    "augment.blurred", "byol.mlp", "convert.convert", "datasets.gather",
    "datasets.images_of", "datasets.read_subset", "devices.choose_device",
    "embed.embed", "networks.HiddenLayer", "networks.TorchvisionEncoder",
    "networks.encoder_of", "networks.features_of", "optimise.parameter_groups",
    "settings.load", "settings.parse", "simulate.simulate", "sky.draw",
    "sky_lessons.draw_lessons", "teacher.Teacher", "preprocess.prepare",
    "checkpoint.model_of", "shards.prepare_entry",
    *(f"metrics.{n}" for n in ("knn_score", "linear_score", "rank_me", "whitened")),
]  # fmt: skip
# One line says it all; settings have a text each, which the guide shows; a record's
# attributes are its parameters.
SHORT = {
    "prepared.PreparedImages",
    "devices.choose_device",
    "byol.mlp",
    "settings.Settings",
}


def public() -> list[str]:
    names = []
    for name in astromorph.__all__:
        thing = getattr(astromorph, name)
        if inspect.isclass(thing) or inspect.isfunction(thing):
            names.append(f"{thing.__module__.removeprefix('astromorph.')}.{name}")
    return sorted({*names, *FURTHER} - SHORT)


@pytest.mark.parametrize("name", public())
def test_docstrings_are_whole(name):
    """By numpydoc's own validation."""
    module, _, thing = name.partition(".")
    found = validate(f"astromorph.{module}.{thing}")
    wrong = [
        message
        for code, message in found["errors"]
        if code in CHECKED and "'*args'" not in message  # torch's own constructor
    ]
    assert not wrong
    owner = getattr(importlib.import_module(f"astromorph.{module}"), thing)
    if inspect.isclass(owner):
        for method, value in vars(owner).items():
            if not method.startswith("_") and inspect.isfunction(value):
                assert inspect.getdoc(value), f"{name}.{method}"
