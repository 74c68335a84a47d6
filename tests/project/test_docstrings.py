"""Public docstrings are complete: exactly the parameters, and the return value."""

import importlib
import inspect

import pytest
from numpydoc.validate import validate

import astromorph

# Missing text, undocumented or unknown parameters, missing types or return value.
CHECKED = {"GL08", "SS01", "PR01", "PR02", "PR04", "PR07", "RT01", "YD01"}
FURTHER = [
    "byol.augment.gaussian_blur", "byol.byol.mlp_head", "byol.build.make_model_file",
    "byol.collapse.rank_me", "byol.optimise.parameter_groups",
    "compat.add_commands", "compat.convert", "datasets.tensor_datasets.gather",
    "datasets.tensor_datasets.to_image_set", "datasets.tensor_datasets.read_subset",
    "devices.choose_device", "embedding.embed.embed",
    "embedding.metrics.knn_score", "embedding.metrics.linear_score",
    "embedding.metrics.whiten", "models.encoders.TorchvisionEncoder",
    "models.hidden_layer.HiddenLayer", "models.hidden_layer.count_features",
    "models.hidden_layer.make_encoder", "preprocessing.image_to_tensor.prepare",
    "preprocessing.preprocess.prepare_entry", "settings.loading.load",
    "settings.loading.parse", "sky.draw.draw", "sky.simulate.simulate",
    "sky.training_set.draw_labelled_images", "training.auxiliary_task.AuxiliaryTask",
]  # fmt: skip
# One line is sufficient; or each setting has a text, which the guide shows; or the
# parameters of a record are documented as its attributes.
SHORT = {
    "byol.byol.mlp_head",
    "datasets.fits_images.PreparedImages",
    "devices.choose_device",
    "settings.sections.Settings",
}


def public() -> list[str]:
    names = []
    for name in astromorph.__all__:
        thing = getattr(astromorph, name)
        if inspect.isclass(thing) or inspect.isfunction(thing):
            names.append(
                f"{thing.__module__.removeprefix('astromorph.')}.{thing.__name__}"
            )
    return sorted({*names, *FURTHER} - SHORT)


@pytest.mark.parametrize("name", public())
def test_docstrings_are_complete(name):
    """According to numpydoc's validation."""
    module, _, thing = name.rpartition(".")
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
