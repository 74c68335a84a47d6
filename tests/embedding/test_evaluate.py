"""The step `evaluate`: the trained network compared with its references."""

import json

import numpy as np
import pytest
import torch
from torchvision.models import shufflenet_v2_x0_5

from astromorph.artefacts.embeddings import (
    Embeddings,
    read_embeddings,
    write_embeddings,
)
from astromorph.artefacts.model_file import ModelFile, save_model
from astromorph.artefacts.run_files import RunFiles
from astromorph.artefacts.tables import read_table, write_table
from astromorph.byol.build import initial_byol, load_model, seeded_byol
from astromorph.catalogue.split import split
from astromorph.embedding.evaluate import (
    SampledImage,
    _measure_without_labels,
    _problem_of_sample,
    evaluate,
)
from astromorph.embedding.infer import infer
from astromorph.embedding.metrics import make_perturbations
from astromorph.embedding.verdict import PIXELS, TRAINED, UNTRAINED
from astromorph.errors import AstromorphError
from astromorph.pages.html import with_code
from astromorph.settings.loading import parse
from astromorph.settings.sections import EvaluationSettings, InferenceSettings
from astromorph.settings.steps import train_step_settings

SETTINGS = {"network_name": "amm", "seed": 3}
INFERENCE = InferenceSettings()


@pytest.fixture(scope="module")
def files(prepared, sky, settings, tmp_path_factory):
    """A run with embeddings by a model with random weights."""
    files = RunFiles.of_run(tmp_path_factory.mktemp("evaluate"), shards=2)
    files.catalogue.symlink_to(prepared / "catalogue.csv")
    (files.results / "tensors").symlink_to(prepared)
    split(sky, files, settings.split_settings, settings.validate_settings, 0)
    training = train_step_settings(parse(SETTINGS, "test"))
    state = seeded_byol(training, 1).state_dict()
    model = ModelFile(state, training.to_dict(), 1, "{}", "0")
    save_model(files.own_model, model)
    for shard in files.shards:
        infer(files, shard, INFERENCE)
    return files


def run(files, **rules):
    """The results in `evaluation.json`, and the page."""
    evaluate(files, INFERENCE, EvaluationSettings(**rules))
    return json.loads(files.evaluation.read_text()), files.evaluation_page.read_text()


@pytest.mark.slow
def test_an_untrained_model_is_no_better_than_its_reference(files, caplog):
    """The reference has the same weights, so that all measures are equal."""
    result, page = run(files)
    trained, untrained = (result["networks"][name] for name in (TRAINED, UNTRAINED))
    for name in ("retrieval", "alignment"):
        assert trained[name] == pytest.approx(untrained[name], abs=1e-6)
    assert trained["effective_rank"] == pytest.approx(
        untrained["effective_rank"], rel=1e-3
    )
    assert not result["verdict"]["better"]
    assert result["verdict"]["outcome"] == "equal"
    expected = "not clearly different from the untrained network (+0.000"
    assert expected in result["verdict"]["sentence"]
    assert ": 28 images were compared; list more images" in caplog.text
    assert caplog.records[-1].levelname == "WARNING"
    assert result["verdict"]["sentence"].split("(")[0] in page
    assert result["images"] == 28


@pytest.mark.slow
def test_the_untrained_reference_has_the_initial_weights(files):
    """All weights are equal, whatever random numbers were drawn before."""
    torch.rand(5)
    byol, model = load_model(files.model)
    torch.rand(7)
    for trained, initial in zip(
        byol.parameters(), initial_byol(model).parameters(), strict=True
    ):
        assert torch.equal(trained, initial)


@pytest.mark.slow
def test_a_sample_is_reproducible_and_has_the_requested_size(files):
    """The images and measures are the same in every call."""
    first, _ = run(files, images=10)
    second, _ = run(files, images=10)
    assert first == second
    assert first["images"] == 10


@pytest.mark.slow
def test_small_classes_have_no_scores(files, tmp_path):
    """Seven kinds with four images each are too few for five folds.

    Another network is shown beside the others.
    """
    weights = tmp_path / "weights.pth"
    torch.save(shufflenet_v2_x0_5(weights=None).state_dict(), weights)
    photographs = {
        "name": "photographs <1>",
        "network": "shufflenet_v2_x0_5",
        "weights": str(weights),
    }
    result, page = run(files, references=[photographs])
    assert "none has at least 5 images" in result["label"]["problem"]
    assert "label more images of each class" in result["label"]["advice"]
    assert "Evaluated without labels: of 7 classes in the column <code>label" in page
    assert "knn" not in result["networks"][TRAINED]
    assert "With labels" not in page
    assert result["references"] == ["photographs <1>"]
    names = {TRAINED, "sky", UNTRAINED, PIXELS, "photographs <1>"}
    assert set(result["networks"]) == names
    assert set(result["verdict"]["differences"]) == names - {TRAINED}
    assert "the network photographs <1> (" in result["verdict"]["sentence"]
    assert "photographs" not in result["verdict"]["summary"]
    assert "weights that training started from (sky: " in result["verdict"]["sentence"]
    assert page.count("<tr><td>sky</td>") == 2, "differences, measures without labels"
    assert page.count("<tr><td>photographs &lt;1&gt;</td>") == 2
    score = result["verdict"]["scores"]["photographs <1>"]
    assert f'<td>photographs &lt;1&gt;</td><td class="number">{score:.3f}</td>' in page
    assert 'class="series-4"' in page
    assert page.count("<em>photographs &lt;1&gt;</em>") == 1


@pytest.mark.slow
def test_a_run_without_embeddings_is_an_error(files, tmp_path):
    """There is nothing to evaluate."""
    empty = RunFiles.of_run(tmp_path, shards=1, named_model=files.model)
    empty.catalogue.symlink_to(files.catalogue)
    empty.split.symlink_to(files.split)
    (tmp_path / "embeddings").mkdir()
    none = Embeddings((), np.empty((0, 4), np.float32))
    write_embeddings(empty.embeddings("00000"), none)
    with pytest.raises(AstromorphError, match="0 images have an embedding"):
        evaluate(empty, INFERENCE, EvaluationSettings())


def test_tensors_that_were_not_embedded_are_an_error(files, tmp_path):
    """For shards in another order, the message names their folder."""
    swapped = RunFiles.of_run(tmp_path, shards=2, named_model=files.model)
    swapped.catalogue.symlink_to(files.catalogue)
    swapped.split.symlink_to(files.split)
    (tmp_path / "embeddings").symlink_to(files.results / "embeddings")
    (tmp_path / "tensors").mkdir()
    swapped.tensors("00000").symlink_to(files.tensors("00001"))
    swapped.tensors("00001").symlink_to(files.tensors("00000"))
    with pytest.raises(AstromorphError, match=r"tensors: .* run `infer` again"):
        evaluate(swapped, INFERENCE, EvaluationSettings())


def relabelled(files, folder, cells, column="votes"):
    """The same run with another column in its list."""
    changed = RunFiles.of_run(folder, shards=2, named_model=files.model)
    for name in ("split.csv", "embeddings", "tensors"):
        (folder / name).symlink_to(files.results / name)
    table = read_table(files.catalogue)
    table[column] = [cells(k) for k in range(len(table))]
    write_table(changed.catalogue, table)
    return changed


@pytest.mark.slow
def test_numbers_are_evaluated_by_regression(files, tmp_path, caplog):
    """Those that follow from the images are predicted, and the verdict uses them."""
    caplog.set_level("INFO")
    first = dict(zip(*embedded(files), strict=True))
    ids = read_table(files.catalogue)["image_id"]
    changed = relabelled(files, tmp_path, lambda k: str(first.get(ids[k], "")))
    result, page = run(changed, label="votes")
    label = result["label"]
    assert (label["kind"], label["problem"], label["advice"]) == ("numbers", "", "")
    assert label["description"].startswith("the column `votes` has 28 numbers from")
    assert "the column `votes` has 28 numbers, so that the scores" in label["caution"]
    assert "Few labels: the column <code>votes</code> has 28 numbers" in page
    assert label["caution"] in caplog.text
    trained = result["networks"][TRAINED]["regression"]
    assert trained["linear"]["r2_mean"] > 0.5
    assert trained["linear"]["mean"] > 0.7
    assert result["verdict"]["measure"] == "numbers"
    assert "in rank correlation with `votes`" in caplog.text
    assert "With numbers as labels" in page and "ridge regression" in page
    assert "Confusion matrix" not in page


def embedded(files):
    """Ids of all images, and the first component of each embedding."""
    shards = [read_embeddings(path) for path in files.all_embeddings]
    return (
        [image_id for shard in shards for image_id in shard.image_ids],
        [float(x) for shard in shards for x in shard.vectors[:, 0]],
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("label", "expected"),
    [
        ("vote", "but the list has no such column; it has"),
        ("votes", "the column `votes` has one class, `spiral`"),
    ],
)
def test_labels_that_cannot_be_used_are_named(files, tmp_path, caplog, label, expected):
    """In the log and on the page."""
    changed = relabelled(files, tmp_path, lambda k: "spiral")
    result, page = run(changed, label=label, images=8)
    assert "the embedding is evaluated without labels" in caplog.text
    assert expected in result["label"]["problem"]
    assert expected in caplog.text and str(with_code(expected)) in page
    assert "knn" not in result["networks"][TRAINED]


@pytest.mark.parametrize(
    ("labels", "groups", "kind", "expected"),
    [
        ("abab" * 5, range(20), "classes", ""),
        ("abab" * 5, [k % 4 for k in range(20)], "classes", "no class has images of"),
        ("a" * 9 + "bb", range(11), "classes", "one class has images of at least 5 o"),
        ("12" * 15, range(30), "numbers", ""),
        ("1" * 30, range(30), "numbers", "all have the same number"),
        ("12" * 15, [0] * 30, "numbers", "those with a number show 1 object; 25 are"),
    ],
)
def test_labels_of_few_objects_are_a_problem(labels, groups, kind, expected):
    """Several images of one object are in the same fold and count once."""
    vector = np.zeros(2, np.float32)
    sample = [
        SampledImage(str(k), "00000", k, label, str(group), {}, vector)
        for k, (label, group) in enumerate(zip(labels, groups, strict=True))
    ]
    problem, advice = _problem_of_sample(sample, kind)
    assert problem.startswith(f"of the {len(sample)} images that" if expected else "")
    assert expected in problem
    assert bool(problem) == bool(advice) == bool(expected)


def test_perturbations_change_images_according_to_their_names():
    """The input does not change; noise is added at the level of each image."""
    images = torch.rand(4, 2, 32, 32, generator=torch.Generator().manual_seed(0)) / 2
    images[:, :, 12:18, 14:20] += 0.4
    original, noise = images.clone(), torch.tensor([0.0, 0.0, 0.1, 0.1])
    perturbed = {
        name: perturbation(images, torch.arange(4))
        for name, perturbation in make_perturbations(noise).items()
    }
    assert torch.equal(images, original)
    for name, changed in perturbed.items():
        assert changed.shape == images.shape
        assert 0 <= changed.min() <= changed.max() <= 1
        assert name == "noisier" or not torch.allclose(changed, images, atol=1e-3)
    torch.testing.assert_close(perturbed["noisier"][:2], images[:2])
    added = perturbed["noisier"][2:] - images[2:]
    assert added.std() == pytest.approx(0.1, rel=0.2)
    assert perturbed["blurred"].std() < images.std()
    torch.testing.assert_close(perturbed["flipped"].flip(3), images)
    contrast = perturbed["fainter"].std() / images.std()
    assert contrast == pytest.approx(0.5, abs=0.05)


def test_a_parameter_that_all_images_share_is_left_out():
    """A correlation of 0 with it would look like a measured one."""
    vectors = np.random.default_rng(1).normal(size=(30, 8)).astype(np.float32)
    vectors[:, 0] *= 9
    parameters = {"size in pixels": np.full(30, 4096.0), "noise": vectors[:, 0]}
    measures = _measure_without_labels(vectors, parameters)
    assert list(measures["nuisance"]) == ["noise"]
    assert measures["nuisance"]["noise"] > 0.9
