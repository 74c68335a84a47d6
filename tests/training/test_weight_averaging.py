"""The mean of the weights before and after training."""

import shutil

import pytest
import torch
from torch import nn

from astromorph.artefacts.model_file import read_model_file
from astromorph.artefacts.run_files import RunFiles
from astromorph.byol.build import seeded_byol
from astromorph.byol.start_weights import load_start_weights
from astromorph.settings.loading import parse
from astromorph.settings.presets import preset_start_share
from astromorph.settings.steps import train_step_settings
from astromorph.training.train import train
from astromorph.training.weight_averaging import average_weights, copy_state

SETTINGS = {"network_name": "amm", "epochs": 1, "batch_size": 4}
TRAINING = {"simulated_images": 0, "precision": "float32"}


def test_weights_and_statistics_are_averaged_but_not_counters():
    """In place; the copy of the start weights does not change with the network."""
    network = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    start = copy_state(network)
    network(torch.rand(8, 2))
    with torch.no_grad():
        network[0].weight += 1.0
    trained = copy_state(network)
    average_weights(network, start, 0.25)
    for name, value in network.state_dict().items():
        if name.endswith("num_batches_tracked"):
            assert int(value) == 1
        else:
            expected = 0.25 * start[name] + 0.75 * trained[name]
            torch.testing.assert_close(value, expected)
    assert not torch.equal(network[1].running_mean, trained["1.running_mean"])


@pytest.mark.parametrize("share", [-0.1, 1.1])
def test_a_share_is_from_0_to_1(share):
    """The error gives the allowed range."""
    with pytest.raises(ValueError, match="allowed is 0 to 1"):
        average_weights(nn.Linear(1, 1), {}, share)


def test_the_default_share_depends_on_the_number_of_images():
    """0.95 for few images, 0 where training has enough of them."""
    shares = [preset_start_share(n) for n in (1, 200, 5_000, 20_000, 50_000, 10**7)]
    assert shares == pytest.approx([0.95, 0.95, 0.95, 0.378, 0, 0], abs=1e-3)


@pytest.fixture
def train_with(split_run, tmp_path):
    """A function that trains and returns the encoder of the model."""

    def run(share: float | None, **sections) -> dict[str, torch.Tensor]:
        folder = tmp_path / f"results{len(list(tmp_path.iterdir()))}"
        shutil.copytree(split_run.results, folder, symlinks=True)
        files = RunFiles.of_run(folder, shards=len(split_run.shards))
        rules = {"training_settings": TRAINING | {"start_share": share}}
        train(train_step_settings(parse(SETTINGS | rules | sections, "test")), files)
        state = read_model_file(files.model).state
        return {n: v for n, v in state.items() if n.startswith("encoder.")}

    return run


def test_the_model_is_the_mean_of_start_and_trained_weights(train_with):
    """With a share of 1 it is the start network, with 0 the trained one."""
    start, mean, trained = (train_with(share) for share in (1.0, 0.5, 0.0))
    settings = train_step_settings(parse(SETTINGS, "test"))
    byol = seeded_byol(settings, 1)
    assert load_start_weights(byol, settings)
    own = copy_state(byol.encoder)
    for name, value in start.items():
        if not name.endswith("num_batches_tracked"):
            torch.testing.assert_close(value, own[name.removeprefix("encoder.")])
            expected = (value + trained[name]) / 2
            torch.testing.assert_close(mean[name], expected, rtol=1e-5, atol=1e-6)
    assert any(not torch.equal(value, trained[name]) for name, value in start.items())
    default = train_with(None)
    for name, value in default.items():
        if not name.endswith("num_batches_tracked"):
            expected = 0.95 * start[name] + 0.05 * trained[name]
            torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-6)


def test_layers_with_random_start_weights_keep_what_they_learned(train_with):
    """Then the share has no effect."""
    sections = {"byol_settings": {"representation_size": 8}}
    one, other = train_with(1.0, **sections), train_with(0.0, **sections)
    assert all(torch.equal(value, other[name]) for name, value in one.items())
