"""Networks that keep the channels of an image separate."""

import pytest
import torch

from astromorph import BYOL, AstroMorphologyModel
from astromorph.artefacts.model_file import save_model
from astromorph.byol.build import load_model, make_model_file, seeded_byol
from astromorph.byol.start_weights import load_start_weights, start_from_sky
from astromorph.models.encoders import DIFFERENCE_WEIGHT, SeparateChannels
from astromorph.settings.loading import parse
from astromorph.settings.steps import train_step_settings


def build(channels, **values):
    settings = train_step_settings(parse({"network_name": "amm", **values}, "test"))
    return settings, seeded_byol(settings, channels).eval()


@pytest.mark.parametrize(
    ("channels", "choice", "stacksize", "separate"),
    [
        (1, "auto", 1, False), (2, "auto", 1, True), (5, "auto", 1, True),
        (6, "auto", 1, False), (6, "separate", 1, True), (3, "joint", 1, False),
        (3, "auto", 3, False), (3, "separate", 3, False), (1, "separate", 1, False),
    ],
)  # fmt: skip
def test_auto_keeps_two_to_five_channels_separate(
    channels, choice, stacksize, separate
):
    """Repeated channels are equal, so that there is nothing to compare."""
    _, byol = build(
        channels,
        network_settings={"channels": choice},
        data_settings={"stacksize": stacksize},
    )
    assert isinstance(byol.encoder, SeparateChannels) is separate
    assert byol(torch.rand(2, channels, 32, 32)).shape == (2, byol.features)


def test_features_are_the_mean_and_the_differences():
    """Equal channels have the features of one channel, and differences of 0."""
    network = AstroMorphologyModel(1).eval()
    encoder = SeparateChannels(network, 3)
    images = torch.rand(4, 3, 32, 32)
    one, two, three = (network(images[:, k : k + 1]) for k in range(3))
    expected = [(one + two + three) / 3, (two - one) * 3, (three - two) * 3]
    torch.testing.assert_close(encoder(images), torch.cat(expected, dim=1))
    assert DIFFERENCE_WEIGHT == 3
    equal = encoder(images[:, :1].expand(-1, 3, -1, -1))
    torch.testing.assert_close(equal[:, :128], one)
    assert equal[:, 128:].abs().max() < 1e-5


@pytest.mark.parametrize("size", [None, 24])
def test_the_order_of_channels_matters_with_start_weights(size, tmp_path):
    """Joint filters with the same weights for all channels would not see it."""
    rules = {"byol_settings": {"representation_size": size}} if size else {}
    settings, byol = build(3, **rules)
    load_start_weights(byol, settings)
    images = torch.rand(2, 3, 40, 40) * torch.tensor([1.0, 0.5, 0.2])[:, None, None]
    embeddings = byol(images)
    assert (embeddings - byol(images.flip(1))).abs().max() > 0.01
    path = tmp_path / "model.pt"
    save_model(path, make_model_file(byol, settings, 3, "{}", ["a"]))
    again, _ = load_model(path)
    assert torch.equal(again(images), embeddings)


def test_weights_of_a_file_fit_any_number_of_channels(tmp_path):
    """Those of a model for three channels, in one for two and one for one."""
    settings, byol = build(3)
    path = tmp_path / "model.pt"
    save_model(path, make_model_file(byol, settings, 3, "{}", ["a"]))
    expected = byol.encoder.network.state_dict()
    for channels in (1, 2):
        other_settings, other = build(
            channels,
            seed=9,
            network_settings={"weights": str(path), "channels": "separate"},
        )
        load_start_weights(other, other_settings)
        encoder = other.encoder
        state = getattr(encoder, "network", encoder).state_dict()
        for name, value in expected.items():
            assert torch.equal(state[name], value), name


def test_start_from_sky_loads_into_the_network_of_each_channel():
    """Also into the target network."""
    byol = BYOL(SeparateChannels(AstroMorphologyModel(1), 2))
    plain = AstroMorphologyModel(1)
    start_from_sky(byol)
    start_from_sky(plain)
    for encoder in (byol.encoder, byol.target[0]):
        for name, value in plain.state_dict().items():
            assert torch.equal(encoder.network.state_dict()[name], value)


def test_another_number_of_channels_is_an_error():
    """It names both numbers."""
    encoder = SeparateChannels(AstroMorphologyModel(1), 2)
    with pytest.raises(ValueError, match="found 3 channels, but the network expects 2"):
        encoder(torch.rand(1, 3, 32, 32))
    with pytest.raises(ValueError, match="in_channels"):
        SeparateChannels(AstroMorphologyModel(1), 1)


def test_both_views_train_all_weights():
    """Gradients reach the shared network."""
    byol = BYOL(SeparateChannels(AstroMorphologyModel(1), 3)).train()
    byol(torch.rand(4, 3, 32, 32), return_errors=True).backward()
    assert all(p.grad is not None for p in byol.encoder.parameters())
