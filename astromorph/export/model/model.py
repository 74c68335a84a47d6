"""The command `export model`: a folder with a trained model for other people."""

import importlib.metadata
import importlib.util
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from astromorph.analysis.new_images import find_first_shard, find_symmetry
from astromorph.artefacts.columns import SPLIT_COLUMNS, TEST, TRAIN
from astromorph.artefacts.embeddings import read_embeddings
from astromorph.artefacts.model_file import ModelFile
from astromorph.artefacts.records import all_records, read_record
from astromorph.artefacts.run_files import RunFiles
from astromorph.artefacts.tables import read_csv
from astromorph.artefacts.tensor_shard import TensorShard
from astromorph.atomic import atomic_folder, check_writable
from astromorph.byol.build import load_model, training_settings_of
from astromorph.byol.encoder_file import INSTALL, save_encoder
from astromorph.errors import AstromorphError
from astromorph.export.model.card import ExportedEncoder, TrainingRun, render_card
from astromorph.export.model.onnx_file import (
    PreparedImageEncoder,
    Symmetry,
    compare_onnx,
    min_side,
    save_onnx,
)
from astromorph.preprocessing.preparation import Preparation, run_reference
from astromorph.provenance import canonical_json, digest, versions
from astromorph.settings.loading import parse
from astromorph.settings.presets import (
    RANDOM,
    SKY,
    TORCHVISION,
    start_weights_source,
)
from astromorph.settings.steps import TrainStepSettings, train_step_settings

LOG = logging.getLogger(__name__)
# Packages that the extra `model-export` installs.
PACKAGES = ("onnx", "onnxruntime", "onnxscript", "safetensors")
WEIGHTS, GRAPH = "encoder.safetensors", "encoder.onnx"
PREPARATION, CARD = "preprocessing.json", "README.md"
FORMAT, FORMAT_VERSION = "astromorph-encoder", 1
LICENCE = "BSD-3-Clause"  # of this project
LOSSES = (("train_loss", "training images"), ("test_loss", "test images"))
CHECKED_IMAGES = 16  # of a run


def export_model(
    files: RunFiles,
    output: str | Path,
    *,
    has_run: bool = True,
    datafile: str | None = None,
    symmetry: Symmetry | None = None,
) -> None:
    """Write a model as safetensors and ONNX, with its preparation and its card.

    Parameters
    ----------
    files : RunFiles
        The `model` is read and, of a run, what exists of its other files.
    output : path
        The folder to write; an existing one is replaced if it is empty or was written
        by this function.
    has_run : bool
        Whether the other files belong to the model.
    datafile : str, optional
        The file list of the run. It is needed if all images have one brightness scale
        and there is no run, or each of its images has several files.
    symmetry : {'d4', 'none'}, optional
        Whether the embeddings in ONNX are averages over flips and rotations. By default
        as in the run, or `d4` without a run.

    Raises
    ------
    AstromorphError
        A package is missing, the model or the run cannot be used, the folder contains
        other files, or the network cannot be written as ONNX.
    """
    output = Path(output)
    _check_packages()
    _check_output(output)
    check_writable([], [output])
    byol, model = load_model(files.model)
    training = _without_folders(training_settings_of(model, str(files.model)))
    preparation = _find_preparation(files, model, training, has_run, datafile)
    shard = _embedded_shard(files) if has_run else None
    if shard is not None:
        found = find_symmetry(files, shard, byol, model)
        symmetry = symmetry or found
        if symmetry != found:
            shard = None  # the embeddings of the run are others
    # To compare embeddings, `find_symmetry` has moved the network to the best device.
    byol = byol.to("cpu").to(memory_format=torch.contiguous_format)
    encoder = PreparedImageEncoder(
        byol.encoder, training.stacksize, symmetry or "d4"
    ).eval()
    rules = preparation.settings.preprocess_settings
    channels = preparation.reference.channels
    metadata = _metadata(model, training, preparation)
    with atomic_folder(output) as folder:
        save_encoder(folder / WEIGHTS, byol, metadata)
        LOG.info("writing %s; a deep network takes some minutes", output / GRAPH)
        any_size, difference = save_onnx(
            folder / GRAPH,
            encoder,
            channels,
            rules.size,
            min_side(training.network_name),
            metadata | {"symmetry": encoder.symmetry},
        )
        run_difference = None
        if shard is not None:
            run_difference = _compare_with_run(folder / GRAPH, files, shard)
        _write_json(folder / PREPARATION, preparation.to_dict())
        facts = ExportedEncoder(
            parameters=sum(value.numel() for value in byol.encoder.parameters()),
            length=byol.representation_size,
            symmetry=encoder.symmetry,
            any_size=any_size,
            difference=difference,
            run_difference=run_difference,
            versions=versions() | {p: importlib.metadata.version(p) for p in PACKAGES},
        )
        run = _read_run(files, model) if has_run else TrainingRun()
        card = render_card(model, training, preparation, facts, run)
        (folder / CARD).write_text(card, encoding="utf-8")
    LOG.info(
        "%s: %s, %s, %s, %s; embeddings in ONNX Runtime differ by %.0e from "
        "PyTorch; fill in the brackets in %s before you share the folder",
        output, WEIGHTS, GRAPH, PREPARATION, CARD, difference, CARD,
    )  # fmt: skip


def _check_packages() -> None:
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise AstromorphError(
            f"`astromorph export model` needs the packages {', '.join(missing)}; "
            f"{INSTALL}"
        )


def _check_output(output: Path) -> None:
    """Raise an error instead of replacing a folder of something else."""
    if not output.exists():
        return
    if not output.is_dir():
        raise AstromorphError(f"--output: {output} is a file; name a folder")
    others = {path.name for path in output.iterdir()} - {
        WEIGHTS, GRAPH, PREPARATION, CARD
    }  # fmt: skip
    if others:
        raise AstromorphError(
            f"--output: {output} contains other files, such as {min(others)}; name "
            "another folder, or empty this one"
        )


def _without_folders(training: TrainStepSettings) -> TrainStepSettings:
    """The same settings with only the name of a file of start weights."""
    source = start_weights_source(training)
    if source in (RANDOM, SKY, TORCHVISION):
        return training
    values = training.to_dict()
    values["network_settings"]["weights"] = Path(source).name
    return train_step_settings(parse(values, "model file"))


def _find_preparation(
    files: RunFiles,
    model: ModelFile,
    training: TrainStepSettings,
    has_run: bool,
    datafile: str | None,
) -> Preparation:
    """How the images of the model are prepared."""
    settings = parse(json.loads(model.tensor_settings), str(files.model))
    is_common = settings.preprocess_settings.stretch_scope == "dataset"
    if is_common and not (has_run or datafile):
        raise AstromorphError(
            f"{files.model}: all images of this model have one brightness scale, which "
            "is computed from the file list: give the list with --datafile, or the "
            "folder of the run with --results"
        )
    channels = model.in_channels // training.stacksize
    return Preparation(settings, run_reference(files, settings, datafile, channels))


def _embedded_shard(files: RunFiles) -> TensorShard | None:
    """The first images of the run, if they have embeddings."""
    needed = (*files.all_tensors, *files.all_embeddings)
    if not needed or not all(path.exists() for path in needed):
        LOG.warning(
            "%s: the exported model is not compared with this run, because its tensors "
            "or embeddings are missing; run `infer` first",
            files.results,
        )
        return None
    return find_first_shard(files)


def _metadata(
    model: ModelFile, training: TrainStepSettings, preparation: Preparation
) -> dict[str, str]:
    """Texts in the headers of both files of weights."""
    return {
        "format": FORMAT,
        "format_version": str(FORMAT_VERSION),
        "license": f"{LICENCE} (astromorph); that of the training images: see {CARD}",
        "settings": canonical_json(training.to_dict()),
        "preprocessing": canonical_json(preparation.to_dict()),
        "in_channels": str(model.in_channels),
        "data_digest": model.data_digest,
        "versions": canonical_json(model.versions),
    }


def _compare_with_run(path: Path, files: RunFiles, shard: TensorShard) -> float:
    """The largest difference from the embeddings of the first images of a run."""
    image_ids = shard.image_ids[:CHECKED_IMAGES]
    vectors: dict[str, NDArray[np.float32]] = {}
    for table in files.all_embeddings:
        embeddings = read_embeddings(table)
        vectors |= zip(embeddings.image_ids, embeddings.vectors, strict=True)
        if all(image_id in vectors for image_id in image_ids):
            break
    images = shard.image_list()[: len(image_ids)]
    difference = compare_onnx(
        path,
        [
            (image[None].float().numpy(), vectors[image_id][None])
            for image_id, image in zip(image_ids, images, strict=True)
        ],
    )
    if not difference.is_small:
        LOG.warning(
            "%s: in ONNX Runtime, the embeddings differ by %.1e from those in %s, "
            "whose largest value is %.1e; a GPU that rounds to TF32 is a possible "
            "reason",
            path.name,
            difference.absolute,
            files.all_embeddings[0].parent,
            difference.largest,
        )
    return difference.absolute


def _read_run(files: RunFiles, model: ModelFile) -> TrainingRun:
    """What a results folder says about the training and the quality of a model."""
    subsets: dict[str, list[str]] = {TRAIN: [], TEST: []}
    if files.split.exists():
        for row in read_csv(files.split, SPLIT_COLUMNS):
            if row["subset"] in subsets:
                subsets[row["subset"]].append(row["image_id"])
    evaluation = _read_evaluation(files)
    if digest(subsets[TRAIN]) != model.data_digest:
        return TrainingRun(evaluation=evaluation)  # trained on other images
    record = read_record(files, "train", "train")
    return TrainingRun(
        len(subsets[TRAIN]),
        len(subsets[TEST]),
        record.made_from.file_list if record else "",
        tuple(_last_losses(files)),
        evaluation,
    )


def _last_losses(files: RunFiles) -> Iterator[tuple[str, str]]:
    if files.model != files.own_model or not files.history.exists():
        return
    rows = list(read_csv(files.history))
    for column, name in LOSSES:
        if rows and rows[-1].get(column):
            yield name, f"{float(rows[-1][column]):.3f}"


def _read_evaluation(files: RunFiles) -> dict[str, Any] | None:
    """The evaluation, unless it is missing or older than the embeddings."""
    record = read_record(files, "evaluate", "evaluate")
    if record is None or not record.has_complete_outputs(files.results):
        LOG.warning(
            "%s: there is no evaluation; the card has no measures", files.evaluation
        )
        return None
    steps = [r for r in all_records(files) if r.step in ("train", "infer")]
    if any(other.finished > record.finished for other in steps):
        LOG.warning(
            "%s: older than the embeddings; the card has no measures; run `evaluate` "
            "first",
            files.evaluation,
        )
        return None
    evaluation: dict[str, Any] = json.loads(
        files.evaluation.read_text(encoding="utf-8")
    )
    return evaluation


def _write_json(path: Path, values: Any) -> None:
    text = json.dumps(values, indent=1, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8")
