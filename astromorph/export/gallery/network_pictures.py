"""Pictures of prepared images as the network sees them, and views of them."""

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from astromorph.artefacts.tensor_shard import TensorShard, read_shard
from astromorph.byol.augment import SkyAugmentation
from astromorph.errors import AstromorphError
from astromorph.settings.loading import parse
from astromorph.settings.sections import PreprocessSettings, Settings


@dataclass(frozen=True, slots=True)
class NetworkImages:
    """Some images of the shards; pixels are read when they are asked for.

    Attributes
    ----------
    places : dict of str to tuple
        Shard, from 0, and position of each image.
    parts : list of list of Tensor
        The images of each shard, mapped.
    rules : PreprocessSettings
        How they were made.
    """

    places: dict[str, tuple[int, int]]
    parts: "list[Sequence[Tensor]]"
    rules: PreprocessSettings

    def tensor(self, image_id: str) -> Tensor:
        """One image `(C, H, W)`, float32."""
        shard, position = self.places[image_id]
        return self.parts[shard][position].float()

    def pixels(self, image_id: str) -> NDArray[np.float32]:
        """The mean of its channels, `(H, W)`, float32."""
        return _gray(self.tensor(image_id))


def find_images(
    tensors: Sequence[str | Path], wanted: Collection[str]
) -> NetworkImages:
    """Find images in the shards, without reading their pixels.

    Parameters
    ----------
    tensors : sequence of path
        All shards, in order, at least one.
    wanted : set of str
        Ids.

    Returns
    -------
    PreparedImages

    Raises
    ------
    AstromorphError
        An image is in no shard, or a file is no shard.
    """
    places: dict[str, tuple[int, int]] = {}
    parts: list[Sequence[Tensor]] = []
    made_with = "{}"
    for number, path in enumerate(tensors):
        shard = read_shard(path)
        made_with = shard.settings
        here = {i: k for k, i in enumerate(shard.image_ids) if i in wanted}
        places |= {image_id: (number, k) for image_id, k in here.items()}
        parts.append(_images(shard) if here else ())
    missing = sorted(set(wanted) - set(places))
    if missing:
        raise AstromorphError(
            f"{tensors[0]}: the image {missing[0]} of the analysis is in none of the "
            f"{len(tensors)} shards; run preprocess, infer and analyse again"
        )
    rules = parse(json.loads(made_with), "the tensors' settings").preprocess_settings
    return NetworkImages(places, parts, rules)


def _images(shard: TensorShard) -> Sequence[Tensor]:
    """What gives the image of a position; a tensor of one size does so itself."""
    return shard.images if shard.images.ndim == 4 else shard.each()  # type: ignore[return-value]


def augmented_views(
    image: Tensor, settings: Settings, seed: int, views: int
) -> list[NDArray[np.float32]]:
    """Views of an image as training makes them.

    Parameters
    ----------
    image : Tensor, shape (C, H, W), float32
        From 0 to 1.
    settings : Settings
        Of the training: `augmentation_settings` and `data_settings.stacksize`.
    seed : int
        Of the views' random numbers.
    views : int
        How many.

    Returns
    -------
    list of ndarray, each of shape (H, W), float32
        The mean of the channels.
    """
    stacksize = settings.data_settings.stacksize
    augment = SkyAugmentation(
        settings.augmentation_settings,
        torch.Generator().manual_seed(seed),
        stacksize,
    )
    batch = image[None].repeat(1, stacksize, 1, 1)
    return [_gray(augment(batch)[0]) for _ in range(views)]


def _gray(image: Tensor) -> NDArray[np.float32]:
    gray: NDArray[np.float32] = image.mean(dim=0).numpy()
    return gray
