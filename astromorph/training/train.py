"""The step `train`: from tensors and a split to a model."""

import json
import logging
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path

import torch

from astromorph import distributed
from astromorph.artefacts.model_file import save_model
from astromorph.artefacts.run_files import RunFiles
from astromorph.artefacts.tables import HISTORY_COLUMNS, TEST, TRAIN, write_csv
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
from astromorph.datasets.tensor_datasets import ImageSet, Subset, read_subset
from astromorph.errors import AstromorphError
from astromorph.provenance import canonical_json
from astromorph.settings.loading import parse
from astromorph.settings.presets import preset_epochs, simulated_images
from astromorph.settings.steps import TrainStepSettings
from astromorph.training.auxiliary_task import AuxiliaryTask, build_auxiliary_task
from astromorph.training.checkpoints import make_checkpoints
from astromorph.training.history import Epoch
from astromorph.training.tensorboard import write_summary
from astromorph.training.trainer import ByolTrainer

LOG = logging.getLogger(__name__)
RANDOM_START_RATE, START_WEIGHTS_RATE = 1e-3, 3e-4  # default learning rates


def train(settings: TrainStepSettings, files: RunFiles, threads: int = 0) -> None:
    """Train a network on the images of a run, and write the model.

    Reads the split and all tensors; writes the model, the history, the TensorBoard
    scalars and checkpoints. With several devices, processes are started that train
    together, unless torchrun or srun has started this one as one of them; the process
    of rank 0 writes.

    Parameters
    ----------
    settings : TrainStepSettings
        The settings that training depends on.
    files : RunFiles
        The files of the run, with all of its shards.
    threads : int
        CPU threads; 0 leaves the choice to torch.

    Raises
    ------
    AstromorphError
        The inputs do not belong together, there are too few images, or the training
        diverges.
    """
    rules = settings.training_settings
    if rules.devices * rules.nodes > 1 and not distributed.is_started():
        arguments = _command_line(settings, files, threads)
        distributed.launch(arguments, rules.devices, rules.nodes)
        return
    if threads:
        torch.set_num_threads(distributed.threads_per_process(threads))
    with distributed.process_group(rules.devices * rules.nodes):
        _train(settings, files, threads)


def _command_line(
    settings: TrainStepSettings, files: RunFiles, threads: int
) -> list[str]:
    """The command that each of several processes runs, for ``python -m``."""
    options = {
        "--settings": canonical_json(settings.to_dict()),
        "--results": files.results,
        "--shards": len(files.shards),
        "--trained-network-name": files.model,
        "--threads": threads,
    }
    words = [str(word) for option in options.items() for word in option]
    return ["astromorph", "train", *words]


def _train(settings: TrainStepSettings, files: RunFiles, threads: int) -> None:
    """Train in this process, which may be one of several."""
    train_data, images = _read_training_images(settings, files)
    test_data = read_subset(files.split, files.all_tensors, TEST, settings.stacksize)
    number = len(train_data.image_ids)
    LOG.info("%d training images, %d test images", number, len(test_data.image_ids))
    byol = seeded_byol(settings, images.channels)
    load_start_weights(byol, settings)
    for warning in size_warnings(byol):
        LOG.warning("%s", warning)
    tensor_settings = read_shard(files.all_tensors[0]).settings
    task = _make_auxiliary_task(settings, train_data, tensor_settings, byol, threads)
    trainer = _make_trainer(settings, byol, task)
    LOG.info("training on %s in %s", trainer.device, trainer.precision.dtype)
    epochs = settings.epochs or preset_epochs(number)
    checkpoints = make_checkpoints(
        settings, byol, (train_data, test_data), tensor_settings, files, epochs
    )

    def run(log_dir: Path | None) -> list[Epoch]:
        with checkpoints.listening():
            history = trainer.train_model(
                images,
                test_data.images,
                epochs,
                settings.batch_size,
                log_dir,
                resume=checkpoints.restore(trainer),
                after_step=checkpoints.after_step,
            )
        checkpoints.finish(trainer)
        return history

    if distributed.rank() > 0:
        run(None)
        return
    remove_leftovers(files.scalars)
    with atomic_folder(files.scalars) as log_dir:
        choices = {
            "epochs": epochs,
            "learning_rate": _learning_rate(settings),
            "images": number,
        }
        write_summary(log_dir, settings, images, choices)
        history = run(log_dir)
    model = make_model_file(
        byol, settings, images.channels, tensor_settings, train_data.image_ids
    )
    write_csv(files.history, HISTORY_COLUMNS, [asdict(epoch) for epoch in history])
    save_model(files.model, model)
    keep_previous(files.model)
    LOG.info("the model was written to %s", files.model)


def _read_training_images(
    settings: TrainStepSettings, files: RunFiles
) -> tuple[Subset, ImageSet]:
    subset = read_subset(files.split, files.all_tensors, TRAIN, settings.stacksize)
    if subset.images is None:
        raise AstromorphError(f"{files.split}: no image is in the training set")
    return subset, subset.images


def size_warnings(byol: BYOL) -> list[str]:
    """Warnings about unusual sizes of projector and predictor."""
    warnings = []
    size = byol.representation_size
    if byol.projection_size >= size:
        warnings.append(
            f"`byol_settings.projection_size` is {byol.projection_size}, not smaller "
            f"than `representation_size`, {size}; the projector then does not compress"
        )
    if byol.projection_hidden_size <= size:
        warnings.append(
            f"`byol_settings.projection_hidden_size` is {byol.projection_hidden_size}, "
            f"not larger than `representation_size`, {size}; the heads may be too weak"
        )
    return warnings


def _make_auxiliary_task(
    settings: TrainStepSettings,
    data: Subset,
    tensor_settings: str,
    byol: BYOL,
    processes: int,
) -> AuxiliaryTask | None:
    """The task on simulated images that look like the data; None without any."""
    number = simulated_images(settings, len(data.image_ids))
    if number == 0 or data.images is None:
        return None
    prepared = parse(json.loads(tensor_settings), "the tensors' settings")
    return build_auxiliary_task(
        data.images,
        data.statistics,
        prepared.preprocess_settings,
        byol.representation_size,
        number,
        stacksize=settings.stacksize,
        seed=settings.seed,
        processes=processes or 1,
    )


def _learning_rate(settings: TrainStepSettings) -> float:
    if settings.learning_rate:
        return settings.learning_rate
    is_random = start_weights_source(settings) == RANDOM
    return RANDOM_START_RATE if is_random else START_WEIGHTS_RATE


def _make_trainer(
    settings: TrainStepSettings, byol: BYOL, auxiliary_task: AuxiliaryTask | None
) -> ByolTrainer:
    rules = settings.training_settings
    by_step: Callable[[int, int], float] = partial(
        warm_up_cosine, warm_up=rules.warm_up
    )
    by_epoch = torch.optim.lr_scheduler.ExponentialLR
    return ByolTrainer(
        byol,
        augmentation_function=SkyAugmentation(
            settings.augmentation_settings, stacksize=settings.stacksize
        ),
        optimizer=OPTIMIZERS[rules.optimizer],
        learning_rate=_learning_rate(settings),
        lr_scheduler=by_epoch if settings.exponential_lr else None,
        lr_scheduler_options={"gamma": settings.gamma},
        schedule=None if settings.exponential_lr else by_step,
        seed=settings.seed,
        precision=rules.precision,
        compile=rules.compile,
        auxiliary_task=auxiliary_task,
        auxiliary_weight=rules.auxiliary_weight,
    )
