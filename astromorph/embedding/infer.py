"""The step `infer`: embed the images of a shard."""

import logging
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from astromorph.artefacts.embeddings import Embeddings, write_embeddings
from astromorph.artefacts.model_file import ModelFile, file_checksum
from astromorph.artefacts.run_files import RunFiles
from astromorph.artefacts.tensor_shard import TensorShard, read_shard
from astromorph.atomic import check_writable, keep_previous
from astromorph.byol.build import load_model, training_settings_of
from astromorph.datasets.tensor_datasets import ImageSet, shard_image_set
from astromorph.embedding.embed import embed
from astromorph.errors import AstromorphError
from astromorph.settings.sections import InferenceSettings

LOG = logging.getLogger(__name__)
MAX_NAMED = 3  # images in a message


def infer(
    files: RunFiles, shard: str, rules: InferenceSettings, threads: int = 0
) -> None:
    """Embed the images of one shard.

    Parameters
    ----------
    files : RunFiles
        `model` and the shard's `tensors` are read, its `embeddings` are written:
        Parquet with the columns `image_id`, `emb_0`, `emb_1`, ..., and metadata with
        the check sum of the model, the symmetry, and the settings of the tensors.
    shard : str
        The name of the shard.
    rules : InferenceSettings
        Batch size and symmetry; everything else is in the model file.
    threads : int
        CPU threads; 0 leaves the choice to torch.

    Raises
    ------
    AstromorphError
        The model cannot be read, expects another number of channels, or gives
        embeddings that are not finite.
    """
    if threads:
        torch.set_num_threads(threads)
    output = files.embeddings(shard)
    check_writable([output])
    byol, model = load_model(files.model)
    tensors = read_shard(files.tensors(shard))
    images = _images_for_model(tensors, model, files)
    vectors = np.empty((0, byol.representation_size), np.float32)
    if images is not None:
        vectors = embed(byol, images, rules)
        _check_finite(vectors, tensors.image_ids, files)
    made_with = {
        "model": file_checksum(files.model),
        "symmetry": rules.symmetry,
        "tensor_settings": tensors.settings,
    }
    write_embeddings(output, Embeddings(tensors.image_ids, vectors), made_with)
    keep_previous(output)
    LOG.info("%s: %d embeddings of length %d", output, *vectors.shape)


def _check_finite(
    vectors: NDArray[np.float32], image_ids: Sequence[str], files: RunFiles
) -> None:
    """Raise an error that names the images whose embeddings are infinite or NaN."""
    bad = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if bad.size:
        names = ", ".join(image_ids[k] for k in bad[:MAX_NAMED])
        more = ", ..." if bad.size > MAX_NAMED else ""
        raise AstromorphError(
            f"{files.model}: with this model, {bad.size} of {len(vectors)} embeddings "
            f"are infinite or NaN (images {names}{more}); its weights are too large: "
            "train it again with a smaller `learning_rate`, or name another model file"
        )


def _images_for_model(
    tensors: TensorShard, model: ModelFile, files: RunFiles
) -> ImageSet | None:
    """The images of a shard, or None; an error if the model cannot embed them."""
    images = shard_image_set(tensors, training_settings_of(model).stacksize)
    if images is None:
        return None
    if images.channels != model.in_channels:
        raise AstromorphError(
            f"{files.model}: this model expects images with {model.in_channels} "
            f"channels, but the tensors have {images.channels}; train a model on "
            "images like these"
        )
    if model.tensor_settings != tensors.settings:
        LOG.warning(
            "%s was trained on images prepared with %s, but these were prepared with "
            "%s; the embeddings may not be comparable",
            files.model,
            model.tensor_settings,
            tensors.settings,
        )
    return images
