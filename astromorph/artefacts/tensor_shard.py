"""Tensor shards: the cache between preprocessing and all steps that read pixels.

Each shard is one ``.pt`` file of tensors and plain values, which is written once and
memory-mapped for reading. Nothing is ever unpickled.
"""

import zipfile
from dataclasses import dataclass, replace
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, BinaryIO, cast

import torch
from torch import Tensor

from astromorph.artefacts.run_files import RenamedShard, ShardFile
from astromorph.artefacts.shard_writer import SHARD_FORMAT, SHARD_VERSION
from astromorph.atomic import atomic_write, sync_to_disk
from astromorph.errors import AstromorphError, is_machine_error
from astromorph.system.files import check_file


@dataclass(frozen=True, slots=True)
class TensorShard:
    """Images of one shard, ready for the network.

    Attributes
    ----------
    images : Tensor, shape (N, C, H, W) or (P,), float16 or float32
        Values from 0 to 1; rejected files are left out. If sizes differ, the
        concatenated pixels of all images.
    shapes : Tensor, shape (N, 2), int32
        Height and width of each image.
    channels : int
        C.
    valid : Tensor, shape (B,), uint8
        One bit for each pixel of each image, 1 if it is valid; each image begins
        at a byte boundary. `unpack_valid` reads it.
    image_ids : tuple of str
        N ids.
    rows : Tensor, shape (N,), int64
        Row numbers in the file list.
    statistics : dict of str to Tensor, shape (N,), float64
        See `astromorph.preprocessing.image_to_tensor.Prepared`.
    settings : str
        Canonical settings that the images were prepared with.
    """

    images: Tensor
    shapes: Tensor
    channels: int
    valid: Tensor
    image_ids: tuple[str, ...]
    rows: Tensor
    statistics: dict[str, Tensor]
    settings: str

    def __len__(self) -> int:
        return len(self.image_ids)

    def image_list(self) -> list[Tensor]:
        """The N images `(C, H, W)`, as views of the mapped file."""
        if self.images.ndim == 4:
            return list(self.images)
        sizes = (self.shapes.prod(dim=1) * self.channels).tolist()
        parts = torch.split(self.images, sizes) if sizes else ()
        return [
            part.view(self.channels, *shape)
            for part, shape in zip(parts, self.shapes.tolist(), strict=True)
        ]

    def unpack_valid(self) -> list[Tensor]:
        """The masks `(H, W)` of the N images, bool: True for valid pixels."""
        shapes = self.shapes.tolist()
        parts = torch.split(self.valid, [-(-h * w // 8) for h, w in shapes])
        bits = torch.tensor([128, 64, 32, 16, 8, 4, 2, 1], dtype=torch.uint8)
        return [
            (part[:, None] & bits).bool().view(-1)[: h * w].view(h, w)
            for part, (h, w) in zip(parts, shapes, strict=True)
        ]


def save_values(path: str | Path, values: dict[str, Any]) -> None:
    """Write tensors and plain values to a ``.pt`` file atomically.

    Raises
    ------
    WriteError
        The disk is full or not writable.
    """
    with atomic_write(path) as temporary, open(temporary, "wb") as file:
        # Given a file instead of a name, torch writes no name into it, which here would
        # contain the process.
        target = _ErrorKeepingFile(file)
        torch.save(values, cast(BinaryIO, target))
        target.raise_error()
        file.flush()
        sync_to_disk(temporary)


class _ErrorKeepingFile:
    """A file that keeps the first error of writing, which torch would hide.

    Parameters
    ----------
    file : binary file
        The file to write to. After an error, nothing more is written.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._error: OSError | None = None

    def write(self, data: bytes) -> int:
        """Write data; always returns its length."""
        if self._error is None:
            try:
                self._file.write(data)
            except OSError as error:
                self._error = error
        return len(data)

    def flush(self) -> None:
        """Do nothing: the owner of the file flushes it."""

    def raise_error(self) -> None:
        """Raise the error that is kept, if there is one."""
        if self._error is not None:
            raise self._error


def find_damage(path: str | Path) -> str | None:
    """Compare all bytes of a ``.pt`` file with the checksums that are in the file.

    Parameters
    ----------
    path : path
        The file. The same is possible for any file of `torch.save`.

    Returns
    -------
    str or None
        What is damaged; None if nothing is, or if the file has no checksums at all.
    """
    try:
        if not zipfile.is_zipfile(path):
            return None
        with zipfile.ZipFile(path) as archive:
            part = archive.testzip()
    except Exception as error:  # damaged lengths and flags cause errors of many kinds
        if is_machine_error(error):
            raise
        return str(error) or type(error).__name__
    return None if part is None else f"the checksum of its part {part} differs"


def load_values(
    path: str | Path, kind: str, version: int, remedy: str, verify: bool = False
) -> dict[str, Any]:
    """Read a ``.pt`` file of tensors and plain values, mapped into memory.

    Parameters
    ----------
    path : path
        The file.
    kind : str
        Expected entry `format`.
    version : int
        Expected entry `format_version`.
    remedy : str
        What the user can do if the file is not as expected.
    verify : bool
        Read all bytes and compare them with the checksums in the file.

    Returns
    -------
    dict

    Raises
    ------
    AstromorphError
        The file is missing, damaged, pickled, or of another kind or version.
    """
    check_file(path, remedy)
    damage = find_damage(path) if verify else None
    if damage:
        raise AstromorphError(f"{path}: this file is damaged ({damage}); {remedy}")
    try:
        values = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except UnpicklingError:
        raise AstromorphError(
            f"{path}: this file contains pickled objects, which could run any program, "
            f"and is not read; only tensors and plain values are allowed; {remedy}. "
            "(`astromorph convert --help` explains how to convert the weights of an "
            "old model)"
        ) from None
    except Exception as error:  # torch raises errors of many kinds
        if is_machine_error(error):
            raise
        reason = str(error).splitlines()[0][:200] if str(error) else "damaged"
        raise AstromorphError(
            f"{path}: this is not a readable .pt file ({reason}); {remedy}"
        ) from None
    found = values.get("format") if isinstance(values, dict) else type(values).__name__
    if found != kind:
        raise AstromorphError(f"{path}: found {found!r}, expected {kind!r}; {remedy}")
    if values.get("format_version") != version:
        raise AstromorphError(
            f"{path}: found format version {values.get('format_version')!r}, written "
            f"by astromorph {values.get('package_version', 'unknown')}; this one reads "
            f"version {version}; {remedy}"
        )
    plain: dict[str, Any] = values
    return plain


def read_shard(path: ShardFile) -> TensorShard:
    """Map one shard into memory; pixels are read when they are used.

    Parameters
    ----------
    path : path or RenamedShard
        The file.

    Raises
    ------
    AstromorphError
        The file is not a tensor shard of this version.
    """
    if isinstance(path, RenamedShard):
        shard, names = read_shard(path.path), path.names
        image_ids = tuple(names.get(name, name) for name in shard.image_ids)
        return replace(shard, image_ids=image_ids)
    values = load_values(
        path, SHARD_FORMAT, SHARD_VERSION, "remove it and run preprocess again"
    )
    return TensorShard(
        images=values["images"],
        shapes=values["shapes"],
        channels=values["channels"],
        valid=values["valid"],
        image_ids=tuple(values["image_ids"]),
        rows=values["rows"],
        statistics=values["statistics"],
        settings=values["settings"],
    )
