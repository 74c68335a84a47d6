"""Images for training: chosen from tensor shards, given in batches or one by one."""

import logging
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset

from astromorph import artefacts
from astromorph.artefacts import SPLIT_COLUMNS
from astromorph.batching import batches, like_sizes, mirrored
from astromorph.cache import TensorShard, read_shard
from astromorph.errors import AstromorphError
from astromorph.memory import available
from astromorph.moved import moved

LOG = logging.getLogger(__name__)


class CachedDataset(Dataset[Tensor]):
    """Images of one size, in memory.

    Parameters
    ----------
    images : Tensor, shape (N, C, H, W), float16 or float32
        From 0 to 1.
    stacksize : int
        How often a single channel is repeated.

    Raises
    ------
    AstromorphError
        `stacksize` is over 1 and the images have several channels already.
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
        Of each image, which part it is in and where there.
    stacksize : int
        How often a single channel is repeated.

    Raises
    ------
    AstromorphError
        `stacksize` is over 1 and the images have several channels already.
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
        How often a single channel is repeated.

    Raises
    ------
    AstromorphError
        `stacksize` is over 1 and the images have several channels already.
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
        batch = torch.stack([mirrored(i, height, width) for i in chosen]).float()
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
        yield from like_sizes(shapes, batch_size, order, fewest)


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
        See `astromorph.preprocess.Prepared`.
    """

    images: ImageSet | None
    image_ids: list[str]
    statistics: dict[str, Tensor]


def images_of(data: Any) -> ImageSet | None:
    """Images of whatever a user has, in memory.

    Parameters
    ----------
    data : Tensor, Dataset, DataLoader, sequence or None
        Images `(N, C, H, W)`; one of the classes of this module; or what gives one
        image at a time, as `(C, H, W)`, `(H, W)`, several copies `(K, C, H, W)` of
        which the first counts, or any of these with something behind it, such as a
        label. Of a DataLoader its dataset is taken, in the order of the dataset.

    Returns
    -------
    CachedDataset, MappedDataset, NativeDataset or None
        None where there are no images.

    Raises
    ------
    ValueError
        An item is no image.
    """
    if isinstance(data, CachedDataset | MappedDataset | NativeDataset):
        return data if len(data) else None
    if isinstance(data, Tensor) and data.ndim == 4:
        return CachedDataset(data) if len(data) else None
    if isinstance(data, DataLoader):
        if isinstance(data.dataset, IterableDataset):
            data = [image for batch in data for image in _first(batch)]
        else:
            data = data.dataset
    if data is None:
        return None
    # A dataset need not stop an iteration by itself, so that it is counted out.
    number = len(data) if hasattr(data, "__len__") else None
    items = data if number is None else (data[k] for k in range(number))
    images = [_image(item, k) for k, item in enumerate(items)]
    if not images:
        return None
    if len({image.shape for image in images}) == 1:
        return CachedDataset(torch.stack(images))
    return NativeDataset(images)


def _first(item: Any) -> Any:
    """The image of a pair of image and label."""
    return item[0] if isinstance(item, tuple | list) else item


def _image(item: Any, k: int) -> Tensor:
    image = torch.as_tensor(_first(item))
    image = image if image.is_floating_point() else image.float()
    if image.ndim == 4:
        return image[0]
    if image.ndim not in (2, 3):
        raise ValueError(
            f"image {k}: found the shape {tuple(image.shape)}; allowed are (H, W), "
            "(C, H, W) and copies (K, C, H, W)"
        )
    return image if image.ndim == 3 else image[None]


def image_set(shard: TensorShard, stacksize: int) -> ImageSet | None:
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
        See `astromorph.preprocess.Prepared`.
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
        most_bytes = available() // 2
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


_MOVED = {
    "FitsFilelistDataset": "astromorph.fits_dataset",
}


def __getattr__(name: str) -> Any:
    return moved(__name__, _MOVED, name)
