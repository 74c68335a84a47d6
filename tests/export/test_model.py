"""The exported model: safetensors, ONNX, preparation and card."""

import importlib.metadata
import importlib.util
import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
import yaml
from finished_run import write_random_model
from safetensors import safe_open
from scipy.stats import binomtest

from astromorph.artefacts.embeddings import read_embeddings
from astromorph.artefacts.model_file import read_model_file, save_model
from astromorph.artefacts.records import UNKNOWN_INPUTS, write_record
from astromorph.artefacts.run_files import RunFiles
from astromorph.artefacts.tables import read_csv
from astromorph.artefacts.tensor_shard import read_shard
from astromorph.byol.build import load_model, make_model_file, seeded_byol
from astromorph.byol.start_weights import load_start_weights
from astromorph.catalogue.split import split
from astromorph.catalogue.validate import validate
from astromorph.cli import main as cli
from astromorph.cli.pipeline import files_of_run
from astromorph.datasets.tensor_datasets import CachedDataset
from astromorph.embedding.embed import dihedral_views, embed
from astromorph.embedding.infer import infer
from astromorph.errors import AstromorphError
from astromorph.export.model import model as model_module
from astromorph.export.model import onnx_file
from astromorph.export.model.card import measure_rows, program, wilson_interval
from astromorph.export.model.model import export_model
from astromorph.export.model.onnx_file import (
    Difference,
    PreparedImageEncoder,
    compare_onnx,
    run_onnx,
    save_onnx,
)
from astromorph.filelist.shards import Shard
from astromorph.preprocessing.preprocess import preprocess
from astromorph.settings.loading import parse
from astromorph.settings.sections import InferenceSettings
from astromorph.settings.steps import train_step_settings

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "docs" / "examples" / "embed_with_onnx.py"
FILES = {"README.md", "encoder.onnx", "encoder.safetensors", "preprocessing.json"}


@pytest.fixture(scope="module")
def run(sky, tmp_path_factory):
    """A run with one brightness scale, embedded by `amm` with its start weights."""
    settings = parse(
        {
            "network_name": "amm",
            "preprocess_settings": {"size": 32, "stretch_scope": "dataset"},
            "byol_settings": {"representation_size": 6},
        },
        "test",
    )
    files = RunFiles.of_run(tmp_path_factory.mktemp("run") / "results", shards=1)
    data, preprocessing = settings.data_settings, settings.preprocess_settings
    validate(sky, files, data, settings.validate_settings, preprocessing)
    preprocess(sky, Shard("00000", 0, 28), files, data, preprocessing)
    split(sky, files, settings.split_settings, settings.validate_settings, 0)
    training = train_step_settings(settings)
    byol = seeded_byol(training, 1)
    load_start_weights(byol, training)
    used = [r["image_id"] for r in read_csv(files.split) if r["subset"] == "train"]
    prepared = read_shard(files.tensors("00000")).settings
    save_model(files.own_model, make_model_file(byol, training, 1, prepared, used))
    infer(files, "00000", settings.inference_settings)
    return files


@pytest.fixture
def without_onnx(monkeypatch):
    """Write an empty graph, since tracing a network takes seconds."""

    def save_empty(path, *arguments):
        path.write_bytes(b"")
        return True, 1e-7

    monkeypatch.setattr(model_module, "save_onnx", save_empty)
    monkeypatch.setattr(
        model_module, "compare_onnx", lambda *arguments: Difference(1e-7, 1.0)
    )


def write_model(path, values, channels=1):
    """A model file with random weights, whose images are prepared with `values`."""
    settings = parse(values, "test")
    write_random_model(path, settings, channels)
    kept = {"preprocess_settings": values.get("preprocess_settings", {})}
    model = read_model_file(path)
    save_model(path, replace(model, tensor_settings=json.dumps(kept)))
    return path


def exported_card(files, output, **options):
    export_model(files, output, **options)
    return (output / "README.md").read_text()


def make_current(files, step, outputs, finished, monkeypatch):
    """Write the record of a step that finished at a time in seconds."""
    monkeypatch.setenv("SOURCE_DATE_EPOCH", str(finished))
    write_record(files, step, step, UNKNOWN_INPUTS, outputs)


@pytest.mark.slow
def test_a_run_is_exported_and_embeds_fits_files_without_torch(run, sky, tmp_path):
    """The program of the guide and of the card agrees with the table of the run."""
    results = str(run.results)
    cli.main(["export", "model", "--results", results, "--output", f"{tmp_path}/m"])
    assert {path.name for path in (tmp_path / "m").iterdir()} == FILES
    images = sorted(sky.parent.glob("*.fits"))[:3]
    card = (tmp_path / "m" / "README.md").read_text()
    assert EXAMPLE.read_text().rstrip() == program()
    assert f"```python\n{program()}\n```" in card
    (code,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    blocked = "import sys\nsys.modules['torch'] = None\n" + code
    arguments = [sys.executable, "-c", blocked, str(tmp_path / "m"), *map(str, images)]
    done = subprocess.run(arguments, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "3 embeddings of length 6\n"
    assert done.stderr == ""
    vectors = np.loadtxt(tmp_path / "vectors.csv", delimiter=",")
    table = read_embeddings(run.embeddings("00000"))
    rows = {Path(row["path"]).name: row["image_id"] for row in read_csv(run.catalogue)}
    for vector, image in zip(vectors, images, strict=True):
        expected = table.vectors[table.image_ids.index(rows[image.name])]
        np.testing.assert_allclose(vector, expected, rtol=0, atol=1e-4)
        assert np.ptp(expected) > 0.01
    assert "from the embeddings of the run" in card
    assert "averaged over the 8 flips" in card
    cli.main(["export", "model", "--results", results, "--output", f"{tmp_path}/m"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("values", "channels", "symmetry"),
    [
        ({}, 1, "d4"),
        ({}, 2, "none"),
        ({"network_name": "amm"}, 3, "d4"),
        ({"network_name": "amm", "data_settings": {"stacksize": 3}}, 3, "none"),
        ({"network_name": "amm", "preprocess_settings": {"size": "native"}}, 1, "d4"),
    ],
    ids=["default", "two-channels", "amm", "stacksize", "native"],
)
def test_onnx_agrees_with_infer(tmp_path, values, channels, symmetry):
    """For any number and size of images, to 1e-4; without paths of this machine."""
    path = write_model(tmp_path / "model.pt", values, channels)
    files = RunFiles.of_run(tmp_path / "none", named_model=path)
    export_model(files, tmp_path / "m", has_run=False, symmetry=symmetry)
    graph = tmp_path / "m" / "encoder.onnx"
    byol, model = load_model(path)
    stacksize = values.get("data_settings", {}).get("stacksize", 1)
    rules = InferenceSettings(symmetry=symmetry)
    for shape in ((1, 64, 64), (5, 64, 64), (2, 48, 80), (3, 128, 32)):
        number, *sides = shape
        images = torch.rand(number, channels // stacksize, *sides)
        expected = embed(byol, CachedDataset(images, stacksize), rules)
        (found,) = run_onnx(graph, [images.numpy()])
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)
        assert np.ptp(expected, axis=0).max() > 1e-4 or number == 1
    content = graph.read_bytes()
    for text in (str(ROOT), "site-packages", sys.prefix, str(tmp_path)):
        assert text.encode() not in content
    metadata = {prop.key: prop.value for prop in onnx.load(graph).metadata_props}
    assert metadata["symmetry"] == symmetry
    assert parse(json.loads(metadata["settings"]), "x") == parse(model.settings, "x")
    assert metadata["license"].startswith("BSD-3-Clause")
    onnx.checker.check_model(str(graph), full_check=True)


class OfFixedSize(torch.nn.Sequential):
    """A network that only accepts images of 32 by 32 pixels."""

    def __init__(self):
        super().__init__(torch.nn.Flatten(), torch.nn.Linear(32 * 32, 4))


@pytest.mark.slow
def test_a_network_of_fixed_size_is_written_for_this_size(tmp_path):
    """Then only the number of images is variable; images of own sizes are an error."""
    encoder = PreparedImageEncoder(OfFixedSize().eval(), 1, "d4")
    path = tmp_path / "encoder.onnx"
    any_size, difference = save_onnx(path, encoder, 1, 32, 16, {})
    assert not any_size
    assert difference < 1e-5
    images = torch.rand(3, 1, 32, 32)
    (found,) = run_onnx(path, [images.numpy()])
    views = [encoder.encoder(view) for view in dihedral_views(images)]
    expected = torch.stack(views).mean(dim=0).detach()
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    with pytest.raises(AstromorphError, match="choose another `network_name`"):
        save_onnx(path, encoder, 1, "native", 16, {})


def test_safetensors_has_the_weights_and_their_description(run, tmp_path, without_onnx):
    """Under the names of the network; settings, format version, licence."""
    export_model(run, tmp_path / "m")
    byol, model = load_model(run.model)
    with safe_open(tmp_path / "m" / "encoder.safetensors", "pt") as file:
        metadata = file.metadata()
        state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    network, linear = byol.encoder
    for key, value in network.state_dict().items():
        assert torch.equal(state.pop(key), value)
    assert torch.equal(state.pop("representation.weight"), linear.weight)
    assert torch.equal(state.pop("representation.bias"), linear.bias)
    assert not state
    assert metadata["format"] == "astromorph-encoder"
    assert metadata["format_version"] == "1"
    assert metadata["license"].startswith("BSD-3-Clause")
    assert metadata["data_digest"] == model.data_digest
    assert json.loads(metadata["settings"])["byol_settings"]["representation_size"] == 6
    scale = json.loads(metadata["preprocessing"])["scale"]
    assert set(scale) == {"background", "noise", "low", "high"}
    assert (tmp_path / "m" / "encoder.safetensors").stat().st_mode & 0o044


def test_the_card_describes_data_training_and_files(run, tmp_path, without_onnx):
    """Numbers of images, digest, channels, preparation, start weights, versions."""
    card = exported_card(run, tmp_path / "m")
    head = yaml.safe_load(card.split("---")[1])
    assert head["license"] == "bsd-3-clause"
    subsets = [row["subset"] for row in read_csv(run.split)]
    model = read_model_file(run.model)
    for text in (
        f"Images: {subsets.count('train')} for training, {subsets.count('test')} to",
        f"training images: `{model.data_digest}`",
        "Channels of an image: 1",
        "resized to 32 by 32 pixels",
        "asinh(z / 3)",
        "The limits are the same for all images",
        "Start weights: `sky`",
        "vector of 6 numbers",
        "with a linear layer",
        "Epochs: 150\n",
        "maximum learning rate: 0.0003",
        "This folder was written without an evaluation",
        f"torch {importlib.metadata.version('torch')}",
        "arXiv:2006.07733",
    ):
        assert text in card, text
    for heading in (
        "# Model Card", "## Model Details", "### Model Description", "## Uses",
        "### Direct Use", "### Out-of-Scope Use", "## Bias, Risks, and Limitations",
        "## How to Get Started with the Model", "## Training Details",
        "### Training Data", "### Training Procedure", "#### Preprocessing",
        "#### Training Hyperparameters", "## Evaluation", "## Technical Specifications",
        "## Citation",
    ):  # fmt: skip
        assert re.search(rf"^{heading}\b", card, re.MULTILINE), heading
    preparation, training = re.findall(r"```json\n(.*?)```", card, re.DOTALL)
    assert json.loads(training)["network_name"] == "amm"
    written = json.loads((tmp_path / "m" / "preprocessing.json").read_text())
    assert json.loads(preparation) == written["settings"]
    assert not re.search(r"\n{3,}|[ \t]+$", card, re.MULTILINE)


EVALUATION = {
    "images": 28,
    "label": {"column": "a|b<c", "kind": "classes", "problem": ""},
    "verdict": {"sentence": "better than *x*"},
    "networks": {
        name: {
            "knn": {"mean": 0.5, "std": 0.1},
            "retrieval": {"rotated": 0.25},
            "effective_rank": 3.0,
            "spread": 0.5,
            "uniformity": -2.0,
            "nuisance": {"noise": 0.125},
        }
        for name in ("trained", "untrained", "pixels")
    },
}


def test_the_card_has_current_measures_with_intervals(
    run, tmp_path, without_onnx, monkeypatch, caplog
):
    """An evaluation that is older than the embeddings is left out."""
    shutil.copytree(run.results, tmp_path / "results")
    files = files_of_run(tmp_path / "results")
    files.evaluation.write_text(json.dumps(EVALUATION))
    assert "written without" in exported_card(files, tmp_path / "m")
    make_current(files, "infer", [files.embeddings("00000")], 100, monkeypatch)
    make_current(files, "evaluate", [files.evaluation], 99, monkeypatch)
    assert "written without" in exported_card(files, tmp_path / "m")
    assert "older than the embeddings" in caplog.text
    make_current(files, "evaluate", [files.evaluation], 101, monkeypatch)
    card = exported_card(files, tmp_path / "m")
    assert "28 images of the training and the test set" in card
    assert "Labels: the column `a|b<c`" in card
    assert r"The trained network is better than \*x\*." in card
    rows = [
        "| | trained | untrained | pixels |",
        "|---|---|---|---|",
        "| balanced accuracy, 10 nearest neighbours" + " | 0.500 ± 0.100" * 3 + " |",
        "| retrieval of rotated images (28)" + " | 0.25 (0.13 to 0.43)" * 3 + " |",
        "| effective rank (1: collapsed)" + " | 3.00" * 3 + " |",
    ]
    assert "\n".join(rows) in card
    assert "| largest correlation with noise | 0.12 |" in card


def test_regressions_have_two_measures():
    """Rank correlation and R², each with its standard deviation."""
    score = {"mean": 0.5, "std": 0.1, "r2_mean": 0.25, "r2_std": 0.05}
    trained = EVALUATION["networks"]["trained"] | {"regression": {"linear": score}}
    del trained["knn"]
    rows = {row.title: row.cells for row in measure_rows({"trained": trained}, 1000)}
    assert rows["rank correlation, linear model"] == ("0.500 ± 0.100",)
    assert rows["R², linear model"] == ("0.250 ± 0.050",)
    assert rows["retrieval of rotated images (256)"] == ("0.25 (0.20 to 0.31)",)


@pytest.mark.parametrize(("hits", "number"), [(0, 5), (5, 5), (7, 60), (200, 256)])
def test_intervals_are_those_of_scipy(hits, number):
    """The score interval of Wilson without continuity correction."""
    expected = binomtest(hits, number).proportion_ci(method="wilson")
    found = wilson_interval(hits / number, number)
    np.testing.assert_allclose(found, [expected.low, expected.high], atol=1e-6)


def test_text_of_settings_is_escaped_and_folders_are_left_out(tmp_path, without_onnx):
    """A name of weights with a folder, an HDU with Markdown, a block in JSON."""
    weights = str(tmp_path / "secret" / "`w`.pt")
    path = tmp_path / "model.pt"
    values = {"network_name": "amm", "network_settings": {"weights": weights}}
    write_random_model(path, parse(values, "test"))
    prepared = {"data_settings": {"hdu": "```<b>"}, "preprocess_settings": {}}
    model = replace(read_model_file(path), tensor_settings=json.dumps(prepared))
    save_model(path, model)
    files = RunFiles.of_run(tmp_path / "none", named_model=path)
    card = exported_card(files, tmp_path / "m", has_run=False)
    assert "the file `'w'.pt`" in card
    for file in (tmp_path / "m").iterdir():
        assert b"secret" not in file.read_bytes()
    assert "```<b>" not in card
    preparation, training = re.findall(r"```json\n(.*?)```", card, re.DOTALL)
    assert json.loads(preparation)["data_settings"]["hdu"] == "```<b>"
    assert json.loads(training)["network_settings"]["weights"] == "`w`.pt"
    assert "Epochs: chosen from the number of images" in card


def test_embeddings_of_a_run_that_differ_are_a_warning(
    run, tmp_path, without_onnx, monkeypatch, caplog
):
    """A GPU may have computed them; the card has the difference."""
    monkeypatch.setattr(model_module, "compare_onnx", lambda *_: Difference(0.03, 2.0))
    card = exported_card(run, tmp_path / "m")
    assert "differ by 3.0e-02 from those in" in caplog.text
    assert "and 3e-02 from the embeddings of the run\n" in card
    card = exported_card(run, tmp_path / "m", symmetry="none")
    assert "of the run\n" not in card
    assert "from a single pass" in card
    shutil.copytree(run.results, tmp_path / "results")
    files = files_of_run(tmp_path / "results")
    files.tensors("00000").unlink()
    card = exported_card(files, tmp_path / "m")
    assert "of the run\n" not in card
    assert "tensors or embeddings are missing" in caplog.text


def test_errors_come_before_anything_is_written(run, tmp_path, monkeypatch, caplog):
    """Missing packages, other files, no list, no output, another model."""
    output = tmp_path / "m"
    output.mkdir()
    (output / "notes.txt").write_text("mine")
    with pytest.raises(AstromorphError, match=r"other files, such as notes\.txt"):
        export_model(run, output)
    with pytest.raises(AstromorphError, match="is a file; name a folder"):
        export_model(run, output / "notes.txt")
    named = replace(run, named_model=run.own_model)
    with pytest.raises(AstromorphError, match="give the list with --datafile"):
        export_model(named, tmp_path / "new", has_run=False)
    with pytest.raises(SystemExit):
        cli.main(["export", "model", "-n", str(run.own_model)])
    assert "--output: name the folder" in caplog.text
    with pytest.raises(SystemExit):
        cli.main(["export", "model", "--results", str(tmp_path)])
    assert "model.pt: no such file; give the folder of a finished run" in caplog.text
    other = write_model(tmp_path / "other.pt", {"network_name": "amm"})
    with pytest.raises(AstromorphError, match="are not from this model"):
        export_model(replace(run, named_model=other), tmp_path / "new")
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda n: None if n == "onnx" else find(n)
    )
    with pytest.raises(AstromorphError, match=r"needs the packages onnx; install .*\["):
        export_model(run, tmp_path / "new")
    assert [path.name for path in output.iterdir()] == ["notes.txt"]
    assert not (tmp_path / "new").exists()


def small_encoder():
    layers = (torch.nn.Conv2d(1, 3, 3), torch.nn.AdaptiveAvgPool2d(1))
    network = torch.nn.Sequential(*layers, torch.nn.Flatten())
    return PreparedImageEncoder(network, 1, "none").eval()


@pytest.mark.slow
def test_a_graph_with_other_embeddings_is_not_written(tmp_path, monkeypatch):
    """Differences are relative to the largest value."""
    path, encoder = tmp_path / "encoder.onnx", small_encoder()
    save_onnx(path, encoder, 1, 16, 16, {})
    images = np.random.default_rng(0).random((2, 1, 16, 16), np.float32)
    (vectors,) = run_onnx(path, [images])
    largest = np.abs(vectors).max()
    small = compare_onnx(path, [(images, vectors + 5e-5 * largest)])
    assert small.is_small
    assert small.absolute == pytest.approx(5e-5 * largest, rel=0.01)
    for wrong in (vectors + 2e-4 * largest, vectors * np.float32("nan")):
        assert not compare_onnx(path, [(images, wrong)]).is_small
    graph = onnx.load(path)
    monkeypatch.setattr(onnx_file, "_trace", lambda *arguments: graph)
    with pytest.raises(AstromorphError, match=r"differ by .* from those of PyTorch"):
        save_onnx(path, small_encoder(), 1, 16, 16, {})
