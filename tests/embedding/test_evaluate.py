"""The step that says whether training was worth it."""

import json

import numpy as np
import pytest
import torch

from astromorph.artefacts.embeddings import Embeddings, write_embeddings
from astromorph.artefacts.model_file import ModelFile, save_model
from astromorph.byol.build import initial_byol, load_model, seeded_byol
from astromorph.catalogue.split import split
from astromorph.embedding.evaluate import (
    PIXELS,
    TRAINED,
    UNTRAINED,
    evaluate,
    give_verdict,
    perturbations,
)
from astromorph.embedding.infer import infer
from astromorph.errors import AstromorphError
from astromorph.settings.loading import parse
from astromorph.settings.steps import part_of

NETWORK = {"network_name": "amm", "seed": 3}


@pytest.fixture(scope="module")
def run(prepared, sky, settings, tmp_path_factory):
    """A model (that was not trained), its embeddings, and what evaluates them."""
    folder = tmp_path_factory.mktemp("evaluate")
    tensors = [prepared / f"0000{k}.pt" for k in range(2)]
    tables = [path.with_suffix(".csv") for path in tensors]
    split(settings, sky, tables, folder / "split.csv")
    chosen = parse(NETWORK, "test")
    byol = seeded_byol(chosen, 1)
    file = ModelFile(byol.state_dict(), part_of(chosen, "train"), 1, "{}", "0")
    save_model(folder / "model.pt", file)
    embeddings = []
    for path in tensors:
        embeddings.append(folder / f"{path.stem}.parquet")
        infer(chosen, folder / "model.pt", path, embeddings[-1])

    def go(**values):
        outputs = folder / "evaluation.json", folder / "evaluation.html"
        evaluate(
            parse(values, "test"), folder / "model.pt", tensors, embeddings,
            (prepared / "catalogue.csv", folder / "split.csv"), *outputs,
        )  # fmt: skip
        return json.loads(outputs[0].read_text()), outputs[1].read_text()

    go.folder, go.embeddings = folder, embeddings
    return go


@pytest.mark.slow
def test_a_model_that_was_not_trained_is_no_better_than_untrained(run, caplog):
    """The reference is the same initialisation: every measure is equal."""
    result, page = run()
    one, other = (result["networks"][name] for name in (TRAINED, UNTRAINED))
    for name in ("found_again", "alignment"):
        assert one[name] == pytest.approx(other[name], abs=1e-6)
    assert one["effective_rank"] == pytest.approx(other["effective_rank"], rel=1e-3)
    assert not result["verdict"]["better"]
    assert "no better than the untrained network" in result["verdict"]["sentence"]
    assert "train longer" in caplog.text
    assert caplog.records[-1].levelname == "WARNING"
    assert result["verdict"]["sentence"].split("(")[0] in page
    assert result["images"] == 28


@pytest.mark.slow
def test_the_untrained_reference_is_where_training_began(run):
    """Weight by weight, whatever was drawn before."""
    torch.rand(5)
    byol, made = load_model(run.folder / "model.pt")
    torch.rand(7)
    for one, other in zip(
        byol.parameters(), initial_byol(made).parameters(), strict=True
    ):
        assert torch.equal(one, other)


@pytest.mark.slow
def test_a_subset_is_always_the_same_and_of_the_size_asked_for(run):
    """By the ids, not by the order of the list."""
    first, _ = run(evaluation_settings={"images": 10})
    second, _ = run(evaluation_settings={"images": 10})
    assert first == second
    assert first["images"] == 10


@pytest.mark.slow
def test_labels_give_scores_where_there_are_enough(run, prepared, tmp_path):
    """Seven kinds of four images are too few for five folds: no scores."""
    result, page = run()
    assert "knn" not in result["networks"][TRAINED]
    assert "With labels" not in page
    assert set(result["networks"]) == {TRAINED, "sky", UNTRAINED, PIXELS}
    assert '<th class="number">sky</th>' in page


@pytest.mark.slow
def test_too_few_images_are_an_error(run, prepared, tmp_path):
    """Nothing embedded, nothing to evaluate."""
    empty = tmp_path / "a.parquet"
    write_embeddings(empty, Embeddings((), np.empty((0, 4), np.float32)))
    with pytest.raises(AstromorphError, match="0 images have an embedding"):
        evaluate(
            parse({}, "test"), run.folder / "model.pt", [], [empty],
            (prepared / "catalogue.csv", run.folder / "split.csv"),
            tmp_path / "e.json", tmp_path / "e.html",
        )  # fmt: skip


def scores(trained, untrained, pixels=0.1, **others):
    values = {TRAINED: trained, UNTRAINED: untrained, PIXELS: pixels, **others}
    return {n: {"knn_whitened": {"mean": v}} for n, v in values.items()}


@pytest.mark.parametrize(
    ("found", "better", "words"),
    [
        (scores(0.8, 0.7), True, "better than the untrained network by 0.100"),
        (scores(0.71, 0.7), False, "no better than the untrained network"),
        (scores(0.6, 0.7), False, "WORSE than the untrained network by 0.100"),
        (scores(0.8, 0.7, 0.9), True, "components of the pixels are better still"),
        (scores(0.8, 0.7, sky=0.9), True, "training began with (sky) were better"),
        (
            scores(0.8, 0.7, sky=0.79),
            True,
            "(0.800; untrained 0.700, pixels 0.100, sky",
        ),
    ],
)
def test_the_verdict_is_one_sentence(found, better, words):
    """With the figures, and with what to try where it is no better."""
    verdict = give_verdict(found)
    assert verdict["better"] is better
    assert words in verdict["sentence"]
    assert ("train longer" in verdict["sentence"]) is not better


def test_without_labels_geometry_decides():
    """Noise and blur, which pixels survive best, do not enter."""
    again = {"rotated": 0.5, "flipped": 0.5, "shifted": 0.5, "noisier": 0.0}
    found = {
        TRAINED: {"found_again": again},
        UNTRAINED: {"found_again": again | {"rotated": 0.2, "noisier": 1.0}},
        PIXELS: {"found_again": again | {"rotated": 0.1, "noisier": 1.0}},
    }
    verdict = give_verdict(found)
    assert verdict["better"]
    assert verdict["difference"] == pytest.approx(0.1)


def test_changes_change_what_they_say():
    """Each its own way; the input stays; noise is that of the image."""
    images = torch.rand(4, 2, 32, 32, generator=torch.Generator().manual_seed(0)) / 2
    images[:, :, 12:18, 14:20] += 0.4
    kept, noise = images.clone(), torch.tensor([0.0, 0.0, 0.1, 0.1])
    found = {
        name: change(images, torch.arange(4))
        for name, change in perturbations(noise).items()
    }
    assert torch.equal(images, kept)
    for name, changed in found.items():
        assert changed.shape == images.shape
        assert 0 <= changed.min() <= changed.max() <= 1
        assert name == "noisier" or not torch.allclose(changed, images, atol=1e-3)
    torch.testing.assert_close(found["noisier"][:2], images[:2])
    assert (found["noisier"][2:] - images[2:]).std() == pytest.approx(0.1, rel=0.2)
    assert found["blurred"].std() < images.std()
    torch.testing.assert_close(found["flipped"].flip(3), images)
    contrast = found["fainter"].std() / images.std()
    assert contrast == pytest.approx(0.5, abs=0.05)
