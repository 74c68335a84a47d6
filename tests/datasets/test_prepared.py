"""The workflow's images, start weights and auxiliary task, used from Python."""

import json

import numpy as np
import pytest
import torch

from astromorph import (
    BYOL,
    AstroMorphologyModel,
    ByolTrainer,
    NLayerResnet,
    Settings,
    auxiliary_task_for,
    embed_images,
    load_model,
    prepared_images,
    start_from_sky,
)
from astromorph.artefacts.embeddings import read_embeddings
from astromorph.artefacts.model_file import save_model
from astromorph.artefacts.run_files import RunFiles
from astromorph.artefacts.tensor_shard import read_shard
from astromorph.byol.build import build_byol, make_model_file, seeded_byol
from astromorph.byol.start_weights import load_start_weights
from astromorph.embedding.infer import infer
from astromorph.errors import AstromorphError
from astromorph.filelist.shards import Shard
from astromorph.preprocessing.preprocess import preprocess
from astromorph.settings.loading import parse
from astromorph.settings.steps import train_step_settings
from astromorph.sky.simulate import simulate


@pytest.fixture(scope="module")
def datafile(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sky")
    listed = simulate(folder, number=8, seed=3)
    (folder / "sky_000002.fits").write_bytes(b"no image")
    with open(listed, "a") as file:
        file.write("missing.fits,none\n")
    return listed


@pytest.mark.parametrize(
    "rules",
    [
        {},
        {"size": 40, "dtype": "float32", "crop": "source"},
        {"size": "native"},
        {"stretch_scope": "dataset", "interval": "percentile"},
    ],
    ids=["defaults", "cropped", "native", "one scale"],
)
def test_prepared_images_equal_those_of_a_shard(rules, datafile, tmp_path):
    """Pixels, rows and statistics equal those that `preprocess` writes."""
    values = {"preprocess_settings": rules}
    found = prepared_images(datafile, values)
    settings = parse(values, "test")
    files, rows = RunFiles(tmp_path), Shard("00000", 0, 9)
    data, preprocessing = settings.data_settings, settings.preprocess_settings
    preprocess(datafile, rows, files, data, preprocessing)
    shard = read_shard(files.tensors("00000"))
    for ours, theirs in zip(found.images, shard.image_list(), strict=True):
        assert ours.dtype == torch.float32
        assert torch.equal(ours, theirs.float())
    assert found.rows.tolist() == shard.rows.tolist() == [0, 1, 3, 4, 5, 6, 7]
    assert tuple(found.image_ids) == shard.image_ids
    assert found.tensor_settings == shard.settings
    for name, column in shard.statistics.items():
        assert torch.equal(found.statistics[name], column), name
    assert isinstance(found.images, list) == (rules.get("size") == "native")


def test_bad_files_are_rows_with_reasons(datafile):
    """As in the tables of the workflow, without an exception."""
    found = prepared_images(datafile)
    assert found.reasons.keys() == {2, 8}
    assert found.reasons[8] == "there is no such file"
    assert len(found.entries) == 9
    assert len(found.column("label")) == len(found.paths) == len(found) == 7
    assert found.column("label")[2] == found.entries[3].columns["label"]
    assert found.column("nothing") == [""] * 7


def test_files_without_a_list(datafile):
    """Pixels are the same; several files are the channels of one image."""
    listed = prepared_images(datafile)
    files = [listed.paths[0], listed.paths[1]]
    assert torch.equal(prepared_images(files).images, listed.images[:2])
    stacked = prepared_images(files, {"data_settings": {"stacksize": 3}})
    assert torch.equal(stacked.images, listed.images[:2].repeat(1, 3, 1, 1))
    both = prepared_images([(files[0], files[0]), (files[0], files[0])])
    assert both.images.shape == (2, 2, 64, 64)
    assert len(set(both.image_ids)) == 2


def test_a_list_without_usable_files_gives_no_images(tmp_path):
    """N is 0 and the shapes are consistent; an empty list is an error."""
    found = prepared_images([tmp_path / "a.fits"], Settings())
    assert found.images.shape == (0, 1, 64, 64)
    assert found.statistics["noise"].shape == (0,)
    with pytest.raises(AstromorphError, match="at least 1 is needed"):
        auxiliary_task_for(found, BYOL(AstroMorphologyModel(1)))
    with pytest.raises(AstromorphError, match="found no file to read"):
        prepared_images([])
    with pytest.raises(
        AstromorphError, match=r"did you mean `preprocess_settings\.size"
    ):
        prepared_images(["a.fits"], {"preprocess_settings": {"sizes": 3}})


@pytest.mark.parametrize("name", ["n_layer_resnet", "amm"])
def test_start_weights_equal_those_of_the_workflow(name):
    """Online and target network have the initial weights of `train`."""
    values = {
        "network_name": name,
        "network_settings": {"channels": "joint"},
        "byol_settings": {"representation_size": 32},
    }
    settings = train_step_settings(parse(values, "test"))
    theirs, ours = seeded_byol(settings, 2), seeded_byol(settings, 2)
    load_start_weights(theirs, settings)
    start_from_sky(ours)
    for one, other in zip(
        theirs.state_dict().values(), ours.state_dict().values(), strict=True
    ):
        assert torch.equal(one, other)
    network = NLayerResnet(2, "layer3") if name != "amm" else AstroMorphologyModel(2)
    start_from_sky(network)
    for key, value in network.state_dict().items():
        assert torch.equal(value, theirs.encoder[0].state_dict()[key]), key


def test_start_weights_for_other_networks_are_refused():
    """The message names the networks that have start weights."""
    with pytest.raises(AstromorphError, match=r"found Linear; .* NLayerResnet and Ast"):
        start_from_sky(torch.nn.Linear(2, 2))
    network = NLayerResnet(1, "layer2")
    network.body.conv1 = torch.nn.Conv2d(1, 64, kernel_size=3)
    with pytest.raises(AstromorphError, match="belong to another network"):
        start_from_sky(network)


def test_an_auxiliary_task_is_used_from_python(datafile):
    """Only the seed determines its images and the weights of its head."""
    images = prepared_images(datafile, {"data_settings": {"stacksize": 3}})
    byol = BYOL(AstroMorphologyModel(3), representation_size=16)
    task = auxiliary_task_for(images, byol, number=20, seed=4)
    again = auxiliary_task_for(images, byol, number=20, seed=4)
    assert torch.equal(task.images.images, again.images.images)
    assert torch.equal(task.head.weight, again.head.weight)
    assert task.images[0].shape == (3, 64, 64)
    trainer = ByolTrainer(byol, auxiliary_task=task, device="cpu")
    history = trainer.train_model(images, epochs=1, batch_size=4)
    assert history[0].auxiliary_loss > 0
    with pytest.raises(AstromorphError, match="number: found 0; give 1 or more"):
        auxiliary_task_for(images, byol, number=0)


def test_the_workflow_can_use_a_network_trained_in_python(datafile, tmp_path):
    """`infer` reads its model file; embeddings are the same."""
    settings = parse({"network_name": "amm"}, "test")
    images = prepared_images(datafile)
    rules = train_step_settings(settings)
    byol = build_byol(rules, in_channels=1)
    ByolTrainer(byol, device="cpu").train_model(images, epochs=1, batch_size=4)
    file = tmp_path / "mine.pt"
    files = RunFiles.of_run(tmp_path, shards=1, named_model=file)
    rows = Shard("00000", 0, 9)
    save_model(
        file,
        make_model_file(byol, rules, 1, images.tensor_settings, images.image_ids),
    )
    data, preprocessing = settings.data_settings, settings.preprocess_settings
    preprocess(datafile, rows, files, data, preprocessing)
    infer(files, "00000", settings.inference_settings)
    theirs = read_embeddings(files.embeddings("00000"))
    network, made = load_model(file)
    assert not network.training
    assert json.loads(made.tensor_settings) == json.loads(images.tensor_settings)
    np.testing.assert_allclose(
        embed_images(network, images), theirs.vectors, rtol=1e-4, atol=1e-6
    )
    assert tuple(images.image_ids) == tuple(theirs.image_ids)


def test_embeddings_are_averages_over_flips_and_rotations():
    """A rotated image has the same embedding, unless `symmetry` is none."""
    images = torch.rand(3, 1, 32, 32)
    trainer = ByolTrainer(AstroMorphologyModel(1), device="cpu")
    trainer.byol.train()
    plain = embed_images(trainer, images, symmetry="none", batch_size=2)
    np.testing.assert_allclose(plain, trainer(images).numpy(), rtol=1e-4, atol=1e-6)
    both = [embed_images(trainer, i) for i in (images, images.rot90(1, (2, 3)))]
    np.testing.assert_allclose(*both, rtol=1e-4, atol=1e-5)
    assert np.abs(both[0] - plain).max() > 1e-3
    assert trainer.byol.training
    assert embed_images(trainer, []).shape == (0, 128)
    with pytest.raises(AstromorphError, match="found Linear; give a BYOL"):
        embed_images(torch.nn.Linear(2, 2), images)
    with pytest.raises(AstromorphError, match=r"inference_settings\.symmetry"):
        embed_images(trainer, images, symmetry="d8")
