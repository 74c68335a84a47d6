"""What the simulated sky teaches: to name what is shown and to measure its shape.

The shapes of simulated images are known. A head on the encoder learns to tell
them, so that the encoder learns what shapes are, from as many images as one likes;
a small set of real ones cannot teach that. No label of the data is used.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from astromorph.byol.byol import BYOL
from astromorph.datasets.tensor_datasets import CachedDataset, ImageSet, NativeDataset
from astromorph.errors import AstromorphError
from astromorph.settings.presets import SIMULATED
from astromorph.settings.sections import PreprocessSettings
from astromorph.sky.objects import SORTS
from astromorph.sky.shapes import MEASURES
from astromorph.sky.training_set import (
    Appearance,
    DrawingRules,
    LabelledImages,
    draw_labelled_images,
    measure_appearance,
)

if TYPE_CHECKING:
    from astromorph.datasets.prepared_images import PreparedImages

LOG = logging.getLogger(__name__)
SHAPE_WEIGHT = 2.0  # of the measures against the sorts
LARGEST = 4.0  # standard deviations; a measure beyond counts as this much
LOOKED_AT = 256  # images that tell what the data are like


class AuxiliaryTask(nn.Module):
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

    def __init__(
        self, lessons: LabelledImages, features: int, stacksize: int = 1
    ) -> None:
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


def build_auxiliary_task(
    data: ImageSet,
    statistics: Mapping[str, Tensor],
    rules: PreprocessSettings,
    representation_size: int,
    number: int = SIMULATED,
    *,
    stacksize: int = 1,
    seed: int = 0,
    processes: int = 1,
) -> AuxiliaryTask:
    """Draw simulated images like the data, and who teaches from them.

    Parameters
    ----------
    data : CachedDataset, MappedDataset or NativeDataset
        The training images, N, from 0 to 1.
    statistics : mapping of str to Tensor, shape (N,)
        See `astromorph.preprocessing.prepare.Prepared`.
    rules : PreprocessSettings
        How they became tensors.
    representation_size : int
        Length D of an embedding.
    number : int
        Simulated images, at least 1.
    stacksize : int
        How often a single channel is repeated in `data`.
    seed : int
        Of what is drawn and of the head's weights.
    processes : int
        How many draw at the same time; no influence on what is drawn.

    Returns
    -------
    Teacher
    """
    draft = DrawingRules(
        seed=seed,
        size=simulated_side(data),
        channels=data.channels // stacksize,
        rules=rules,
        like=appearance_of(data, statistics),
    )
    LOG.info("%d simulated images join the training", number)
    lessons = draw_labelled_images(draft, number, processes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed + 1)
        return AuxiliaryTask(lessons, representation_size, stacksize)


def auxiliary_task_for(
    images: "PreparedImages",
    byol: BYOL,
    number: int = SIMULATED,
    seed: int = 0,
    processes: int = 1,
) -> AuxiliaryTask:
    """The lessons of the workflow, for `ByolTrainer(byol, teacher=...)`.

    Simulated images with the noise and the beam of yours, prepared alike, whose
    shapes are known. They make up half of each batch; a head on the encoder learns
    to tell what they show. 12,000 take one to three minutes on one core.

    Parameters
    ----------
    images : PreparedImages
        What is trained on; see `prepared_images`.
    byol : BYOL
        What is trained; its `representation_size` is used.
    number : int
        Simulated images, at least 1.
    seed : int
        Of what is drawn and of the head's weights.
    processes : int
        How many draw at the same time, from 1; no influence on what is drawn. A
        program that asks for more than 1 needs ``if __name__ == "__main__":``.

    Returns
    -------
    Teacher

    Raises
    ------
    AstromorphError
        There are no images, or `number` is below 1.

    Examples
    --------
    >>> import tempfile
    >>> from astromorph import AstroMorphologyModel, prepared_images
    >>> from astromorph.sky.simulate import simulate
    >>> images = prepared_images(simulate(tempfile.mkdtemp(), number=4, seed=0))
    >>> teacher = auxiliary_task_for(images, BYOL(AstroMorphologyModel(1)), number=8)
    >>> len(teacher), teacher.images[0].shape
    (8, torch.Size([1, 64, 64]))
    """
    if number < 1:
        raise AstromorphError(f"number: found {number}; give 1 or more")
    data = make_image_set(images.images)
    if data is None:
        raise AstromorphError("lessons: found 0 images; at least 1 is needed")
    return build_auxiliary_task(
        data,
        images.statistics,
        images.settings.preprocess_settings,
        byol.representation_size,
        number,
        stacksize=images.settings.data_settings.stacksize,
        seed=seed,
        processes=processes,
    )


def make_image_set(images: Tensor | Sequence[Tensor]) -> ImageSet | None:
    """Prepared images as the workflow's trainer has them; None without any."""
    if len(images) == 0:
        return None
    if isinstance(images, Tensor):
        return CachedDataset(images)
    return NativeDataset(images)


def simulated_side(data: ImageSet) -> int:
    """Side of simulated images that join these: theirs, or about the middle one."""
    if not isinstance(data, NativeDataset):
        return int(data[0].shape[-1])
    sides = sorted(max(image.shape[1:]) for image in data.images)
    return int(min(128, max(32, sides[len(sides) // 2])))


def appearance_of(data: ImageSet, statistics: Mapping[str, Tensor]) -> Appearance:
    """What some of the images look like; see `measure_appearance`.

    Parameters
    ----------
    data : CachedDataset or NativeDataset
        The N training images.
    statistics : dict of str to Tensor, shape (N,)
        See `astromorph.preprocessing.prepare.Prepared`.
    """
    side = simulated_side(data)
    images = []
    for k in range(min(len(data), LOOKED_AT)):
        image = data[k][:1, :side, :side]
        short = (0, side - image.shape[2], 0, side - image.shape[1])
        images.append(functional.pad(image, short, mode="replicate")[0].numpy())
    first = {name: column[:LOOKED_AT].numpy() for name, column in statistics.items()}
    noise = np.where(first["noise"] > 0, first["noise"], np.inf)
    signals = (first["maximum"] - first["background"]) / noise
    return measure_appearance(np.stack(images), signals, first["stretched_noise"])
