"""Prepare single images in the way that a model expects, without PyTorch."""

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from astromorph.artefacts.run_files import RunFiles
from astromorph.artefacts.tables import read_csv
from astromorph.errors import AstromorphError, FitsImageError
from astromorph.filelist.entries import Entry
from astromorph.filelist.shards import HEAD_ROWS
from astromorph.fits import image as fits_image
from astromorph.preprocessing.image_to_tensor import Scale, prepare
from astromorph.preprocessing.list_reference import (
    ListReference,
    check_channels,
    find_reference,
    make_reference,
)
from astromorph.settings.loading import parse
from astromorph.settings.sections import Settings
from astromorph.settings.steps import part_of

LOG = logging.getLogger(__name__)
FORMAT, FORMAT_VERSION = "astromorph-preparation", 1


@dataclass(frozen=True, slots=True)
class Preparation:
    """How the images of a model are read and prepared.

    Attributes
    ----------
    settings : Settings
        `data_settings` and `preprocess_settings` are used.
    reference : ListReference
        Number of channels, and the brightness scale if all images have the same one.
    """

    settings: Settings
    reference: ListReference

    def prepare(self, paths: Sequence[str | Path]) -> NDArray[np.float32]:
        """Read and prepare one image as the step `preprocess` does.

        Parameters
        ----------
        paths : sequence of path
            The FITS file, or one per channel.

        Returns
        -------
        ndarray, shape (C, H, W), float32
            From 0 to 1, rounded to the type `preprocess_settings.dtype`. C does not
            include the copies of `data_settings.stacksize`. Warnings are logged.

        Raises
        ------
        AstromorphError
            The image cannot be used, or has another number of channels.
        """
        try:
            return self.read(paths)
        except FitsImageError as error:
            raise AstromorphError(f"{' '.join(map(str, paths))}: {error}") from None

    def read(self, paths: Sequence[str | Path]) -> NDArray[np.float32]:
        """The same as `prepare`, with another error for each image of a list.

        Raises
        ------
        FitsImageError
            The image cannot be used; the message is the reason alone.
        """
        rules = self.settings.preprocess_settings
        facts, image = fits_image.read_image(paths, self.settings.data_settings)
        check_channels(facts.channels, self.reference)
        prepared = prepare(image, rules, self.reference.scale)
        if prepared.warning:
            LOG.warning("%s: %s", " ".join(map(str, paths)), prepared.warning)
        return prepared.pixels.astype(rules.dtype).astype(np.float32)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, which `read_preparation` reads from JSON."""
        scale = self.reference.scale
        return {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "channels": self.reference.channels,
            "scale": {k: v.tolist() for k, v in asdict(scale).items()}
            if scale
            else None,
            "settings": part_of(self.settings, "preprocess"),
        }


def read_preparation(path: str | Path) -> Preparation:
    """Read the file `preprocessing.json` of an exported model.

    Parameters
    ----------
    path : path
        The file that `astromorph export model` wrote.

    Returns
    -------
    Preparation

    Raises
    ------
    AstromorphError
        The file cannot be read, or is of another format.

    Examples
    --------
    ::

        preparation = read_preparation("galaxies/preprocessing.json")
        pixels = preparation.prepare(["image.fits"])  # (C, H, W)
    """
    try:
        values = json.loads(Path(path).read_text(encoding="utf-8"))
        found = (values["format"], values["format_version"])
        if found != (FORMAT, FORMAT_VERSION):
            raise ValueError(f"its format is {found}, not {(FORMAT, FORMAT_VERSION)}")
        scale, channels = values["scale"], int(values["channels"])
        reference = ListReference(
            channels,
            None if scale is None else _read_scale(scale, channels),
        )
        settings = values["settings"]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise AstromorphError(
            f"{path}: the preparation of the images cannot be read ({error!s}); give "
            "the file preprocessing.json that `astromorph export model` wrote"
        ) from None
    return Preparation(parse(settings, str(path)), reference)


def _read_scale(values: dict[str, Any], channels: int) -> Scale:
    scale = Scale(**{k: np.array(v, np.float64) for k, v in values.items()})
    for name, limits in asdict(scale).items():
        if limits.shape != (channels,) or not np.isfinite(limits).all():
            raise ValueError(f"`scale.{name}` is not a list of {channels} numbers")
    return scale


def run_reference(
    files: RunFiles, settings: Settings, datafile: str | None, channels: int
) -> ListReference:
    """The properties that all images of a finished run share.

    Parameters
    ----------
    files : RunFiles
        The `catalogue` is read if all images have the same brightness scale and there
        is no list.
    settings : Settings
        How the images are read and prepared.
    datafile : str or None
        The file list.
    channels : int
        Channels of the images.

    Returns
    -------
    ListReference

    Raises
    ------
    AstromorphError
        The brightness scale cannot be computed from the catalogue, because each image
        has several files, or none of the first files can be read any more.
    """
    data, preprocessing = settings.data_settings, settings.preprocess_settings
    if preprocessing.stretch_scope == "image":
        return ListReference(channels)
    if datafile:
        reference = find_reference(datafile, data, preprocessing)
        source = datafile
    else:
        rows = islice(read_csv(files.catalogue), HEAD_ROWS)
        head = [Entry(row["image_id"], row["path"], row["path"]) for row in rows]
        reference = make_reference(head, files.catalogue, data, preprocessing)
        source = str(files.catalogue)
    if reference.channels != channels:
        raise AstromorphError(
            f"{source}: its images have {reference.channels} channels, but those of "
            f"the model have {channels}; all images of this run have the same "
            "brightness scale, which is computed from its file list: give the list "
            "with --datafile"
        )
    return reference
