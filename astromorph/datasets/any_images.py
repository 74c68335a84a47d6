"""Conversion of images from tensors, arrays, lists, datasets and loaders."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
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

from astromorph.datasets.batching import collate_images

# Pixels of these types are not converted; all others become float32.
PIXEL_TYPES = (torch.float16, torch.bfloat16, torch.float32)
SHAPES = "(H, W), (C, H, W) and batches or copies (K, C, H, W)"


def to_tensor(data: Any, name: str) -> Tensor:
    """Convert pixels to a tensor of floats.

    Parameters
    ----------
    data : Tensor, ndarray or nested list of numbers
        Any real type, byte order and strides.
    name : str
        Name of the argument, for messages.

    Returns
    -------
    Tensor
        The same pixels: float16, bfloat16 and float32 as given, all other types as
        float32. It may share its memory with `data`.

    Raises
    ------
    ValueError
        The values are not real numbers, or some are masked.
    """
    if not isinstance(data, Tensor):
        data = _from_numpy(data, name)
    if data.is_complex():
        raise ValueError(
            f"{name}: found complex pixels; allowed are real ones, such as the modulus"
        )
    pixels: Tensor = data if data.dtype in PIXEL_TYPES else data.float()
    return pixels


def _from_numpy(data: Any, name: str) -> Tensor:
    type_name = type(data).__name__
    if isinstance(data, np.ma.MaskedArray) and np.ma.is_masked(data):
        raise ValueError(
            f"{name}: found masked pixels; fill them first, such as with "
            "array.filled(numpy.nan), which MinMaxNorm turns into 0"
        )
    try:
        array = np.asarray(data)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"{name}: found a {type_name} that is not an image: {error}"
        ) from None
    if array.dtype.kind == "c":
        raise ValueError(
            f"{name}: found complex pixels; allowed are real ones, such as the modulus"
        )
    if array.dtype.kind not in "biuf":
        raise ValueError(
            f"{name}: found a {type_name}; allowed are tensors, numpy arrays and "
            "lists of real numbers, or pairs that begin with one of these"
        )
    is_half = array.dtype.kind == "f" and array.dtype.itemsize == 2
    # torch needs native byte order, positive strides and writable memory; numpy
    # copies only where one of them is missing.
    array = np.require(array, np.float16 if is_half else np.float32, ["C", "W"])
    return torch.from_numpy(array)


def to_batch(data: Any, name: str = "images") -> Tensor:
    """Convert images to one batch.

    Parameters
    ----------
    data : Tensor, ndarray or sequence of either, shape (N, C, H, W)
        See `to_tensor`.
    name : str
        Name of the argument, for messages.

    Returns
    -------
    Tensor, shape (N, C, H, W)

    Raises
    ------
    ValueError
        The data have another shape.
    """
    batch = to_tensor(data, name)
    if batch.ndim != 4:
        raise ValueError(
            f"{name}: found the shape {tuple(batch.shape)}; allowed is (N, C, H, W), "
            "for a single image (1, C, H, W)"
        )
    return batch


def first_element(item: Any) -> Any:
    """The image in a pair of image and label; any other item is returned unchanged."""
    return item[0] if isinstance(item, tuple | list) and len(item) else item


def to_images(item: Any, index: int, copies: bool) -> Iterator[Tensor]:
    """Convert one item of a dataset to images.

    Parameters
    ----------
    item : Tensor, ndarray or a pair that begins with one
        ``(H, W)``, ``(C, H, W)``, or several images ``(K, C, H, W)``.
    index : int
        Its index in the dataset, for messages.
    copies : bool
        The K images are copies of one image, and only the first is used. If False,
        they count as copies only if each is the first one rotated or mirrored.

    Yields
    ------
    Tensor, shape (C, H, W)

    Raises
    ------
    ValueError
        The item is not an image.
    """
    image = to_tensor(first_element(item), f"image {index}")
    if image.ndim not in (2, 3, 4) or image.numel() == 0:
        raise ValueError(
            f"image {index}: found the shape {tuple(image.shape)}; allowed are {SHAPES}"
        )
    if image.ndim < 4:
        yield image if image.ndim == 3 else image[None]
    elif copies or _are_copies(image):
        yield image[0]
    else:
        yield from image


def _are_copies(images: Tensor) -> bool:
    """Whether each image is the first one rotated or mirrored."""
    rotated = [images[0].rot90(turns, (1, 2)) for turns in range(4)]
    views = [view for image in rotated for view in (image, image.flip(2))]
    return all(
        any(_are_equal(image, view) for view in views if view.shape == image.shape)
        for image in images[1:]
    )


def _are_equal(image: Tensor, other: Tensor) -> bool:
    """Whether all pixels are equal; NaN equals NaN."""
    return bool(((image == other) | (image.isnan() & other.isnan())).all())


def check_same_kind(images: Sequence[Tensor]) -> None:
    """Check that all images have the same number of channels.

    Parameters
    ----------
    images : sequence of Tensor, each of shape (C, H, W)
        At least one.

    Raises
    ------
    ValueError
        The numbers differ; the message names the first image that differs.
    """
    channels = images[0].shape[0]
    for index, image in enumerate(images):
        if image.shape[0] != channels:
            raise ValueError(
                f"image {index}: found {image.shape[0]} channels, but {channels} in "
                "image 0; all images must have the same number"
            )


def first_non_finite(images: Sequence[Tensor] | Tensor) -> int | None:
    """Index of the first image with NaN or infinite pixels, or None."""
    for index, image in enumerate(images):
        if not bool(image.isfinite().all()):
            return index
    return None


def underlying_data(data: Any) -> Any:
    """The dataset inside loaders and subsets."""
    while isinstance(data, DataLoader | Subset):
        data = data.dataset
    return data


def iterate_items(data: Any) -> Iterator[Any]:
    """Yield the items of a dataset, a loader or an iterable, one by one.

    Parameters
    ----------
    data : Dataset, DataLoader or iterable
        From a loader, the items that its sampler chooses are yielded, or its batches
        if it has a `collate_fn` of its own.

    Yields
    ------
    object

    Raises
    ------
    ValueError
        `data` is none of these.
    """
    if isinstance(data, DataLoader):
        default = (default_collate, default_convert, collate_images)
        if data.collate_fn not in default or isinstance(data.dataset, IterableDataset):
            for batch in data:
                yield from batch if _is_image_list(batch) else first_element(batch)
            return
        yield from (data.dataset[index] for index in _sampled_indices(data))
    elif hasattr(data, "__getitem__") and hasattr(data, "__len__"):
        # The length is used, because a dataset need not raise IndexError at its end.
        yield from (data[index] for index in range(len(data)))
    elif hasattr(data, "__iter__"):
        yield from data
    else:
        raise ValueError(
            f"images: found a {type(data).__name__}; allowed are tensors, numpy "
            "arrays, datasets, loaders, and iterables of images"
        )


def _is_image_list(batch: Any) -> bool:
    """Whether a batch is a list of images, not a pair of images and labels."""
    return isinstance(batch, tuple | list) and all(
        isinstance(image, Tensor) and image.ndim == 3 for image in batch
    )


def _sampled_indices(loader: DataLoader[Any]) -> Iterable[int]:
    """Indices of the items that a loader loads; ascending if it only shuffles."""
    if loader.batch_sampler is None:
        sampler: Any = loader.sampler
    elif type(loader.batch_sampler) is BatchSampler:
        sampler = loader.batch_sampler.sampler
    else:
        return (index for batch in loader.batch_sampler for index in batch)
    number = len(loader.dataset)  # type: ignore[arg-type]
    is_plain = isinstance(sampler, SequentialSampler | RandomSampler)
    with_replacement = getattr(sampler, "replacement", False)
    if is_plain and len(sampler) == number and not with_replacement:
        return range(number)
    return (int(index) for index in sampler)
