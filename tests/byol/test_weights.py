"""The weights that training starts from."""

import hashlib
import sys

import pytest
import torch
from torchvision.models import resnet18

from astromorph.artefacts.model_file import ModelFile, save_model
from astromorph.byol import start_weights
from astromorph.byol.build import seeded_byol
from astromorph.byol.encoder_file import save_encoder
from astromorph.byol.start_weights import (
    SKY_DIGESTS,
    load_start_weights,
    sky_file,
    start_network,
)
from astromorph.errors import AstromorphError
from astromorph.models.encoders import build_network
from astromorph.settings.loading import parse
from astromorph.settings.presets import (
    WITH_SKY_WEIGHTS,
    knows_simulated_shapes,
    simulated_images,
    start_weights_source,
)
from astromorph.settings.sections import TORCHVISION, NetworkSettings
from astromorph.settings.steps import TrainStepSettings, train_step_settings


def step_settings(values: dict) -> TrainStepSettings:
    return train_step_settings(parse(values, "test"))


def start_and_random(channels: int = 1, **values):
    """A network with the start weights of the settings, and one with random weights."""
    settings = step_settings(values)
    model, other = seeded_byol(settings, channels), seeded_byol(settings, channels)
    load_start_weights(model, settings)
    return model, other


@pytest.mark.parametrize(
    ("values", "source"),
    [
        ({}, "sky"),
        ({"network_name": "amm"}, "sky"),
        ({"network_name": "resnet50"}, "random"),
        ({"network_settings": {"weights": "random"}}, "random"),
        ({"network_settings": {"weights": "some.pt"}}, "some.pt"),
    ],
)
def test_the_default_start_is_the_simulated_sky(values, source):
    """It is random for a network without such weights."""
    assert start_weights_source(step_settings(values)) == source
    assert set(SKY_DIGESTS) == set(WITH_SKY_WEIGHTS)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, True),
        ({"network_name": "amm"}, True),
        ({"network_settings": {"last_layer": "layer2"}}, True),
        ({"network_settings": {"last_layer": "layer4"}}, False),
        ({"network_name": "amm", "network_settings": {"last_layer": "layer4"}}, True),
        ({"byol_settings": {"representation_size": 64}}, False),
        ({"network_settings": {"weights": "random"}}, False),
        ({"network_name": "resnet50"}, False),
    ],
)
def test_simulated_images_are_added_only_where_a_layer_is_random(values, expected):
    """What is derived from the settings agrees with what is loaded."""
    settings = step_settings(values)
    assert knows_simulated_shapes(settings) == expected
    assert (simulated_images(settings, 600) == 0) == expected
    if settings.network_name != "resnet50":
        byol = seeded_byol(settings, 1)
        assert load_start_weights(byol, settings) == expected


@pytest.mark.parametrize("name", sorted(SKY_DIGESTS))
def test_the_weights_of_the_package_have_the_recorded_digest(name):
    """Steps depend on the code, so that changed weights make training run again."""
    assert (
        hashlib.sha256(sky_file(name).read_bytes()).hexdigest()[:16]
        == SKY_DIGESTS[name]
    )
    assert sky_file(name).stat().st_size < 8e6


@pytest.mark.parametrize("name", sorted(SKY_DIGESTS))
@pytest.mark.parametrize("size", [None, 16])
def test_start_weights_are_loaded_into_online_and_target_network(name, size):
    """Projector, predictor and the layer of `representation_size` stay random."""
    values = {"network_name": name, "byol_settings": {"representation_size": size}}
    model, other = start_and_random(**values)
    pairs = zip(model.encoder.parameters(), model.target[0].parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    changed = [
        not torch.equal(a, b)
        for a, b in zip(
            model.encoder.parameters(), other.encoder.parameters(), strict=True
        )
    ]
    assert changed[:-2].count(False) == 0
    assert changed[-2:] == ([False, False] if size else [True, True])
    for a, b in zip(
        model.projector.parameters(), other.projector.parameters(), strict=True
    ):
        assert torch.equal(a, b)


def test_layers_without_start_weights_stay_random(caplog):
    """The fourth layer of ResNet-18, unless the network has fewer layers."""
    caplog.set_level("INFO")
    model, other = start_and_random(network_settings={"last_layer": "layer4"})
    mine, random = model.encoder.state_dict(), other.encoder.state_dict()
    for name in mine:
        if name.endswith("conv1.weight"):
            assert torch.equal(mine[name], random[name]) == ("layer4" in name)
    assert "random weights in body.layer4" in caplog.text
    caplog.clear()
    start_and_random(network_settings={"last_layer": "layer1"})
    assert "random weights" not in caplog.text


def test_filters_are_averaged_for_several_channels():
    """An image repeated in all channels gives the embedding of one channel."""
    one, _ = start_and_random(1)
    three, _ = start_and_random(3, network_settings={"channels": "joint"})
    images = torch.rand(4, 1, 64, 64)
    torch.testing.assert_close(
        three.eval()(images.repeat(1, 3, 1, 1)),
        one.eval()(images),
        rtol=1e-3,
        atol=1e-4,
    )


def test_a_file_can_contain_the_start_weights(tmp_path):
    """A model file, the state of an encoder, and a bare ResNet-18."""
    values = {"network_name": "amm"}
    torch.manual_seed(9)
    made = seeded_byol(step_settings(values | {"seed": 5}), 1)
    save_model(
        tmp_path / "model.pt",
        ModelFile(made.state_dict(), step_settings(values).to_dict(), 1, "{}", "0"),
    )
    torch.save(made.encoder.state_dict(), tmp_path / "encoder.pt")
    for name in ("model.pt", "encoder.pt"):
        file = {"weights": str(tmp_path / name)}
        model, _ = start_and_random(**values, network_settings=file)
        for a, b in zip(
            model.encoder.parameters(), made.encoder.parameters(), strict=True
        ):
            assert torch.equal(a, b)
    bare = resnet18(weights=None)
    torch.save(bare.state_dict(), tmp_path / "resnet.pt")
    model, _ = start_and_random(
        3, network_settings={"weights": str(tmp_path / "resnet.pt")}
    )
    assert torch.equal(model.encoder.body.conv1.weight, bare.conv1.weight)


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (None, "there is no such file"),
        ({"x": torch.ones(2)}, "no tensor has the name"),
        (
            {"body.0.0.weight": torch.ones(2)},
            r"has the shape \(2,\), but .* in this network",
        ),
        (b"nothing", "contains no readable weights"),
        ("text", "no tensor has the name"),
    ],
)
def test_files_that_do_not_fit_are_refused(write, message, tmp_path):
    """The message says what is wrong and what is allowed."""
    path = tmp_path / "w.pt"
    if isinstance(write, bytes):
        path.write_bytes(write)
    elif write is not None:
        torch.save(write, path)
    with pytest.raises(AstromorphError, match=message) as caught:
        start_and_random(network_name="amm", network_settings={"weights": str(path)})
    assert str(path) in str(caught.value)
    assert "random, sky, torchvision" in str(caught.value)


def test_sky_for_another_network_is_refused():
    """Only the networks of the package have such weights."""
    with pytest.raises(
        AstromorphError, match="n_layer_resnet and amm, not for resnet34"
    ):
        start_and_random(
            3, network_name="resnet34", network_settings={"weights": "sky"}
        )
    with pytest.raises(AstromorphError, match="torchvision has no weights for amm"):
        start_and_random(
            network_name="amm", network_settings={"weights": "torchvision"}
        )


def test_a_changed_file_of_the_package_is_refused(tmp_path, monkeypatch):
    """Its results would differ under the same name."""
    (tmp_path / "amm.pt").write_bytes(sky_file("amm").read_bytes() + b" ")
    monkeypatch.setattr(start_weights, "sky_file", lambda name: tmp_path / f"{name}.pt")
    with pytest.raises(AstromorphError, match="install astromorph again"):
        start_and_random(network_name="amm")


def test_torchvision_weights_are_read_from_the_download_folder(tmp_path, monkeypatch):
    """If they cannot be downloaded, the message names the missing file."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    values = {"network_settings": {"weights": "torchvision"}}

    def refuse(*arguments, **options):
        raise OSError("no network")

    monkeypatch.setattr("torch.hub.download_url_to_file", refuse)
    with pytest.raises(AstromorphError, match=r"put the file resnet18-\w+\.pth into"):
        start_and_random(3, **values)
    from torchvision.models import ResNet18_Weights

    name = ResNet18_Weights.DEFAULT.url.rpartition("/")[2]
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True, exist_ok=True)
    bare = resnet18(weights=None)
    torch.save(bare.state_dict(), folder / name)
    model, _ = start_and_random(3, **values)
    assert torch.equal(model.encoder.body.conv1.weight, bare.conv1.weight)


def test_the_networks_before_training_are_rebuilt():
    """There are none if training started from random weights."""
    for weights, source in (("random", None), (None, "sky")):
        values = {"network_name": "amm", "network_settings": {"weights": weights}}
        settings = step_settings(values)
        state = seeded_byol(settings, 1).state_dict()
        found = start_network(ModelFile(state, settings.to_dict(), 1, "{}", "0"))
        assert (found and found[0]) == source
    model, _ = start_and_random(network_name="amm")
    for a, b in zip(found[1].parameters(), model.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    "name",
    ["resnet34", "efficientnet_b0", "mobilenet_v3_small", "squeezenet1_1",
     "densenet121", "convnext_tiny", "googlenet", "vgg11", "swin_t", "alexnet"],
)  # fmt: skip
def test_networks_of_torchvision_give_features(name):
    """For images of 64 pixels and of other sizes."""
    assert name in TORCHVISION
    network = build_network(name, NetworkSettings(channels="joint"), 2).eval()
    with torch.no_grad():
        features = network(torch.rand(2, 2, 64, 64))
        assert features.shape == (2, network.features)
        assert network(torch.rand(1, 2, 80, 96)).shape == (1, network.features)


@pytest.mark.parametrize("size", [None, 16])
def test_an_exported_encoder_is_loaded(tmp_path, size):
    """Bit for bit; the layer of `representation_size` stays random, as with `sky`."""
    path = tmp_path / "encoder.safetensors"
    source, _ = start_and_random(
        network_name="amm", byol_settings={"representation_size": 8}
    )
    save_encoder(path, source, {"format": "test"})
    model, other = start_and_random(
        network_name="amm",
        network_settings={"weights": str(path)},
        byol_settings={"representation_size": size},
    )
    network = model.encoder[0] if size else model.encoder
    for key, value in source.encoder[0].state_dict().items():
        assert torch.equal(value, network.state_dict()[key])
    pairs = zip(model.encoder.parameters(), model.target[0].parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    if size:
        assert torch.equal(model.encoder[1].weight, other.encoder[1].weight)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(AstromorphError, match=r"encoder\.safetensors: .*no readable"):
        load_start_weights(
            model,
            step_settings(
                {"network_name": "amm", "network_settings": {"weights": str(path)}}
            ),
        )


def test_safetensors_need_their_package(tmp_path, monkeypatch):
    """The message names the extra that installs it."""
    path = tmp_path / "encoder.safetensors"
    path.write_bytes(b"")
    monkeypatch.setitem(sys.modules, "safetensors.torch", None)
    with pytest.raises(AstromorphError, match=r"astromorph\[model-export\]"):
        start_and_random(network_name="amm", network_settings={"weights": str(path)})
