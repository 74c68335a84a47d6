"""The step `train`: from tensors and a split to a trained model."""

import json
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from astromorph import distributed
from astromorph.artefacts.columns import HISTORY_COLUMNS, TEST, TRAIN
from astromorph.artefacts.model_file import save_model
from astromorph.artefacts.run_files import RunFiles
from astromorph.artefacts.tables import write_csv
from astromorph.artefacts.tensor_shard import read_shard
from astromorph.atomic import atomic_folder, check_writable, keep_previous
from astromorph.byol.augment import SkyAugmentation
from astromorph.byol.build import make_model_file, seeded_byol
from astromorph.byol.byol import BYOL
from astromorph.byol.optimise import OPTIMIZERS, warm_up_cosine
from astromorph.byol.start_weights import load_start_weights
from astromorph.datasets.tensor_datasets import ImageSet, Subset, read_subset
from astromorph.errors import AstromorphError, explaining_write_errors
from astromorph.locks import exclusive
from astromorph.pages.pictures import thumbnail
from astromorph.processes import started_rank
from astromorph.provenance import canonical_json
from astromorph.settings.loading import parse
from astromorph.settings.presets import (
    RANDOM,
    preset_epochs,
    preset_start_share,
    simulated_images,
    start_weights_source,
)
from astromorph.settings.steps import TrainStepSettings
from astromorph.training.auxiliary_task import AuxiliaryTask, build_auxiliary_task
from astromorph.training.checkpoints import make_checkpoints
from astromorph.training.history import Epoch, summary_writer
from astromorph.training.trainer import ByolTrainer
from astromorph.training.weight_averaging import average_weights, copy_state

LOG = logging.getLogger(__name__)
TASK = "`astromorph train`"
RANDOM_START_RATE, START_WEIGHTS_RATE = 1e-3, 3e-4  # default learning rates
ROWS, PAIRS = 8, 3  # images in the picture, and pairs of views of each image
SIDE, GAP, WIDE_GAP = 96, 2, 12  # pixels: side of a view; gap in and between pairs
MEASURES = ("loss/train", "loss/test", "embedding/effective_rank", "embedding/spread")


def train(settings: TrainStepSettings, files: RunFiles, threads: int = 0) -> None:
    """Train a network on the images of a run, and write the model.

    Reads the split and all tensors; writes the model, the history, the TensorBoard
    scalars and checkpoints. For several devices, processes that train together are
    started, unless torchrun or srun has started this one as one of them; the process
    of rank 0 writes. No other training may write to the same folders.

    Parameters
    ----------
    settings : TrainStepSettings
        The settings that training depends on.
    files : RunFiles
        The files of the run, including all shards.
    threads : int
        CPU threads; 0 leaves the choice to torch.

    Raises
    ------
    AstromorphError
        The inputs do not match, there are too few images, the training diverges, its
        results cannot be written, or another training is running in the same folder.
    """
    rules = settings.training_settings
    if rules.devices * rules.nodes > 1 and not distributed.is_started():
        arguments = _command_line(settings, files, threads)
        distributed.launch(arguments, rules.devices, rules.nodes)
        return
    if threads:
        torch.set_num_threads(distributed.threads_per_process(threads))
    writes = started_rank() == 0
    with (
        _preparing_to_write(files) if writes else nullcontext(),
        distributed.process_group(rules.devices * rules.nodes),
    ):
        _train(settings, files, threads)


@contextmanager
def _preparing_to_write(files: RunFiles) -> Iterator[None]:
    """Stop before the training if it cannot be written or another one is running."""
    checkpoint = files.checkpoints / "step.pt"
    check_writable([files.model, files.history, checkpoint], [files.scalars])
    with (
        exclusive(files.checkpoints / ".lock", TASK),  # beside the model
        exclusive(files.scalars.with_name(".train.lock"), TASK),  # in the results
    ):
        yield


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
    is_known = load_start_weights(byol, settings)
    start = copy_state(byol.encoder) if is_known else None
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
    with atomic_folder(files.scalars) as log_dir:
        choices = {
            "epochs": epochs,
            "learning_rate": _learning_rate(settings),
            "images": number,
        }
        write_summary(log_dir, settings, images, choices)
        history = run(log_dir)
    if start:
        share = settings.training_settings.start_share
        share = preset_start_share(number) if share is None else share
        average_weights(byol.encoder, start, share)
        LOG.info(
            "the model has %.0f %% of the start weights (`start_share`)", 100 * share
        )
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
            f"than `representation_size`, {size}; the projector does not compress"
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
    """The task on simulated images that look like the data; None if it is off."""
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


def write_summary(
    log_dir: str | Path,
    settings: TrainStepSettings,
    images: ImageSet,
    choices: Mapping[str, int | float],
) -> None:
    """Write settings and pairs of views for TensorBoard.

    Settings are written as hyperparameters of the run, with its metrics, so that runs
    can be compared in the tab *HParams*. The picture has the tag ``views/pairs``. The
    random numbers of the training are not affected.

    Parameters
    ----------
    log_dir : path
        Folder of the run's scalars.
    settings : TrainStepSettings
        The settings of training.
    images : CachedDataset, MappedDataset or NativeDataset
        The training images.
    choices : mapping
        Values that training chose for settings that are null, such as `epochs`.
    """
    from torch.utils.tensorboard.summary import hparams

    values = dict(flatten_settings(settings.to_dict())) | dict(choices)
    with summary_writer(log_dir) as writer, explaining_write_errors(log_dir, log_dir):
        # `add_hparams` would write them as a separate run.
        summaries = hparams(values, dict.fromkeys(MEASURES, 0.0))  # type: ignore[no-untyped-call]
        for summary in summaries:
            writer._get_file_writer().add_summary(summary)  # type: ignore[no-untyped-call]
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
    """A picture of images and their views, as the network receives them.

    Parameters
    ----------
    augment : callable
        Maps images `(N, C, H, W)` to one view of each.
    images : CachedDataset, MappedDataset or NativeDataset
        Eight evenly spaced images are shown, or all if there are fewer.

    Returns
    -------
    ndarray, shape (H, W), uint8
        One row per image: the prepared image, then three pairs of views.
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
