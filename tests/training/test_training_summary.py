"""The settings and pictures of a training run in TensorBoard."""

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from astromorph.byol.augment import SkyAugmentation
from astromorph.datasets.tensor_datasets import CachedDataset, NativeDataset
from astromorph.settings.loading import parse
from astromorph.settings.steps import TrainStepSettings, train_step_settings
from astromorph.training.history import Epoch, scalar_writer
from astromorph.training.train import (
    GAP,
    SIDE,
    draw_view_pairs,
    flatten_settings,
    write_summary,
)


def step_settings(values: dict) -> TrainStepSettings:
    return train_step_settings(parse(values, "test"))


def augmentation(**strengths) -> SkyAugmentation:
    rules = parse({"augmentation_settings": strengths}, "test").augmentation_settings
    return SkyAugmentation(rules, torch.Generator().manual_seed(0))


def images(number: int = 20) -> CachedDataset:
    generator = torch.Generator().manual_seed(1)
    return CachedDataset(torch.rand(number, 1, 32, 32, generator=generator).half())


def test_settings_and_views_are_in_the_same_run_as_the_curves(tmp_path):
    """One folder is read as one run: hyperparameters, a picture, scalars."""
    settings = step_settings({"byol_settings": {"use_momentum": False}})
    write_summary(tmp_path, settings, images(), {"epochs": 7})
    with scalar_writer(tmp_path) as write:
        write(Epoch(1, 2.0, 3.0, None, 0.1, 0.99, 5.0, 0.5))
    assert not any(path.is_dir() for path in tmp_path.iterdir())
    run = EventAccumulator(str(tmp_path)).Reload()
    assert [scalar.value for scalar in run.Scalars("loss/test")] == [3.0]
    assert run.Tags()["images"] == ["views/pairs"]
    start = run.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    values = HParamsPluginData.FromString(start).session_start_info.hparams
    assert values["epochs"].number_value == 7
    assert values["byol_settings.use_momentum"].bool_value is False
    assert values["network_name"].string_value == "n_layer_resnet"
    assert values["augmentation_settings.scale"].string_value == "[0.6, 1.6]"
    assert "learning_rate" not in values, "settings that are null are left out"
    content = run.summary_metadata["_hparams_/experiment"].plugin_data.content
    metrics = HParamsPluginData.FromString(content).experiment.metric_infos
    assert "loss/test" in {metric.name.tag for metric in metrics}


def test_the_summary_does_not_affect_random_numbers(tmp_path):
    """The training is the same with and without the summary."""
    torch.manual_seed(3)
    before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()
    write_summary(tmp_path, step_settings({}), images(), {})
    assert torch.equal(torch.get_rng_state(), before)
    assert np.array_equal(np.random.get_state()[1], numpy_before)


def test_pairs_are_views_of_the_image_in_their_row():
    """A row for each image: the prepared image, then six different views."""
    picture = draw_view_pairs(augmentation(), images())
    assert picture.shape == (8 * (SIDE + GAP) - GAP, 7 * SIDE + 3 * (12 + GAP))
    assert np.array_equal(picture, draw_view_pairs(augmentation(), images()))
    strengths = ("shift", "gamma", "contrast", "noise", "brightness", "blur")
    identity = augmentation(
        scale=[1, 1], rotation=False, flip=False, **dict.fromkeys(strengths, 0)
    )
    unchanged = draw_view_pairs(identity, images())
    first = unchanged[:SIDE, :SIDE].astype(int)
    for left in (SIDE + 12, 2 * SIDE + 12 + GAP):
        assert np.abs(first - unchanged[:SIDE, left : left + SIDE]).max() <= 1
    assert np.abs(first - picture[:SIDE, SIDE + 12 : 2 * SIDE + 12]).max() > 20


@pytest.mark.parametrize("number", [1, 3])
def test_few_images_of_different_sizes_are_shown(number):
    """Images that are not square are padded in the picture."""
    natives = NativeDataset([torch.rand(2, 20 + k, 40) for k in range(number)])
    height = draw_view_pairs(augmentation(), natives).shape[0]
    assert height == number * (SIDE + GAP) - GAP


def test_settings_have_their_full_names():
    """The names are those in config/README.md; lists become text."""
    nested = {"a": 1, "b": {"c": None, "d": [1, 2], "e": True}}
    assert dict(flatten_settings(nested)) == {"a": 1, "b.d": "[1, 2]", "b.e": True}
