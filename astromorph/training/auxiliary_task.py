"""An auxiliary task on simulated images: predict their kind and their shape.

The shapes of simulated images are known, and a linear head on the encoder predicts
them. The encoder thus learns about shapes from as many images as needed, which a small
set of observed images cannot provide. No labels of the data are used.
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
from astromorph.sky.morphologies import MORPHOLOGIES
from astromorph.sky.training_set import (
    MEASURES,
    Appearance,
    DrawingRules,
    LabelledImages,
    draw_labelled_images,
    measure_appearance,
)

if TYPE_CHECKING:
    from astromorph.datasets.fits_images import PreparedImages

LOG = logging.getLogger(__name__)
SHAPE_WEIGHT = 2.0  # weight of the shape measures relative to the kinds
MAX_DEVIATION = 4.0  # standard deviations; larger deviations are clipped
MAX_MEASURED = 256  # training images whose appearance is measured
MIN_NATIVE_SIDE, MAX_NATIVE_SIDE = 32, 128  # pixels, for data of different sizes


class AuxiliaryTask(nn.Module):
    """Predict the kind and the shape of simulated images from their embeddings.

    Parameters
    ----------
    labelled_images : LabelledImages
        N simulated images with their kinds and shape measures.
    representation_size : int
        Length D of an embedding.
    stacksize : int
        Number of times that a single channel is repeated.

    Attributes
    ----------
    images : CachedDataset
        The simulated images.
    kinds : Tensor, shape (N,), int64
        Index of each image's kind.
    shapes : Tensor, shape (N, M), float32
        Standardised shape measures; NaN for an image without an object.
    head : nn.Linear
        Predicts the kind and the measures.
    """

    def __init__(
        self,
        labelled_images: LabelledImages,
        representation_size: int,
        stacksize: int = 1,
    ) -> None:
        super().__init__()
        self.images = CachedDataset(torch.from_numpy(labelled_images.images), stacksize)
        self.kinds = torch.from_numpy(labelled_images.morphologies)
        shapes = torch.from_numpy(labelled_images.shapes)
        self.shapes = shapes.clamp(-MAX_DEVIATION, MAX_DEVIATION)
        share = float(_has_shape(self.shapes).float().mean())
        self.share_with_shape = max(share, 1 / len(self.images))
        self.head = nn.Linear(representation_size, len(MORPHOLOGIES) + len(MEASURES))

    def __len__(self) -> int:
        return len(self.images)

    def forward(self, embeddings: Tensor, indices: Tensor) -> Tensor:
        """The loss of the head's predictions.

        Parameters
        ----------
        embeddings : Tensor, shape (B, D)
            Embeddings of views of simulated images.
        indices : Tensor, shape (B,), int64, on the CPU
            Indices of these images.

        Returns
        -------
        Tensor, shape ()
            Cross entropy of the kinds plus twice the smooth L1 loss of the shape
            measures. Images without an object have no measures; the others are
            weighted to compensate for that.
        """
        predictions = self.head(embeddings).float()
        kinds = self.kinds[indices].to(predictions.device)
        shapes = self.shapes[indices].to(predictions.device)
        kind_loss = functional.cross_entropy(predictions[:, : len(MORPHOLOGIES)], kinds)
        has_shape = _has_shape(shapes).to(predictions.dtype)[:, None]
        shape_loss = functional.smooth_l1_loss(
            predictions[:, len(MORPHOLOGIES) :] * has_shape,
            shapes.nan_to_num(0) * has_shape,
        )
        # The share among all images, not these: where several processes divide a
        # batch, the mean of their losses is then the loss of the whole batch.
        return kind_loss + SHAPE_WEIGHT * (shape_loss / self.share_with_shape)


def _has_shape(shapes: Tensor) -> Tensor:
    return ~shapes.isnan().any(dim=1)


def build_auxiliary_task(
    images: ImageSet,
    statistics: Mapping[str, Tensor],
    rules: PreprocessSettings,
    representation_size: int,
    number: int = SIMULATED,
    *,
    stacksize: int = 1,
    seed: int = 0,
    processes: int = 1,
) -> AuxiliaryTask:
    """Draw simulated images that look like the data, and build the task from them.

    Parameters
    ----------
    images : CachedDataset, MappedDataset or NativeDataset
        The N training images, from 0 to 1.
    statistics : mapping of str to Tensor, shape (N,)
        See `astromorph.preprocessing.image_to_tensor.Prepared`.
    rules : PreprocessSettings
        How the training images were prepared.
    representation_size : int
        Length D of an embedding.
    number : int
        Number of simulated images, at least 1.
    stacksize : int
        Number of times that a single channel is repeated in `images`.
    seed : int
        Determines the simulated images and the weights of the head.
    processes : int
        Number of processes that draw; it does not affect the images.

    Returns
    -------
    AuxiliaryTask
    """
    drawing_rules = DrawingRules(
        seed=seed,
        size=simulated_side(images),
        channels=images.channels // stacksize,
        preprocessing=rules,
        appearance=appearance_of(images, statistics),
    )
    LOG.info("drawing %d simulated images for the auxiliary task", number)
    labelled_images = draw_labelled_images(drawing_rules, number, processes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed + 1)
        return AuxiliaryTask(labelled_images, representation_size, stacksize)


def auxiliary_task_for(
    images: "PreparedImages",
    byol: BYOL,
    number: int = SIMULATED,
    seed: int = 0,
    processes: int = 1,
) -> AuxiliaryTask:
    """The workflow's auxiliary task, for ``ByolTrainer(byol, auxiliary_task=...)``.

    It uses simulated images of known shape, with the noise and the beam of your images
    and prepared in the same way. They make up half of each batch; a head on the
    encoder learns to predict their kinds and shapes. Drawing 12,000 takes one to three
    minutes on one core.

    Parameters
    ----------
    images : PreparedImages
        The training images; see `prepared_images`.
    byol : BYOL
        The network to train; only its `representation_size` is used.
    number : int
        Number of simulated images, at least 1.
    seed : int
        Determines the simulated images and the weights of the head.
    processes : int
        Number of processes that draw, at least 1; it does not affect the images. A
        program needs no ``if __name__ == "__main__":`` for them.

    Returns
    -------
    AuxiliaryTask

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
    >>> task = auxiliary_task_for(images, BYOL(AstroMorphologyModel(1)), number=8)
    >>> len(task), task.images[0].shape
    (8, torch.Size([1, 64, 64]))
    """
    if number < 1:
        raise AstromorphError(f"number: found {number}; give 1 or more")
    image_set = _as_image_set(images.images)
    if image_set is None:
        raise AstromorphError("auxiliary task: found 0 images; at least 1 is needed")
    return build_auxiliary_task(
        image_set,
        images.statistics,
        images.settings.preprocess_settings,
        byol.representation_size,
        number,
        stacksize=images.settings.data_settings.stacksize,
        seed=seed,
        processes=processes,
    )


def _as_image_set(images: Tensor | Sequence[Tensor]) -> ImageSet | None:
    """Prepared images as an image set; None if there are none."""
    if len(images) == 0:
        return None
    if isinstance(images, Tensor):
        return CachedDataset(images)
    return NativeDataset(images)


def simulated_side(images: ImageSet) -> int:
    """Side of the simulated images, in pixels.

    The side of the training images or, if their sizes differ, the median of their
    longer sides, limited to 32 to 128.
    """
    if not isinstance(images, NativeDataset):
        return int(images[0].shape[-1])
    sides = sorted(max(image.shape[1:]) for image in images.images)
    return int(min(MAX_NATIVE_SIDE, max(MIN_NATIVE_SIDE, sides[len(sides) // 2])))


def appearance_of(images: ImageSet, statistics: Mapping[str, Tensor]) -> Appearance:
    """Noise, beam and brightness of the first images; see `measure_appearance`.

    Parameters
    ----------
    images : CachedDataset, MappedDataset or NativeDataset
        The N training images.
    statistics : mapping of str to Tensor, shape (N,)
        See `astromorph.preprocessing.image_to_tensor.Prepared`.
    """
    side = simulated_side(images)
    planes = []
    for k in range(min(len(images), MAX_MEASURED)):
        plane = images[k][:1, :side, :side]
        padding = (0, side - plane.shape[2], 0, side - plane.shape[1])
        planes.append(functional.pad(plane, padding, mode="replicate")[0].numpy())
    first = {name: values[:MAX_MEASURED].numpy() for name, values in statistics.items()}
    noise = np.where(first["noise"] > 0, first["noise"], np.inf)
    signals = (first["maximum"] - first["background"]) / noise
    return measure_appearance(np.stack(planes), signals, first["stretched_noise"])
