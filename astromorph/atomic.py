"""Atomic writes: a file or folder is complete, or it does not exist."""

import contextlib
import glob
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from astromorph.errors import WriteError, explaining_write_errors


@contextlib.contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Write a file atomically: under its final name it is always complete.

    Parameters
    ----------
    path : path
        Final name of the file. Missing folders are created.

    Yields
    ------
    Path
        A temporary name in the same folder. The file is renamed when the block ends,
        and removed when it raises.

    Raises
    ------
    WriteError
        The disk is full or not writable.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with explaining_write_errors(path, path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            os.replace(temporary, path)
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)


def sync_to_disk(path: str | Path) -> None:
    """Wait until a file, or a folder and all in it, would survive a power failure.

    The name of the file is safe too: the folder that contains it is written. A file
    system that cannot do this for folders is left to itself.
    """
    path = Path(path)
    _sync_all(path)
    _sync(path.parent)


def _sync_all(path: Path) -> None:
    if path.is_dir():
        for entry in path.iterdir():
            if not entry.is_symlink():
                _sync_all(entry)
    _sync(path)


def _sync(path: Path) -> None:
    is_folder = path.is_dir()
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    except OSError:
        if not is_folder:
            raise
    finally:
        os.close(number)


def remove_leftovers(path: str | Path) -> None:
    """Remove temporary folders of `atomic_folder` that killed processes left behind.

    Parameters
    ----------
    path : path
        Final name of the folder. No other process may be writing it.
    """
    path = Path(path)
    for folder in path.parent.glob(f".{glob.escape(path.name)}.*"):
        if folder.is_dir() and {p.name for p in folder.iterdir()} <= {"new", "old"}:
            shutil.rmtree(folder, ignore_errors=True)


def keep_previous(path: str | Path) -> None:
    """Give a finished file a second name, ``.last/NAME`` in its folder.

    Snakemake deletes the outputs of a step before the step starts. Under its second
    name the file survives until its replacement is complete, even if that step fails.
    Both names are hard links to one file, so that no additional space is needed.

    Parameters
    ----------
    path : path
        The file. On a file system without hard links, nothing happens.
    """
    path = Path(path)
    previous = path.parent / ".last" / path.name
    with contextlib.suppress(OSError, WriteError), atomic_write(previous) as temporary:
        os.link(path, temporary)


@contextlib.contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """Write a folder atomically, replacing an existing one.

    Parameters
    ----------
    path : path
        Final name of the folder.

    Yields
    ------
    Path
        An empty temporary folder in the same parent folder.

    Raises
    ------
    WriteError
        The disk is full or not writable.
    """
    path = Path(path)
    with contextlib.ExitStack() as stack:
        stack.enter_context(explaining_write_errors(path, path.parent))
        path.parent.mkdir(parents=True, exist_ok=True)
        parent = stack.enter_context(
            tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent)
        )
        temporary, old = Path(parent) / "new", Path(parent) / "old"
        temporary.mkdir()
        yield temporary
        if path.exists():
            os.replace(path, old)
        os.replace(temporary, path)
