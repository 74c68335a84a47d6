"""Batches of nearly equal size, of images of similar size, and for a DataLoader."""

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler, Subset, random_split

MIN_BATCH = 2  # batch norm cannot normalise a single image
MIN_GROUP = 8  # fewer images of one size are grouped with those of the next size
PIXELS = 128 * 128  # batches of larger images have fewer images


def batches(
    number: int,
    batch_size: int,
    order: Tensor | None = None,
    min_size: int = MIN_BATCH,
) -> Iterator[Tensor]:
    """Divide indices into batches whose sizes differ by at most one.

    Each index appears once. No small batch remains at the end, and no batch has a
    single image unless there is only one: batch norm could not normalise it.

    Parameters
    ----------
    number : int
        Number of images, at least 0.
    batch_size : int
        Maximum size of a batch, at least 1; exceeded if a batch of one would remain.
    order : Tensor, shape (number,), int64, optional
        The indices in the order to use; by default 0, 1, 2, ...
    min_size : int
        Minimum size of a batch, unless there are fewer images; by default 2.

    Yields
    ------
    Tensor, shape (B,), int64

    Examples
    --------
    >>> [part.tolist() for part in batches(7, 3)]
    [[0, 1, 2], [3, 4], [5, 6]]
    """
    if number == 0:
        return
    indices = torch.arange(number) if order is None else order
    max_batches = max(1, number // max(min_size, MIN_BATCH))
    yield from torch.tensor_split(
        indices, min(math.ceil(number / batch_size), max_batches)
    )


def pad_by_reflection(image: Tensor, height: int, width: int) -> Tensor:
    """Enlarge an image by reflection at its edges.

    Parameters
    ----------
    image : Tensor, shape (C, h, w)
        Any type.
    height, width : int
        H and W, at least h and w.

    Returns
    -------
    Tensor, shape (C, H, W)
        The image is in the centre.

    Examples
    --------
    >>> pad_by_reflection(torch.tensor([[[1, 2, 3]]]), 1, 7)
    tensor([[[2, 1, 1, 2, 3, 3, 2]]])
    """
    if image.shape[1:] == (height, width):
        return image
    rows = _reflected_indices(image.shape[1], height)
    return image[:, rows][:, :, _reflected_indices(image.shape[2], width)]


def _reflected_indices(side: int, padded_side: int) -> Tensor:
    """Indices `(padded_side,)` from 0 to below `side`, reversed beyond either edge."""
    indices = (torch.arange(padded_side) - (padded_side - side) // 2) % (2 * side)
    return torch.minimum(indices, 2 * side - 1 - indices)


def batches_of_similar_size(
    shapes: Sequence[tuple[int, int]],
    batch_size: int,
    order: Tensor | None = None,
    min_size: int = 1,
) -> Iterator[Tensor]:
    """Divide the indices of images into batches of similar size.

    Parameters
    ----------
    shapes : sequence of tuple of int
        ``(height, width)`` of each image.
    batch_size : int
        Maximum number of images of up to 128 by 128 pixels in a batch; batches of
        larger images have fewer.
    order : Tensor, shape (N,), int64, optional
        The indices in the order to use; by default 0, 1, 2, ...
    min_size : int
        Minimum number of images in a batch. With 1, the default, all images of a
        batch have one size; with more, rare sizes are grouped with the next size.

    Yields
    ------
    Tensor, shape (B,), int64
        Each index appears once.

    Examples
    --------
    >>> shapes = [(32, 32), (48, 48), (32, 32), (48, 48)]
    >>> [part.tolist() for part in batches_of_similar_size(shapes, batch_size=4)]
    [[0, 2], [1, 3]]
    """
    indices = torch.arange(len(shapes)) if order is None else order
    by_size: dict[tuple[int, int], list[int]] = defaultdict(list)
    for index in indices.tolist():
        by_size[shapes[index]].append(index)
    groups = _group_rare_sizes(by_size) if min_size > 1 else list(by_size.values())
    parts: list[Tensor] = []
    for group in groups:
        height = max(shapes[index][0] for index in group)
        width = max(shapes[index][1] for index in group)
        size = min(batch_size, batch_size * PIXELS // (height * width))
        size = max(min_size, size)
        parts += batches(len(group), size, torch.tensor(group), min_size)
    rank = {index: k for k, index in enumerate(indices.tolist())}
    yield from sorted(parts, key=lambda part: rank[int(part[0])])


class SizeBucketSampler(Sampler[list[int]]):
    """Batches of images of similar size, for the `batch_sampler` of a DataLoader.

    Parameters
    ----------
    shapes : sequence of tuple of int
        ``(height, width)`` of each image of the dataset.
    batch_size : int
        Maximum number of images of up to 128 by 128 pixels in a batch, at least 1.
    shuffle : bool
        Use a new order in each epoch; by default True.
    seed : int
        Seed of the order, at least 0; by default 0.
    min_size : int
        Minimum number of images in a batch, unless there are fewer; by default 2,
        which batch norm needs.

    Examples
    --------
    >>> from torch.utils.data import DataLoader
    >>> images = [torch.rand(1, side, side) for side in (32, 48, 32, 48)]
    >>> sampler = SizeBucketSampler([i.shape[1:] for i in images], 2, shuffle=False)
    >>> loader = DataLoader(images, batch_sampler=sampler, collate_fn=collate_images)
    >>> [tuple(batch.shape) for batch in loader]
    [(2, 1, 32, 32), (2, 1, 48, 48)]
    """

    def __init__(
        self,
        shapes: Sequence[Sequence[int]],
        batch_size: int,
        shuffle: bool = True,
        seed: int = 0,
        min_size: int = MIN_BATCH,
    ) -> None:
        self.shapes = [(int(height), int(width)) for height, width in shapes]
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.min_size = min_size
        self.generator = torch.Generator().manual_seed(seed)

    def __iter__(self) -> Iterator[list[int]]:
        order = None
        if self.shuffle:
            order = torch.randperm(len(self.shapes), generator=self.generator)
        for part in self._batches(order):
            yield part.tolist()

    def __len__(self) -> int:
        return sum(1 for _ in self._batches(None))

    def _batches(self, order: Tensor | None) -> Iterator[Tensor]:
        return batches_of_similar_size(
            self.shapes, self.batch_size, order, self.min_size
        )


def collate_images(items: Sequence[Any]) -> Tensor:
    """Images of different sizes as one batch, for the `collate_fn` of a DataLoader.

    Parameters
    ----------
    items : sequence of Tensor, each of shape (C, H, W), or of pairs that begin with one
        At least one.

    Returns
    -------
    Tensor, shape (B, C, H, W)
        H and W are the largest height and width; smaller images are padded by
        reflection.

    Examples
    --------
    >>> collate_images([torch.zeros(1, 2, 2), torch.ones(1, 3, 2)]).shape
    torch.Size([2, 1, 3, 2])
    """
    images = [i[0] if isinstance(i, tuple | list) else i for i in items]
    height = max(image.shape[1] for image in images)
    width = max(image.shape[2] for image in images)
    return torch.stack([pad_by_reflection(image, height, width) for image in images])


def split_images(
    data: Dataset[Any], test_fraction: float = 0.1, seed: int = 0
) -> tuple[Subset[Any], Subset[Any]]:
    """Divide a dataset at random into training and test images.

    Parameters
    ----------
    data : Dataset
        A dataset with a length.
    test_fraction : float
        Fraction of test images, from 0 to below 1; by default 0.1.
    seed : int
        At least 0; by default 0. The same seed and length give the same split.

    Returns
    -------
    train, test : torch.utils.data.Subset

    Raises
    ------
    ValueError
        `test_fraction` is out of range.

    Examples
    --------
    >>> train, test = split_images(torch.rand(20, 1, 8, 8), test_fraction=0.2)
    >>> len(train), len(test), test[0].shape
    (16, 4, torch.Size([1, 8, 8]))
    """
    if not 0 <= test_fraction < 1:
        raise ValueError(
            f"test_fraction: found {test_fraction}; allowed is 0 to below 1"
        )
    number = len(data)  # type: ignore[arg-type]
    test_number = round(test_fraction * number)
    generator = torch.Generator().manual_seed(seed)
    train, test = random_split(data, [number - test_number, test_number], generator)
    return train, test


def _group_rare_sizes(by_size: dict[tuple[int, int], list[int]]) -> list[list[int]]:
    """Group sizes that have few images with the next size.

    Images that are taller than wide come last: in a batch with wide ones, both would
    be padded.
    """
    groups: list[list[int]] = []
    for size in sorted(by_size, key=lambda size: (size[0] > size[1], max(size), size)):
        if groups and len(groups[-1]) < MIN_GROUP:
            groups[-1] += by_size[size]
        else:
            groups.append(list(by_size[size]))
    if len(groups) > 1 and len(groups[-1]) < MIN_GROUP:
        last = groups.pop()
        groups[-1] += last
    return groups
