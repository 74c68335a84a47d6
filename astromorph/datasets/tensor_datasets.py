"""Datasets of prepared images: in memory, memory-mapped, or of different sizes."""

import logging
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from astromorph.artefacts import tables as artefacts
from astromorph.artefacts.columns import SPLIT_COLUMNS
from astromorph.artefacts.tensor_shard import TensorShard, read_shard
from astromorph.datasets.any_images import (
    check_same_kind,
    iterate_items,
    to_images,
    to_tensor,
    underlying_data,
)
from astromorph.datasets.batching import (
    batches,
    batches_of_similar_size,
    collate_images,
)
from astromorph.devices import available_memory
from astromorph.errors import AstromorphError

LOG = logging.getLogger(__name__)


class CachedDataset(Dataset[Tensor]):
    """Images of one size, in memory.

    Parameters
    ----------
    images : Tensor, shape (N, C, H, W), float16 or float32
        Values from 0 to 1, which is not checked.
    stacksize : int
        Number of times that a single channel is repeated, at least 1.

    Attributes
    ----------
    channels : int
        C times `stacksize`.

    Raises
    ------
    AstromorphError
        `stacksize` is above 1 and the images have several channels.

    Examples
    --------
    >>> data = CachedDataset(torch.rand(5, 1, 32, 32), stacksize=3)
    >>> len(data), data[0].shape, data.channels
    (5, torch.Size([3, 32, 32]), 3)
    >>> [len(indices) for indices in data.batches(2)]
    [3, 2]
    """

    def __init__(self, images: Tensor, stacksize: int = 1) -> None:
        self.images = images
        self.stacksize = stacksize
        self.channels = _count_channels(int(images.shape[1]), stacksize)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        """One image `(C, H, W)`, float32."""
        return self.batch(torch.tensor([index]))[0]

    def batch(self, indices: Tensor) -> Tensor:
        """Images `(B, C, H, W)`, float32, at the indices `(B,)`."""
        return _repeat_channel(self.images[indices].float(), self.stacksize)

    def subset(self, indices: Sequence[int]) -> "CachedDataset":
        """The images at `indices`, in this order."""
        return CachedDataset(self.images[torch.tensor(indices)], self.stacksize)

    def batches(
        self, batch_size: int, order: Tensor | None = None, min_size: int = 1
    ) -> Iterator[Tensor]:
        """Indices `(B,)` of each batch; each image appears once.

        See `astromorph.datasets.batching.batches`.
        """
        return batches(len(self), batch_size, order, min_size)


class MappedDataset(Dataset[Tensor]):
    """Images of one size that are read from memory-mapped files batch by batch.

    Parameters
    ----------
    shards : sequence of Tensor, each of shape (M, C, H, W)
        The images of each file, mapped into memory; at least one file.
    positions : Tensor, shape (N, 2), int64
        For each image, the index of its shard and its index in the shard.
    stacksize : int
        Number of times that a single channel is repeated, at least 1.

    Attributes
    ----------
    channels : int
        C times `stacksize`.

    Raises
    ------
    AstromorphError
        `stacksize` is above 1 and the images have several channels.

    Examples
    --------
    >>> shards = [torch.zeros(4, 1, 32, 32), torch.ones(2, 1, 32, 32)]
    >>> data = MappedDataset(shards, torch.tensor([[0, 3], [1, 0], [1, 1]]))
    >>> data.batch(torch.tensor([0, 2])).mean(dim=(1, 2, 3))
    tensor([0., 1.])
    """

    def __init__(
        self, shards: Sequence[Tensor], positions: Tensor, stacksize: int = 1
    ) -> None:
        self.shards = shards
        self.positions = positions
        self.stacksize = stacksize
        self.channels = _count_channels(int(shards[0].shape[1]), stacksize)

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, index: int) -> Tensor:
        """One image `(C, H, W)`, float32."""
        return self.batch(torch.tensor([index]))[0]

    def batch(self, indices: Tensor) -> Tensor:
        """Images `(B, C, H, W)`, float32, at the indices `(B,)`."""
        shards, rows = self.positions[indices].unbind(dim=1)
        images = torch.empty(len(indices), *self.shards[0].shape[1:])
        for shard in sorted(set(shards.tolist())):
            in_shard = shards == shard
            # Reading in file order is fastest.
            order = rows[in_shard].argsort()
            target = in_shard.nonzero().squeeze(1)[order]
            images[target] = self.shards[shard][rows[target]].float()
        return _repeat_channel(images, self.stacksize)

    def subset(self, indices: Sequence[int]) -> "MappedDataset":
        """The images at `indices`, in this order."""
        positions = self.positions[torch.tensor(indices)]
        return MappedDataset(self.shards, positions, self.stacksize)

    def batches(
        self, batch_size: int, order: Tensor | None = None, min_size: int = 1
    ) -> Iterator[Tensor]:
        """Indices `(B,)` of each batch; each image appears once.

        See `astromorph.datasets.batching.batches`.
        """
        return batches(len(self), batch_size, order, min_size)


class NativeDataset(Dataset[Tensor]):
    """Images of different sizes; those in a batch have the same or similar sizes.

    Parameters
    ----------
    images : sequence of Tensor, each of shape (C, H, W)
        At least one image; values from 0 to 1, all with the same number of channels.
    stacksize : int
        Number of times that a single channel is repeated, at least 1.

    Attributes
    ----------
    channels : int
        C times `stacksize`.

    Raises
    ------
    AstromorphError
        `stacksize` is above 1 and the images have several channels.

    Examples
    --------
    >>> data = NativeDataset([torch.rand(1, 32, 40), torch.rand(1, 48, 32)])
    >>> data[1].shape, data.batch(torch.tensor([0, 1])).shape
    (torch.Size([1, 48, 32]), torch.Size([2, 1, 48, 40]))
    """

    def __init__(self, images: Sequence[Tensor], stacksize: int = 1) -> None:
        self.images = images
        self.stacksize = stacksize
        self.channels = _count_channels(int(images[0].shape[0]), stacksize)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        """One image `(C, H, W)`, float32, at its own size."""
        return self.batch(torch.tensor([index]))[0]

    def batch(self, indices: Tensor) -> Tensor:
        """Images `(B, C, H, W)`, float32.

        H and W are the largest height and width; smaller images are padded by
        reflection.
        """
        images = collate_images([self.images[index] for index in indices.tolist()])
        return _repeat_channel(images.float(), self.stacksize)

    def subset(self, indices: Sequence[int]) -> "NativeDataset":
        """The images at `indices`, in this order."""
        return NativeDataset([self.images[index] for index in indices], self.stacksize)

    def batches(
        self, batch_size: int, order: Tensor | None = None, min_size: int = 1
    ) -> Iterator[Tensor]:
        """Indices `(B,)` of batches of similar size; each image appears once.

        See `astromorph.datasets.batching.batches_of_similar_size`.
        """
        shapes = [(int(image.shape[1]), int(image.shape[2])) for image in self.images]
        return batches_of_similar_size(shapes, batch_size, order, min_size)


ImageSet = CachedDataset | MappedDataset | NativeDataset


@dataclass(frozen=True, slots=True)
class Subset:
    """The training or test images of a run.

    Attributes
    ----------
    images : CachedDataset, MappedDataset, NativeDataset or None
        N images; None if there are none.
    image_ids : list of str
        N ids.
    statistics : dict of str to Tensor, shape (N,), float32
        See `astromorph.preprocessing.image_to_tensor.Prepared`.
    """

    images: ImageSet | None
    image_ids: list[str]
    statistics: dict[str, Tensor]


def to_image_set(data: Any) -> ImageSet | None:
    """Load images from any kind of data.

    Each item is read into memory once, immediately. A dataset with random transforms
    is therefore sampled once, not in each epoch: random views are the task of
    `augmentation_function`.

    Parameters
    ----------
    data : Tensor, ndarray, Dataset, DataLoader, iterable or None
        Images `(N, C, H, W)` or `(N, H, W)`; a dataset of this module; or anything
        that yields images `(C, H, W)` or `(H, W)` one by one, or several as
        `(K, C, H, W)`. These count as K images unless they are copies of one: the
        items of `FitsFilelistDataset` and of any dataset whose `gives_copies` is
        True, or the first image rotated or mirrored. Each item may be a pair that
        begins with the image, such as image and label. From a DataLoader, the items
        that its `sampler` or `batch_sampler` chooses are read, or its batches if it
        has a `collate_fn` of its own.

    Returns
    -------
    CachedDataset, MappedDataset, NativeDataset or None
        The unchanged pixels, as float16, bfloat16 or float32; NativeDataset if sizes
        differ. None if there are no images.

    Raises
    ------
    ValueError
        An item is not an image, or its number of channels differs from the first.

    Examples
    --------
    >>> import numpy as np
    >>> images = to_image_set([np.zeros((32, 40)), np.zeros((32, 32))])
    >>> len(images), images[0].shape
    (2, torch.Size([1, 32, 40]))
    """
    if data is None:
        return None
    if isinstance(data, CachedDataset | MappedDataset | NativeDataset):
        return data if len(data) else None
    if isinstance(data, Tensor | np.ndarray) and data.ndim in (3, 4):
        batch = to_tensor(data, "images")
        batch = batch if batch.ndim == 4 else batch[:, None]
        return CachedDataset(batch) if len(batch) else None
    copies = bool(getattr(underlying_data(data), "gives_copies", False))
    images: list[Tensor] = []
    for index, item in enumerate(iterate_items(data)):
        images += to_images(item, index, copies)
    if not images:
        return None
    check_same_kind(images)
    if len({image.shape for image in images}) == 1:
        return CachedDataset(torch.stack(images))
    return NativeDataset(images)


def shard_image_set(shard: TensorShard, stacksize: int) -> ImageSet | None:
    """All images of a shard; None if it is empty."""
    if len(shard) == 0:
        return None
    if shard.images.ndim == 4:
        return CachedDataset(shard.images, stacksize)
    return NativeDataset(shard.image_list(), stacksize)


def read_subset(
    split: str | Path,
    tensors: Sequence[str | Path],
    subset: str,
    stacksize: int = 1,
    max_bytes: int | None = None,
) -> Subset:
    """Read the images of one subset.

    Parameters
    ----------
    split : path
        The table written by the step `split`.
    tensors : sequence of path
        All shards; the stem of a file is the name of its shard.
    subset : str
        ``"train"`` or ``"test"``.
    stacksize : int
        Number of times that a single channel is repeated.
    max_bytes : int, optional
        Memory for images, in bytes; if it is too small, they are memory-mapped. By
        default half of the available memory.

    Returns
    -------
    Subset
        In the order of the list.

    Raises
    ------
    AstromorphError
        The shards and the split have different images.
    """
    positions: dict[str, list[int]] = defaultdict(list)
    expected_ids: list[str] = []
    for row in artefacts.read_csv(split, SPLIT_COLUMNS):
        if row["subset"] == subset:
            positions[row["shard"]].append(int(row["position"]))
            expected_ids.append(row["image_id"])
    images, image_ids, statistics = gather(tensors, positions, stacksize, max_bytes)
    if image_ids != expected_ids:
        raise AstromorphError(
            f"{split} and the tensors do not have the same images; run split again"
        )
    return Subset(images, image_ids, statistics)


def gather(
    tensors: Sequence[str | Path],
    positions: Mapping[str, Sequence[int]],
    stacksize: int = 1,
    max_bytes: int | None = None,
) -> tuple[ImageSet | None, list[str], dict[str, Tensor]]:
    """Read chosen images of the shards.

    Parameters
    ----------
    tensors : sequence of path
        All shards; the stem of a file is the name of its shard.
    positions : mapping of str to sequence of int
        For each shard, by name, the indices of the images in it.
    stacksize : int
        Number of times that a single channel is repeated.
    max_bytes : int, optional
        Memory for images, in bytes; if it is too small, they are memory-mapped. By
        default half of the available memory.

    Returns
    -------
    images : CachedDataset, MappedDataset, NativeDataset or None
        In the order of the shards, then of the positions; None if there are none.
        Shards with fewer images than the positions require are skipped.
    image_ids : list of str
        N ids.
    statistics : dict of str to Tensor, shape (N,), float32
        See `astromorph.preprocessing.image_to_tensor.Prepared`.
    """
    shards: list[Tensor] = []
    indices: list[Tensor] = []
    native_images: list[Tensor] = []
    image_ids: list[str] = []
    statistics: dict[str, list[Tensor]] = defaultdict(list)
    for path in tensors:
        chosen = positions.get(Path(path).stem)
        shard = read_shard(path) if chosen else None
        if not chosen or shard is None or max(chosen) >= len(shard):
            continue
        rows = torch.tensor(chosen)
        image_ids += [shard.image_ids[row] for row in chosen]
        for name, column in shard.statistics.items():
            statistics[name].append(column[rows])
        if shard.images.ndim == 4:
            shards.append(shard.images)
            indices.append(rows)
        else:
            images = shard.image_list()
            native_images += [images[row] for row in chosen]
    columns = {name: torch.cat(pieces) for name, pieces in statistics.items()}
    if native_images:
        return NativeDataset(native_images, stacksize), image_ids, columns
    data = _load_or_map(shards, indices, stacksize, max_bytes)
    return data, image_ids, columns


def _load_or_map(
    shards: Sequence[Tensor],
    indices: Sequence[Tensor],
    stacksize: int,
    max_bytes: int | None,
) -> CachedDataset | MappedDataset | None:
    """Images of one size: in memory if they fit, else memory-mapped."""
    if not shards:
        return None
    number = sum(len(rows) for rows in indices)
    if max_bytes is None:
        max_bytes = available_memory() // 2
    if number * shards[0][0].nbytes > max_bytes:
        LOG.info("%d images do not fit in memory and are read batch by batch", number)
        shard = torch.cat([torch.full_like(rows, k) for k, rows in enumerate(indices)])
        positions = torch.stack([shard, torch.cat(list(indices))], dim=1)
        return MappedDataset(shards, positions, stacksize)
    images = shards[0].new_empty(number, *shards[0].shape[1:])
    start = 0
    for shard, rows in zip(shards, indices, strict=True):
        torch.index_select(shard, 0, rows, out=images[start : start + len(rows)])
        start += len(rows)
    return CachedDataset(images, stacksize)


def _repeat_channel(images: Tensor, stacksize: int) -> Tensor:
    """Repeat the channel of single-channel images `stacksize` times."""
    return images.repeat(1, stacksize, 1, 1) if stacksize > 1 else images


def _count_channels(channels: int, stacksize: int) -> int:
    """Channels of the network's input."""
    if stacksize > 1 and channels > 1:
        raise AstromorphError(
            f"`data_settings.stacksize`: found {stacksize} for images with {channels} "
            "channels; only a single channel can be repeated: set it to 1"
        )
    return channels * stacksize
