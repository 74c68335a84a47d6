"""Images for training: chosen from tensor shards, given in batches or one by one."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import Dataset

from astromorph import artefacts
from astromorph.artefacts import SPLIT_COLUMNS
from astromorph.cache import read_shard
from astromorph.errors import AstromorphError

FEWEST_PER_BATCH = 2  # batch norm cannot normalise a single image


class CachedDataset(Dataset[Tensor]):
    """The images of one subset, in memory.

    Parameters
    ----------
    images : Tensor, shape (N, C, S, S), float16 or float32
        From 0 to 1.
    stacksize : int
        How often a single channel is repeated.

    Raises
    ------
    AstromorphError
        `stacksize` is over 1 and the images have several channels already.
    """

    def __init__(self, images: Tensor, stacksize: int = 1) -> None:
        channels = images.shape[1]
        if stacksize > 1 and channels > 1:
            raise AstromorphError(
                f"`data_settings.stacksize`: found {stacksize} for images of "
                f"{channels} channels; only a single one can be repeated: set it to 1"
            )
        self.images = images
        self.stacksize = stacksize

    @property
    def channels(self) -> int:
        """Channels of the images that come out."""
        return int(self.images.shape[1]) * self.stacksize

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        """One image `(C, S, S)`, float32."""
        return self.batch(torch.tensor([index]))[0]

    def batch(self, indices: Tensor) -> Tensor:
        """Images `(B, C, S, S)`, float32, of the given indices `(B,)`."""
        chosen = self.images[indices].float()
        return chosen.repeat(1, self.stacksize, 1, 1) if self.stacksize > 1 else chosen


def read_subset(
    split: str | Path, tensors: Sequence[str | Path], subset: str
) -> tuple[Tensor, list[str]]:
    """Gather one subset from the shards.

    Parameters
    ----------
    split : path
        What `split` wrote.
    tensors : sequence of path
        All shards; a file's stem is the shard's name.
    subset : str
        ``"train"`` or ``"test"``.

    Returns
    -------
    images : Tensor, shape (N, C, S, S), float16
        In the order of the list; shape (0, 1, 1, 1) where there are none.
    image_ids : list of str
        N ids.

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
    parts: list[Tensor] = []
    found: list[str] = []
    for path in tensors:
        chosen = positions.get(Path(path).stem)
        if chosen:
            shard = read_shard(path)
            if max(chosen) < len(shard.image_ids):
                parts.append(shard.images[torch.tensor(chosen)])
                found += [shard.image_ids[k] for k in chosen]
    if found != wanted:
        raise AstromorphError(
            f"{split} and the tensors do not hold the same images; run split again"
        )
    return (torch.cat(parts) if parts else torch.empty(0, 1, 1, 1)), found


def batches(
    number: int, batch_size: int, order: Tensor | None = None
) -> Iterator[Tensor]:
    """Cut `number` indices into batches of equal size, give or take one.

    Every index comes once. The last batch is no remainder that batch norm would
    choke on: all batches are about equally large, none has a single image.

    Parameters
    ----------
    number : int
        How many images there are.
    batch_size : int
        Largest batch, except where that would leave a batch of one.
    order : Tensor, shape (number,), int64, optional
        The indices in the order to use; by default 0, 1, 2, ...

    Yields
    ------
    Tensor, shape (B,), int64
    """
    if number == 0:
        return
    indices = torch.arange(number) if order is None else order
    pieces = min(-(-number // batch_size), max(1, number // FEWEST_PER_BATCH))
    yield from torch.tensor_split(indices, pieces)
