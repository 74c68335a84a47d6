"""What a dataset, a loader or an iterable of images has, one by one."""

from collections.abc import Iterable, Iterator
from typing import Any

from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    Subset,
    default_collate,
    default_convert,
)

from astromorph.datasets.any_images import first_element
from astromorph.datasets.batching import collate_images


def underlying_data(data: Any) -> Any:
    """The dataset behind loaders and parts."""
    while isinstance(data, DataLoader | Subset):
        data = data.dataset
    return data


def iterate_items(data: Any) -> Iterator[Any]:
    """What a dataset, a loader or an iterable has, one by one."""
    if isinstance(data, DataLoader):
        own = data.collate_fn not in (default_collate, default_convert, collate_images)
        if own or isinstance(data.dataset, IterableDataset):
            for batch in data:
                yield from batch if _are_images(batch) else first_element(batch)
            return
        yield from (data.dataset[k] for k in _chosen(data))
    elif hasattr(data, "__getitem__") and hasattr(data, "__len__"):
        # A dataset need not stop an iteration by itself, so that it is counted out.
        yield from (data[k] for k in range(len(data)))
    elif hasattr(data, "__iter__"):
        yield from data
    else:
        raise ValueError(
            f"images: found a {type(data).__name__}; allowed are tensors, arrays of "
            "numpy, datasets, loaders, and what gives one image after the other"
        )


def _are_images(batch: Any) -> bool:
    """Whether it is a list of images, not a pair of images and labels."""
    return isinstance(batch, tuple | list) and all(
        isinstance(image, Tensor) and image.ndim == 3 for image in batch
    )


def _chosen(loader: DataLoader[Any]) -> Iterable[int]:
    """The items that a loader loads; all, in order, where it merely shuffles."""
    if loader.batch_sampler is None:
        choice: Any = loader.sampler
    elif type(loader.batch_sampler) is BatchSampler:
        choice = loader.batch_sampler.sampler
    else:
        return (k for part in loader.batch_sampler for k in part)
    every = len(loader.dataset)  # type: ignore[arg-type]
    plain = isinstance(choice, SequentialSampler | RandomSampler)
    if plain and len(choice) == every and not getattr(choice, "replacement", False):
        return range(every)
    return (int(k) for k in choice)
