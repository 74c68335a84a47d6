"""Atomic writes: a file or folder is complete, or it does not exist."""

import contextlib
import errno
import functools
import json
import logging
import os
import re
import shutil
import socket
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from astromorph.errors import WriteError, explaining_write_errors
from astromorph.processes import is_running

LOG = logging.getLogger(__name__)
# A temporary name ends with the machine and the process that writes.
TEMPORARY = re.compile(r"\..*\.astromorph-(?P<host>.+)-(?P<pid>\d+)\.tmp")
# Seconds; whether a process of another machine is still writing cannot be checked.
MAX_AGE_ELSEWHERE = 7 * 86_400


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
    temporary = path.with_name(f".{path.name}{_ending()}")
    with explaining_write_errors(path, path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(path.parent.absolute(), os.getpid())
        try:
            yield temporary
            os.replace(temporary, path)
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)


def check_writable(files: Iterable[Path], folders: Iterable[Path] = ()) -> None:
    """Try to write before a long computation whose results would be lost.

    Parameters
    ----------
    files, folders : iterable of path
        Final names of what will be written by `atomic_write` and `atomic_folder`. An
        empty temporary file is written beside each; what exists does not change.

    Raises
    ------
    WriteError
        A file cannot be written; the message says why.
    """
    for path in files:
        if path.is_dir():
            number = errno.EISDIR
            with explaining_write_errors(path, path):
                raise OSError(number, os.strerror(number), str(path))
    for path in (*files, *folders):
        temporary = path.with_name(f".{path.name}.test{_ending()}")
        with explaining_write_errors(path, path.parent):
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                temporary.touch()
            finally:
                with contextlib.suppress(OSError):
                    temporary.unlink(missing_ok=True)


def read_cache(name: str) -> dict[str, Any]:
    """Read a JSON object from the user's cache folder.

    Parameters
    ----------
    name : str
        Name of the file in the folder ``astromorph`` of the XDG base directory
        specification.

    Returns
    -------
    dict
        Empty if there is no such file, or if it cannot be read.
    """
    try:
        values = json.loads(_cache_file(name).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return values if isinstance(values, dict) else {}


def write_cache(name: str, values: dict[str, Any]) -> None:
    """Write a JSON object into the user's cache folder, if it can be written.

    Parameters
    ----------
    name : str
        Name of the file.
    values : dict
        What `read_cache` is to return.
    """
    try:
        with atomic_write(_cache_file(name)) as temporary:
            temporary.write_text(json.dumps(values, indent=1), encoding="utf-8")
    except WriteError as error:
        LOG.info("%s", error)


def _cache_file(name: str) -> Path:
    folder = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(folder) / "astromorph" / name


def sync_to_disk(path: str | Path) -> None:
    """Wait until a file, or a folder and all in it, would survive a power failure.

    The name of the file is safe too: the folder that contains it is written. A file
    system that cannot do this for folders is left to itself.
    """
    path = Path(path)
    _sync_all(path)
    _sync(path.parent)


def sync_names(folder: str | Path) -> None:
    """Wait until the names in a folder, new or removed, would survive a power cut."""
    _sync(Path(folder))


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


def _ending() -> str:
    return f".astromorph-{socket.gethostname()}-{os.getpid()}.tmp"


@functools.cache  # a folder can contain many files: it is listed once in each process
def _remove_leftovers(folder: Path, own_pid: int) -> None:
    """Remove temporary files and folders that killed processes left in a folder."""
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        names = [entry.name for entry in entries]
        for match in filter(None, map(TEMPORARY.fullmatch, names)):
            path = folder / match[0]
            pid = int(match["pid"])
            if match["host"] != socket.gethostname():
                is_left = time.time() - _last_change(path) > MAX_AGE_ELSEWHERE
            else:
                is_left = pid != own_pid and not is_running(pid)
            if is_left:
                _remove(path)


def _last_change(path: Path) -> float:
    """When a file, or anything in a folder, was last changed."""
    return max(p.stat().st_mtime for p in (path, *path.rglob("*")))


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


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
        _remove_leftovers(path.parent.absolute(), os.getpid())
        parent = stack.enter_context(
            tempfile.TemporaryDirectory(
                prefix=f".{path.name}.", suffix=_ending(), dir=path.parent
            )
        )
        temporary, old = Path(parent) / "new", Path(parent) / "old"
        temporary.mkdir()
        yield temporary
        if path.exists():
            os.replace(path, old)
        os.replace(temporary, path)
