"""The step `train`: tensors and a split become a model."""

import logging
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from astromorph import artefacts
from astromorph.artefacts import HISTORY_COLUMNS, TEST, TRAIN
from astromorph.augment import SkyAugmentation
from astromorph.byol import BYOL
from astromorph.cache import read_shard
from astromorph.checkpoint import ModelFile, fresh, save_model
from astromorph.datasets import read_subset
from astromorph.errors import AstromorphError
from astromorph.provenance import digest
from astromorph.settings import Settings, part_of
from astromorph.trainer import ByolTrainer, Epoch

LOG = logging.getLogger(__name__)


def train(
    settings: Settings,
    split: str | Path,
    tensors: Sequence[str | Path],
    model: str | Path,
    history: str | Path,
    log_dir: str | Path,
    threads: int = 0,
) -> None:
    """Train a network by itself and write the model.

    Parameters
    ----------
    settings : Settings
        The part that `train` depends on; see `astromorph.settings.PARTS`.
    split : path
        What `split` wrote.
    tensors : sequence of path
        All shards, in order.
    model : path
        The model file to write.
    history : path
        CSV to write: losses and schedules per epoch.
    log_dir : path
        Folder for TensorBoard scalars, written anew.
    threads : int
        CPU threads; 0 leaves the choice to torch.

    Raises
    ------
    AstromorphError
        The inputs do not belong together, are too few, or training diverges.
    """
    if threads:
        torch.set_num_threads(threads)
    stacksize = settings.data_settings.stacksize
    train_data, image_ids = read_subset(split, tensors, TRAIN, stacksize)
    test_data, held_out = read_subset(split, tensors, TEST, stacksize)
    if train_data is None:
        raise AstromorphError(f"{split}: no image is in the training set")
    byol = fresh(settings, train_data.channels)
    for line in warnings_about(byol):
        LOG.warning("%s", line)
    LOG.info("%d images train, %d are held out", len(image_ids), len(held_out))
    with artefacts.replacing_folder(log_dir) as folder:
        epochs = _trainer(settings, byol).train_model(
            train_data, test_data, settings.epochs, settings.batch_size, folder
        )
    _write(settings, byol, epochs, image_ids, tensors, model, history)


def warnings_about(byol: BYOL) -> list[str]:
    """What is unwise about the sizes of the heads."""
    lines = []
    size = byol.representation_size
    if byol.projection_size >= size:
        lines.append(
            f"`byol_settings.projection_size` is {byol.projection_size}, not smaller "
            f"than `representation_size`, {size}; the loss then sees no summary"
        )
    if byol.projection_hidden_size <= size:
        lines.append(
            f"`byol_settings.projection_hidden_size` is {byol.projection_hidden_size}, "
            f"not larger than `representation_size`, {size}; the heads may be too weak"
        )
    return lines


def _trainer(settings: Settings, byol: BYOL) -> ByolTrainer:
    generator = torch.Generator().manual_seed(settings.seed + 1)
    exponential = torch.optim.lr_scheduler.ExponentialLR
    return ByolTrainer(
        byol,
        SkyAugmentation(settings.augmentation_settings, generator),
        learning_rate=settings.learning_rate,
        lr_scheduler=exponential if settings.exponential_lr else None,
        lr_scheduler_options={"gamma": settings.gamma},
        decay=settings.byol_settings.moving_average_decay,
        seed=settings.seed,
    )


def _write(
    settings: Settings,
    byol: BYOL,
    epochs: Sequence[Epoch],
    image_ids: Sequence[str],
    tensors: Sequence[str | Path],
    model: str | Path,
    history: str | Path,
) -> None:
    artefacts.write_csv(history, HISTORY_COLUMNS, [asdict(epoch) for epoch in epochs])
    channels = next(byol.encoder.parameters()).shape[1]
    save_model(
        model,
        ModelFile(
            state={name: value.cpu() for name, value in byol.state_dict().items()},
            settings=part_of(settings, "train"),
            in_channels=int(channels),
            tensor_settings=read_shard(tensors[0]).settings,
            data_digest=digest(image_ids),
        ),
    )
    LOG.info("the model was written to %s", model)
