"""Read, prepare and embed further FITS images in the same way as those of a run."""

import json
import logging
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from astromorph.artefacts.embeddings import read_embeddings
from astromorph.artefacts.model_file import ModelFile
from astromorph.artefacts.run_files import RunFiles
from astromorph.artefacts.tensor_shard import TensorShard, read_shard
from astromorph.byol.build import load_model, training_settings_of
from astromorph.byol.byol import BYOL
from astromorph.datasets.tensor_datasets import CachedDataset, ImageSet, NativeDataset
from astromorph.embedding.embed import embed
from astromorph.errors import AstromorphError
from astromorph.fits.image import describe_image
from astromorph.preprocessing.preparation import Preparation, run_reference
from astromorph.preprocessing.resample import prepared_pixel_scale
from astromorph.settings.loading import parse
from astromorph.settings.sections import InferenceSettings

Vectors = NDArray[np.float32]
Pixels = NDArray[np.float32]

LOG = logging.getLogger(__name__)
SYMMETRIES: tuple[Literal["d4", "none"], ...] = ("d4", "none")
TOLERANCE = 1e-3  # relative; machines and batch sizes cause smaller differences


class NewImages:
    """Reads and embeds FITS images that need not be in the list of a run.

    Parameters
    ----------
    files : RunFiles
        A finished run; tensors, embeddings and the model are read, and the catalogue
        if all of its images have one brightness scale.
    datafile : str, optional
        The file list of the run; needed if it has several files per image and one
        brightness scale for all of them. Otherwise the catalogue is used.

    Raises
    ------
    AstromorphError
        Results are missing or do not match.
    """

    def __init__(self, files: RunFiles, datafile: str | None = None) -> None:
        shard = find_first_shard(files)
        settings = parse(json.loads(shard.settings), str(files.all_tensors[0]))
        self._settings = settings
        reference = run_reference(files, settings, datafile, shard.channels)
        self._preparation = Preparation(settings, reference)
        self._byol, model = load_model(files.model)
        self._stacksize = training_settings_of(model).stacksize
        symmetry = find_symmetry(files, shard, self._byol, model)
        self._rules = InferenceSettings(symmetry=symmetry)

    def read(self, paths: Sequence[str]) -> Pixels:
        """The prepared image `(C, H, W)`, as it would be in a shard of the run.

        Parameters
        ----------
        paths : sequence of str
            The FITS file, or one per channel.

        Raises
        ------
        FitsImageError
            The image cannot be used; the message gives the reason.
        """
        return self._preparation.read(paths)

    def pixel_scale(self, paths: Sequence[str]) -> float | None:
        """Arcseconds per pixel of the prepared image; None if it is not known.

        Parameters
        ----------
        paths : sequence of str
            The FITS file, or one per channel, as for `read`.
        """
        facts = describe_image(paths, self._settings.data_settings)
        if facts.pixel_scale_arcsec is None:
            return None
        return prepared_pixel_scale(
            facts.width,
            facts.height,
            facts.pixel_scale_arcsec,
            self._settings.preprocess_settings,
        )

    def embed(self, images: Sequence[Pixels]) -> Vectors:
        """The embeddings `(N, D)` of N prepared images, N at least 1."""
        tensors = [torch.from_numpy(image) for image in images]
        return embed(self._byol, _make_image_set(tensors, self._stacksize), self._rules)


def find_first_shard(files: RunFiles) -> TensorShard:
    """The first shard that contains an image; an error if none does."""
    shards = (read_shard(path) for path in files.all_tensors)
    shard = next((shard for shard in shards if len(shard)), None)
    if shard is None:
        raise AstromorphError(f"{files.split}: no image has an embedding")
    return shard


def find_symmetry(
    files: RunFiles, shard: TensorShard, byol: BYOL, model: ModelFile
) -> Literal["d4", "none"]:
    """The symmetry that the images of a run were embedded with.

    No file records it; it is found by embedding the first image again.

    Parameters
    ----------
    files : RunFiles
        The `all_embeddings` are read.
    shard : TensorShard
        A shard of the run with at least one image.
    byol : BYOL
        The networks of the model.
    model : ModelFile
        The rest of the model file.

    Returns
    -------
    str
        A value of `inference_settings.symmetry`.

    Raises
    ------
    AstromorphError
        The embeddings are not from this model.
    """
    stacksize = training_settings_of(model).stacksize
    if shard.channels * stacksize != model.in_channels:
        raise AstromorphError(
            f"{files.model}: this model expects images with {model.in_channels} "
            f"channels, but those in {files.all_tensors[0]} have {shard.channels}; "
            "give the model of the run"
        )
    first_image = _make_image_set([shard.image_list()[0].float()], stacksize)
    expected = _read_vector(files, shard.image_ids[0])
    tolerance = TOLERANCE * max(float(np.linalg.norm(expected)), 1e-6)
    for symmetry in SYMMETRIES:
        vector = embed(byol, first_image, InferenceSettings(symmetry=symmetry))[0]
        if len(vector) != len(expected):
            break
        if np.linalg.norm(vector - expected) <= tolerance:
            return symmetry
    raise AstromorphError(
        f"{files.model}: the embeddings in {files.all_embeddings[0].parent} are not "
        "from this model; give the right model with --trained-network-name, or run "
        "`infer` again"
    )


def _make_image_set(images: Sequence[torch.Tensor], stacksize: int) -> ImageSet:
    shapes = {tuple(image.shape) for image in images}
    height, width = images[0].shape[1:]
    if len(shapes) == 1 and height == width:
        return CachedDataset(torch.stack(list(images)), stacksize)
    return NativeDataset(images, stacksize)


def _read_vector(files: RunFiles, image_id: str) -> Vectors:
    """The embedding `(D,)` of an image of the run."""
    for path in files.all_embeddings:
        embeddings = read_embeddings(path)
        if image_id in embeddings.image_ids:
            row: Vectors = embeddings.vectors[embeddings.image_ids.index(image_id)]
            return row
    raise AstromorphError(
        f"{files.all_embeddings[0].parent}: there is no embedding of {image_id}; run "
        "`infer` again"
    )
