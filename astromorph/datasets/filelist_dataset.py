"""FITS files as a torch dataset, for loops of one's own."""

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
from astromorph.moved import told
from astromorph.settings.loading import parse

NOTHING = "N/A"
SOURCE = "FitsFilelistDataset"


class FitsFilelistDataset(Dataset[Tensor]):
    """Images of FITS files, read when they are asked for.

    Pixels keep their unit. Bad ones (NaN, infinite, BLANK) get the median of the
    good ones, so that they stand out from nothing.

    Parameters
    ----------
    filelist : path or list of path
        A file list, as the workflow takes it, or the files themselves. A relative
        path in a list counts from the list's folder, or else from the working
        folder.
    stacksize : int
        How often a single channel is repeated.
    **data_settings
        Further settings of `data_settings`: `hdu`, `planes`, `max_pixels`.

    Attributes
    ----------
    filenames : list of str
        The files, in order.
    gives_copies : bool
        True: an item is copies of one image.

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
            found = [_where(entry) for entry in read_filelist(filelist)]
        else:
            found = [(str(path),) for path in filelist]
        self.paths = found
        self.filenames = [paths[0] for paths in found]
        self.stacksize = stacksize
        self.rules = parse(
            {"data_settings": {"stacksize": stacksize, **data_settings}}, SOURCE
        ).data_settings

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        """Four copies `(4, C, H, W)`, float32, of an image.

        As it is, turned by 180 degrees, mirrored, and both. `ByolTrainer` takes the
        first and draws views of its own.

        Raises
        ------
        FitsImageError
            The file cannot be used; the message names it and says why.
        IndexError, TypeError
            There is no such image; the index is no whole number.
        """
        image = self._read(index)
        turned = image.rot90(2, (1, 2))
        return torch.stack([image, turned, image.flip(2), turned.flip(2)])

    def get_all_items(self) -> list[Tensor]:
        """Every image, `(1, C, H, W)`, float32."""
        return [self._read(k)[None] for k in range(len(self))]

    def get_object_property(self, keyword: str) -> list[str]:
        """A keyword of every image's header.

        Parameters
        ----------
        keyword : str
            Such as ``"OBJECT"``.

        Returns
        -------
        list of str
            ``"N/A"`` where a header does not have it, or has nothing in it.
        """
        rules = self.rules.model_copy(update={"header_columns": (keyword,)})
        values = []
        for paths in self.paths:
            with _naming(paths):
                facts = fits_image.describe_image(paths, rules)
            value = facts.keywords.get(keyword, "")
            values.append(value.strip() or NOTHING)
        return values

    def read_fits_data(self, filename: str | Path) -> Tensor:
        """Pixels `(H, W)` of a file, as version 0.1 had it."""
        told(f"{SOURCE}.read_fits_data", "astromorph.FitsFilelistDataset([file])[0]")
        return self._image((str(filename),))[0]

    def _read(self, index: int) -> Tensor:
        try:
            place = operator.index(index)
        except TypeError:
            raise TypeError(
                f"{SOURCE}: found the index {index!r}; allowed are whole numbers; of "
                "several images make a torch.utils.data.Subset"
            ) from None
        if not -len(self) <= place < len(self):
            raise IndexError(f"image {place}: there are {len(self)}")
        made = self._image(self.paths[place])
        return made.repeat(self.stacksize, 1, 1) if self.stacksize > 1 else made

    def _image(self, paths: tuple[str, ...]) -> Tensor:
        """Pixels `(C, H, W)`; bad ones have the median of the others."""
        with _naming(paths):
            _, image = fits_image.read_image(paths, self.rules)
        pixels = image.pixels.astype(np.float32, copy=True)
        if image.mask.any() and not image.mask.all():
            for channel in pixels:
                channel[image.mask] = np.median(channel[~image.mask])
        return torch.from_numpy(pixels)


@contextmanager
def _naming(paths: Sequence[str]) -> Iterator[None]:
    """Errors begin with the file; in a table of the workflow its row says it."""
    try:
        yield
    except FitsImageError as error:
        if str(error).startswith(tuple(paths)):
            raise
        raise FitsImageError(f"{paths[0]}: {error}") from None


def _where(entry: Entry) -> tuple[str, ...]:
    """The files of a row; from the working folder where the list's has none."""
    if (
        not entry.other_paths
        and not Path(entry.path).exists()
        and Path(entry.listed_path).exists()
    ):
        return (entry.listed_path,)
    return entry.paths
