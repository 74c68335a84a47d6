"""FITS files as images in memory, prepared as in the workflow."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from astromorph.artefacts.tables import STATISTICS
from astromorph.errors import FitsImageError
from astromorph.filelist.entries import Entry, entries_from_paths, read_filelist
from astromorph.filelist.shards import HEAD_ROWS
from astromorph.preprocessing.list_wide import make_reference
from astromorph.preprocessing.prepare import Prepared
from astromorph.preprocessing.preprocess import prepare_entry
from astromorph.progress import track
from astromorph.provenance import canonical_json
from astromorph.settings.loading import parse
from astromorph.settings.sections import Settings
from astromorph.settings.steps import part_of


@dataclass(frozen=True, slots=True)
class PreparedImages:
    """Images that are ready for a network, and the rows of the list they come from.

    It has a length, N, and can be indexed, so that it serves as a dataset for a
    trainer, a `DataLoader` and `split_images`.

    Attributes
    ----------
    images : Tensor, shape (N, C, S, S), float32, or list of Tensor, shape (C, H, W)
        Values from 0 to 1; a list if `preprocess_settings.size` is ``"native"``. A
        single channel is repeated `data_settings.stacksize` times.
    rows : ndarray, shape (N,), int64
        The index of each image in `entries`, in ascending order.
    entries : list of Entry, of length M
        All rows of the list: `image_id`, `path`, and `columns`, such as a label.
    reasons : dict of int to str
        For each of the M - N rows that could not be used, the reason.
    warnings : dict of int to str
        For rows that were used but look unusual, the warning.
    statistics : dict of str to Tensor, shape (N,), float32
        Background, noise and others; see `astromorph.preprocessing.prepare.Prepared`.
    settings : Settings
        The settings of the preparation.
    """

    images: Tensor | list[Tensor]
    rows: NDArray[np.int64]
    entries: list[Entry]
    reasons: dict[int, str]
    warnings: dict[int, str]
    statistics: dict[str, Tensor]
    settings: Settings

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        """One image `(C, H, W)`, float32; `index` is from 0 to N - 1."""
        return self.images[index]

    def column(self, name: str) -> list[str]:
        """The values of a column of the list, such as ``"label"``.

        Parameters
        ----------
        name : str
            Name of the column.

        Returns
        -------
        list of str
            N values; empty strings where the list has no such column.
        """
        return [self.entries[row].columns.get(name, "") for row in self.rows]

    @property
    def paths(self) -> list[str]:
        """The files of the N images; of an image of several files, the first."""
        return [self.entries[row].path for row in self.rows]

    @property
    def image_ids(self) -> list[str]:
        """The ids of the N images, as in the tables of the workflow."""
        return [self.entries[row].image_id for row in self.rows]

    @property
    def tensor_settings(self) -> str:
        """The settings of the preparation as JSON, as in a model file."""
        return canonical_json(part_of(self.settings, "preprocess"))


def prepared_images(
    filelist: str | Path | Sequence[str | Path | Sequence[str | Path]],
    settings: Settings | Mapping[str, Any] | None = None,
) -> PreparedImages:
    """Read FITS files and prepare them exactly as the workflow does.

    Planes are selected, the image is cropped and resized without its bad pixels, and
    its brightness is scaled to the range 0 to 1. All images are in memory.

    Parameters
    ----------
    filelist : path or sequence
        A file list, as in the workflow; or the files themselves, each a path, or a
        sequence of paths whose images are the channels of one.
    settings : Settings or mapping, optional
        Settings nested as in the configuration, such as
        ``{"preprocess_settings": {"size": 96}}``; `data_settings` and
        `preprocess_settings` are used. By default the first HDU with an image,
        64 by 64 pixels, and an asinh stretch above the noise.

    Returns
    -------
    PreparedImages
        A file that cannot be used raises no error; its reason is in `reasons`.

    Raises
    ------
    AstromorphError
        The list cannot be read or is empty; a setting is unknown or out of range; or
        the settings need the first 256 files, none of which has an image.

    Examples
    --------
    >>> import tempfile
    >>> from astromorph.sky.simulate import simulate
    >>> folder = tempfile.mkdtemp()
    >>> prepared = prepared_images(simulate(folder, number=3, seed=0))
    >>> prepared.images.shape, prepared.column("label")[0]
    (torch.Size([3, 1, 64, 64]), 'disk')

    Files without a list, of which one is missing, in another size:

    >>> files = [prepared.paths[0], "nowhere.fits", prepared.paths[2]]
    >>> prepared = prepared_images(files, {"preprocess_settings": {"size": 32}})
    >>> prepared.images.shape, prepared.rows, prepared.reasons
    (torch.Size([2, 1, 32, 32]), array([0, 2]), {1: 'there is no such file'})
    """
    if isinstance(filelist, str | Path):
        entries, source = list(read_filelist(filelist)), str(filelist)
    else:
        entries, source = entries_from_paths(filelist), "the files"
    if not isinstance(settings, Settings):
        settings = parse(settings or {}, "settings")
    data, rules = settings.data_settings, settings.preprocess_settings
    head = list(itertools.islice(entries, HEAD_ROWS))
    reference = make_reference(head, source, data, rules)
    usable: list[Prepared] = []
    rows: list[int] = []
    reasons: dict[int, str] = {}
    warnings: dict[int, str] = {}
    images: list[Tensor] = []
    for row, entry in enumerate(track(entries, len(entries), "images read")):
        try:
            _, prepared = prepare_entry(entry, reference, data, rules)
        except FitsImageError as error:
            reasons[row] = str(error)
            continue
        if prepared.warning:
            warnings[row] = prepared.warning
        rows.append(row)
        usable.append(prepared)
        images.append(_to_tensor(prepared, settings))
    statistics = {
        name: torch.tensor([p.statistics[name] for p in usable], dtype=torch.float32)
        for name in STATISTICS
    }
    return PreparedImages(
        _stack(images, reference.channels, settings),
        np.array(rows, dtype=np.int64),
        entries,
        reasons,
        warnings,
        statistics,
        settings,
    )


def _to_tensor(prepared: Prepared, settings: Settings) -> Tensor:
    """The pixels with the precision of a shard, as a network receives them."""
    stored = prepared.pixels.astype(settings.preprocess_settings.dtype)
    image = torch.from_numpy(stored.astype(np.float32))
    stacksize = settings.data_settings.stacksize
    return image.repeat(stacksize, 1, 1) if len(image) == 1 else image


def _stack(
    images: list[Tensor], channels: int, settings: Settings
) -> Tensor | list[Tensor]:
    """One tensor `(N, C, S, S)`, also without images; a list if sizes are native."""
    size = settings.preprocess_settings.size
    if size == "native":
        return images
    if images:
        return torch.stack(images)
    return torch.empty(0, channels * settings.data_settings.stacksize, size, size)
