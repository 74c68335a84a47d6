"""What training starts from."""

import hashlib

import pytest
import torch
from torchvision.models import resnet18

from astromorph.artefacts.model_file import ModelFile, save_model
from astromorph.byol import start_weights as initial_weights
from astromorph.byol.build import seeded_byol
from astromorph.byol.start_weights import (
    WITH_SKY,
    load_start_weights,
    sky_file,
    start_network,
    start_weights_source,
)
from astromorph.errors import AstromorphError
from astromorph.models.encoders import build_network
from astromorph.settings.loading import parse
from astromorph.settings.sections import TORCHVISION, NetworkSettings
from astromorph.settings.steps import part_of


def begun(channels: int = 1, **values):
    """A model that starts as the settings say, and the same with random weights."""
    settings = parse(values, "test")
    model, other = seeded_byol(settings, channels), seeded_byol(settings, channels)
    load_start_weights(model, settings)
    return model, other


@pytest.mark.parametrize(
    ("values", "source"),
    [
        ({}, "sky"),
        ({"network_name": "amm"}, "sky"),
        ({"network_name": "resnet50"}, "random"),
        ({"network_settings": {"stem": "small"}}, "random"),
        ({"network_settings": {"weights": "random"}}, "random"),
        ({"network_settings": {"weights": "some.pt"}}, "some.pt"),
    ],
)
def test_the_default_is_the_sky_where_it_fits(values, source):
    """A network that has no such weights begins at random, and nothing else."""
    assert start_weights_source(parse(values, "test")) == source


@pytest.mark.parametrize("name", sorted(WITH_SKY))
def test_the_weights_of_the_package_are_those_the_code_names(name):
    """The steps depend on the code, so that other weights make training rerun."""
    assert (
        hashlib.sha256(sky_file(name).read_bytes()).hexdigest()[:16] == WITH_SKY[name]
    )
    assert sky_file(name).stat().st_size < 8e6


@pytest.mark.parametrize("name", sorted(WITH_SKY))
@pytest.mark.parametrize("size", [None, 16])
def test_the_sky_fills_the_online_and_the_target_network(name, size):
    """The heads, and a layer behind the encoder, keep their random weights."""
    values = {"network_name": name, "byol_settings": {"representation_size": size}}
    model, other = begun(**values)
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


def test_what_the_sky_does_not_have_stays_random(caplog):
    """The fourth layer of ResNet-18; fewer layers take what there is."""
    caplog.set_level("INFO")
    model, other = begun(network_settings={"last_layer": "layer4"})
    mine, random = model.encoder.state_dict(), other.encoder.state_dict()
    for name in mine:
        if name.endswith("conv1.weight"):
            assert torch.equal(mine[name], random[name]) == ("layer4" in name)
    assert "random are body.layer4" in caplog.text
    caplog.clear()
    begun(network_settings={"last_layer": "layer1"})
    assert "random are" not in caplog.text


def test_filters_are_shared_among_channels():
    """An image repeated in all channels gives the embedding of one channel."""
    one, _ = begun(1)
    three, _ = begun(3)
    images = torch.rand(4, 1, 64, 64)
    torch.testing.assert_close(
        three.eval()(images.repeat(1, 3, 1, 1)),
        one.eval()(images),
        rtol=1e-3,
        atol=1e-4,
    )


def test_a_file_of_ours_or_of_others_is_a_start(tmp_path):
    """A model file, the state of an encoder, and a bare ResNet-18."""
    values = {"network_name": "amm"}
    settings = parse(values, "test")
    torch.manual_seed(9)
    made = seeded_byol(parse(values | {"seed": 5}, "test"), 1)
    save_model(
        tmp_path / "model.pt",
        ModelFile(made.state_dict(), part_of(settings, "train"), 1, "{}", "0"),
    )
    torch.save(made.encoder.state_dict(), tmp_path / "encoder.pt")
    for name in ("model.pt", "encoder.pt"):
        file = {"weights": str(tmp_path / name)}
        model, _ = begun(**values, network_settings=file)
        for a, b in zip(
            model.encoder.parameters(), made.encoder.parameters(), strict=True
        ):
            assert torch.equal(a, b)
    bare = resnet18(weights=None)
    torch.save(bare.state_dict(), tmp_path / "resnet.pt")
    model, _ = begun(3, network_settings={"weights": str(tmp_path / "resnet.pt")})
    assert torch.equal(model.encoder.body.conv1.weight, bare.conv1.weight)


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (None, "there is no such file"),
        ({"x": torch.ones(2)}, "none of its tensors has the name"),
        ({"body.0.0.weight": torch.ones(2)}, r"has the shape \(2,\), this network's"),
        (b"nothing", "weights cannot be read"),
        ("text", "none of its tensors"),
    ],
)
def test_files_that_do_not_fit_are_refused(write, message, tmp_path):
    """With the file, what is wrong, and what is allowed."""
    path = tmp_path / "w.pt"
    if isinstance(write, bytes):
        path.write_bytes(write)
    elif write is not None:
        torch.save(write, path)
    with pytest.raises(AstromorphError, match=message) as caught:
        begun(network_name="amm", network_settings={"weights": str(path)})
    assert str(path) in str(caught.value)
    assert "random, sky, torchvision" in str(caught.value)


def test_sky_for_another_network_is_refused():
    """Only those of the package have such weights."""
    with pytest.raises(
        AstromorphError, match="n_layer_resnet and amm, not for resnet34"
    ):
        begun(3, network_name="resnet34", network_settings={"weights": "sky"})
    with pytest.raises(AstromorphError, match="torchvision has no weights for amm"):
        begun(network_name="amm", network_settings={"weights": "torchvision"})


def test_a_changed_file_of_the_package_is_refused(tmp_path, monkeypatch):
    """It would give other results under the same name."""
    (tmp_path / "amm.pt").write_bytes(sky_file("amm").read_bytes() + b" ")
    monkeypatch.setattr(
        initial_weights, "sky_file", lambda name: tmp_path / f"{name}.pt"
    )
    with pytest.raises(AstromorphError, match="install astromorph again"):
        begun(network_name="amm")


def test_torchvisions_own_weights_are_taken_where_they_lie(tmp_path, monkeypatch):
    """From torch's folder of downloads; else the file that is missing is named."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    values = {"network_settings": {"weights": "torchvision"}}

    def refuse(*arguments, **options):
        raise OSError("no network")

    monkeypatch.setattr("torch.hub.download_url_to_file", refuse)
    with pytest.raises(AstromorphError, match=r"put the file resnet18-\w+\.pth into"):
        begun(3, **values)
    from torchvision.models import ResNet18_Weights

    name = ResNet18_Weights.DEFAULT.url.rpartition("/")[2]
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True, exist_ok=True)
    bare = resnet18(weights=None)
    torch.save(bare.state_dict(), folder / name)
    model, _ = begun(3, **values)
    assert torch.equal(model.encoder.body.conv1.weight, bare.conv1.weight)


def test_the_start_of_a_model_is_found_again():
    """What evaluate compares with; none where it was random."""
    for weights, source in (("random", None), (None, "sky")):
        values = {"network_name": "amm", "network_settings": {"weights": weights}}
        settings = parse(values, "test")
        state = seeded_byol(settings, 1).state_dict()
        found = start_network(
            ModelFile(state, part_of(settings, "train"), 1, "{}", "0")
        )
        assert (found and found[0]) == source
    model, _ = begun(network_name="amm")
    for a, b in zip(found[1].parameters(), model.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    "name",
    ["resnet34", "efficientnet_b0", "mobilenet_v3_small", "squeezenet1_1",
     "densenet121", "convnext_tiny", "googlenet", "vgg11", "swin_t", "alexnet"],
)  # fmt: skip
def test_networks_of_torchvision_give_features(name):
    """For one channel and for three, of images of 64 pixels and others."""
    assert name in TORCHVISION
    network = build_network(name, NetworkSettings(), 2).eval()
    with torch.no_grad():
        features = network(torch.rand(2, 2, 64, 64))
        assert features.shape == (2, network.features)
        assert network(torch.rand(1, 2, 80, 96)).shape == (1, network.features)


def test_the_small_stem_keeps_more_of_the_image():
    """Half of the side before the first block in place of a quarter."""
    sides = {}
    for stem in ("standard", "small"):
        rules = NetworkSettings(stem=stem, last_layer="layer1")
        network = build_network("n_layer_resnet", rules, 2)
        sides[stem] = network.body(torch.rand(1, 2, 32, 32)).shape[-1]
    assert sides == {"standard": 8, "small": 16}
    with pytest.raises(ValueError, match="stem: found 'big'; allowed are standard"):
        build_network("n_layer_resnet", rules.model_copy(update={"stem": "big"}), 1)
