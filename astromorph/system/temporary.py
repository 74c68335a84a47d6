"""Folders for temporary files and caches, where home or TMPDIR cannot be written.

Other packages keep caches below ``~/.cache`` and settings below ``~/.config``: astropy,
matplotlib, numba and torch. Some of them fail if they cannot. On clusters and in
containers a user may have no home folder, or a full one.
"""

import atexit
import contextlib
import os
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from astromorph.errors import AstromorphError

# Variables of the XDG base directory specification, and the folders that they replace.
FOLDERS = {"XDG_CACHE_HOME": ".cache", "XDG_CONFIG_HOME": ".config"}
MIN_FREE_BYTES = 2**24
# Where SQLite looks for a folder, after the variables.
SQLITE_VARIABLES = ("SQLITE_TMPDIR", "TMPDIR")
SQLITE_FOLDERS = ("/var/tmp", "/usr/tmp", "/tmp", ".")


def use_writable_folders() -> None:
    """Let other packages use a temporary folder if their usual ones cannot be written.

    It is removed when this process ends. Called when the package is imported, before
    any of the others is; does nothing if home can be written. Worker processes inherit
    the folder of their parent.
    """
    if not os.path.isabs(os.path.expanduser("~")):  # bokeh has no other variable
        with contextlib.suppress(OSError):  # `check_folders` explains it
            os.environ["HOME"] = _temporary_folder("home")
    for variable, name in FOLDERS.items():
        folder = os.environ.get(variable) or os.path.expanduser(f"~/{name}")
        if is_writable(folder):
            if variable in os.environ:  # astropy ignores one that does not exist
                with contextlib.suppress(OSError):
                    os.makedirs(folder, exist_ok=True)
            continue
        with contextlib.suppress(OSError):
            os.environ[variable] = _temporary_folder(name)


def check_folders() -> None:
    """Check that other packages have folders for their caches.

    Raises
    ------
    AstromorphError
        Neither home nor any folder for temporary files can be written.
    """
    for variable, name in FOLDERS.items():
        folder = os.environ.get(variable) or os.path.expanduser(f"~/{name}")
        if not is_writable(folder):
            raise AstromorphError(
                f"{folder}: this folder for caches cannot be written or is full, and "
                "no folder for temporary files can be (TMPDIR, /tmp, /var/tmp, the "
                "working directory); set TMPDIR to a folder with some free space, for "
                "example TMPDIR=/scratch/$USER"
            )


def is_writable(folder: str | Path) -> bool:
    """Whether files can be written in a folder, which need not exist yet."""
    path = Path(folder)
    if not path.is_absolute():  # ~ could not be expanded: there is no home
        return False
    existing = next((p for p in (path, *path.parents) if os.path.lexists(p)), path)
    try:
        space = os.statvfs(existing)
    except OSError:
        return False
    free = space.f_bavail * space.f_frsize
    return (
        existing.is_dir()
        and os.access(existing, os.W_OK | os.X_OK)
        and free >= MIN_FREE_BYTES
    )


@contextlib.contextmanager
def temporary_database() -> Iterator[sqlite3.Connection]:
    """An empty database, which becomes a temporary file once it outgrows memory.

    Raises
    ------
    AstromorphError
        The file cannot be written; the message names its folder.
    """
    database = sqlite3.connect("")
    try:
        database.execute("PRAGMA temp_store = FILE")
        yield database
    except sqlite3.OperationalError as error:
        folder = _sqlite_folder()
        raise AstromorphError(
            f"{folder}: a temporary file cannot be written in this folder ({error}, "
            f"{_free_space(folder)}); free some space, or set TMPDIR to a folder with "
            "more, for example TMPDIR=/scratch/$USER, then run the same command again"
        ) from None
    finally:
        database.close()


_created: dict[int, str] = {}


def _temporary_folder(name: str) -> str:
    """A folder of that name in a new temporary folder of this process."""
    import tempfile

    if os.getpid() not in _created:
        # A new folder, which only this user can write: numba runs what it finds there.
        _created[os.getpid()] = tempfile.mkdtemp(prefix="astromorph-")
        atexit.register(_remove_folder, os.getpid())
    folder = os.path.join(_created[os.getpid()], name)
    os.makedirs(folder, exist_ok=True)
    return folder


def _remove_folder(pid: int) -> None:
    if pid == os.getpid():  # not in a forked process
        shutil.rmtree(_created[pid], ignore_errors=True)


def _sqlite_folder() -> str:
    """The folder in which SQLite creates temporary files."""
    named = [os.environ[name] for name in SQLITE_VARIABLES if os.environ.get(name)]
    folders = [*named, *SQLITE_FOLDERS]
    usable = [
        folder
        for folder in folders
        if os.path.isdir(folder) and os.access(folder, os.W_OK | os.X_OK)
    ]
    return (usable or folders)[0]


def _free_space(folder: str) -> str:
    try:
        return f"{shutil.disk_usage(folder).free / 1e6:,.0f} MB free"
    except OSError:
        return "no such folder"
