"""What TensorBoard shows of a training beside its curves."""

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from astromorph.datasets.tensor_datasets import CachedDataset, NativeDataset
from astromorph.settings.loading import parse
from astromorph.settings.sections import Settings
from astromorph.training.history import Epoch, scalar_writer
from astromorph.training.tensorboard import (
    GAP,
    SIDE,
    flatten_settings,
    view_pairs,
    write_summary,
)


def some(number: int = 20) -> CachedDataset:
    generator = torch.Generator().manual_seed(1)
    return CachedDataset(torch.rand(number, 1, 32, 32, generator=generator).half())


def test_settings_and_views_are_in_the_run_of_the_curves(tmp_path):
    """One folder, read as one run: hyperparameters, a picture, scalars."""
    settings = parse({"byol_settings": {"use_momentum": False}}, "test")
    write_summary(tmp_path, settings, some(), {"epochs": 7})
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
    assert "learning_rate" not in values, "what is null says nothing"
    said = run.summary_metadata["_hparams_/experiment"].plugin_data.content
    metrics = HParamsPluginData.FromString(said).experiment.metric_infos
    assert "loss/test" in {metric.name.tag for metric in metrics}


def test_no_random_number_is_used_up(tmp_path):
    """Training after it is the same as without it."""
    torch.manual_seed(3)
    before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()
    write_summary(tmp_path, Settings(), some(), {})
    assert torch.equal(torch.get_rng_state(), before)
    assert np.array_equal(np.random.get_state()[1], numpy_before)


def test_pairs_are_views_of_the_image_before_them():
    """A row for each image: itself as it was prepared, then six different views."""
    picture = view_pairs(Settings(), some())
    assert picture.shape == (8 * (SIDE + GAP) - GAP, 7 * SIDE + 3 * (12 + GAP))
    assert np.array_equal(picture, view_pairs(Settings(), some()))
    asked = {"scale": [1, 1], "shift": 0, "gamma": 0, "contrast": 0, "noise": 0,
             "brightness": 0, "blur": 0, "rotation": False, "flip": False}  # fmt: skip
    still = view_pairs(parse({"augmentation_settings": asked}, "test"), some())
    first = still[:SIDE, :SIDE].astype(int)
    for left in (SIDE + 12, 2 * SIDE + 12 + GAP):
        assert np.abs(first - still[:SIDE, left : left + SIDE]).max() <= 1
    assert np.abs(first - picture[:SIDE, SIDE + 12 : 2 * SIDE + 12]).max() > 20


@pytest.mark.parametrize("number", [1, 3])
def test_images_of_their_own_sizes_and_few_of_them(number):
    """Oblong images are padded in the picture."""
    images = NativeDataset([torch.rand(2, 20 + k, 40) for k in range(number)])
    assert view_pairs(Settings(), images).shape[0] == number * (SIDE + GAP) - GAP


def test_settings_have_their_whole_names():
    """As config/README.md does; lists are texts."""
    nested = {"a": 1, "b": {"c": None, "d": [1, 2], "e": True}}
    assert dict(flatten_settings(nested)) == {"a": 1, "b.d": "[1, 2]", "b.e": True}
