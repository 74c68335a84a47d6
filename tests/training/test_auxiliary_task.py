"""The auxiliary task: labelled simulated images and the loss of the head."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from astromorph.datasets.tensor_datasets import CachedDataset, NativeDataset
from astromorph.settings.sections import PreprocessSettings
from astromorph.sky import training_set
from astromorph.sky.draw import convolve_beam
from astromorph.sky.morphologies import MORPHOLOGIES
from astromorph.sky.training_set import (
    MEASURES,
    Appearance,
    DrawingRules,
    draw_labelled_images,
    measure_appearance,
)
from astromorph.training.auxiliary_task import (
    MAX_DEVIATION,
    AuxiliaryTask,
    appearance_of,
    simulated_side,
)


@pytest.fixture(scope="module")
def labelled_images():
    return draw_labelled_images(DrawingRules(seed=3, size=32), 48)


def test_labelled_images_are_of_every_kind(labelled_images):
    """Measures have mean 0 and standard deviation 1; NaN for images without objects."""
    images, shapes = labelled_images.images, labelled_images.shapes
    assert images.shape == (48, 1, 32, 32)
    assert images.dtype == np.float16
    assert 0 <= images.min() < images.max() <= 1
    assert set(labelled_images.morphologies) == set(range(len(MORPHOLOGIES)))
    has_shape = ~np.isnan(shapes).any(axis=1)
    assert has_shape.sum() > 30
    assert np.isnan(shapes[~has_shape]).all()
    assert shapes[has_shape].mean(axis=0) == pytest.approx(0, abs=1e-5)
    assert shapes[has_shape].std(axis=0) == pytest.approx(1, abs=1e-4)
    assert len({image.tobytes() for image in images}) == 48


def test_labelled_images_do_not_depend_on_the_number_of_processes(monkeypatch):
    """Nor on the size of the parts; another seed gives other images."""
    rules = DrawingRules(seed=1, size=24, channels=2)
    alone = draw_labelled_images(rules, 40)
    monkeypatch.setattr(training_set, "SERIAL_BELOW", 10)
    monkeypatch.setattr(training_set, "CHUNK", 7)
    together = draw_labelled_images(rules, 40, processes=2)
    assert np.array_equal(alone.images, together.images)
    assert np.array_equal(alone.shapes, together.shapes, equal_nan=True)
    other = draw_labelled_images(DrawingRules(seed=2, size=24, channels=2), 40)
    assert not np.array_equal(alone.images, other.images)


def test_channels_differ_in_noise_and_brightness():
    """Three channels of one object are similar, not the same."""
    drawn = draw_labelled_images(
        DrawingRules(seed=1, size=32, channels=3), 16
    ).images.astype(float)
    for image in drawn:
        for a, b in ((0, 1), (0, 2), (1, 2)):
            assert not np.allclose(image[a], image[b], atol=1e-3)


def test_simulated_images_are_prepared_like_the_data():
    """Another stretch gives different images of the same objects."""
    plain = draw_labelled_images(DrawingRules(seed=1, size=24), 8)
    rules = PreprocessSettings(stretch="linear", size=24)
    other = draw_labelled_images(DrawingRules(seed=1, size=24, preprocessing=rules), 8)
    assert not np.array_equal(plain.images, other.images)
    assert np.array_equal(plain.shapes, other.shapes, equal_nan=True)


@pytest.mark.parametrize("beam", [0.0, 2.0, 4.0])
def test_the_beam_is_measured_from_the_noise(beam):
    """Within a fifth of its width; white noise has a beam of 0."""
    rng = np.random.default_rng(5)
    noise = rng.standard_normal((6, 64, 64))
    if beam:
        noise = np.stack([convolve_beam(plane, beam) for plane in noise])
    images = 0.2 + 0.05 * noise / noise.std()
    images[:, 28:36, 28:36] += 0.5
    like = measure_appearance(images, np.full(6, 30.0), np.full(6, 0.05))
    assert like.beams == pytest.approx([beam] * 6, rel=0.2)
    assert like.signals == (30.0,) * 6


def test_the_appearance_of_odd_data_is_finite():
    """Without noise, without signal, and of a source that fills the image."""
    images = np.stack([np.zeros((32, 32)), np.eye(32), np.full((32, 32), 0.5)])
    like = measure_appearance(
        images, np.array([np.nan, np.inf, -3.0]), np.array([0.0, 0.01, 0.0])
    )
    assert all(math.isfinite(s) and s > 0 for s in like.signals)
    assert all(math.isfinite(b) and b >= 0 for b in like.beams)
    made = draw_labelled_images(DrawingRules(seed=0, size=32, appearance=like), 8)
    assert np.isfinite(made.images).all()


def test_simulated_images_look_like_the_data():
    """Their noise has a broad beam if that of the data has one."""
    medians = []
    for beam in (1.5, 4.0):
        like = Appearance(signals=(12.0,) * 5, beams=(beam,) * 5)
        drawn = draw_labelled_images(DrawingRules(seed=0, size=64, appearance=like), 40)
        images = drawn.images[:, 0].astype(float)
        flat = images.reshape(40, -1)
        away = np.abs(flat - np.median(flat, axis=1, keepdims=True))
        noise = 1.4826 * np.median(away, axis=1)
        found = measure_appearance(images, np.full(40, 12.0), noise)
        medians.append(np.median(found.beams))
    assert medians[0] < 2.0 < 3.0 < medians[1] < 5.0


def test_the_loss_is_that_of_kinds_and_shapes(labelled_images):
    """Cross entropy of the kinds plus twice the smooth L1 loss of the measures."""
    torch.manual_seed(0)
    task = AuxiliaryTask(labelled_images, representation_size=6)
    embeddings, indices = torch.randn(5, 6), torch.tensor([0, 7, 9, 30, 47])
    predictions = task.head(embeddings)
    kinds, shapes = (
        predictions[:, : len(MORPHOLOGIES)],
        predictions[:, len(MORPHOLOGIES) :],
    )
    assert shapes.shape[1] == len(MEASURES)
    true_shapes = torch.from_numpy(labelled_images.shapes)[indices]
    true_shapes = true_shapes.clamp(-MAX_DEVIATION, MAX_DEVIATION)
    has_shape = ~true_shapes.isnan().any(dim=1)
    assert has_shape.sum() > 0
    true_kinds = torch.from_numpy(labelled_images.morphologies)[indices]
    expected = functional.cross_entropy(kinds, true_kinds)
    shape_loss = functional.smooth_l1_loss(
        shapes[has_shape], true_shapes[has_shape], reduction="sum"
    )
    share = np.mean(~np.isnan(labelled_images.shapes).any(axis=1))
    expected += 2 * shape_loss / (len(MEASURES) * len(indices) * share)
    torch.testing.assert_close(task(embeddings, indices), expected)


def test_images_without_an_object_have_no_shape_loss(labelled_images):
    """NaN measures cause no NaN loss and no NaN gradient."""
    empty = np.flatnonzero(np.isnan(labelled_images.shapes).any(axis=1))
    assert len(empty) > 0
    task = AuxiliaryTask(labelled_images, representation_size=6)
    embeddings = torch.randn(len(empty), 6, requires_grad=True)
    loss = task(embeddings, torch.from_numpy(empty))
    loss.backward()
    assert loss.isfinite()
    assert embeddings.grad.isfinite().all()
    assert task.head.weight.grad[len(MORPHOLOGIES) :].abs().max() == 0


def test_the_appearance_of_the_data_is_measured():
    """Side and noise, for images of one size and of different sizes."""
    generator = torch.Generator().manual_seed(0)
    images = 0.2 + 0.05 * torch.randn(20, 2, 32, 32, generator=generator)
    count = {"maximum": 9.0, "background": 1.0, "noise": 0.5, "stretched_noise": 0.05}
    statistics = {name: torch.full((20,), value) for name, value in count.items()}
    like = appearance_of(CachedDataset(images), statistics)
    assert like.signals == (16.0,) * 20
    assert simulated_side(CachedDataset(images)) == 32
    native = NativeDataset([image[:, : 30 + k] for k, image in enumerate(images)])
    assert simulated_side(native) == 32
    assert len(appearance_of(native, statistics).beams) == 20
