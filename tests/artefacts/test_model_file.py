"""A model file is read unchanged, or an error says what is wrong with it."""

import errno
import io
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from finished_run import write_random_model

from astromorph.artefacts import tensor_shard
from astromorph.artefacts.embeddings import read_embeddings
from astromorph.artefacts.model_file import MODEL_FORMAT, read_model_file, save_model
from astromorph.artefacts.run_files import RunFiles
from astromorph.artefacts.tensor_shard import load_values, save_values
from astromorph.byol.build import load_model
from astromorph.byol.start_weights import load_start_weights
from astromorph.embedding.infer import infer
from astromorph.errors import AstromorphError, WriteError
from astromorph.settings.loading import parse
from astromorph.settings.sections import InferenceSettings
from astromorph.settings.steps import train_step_settings

SETTINGS = {
    "network_name": "amm",
    "byol_settings": {"projection_size": 4, "projection_hidden_size": 4},
}


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """A model file with random weights."""
    path = tmp_path_factory.mktemp("model") / "model.pt"
    write_random_model(path, parse(SETTINGS, "test"))
    return path


@pytest.fixture
def changed(model, tmp_path):
    """A function that writes the model file with other entries."""

    def write(**entries) -> Path:
        values = load_values(model, MODEL_FORMAT, 1, "")
        torch.save(values | entries, tmp_path / "model.pt")
        return tmp_path / "model.pt"

    return write


def state_of(path: Path) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in read_model_file(path).state.items()}


def start_from(weights: Path, model: Path) -> None:
    """Load start weights from a file, as training does."""
    values = SETTINGS | {"network_settings": {"weights": str(weights)}}
    byol, _ = load_model(model)
    load_start_weights(byol, train_step_settings(parse(values, "test")))


def test_the_same_values_give_the_same_bytes(model, tmp_path):
    """The name of the file is not in it: a temporary one contains the process."""
    values = load_values(model, MODEL_FORMAT, 1, "")
    save_values(tmp_path / "another name.pt", values)
    assert (tmp_path / "another name.pt").read_bytes() == model.read_bytes()


def test_the_first_disk_error_is_raised(model, tmp_path, monkeypatch):
    """Torch would replace it by an error of its own at the next write."""
    values = load_values(model, MODEL_FORMAT, 1, "")
    written = []

    class FullDisk(io.BytesIO):
        def write(self, data):
            written.append(len(data))
            if len(written) == 3:
                raise OSError(errno.ENOSPC, "No space left on device")
            return len(data)

    monkeypatch.setattr(tensor_shard, "open", lambda *_: FullDisk(), raising=False)
    with pytest.raises(WriteError, match=r"m\.pt: the disk is full"):
        save_values(tmp_path / "m.pt", values)
    assert len(written) == 3
    assert not list(tmp_path.iterdir())


def test_changed_bytes_in_a_weight_are_detected(model, tmp_path):
    """Torch reads them without a complaint."""
    data = bytearray(model.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 64] = bytes(range(64))
    path = tmp_path / "model.pt"
    path.write_bytes(data)
    with pytest.raises(AstromorphError, match=r"model\.pt: this file is damaged"):
        load_model(path)
    with pytest.raises(AstromorphError, match=r"model\.pt: this file is damaged"):
        start_from(path, model)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_any_changed_byte_changes_nothing_or_is_an_error(model, tmp_path, seed):
    """Also in the directory of the file, its names, and the padding between weights."""
    rng = random.Random(seed)
    whole, path = model.read_bytes(), tmp_path / "model.pt"
    expected, outcomes = state_of(model), []
    # Half of the changes are in the directory at the end, which describes the parts.
    start = len(whole) - 8000
    for _ in range(150):
        data = bytearray(whole)
        for _ in range(rng.choice((1, 1, 4))):
            data[rng.randrange(rng.choice((0, start)), len(data))] = rng.randrange(256)
        path.write_bytes(data)
        try:
            state = state_of(path)
        except AstromorphError as error:
            assert str(path) in str(error)
            outcomes.append(False)
            continue
        assert list(state) == list(expected)
        assert all(torch.equal(state[name], value) for name, value in expected.items())
        outcomes.append(True)
    assert 0 < sum(outcomes) < len(outcomes)


@pytest.mark.parametrize("keep", [0, 1, 1000, 0.5, 0.999])
def test_a_truncated_model_is_an_error(model, tmp_path, keep):
    """Whatever part of it is missing."""
    data = model.read_bytes()
    number = int(keep * len(data)) if isinstance(keep, float) else keep
    (tmp_path / "model.pt").write_bytes(data[:number])
    with pytest.raises(AstromorphError, match=r"model\.pt"):
        load_model(tmp_path / "model.pt")


@pytest.mark.parametrize(
    "name",
    ["state", "settings", "in_channels", "tensor_settings", "data_digest", "versions"],
)
def test_a_missing_entry_and_one_of_another_type_are_named(model, changed, name):
    """They are errors of the file, not of the program."""
    values = load_values(model, MODEL_FORMAT, 1, "")
    others = [None, True, 1.5, -1, [], {1: 2}, {"x": None}, "x", torch.zeros(2)]
    for other in others:
        path = changed(**{name: other})
        if isinstance(other, str) and isinstance(values[name], str):
            continue  # allowed
        if name == "versions" and other == {"x": None}:
            load_model(path)  # it is only shown
            continue
        with pytest.raises(AstromorphError, match=r"model\.pt"):
            load_model(path)
    del values[name]
    torch.save(values, path)
    with pytest.raises(AstromorphError, match=f"entry `{name}` is missing"):
        load_model(path)


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(model, changed, number):
    """With the name of the weight, and the reason."""
    state = state_of(model)
    name = next(name for name, value in state.items() if value.is_floating_point())
    state[name].view(-1)[0] = number
    path = changed(state=state)
    bad = replace(read_model_file(model), state=state)
    with pytest.raises(AstromorphError, match=r"not written: .*`learning_rate`"):
        save_model(path.with_name("new.pt"), bad)
    with pytest.raises(AstromorphError, match=f"1 of .* values of its weight `{name}`"):
        load_model(path)
    with pytest.raises(AstromorphError, match="infinite or NaN"):
        start_from(path, model)


def test_a_weight_that_is_no_tensor_is_refused(model, changed):
    """Whatever it is."""
    state = state_of(model)
    name = next(iter(state))
    for other in (1, None, "x", [1.0]):
        with pytest.raises(AstromorphError, match=f"`{name}` is not a plain tensor"):
            load_model(changed(state=state | {name: other}))


def test_embeddings_that_are_not_finite_name_their_images(prepared, model, tmp_path):
    """Weights can be finite, but so large that embeddings overflow."""
    files = RunFiles.of_run(tmp_path, shards=2)
    (tmp_path / "tensors").symlink_to(prepared)
    values = load_values(model, MODEL_FORMAT, 1, "")
    state = {name: value.clone() for name, value in values["state"].items()}
    for name, value in state.items():
        if name.startswith("encoder") and value.ndim > 1:
            value.abs_().mul_(1e38)
    files.own_model.parent.mkdir()
    torch.save(values | {"state": state}, files.own_model)
    with pytest.raises(AstromorphError, match=r"16 of 16 embeddings .*images \w+, "):
        infer(files, files.shards[0], InferenceSettings(symmetry="none"))
    assert not files.embeddings(files.shards[0]).exists()
    torch.save(values, files.own_model)
    infer(files, files.shards[0], InferenceSettings(symmetry="none"))
    assert np.isfinite(read_embeddings(files.embeddings(files.shards[0])).vectors).all()
