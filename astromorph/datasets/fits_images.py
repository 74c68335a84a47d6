"""Datasets of FITS images: prepared as in the workflow, or unscaled."""

import itertools
import operator
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from astromorph.artefacts.columns import STATISTICS
from astromorph.errors import FitsImageError
from astromorph.filelist.entries import Entry, entries_from_paths, read_filelist
from astromorph.filelist.shards import HEAD_ROWS
from astromorph.fits import image as fits_image
from astromorph.preprocessing.image_to_tensor import Prepared
from astromorph.preprocessing.list_reference import make_reference
from astromorph.preprocessing.preprocess import prepare_entry
from astromorph.progress import track
from astromorph.provenance import canonical_json
from astromorph.settings.loading import parse
from astromorph.settings.sections import DataSettings, Settings
from astromorph.settings.steps import part_of
from astromorph.system.files import split_hdu

MISSING = "N/A"  # for a keyword that is not in the header
SOURCE = "FitsFilelistDataset"  # at the start of messages about settings


@dataclass(frozen=True, slots=True)
class PreparedImages:
    """Images that are ready for a network, and the rows of the list they come from.

    It has a length, N, and can be indexed, so it can be used as a dataset in a
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
        The reason for each of the M - N rows that could not be used.
    warnings : dict of int to str
        The warnings for rows that were used but look unusual.
    statistics : dict of str to Tensor, shape (N,), float64
        Background, noise and others; see
        `astromorph.preprocessing.image_to_tensor.Prepared`.
    settings : Settings
        The settings that the images were prepared with.
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
            N values; empty strings if the list has no such column.
        """
        return [self.entries[row].columns.get(name, "") for row in self.rows]

    @property
    def paths(self) -> list[str]:
        """The files of the N images; the first one for an image of several files."""
        return [self.entries[row].path for row in self.rows]

    @property
    def image_ids(self) -> list[str]:
        """The ids of the N images, as in the tables of the workflow."""
        return [self.entries[row].image_id for row in self.rows]

    @property
    def tensor_settings(self) -> str:
        """The settings that the images were prepared with, as JSON for a model file."""
        return canonical_json(part_of(self.settings, "preprocess"))


def prepared_images(
    filelist: str | Path | Sequence[str | Path | Sequence[str | Path]],
    settings: Settings | Mapping[str, Any] | None = None,
) -> PreparedImages:
    """Read FITS files and prepare them exactly as the workflow does.

    Planes are selected, each image is cropped and resized without its bad pixels, and
    its brightness is scaled to the range 0 to 1. All images are held in memory.

    Parameters
    ----------
    filelist : path or sequence
        A file list, as in the workflow; or the files themselves, each a path or a
        sequence of paths, whose images become the channels of one image.
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
        a setting is derived from the first 256 files and none of them has an image.

    Examples
    --------
    >>> import tempfile
    >>> from astromorph.sky.simulate import simulate
    >>> folder = tempfile.mkdtemp()
    >>> prepared = prepared_images(simulate(folder, number=3, seed=0))
    >>> prepared.images.shape, prepared.column("label")[0]
    (torch.Size([3, 1, 64, 64]), 'disk')

    Files without a list, one of them missing, at another size:

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
        name: torch.tensor([p.statistics[name] for p in usable], dtype=torch.float64)
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
    """One tensor `(N, C, S, S)`, even if N is 0; a list if sizes are native."""
    size = settings.preprocess_settings.size
    if size == "native":
        return images
    if images:
        return torch.stack(images)
    return torch.empty(0, channels * settings.data_settings.stacksize, size, size)


class FitsFilelistDataset(Dataset[Tensor]):
    """Images of FITS files, each read on access.

    Pixel values are not scaled. Bad pixels (NaN, infinite, BLANK) are replaced by the
    median of the good ones.

    Parameters
    ----------
    filelist : path or list of path
        A file list, as in the workflow, or the files themselves. A relative path in a
        list is relative to the folder of the list or, if there is no such file, to
        the working directory.
    stacksize : int
        Number of times that a single channel is repeated.
    **data_settings
        Further settings of `data_settings`: `hdu`, `planes`, `max_pixels`.

    Attributes
    ----------
    filenames : list of str
        The files, in order.
    gives_copies : bool
        True: each item consists of copies of one image.

    Raises
    ------
    AstromorphError
        The list cannot be read, or a setting is unknown or out of range.

    Examples
    --------
    >>> import tempfile
    >>> from astromorph.sky.simulate import simulate
    >>> datafile = simulate(tempfile.mkdtemp(), number=3, seed=0)
    >>> data = FitsFilelistDataset(datafile, stacksize=3)
    >>> len(data), data[0].shape[:2]
    (3, torch.Size([4, 3]))
    """

    gives_copies = True

    def __init__(
        self,
        filelist: str | Path | Sequence[str | Path],
        stacksize: int = 1,
        **data_settings: Any,
    ) -> None:
        if isinstance(filelist, str | Path):
            self.paths = [_locate(entry) for entry in read_filelist(filelist)]
        else:
            self.paths = [(str(path),) for path in filelist]
        self.filenames = [paths[0] for paths in self.paths]
        self.stacksize = stacksize
        self.settings = parse(
            {"data_settings": {"stacksize": stacksize, **data_settings}}, SOURCE
        ).data_settings

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        """Four copies `(4, C, H, W)`, float32, of an image.

        The image, rotated by 180 degrees, mirrored, and both. `ByolTrainer` uses the
        first and draws views of its own.

        Raises
        ------
        FitsImageError
            The file cannot be used; the message names it and says why.
        IndexError, TypeError
            There is no such image; the index is not an integer.
        """
        image = self._image(index)
        rotated = image.rot90(2, (1, 2))
        return torch.stack([image, rotated, image.flip(2), rotated.flip(2)])

    def get_all_items(self) -> list[Tensor]:
        """All images, each `(1, C, H, W)`, float32."""
        return [self._image(index)[None] for index in range(len(self))]

    def get_object_property(self, keyword: str) -> list[str]:
        """The value of a header keyword for each image.

        Parameters
        ----------
        keyword : str
            Such as ``"OBJECT"``.

        Returns
        -------
        list of str
            ``"N/A"`` if a header lacks the keyword or its value is empty.
        """
        settings = self.settings.model_copy(update={"header_columns": (keyword,)})
        values = []
        for paths in self.paths:
            with _naming_file(paths):
                facts = fits_image.describe_image(paths, settings)
            value = facts.keywords.get(keyword, "")
            values.append(value.strip() or MISSING)
        return values

    def _image(self, index: int) -> Tensor:
        """One image `(C, H, W)`, float32, its channel repeated `stacksize` times."""
        try:
            number = operator.index(index)
        except TypeError:
            raise TypeError(
                f"{SOURCE}: found the index {index!r}; allowed are integers; for "
                "several images, use torch.utils.data.Subset"
            ) from None
        if not -len(self) <= number < len(self):
            raise IndexError(f"image {number}: there are {len(self)} images")
        image = _read_pixels(self.paths[number], self.settings)
        return image.repeat(self.stacksize, 1, 1) if self.stacksize > 1 else image


def _read_pixels(paths: tuple[str, ...], settings: DataSettings) -> Tensor:
    """Pixels `(C, H, W)`, float32; bad ones are the median of the good ones."""
    with _naming_file(paths):
        _, image = fits_image.read_image(paths, settings)
        with np.errstate(over="ignore"):
            pixels = image.pixels.astype(np.float32, copy=True)
        if not np.isfinite(pixels).all():
            raise FitsImageError(
                "its values exceed the range of 32-bit floating point; divide them by "
                "a constant, or use `prepare_images`, which scales them"
            )
    if image.mask.any() and not image.mask.all():
        for channel in pixels:
            channel[image.mask] = np.median(channel[~image.mask])
    return torch.from_numpy(pixels)


@contextmanager
def _naming_file(paths: Sequence[str]) -> Iterator[None]:
    """Put the file before the message of an error.

    The workflow needs no such prefix: its tables have a column for the file.
    """
    try:
        yield
    except FitsImageError as error:
        if str(error).startswith(tuple(paths)):
            raise
        raise FitsImageError(f"{paths[0]}: {error}") from None


def _locate(entry: Entry) -> tuple[str, ...]:
    """The files of a row of the list; see `filelist` above."""
    if (
        not entry.other_paths
        and not Path(split_hdu(entry.path)[0]).exists()
        and Path(split_hdu(entry.listed_path)[0]).exists()
    ):
        return (entry.listed_path,)
    return entry.paths
