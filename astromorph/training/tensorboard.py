"""What TensorBoard shows of a training beside its curves: settings, view pairs."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from astromorph.byol.augment import SkyAugmentation
from astromorph.datasets.tensor_datasets import ImageSet
from astromorph.pages.thumbnail import thumbnail
from astromorph.settings.sections import Settings
from astromorph.settings.steps import part_of

IMAGES, PAIRS = 8, 3  # rows of the picture, and pairs of views in a row
SIDE, GAP, WIDE = 96, 2, 12  # pixels: of a view, within a pair, between pairs
MEASURES = ("loss/train", "loss/test", "embedding/effective_rank", "embedding/spread")


def write_summary(
    log_dir: str | Path,
    settings: Settings,
    images: ImageSet,
    effective: Mapping[str, int | float],
) -> None:
    """Write settings and view pairs for TensorBoard; no random number is used up.

    Settings are hyperparameters of the run itself, beside its measures, so that the
    tab *HParams* compares runs. The picture is the tag ``views/pairs``.

    Parameters
    ----------
    log_dir : path
        Folder that the curves are written to.
    settings : Settings
        The part that `train` depends on.
    images : CachedDataset, MappedDataset or NativeDataset
        The training images.
    effective : mapping
        What training took where settings leave the choice, such as the epochs.
    """
    from torch.utils.tensorboard import SummaryWriter
    from torch.utils.tensorboard.summary import hparams

    values = dict(flatten_settings(part_of(settings, "train"))) | dict(effective)
    with SummaryWriter(str(log_dir)) as writer:
        # `add_hparams` would make another run of them.
        made = hparams(values, dict.fromkeys(MEASURES, 0.0))  # type: ignore[no-untyped-call]
        for summary in made:
            writer._get_file_writer().add_summary(summary)
        pairs = view_pairs(settings, images)
        writer.add_image("views/pairs", pairs, dataformats="HW")


def flatten_settings(
    values: Mapping[str, Any],
) -> Iterator[tuple[str, int | float | str]]:
    """Settings by their whole name, ``section.name``; those that are null left out."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            for key, inner in flatten_settings(value):
                yield f"{name}.{key}", inner
        elif isinstance(value, bool | int | float | str):
            yield name, value
        elif value is not None:
            yield name, str(value)


@torch.no_grad()
def view_pairs(settings: Settings, images: ImageSet) -> NDArray[np.uint8]:
    """A picture of some images and of views of them as the network gets them.

    Parameters
    ----------
    settings : Settings
        `augmentation_settings`, `data_settings.stacksize` and `seed` are used.
    images : CachedDataset, MappedDataset or NativeDataset
        Of which eight are shown, evenly spread, or all where there are fewer.

    Returns
    -------
    ndarray, shape (H, W), uint8
        A row for each: the image as it was prepared, then three pairs of views.
    """
    generator = torch.Generator().manual_seed(settings.seed)
    augment = SkyAugmentation(
        settings.augmentation_settings, generator, settings.data_settings.stacksize
    )
    chosen = np.linspace(0, len(images) - 1, min(IMAGES, len(images))).astype(int)
    width = SIDE + PAIRS * (WIDE + 2 * SIDE + GAP)
    picture = np.full((len(chosen) * (SIDE + GAP) - GAP, width), 255, np.uint8)
    for row, number in enumerate(chosen):
        image = images.batch(torch.tensor([int(number)]))
        views = [image, *(augment(image) for _ in range(2 * PAIRS))]
        top = row * (SIDE + GAP)
        left = 0
        for k, view in enumerate(views):
            drawn = thumbnail(view[0].float().numpy(), SIDE)
            picture[top : top + SIDE, left : left + SIDE] = drawn
            left += SIDE + (GAP if k % 2 else WIDE)
    return picture
