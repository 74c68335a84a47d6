"""Temporary databases, which become files in the folder TMPDIR."""

import contextlib
import os
import shutil
import sqlite3
from collections.abc import Iterator

from astromorph.errors import AstromorphError

# Where SQLite looks for a folder, after the variables.
SQLITE_VARIABLES = ("SQLITE_TMPDIR", "TMPDIR")
SQLITE_FOLDERS = ("/var/tmp", "/usr/tmp", "/tmp", ".")


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
