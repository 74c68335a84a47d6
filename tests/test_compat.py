"""Code, settings files and commands of version 0.1 go on working."""

import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from astropy.io import fits
from torch import nn
from torch.utils.data import DataLoader, random_split
from torchvision import transforms
from torchvision.models import resnet18

import astromorph
from astromorph import (
    AstroMorphologyModel,
    ByolTrainer,
    FitsFilelistDataset,
    MinMaxNorm,
    moved,
)
from astromorph.byol.build import load_model
from astromorph.convert import convert
from astromorph.errors import AstromorphError
from astromorph.models.names import DEFAULT_MODELS, NLayerResnet

FILES = {
    "basic": """
        datafile = "data/inputfiles.txt"
        epochs = 1
        network_name = "n_layer_resnet"
        """,
    "layers": """
        datafile = "data/inputfiles.txt"
        epochs = 1
        network_name = "n_layer_resnet"
        [network_settings]
        last_layer = "layer2"
        """,
    "all": """
        datafile = "data/inputfiles.txt"
        epochs = 1
        network_name = "amm"
        learning_rate = 1e-4
        exponential_lr = true
        gamma = 0.9
        batch_size = 4
        core_limit = 2
        trained_network_name = "saved_models/newly_trained_network.pt"
        export_to_csv = true
        [data_settings]
        stacksize = 3
        [byol_settings]
        representation_size = 128
        projection_size = 16
        projection_hidden_size = 512
        use_momentum = true
        """,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """FITS files of two sizes, one of them constant, one with NaN, and a list."""
    made = tmp_path_factory.mktemp("old")
    (made / "data").mkdir()
    rng = np.random.default_rng(0)
    names = []
    for k in range(8):
        image = rng.normal(100, 5, (40, 40 + 8 * (k % 2))).astype(np.float32)
        image[15:25, 15:25] += 50 * k
        if k == 6:
            image[:] = 3
        if k == 7:
            image[:5] = np.nan
        header = fits.Header({"OBJECT": f"source {k}"} if k else {"OBJECT": " "})
        names.append(f"data/{k}.fits")
        fits.writeto(made / names[-1], image, header)
    # As they were then, from the working folder.
    (made / "data" / "inputfiles.txt").write_text("".join(f"{n}\n" for n in names))
    for name, text in FILES.items():
        lines = [line.strip() for line in text.splitlines()]
        (made / f"{name}.toml").write_text("\n".join(lines))
    return made


@pytest.fixture
def here(folder, monkeypatch) -> Path:
    """The working folder is that of the files."""
    monkeypatch.chdir(folder)
    return folder


def test_files_are_a_dataset(here):
    """Four different copies, repeated channels, no NaN; names and keywords."""
    data = FitsFilelistDataset("data/inputfiles.txt", stacksize=3)
    assert len(data) == 8
    assert data.filenames == [f"data/{k}.fits" for k in range(8)]
    for k in range(8):
        copies = data[k]
        assert copies.shape == (4, 3, 40, 40 + 8 * (k % 2))
        assert copies.isfinite().all()
    copies = data[3]
    for a in range(4):
        for b in range(a):
            assert not torch.equal(copies[a], copies[b])
    assert torch.equal(copies[0], data.get_all_items()[3][0])
    pixels = fits.getdata("data/3.fits").astype(np.float32)
    assert torch.equal(copies[0, 1], torch.from_numpy(pixels))
    objects = data.get_object_property("OBJECT")
    assert objects == ["N/A", *(f"source {k}" for k in range(1, 8))]
    assert data.get_object_property("OBSRA") == ["N/A"] * 8
    listed = FitsFilelistDataset(["data/0.fits", "data/5.fits"])
    assert listed[1].shape == (4, 1, 40, 48)
    with pytest.raises(IndexError):
        listed[2]


def loaders(stacksize: int = 1) -> list[DataLoader]:
    data = FitsFilelistDataset("data/inputfiles.txt", stacksize=stacksize)
    parts = random_split(data, [6, 2], torch.Generator().manual_seed(42))
    return [DataLoader(p, batch_size=1, shuffle=True) for p in parts]


def test_the_readme_s_example_runs(here):
    """Word for word, with loaders of its own dataset."""
    train_data, test_data = loaders()
    model = ByolTrainer(AstroMorphologyModel(), representation_size=128)
    model.train_model(train_data=train_data, test_data=test_data, epochs=2)
    assert len(model.history) == 2
    model.eval()
    for image in FitsFilelistDataset("data/inputfiles.txt").get_all_items():
        kept = image.clone()
        embedding = model(image)
        assert embedding.shape == (1, 128)
        assert embedding.isfinite().all()
        assert torch.equal(image, kept)


def test_all_options_of_the_trainer_are_understood(here, tmp_path):
    """As its pipeline called it; the model is in training mode after a test."""
    train_data, test_data = loaders(stacksize=3)
    augmentation = nn.Sequential(
        transforms.RandomApply([transforms.ColorJitter(0.8, 0.8, 0.8, 0.2)], p=0.3),
        transforms.RandomGrayscale(p=0.2),
        transforms.RandomHorizontalFlip(),
        transforms.RandomRotation(degrees=(0, 360)),
        transforms.RandomApply([transforms.GaussianBlur((3, 3), (1.0, 2.0))], p=0.2),
    )
    learner = ByolTrainer(
        network=DEFAULT_MODELS["n_layer_resnet"](**{"last_layer": "layer1"}),
        hidden_layer="avgpool",
        augmentation_function=augmentation,
        representation_size=64,
        projection_size=16,
        projection_hidden_size=512,
        use_momentum=True,
        device="cpu",
        optimizer=torch.optim.Adam,
        lr_scheduler=torch.optim.lr_scheduler.ExponentialLR,
        lr_scheduler_options={"gamma": 0.5},
        learning_rate=1e-4,
        normalization_function=MinMaxNorm(),
    )
    learner.train_model(
        train_data=train_data, test_data=test_data, epochs=2,
        log_dir=str(tmp_path / "runs"), save_file=str(tmp_path / "a.pt"), batch_size=4,
    )  # fmt: skip
    assert (tmp_path / "a.pt").exists()
    assert list((tmp_path / "runs").iterdir())
    loss = learner.test(test_data)
    assert 0 <= loss <= 8
    assert learner.byol.training
    assert [epoch.learning_rate for epoch in learner.history] == [1e-4, 5e-5]


def test_an_own_loop_runs(here):
    """`BYOL` with images in, a loss out, and the target moved after each step."""
    byol = astromorph.BYOL(
        NLayerResnet(last_layer="layer1"), representation_size=64,
        hidden_layer="avgpool", normalization_function=MinMaxNorm(),
        augmentation_function=transforms.RandomRotation((0, 360)),
        projection_size=8, projection_hidden_size=32, moving_average_decay=0.9,
    )  # fmt: skip
    optimizer = torch.optim.Adam(byol.parameters(), lr=1e-4)
    before = [p.clone() for p in byol.target.parameters()]
    for item in loaders(3)[0]:
        loss = byol(item[0], return_errors=True)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        byol.update_moving_average()
    after = list(byol.target.parameters())
    assert any(not torch.equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize(
    ("module", "name"),
    [("astromorph.byol.byol", "ByolTrainer"), ("astromorph.byol.byol", "MinMaxNorm"),
     ("astromorph.datasets.tensor_datasets", "FitsFilelistDataset"),
     ("astromorph.settings.sections", "TrainingSettings"),
     ("astromorph.settings.sections", "InferenceSettings")],
)  # fmt: skip
def test_names_that_moved_work_and_say_so_once(module, name):
    """A DeprecationWarning that names the new place."""
    home = sys.modules.get(module) or __import__(module, fromlist=[name])
    moved._TOLD.clear()
    with pytest.warns(DeprecationWarning, match=rf"{module}\.{name} is now astromorph"):
        found = getattr(home, name)
    assert found.__name__ == name
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert getattr(home, name) is found
    with pytest.raises(AttributeError, match="has no attribute 'Nothing'"):
        home.Nothing  # noqa: B018


def test_settings_have_their_old_fields(here):
    """Plain dictionaries, defaults as they were, files that must exist."""
    from astromorph.old_settings import InferenceSettings, TrainingSettings

    made = TrainingSettings(
        datafile="data/inputfiles.txt", network_name="amm",
        byol_settings={"representation_size": 128},
    )  # fmt: skip
    assert (made.epochs, made.learning_rate, made.batch_size) == (10, 5e-6, 16)
    ByolTrainer(
        DEFAULT_MODELS[made.network_name](**made.network_settings),
        learning_rate=made.learning_rate, **made.byol_settings,
    )  # fmt: skip
    with pytest.raises(ValueError, match="does not point to a file"):
        TrainingSettings(datafile="nothing.txt", network_name="amm")
    with pytest.raises(ValueError, match="does not point to a file"):
        InferenceSettings(datafile="data/inputfiles.txt", trained_network_name="no.pt")


@pytest.mark.parametrize("name", [*FILES])
def test_its_commands_run_its_settings_files(name, folder, tmp_path):
    """`training -c` makes a model, `inference -c -n` embeds with it."""
    command = [sys.executable, "-m", "astromorph"]
    # The simulated images would be most of the time here.
    text = (folder / f"{name}.toml").read_text()
    quick = tmp_path / "quick.toml"
    quick.write_text(f"{text}\n[training_settings]\nsimulated_images = 16\n"
                     "[preprocess_settings]\nsize = 32\n")  # fmt: skip
    options = {"cwd": folder, "capture_output": True, "text": True}
    done = subprocess.run([*command, "training", "-c", str(quick)], **options)
    assert done.returncode == 0, done.stderr
    assert "`astromorph training` is now `astromorph train`" in done.stderr
    done = subprocess.run(
        [*command, "inference", "-c", str(quick), "-n", "results/model/model.pt"],
        **options,
    )
    assert done.returncode == 0, done.stderr
    assert (folder / "results" / "export" / "embeddings.csv").exists()
    done = subprocess.run(
        [*command, "inference", "-c", str(quick), "-m", "mask.fits"], **options
    )
    assert done.returncode == 1
    assert "--maskfile mask.fits: masks are not used" in done.stderr


def old_state(last: int = 2) -> dict[str, torch.Tensor]:
    """What `ByolTrainer.state_dict` gave, around a ResNet-18 up to a layer."""
    torch.manual_seed(5)
    size = {1: 64, 2: 128}[last]
    state = {}
    for half in ("online", "target"):
        network = resnet18(weights=None)
        lost = [f"layer{k}" for k in range(last + 1, 5)] + ["fc"]
        for name, value in network.state_dict().items():
            if name.split(".")[0] not in lost:
                state[f"byol.{half}_encoder.network.{name}"] = value
        state[f"byol.{half}_encoder.network.fc.weight"] = torch.rand(64, size)
        state[f"byol.{half}_encoder.network.fc.bias"] = torch.rand(64)
        heads = nn.Sequential(
            nn.Linear(size, 40), nn.BatchNorm1d(40), nn.ReLU(), nn.Linear(40, 20)
        )
        for name, value in heads.state_dict().items():
            state[f"byol.{half}_encoder.projector.model.{name}"] = value
    predictor = nn.Sequential(
        nn.Linear(20, 40), nn.BatchNorm1d(40), nn.ReLU(), nn.Linear(40, 20)
    )
    for name, value in predictor.state_dict().items():
        state[f"byol.online_predictor.model.{name}"] = value
    return state


def test_weights_are_brought_over(tmp_path):
    """The model file gives the embeddings of the network that it was made of."""
    state = old_state()
    torch.save(state, tmp_path / "state.pt")
    convert(tmp_path / "state.pt", tmp_path / "model.pt")
    byol, made = load_model(tmp_path / "model.pt")
    assert made.in_channels == 3
    assert (byol.representation_size, byol.projection_size) == (128, 20)
    network = resnet18(weights=None).eval()
    prefix = "byol.online_encoder.network."
    own = {k.removeprefix(prefix): v for k, v in state.items() if prefix in k}
    own = {k: v for k, v in own.items() if not k.startswith("fc")}
    network.load_state_dict(own, strict=False)
    images = torch.rand(3, 3, 48, 48)
    with torch.no_grad():
        at = network.maxpool(network.relu(network.bn1(network.conv1(images))))
        expected = network.layer2(network.layer1(at)).mean(dim=(2, 3))
        torch.testing.assert_close(byol(images), expected)


def test_pickled_models_are_refused_with_a_way_out(tmp_path):
    """Neither converted nor used; the message says what to do."""
    torch.save(nn.Linear(2, 2), tmp_path / "old.pt")
    with pytest.raises(AstromorphError, match="astromorph convert --help"):
        load_model(tmp_path / "old.pt")
    with pytest.raises(AstromorphError, match="no plain file of tensors"):
        convert(tmp_path / "old.pt", tmp_path / "model.pt")
    torch.save({"a": torch.ones(2)}, tmp_path / "other.pt")
    with pytest.raises(AstromorphError, match="not those of a ByolTrainer around"):
        convert(tmp_path / "other.pt", tmp_path / "model.pt")
    state = old_state()
    del state["byol.online_predictor.model.0.bias"]
    torch.save(state, tmp_path / "half.pt")
    with pytest.raises(AstromorphError, match="do not make a whole model"):
        convert(tmp_path / "half.pt", tmp_path / "model.pt")
    assert not (tmp_path / "model.pt").exists()


def told(match: str):
    """A context in which an old name must say what it is now."""
    moved._TOLD.clear()
    return pytest.warns(DeprecationWarning, match=match)


@pytest.mark.slow
@pytest.mark.parametrize("module", moved.OLD_MODULES)
def test_modules_that_are_gone_can_be_imported(module):
    """Each name of each module is what it is now, and says where; as a program would.

    In a process of its own, so that nothing has been imported before.
    """
    names = ", ".join(moved.OLD_MODULES[module])
    program = f"""
import warnings
with warnings.catch_warnings(record=True) as seen:
    warnings.simplefilter("always")
    from {module} import {names}
    import {module} as old, {module}
    assert {module} is old
assert [w.category for w in seen] == [DeprecationWarning] * {len(names.split(", "))}
assert all("{module}." in str(w.message) for w in seen), [str(w.message) for w in seen]
try:
    old.Nothing
except AttributeError as error:
    assert "no attribute 'Nothing'" in str(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_its_small_parts_are_there():
    """`make_4D`, `augment_image` with four copies that are four, `BaseDataset`."""
    from astromorph.datasets.tensor_datasets import helpers

    with told(r"helpers\.augment_image is now astromorph\.old_parts"):
        augment_image = helpers.augment_image
    with told(r"helpers\.make_4D is now astromorph\.old_parts"):
        make_4D = helpers.make_4D
    image = torch.rand(5, 6)
    assert make_4D(image, stacksize=3).shape == (1, 3, 5, 6)
    copies = augment_image(image)
    assert copies.shape == (4, 1, 5, 6)
    assert len({tuple(copy.flatten().tolist()) for copy in copies}) == 4


def test_the_command_line_is_called_as_it_was(capsys):
    """`from astromorph import astromorph`."""
    with told("astromorph.astromorph is now astromorph.cli.main.main"):
        from astromorph import astromorph as command
    with pytest.raises(SystemExit):
        command(["--help"], prog_name="astromorph")
    assert "train" in capsys.readouterr().out


def test_arguments_stand_where_they_stood(here, tmp_path):
    """The fourth of `train_model` was a writer; writers are taken and not used."""
    images = torch.rand(6, 1, 32, 32)
    made = ByolTrainer(AstroMorphologyModel(), device="cpu")
    with told(r"`writer`, is now `batch_size`"):
        made.train_model(
            images, images, 1, None, str(tmp_path / "runs"), tmp_path / "a.pt"
        )
    assert (tmp_path / "a.pt").exists()
    assert list((tmp_path / "runs").iterdir())
    with told(r"train_model\(writer=\) is now `log_dir=`"):
        made.train_model(images, images, epochs=1, writer=None)
    with told(r"train_epoch\(summary_writer=\) is now `log_dir=`"):
        loss = made.train_epoch(images, batch_size=3, summary_writer=None)
    with told(r"the result's \.item\(\) is now the result itself"):
        assert loss.item() == loss
    with pytest.raises(TypeError, match="unexpected keyword argument 'write'"):
        made.train_model(images, images, epochs=1, write=None)


def test_views_may_come_as_tuples():
    """The first counts, in the trainer and in an own loop."""
    images = torch.rand(4, 1, 32, 32)
    made = ByolTrainer(
        AstroMorphologyModel(), device="cpu", augmentation_function=lambda x: (x, 1)
    )
    with told("a tuple from augmentation_function is now its first element alone"):
        made.train_model(images, epochs=1)
    with told("a tuple"):
        made.byol(images, return_errors=True)


def test_attributes_are_found_under_their_old_names():
    """The networks, what the trainer was made with, the device."""
    images = torch.rand(4, 1, 32, 32)
    made = ByolTrainer(AstroMorphologyModel(), device="cpu")
    byol = made.byol.eval()
    with told("BYOL.online_encoder is now BYOL.encoder and"):
        encoder = byol.online_encoder
    projection, embedding = encoder(images)
    assert torch.equal(embedding, byol.encoder(images))
    assert torch.equal(projection, byol.projector(embedding))
    assert torch.equal(encoder(images, return_projection=False), embedding)
    with told("BYOL.target_encoder is now BYOL.target"):
        assert torch.equal(byol.target_encoder(images)[0], byol.target(images))
    with told("BYOL.online_predictor is now BYOL.predictor"):
        assert byol.online_predictor is byol.predictor
    with told("ByolTrainer.augmentation_function is now ByolTrainer.augment"):
        assert made.augmentation_function is made.augment
    with told("ByolTrainer.normalization_function is now ByolTrainer.byol"):
        assert made.normalization_function is None
    with told("ByolTrainer.to_device is now the argument `device`"):
        made.to_device("cpu")
    with told("NLayerResnet.embedding_dim is now NLayerResnet.features"):
        assert NLayerResnet("layer2").embedding_dim == 128
    with told("FileSettings is now astromorph.old_settings.FileSettings"):
        assert astromorph.settings.sections.FileSettings.__name__ == "FileSettings"


def test_a_subclass_sets_its_defaults():
    """`DEFAULT_OPTIMIZER` and `DEFAULT_AUGMENTATION_FUNCTION`, as they were."""
    seen = []

    class Mine(ByolTrainer):
        """With another optimizer and other views."""

        DEFAULT_OPTIMIZER = torch.optim.SGD

        def DEFAULT_AUGMENTATION_FUNCTION(images):
            seen.append(len(images))
            return images

    made = Mine(AstroMorphologyModel(), device="cpu")
    made.train_model(torch.rand(4, 1, 32, 32), epochs=1)
    assert isinstance(made.optimizer, torch.optim.SGD)
    assert seen


def test_layers_are_found_under_their_old_names():
    """Those of both networks that had a name; a keyword that did nothing is told."""
    images = torch.rand(2, 3, 64, 64)
    network = NLayerResnet("layer3")
    with told("the layer layer2 of NLayerResnet is now body.layer2"):
        byol = astromorph.BYOL(network, hidden_layer="layer2")
    found = byol.eval()(images)
    torch.testing.assert_close(found, network.body[:6](images).flatten(1))
    with told(r"AstroMorphologyModel\.__init__\(last_layer=\) is now nothing"):
        light = DEFAULT_MODELS["amm"](last_layer="layer1")
    with told("the layer layer1 of AstroMorphologyModel is now body.3"):
        astromorph.BYOL(light, hidden_layer="layer1")
    with pytest.raises(TypeError, match="unexpected keyword"):
        AstroMorphologyModel(last_layr="layer1")


def test_pixels_of_a_file_are_read_as_they_were(here):
    """`read_fits_data`: one plane, float32."""
    data = FitsFilelistDataset(["data/3.fits"])
    with told("FitsFilelistDataset.read_fits_data is now"):
        pixels = data.read_fits_data("data/3.fits")
    assert torch.equal(pixels, data[0][0, 0])


def test_trouble_with_its_files_is_named():
    """Unknown settings, files that are not there, what is no index."""
    with pytest.raises(
        AstromorphError, match=r"FitsFilelistDataset: `data_settings.siz"
    ):
        FitsFilelistDataset(["a.fits"], size=32)
    data = FitsFilelistDataset(["none.fits"])
    for use in (lambda: data[0], lambda: data.get_object_property("OBJECT")):
        with pytest.raises(AstromorphError, match=r"none\.fits: .*no such file"):
            use()
    with pytest.raises(
        TypeError, match=r"found the index slice\(0, 3, None\); allowed"
    ):
        data[0:3]


def test_the_old_command_holds_a_fifth_out(folder, tmp_path):
    """As it did; a file that says more about the split is obeyed."""
    from argparse import Namespace

    from astromorph.cli.commands import _old_defaults

    options = Namespace(config_file=str(folder / "basic.toml"))
    assert _old_defaults(options) == {"split_settings": {"test_fraction": 0.2}}
    own = tmp_path / "own.toml"
    own.write_text("[split_settings]\ntest_fraction = 0.3\n")
    assert _old_defaults(Namespace(config_file=str(own))) == {}
