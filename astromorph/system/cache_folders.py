"""Folders for the caches of other packages, where home cannot be written.

astropy, matplotlib, numba and torch keep caches below ``~/.cache`` and settings below
``~/.config``. Some of them fail if they cannot: on clusters and in containers a user
may have no home folder, or a full one. `import astromorph` imports this module, so it
imports almost nothing itself.
"""

import os

# Variables of the XDG base directory specification, and the folders that they replace.
FOLDERS = {"XDG_CACHE_HOME": ".cache", "XDG_CONFIG_HOME": ".config"}
MIN_FREE_BYTES = 2**24


def use_writable_folders() -> None:
    """Let other packages use a temporary folder if their usual ones cannot be written.

    It is removed when this process ends. Called when the package is imported, before
    any of the others is; does nothing if home can be written. Worker processes inherit
    the folder of their parent.
    """
    for variable, name in FOLDERS.items():
        folder = _folder(variable, name)
        if not is_writable(folder) or not _exists_if_set(variable):
            _use_temporary_folder(variable, name)


def check_folders() -> None:
    """Check that other packages have folders for their caches.

    Raises
    ------
    AstromorphError
        Neither home nor any folder for temporary files can be written.
    """
    from astromorph.errors import AstromorphError

    for variable, name in FOLDERS.items():
        if not is_writable(folder := _folder(variable, name)):
            raise AstromorphError(
                f"{folder}: this folder for caches cannot be written or is full, and "
                "no folder for temporary files can be (TMPDIR, /tmp, /var/tmp, the "
                "working directory); set TMPDIR to a folder with some free space, for "
                "example TMPDIR=/scratch/$USER"
            )


def is_writable(folder: str) -> bool:
    """Whether files can be written in a folder, which need not exist yet."""
    if not os.path.isabs(folder) or "\0" in folder:  # ~ is relative without a home
        return False
    existing = folder
    while not os.path.lexists(existing):
        existing = os.path.dirname(existing)
    try:
        space = os.statvfs(existing)
    except OSError:
        return False
    return (
        os.path.isdir(existing)
        and os.access(existing, os.W_OK | os.X_OK)
        and space.f_bavail * space.f_frsize >= MIN_FREE_BYTES
    )


def _folder(variable: str, name: str) -> str:
    """The folder that other packages use."""
    return os.environ.get(variable) or os.path.expanduser(f"~/{name}")


def _exists_if_set(variable: str) -> bool:
    """Create the folder that a variable names: astropy ignores a missing one."""
    try:
        if os.environ.get(variable):
            os.makedirs(os.environ[variable], exist_ok=True)
    except OSError:
        return False
    return True


def _use_temporary_folder(variable: str, name: str) -> None:
    """Set a variable to a new folder; without any, `check_folders` explains it."""
    try:
        folder = os.path.join(_temporary_folder(), name)
        os.makedirs(folder, exist_ok=True)
    except OSError:
        return
    os.environ[variable] = folder


_created: dict[int, str] = {}


def _temporary_folder() -> str:
    """The temporary folder of this process, which only this user can write.

    A name that others can guess would not be safe: numba runs what it finds there.
    """
    import atexit
    import tempfile

    if os.getpid() not in _created:
        _created[os.getpid()] = tempfile.mkdtemp(prefix="astromorph-")
        atexit.register(_remove_folder, os.getpid())
    return _created[os.getpid()]


def _remove_folder(pid: int) -> None:
    import shutil

    if pid == os.getpid():  # not in a forked process
        shutil.rmtree(_created[pid], ignore_errors=True)
