"""Read, prepare and embed further FITS images in the same way as those of a run."""

import json
import logging
from collections.abc import Sequence
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray

from astromorph.artefacts.embeddings import read_embeddings
from astromorph.artefacts.run_files import RunFiles
from astromorph.artefacts.tables import read_csv
from astromorph.artefacts.tensor_shard import TensorShard, read_shard
from astromorph.byol.build import load_model, training_settings_of
from astromorph.datasets.tensor_datasets import CachedDataset, ImageSet, NativeDataset
from astromorph.embedding.embed import embed
from astromorph.errors import AstromorphError
from astromorph.filelist.entries import Entry
from astromorph.filelist.shards import HEAD_ROWS
from astromorph.fits import image as fits_image
from astromorph.preprocessing.image_to_tensor import prepare
from astromorph.preprocessing.list_reference import (
    ListReference,
    check_channels,
    find_reference,
    make_reference,
)
from astromorph.settings.loading import parse
from astromorph.settings.sections import InferenceSettings, Settings

Vectors = NDArray[np.float32]
Pixels = NDArray[np.float32]

LOG = logging.getLogger(__name__)
TOLERANCE = 1e-3  # relative; machines and batch sizes cause smaller differences


class NewImages:
    """Reads and embeds FITS images that need not be in the list of a run.

    Parameters
    ----------
    files : RunFiles
        A finished run; tensors, embeddings and the model are read, and the catalogue
        if all of its images have one brightness scale.
    files_per_image : int
        Files of each image, one per channel.
    datafile : str, optional
        The file list of the run; needed if it has several files per image and one
        brightness scale for all of them. Otherwise the catalogue is used.

    Raises
    ------
    AstromorphError
        Results are missing or do not match.
    """

    def __init__(
        self, files: RunFiles, files_per_image: int = 1, datafile: str | None = None
    ) -> None:
        self._shard = _find_first_shard(files)
        self._settings = parse(
            json.loads(self._shard.settings), str(files.all_tensors[0])
        )
        self._reference = _find_reference(
            files, self._settings, files_per_image, datafile, self._shard.channels
        )
        self._byol, model = load_model(files.model)
        self._stacksize = training_settings_of(model).stacksize
        if self._shard.channels * self._stacksize != model.in_channels:
            raise AstromorphError(
                f"{files.model}: this model expects images with {model.in_channels} "
                f"channels, but those in {files.all_tensors[0]} have "
                f"{self._shard.channels}; give the model of the run"
            )
        self._rules = self._find_rules(files)

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
        rules = self._settings.preprocess_settings
        facts, image = fits_image.read_image(paths, self._settings.data_settings)
        check_channels(facts.channels, self._reference)
        prepared = prepare(image, rules, self._reference.scale)
        if prepared.warning:
            LOG.warning("%s: %s", paths[0], prepared.warning)
        return prepared.pixels.astype(rules.dtype).astype(np.float32)

    def embed(self, images: Sequence[Pixels]) -> Vectors:
        """The embeddings `(N, D)` of N prepared images, N at least 1."""
        tensors = [torch.from_numpy(image) for image in images]
        return embed(self._byol, _make_image_set(tensors, self._stacksize), self._rules)

    def _find_rules(self, files: RunFiles) -> InferenceSettings:
        """The symmetry that the run was embedded with.

        No file records it; it is found by embedding the first image again.
        """
        first = _make_image_set([self._shard.image_list()[0].float()], self._stacksize)
        expected = _read_vector(files, self._shard.image_ids[0])
        tolerance = TOLERANCE * max(float(np.linalg.norm(expected)), 1e-6)
        for symmetry in ("d4", "none"):
            rules = InferenceSettings(symmetry=symmetry)
            vector = embed(self._byol, first, rules)[0]
            if np.linalg.norm(vector - expected) <= tolerance:
                return rules
        raise AstromorphError(
            f"{files.model}: the embeddings in {files.all_embeddings[0].parent} are "
            "not from this model; give the right model with --trained-network-name, or "
            "run `infer` again"
        )


def _find_first_shard(files: RunFiles) -> TensorShard:
    """The first shard that contains an image."""
    shards = (read_shard(path) for path in files.all_tensors)
    shard = next((shard for shard in shards if len(shard)), None)
    if shard is None:
        raise AstromorphError(f"{files.split}: no image has an embedding")
    return shard


def _find_reference(
    files: RunFiles,
    settings: Settings,
    files_per_image: int,
    datafile: str | None,
    channels: int,
) -> ListReference:
    """The properties that all images of the run share."""
    if settings.preprocess_settings.stretch_scope == "image":
        return ListReference(channels)
    if datafile:
        return find_reference(
            datafile, settings.data_settings, settings.preprocess_settings
        )
    if files_per_image > 1:
        raise AstromorphError(
            "all images of this run have the same brightness scale, which is computed "
            "from its file list: give the list with --datafile"
        )
    rows = islice(read_csv(files.catalogue), HEAD_ROWS)
    head = [Entry(row["image_id"], row["path"], row["path"]) for row in rows]
    return make_reference(
        head, files.catalogue, settings.data_settings, settings.preprocess_settings
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
