"""Batches: of equal size, of images of like size, and for torch's DataLoader."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler, Subset, random_split

MIN_BATCH = 2  # batch norm cannot normalise a single image
LIKE_SIZES = 8  # fewer images of a size than this join those of the next size
PIXELS = 128 * 128  # an image beyond this size counts as several in a batch


def batches(
    number: int,
    batch_size: int,
    order: Tensor | None = None,
    fewest: int = MIN_BATCH,
) -> Iterator[Tensor]:
    """Cut `number` indices into batches of equal size, give or take one.

    Every index comes once. The last batch is no remainder that batch norm would
    choke on: all batches are about equally large, none has a single image where
    there are more.

    Parameters
    ----------
    number : int
        How many images there are, at least 0.
    batch_size : int
        Largest batch, at least 1, except where that would leave a batch of one.
    order : Tensor, shape (number,), int64, optional
        The indices in the order to use; by default 0, 1, 2, ...
    fewest : int
        Smallest batch, except where there are fewer images; by default 2.

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
    smallest = max(fewest, MIN_BATCH)
    pieces = min(-(-number // batch_size), max(1, number // smallest))
    yield from torch.tensor_split(indices, pieces)


def pad_by_reflection(image: Tensor, height: int, width: int) -> Tensor:
    """An image `(C, h, w)` made larger, `(C, H, W)`, by its mirror images.

    Parameters
    ----------
    image : Tensor, shape (C, h, w)
        Any type.
    height, width : int
        H and W, at least h and w.

    Returns
    -------
    Tensor, shape (C, H, W)
        The image is in the middle.

    Examples
    --------
    >>> mirrored(torch.tensor([[[1, 2, 3]]]), 1, 7)
    tensor([[[2, 1, 1, 2, 3, 3, 2]]])
    """
    if image.shape[1:] == (height, width):
        return image
    rows = _reflected(image.shape[1], height)
    return image[:, rows][:, :, _reflected(image.shape[2], width)]


def _reflected(old: int, new: int) -> Tensor:
    """Indices `(new,)` from 0 to `old` that run back at either edge."""
    place = (torch.arange(new) - (new - old) // 2) % (2 * old)
    return torch.minimum(place, 2 * old - 1 - place)


def batches_of_similar_size(
    shapes: Sequence[tuple[int, int]],
    batch_size: int,
    order: Tensor | None = None,
    fewest: int = 1,
) -> Iterator[Tensor]:
    """Cut the indices of images of different sizes into batches of like size.

    Parameters
    ----------
    shapes : sequence of tuple of int
        ``(height, width)`` of each image.
    batch_size : int
        Largest batch of images of up to 128 by 128 pixels; batches of larger images
        are smaller.
    order : Tensor, shape (N,), int64, optional
        The indices in the order to use; by default 0, 1, 2, ...
    fewest : int
        Smallest batch. With 1, the default, every batch has one size; with more,
        sizes that few images have are joined.

    Yields
    ------
    Tensor, shape (B,), int64
        Each index comes once.

    Examples
    --------
    >>> shapes = [(32, 32), (48, 48), (32, 32), (48, 48)]
    >>> [part.tolist() for part in like_sizes(shapes, batch_size=4)]
    [[0, 2], [1, 3]]
    """
    indices = torch.arange(len(shapes)) if order is None else order
    groups: dict[tuple[int, int], list[int]] = defaultdict(list)
    for k in indices.tolist():
        groups[shapes[k]].append(k)
    joined = _joined(groups, LIKE_SIZES) if fewest > 1 else list(groups.values())
    parts: list[Tensor] = []
    for group in joined:
        height = max(shapes[k][0] for k in group)
        width = max(shapes[k][1] for k in group)
        fitting = max(fewest, min(batch_size, batch_size * PIXELS // (height * width)))
        parts += batches(len(group), fitting, torch.tensor(group), fewest)
    place = {int(k): at for at, k in enumerate(indices.tolist())}
    yield from sorted(parts, key=lambda part: place[int(part[0])])


class SizeBucketSampler(Sampler[list[int]]):
    """Batches of images of like size, for the `batch_sampler` of a DataLoader.

    Parameters
    ----------
    shapes : sequence of tuple of int
        ``(height, width)`` of each image of the dataset.
    batch_size : int
        Largest batch of images of up to 128 by 128 pixels, at least 1.
    shuffle : bool
        Draw a new order in each epoch; by default it does.
    seed : int
        Of the order, at least 0; by default 0.
    fewest : int
        Smallest batch, where there are as many images; by default 2, which batch
        norm needs.

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
        fewest: int = MIN_BATCH,
    ) -> None:
        self.shapes = [(int(height), int(width)) for height, width in shapes]
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.fewest = fewest
        self.generator = torch.Generator().manual_seed(seed)

    def __iter__(self) -> Iterator[list[int]]:
        order = None
        if self.shuffle:
            order = torch.randperm(len(self.shapes), generator=self.generator)
        for part in batches_of_similar_size(
            self.shapes, self.batch_size, order, self.fewest
        ):
            yield part.tolist()

    def __len__(self) -> int:
        return sum(
            1
            for _ in batches_of_similar_size(
                self.shapes, self.batch_size, None, self.fewest
            )
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
        As large as the largest; beyond the edge of a smaller image its mirror image
        is seen.

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
    """Hold some images of a dataset out of training, by lot.

    Parameters
    ----------
    data : Dataset
        With a length, N.
    test_fraction : float
        From 0 to below 1; by default 0.1.
    seed : int
        The same seed and length give the same parts; at least 0, by default 0.

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
    held_out = round(test_fraction * number)
    generator = torch.Generator().manual_seed(seed)
    train, test = random_split(data, [number - held_out, held_out], generator)
    return train, test


def _joined(groups: dict[tuple[int, int], list[int]], fewest: int) -> list[list[int]]:
    """Groups in the order of their size, the small ones joined with the next.

    Upright images come after the others: joined with them, both would grow.
    """
    joined: list[list[int]] = []
    by_size = sorted(groups.items(), key=lambda g: (g[0][0] > g[0][1], max(g[0]), g[0]))
    for _, group in by_size:
        if joined and (len(joined[-1]) < fewest):
            joined[-1] += group
        else:
            joined.append(list(group))
    if len(joined) > 1 and len(joined[-1]) < fewest:
        last = joined.pop()
        joined[-1] += last
    return joined
