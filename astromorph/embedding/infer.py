"""The step `infer`: a model and the tensors of a shard become embeddings."""

import logging
from pathlib import Path

import numpy as np
import torch

from astromorph.artefacts.embeddings import Embeddings, write_embeddings
from astromorph.artefacts.model_file import ModelFile
from astromorph.artefacts.tensor_shard import TensorShard, read_shard
from astromorph.atomic import keep_previous
from astromorph.byol.build import load_model
from astromorph.datasets.tensor_datasets import ImageSet, shard_image_set
from astromorph.embedding.embed import embed
from astromorph.errors import AstromorphError
from astromorph.settings.sections import Settings

LOG = logging.getLogger(__name__)


def infer(
    settings: Settings,
    model: str | Path,
    tensors: str | Path,
    output: str | Path,
    threads: int = 0,
) -> None:
    """Embed the images of one shard.

    Parameters
    ----------
    settings : Settings
        `inference_settings` is used; all else is in the model file.
    model : path
        What `train` wrote.
    tensors : path
        One shard.
    output : path
        Parquet to write: `image_id`, `emb_0`, `emb_1`, ...
    threads : int
        CPU threads; 0 leaves the choice to torch.

    Raises
    ------
    AstromorphError
        The model cannot be read, or is made for other channels.
    """
    if threads:
        torch.set_num_threads(threads)
    byol, made = load_model(model)
    shard = read_shard(tensors)
    data = _fitting(shard, made, model)
    vectors = np.empty((0, byol.representation_size), np.float32)
    if data is not None:
        vectors = embed(byol, data, settings.inference_settings)
    write_embeddings(output, Embeddings(shard.image_ids, vectors))
    keep_previous(output)
    LOG.info("%s: %d embeddings of length %d", output, *vectors.shape)


def _fitting(shard: TensorShard, made: ModelFile, model: str | Path) -> ImageSet | None:
    data = shard_image_set(shard, int(made.settings["data_settings"]["stacksize"]))
    if data is None:
        return None
    if data.channels != made.in_channels:
        raise AstromorphError(
            f"{model}: this model takes images of {made.in_channels} channels, the "
            f"tensors have {data.channels}; train a model on images like these"
        )
    if made.tensor_settings != shard.settings:
        LOG.warning(
            "%s was trained on images prepared with %s, these were prepared with %s; "
            "embeddings may not be comparable",
            model, made.tensor_settings, shard.settings,
        )  # fmt: skip
    return data
