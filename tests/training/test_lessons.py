"""Simulated images that join the training, and who teaches from them."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from astromorph.datasets.tensor_datasets import CachedDataset, NativeDataset
from astromorph.settings.sections import PreprocessSettings
from astromorph.sky import training_set as sky_lessons
from astromorph.sky.draw import convolve_beam
from astromorph.sky.objects import SORTS
from astromorph.sky.shapes import MEASURES
from astromorph.sky.training_set import (
    Appearance,
    DrawingRules,
    draw_labelled_images,
    measure_appearance,
)
from astromorph.training.auxiliary_task import (
    LARGEST,
    AuxiliaryTask,
    appearance_of,
    simulated_side,
)


@pytest.fixture(scope="module")
def lessons():
    return draw_labelled_images(DrawingRules(seed=3, size=32), 48)


def test_lessons_are_images_of_every_sort_with_their_shapes(lessons):
    """Sorts take turns; measures have mean 0 and spread 1, or are NaN together."""
    assert lessons.images.shape == (48, 1, 32, 32)
    assert lessons.images.dtype == np.float16
    assert 0 <= lessons.images.min() < lessons.images.max() <= 1
    assert set(lessons.sorts) == set(range(len(SORTS)))
    shown = ~np.isnan(lessons.shapes).any(axis=1)
    assert shown.sum() > 30
    assert np.isnan(lessons.shapes[~shown]).all()
    assert lessons.shapes[shown].mean(axis=0) == pytest.approx(0, abs=1e-5)
    assert lessons.shapes[shown].std(axis=0) == pytest.approx(1, abs=1e-4)
    assert len({image.tobytes() for image in lessons.images}) == 48


def test_lessons_do_not_depend_on_who_draws_them(monkeypatch):
    """One process or two, in parts of any length; another seed draws others."""
    draft = DrawingRules(seed=1, size=24, channels=2)
    alone = draw_labelled_images(draft, 40)
    monkeypatch.setattr(sky_lessons, "SERIAL_BELOW", 10)
    monkeypatch.setattr(sky_lessons, "CHUNK", 7)
    together = draw_labelled_images(draft, 40, processes=2)
    assert np.array_equal(alone.images, together.images)
    assert np.array_equal(alone.shapes, together.shapes, equal_nan=True)
    other = draw_labelled_images(DrawingRules(seed=2, size=24, channels=2), 40)
    assert not np.array_equal(alone.images, other.images)


def test_channels_differ_in_noise_and_brightness():
    """Three channels of one object: alike, not the same."""
    drawn = draw_labelled_images(
        DrawingRules(seed=1, size=32, channels=3), 16
    ).images.astype(float)
    for image in drawn:
        for a, b in ((0, 1), (0, 2), (1, 2)):
            assert not np.allclose(image[a], image[b], atol=1e-3)


def test_rules_of_the_data_shape_the_lessons():
    """Another stretch gives other images of the same objects."""
    plain = draw_labelled_images(DrawingRules(seed=1, size=24), 8)
    rules = PreprocessSettings(stretch="linear", size=24)
    other = draw_labelled_images(DrawingRules(seed=1, size=24, rules=rules), 8)
    assert not np.array_equal(plain.images, other.images)
    assert np.array_equal(plain.shapes, other.shapes, equal_nan=True)


@pytest.mark.parametrize("beam", [0.0, 2.0, 4.0])
def test_the_beam_is_seen_in_the_noise(beam):
    """White noise has none; else the width is found within a fifth."""
    rng = np.random.default_rng(5)
    noise = rng.standard_normal((6, 64, 64))
    if beam:
        noise = np.stack([convolve_beam(plane, beam) for plane in noise])
    images = 0.2 + 0.05 * noise / noise.std()
    images[:, 28:36, 28:36] += 0.5
    like = measure_appearance(images, np.full(6, 30.0), np.full(6, 0.05))
    assert like.beams == pytest.approx([beam] * 6, rel=0.2)
    assert like.signals == (30.0,) * 6


def test_a_likeness_survives_odd_data():
    """No noise, no signal, only source: nothing crashes, all is within range."""
    images = np.stack([np.zeros((32, 32)), np.eye(32), np.full((32, 32), 0.5)])
    like = measure_appearance(
        images, np.array([np.nan, np.inf, -3.0]), np.array([0.0, 0.01, 0.0])
    )
    assert all(math.isfinite(s) and s > 0 for s in like.signals)
    assert all(math.isfinite(b) and b >= 0 for b in like.beams)
    made = draw_labelled_images(DrawingRules(seed=0, size=32, like=like), 8)
    assert np.isfinite(made.images).all()


def test_lessons_are_like_the_data():
    """Noise of a broad beam and faint sources where the data have them."""
    medians = []
    for beam in (1.5, 4.0):
        like = Appearance(signals=(12.0,) * 5, beams=(beam,) * 5)
        drawn = draw_labelled_images(DrawingRules(seed=0, size=64, like=like), 40)
        images = drawn.images[:, 0].astype(float)
        flat = images.reshape(40, -1)
        away = np.abs(flat - np.median(flat, axis=1, keepdims=True))
        noise = 1.4826 * np.median(away, axis=1)
        found = measure_appearance(images, np.full(40, 12.0), noise)
        medians.append(np.median(found.beams))
    assert medians[0] < 2.0 < 3.0 < medians[1] < 5.0


def test_the_teacher_tells_how_wrong_the_head_is(lessons):
    """Cross entropy of sorts plus twice the smooth L1 loss of what has a shape."""
    torch.manual_seed(0)
    teacher = AuxiliaryTask(lessons, features=6)
    embeddings, indices = torch.randn(5, 6), torch.tensor([0, 7, 9, 30, 47])
    told = teacher.head(embeddings)
    sorts, shapes = told[:, : len(SORTS)], told[:, len(SORTS) :]
    assert shapes.shape[1] == len(MEASURES)
    known = torch.from_numpy(lessons.shapes)[indices].clamp(-LARGEST, LARGEST)
    shown = ~known.isnan().any(dim=1)
    assert shown.sum() > 0
    expected = functional.cross_entropy(sorts, torch.from_numpy(lessons.sorts)[indices])
    wrong = functional.smooth_l1_loss(shapes[shown], known[shown], reduction="sum")
    share = np.mean(~np.isnan(lessons.shapes).any(axis=1))
    expected += 2 * wrong / (len(MEASURES) * len(indices) * share)
    torch.testing.assert_close(teacher(embeddings, indices), expected)


def test_images_that_show_nothing_teach_sorts_alone(lessons):
    """NaN measures give no NaN loss and no NaN gradient."""
    empty = np.flatnonzero(np.isnan(lessons.shapes).any(axis=1))
    assert len(empty) > 0
    teacher = AuxiliaryTask(lessons, features=6)
    embeddings = torch.randn(len(empty), 6, requires_grad=True)
    loss = teacher(embeddings, torch.from_numpy(empty))
    loss.backward()
    assert loss.isfinite()
    assert embeddings.grad.isfinite().all()
    assert teacher.head.weight.grad[len(SORTS) :].abs().max() == 0


def test_the_data_are_looked_at():
    """Sides and noise of images of one size and of their own sizes."""
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
