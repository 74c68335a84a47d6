"""What TensorBoard shows of a training besides its curves: settings, pairs of views."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from astromorph.byol.augment import SkyAugmentation
from astromorph.datasets.tensor_datasets import ImageSet
from astromorph.pages.thumbnail import thumbnail
from astromorph.settings.steps import TrainStepSettings

ROWS, PAIRS = 8, 3  # images in the picture, and pairs of views of each image
SIDE, GAP, WIDE_GAP = 96, 2, 12  # pixels: of a view, in a pair, between pairs
MEASURES = ("loss/train", "loss/test", "embedding/effective_rank", "embedding/spread")


def write_summary(
    log_dir: str | Path,
    settings: TrainStepSettings,
    images: ImageSet,
    choices: Mapping[str, int | float],
) -> None:
    """Write settings and pairs of views for TensorBoard.

    Settings are written as hyperparameters of the run itself, with its measures, so
    that the tab *HParams* compares runs. The picture has the tag ``views/pairs``. No
    random number of the training is used.

    Parameters
    ----------
    log_dir : path
        Folder of the run's scalars.
    settings : TrainStepSettings
        The settings of training.
    images : CachedDataset, MappedDataset or NativeDataset
        The training images.
    choices : mapping
        Values that training chose where settings are null, such as the epochs.
    """
    from torch.utils.tensorboard import SummaryWriter
    from torch.utils.tensorboard.summary import hparams

    values = dict(flatten_settings(settings.to_dict())) | dict(choices)
    with SummaryWriter(str(log_dir)) as writer:
        # `add_hparams` would write them as another run.
        summaries = hparams(values, dict.fromkeys(MEASURES, 0.0))  # type: ignore[no-untyped-call]
        for summary in summaries:
            writer._get_file_writer().add_summary(summary)
        augment = SkyAugmentation(
            settings.augmentation_settings,
            torch.Generator().manual_seed(settings.seed),
            settings.stacksize,
        )
        picture = draw_view_pairs(augment, images)
        writer.add_image("views/pairs", picture, dataformats="HW")


def flatten_settings(
    values: Mapping[str, Any],
) -> Iterator[tuple[str, int | float | str]]:
    """Settings by their full name, ``section.name``, without those that are null."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            for key, inner in flatten_settings(value):
                yield f"{name}.{key}", inner
        elif isinstance(value, bool | int | float | str):
            yield name, value
        elif value is not None:
            yield name, str(value)


@torch.no_grad()
def draw_view_pairs(
    augment: Callable[[Tensor], Tensor], images: ImageSet
) -> NDArray[np.uint8]:
    """A picture of images and of their views, as the network receives them.

    Parameters
    ----------
    augment : callable
        Images `(N, C, H, W)` to one view of each.
    images : CachedDataset, MappedDataset or NativeDataset
        Eight of them are shown, evenly spaced, or all if there are fewer.

    Returns
    -------
    ndarray, shape (H, W), uint8
        A row for each image: the prepared image, then three pairs of views.
    """
    chosen = np.linspace(0, len(images) - 1, min(ROWS, len(images))).astype(int)
    width = SIDE + PAIRS * (WIDE_GAP + 2 * SIDE + GAP)
    picture = np.full((len(chosen) * (SIDE + GAP) - GAP, width), 255, np.uint8)
    for row, index in enumerate(chosen):
        image = images.batch(torch.tensor([int(index)]))
        views = [image, *(augment(image) for _ in range(2 * PAIRS))]
        top = row * (SIDE + GAP)
        left = 0
        for k, view in enumerate(views):
            drawn = thumbnail(view[0].float().numpy(), SIDE)
            picture[top : top + SIDE, left : left + SIDE] = drawn
            left += SIDE + (GAP if k % 2 else WIDE_GAP)
    return picture
