"""Reference embeddings: an untrained network, the start weights, and pixels."""

import logging

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from torch.nn import functional

from astromorph.artefacts.model_file import ModelFile
from astromorph.byol.build import initial_byol
from astromorph.byol.byol import BYOL
from astromorph.byol.start_weights import start_network
from astromorph.datasets.tensor_datasets import ImageSet
from astromorph.embedding.embed import embed
from astromorph.embedding.perturbations import Embedder, Perturbation
from astromorph.errors import AstromorphError
from astromorph.settings.sections import InferenceSettings

Vectors = NDArray[np.float32]

LOG = logging.getLogger(__name__)
TRAINED, UNTRAINED, PIXELS = "trained", "untrained", "pixels"
PIXEL_SIDE = 32
MIN_PIXEL_SIDE = 4
PIXEL_COMPONENTS = 128
BATCH_SIZE = 256


def make_embedders(
    byol: BYOL, model: ModelFile, images: ImageSet, inference: InferenceSettings
) -> dict[str, Embedder]:
    """The trained network and its references.

    Parameters
    ----------
    byol : BYOL
        The trained network.
    model : ModelFile
        The model file that it was read from.
    images : CachedDataset, MappedDataset or NativeDataset
        The images to which the principal components of the pixels are fitted.
    inference : InferenceSettings
        How the networks embed.

    Returns
    -------
    dict of str to callable
        `TRAINED`, the start weights by their name unless they were random,
        `UNTRAINED` and `PIXELS`. Each takes images and a perturbation or None, and
        returns embeddings `(N, D)`, float32.
    """
    networks = {TRAINED: byol, **_start_network(model), UNTRAINED: initial_byol(model)}
    embedders = {
        name: _network_embedder(network, inference)
        for name, network in networks.items()
    }
    return embedders | {PIXELS: _pixel_embedder(images)}


def _start_network(model: ModelFile) -> dict[str, BYOL]:
    """The network with the weights that training began with, unless random."""
    try:
        start = start_network(model)
    except AstromorphError as error:
        LOG.warning("the start weights are not evaluated: %s", error)
        return {}
    return {start[0]: start[1]} if start else {}


def _network_embedder(network: BYOL, inference: InferenceSettings) -> Embedder:
    return lambda images, perturbation: embed(network, images, inference, perturbation)


def _pixel_embedder(images: ImageSet) -> Embedder:
    """Projects on the leading principal components of the pixels of `images`."""
    pixels = _downsample(images, None)
    components = min(PIXEL_COMPONENTS, *pixels.shape)
    pca = PCA(components, svd_solver="full").fit(pixels)
    return lambda others, perturbation: pca.transform(_downsample(others, perturbation))


def _downsample(images: ImageSet, perturbation: Perturbation | None) -> Vectors:
    """The pixels of images of 32 by 32 pixels or fewer, flattened, `(N, P)`."""
    rows: dict[int, Vectors] = {}
    for indices in images.batches(BATCH_SIZE):
        batch = images.batch(indices)
        batch = batch if perturbation is None else perturbation(batch, indices)
        # Cubes have many channels: fewer pixels of each keep the work the same.
        side = int(2 * PIXEL_SIDE / batch.shape[1] ** 0.5)
        side = max(MIN_PIXEL_SIDE, min(PIXEL_SIDE, side))
        small = functional.adaptive_avg_pool2d(batch, side).flatten(1).numpy()
        rows.update(zip(indices.tolist(), small, strict=True))
    return np.stack([rows[k] for k in range(len(images))])
