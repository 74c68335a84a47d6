"""Images of FITS files as the workflow prepares them, in Python."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
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
    """Images that are ready for a network, and the rows that they are from.

    It has a length, N, and gives one image by its place, so that a trainer, a
    `DataLoader` and `split_images` take it as a dataset.

    Attributes
    ----------
    images : Tensor, shape (N, C, S, S), float32, or list of Tensor, shape (C, H, W)
        From 0 to 1; a list where `preprocess_settings.size` is ``"native"``. A single
        channel is repeated where `data_settings.stacksize` asks for it.
    rows : ndarray, shape (N,), int64
        For each image, its row in `entries`, rising.
    entries : list of Entry, of length M
        All rows of the list: `image_id`, `path`, and `columns`, such as a label.
    reasons : dict of int to str
        Rows that could not be used, M - N of them, and why.
    warnings : dict of int to str
        Rows that were used and are odd, and what about them.
    statistics : dict of str to Tensor, shape (N,), float32
        Background, noise and others; see `astromorph.preprocessing.prepare.Prepared`.
    settings : Settings
        What the images were made with.
    """

    images: Tensor | list[Tensor]
    rows: "np.ndarray[tuple[int], np.dtype[np.int64]]"
    entries: list[Entry]
    reasons: dict[int, str]
    warnings: dict[int, str]
    statistics: dict[str, Tensor]
    settings: Settings

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, place: int) -> Tensor:
        """One image `(C, H, W)`, float32; `place` is from 0 to N - 1."""
        return self.images[place]

    def column(self, name: str) -> list[str]:
        """A further column of the list, such as ``"label"``.

        Parameters
        ----------
        name : str
            Of the column.

        Returns
        -------
        list of str
            N cells; empty where the list has no such column.
        """
        return [self.entries[row].columns.get(name, "") for row in self.rows]

    @property
    def paths(self) -> list[str]:
        """The files of the N images; of several channels the first one's."""
        return [self.entries[row].path for row in self.rows]

    @property
    def image_ids(self) -> list[str]:
        """Ids of the N images, as in the tables of the workflow."""
        return [self.entries[row].image_id for row in self.rows]

    @property
    def tensor_settings(self) -> str:
        """How the images were made, as a model file keeps it."""
        return canonical_json(part_of(self.settings, "preprocess"))


def prepared_images(
    filelist: str | Path | Sequence[str | Path | Sequence[str | Path]],
    settings: Settings | Mapping[str, Any] | None = None,
) -> PreparedImages:
    """Read FITS files and prepare them as the workflow does, pixel by pixel the same.

    Planes are chosen, the image is cropped and resized with no weight on bad pixels,
    and its brightness stretched to 0 to 1. All images are kept in memory.

    Parameters
    ----------
    filelist : path or sequence
        A file list, as the workflow takes it; or the files themselves, each a path,
        or a sequence of paths whose images are the channels of one.
    settings : Settings or mapping, optional
        ``{"preprocess_settings": {"size": 96}}``, nested as in the configuration;
        `data_settings` and `preprocess_settings` are used. By default as there: the
        first HDU with an image, 64 by 64 pixels, asinh from the noise on.

    Returns
    -------
    PreparedImages
        A file that cannot be used is no error but a row with a reason.

    Raises
    ------
    AstromorphError
        The list cannot be read or names no file; a setting is unknown or out of
        range; or none of the first 256 files has an image, and the settings make
        all depend on them.

    Examples
    --------
    >>> import tempfile
    >>> from astromorph.sky.simulate import simulate
    >>> folder = tempfile.mkdtemp()
    >>> found = prepared_images(simulate(folder, number=3, seed=0))
    >>> found.images.shape, found.column("label")[0]
    (torch.Size([3, 1, 64, 64]), 'disk')

    Files without a list, another size, and one that is not there:

    >>> files = [found.paths[0], "nowhere.fits", found.paths[2]]
    >>> found = prepared_images(files, {"preprocess_settings": {"size": 32}})
    >>> found.images.shape, found.rows, found.reasons
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
    kept: list[Prepared] = []
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
        kept.append(prepared)
        images.append(_tensor(prepared, settings))
    return PreparedImages(
        _together(images, reference.channels, settings),
        np.array(rows, dtype=np.int64),
        entries,
        reasons,
        warnings,
        {
            name: torch.tensor([k.statistics[name] for k in kept], dtype=torch.float32)
            for name in STATISTICS
        },
        settings,
    )


def _tensor(prepared: Prepared, settings: Settings) -> Tensor:
    """The pixels as a shard keeps them, and as a network is given them."""
    stored = prepared.pixels.astype(settings.preprocess_settings.dtype)
    image = torch.from_numpy(stored.astype(np.float32))
    stacksize = settings.data_settings.stacksize
    return image.repeat(stacksize, 1, 1) if len(image) == 1 else image


def _together(
    images: list[Tensor], channels: int, settings: Settings
) -> Tensor | list[Tensor]:
    size = settings.preprocess_settings.size
    if size == "native":
        return images
    if images:
        return torch.stack(images)
    return torch.empty(0, channels * settings.data_settings.stacksize, size, size)
