"""The step `infer`: a model and the tensors of a shard become embeddings."""

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from astromorph.artefacts import Embeddings, write_embeddings
from astromorph.byol import BYOL
from astromorph.cache import TensorShard, read_shard
from astromorph.checkpoint import ModelFile, load_model
from astromorph.datasets import ImageSet, image_set
from astromorph.errors import AstromorphError
from astromorph.progress import track
from astromorph.settings import InferenceSettings, Settings
from astromorph.trainer import choose_device

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
    LOG.info("%s: %d embeddings of length %d", output, *vectors.shape)


@torch.inference_mode()
def embed(
    byol: BYOL,
    data: ImageSet,
    settings: InferenceSettings,
    change: Callable[[Tensor, Tensor], Tensor] | None = None,
) -> "np.ndarray[tuple[int, int], np.dtype[np.float32]]":
    """The encoder's embeddings `(N, D)`, float32, of N images in order.

    Parameters
    ----------
    byol : BYOL
        The network.
    data : CachedDataset or NativeDataset
        N images.
    settings : InferenceSettings
        Batch size and symmetry.
    change : callable, optional
        Images `(B, C, H, W)` and their numbers `(B,)` to what is embedded.
    """
    device = choose_device()
    byol = byol.to(device).eval()
    parts = list(data.batches(settings.batch_size))
    vectors = np.empty((len(data), byol.representation_size), np.float32)
    for indices in track(parts, len(parts), "batches"):
        images = data.batch(indices)
        images = (images if change is None else change(images, indices)).to(device)
        if settings.symmetry == "d4":
            embedding = torch.stack([byol(view) for view in d4(images)]).mean(dim=0)
        else:
            embedding = byol(images)
        vectors[indices.numpy()] = embedding.float().cpu().numpy()
    return vectors


def d4(images: Tensor) -> list[Tensor]:
    """The 8 flips and right-angle rotations of images `(N, C, H, W)`."""
    turned = [torch.rot90(images, k, (2, 3)) for k in range(4)]
    return turned + [view.flip(3) for view in turned]


def _fitting(shard: TensorShard, made: ModelFile, model: str | Path) -> ImageSet | None:
    data = image_set(shard, int(made.settings["data_settings"]["stacksize"]))
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
