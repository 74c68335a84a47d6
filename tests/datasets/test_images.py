"""Images in any form: the same conversion for training, test and embedding."""

import numpy as np
import pytest
import torch
from torch.utils.data import (
    DataLoader,
    Dataset,
    IterableDataset,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)

from astromorph import SizeBucketSampler, collate_images
from astromorph.byol.augment import SkyAugmentation
from astromorph.datasets.any_images import to_batch, to_images
from astromorph.datasets.tensor_datasets import NativeDataset, to_image_set
from astromorph.models.encoders import AstroMorphologyModel
from astromorph.training.trainer import ByolTrainer


def pixels(number: int = 6) -> np.ndarray:
    return np.random.default_rng(0).random((number, 1, 32, 32)).astype(np.float32)


@pytest.mark.parametrize(
    "change",
    [
        lambda a: a, lambda a: a.astype(">f4"), lambda a: a.astype(">f8"),
        lambda a: a[::-1][::-1, :, ::-1][:, :, ::-1], lambda a: torch.from_numpy(a),
        lambda a: torch.from_numpy(a).double(), list,
        lambda a: a.astype(float).tolist(),
        lambda a: np.ma.masked_array(a),
    ],
    ids=["native", "big-endian", "big-endian float64", "strides", "tensor", "double",
         "list", "numbers", "no mask set"],
)  # fmt: skip
def test_all_array_types_give_the_same_images(change):
    """Byte order, strides and type of real numbers make no difference."""
    expected = torch.from_numpy(pixels())
    found = to_batch(change(pixels()))
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected)


def test_integers_become_float32_and_float16_is_kept():
    """Covers uint16 from cameras, bool, and float16 as in shards."""
    for dtype in (np.uint16, ">i2", np.int64, bool):
        found = to_batch(np.ones((1, 1, 2, 2), dtype))
        assert found.dtype == torch.float32
        assert (found == 1).all()
    assert to_batch(np.ones((1, 1, 2, 2), np.float16)).dtype == torch.float16
    read_only = np.broadcast_to(np.float32(2), (1, 1, 2, 2))
    to_batch(read_only)[:] = 3
    assert read_only[0, 0, 0, 0] == 2


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (np.ones((1, 1, 2, 2), complex), "found complex pixels"),
        (torch.ones(1, 1, 2, 2, dtype=torch.complex64), "found complex pixels"),
        (np.ma.masked_less(pixels(1), 0.5), "found masked pixels"),
        ({"image": 1}, "found a dict; allowed are tensors"),
        (np.array([["a"]]), "found a ndarray; allowed are tensors"),
        (torch.ones(3, 2, 2), r"found the shape \(3, 2, 2\); allowed is \(N, C, H, W"),
        ([torch.ones(2), torch.ones(3)], "found a list that is not an image"),
    ],
)  # fmt: skip
def test_invalid_images_are_refused(data, message):
    """The message gives the value and the allowed ones."""
    with pytest.raises(ValueError, match=f"images: {message}"):
        to_batch(data)


def test_invalid_items_are_named():
    """The message gives their index; all must have the same number of channels."""
    for item, message in (
        ({"image": torch.ones(2, 2)}, "image 1: found a dict"),
        (torch.ones(1, 0, 2), r"image 1: found the shape \(1, 0, 2\)"),
        (torch.ones(3, 32, 32), "image 1: found 3 channels, but 1 in image 0"),
    ):
        with pytest.raises(ValueError, match=message):
            to_image_set([torch.ones(1, 32, 32), item])
    with pytest.raises(ValueError, match="images: found a int; allowed are tensors"):
        to_image_set(3)


def same_images(found, expected: torch.Tensor) -> bool:
    """Whether both contain the same images, in any order."""
    values = found.batch(torch.arange(len(found))).flatten(1).sum(dim=1)
    return torch.allclose(
        values.sort().values, expected.flatten(1).sum(dim=1).sort().values
    )


def test_all_images_of_batches_are_used_and_copies_count_once():
    """A list or generator of batches provides all of their images."""
    images = torch.from_numpy(pixels(12))
    assert same_images(to_image_set(list(images.split(4))), images)
    assert same_images(to_image_set(part for part in images.split(5)), images)
    assert same_images(to_image_set(pixels(12)[:, 0]), images)
    for image in images[:3]:
        turned = image.rot90(2, (1, 2))
        copies = torch.stack([image, turned, image.flip(2), turned.flip(2)])
        (one,) = to_images(copies, 0, copies=False)
        assert torch.equal(one, image)
        assert len(list(to_images(copies + torch.rand(4, 1, 1, 1), 0, False))) == 4
        assert len(list(to_images(torch.rand(4, 1, 8, 8), 0, copies=True))) == 1


class Stream(IterableDataset):
    """Images one after the other, with a label."""

    def __iter__(self):
        return iter((torch.from_numpy(image), 0) for image in pixels())


class Numbered(Dataset):
    """Items are dictionaries."""

    def __len__(self):
        return 6

    def __getitem__(self, k):
        return {"pixels": torch.from_numpy(pixels()[k])}


def test_samplers_and_collate_functions_of_loaders_are_used():
    """Streams are included; the batch size of a loader has no effect."""
    images = torch.from_numpy(pixels())
    data = TensorDataset(images, torch.arange(6))
    for loader, expected in (
        (DataLoader(data, 4, shuffle=True, drop_last=True), images),
        (DataLoader(data, batch_size=None), images),
        (DataLoader(data, 2, sampler=SubsetRandomSampler([1, 4])), images[[1, 4]]),
        (DataLoader(images, 2, collate_fn=collate_images), images),
        (DataLoader(data, batch_sampler=[[0, 5], [3]]), images[[0, 5, 3]]),
        (DataLoader(images, batch_sampler=SizeBucketSampler([(32, 32)] * 6, 4)),
         images),
        (DataLoader(Stream(), 4), images),
        (DataLoader(Numbered(), 4,
                    collate_fn=lambda items: [i["pixels"] for i in items]), images),
        (DataLoader(Numbered(), 4, collate_fn=lambda items: (
            torch.stack([i["pixels"] for i in items]), torch.zeros(len(items)))),
         images),
    ):  # fmt: skip
        assert same_images(to_image_set(loader), expected)
    weighted = WeightedRandomSampler([0, 0, 1.0, 0, 0, 0], 3)
    assert same_images(
        to_image_set(DataLoader(data, 2, sampler=weighted)), images[[2, 2, 2]]
    )


def trainer(**options) -> ByolTrainer:
    torch.manual_seed(0)
    return ByolTrainer(AstroMorphologyModel(1), device="cpu", **options)


def test_training_test_and_embedding_accept_the_same_images():
    """Arrays, datasets, loaders, images of different sizes; embeddings are in order."""
    made = trainer()
    given = pixels().astype(">f8")[:, :, ::-1]
    made.train_model(given, given, epochs=1, batch_size=3)
    expected = made(torch.from_numpy(given.astype(np.float32)))
    assert 0 <= made.test(given) <= 8
    labelled = TensorDataset(torch.from_numpy(given.astype(float)), torch.arange(6))
    for other in (given, list(given), DataLoader(labelled, 4), to_image_set(given)):
        torch.testing.assert_close(made(other), expected, rtol=1e-4, atol=1e-5)
    sizes = [image[:, : 32 - 4 * (k % 2)] for k, image in enumerate(given)]
    assert isinstance(to_image_set(sizes), NativeDataset)
    found = made(sizes)
    for k, image in enumerate(sizes):
        torch.testing.assert_close(
            found[k : k + 1], made(image[None]), rtol=1e-4, atol=1e-5
        )
    assert made([]).shape == (0, 128)
    with pytest.raises(ValueError, match=r"for a single image \(1, C, H, W\)"):
        made(given[0])


def test_images_with_non_finite_pixels_are_named():
    """Before training and embedding, unless a normalisation replaces them."""
    bad = pixels()
    bad[2, 0, 1, 1] = np.nan
    made = trainer(augmentation_function=lambda images: images)
    with pytest.raises(ValueError, match="image 2: found NaN or infinite pixels"):
        made.train_model(bad, epochs=1)
    with pytest.raises(ValueError, match=r"image 2: .*normalization_function=MinMax"):
        made(bad)


def test_a_wrong_number_of_channels_is_explained():
    """In training, testing, embedding and custom training loops."""
    three = torch.rand(4, 3, 32, 32)
    made = trainer()
    message = "found 3 channels, but the network expects 1; create the network for 3"
    for use in (
        lambda: made.train_model(three, epochs=1),
        lambda: made.train_epoch(three),
        lambda: made.test(three),
        lambda: made(three),
        lambda: made.byol(three),
        lambda: made.byol.loss(three, three),
    ):
        with pytest.raises(ValueError, match=message):
            use()
    coloured = ByolTrainer(AstroMorphologyModel(3), device="cpu")
    with pytest.raises(ValueError, match=r"found 1 channel, .*stacksize=3"):
        coloured(three[:, :1])


class InPlace(torch.nn.Module):
    """A network that changes its input."""

    def __init__(self):
        super().__init__()
        self.inside = AstroMorphologyModel(1)

    def forward(self, images):
        """Return features of images, and change the images."""
        return self.inside(images.sub_(0.5).mul_(2))


def test_networks_that_change_their_input_are_supported():
    """The user's images and the input of the target network are not changed."""
    torch.manual_seed(0)
    images = torch.rand(4, 1, 32, 32)
    original = images.clone()
    made = ByolTrainer(InPlace(), device="cpu")
    made(images)
    made.byol(images, return_errors=True)
    assert torch.equal(images, original)
    byol = made.byol.eval()
    expected = byol.projector(byol.encoder(images.clone()))
    seen = []
    byol.loss_fn = lambda prediction, target: (seen.append(target), target.sum(1))[1]
    byol.loss(images, images)
    torch.testing.assert_close(seen[0][:4], expected)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.rand(1, 8, 8), r"found the shape \(1, 8, 8\)"),
        (torch.rand(0, 1, 8, 8), "of at least one image"),
        (torch.ones(1, 1, 8, 8, dtype=torch.uint8), "found torch.uint8; allowed are"),
        (torch.full((1, 1, 8, 8), -3.0), "found pixels from -3 to -3; .*MinMaxNorm"),
    ],
)
def test_views_of_an_invalid_batch_are_refused(images, message):
    """Values outside 0 to 1 are never clipped silently."""
    with pytest.raises(ValueError, match=message):
        SkyAugmentation()(images)
