"""Errors for the user, and explanations of system errors.

A full disk, missing permissions, too little memory and a failed GPU are not bugs in
the program, and a traceback would not explain them.
"""

import errno
import os
import re
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

RERUN = "then run the same command again: finished results are reused"
DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
NO_PERMISSION = (errno.EACCES, errno.EPERM, errno.EROFS)
MISSING = (errno.ENOENT, errno.ESTALE)
TOO_MANY_OPEN = (errno.EMFILE, errno.ENFILE)
NO_ANSWER = (errno.ETIMEDOUT, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENOTCONN)
# What a system error says about a path.
FILE_PROBLEMS = {
    errno.ENOENT: "there is no such file",
    errno.ESTALE: "the network file system no longer has this file",
    errno.ENOTDIR: "a part of the path is a file, not a folder",
    errno.EISDIR: "this is a folder, not a file",
    errno.EEXIST: "there is a file where a folder is needed",
    errno.ELOOP: "the symbolic links of the path form a loop",
    errno.ENAMETOOLONG: "the path is longer than the file system allows",
    errno.ENXIO: "this is a pipe, a socket or a device, not a file",
    errno.ENODEV: "this is a device that does not exist, not a file",
    errno.EIO: "the disk or the network reports an error",
    **dict.fromkeys(NO_PERMISSION, "permission denied"),
    **dict.fromkeys(NO_ANSWER, "the network file system does not answer"),
    **dict.fromkeys(TOO_MANY_OPEN, "too many files are open; see `ulimit -n`"),
}
NUL_IN_PATH = "the path contains a NUL character"
NOT_UTF8 = re.compile("[\udc80-\udcff]")  # such bytes of a name, as Python has them
HOME_FOLDER = re.compile(r"(^|/)~\w*/")
QUOTED = re.compile(r"""(?:^|/)(["']).*\1$""")  # a whole path in quotes
PATTERN = re.compile("[*?]")
OUT_OF_MEMORY = ("allocate memory", "bad alloc", "bad_alloc")  # in messages of torch


class AstromorphError(Exception):
    """An error that the user can correct.

    The message names the file or setting, what was found, what is allowed and what
    to do. The command line prints it without a traceback.
    """


class FitsImageError(AstromorphError):
    """A file does not contain a usable image; the message is the reason."""


class WriteError(AstromorphError):
    """A file cannot be written; the message says why."""


@contextmanager
def explaining_write_errors(path: str | Path, folder: str | Path) -> Iterator[None]:
    """Turn disk errors into a `WriteError` that names the file.

    Parameters
    ----------
    path : path
        The final name of the file, which the user knows.
    folder : path
        The folder in which it is written, perhaps under a temporary name.

    Raises
    ------
    WriteError
        Replaces an OSError that names the folder, a parent folder, anything in the
        folder, or no file. Errors about other files are not changed.
    """
    try:
        yield
    except OSError as error:
        name = error.filename
        if name is None or _is_related(str(name), str(folder)):
            raise WriteError(explain_write_error(path, error)) from error
        raise


@contextmanager
def without_tensorboard_tracebacks() -> Iterator[None]:
    """Print no traceback of TensorBoard's writing thread if the disk fails.

    The writer raises the error again when it is closed.
    """
    print_traceback = threading.excepthook

    def hook(error: threading.ExceptHookArgs) -> None:
        is_writer = type(error.thread).__module__.startswith("tensorboard.")
        if not (is_writer and isinstance(error.exc_value, OSError)):
            print_traceback(error)

    threading.excepthook = hook
    try:
        yield
    finally:
        threading.excepthook = print_traceback


def _is_related(path: str, folder: str) -> bool:
    """Whether one path contains the other."""
    path, folder = os.path.abspath(path), os.path.abspath(folder)
    return os.path.commonpath([path, folder]) in (path, folder)


def explain_write_error(path: str | Path, error: OSError) -> str:
    """Explain why a file cannot be written, and what to do."""
    folder = _existing_parent(Path(path))
    if error.errno in DISK_FULL:
        return (
            f"{path}: the disk is full or your quota is used up "
            f"({_disk_usage(folder)}); free some space, {RERUN}"
        )
    if error.errno in NO_PERMISSION:
        return (
            f"{path}: no permission to write here ({os.strerror(error.errno)}); change "
            f"the permissions of {folder}, or work in another folder, {RERUN}"
        )
    reason = describe_file_error(error)
    return f"{path}: cannot be written ({reason}); correct the cause, {RERUN}"


def describe_file_error(error: OSError, path: str | Path = "") -> str:
    """The words for what is wrong with a path.

    Parameters
    ----------
    error : OSError
        What the system said.
    path : path, optional
        A file that was to be read; the reason why a file is missing is looked up.

    Returns
    -------
    str
        A clause without the path and without a full stop.

    Examples
    --------
    >>> describe_file_error(OSError(errno.ELOOP, "Too many levels of symbolic links"))
    'the symbolic links of the path form a loop'
    """
    words = FILE_PROBLEMS.get(error.errno or 0)
    if error.errno != errno.ENOENT or not str(path):
        return words or error.strerror or str(error)
    if os.path.islink(path):
        return "this is a symbolic link to a file that does not exist"
    if "://" in str(path):
        return f"{words}: this is an address; download the file and list its path"
    if HOME_FOLDER.search(str(path)):
        return (
            f"{words}: ~ and ~name are replaced by the home folder of an existing user "
            "only; write the name of the folder"
        )
    if QUOTED.search(str(path)):
        return f"{words}: its name is in quotes, which a text list does not need"
    if PATTERN.search(str(path)):
        return (
            f"{words}: a list names each file, without patterns such as *; write it "
            "with `find FOLDER -name '*.fits*' | sort > filelist.csv`"
        )
    if not str(path).isprintable() and NOT_UTF8.search(str(path)):
        return f"{words}: its name in the list is not UTF-8; convert one of them"
    return str(words)


def explain_error(error: BaseException) -> str | None:
    """Explain a system error; None for any other error.

    Parameters
    ----------
    error : BaseException
        The error that stopped a step.

    Returns
    -------
    str or None
        What happened and what to do.
    """
    if isinstance(error, OSError) and error.errno not in (None, errno.ENOMEM):
        return _explain_file_error(error)
    return _explain_machine_error(error)


def is_machine_error(error: BaseException) -> bool:
    """Whether memory or a device failed, and not the file being read."""
    return _explain_machine_error(error) is not None


def _explain_machine_error(error: BaseException) -> str | None:
    class_name, message = type(error).__name__, " ".join(str(error).split())
    if class_name == "OperationalError" and "disk" in message:  # of SQLite
        return (
            f"the disk of temporary files is full or fails ({message[:200]}); free "
            f"some space in /tmp, or set TMPDIR to a folder on another disk, {RERUN}"
        )
    if class_name == "OutOfMemoryError":
        return (
            f"the GPU is out of memory ({message[:200]}); set a smaller `batch_size`, "
            f"`inference_settings.batch_size` or `preprocess_settings.size`, {RERUN}"
        )
    if class_name == "AcceleratorError" or "CUDA error" in message or "NCCL" in message:
        return (
            f"the GPU failed ({message[:200]}); check it with nvidia-smi, {RERUN}; "
            "training continues from its last checkpoint"
        )
    if isinstance(error, MemoryError) or any(text in message for text in OUT_OF_MEMORY):
        return (
            f"out of memory ({message[:200] or 'no details'}); set a smaller "
            "`batch_size`, `preprocess_settings.size` or `shard_size`, or give the job "
            f"more memory (`mem_mb`), {RERUN}"
        )
    if class_name == "BrokenProcessPool":
        return (
            "a process was killed, most likely because memory ran out; use fewer "
            f"processes (`core_limit`), or give the job more memory (`mem_mb`), {RERUN}"
        )
    return None


def _explain_file_error(error: OSError) -> str | None:
    if error.filename is None:
        if error.errno in DISK_FULL:
            return explain_write_error(os.getcwd(), error)
        if "temporary directory" in str(error):  # what tempfile says
            return f"{error.strerror}; set TMPDIR to a folder with free space, {RERUN}"
        if error.errno in TOO_MANY_OPEN:
            return f"{describe_file_error(error)}; raise the limit, {RERUN}"
        return None
    name = os.fsdecode(error.filename)
    if error.errno in MISSING:
        return (
            f"{name}: no such file; restore it, or remove it from the file list, "
            f"{RERUN}"
        )
    if error.errno in DISK_FULL:
        return explain_write_error(name, error)
    return (
        f"{name}: cannot be read or written ({describe_file_error(error)}); correct "
        f"the cause, {RERUN}"
    )


def _existing_parent(path: Path) -> Path:
    return next((p for p in path.absolute().parents if p.is_dir()), Path("/"))


def _disk_usage(folder: Path) -> str:
    try:
        usage = shutil.disk_usage(folder)
    except OSError:
        return f"at {folder}"
    return f"{usage.free / 1e6:,.0f} of {usage.total / 1e6:,.0f} MB free at {folder}"
