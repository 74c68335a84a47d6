"""Tensors: the cache, batches, views, networks."""

import math
import os
import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from astromorph.artefacts.run_files import RunFiles
from astromorph.artefacts.shard_writer import FlatArrays, save_tensors
from astromorph.artefacts.tensor_shard import load_values, read_shard, save_values
from astromorph.byol.augment import (
    SkyAugmentation,
    _median,
    _sampling_grid,
    gaussian_blur,
)
from astromorph.catalogue.split import split
from astromorph.datasets.batching import batches
from astromorph.datasets.tensor_datasets import CachedDataset, read_subset
from astromorph.embedding.metrics import NO_STRENGTH as STILL
from astromorph.errors import AstromorphError
from astromorph.models.encoders import AstroMorphologyModel, NLayerResnet, build_network
from astromorph.settings.sections import AugmentationSettings, NetworkSettings


class Malicious:
    """An object that runs a program when it is unpickled."""

    def __reduce__(self):
        return os.mkdir, ("owned",)


def test_nothing_is_unpickled(tmp_path, monkeypatch):
    """A file that contains a program is refused, and the program does not run."""
    monkeypatch.chdir(tmp_path)
    torch.save({"format": "astromorph-tensors", "x": Malicious()}, "evil.pt")
    with pytest.raises(AstromorphError, match=r"evil\.pt: .*could run any program"):
        read_shard("evil.pt")
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"format": "other"}, "found 'other', expected 'kind'"),
        ({"format": "kind", "format_version": 2}, "found format version 2"),
        ([1, 2], "found 'list'"),
    ],
)
def test_other_files_are_named(tmp_path, values, message):
    """Kind and version are checked, and the message gives a remedy."""
    save_values(tmp_path / "a.pt", values)
    with pytest.raises(AstromorphError, match=f"{message}.*do that"):
        load_values(tmp_path / "a.pt", "kind", 1, "do that")


def test_missing_and_damaged_files_are_named(tmp_path):
    """Neither causes an exception of torch."""
    with pytest.raises(AstromorphError, match="there is no such file"):
        read_shard(tmp_path / "a.pt")
    save_values(tmp_path / "a.pt", {"images": torch.zeros(1000)})
    data = (tmp_path / "a.pt").read_bytes()
    (tmp_path / "a.pt").write_bytes(data[: len(data) // 2])
    with pytest.raises(AstromorphError, match=r"a\.pt: .*preprocess again"):
        read_shard(tmp_path / "a.pt")


PLAIN = {
    "text": "ü\u2028" * 200, "numbers": [0, -1, 2**40, 1.5, True, None],
    "nested": {"tuple": (1, "a"), "empty": [{}, (), []]},
}  # fmt: skip


@pytest.mark.parametrize(
    "dtype", ["float16", "float32", "float64", "uint8", "int32", "int64", "bool"]
)
@pytest.mark.parametrize("mmap", [True, False])
def test_tensor_files_equal_those_of_torch(tmp_path, dtype, mmap):
    """They are read by torch, mapped and aligned, and its own copy is the same."""
    rng = np.random.default_rng(0)
    arrays = {
        "a": rng.integers(0, 2, (3, 4, 5)).astype(dtype),
        "turned": rng.integers(0, 2, (7, 6)).astype(dtype).T,
        "none": np.empty((0, 2), dtype),
        "scalar": np.array(1).astype(dtype),
    }
    save_tensors(tmp_path / "a.pt", {"arrays": arrays, "plain": PLAIN})
    found = torch.load(tmp_path / "a.pt", weights_only=True, mmap=mmap)
    assert found["plain"] == PLAIN
    for name, array in arrays.items():
        tensor = found["arrays"][name]
        assert tensor.shape == array.shape
        np.testing.assert_array_equal(tensor.numpy(), array)
        assert tensor.numpy().dtype == array.dtype
        assert tensor.data_ptr() % 64 == 0 or not mmap or not tensor.numel()
    torch.save(found, tmp_path / "b.pt")
    again = torch.load(tmp_path / "b.pt", weights_only=True)
    assert again["plain"] == found["plain"]


@pytest.mark.parametrize("lengths", [(), (0,), (3, 0, 2), (10**6,) * 20])
def test_flat_arrays_are_written_as_one_tensor(tmp_path, lengths):
    """The file is identical to that of the concatenated array."""
    rng = np.random.default_rng(0)
    parts = [rng.random(length).astype("float16") for length in lengths]
    whole = np.concatenate([np.empty(0, "float16"), *parts])
    save_tensors(tmp_path / "a.pt", {"x": whole, "y": [1]})
    tracemalloc.start()
    save_tensors(tmp_path / "b.pt", {"x": FlatArrays(parts, "float16"), "y": [1]})
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    found = torch.load(tmp_path / "b.pt", weights_only=True)["x"]
    np.testing.assert_array_equal(found.numpy(), whole)
    assert found.numpy().dtype == whole.dtype
    if whole.size:
        assert (tmp_path / "a.pt").read_bytes() == (tmp_path / "b.pt").read_bytes()
    assert peak < 10**6


def test_other_objects_are_refused_in_tensor_files(tmp_path):
    """Objects and types that torch does not support leave no file behind."""
    for value in (object(), np.zeros(2, np.complex64), {1, 2}):
        with pytest.raises(TypeError, match=r"allowed are|only plain values"):
            save_tensors(tmp_path / "a.pt", {"x": value})
    assert not list(tmp_path.iterdir())


@given(st.integers(2, 500), st.integers(2, 64))
def test_batches_contain_every_image_once_and_at_least_two(number, size):
    """They have similar sizes, up to the requested one if possible."""
    parts = list(batches(number, size, torch.randperm(number)))
    assert sorted(torch.cat(parts).tolist()) == list(range(number))
    lengths = [len(p) for p in parts]
    assert min(lengths) >= 2
    assert max(lengths) - min(lengths) <= 1
    assert max(lengths) <= max(size, 3)


def test_a_dataset_repeats_a_channel_and_keeps_its_images():
    """`stacksize` 3 gives three equal channels, float32."""
    images = torch.rand(5, 1, 8, 8).half()
    data = CachedDataset(images, stacksize=3)
    assert (len(data), data.channels) == (5, 3)
    assert data[2].shape == (3, 8, 8)
    assert data[2].dtype == torch.float32
    torch.testing.assert_close(
        data.batch(torch.tensor([4, 1]))[:, 2].half(), images[[4, 1], 0]
    )
    with pytest.raises(AstromorphError, match="only a single channel can be repeated"):
        CachedDataset(torch.rand(2, 3, 8, 8), stacksize=2)


def test_subsets_are_gathered_from_the_shards(prepared, sky, settings, tmp_path):
    """Training and test images follow the split and together are all images."""
    (tmp_path / "tensors").symlink_to(prepared)
    files = RunFiles.of_run(tmp_path, shards=2)
    tensors = files.all_tensors
    split(sky, files, settings.split_settings, settings.validate_settings, 0)
    train = read_subset(tmp_path / "split.csv", tensors, "train")
    test = read_subset(tmp_path / "split.csv", tensors, "test")
    assert len(train.images) + len(test.images) == 28
    assert not set(train.image_ids) & set(test.image_ids)
    every = {}
    for path in tensors:
        shard = read_shard(path)
        every |= dict(zip(shard.image_ids, shard.images, strict=True))
    for part in (train, test):
        assert all(
            torch.equal(a, every[i])
            for a, i in zip(part.images.images, part.image_ids, strict=True)
        )
        assert all(
            len(column) == len(part.images) for column in part.statistics.values()
        )
    with pytest.raises(AstromorphError, match="do not have the same images"):
        read_subset(tmp_path / "split.csv", tensors[:1], "train")


def augmentation(seed=1, **changes) -> SkyAugmentation:
    settings = AugmentationSettings(**changes)
    return SkyAugmentation(settings, torch.Generator().manual_seed(seed))


def test_each_view_of_each_image_is_augmented_independently():
    """Equal images become different views, which also differ between calls."""
    images = torch.rand(1, 1, 32, 32).repeat(6, 1, 1, 1)
    kept = images.clone()
    augment = augmentation()
    views = torch.cat([augment(images), augment(images)])
    for a in range(12):
        for b in range(a):
            assert not torch.allclose(views[a], views[b], atol=1e-3)
    assert torch.equal(images, kept)
    assert 0 <= views.min() <= views.max() <= 1
    assert torch.equal(views[:6], augmentation()(images))


def test_views_contain_no_filled_corners():
    """A white image stays white when it is rotated, shifted or shrunk."""
    images = torch.ones(64, 1, 24, 40)
    strength = STILL | {"scale": (0.5, 2.0), "shift": 0.3, "gamma": 0.5, "blur": 2.0}
    views = augmentation(**strength)(images)
    torch.testing.assert_close(views, images)


def test_zero_strength_leaves_the_image_unchanged():
    """With neutral settings, the view equals the image."""
    images = torch.rand(4, 2, 20, 28)
    views = augmentation(rotation=False, flip=False, **STILL)(images)
    torch.testing.assert_close(views, images, atol=1e-5, rtol=0)


def test_flips_mirror_half_of_the_images():
    """A flipped view is the exact mirror image."""
    images = torch.rand(200, 1, 12, 12)
    views = augmentation(rotation=False, flip=True, **STILL)(images)
    same = (views - images).abs().amax(dim=(1, 2, 3)) < 1e-5
    mirrored = (views - images.flip(3)).abs().amax(dim=(1, 2, 3)) < 1e-5
    assert (same | mirrored).all()
    assert 60 < same.sum() < 140


def test_each_image_is_blurred_by_its_own_beam():
    """A point becomes a Gaussian of the requested width with the same flux."""
    images = torch.zeros(3, 2, 33, 33)
    images[..., 16, 16] = 1
    sigma = torch.tensor([0.0, 1.0, 2.0])
    found = gaussian_blur(images, sigma)
    torch.testing.assert_close(found[0], images[0])
    x = torch.arange(33.0) - 16
    for k in (1, 2):
        width = (found[k, 0] * x**2).sum() / found[k, 0].sum()
        assert float(width.sqrt()) == pytest.approx(float(sigma[k]), rel=0.03)
        torch.testing.assert_close(found[k, 0], found[k, 0].T)
    torch.testing.assert_close(found.sum(dim=(2, 3)), torch.ones(3, 2))
    torch.testing.assert_close(gaussian_blur(images, torch.zeros(3)), images)


def test_contrast_and_brightness_stay_within_their_settings():
    """Emission is scaled and the background is shifted, independently."""
    images = torch.full((300, 1, 16, 16), 0.3)
    images[..., 6:10, 6:10] = 0.5
    still = STILL | {"contrast": 0.5}
    views = augmentation(rotation=False, flip=False, **still)(images)
    factor = (views[..., 8, 8] - views[..., 0, 0]) / 0.2
    assert math.exp(-0.5) - 0.01 < factor.min() < 0.65
    assert 1.55 < factor.max() < math.exp(0.5) + 0.01
    torch.testing.assert_close(views[..., 0, 0], images[..., 0, 0])
    still = STILL | {"brightness": 0.1}
    views = augmentation(rotation=False, flip=False, **still)(images)
    offset = views[..., 0, 0] - 0.3
    assert -0.101 < offset.min() < -0.08
    assert 0.08 < offset.max() < 0.101
    torch.testing.assert_close(views[..., 8, 8] - views[..., 0, 0], offset * 0 + 0.2)


@pytest.mark.parametrize("shape", [(41, 41), (41, 61)])
def test_rotation_keeps_shapes(shape):
    """A round blob stays round, also on an image that is not square."""
    y, x = torch.meshgrid(
        *(torch.arange(n) - (n - 1) / 2 for n in shape), indexing="ij"
    )
    blob = torch.exp(-(x**2 + y**2) / (2 * 4.0**2)).repeat(20, 1, 1, 1)
    views = augmentation(**STILL)(blob)
    inside = torch.hypot(x, y) < 18  # mirror images can appear further out
    torch.testing.assert_close(views[..., inside], blob[..., inside], atol=0.02, rtol=0)


def test_scale_and_shift_stay_within_their_settings():
    """A blob moves and grows no more than the settings allow."""
    n = 129
    y, x = torch.meshgrid(*[torch.arange(n) - (n - 1) / 2] * 2, indexing="ij")
    blob = torch.exp(-(x**2 + y**2) / (2 * 5.0**2)).repeat(200, 1, 1, 1)
    moved = augmentation(rotation=False, **(STILL | {"shift": 0.1}))(blob)
    weight = moved.sum(dim=(1, 2, 3))
    for axis in (x, y):
        centre = (moved * axis).sum(dim=(1, 2, 3)) / weight
        assert 0.7 * 0.1 * n < centre.abs().max() < 1.05 * 0.1 * n
    grown = augmentation(rotation=False, **(STILL | {"scale": (0.5, 1.5)}))(blob)
    inside = torch.hypot(x, y) < 30  # mirror images appear further out
    size = (grown[..., inside].sum(dim=(1, 2)) / (2 * math.pi * 25)).sqrt()
    assert 0.48 < size.min() < 0.6 < 1.4 < size.max() < 1.52


@pytest.mark.parametrize(
    ("layer", "features"),
    [("layer1", 64), ("layer2", 128), ("layer3", 256), ("layer4", 512)],
)
@pytest.mark.parametrize("channels", [1, 3, 5])
def test_resnet_has_the_width_of_its_last_layer(layer, features, channels):
    """For any number of channels, and images of at least 16 pixels."""
    network = build_network(
        "n_layer_resnet",
        NetworkSettings(last_layer=layer, channels="joint"),
        channels,
    )
    assert network(torch.rand(2, channels, 16, 20)).shape == (2, features)
    assert network.features == features


def test_the_small_network_is_small():
    """`amm` has 128 features and far fewer weights than ResNet-18."""
    network = build_network("amm", NetworkSettings(channels="joint"), 2)
    assert network(torch.rand(3, 2, 40, 33)).shape == (3, 128)
    count = [
        sum(p.numel() for p in n.parameters())
        for n in (AstroMorphologyModel(1), NLayerResnet(1))
    ]
    assert count[0] < count[1] / 40


def test_unknown_networks_are_named():
    """The message lists the allowed names."""
    with pytest.raises(ValueError, match="allowed are layer1, layer2"):
        NLayerResnet(1, "layer9")
    with pytest.raises(ValueError, match="'vgg'; allowed are n_layer_resnet, amm"):
        build_network("vgg", NetworkSettings(), 1)


def test_only_missing_noise_is_added():
    """Clean images get noise up to the setting; noisy ones get none."""
    generator = torch.Generator().manual_seed(3)
    clean = torch.full((200, 1, 48, 48), 0.5)
    noisy = clean + 0.1 * torch.randn(clean.shape, generator=generator)
    still = STILL | {"noise": 0.05}
    found = {}
    for name, images in (("clean", clean), ("noisy", noisy)):
        views = augmentation(rotation=False, flip=False, **still)(images)
        found[name] = (views - images.clamp(0, 1)).flatten(1).std(dim=1)
    assert found["noisy"].max() < 1e-3
    assert found["clean"].min() < 0.01
    assert 0.045 < found["clean"].max() < 0.053
    assert found["clean"].mean() == pytest.approx(0.025, abs=0.004)


def test_channels_are_scaled_independently():
    """The emission of each channel is scaled by a different factor."""
    images = torch.full((200, 3, 16, 16), 0.3)
    images[..., 6:10, 6:10] = 0.5
    still = STILL | {"channel_gain": 0.4}
    views = augmentation(rotation=False, flip=False, **still)(images)
    factor = ((views[..., 8, 8] - views[..., 0, 0]) / 0.2).log()
    assert 0.35 < factor.abs().max() < 0.41
    assert (factor[:, 0] - factor[:, 1]).abs().mean() > 0.1
    alone = augmentation(rotation=False, flip=False, **still)(images[:, :1])
    torch.testing.assert_close(alone, images[:, :1])


@pytest.mark.parametrize("shape", [(7, 9), (16, 16), (8, 3)])
def test_pixel_positions_equal_the_affine_grid_of_torch(shape):
    """Sums replace matrix products, with the same result."""
    matrices = torch.randn(5, 2, 3, generator=torch.Generator().manual_seed(0))
    expected = functional.affine_grid(matrices, [5, 1, *shape], align_corners=False)
    torch.testing.assert_close(_sampling_grid(matrices, *shape), expected)


@pytest.mark.parametrize("number", [1, 4, 7, 1024])
def test_medians_equal_those_of_torch(number):
    """Also the lower one of an even number of values, and of another type."""
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(3, 2, number, generator=generator)
    kept = values.clone()
    expected = values.median(dim=-1, keepdim=True).values
    assert torch.equal(_median(values), expected)
    assert torch.equal(_median(values.double()), expected.double())
    assert torch.equal(values, kept)


def test_added_noise_fills_up_to_the_noise_after_a_change_of_contrast():
    """Views with any contrast have at least the noise that was drawn."""
    generator = torch.Generator().manual_seed(3)
    images = 0.5 + 0.03 * torch.randn(300, 1, 48, 48, generator=generator)
    still = STILL | {"noise": 0.05, "contrast": 0.5}
    views = augmentation(rotation=False, flip=False, **still)(images)
    found = views.flatten(1).std(dim=1)
    assert 0.03 * math.exp(-0.5) * 0.9 < found.min() < 0.025
    assert 0.047 < found.max() < 0.054


def test_repeated_channels_stay_equal():
    """Views of images with a repeated channel also have equal channels."""
    images = torch.rand(4, 1, 32, 32)
    augment = SkyAugmentation(None, torch.Generator().manual_seed(5), stacksize=3)
    views = augment(images.repeat(1, 3, 1, 1))
    assert views.shape == (4, 3, 32, 32)
    assert torch.equal(views[:, :1], views[:, 1:2])
    alone = SkyAugmentation(None, torch.Generator().manual_seed(5))(images)
    assert torch.equal(views[:, :1], alone)
