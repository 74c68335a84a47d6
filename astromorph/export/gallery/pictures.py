"""Pictures of FITS files, of prepared images and of augmented views."""

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from astromorph.artefacts.run_files import ShardFile
from astromorph.artefacts.tensor_shard import TensorShard, read_shard
from astromorph.byol.augment import SkyAugmentation
from astromorph.errors import AstromorphError, FitsImageError
from astromorph.fits import image as fits_image
from astromorph.fits.pixels import Image
from astromorph.preprocessing.resample import resize
from astromorph.settings.loading import parse
from astromorph.settings.sections import (
    AugmentationSettings,
    DataSettings,
    PreprocessSettings,
)

PERCENTILES = (0.5, 99.5)
STRETCHES = {
    "linear": "LinearStretch",
    "sqrt": "SqrtStretch",
    "asinh": "AsinhStretch",
    "log": "LogStretch",
    "zscale": "LinearStretch",
}


@dataclass(frozen=True, slots=True)
class Picture:
    """The picture in a frame.

    Attributes
    ----------
    pixels : ndarray, shape (H, W), float32, or None
        From 0 to 1, first row at the bottom; NaN at bad pixels. None if there is no
        picture.
    arcsec_per_pixel : float or None
        Pixel scale along x; None if it is unknown.
    problem : str
        Why there is no picture; empty if there is one.
    """

    pixels: NDArray[np.float32] | None
    arcsec_per_pixel: float | None = None
    problem: str = ""


def picture_from_fits(
    paths: Sequence[str | Path], data: DataSettings, stretch: str, side: int
) -> Picture:
    """Read an image at full resolution, stretch it and fit it into a frame.

    Parameters
    ----------
    paths : sequence of path
        One file, or one per channel.
    data : DataSettings
        Which HDU and planes are read.
    stretch : str
        A key of `STRETCHES`.
    side : int
        Side of the frame in pixels.

    Returns
    -------
    Picture
        If the file cannot be read, it has a reason instead of pixels.
    """
    try:
        facts, image = fits_image.read_image(paths, data)
    except FitsImageError as error:
        return Picture(None, problem=str(error))
    if image.mask.all():
        return Picture(None, problem="all pixels are NaN, infinite or blank")
    return fit_into_frame(
        apply_stretch(image, stretch), image.mask, facts.pixel_scale_arcsec, side
    )


def apply_stretch(image: Image, stretch: str) -> NDArray[np.float32]:
    """Map pixel values to brightness, as `astropy.visualization` does.

    Parameters
    ----------
    image : Image
        Pixels `(C, H, W)` and mask `(H, W)`.
    stretch : str
        ``zscale`` is linear between the limits of `ZScaleInterval`; all others are
        between the 0.5 and 99.5 percentiles of the valid pixels. Each channel has its
        own limits.

    Returns
    -------
    ndarray, shape (H, W), float32
        Mean of the channels, from 0 to 1; undefined at bad pixels.
    """
    from astropy import visualization

    interval = (
        visualization.ZScaleInterval()
        if stretch == "zscale"
        else visualization.AsymmetricPercentileInterval(*PERCENTILES)
    )
    stretched = getattr(visualization, STRETCHES[stretch])()
    total = np.zeros(image.mask.shape, np.float64)
    for plane in image.pixels:
        low, high = interval.get_limits(plane[~image.mask].astype(np.float64))
        if high > low:
            total += stretched(np.clip((plane - low) / (high - low), 0, 1))
    return (total / len(image.pixels)).astype(np.float32)


def fit_into_frame(
    pixels: NDArray[np.float32],
    mask: NDArray[np.bool_] | None,
    arcsec_per_pixel: float | None,
    side: int,
) -> Picture:
    """Resize a picture so that its longer side is that of the frame.

    Parameters
    ----------
    pixels : ndarray, shape (H, W), float32
        From 0 to 1.
    mask : ndarray, shape (H, W), bool, or None
        True at bad pixels, which have no weight.
    arcsec_per_pixel : float or None
        Pixel scale along x.
    side : int
        Side of the frame in pixels.

    Returns
    -------
    Picture
    """
    height, width = pixels.shape
    longer = max(height, width)
    shape = (
        max(1, round(side * height / longer)),
        max(1, round(side * width / longer)),
    )
    bad = np.zeros(pixels.shape, np.bool_) if mask is None else mask
    resized, seen = resize(Image(pixels[None], bad), *shape)
    plane = np.where(seen, np.clip(resized[0], 0, 1), np.float32(np.nan))
    scale = arcsec_per_pixel * width / shape[1] if arcsec_per_pixel else None
    return Picture(plane.astype(np.float32), scale)


@dataclass(frozen=True, slots=True)
class ShardImages:
    """Selected images of the tensor shards; pixels are read on access.

    Attributes
    ----------
    positions : dict of str to tuple of int
        Index of the shard and position in it, by image id.
    shards : list of sequence of Tensor
        The images of each shard, memory-mapped.
    preprocessing : PreprocessSettings
        Settings that the images were prepared with.
    """

    positions: dict[str, tuple[int, int]]
    shards: list[Sequence[Tensor]]
    preprocessing: PreprocessSettings

    def tensor(self, image_id: str) -> Tensor:
        """One image `(C, H, W)`, float32."""
        shard, position = self.positions[image_id]
        return self.shards[shard][position].float()

    def pixels(self, image_id: str) -> NDArray[np.float32]:
        """Mean of the channels of one image, `(H, W)`, float32."""
        return _mean_of_channels(self.tensor(image_id))


def find_images(
    tensors: Sequence[ShardFile], image_ids: Collection[str]
) -> ShardImages:
    """Locate images in the shards, without reading their pixels.

    Parameters
    ----------
    tensors : sequence of path
        All shards, in order; at least one.
    image_ids : set of str
        The images to locate.

    Returns
    -------
    ShardImages

    Raises
    ------
    AstromorphError
        An image is in none of the shards, or a file is not a shard.
    """
    positions: dict[str, tuple[int, int]] = {}
    shards: list[Sequence[Tensor]] = []
    settings = "{}"
    for number, path in enumerate(tensors):
        shard = read_shard(path)
        settings = shard.settings
        here = {i: k for k, i in enumerate(shard.image_ids) if i in image_ids}
        positions |= {image_id: (number, k) for image_id, k in here.items()}
        shards.append(_image_sequence(shard) if here else ())
    if missing := sorted(set(image_ids) - set(positions)):
        raise AstromorphError(
            f"{tensors[0]}: the image {missing[0]} of the analysis is in none of the "
            f"{len(tensors)} shards; run `preprocess`, `infer` and `analyse` again"
        )
    preprocessing = parse(json.loads(settings), "the tensors' settings")
    return ShardImages(positions, shards, preprocessing.preprocess_settings)


def _image_sequence(shard: TensorShard) -> Sequence[Tensor]:
    """The images of a shard, which can be indexed by position."""
    return shard.images if shard.images.ndim == 4 else shard.image_list()  # type: ignore[return-value]


def augmented_views(
    image: Tensor,
    augmentation: AugmentationSettings,
    stacksize: int,
    seed: int,
    number: int,
) -> list[NDArray[np.float32]]:
    """Augmented views of an image, as in training.

    Parameters
    ----------
    image : Tensor, shape (C, H, W), float32
        From 0 to 1.
    augmentation : AugmentationSettings
        Strengths of the augmentations in training.
    stacksize : int
        Number of times that a single channel is repeated in training.
    seed : int
        Seed of the augmentations.
    number : int
        Number of views.

    Returns
    -------
    list of ndarray, each of shape (H, W), float32
        Means of the channels.
    """
    generator = torch.Generator().manual_seed(seed)
    augment = SkyAugmentation(augmentation, generator, stacksize)
    batch = image[None].repeat(1, stacksize, 1, 1)
    return [_mean_of_channels(augment(batch)[0]) for _ in range(number)]


def _mean_of_channels(image: Tensor) -> NDArray[np.float32]:
    gray: NDArray[np.float32] = image.mean(dim=0).numpy()
    return gray
