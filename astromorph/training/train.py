"""The step `train`: tensors and a split become a model."""

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

import torch

from astromorph import distributed
from astromorph.artefacts import tables as artefacts
from astromorph.artefacts.model_file import save_model
from astromorph.artefacts.tables import HISTORY_COLUMNS, TEST, TRAIN
from astromorph.artefacts.tensor_shard import read_shard
from astromorph.atomic import atomic_folder, keep_previous, remove_leftovers
from astromorph.byol.augment import SkyAugmentation
from astromorph.byol.build import make_model_file, seeded_byol
from astromorph.byol.byol import BYOL
from astromorph.byol.optimise import OPTIMIZERS, warm_up_cosine
from astromorph.byol.start_weights import (
    RANDOM,
    load_start_weights,
    start_weights_source,
)
from astromorph.datasets.tensor_datasets import Subset, read_subset
from astromorph.errors import AstromorphError
from astromorph.provenance import canonical_json
from astromorph.settings.loading import parse
from astromorph.settings.presets import preset_epochs, simulated_images
from astromorph.settings.sections import Settings
from astromorph.settings.steps import part_of
from astromorph.training.auxiliary_task import AuxiliaryTask, build_auxiliary_task
from astromorph.training.checkpoints import make_checkpoints
from astromorph.training.history import Epoch
from astromorph.training.tensorboard import write_summary
from astromorph.training.trainer import ByolTrainer

LOG = logging.getLogger(__name__)
RATES = {True: 1e-3, False: 3e-4}  # learning rates from random and from given weights


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

    With several devices, processes are started that do so together, unless
    torchrun or srun has started this one as one of them. The first one writes.

    Parameters
    ----------
    settings : Settings
        The part that `train` depends on; see `astromorph.settings.steps.PARTS`.
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
    devices = settings.training_settings.devices
    nodes = settings.training_settings.nodes
    if devices * nodes > 1 and not distributed.is_started():
        part = canonical_json(part_of(settings, "train"))
        named = {"--settings": part, "--results": Path(history).parents[1],
                 "--shards": len(tensors), "--trained-network-name": model,
                 "--threads": threads}  # fmt: skip
        arguments = [str(word) for pair in named.items() for word in pair]
        distributed.launch(["astromorph", "train", *arguments], devices, nodes)
        return
    if threads:
        torch.set_num_threads(distributed.threads_per_process(threads))
    with distributed.process_group(devices * nodes):
        _train(settings, split, tensors, (model, history, log_dir), threads)


def _train(
    settings: Settings,
    split: str | Path,
    tensors: Sequence[str | Path],
    outputs: tuple[str | Path, str | Path, str | Path],
    threads: int,
) -> None:
    """The same in one of the processes, or the only one."""
    model, history, log_dir = outputs
    stacksize = settings.data_settings.stacksize
    train_data = read_subset(split, tensors, TRAIN, stacksize)
    test_data = read_subset(split, tensors, TEST, stacksize)
    images = train_data.images
    if images is None:
        raise AstromorphError(f"{split}: no image is in the training set")
    byol = seeded_byol(settings, images.channels)
    load_start_weights(byol, settings)
    for line in warnings_about(byol):
        LOG.warning("%s", line)
    number = len(train_data.image_ids)
    LOG.info("%d images train, %d are held out", number, len(test_data.image_ids))
    made_with = read_shard(tensors[0]).settings
    trainer = _trainer(
        settings, byol, _teacher(settings, train_data, made_with, byol, threads)
    )
    LOG.info("on %s, in %s", trainer.device, trainer.precision.dtype)
    epochs = settings.epochs or preset_epochs(number)
    checkpoints = make_checkpoints(
        settings, byol, (train_data, test_data), made_with, model, epochs
    )

    def work(folder: Path | None) -> list[Epoch]:
        with checkpoints.listening():
            goes_on = checkpoints.restore(trainer)
            record = trainer.train_model(
                images, test_data.images, epochs, settings.batch_size, folder,
                resume=goes_on, after_step=checkpoints.after_step,
            )  # fmt: skip
        checkpoints.finish(trainer)
        return record

    if distributed.rank() > 0:
        work(None)
        return
    remove_leftovers(log_dir)
    with atomic_folder(log_dir) as folder:
        taken = {"epochs": epochs, "learning_rate": trainer.rates[0], "images": number}
        write_summary(folder, settings, images, taken)
        record = work(folder)
    made = make_model_file(
        byol, settings, images.channels, made_with, train_data.image_ids
    )
    artefacts.write_csv(history, HISTORY_COLUMNS, [asdict(e) for e in record])
    save_model(model, made)
    keep_previous(model)
    LOG.info("the model was written to %s", model)


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


def _teacher(
    settings: Settings, data: Subset, made_with: str, byol: BYOL, processes: int
) -> AuxiliaryTask | None:
    """Simulated images like the data, and who teaches from them."""
    wanted = simulated_images(settings, len(data.image_ids))
    if wanted == 0 or data.images is None:
        return None
    prepared = parse(json.loads(made_with), "the tensors' settings")
    return build_auxiliary_task(
        data.images,
        data.statistics,
        prepared.preprocess_settings,
        byol.representation_size,
        wanted,
        stacksize=settings.data_settings.stacksize,
        seed=settings.seed,
        processes=processes or 1,
    )


def _trainer(
    settings: Settings, byol: BYOL, teacher: AuxiliaryTask | None
) -> ByolTrainer:
    rules = settings.training_settings
    schedule: Callable[[int, int], float] = partial(
        warm_up_cosine, warm_up=rules.warm_up
    )
    by_epoch = settings.exponential_lr
    return ByolTrainer(
        byol,
        augmentation_function=SkyAugmentation(
            settings.augmentation_settings, stacksize=settings.data_settings.stacksize
        ),
        optimizer=OPTIMIZERS[rules.optimizer],
        learning_rate=settings.learning_rate
        or RATES[start_weights_source(settings) == RANDOM],
        lr_scheduler=torch.optim.lr_scheduler.ExponentialLR if by_epoch else None,
        lr_scheduler_options={"gamma": settings.gamma},
        schedule=None if by_epoch else schedule,
        seed=settings.seed,
        precision=rules.precision,
        compile=rules.compile,
        teacher=teacher,
        lesson_weight=rules.lesson_weight,
    )
