"""What the simulated sky teaches: to name what is shown and to measure its shape.

The shapes of simulated images are known. A head on the encoder learns to tell
them, so that the encoder learns what shapes are, from as many images as one likes;
a small set of real ones cannot teach that. No label of the data is used.
"""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from astromorph.datasets import CachedDataset, ImageSet, NativeDataset
from astromorph.morphology import MEASURES
from astromorph.sky_lessons import Lessons, Likeness, likeness_of
from astromorph.sky_objects import SORTS

SHAPE_WEIGHT = 2.0  # of the measures against the sorts
LARGEST = 4.0  # standard deviations; a measure beyond counts as this much
LOOKED_AT = 256  # images that tell what the data are like


class Teacher(nn.Module):
    """A head that tells sort and shape of simulated images from their embeddings.

    Parameters
    ----------
    lessons : Lessons
        N simulated images.
    features : int
        Length D of an embedding.
    stacksize : int
        How often a single channel is repeated.
    """

    def __init__(self, lessons: Lessons, features: int, stacksize: int = 1) -> None:
        super().__init__()
        self.images = CachedDataset(torch.from_numpy(lessons.images), stacksize)
        self.sorts = torch.from_numpy(lessons.sorts)
        self.shapes = torch.from_numpy(lessons.shapes).clamp(-LARGEST, LARGEST)
        shown = ~self.shapes.isnan().any(dim=1)
        self.shown = max(float(shown.float().mean()), 1 / len(self.images))
        self.head = nn.Linear(features, len(SORTS) + len(MEASURES))

    def __len__(self) -> int:
        return len(self.images)

    def forward(self, embeddings: Tensor, indices: Tensor) -> Tensor:
        """How wrongly the head tells what is shown.

        Parameters
        ----------
        embeddings : Tensor, shape (B, D)
            Of views of simulated images.
        indices : Tensor, shape (B,), int64, on the CPU
            Which images these are.

        Returns
        -------
        Tensor, shape ()
            Cross entropy of the sorts plus twice the smooth L1 loss of the
            standardised measures. An image that shows nothing has none; the others
            count for more by the share of such images.
        """
        told = self.head(embeddings).float()
        sorts = self.sorts[indices].to(told.device)
        shapes = self.shapes[indices].to(told.device)
        named = functional.cross_entropy(told[:, : len(SORTS)], sorts)
        shown = (~shapes.isnan().any(dim=1)).to(told.dtype)[:, None]
        wrong = functional.smooth_l1_loss(
            told[:, len(SORTS) :] * shown, shapes.nan_to_num(0) * shown
        )
        # Over the share in all images, not in these: parts of a batch then add up.
        measured = wrong / self.shown
        return named + SHAPE_WEIGHT * measured


def side_of(data: ImageSet) -> int:
    """Side of simulated images that join these: theirs, or about the middle one."""
    if not isinstance(data, NativeDataset):
        return int(data[0].shape[-1])
    sides = sorted(max(image.shape[1:]) for image in data.images)
    return int(min(128, max(32, sides[len(sides) // 2])))


def look_at(data: ImageSet, statistics: dict[str, Tensor]) -> Likeness:
    """What some of the images look like; see `likeness_of`.

    Parameters
    ----------
    data : CachedDataset or NativeDataset
        The N training images.
    statistics : dict of str to Tensor, shape (N,)
        See `astromorph.preprocess.Prepared`.
    """
    side = side_of(data)
    images = []
    for k in range(min(len(data), LOOKED_AT)):
        image = data[k][:1, :side, :side]
        short = (0, side - image.shape[2], 0, side - image.shape[1])
        images.append(functional.pad(image, short, mode="replicate")[0].numpy())
    first = {name: column[:LOOKED_AT].numpy() for name, column in statistics.items()}
    noise = np.where(first["noise"] > 0, first["noise"], np.inf)
    signals = (first["maximum"] - first["background"]) / noise
    return likeness_of(np.stack(images), signals, first["stretched_noise"])
