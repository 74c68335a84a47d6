"""Programs, settings files and commands of version 0.1, as its guide documents them.

The user guide and the README of that version show these forms; nothing else of it is
kept.
"""

import argparse
import json
import re
from pathlib import Path

import command_line
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
    BYOL,
    AstroMorphologyModel,
    ByolTrainer,
    FilelistDataset,
    FitsFilelistDataset,
    MinMaxNorm,
    NLayerResnet,
)
from astromorph.byol.build import load_model
from astromorph.cli.main import parser
from astromorph.compat import convert, infer_arguments, train_arguments
from astromorph.errors import AstromorphError
from astromorph.settings.loading import load, parse

PACKAGE = Path(astromorph.__file__).parent
SETTINGS_FILES = {
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
    """FITS files of two sizes, one of them constant, one with NaN, and a file list."""
    folder = tmp_path_factory.mktemp("old")
    (folder / "data").mkdir()
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
        fits.writeto(folder / names[-1], image, header)
    # Paths relative to the working directory, not to the folder of the list.
    (folder / "data" / "inputfiles.txt").write_text("".join(f"{n}\n" for n in names))
    for name, text in SETTINGS_FILES.items():
        lines = [line.strip() for line in text.splitlines()]
        (folder / f"{name}.toml").write_text("\n".join(lines))
    return folder


@pytest.fixture
def working_folder(folder, monkeypatch) -> Path:
    """The folder, as the working directory."""
    monkeypatch.chdir(folder)
    return folder


def test_a_file_list_is_a_dataset(working_folder):
    """Each image has four different copies, finite pixels, a file name and keywords."""
    assert FilelistDataset is FitsFilelistDataset
    data = FilelistDataset("data/inputfiles.txt", stacksize=3)
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
    data = FilelistDataset("data/inputfiles.txt", stacksize=stacksize)
    parts = random_split(data, [6, 2], torch.Generator().manual_seed(42))
    return [DataLoader(p, batch_size=1, shuffle=True) for p in parts]


def test_the_example_of_the_readme_runs(working_folder):
    """It runs unchanged, with loaders of `FilelistDataset`."""
    train_data, test_data = loaders()
    model = ByolTrainer(AstroMorphologyModel(), representation_size=128)
    model.train_model(train_data=train_data, test_data=test_data, epochs=2)
    assert len(model.history) == 2
    model.eval()
    for image in FilelistDataset("data/inputfiles.txt").get_all_items():
        copy = image.clone()
        embedding = model(image)
        assert embedding.shape == (1, 128)
        assert embedding.isfinite().all()
        assert torch.equal(image, copy)


def test_the_trainer_accepts_all_documented_options(working_folder, tmp_path):
    """Network, augmentation, optimizer, scheduler, normalisation, log, model file."""
    train_data, test_data = loaders(stacksize=3)
    augmentation = nn.Sequential(
        transforms.RandomApply([transforms.ColorJitter(0.8, 0.8, 0.8, 0.2)], p=0.3),
        transforms.RandomGrayscale(p=0.2),
        transforms.RandomHorizontalFlip(),
        transforms.RandomRotation(degrees=(0, 360)),
        transforms.RandomApply([transforms.GaussianBlur((3, 3), (1.0, 2.0))], p=0.2),
    )
    trainer = ByolTrainer(
        network=NLayerResnet(last_layer="layer1"),
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
    trainer.train_model(
        train_data=train_data, test_data=test_data, epochs=2,
        log_dir=str(tmp_path / "runs"), save_file=str(tmp_path / "a.pt"), batch_size=4,
    )  # fmt: skip
    assert (tmp_path / "a.pt").exists()
    assert list((tmp_path / "runs").iterdir())
    assert isinstance(trainer.optimizer, torch.optim.Adam)
    assert 0 <= trainer.test(test_data) <= 8
    assert [epoch.learning_rate for epoch in trainer.history] == [1e-4, 5e-5]


def test_a_custom_training_loop_runs(working_folder):
    """`BYOL` returns the loss of images and updates its target after each step."""
    byol = BYOL(
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


@pytest.mark.parametrize("name", [*SETTINGS_FILES])
def test_settings_files_of_the_guide_are_read(name, folder):
    """Each key in the guide is a setting and gets the given value."""
    values = load(folder / f"{name}.toml")
    parsed = parse(values, name).model_dump()
    for key, value in values.items():
        if isinstance(value, dict):
            assert parsed[key].items() >= value.items()
        else:
            assert parsed[key] == value


@pytest.mark.slow
def test_commands_of_the_guide_run_with_its_settings_file(folder, tmp_path):
    """`training -c` trains a model, `inference -c -n` embeds with it."""
    # The simulated images and UMAP would take most of the time.
    text = (folder / "all.toml").read_text()
    quick = tmp_path / "quick.toml"
    quick.write_text(f"{text}\n[training_settings]\nsimulated_images = 16\n"
                     "[preprocess_settings]\nsize = 32\n"
                     '[analysis_settings]\nmap = "pca"\n')  # fmt: skip
    done = command_line.run(["training", "-c", str(quick)], folder)
    assert done.returncode == 0, done.stderr
    assert "`astromorph training` is now `astromorph train`" in done.stderr
    model = "results/model/model.pt"
    done = command_line.run(["inference", "-c", str(quick), "-n", model], folder)
    assert done.returncode == 0, done.stderr
    assert (folder / "results" / "export" / "embeddings.csv").exists()


def test_training_becomes_train(working_folder):
    """The test fraction is 0.2; the model of the settings file is not overwritten."""
    arguments = train_arguments(argparse.Namespace(configfile="all.toml"))
    options = parser().parse_args(arguments)
    assert (options.config_file, options.datafile) == (
        "all.toml", "results/filelist.txt",
    )  # fmt: skip
    settings = parse({**load("all.toml"), **json.loads(options.settings)}, "x")
    assert settings.trained_network_name is None
    assert settings.split_settings.test_fraction == 0.2
    lines = Path("results/filelist.txt").read_text().splitlines()
    assert lines == [str(working_folder / "data" / f"{k}.fits") for k in range(8)]


def test_inference_becomes_infer(working_folder):
    """Each option is translated, and `split_settings` of a settings file are kept."""
    options = parser().parse_args(
        infer_arguments(
            parser().parse_args(
                ["inference", "-n", "a.pt", "-d", "data/inputfiles.txt"]
            )
        )
    )
    assert (options.config_file, options.trained_network_name) == (None, "a.pt")
    assert options.datafile == "results/filelist.txt"
    Path("own.toml").write_text("[split_settings]\ntest_fraction = 0.3\n")
    namespace = parser().parse_args(["inference", "-c", "own.toml"])
    options = parser().parse_args(infer_arguments(namespace))
    assert (options.settings, options.datafile) == ("{}", None)
    namespace = parser().parse_args(["inference", "-c", "own.toml", "-m", "mask.fits"])
    with pytest.raises(AstromorphError, match=r"--maskfile mask\.fits: masks are not"):
        infer_arguments(namespace)


def old_state(last: int = 2) -> dict[str, torch.Tensor]:
    """The `state_dict` of a `ByolTrainer` around ResNet-18 up to a layer."""
    torch.manual_seed(5)
    size = {1: 64, 2: 128}[last]
    state = {}
    for half in ("online", "target"):
        network = resnet18(weights=None)
        unused = [f"layer{k}" for k in range(last + 1, 5)] + ["fc"]
        for name, value in network.state_dict().items():
            if name.split(".")[0] not in unused:
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


def test_weights_are_converted(tmp_path):
    """The model file gives the embeddings of the original network."""
    state = old_state()
    torch.save(state, tmp_path / "state.pt")
    convert(tmp_path / "state.pt", tmp_path / "model.pt")
    byol, file = load_model(tmp_path / "model.pt")
    assert file.in_channels == 3
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


def test_pickled_models_are_refused_with_a_remedy(tmp_path):
    """They are neither converted nor used; the message says what to do."""
    torch.save(nn.Linear(2, 2), tmp_path / "old.pt")
    with pytest.raises(AstromorphError, match="astromorph convert --help"):
        load_model(tmp_path / "old.pt")
    with pytest.raises(AstromorphError, match="not a plain file of tensors"):
        convert(tmp_path / "old.pt", tmp_path / "model.pt")
    torch.save({"a": torch.ones(2)}, tmp_path / "other.pt")
    with pytest.raises(AstromorphError, match="not those of a ByolTrainer around"):
        convert(tmp_path / "other.pt", tmp_path / "model.pt")
    state = old_state()
    del state["byol.online_predictor.model.0.bias"]
    torch.save(state, tmp_path / "half.pt")
    with pytest.raises(AstromorphError, match="not a complete model"):
        convert(tmp_path / "half.pt", tmp_path / "model.pt")
    del state["byol.online_encoder.projector.model.0.weight"]
    torch.save(state, tmp_path / "less.pt")
    with pytest.raises(AstromorphError, match="not those of a ByolTrainer around"):
        convert(tmp_path / "less.pt", tmp_path / "model.pt")
    assert not (tmp_path / "model.pt").exists()


@pytest.mark.slow
def test_errors_of_the_dataset_name_the_file_or_setting():
    """Covers unknown settings, missing files and invalid indices."""
    with pytest.raises(
        AstromorphError, match=r"FitsFilelistDataset: `data_settings.siz"
    ):
        FilelistDataset(["a.fits"], size=32)
    data = FilelistDataset(["none.fits"])
    for use in (lambda: data[0], lambda: data.get_object_property("OBJECT")):
        with pytest.raises(AstromorphError, match=r"none\.fits: .*no such file"):
            use()
    with pytest.raises(
        TypeError, match=r"found the index slice\(0, 3, None\); allowed"
    ):
        data[0:3]


def test_version_0_1_is_mentioned_in_one_module():
    """Only `compat.py` mentions it."""
    pattern = re.compile(r"version 0\.1|0\.1\.2|predecessor", re.IGNORECASE)
    mentions = {
        str(path.relative_to(PACKAGE))
        for path in PACKAGE.rglob("*.py")
        if pattern.search(path.read_text(encoding="utf-8"))
    }
    assert mentions == {"compat.py"}
    importers = {
        str(path.relative_to(PACKAGE))
        for path in PACKAGE.rglob("*.py")
        if re.search(r"\bcompat\b", path.read_text(encoding="utf-8"))
    }
    assert importers == {"__init__.py", "cli/main.py"}
