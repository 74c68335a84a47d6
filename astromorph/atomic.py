"""Files and folders that are written whole or not at all."""

import contextlib
import glob
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from astromorph.errors import WriteError, explaining_write_errors

pass


@contextlib.contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Write a file whole or not at all.

    Parameters
    ----------
    path : path
        The file's final name. Missing folders are made.

    Yields
    ------
    Path
        A temporary name beside it, renamed when the block ends well and
        removed when it does not.

    Raises
    ------
    WriteError
        The disk is full, or may not be written to.
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
    """Wait until a file would outlive a loss of power."""
    with open(path, "rb+") as file:
        os.fsync(file.fileno())


def remove_leftovers(path: str | Path) -> None:
    """Remove what processes that were killed left of a `atomic_folder`.

    Parameters
    ----------
    path : path
        The folder's final name. No other process may be writing it.
    """
    path = Path(path)
    for left in path.parent.glob(f".{glob.escape(path.name)}.*"):
        if left.is_dir() and {p.name for p in left.iterdir()} <= {"new", "old"}:
            shutil.rmtree(left, ignore_errors=True)


def keep_previous(path: str | Path) -> None:
    """Give a finished file a second name, ``.last/NAME`` in its folder.

    Snakemake deletes what a step will write before the step begins. Under its
    second name the last good file stays until its successor is there, whatever
    becomes of that step. It takes no space: both names are one file.

    Parameters
    ----------
    path : path
        The file. Where the file system has no such links, nothing happens.
    """
    path = Path(path)
    last = path.parent / ".last" / path.name
    with contextlib.suppress(OSError, WriteError), atomic_write(last) as temporary:
        os.link(path, temporary)


@contextlib.contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """Write a folder whole or not at all; what it held before is gone then.

    Parameters
    ----------
    path : path
        The folder's final name.

    Yields
    ------
    Path
        An empty temporary folder beside it.

    Raises
    ------
    WriteError
        The disk is full, or may not be written to.
    """
    path = Path(path)
    with contextlib.ExitStack() as stack:
        stack.enter_context(explaining_write_errors(path, path.parent))
        path.parent.mkdir(parents=True, exist_ok=True)
        made = stack.enter_context(
            tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent)
        )
        temporary, old = Path(made) / "new", Path(made) / "old"
        temporary.mkdir()
        yield temporary
        if path.exists():
            os.replace(path, old)
        os.replace(temporary, path)
