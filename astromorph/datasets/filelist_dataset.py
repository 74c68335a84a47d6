"""FITS files as a torch dataset."""

import operator
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from astromorph.errors import FitsImageError
from astromorph.filelist.entries import Entry, read_filelist
from astromorph.fits import image as fits_image
from astromorph.settings.loading import parse
from astromorph.settings.sections import DataSettings

MISSING = "N/A"  # where a header lacks a keyword
SOURCE = "FitsFilelistDataset"  # begins the messages about settings


class FitsFilelistDataset(Dataset[Tensor]):
    """Images of FITS files, each read when it is used.

    Pixel values are not scaled. Bad pixels (NaN, infinite, BLANK) are replaced by the
    median of the good ones.

    Parameters
    ----------
    filelist : path or list of path
        A file list, as in the workflow, or the files themselves. A relative path in a
        list is relative to the folder of the list or, where there is no such file, to
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
            ``"N/A"`` where a header lacks the keyword or its value is empty.
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
                "several images make a torch.utils.data.Subset"
            ) from None
        if not -len(self) <= number < len(self):
            raise IndexError(f"image {number}: there are {len(self)} images")
        image = _read_pixels(self.paths[number], self.settings)
        return image.repeat(self.stacksize, 1, 1) if self.stacksize > 1 else image


def _read_pixels(paths: tuple[str, ...], settings: DataSettings) -> Tensor:
    """Pixels `(C, H, W)`, float32; bad ones are the median of the good ones."""
    with _naming_file(paths):
        _, image = fits_image.read_image(paths, settings)
    pixels = image.pixels.astype(np.float32, copy=True)
    if image.mask.any() and not image.mask.all():
        for channel in pixels:
            channel[image.mask] = np.median(channel[~image.mask])
    return torch.from_numpy(pixels)


@contextmanager
def _naming_file(paths: Sequence[str]) -> Iterator[None]:
    """Begin errors with the file; in tables of the workflow its row names it."""
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
        and not Path(entry.path).exists()
        and Path(entry.listed_path).exists()
    ):
        return (entry.listed_path,)
    return entry.paths
