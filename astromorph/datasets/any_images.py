"""Images of whatever a program has: tensors, arrays of numpy, lists, pairs."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

FLOATS = (torch.float16, torch.bfloat16, torch.float32)  # kept; others become float32
ALLOWED = "(H, W), (C, H, W) and batches or copies (K, C, H, W)"


def to_tensor(data: Any, name: str) -> Tensor:
    """Pixels as a tensor of floats that torch can compute with.

    Parameters
    ----------
    data : Tensor, ndarray or nested list of numbers
        Any byte order, any strides, any real type.
    name : str
        What it is, for messages.

    Returns
    -------
    Tensor
        The same pixels; float16, bfloat16 and float32 stay, all else becomes
        float32. It may share its memory with `data`.

    Raises
    ------
    ValueError
        These are no real numbers, or some are masked.
    """
    if not isinstance(data, Tensor):
        data = _from_numpy(data, name)
    if data.is_complex():
        raise ValueError(
            f"{name}: found complex pixels; allowed are real ones, such as the modulus"
        )
    pixels: Tensor = data if data.dtype in FLOATS else data.float()
    return pixels


def _from_numpy(data: Any, name: str) -> Tensor:
    kind = type(data).__name__
    if isinstance(data, np.ma.MaskedArray) and np.ma.is_masked(data):
        raise ValueError(
            f"{name}: found masked pixels; fill them first, such as with "
            "array.filled(numpy.nan), which MinMaxNorm makes 0"
        )
    try:
        array = np.asarray(data)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{name}: found a {kind} that is no image: {error}") from None
    if array.dtype.kind == "c":
        raise ValueError(
            f"{name}: found complex pixels; allowed are real ones, such as the modulus"
        )
    if array.dtype.kind not in "biuf":
        raise ValueError(
            f"{name}: found a {kind}; allowed are tensors, arrays of numpy and lists "
            "of them, of real numbers, or pairs that begin with one"
        )
    half = array.dtype.kind == "f" and array.dtype.itemsize == 2
    # Native byte order and positive strides, which torch wants; a copy only where
    # it is not so already, or where it must not be written to.
    array = np.require(array, np.float16 if half else np.float32, ["C", "W"])
    return torch.from_numpy(array)


def to_batch(data: Any, name: str = "images") -> Tensor:
    """A batch of images as a tensor.

    Parameters
    ----------
    data : Tensor, ndarray or sequence of either, shape (N, C, H, W)
        See `to_tensor`.
    name : str
        What it is, for messages.

    Returns
    -------
    Tensor, shape (N, C, H, W)

    Raises
    ------
    ValueError
        It has another shape.
    """
    batch = to_tensor(data, name)
    if batch.ndim != 4:
        raise ValueError(
            f"{name}: found the shape {tuple(batch.shape)}; allowed is (N, C, H, W), "
            "and of a single image (1, C, H, W)"
        )
    return batch


def first_element(item: Any) -> Any:
    """The image of a pair of image and label."""
    return item[0] if isinstance(item, tuple | list) and len(item) else item


def to_images(item: Any, k: int, copies: bool) -> Iterator[Tensor]:
    """The images of one item of a dataset.

    Parameters
    ----------
    item : Tensor, ndarray or a pair that begins with one
        ``(H, W)``, ``(C, H, W)``, or several images ``(K, C, H, W)``.
    k : int
        Its number, for messages.
    copies : bool
        Several are known to be copies of one image, of which the first counts. Else
        they are, where each is the first one turned or mirrored.

    Yields
    ------
    Tensor, shape (C, H, W)

    Raises
    ------
    ValueError
        It is no image.
    """
    image = to_tensor(first_element(item), f"image {k}")
    if image.ndim not in (2, 3, 4) or image.numel() == 0:
        raise ValueError(
            f"image {k}: found the shape {tuple(image.shape)}; allowed are {ALLOWED}"
        )
    if image.ndim < 4:
        yield image if image.ndim == 3 else image[None]
    elif copies or _of_one_image(image):
        yield image[0]
    else:
        yield from image


def _of_one_image(images: Tensor) -> bool:
    """Whether each is the first one turned or mirrored."""
    one = images[0]
    upright = [one.rot90(n, (1, 2)) for n in range(4)]
    alike = [view for turned in upright for view in (turned, turned.flip(2))]
    return all(
        any(_same(image, view) for view in alike if view.shape == image.shape)
        for image in images[1:]
    )


def _same(one: Tensor, other: Tensor) -> bool:
    return bool(((one == other) | (one.isnan() & other.isnan())).all())


def check_same_kind(images: Sequence[Tensor]) -> None:
    """Refuse images of different numbers of channels.

    Parameters
    ----------
    images : sequence of Tensor, each of shape (C, H, W)
        At least one.

    Raises
    ------
    ValueError
        The first that differs is named.
    """
    wanted = images[0].shape[0]
    for k, image in enumerate(images):
        if image.shape[0] != wanted:
            raise ValueError(
                f"image {k}: found {image.shape[0]} channels, but {wanted} in image 0; "
                "all images must have as many"
            )


def first_non_finite(images: Sequence[Tensor] | Tensor) -> int | None:
    """The number of the first image with NaN or infinite pixels; None without any."""
    for k, image in enumerate(images):
        if not bool(image.isfinite().all()):
            return k
    return None
