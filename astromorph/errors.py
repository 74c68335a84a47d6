"""The errors that a user is meant to read, and what went wrong with the machine.

Full disks, missing rights, memory that ran out, devices that went away: no fault of
the program, and nothing that a traceback explains.
"""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

AGAIN = "then run the same again: what is complete is kept"
FULL = (errno.ENOSPC, errno.EDQUOT)
BARRED = (errno.EACCES, errno.EPERM, errno.EROFS)
GONE = (errno.ENOENT, errno.ESTALE, errno.ENOTDIR)
NO_MEMORY = ("allocate memory", "bad alloc", "bad_alloc")


class AstromorphError(Exception):
    """Something that the user can put right.

    The message names the file or the setting, what was found, what is allowed
    and what to do. The command line prints it without a traceback.
    """


class FitsImageError(AstromorphError):
    """A file from which no image can be taken; the message is the reason."""


class WriteError(AstromorphError):
    """A file could not be written; the message says why."""


@contextmanager
def explaining_write_errors(path: str | Path, folder: str | Path) -> Iterator[None]:
    """Name the file that is being written where the disk refuses it.

    Parameters
    ----------
    path : path
        The name that the user knows.
    folder : path
        Where it is written, under whatever name at first.

    Raises
    ------
    WriteError
        In place of an OSError about the folder, what lies in it, a folder on the way
        to it, or about no file.
    """
    try:
        yield
    except OSError as error:
        named = error.filename
        if named is None or _concerns(str(named), str(folder)):
            raise WriteError(explain_write_error(path, error)) from error
        raise


def _concerns(named: str, folder: str) -> bool:
    return os.path.commonpath([os.path.abspath(named), os.path.abspath(folder)]) in (
        os.path.abspath(named),
        os.path.abspath(folder),
    )


def explain_write_error(path: str | Path, error: OSError) -> str:
    """Why a file cannot be written, and what to do."""
    folder = _existing(Path(path))
    if error.errno in FULL:
        return (
            f"{path}: the disk is full, or your share of it ({_free(folder)}); free "
            f"some, {AGAIN}"
        )
    if error.errno in BARRED:
        return (
            f"{path}: no right to write here ({os.strerror(error.errno)}); change the "
            f"rights of {folder}, or work in another folder, {AGAIN}"
        )
    reason = os.strerror(error.errno) if error.errno else error
    return f"{path}: cannot be written ({reason}); mend that, {AGAIN}"


def explain_error(error: BaseException) -> str | None:
    """Words for an error of the machine; None for any other.

    Parameters
    ----------
    error : BaseException
        What ended a step.
    """
    if isinstance(error, OSError) and error.errno not in (None, errno.ENOMEM):
        return _of_file(error)
    return is_machine_error(error)


def is_machine_error(error: BaseException) -> str | None:
    """The same for memory and devices alone, which no file can be blamed for."""
    kind, said = type(error).__name__, " ".join(str(error).split())
    if kind == "OutOfMemoryError":
        return (
            f"the memory of the GPU ran out ({said[:200]}); set smaller `batch_size`, "
            f"`inference_settings.batch_size` or `preprocess_settings.size`, {AGAIN}"
        )
    if kind == "AcceleratorError" or "CUDA error" in said or "NCCL" in said:
        return (
            f"the GPU failed or went away ({said[:200]}); look at it with nvidia-smi, "
            f"{AGAIN}; training goes on from its last checkpoint"
        )
    if isinstance(error, MemoryError) or any(text in said for text in NO_MEMORY):
        return (
            f"memory ran out ({said[:200] or 'no more is to be had'}); set a smaller "
            "`batch_size`, `preprocess_settings.size` or `shard_size`, or give the job "
            f"more (`mem_mb`), {AGAIN}"
        )
    if kind == "BrokenProcessPool":
        return (
            "one of the processes was killed, most likely because memory ran out; use "
            "fewer (`core_limit`), or give the job more memory (`mem_mb`), " + AGAIN
        )
    return None


def _of_file(error: OSError) -> str | None:
    if error.filename is None:
        return (
            None if error.errno not in FULL else explain_write_error(os.getcwd(), error)
        )
    name = os.fsdecode(error.filename)
    if error.errno in GONE:
        return (
            f"{name}: no such file, or not any more; bring it back, or take it out of "
            f"the list, {AGAIN}"
        )
    if error.errno in FULL:
        return explain_write_error(name, error)
    return f"{name}: cannot be read or written ({error.strerror}); mend that, {AGAIN}"


def _existing(path: Path) -> Path:
    return next((p for p in path.absolute().parents if p.is_dir()), Path("/"))


def _free(folder: Path) -> str:
    try:
        usage = shutil.disk_usage(folder)
    except OSError:
        return f"at {folder}"
    return f"{usage.free / 1e6:,.0f} of {usage.total / 1e6:,.0f} MB free at {folder}"
