"""Images for training: chosen from tensor shards, given in batches or one by one."""

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
from astromorph.artefacts.tables import SPLIT_COLUMNS
from astromorph.artefacts.tensor_shard import TensorShard, read_shard
from astromorph.datasets.any_images import check_same_kind, to_images, to_tensor
from astromorph.datasets.batching import (
    batches,
    batches_of_similar_size,
    pad_by_reflection,
)
from astromorph.datasets.items import iterate_items, underlying_data
from astromorph.devices import available_memory
from astromorph.errors import AstromorphError

LOG = logging.getLogger(__name__)


class CachedDataset(Dataset[Tensor]):
    """Images of one size, in memory.

    Parameters
    ----------
    images : Tensor, shape (N, C, H, W), float16 or float32
        From 0 to 1; not checked here. `to_image_set` takes any other range.
    stacksize : int
        How often a single channel is repeated, at least 1.

    Attributes
    ----------
    channels : int
        C times `stacksize`.

    Raises
    ------
    AstromorphError
        `stacksize` is over 1 and the images have several channels already.

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
        self.channels = _stacked(int(images.shape[1]), stacksize)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        """One image `(C, H, W)`, float32."""
        return self.batch(torch.tensor([index]))[0]

    def batch(self, indices: Tensor) -> Tensor:
        """Images `(B, C, H, W)`, float32, of the given indices `(B,)`."""
        chosen = self.images[indices].float()
        return chosen.repeat(1, self.stacksize, 1, 1) if self.stacksize > 1 else chosen

    def subset(self, indices: Sequence[int]) -> "CachedDataset":
        """Some of the images, in the order of `indices`."""
        chosen = self.images[torch.tensor(indices)]
        return CachedDataset(chosen, self.stacksize)

    def batches(
        self, batch_size: int, order: Tensor | None = None, fewest: int = 1
    ) -> Iterator[Tensor]:
        """Indices of batches; each image comes once. See `batches`."""
        return batches(len(self), batch_size, order, fewest)


class MappedDataset(Dataset[Tensor]):
    """Images of one size that stay in their files until a batch needs them.

    Parameters
    ----------
    parts : sequence of Tensor, each of shape (M, C, H, W)
        Images of a file, mapped into memory; at least one file.
    places : Tensor, shape (N, 2), int64
        Of each image, which part it is in and where there, both from 0.
    stacksize : int
        How often a single channel is repeated, at least 1.

    Attributes
    ----------
    channels : int
        C times `stacksize`.

    Raises
    ------
    AstromorphError
        `stacksize` is over 1 and the images have several channels already.

    Examples
    --------
    >>> parts = [torch.zeros(4, 1, 32, 32), torch.ones(2, 1, 32, 32)]
    >>> data = MappedDataset(parts, torch.tensor([[0, 3], [1, 0], [1, 1]]))
    >>> data.batch(torch.tensor([0, 2])).mean(dim=(1, 2, 3))
    tensor([0., 1.])
    """

    def __init__(
        self, parts: Sequence[Tensor], places: Tensor, stacksize: int = 1
    ) -> None:
        self.parts = parts
        self.places = places
        self.stacksize = stacksize
        self.channels = _stacked(int(parts[0].shape[1]), stacksize)

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> Tensor:
        """One image `(C, H, W)`, float32."""
        return self.batch(torch.tensor([index]))[0]

    def batch(self, indices: Tensor) -> Tensor:
        """Images `(B, C, H, W)`, float32, of the given indices `(B,)`."""
        files, rows = self.places[indices].unbind(dim=1)
        chosen = torch.empty(len(indices), *self.parts[0].shape[1:])
        for file in sorted(set(files.tolist())):
            here = files == file
            # In the order of the file, as disks like it.
            order = rows[here].argsort()
            target = here.nonzero().squeeze(1)[order]
            chosen[target] = self.parts[file][rows[target]].float()
        return chosen.repeat(1, self.stacksize, 1, 1) if self.stacksize > 1 else chosen

    def subset(self, indices: Sequence[int]) -> "MappedDataset":
        """Some of the images, in the order of `indices`."""
        chosen = self.places[torch.tensor(indices)]
        return MappedDataset(self.parts, chosen, self.stacksize)

    def batches(
        self, batch_size: int, order: Tensor | None = None, fewest: int = 1
    ) -> Iterator[Tensor]:
        """Indices of batches; each image comes once. See `batches`."""
        return batches(len(self), batch_size, order, fewest)


class NativeDataset(Dataset[Tensor]):
    """Images of different sizes; a batch holds images of one size or like sizes.

    Parameters
    ----------
    images : sequence of Tensor, each of shape (C, H, W)
        From 0 to 1, all with the same number of channels, at least one image.
    stacksize : int
        How often a single channel is repeated, at least 1.

    Attributes
    ----------
    channels : int
        C times `stacksize`.

    Raises
    ------
    AstromorphError
        `stacksize` is over 1 and the images have several channels already.

    Examples
    --------
    >>> data = NativeDataset([torch.rand(1, 32, 40), torch.rand(1, 48, 32)])
    >>> data[1].shape, data.batch(torch.tensor([0, 1])).shape
    (torch.Size([1, 48, 32]), torch.Size([2, 1, 48, 40]))
    """

    def __init__(self, images: Sequence[Tensor], stacksize: int = 1) -> None:
        self.images = images
        self.stacksize = stacksize
        self.channels = _stacked(int(images[0].shape[0]), stacksize)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        """One image `(C, H, W)`, float32, in its own size."""
        return self.batch(torch.tensor([index]))[0]

    def batch(self, indices: Tensor) -> Tensor:
        """Images `(B, C, H, W)`, float32, all as large as the largest of them.

        Beyond the edge of a smaller image its mirror image is seen.
        """
        chosen = [self.images[k] for k in indices.tolist()]
        height = max(image.shape[1] for image in chosen)
        width = max(image.shape[2] for image in chosen)
        batch = torch.stack(
            [pad_by_reflection(i, height, width) for i in chosen]
        ).float()
        return batch.repeat(1, self.stacksize, 1, 1) if self.stacksize > 1 else batch

    def subset(self, indices: Sequence[int]) -> "NativeDataset":
        """Some of the images, in the order of `indices`."""
        return NativeDataset([self.images[k] for k in indices], self.stacksize)

    def batches(
        self, batch_size: int, order: Tensor | None = None, fewest: int = 1
    ) -> Iterator[Tensor]:
        """Indices of batches of like size; each image comes once.

        Parameters
        ----------
        batch_size : int
            Largest batch of images of up to 128 by 128 pixels; batches of
            larger images are smaller.
        order : Tensor, shape (N,), int64, optional
            The indices in the order to use.
        fewest : int
            Smallest batch. With 1 every batch has one size; with more, sizes
            that few images have are joined.

        Yields
        ------
        Tensor, shape (B,), int64
        """
        shapes = [(int(i.shape[1]), int(i.shape[2])) for i in self.images]
        yield from batches_of_similar_size(shapes, batch_size, order, fewest)


ImageSet = CachedDataset | MappedDataset | NativeDataset


@dataclass(frozen=True, slots=True)
class Subset:
    """Some images of a run.

    Attributes
    ----------
    images : CachedDataset, MappedDataset, NativeDataset or None
        N images; None where there are none.
    image_ids : list of str
        N ids.
    statistics : dict of str to Tensor, shape (N,), float32
        See `astromorph.preprocessing.prepare.Prepared`.
    """

    images: ImageSet | None
    image_ids: list[str]
    statistics: dict[str, Tensor]


def to_image_set(data: Any) -> ImageSet | None:
    """Images of whatever a user has, in memory.

    Each item is taken once, now: a dataset that changes its images at random, such as
    one with a random transform, is drawn from once and not again in each epoch. Views
    that differ each time are the work of `augmentation_function`.

    Parameters
    ----------
    data : Tensor, ndarray, Dataset, DataLoader, iterable or None
        Images `(N, C, H, W)` or `(N, H, W)`; one of the classes of this module; or
        what gives one image at a time, as `(C, H, W)` or `(H, W)`, or several,
        `(K, C, H, W)`, which count as K images unless they are copies of one: those of
        `FitsFilelistDataset` and of any dataset whose `gives_copies` is true, or the
        first one turned or mirrored. Behind each of these may be something else, such
        as a label. Of a DataLoader the dataset is
        taken, as its `sampler` or `batch_sampler` chooses from it; where it has a
        `collate_fn` of its own, what this gives. Its batches are not kept.

    Returns
    -------
    CachedDataset, MappedDataset, NativeDataset or None
        Of the pixels as they are, float16 or float32; NativeDataset where sizes
        differ. None where there are no images.

    Raises
    ------
    ValueError
        An item is no image, or has another number of channels than the first.

    Examples
    --------
    >>> import numpy as np
    >>> images = images_of([np.zeros((32, 40)), np.zeros((32, 32))])
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
    for k, item in enumerate(iterate_items(data)):
        images += to_images(item, k, copies)
    if not images:
        return None
    check_same_kind(images)
    if len({image.shape for image in images}) == 1:
        return CachedDataset(torch.stack(images))
    return NativeDataset(images)


def shard_image_set(shard: TensorShard, stacksize: int) -> ImageSet | None:
    """All images of a shard; None where it has none."""
    if len(shard) == 0:
        return None
    if shard.images.ndim == 4:
        return CachedDataset(shard.images, stacksize)
    return NativeDataset(shard.each(), stacksize)


def read_subset(
    split: str | Path,
    tensors: Sequence[str | Path],
    subset: str,
    stacksize: int = 1,
    most_bytes: int | None = None,
) -> Subset:
    """Gather one subset from the shards.

    Parameters
    ----------
    split : path
        What `split` wrote.
    tensors : sequence of path
        All shards; a file's stem is the shard's name.
    subset : str
        ``"train"`` or ``"test"``.
    stacksize : int
        How often a single channel is repeated.
    most_bytes : int, optional
        Of memory for images; more stay in their files. By default half of what
        is free.

    Returns
    -------
    Subset
        In the order of the list.

    Raises
    ------
    AstromorphError
        The shards are not those that were split.
    """
    positions: dict[str, list[int]] = defaultdict(list)
    wanted: list[str] = []
    for row in artefacts.read_csv(split, SPLIT_COLUMNS):
        if row["subset"] == subset:
            positions[row["shard"]].append(int(row["position"]))
            wanted.append(row["image_id"])
    images, found, statistics = gather(tensors, positions, stacksize, most_bytes)
    if found != wanted:
        raise AstromorphError(
            f"{split} and the tensors do not hold the same images; run split again"
        )
    return Subset(images, found, statistics)


def gather(
    tensors: Sequence[str | Path],
    positions: Mapping[str, Sequence[int]],
    stacksize: int = 1,
    most_bytes: int | None = None,
) -> tuple[ImageSet | None, list[str], dict[str, Tensor]]:
    """Take some images out of the shards.

    Parameters
    ----------
    tensors : sequence of path
        All shards; a file's stem is the shard's name.
    positions : mapping of str to sequence of int
        Places in each shard, by its name.
    stacksize : int
        How often a single channel is repeated.
    most_bytes : int, optional
        Of memory for images; more stay in their files. By default half of what
        is free.

    Returns
    -------
    images : CachedDataset, MappedDataset, NativeDataset or None
        In the order of the shards, then of the positions; None without any. What
        a shard does not have is left out.
    image_ids : list of str
        N ids.
    statistics : dict of str to Tensor, shape (N,), float32
        See `astromorph.preprocessing.prepare.Prepared`.
    """
    parts: list[Tensor] = []
    places: list[Tensor] = []
    natives: list[Tensor] = []
    found: list[str] = []
    statistics: dict[str, list[Tensor]] = defaultdict(list)
    for path in tensors:
        chosen = positions.get(Path(path).stem)
        shard = read_shard(path) if chosen else None
        if not chosen or shard is None or max(chosen) >= len(shard):
            continue
        rows = torch.tensor(chosen)
        found += [shard.image_ids[k] for k in chosen]
        for name, column in shard.statistics.items():
            statistics[name].append(column[rows])
        if shard.images.ndim == 4:
            parts.append(shard.images)
            places.append(rows)
        else:
            every = shard.each()
            natives += [every[k] for k in chosen]
    columns = {name: torch.cat(pieces) for name, pieces in statistics.items()}
    if natives:
        return NativeDataset(natives, stacksize), found, columns
    return _of_one_size(parts, places, stacksize, most_bytes), found, columns


def _of_one_size(
    parts: Sequence[Tensor],
    places: Sequence[Tensor],
    stacksize: int,
    most_bytes: int | None,
) -> CachedDataset | MappedDataset | None:
    """Images in memory where they fit, else in their files."""
    if not parts:
        return None
    number = sum(len(rows) for rows in places)
    if most_bytes is None:
        most_bytes = available_memory() // 2
    if number * parts[0][0].nbytes > most_bytes:
        LOG.info("%d images stay in their files: memory is too small", number)
        file = torch.cat([torch.full_like(rows, k) for k, rows in enumerate(places)])
        where = torch.stack([file, torch.cat(list(places))], dim=1)
        return MappedDataset(parts, where, stacksize)
    images = parts[0].new_empty(number, *parts[0].shape[1:])
    start = 0
    for part, rows in zip(parts, places, strict=True):
        torch.index_select(part, 0, rows, out=images[start : start + len(rows)])
        start += len(rows)
    return CachedDataset(images, stacksize)


def _stacked(channels: int, stacksize: int) -> int:
    if stacksize > 1 and channels > 1:
        raise AstromorphError(
            f"`data_settings.stacksize`: found {stacksize} for images of {channels} "
            "channels; only a single one can be repeated: set it to 1"
        )
    return channels * stacksize
