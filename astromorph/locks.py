"""Locks: only one process at a time writes to a folder."""

import contextlib
import errno
import fcntl
import json
import logging
import os
import socket
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from astromorph.errors import AstromorphError, explaining_write_errors
from astromorph.processes import is_running, start_time

LOG = logging.getLogger(__name__)
POLL_SECONDS = 0.1
# Errors of file systems that have no locks.
WITHOUT_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
# Seconds; whether a process of another machine is still running cannot be checked.
MAX_AGE_ELSEWHERE = 86_400


@dataclass(frozen=True, slots=True)
class Holder:
    """The process that holds a lock, as written in the lock file.

    Attributes
    ----------
    pid : int
        Its id; 0 if unknown.
    host : str
        Its machine.
    task : str
        What it does.
    started : str or None
        See `astromorph.processes.start_time`.
    """

    pid: int
    host: str
    task: str
    started: str | None = None


@contextlib.contextmanager
def exclusive(path: str | Path, task: str, wait_s: float = 0.0) -> Iterator[None]:
    """Hold a lock for the duration of the block.

    The lock belongs to the process: if it is killed, the system releases the lock. The
    lock file contains the process and its task, for the error message, and is removed
    at the end of the block.

    A few file systems (some installations of Lustre, for instance) have no locks.
    There, the existence of the file is the lock. A file of a process that has ended is
    replaced; that of a process on another machine, which cannot be checked, is replaced
    after a day.

    Parameters
    ----------
    path : path
        The lock file. Missing folders are created.
    task : str
        What is done in the block, such as ``"train"``, for the message of others.
    wait_s : float
        Seconds to wait for another process.

    Raises
    ------
    AstromorphError
        Another process holds the lock.
    WriteError
        The lock file cannot be written.

    Examples
    --------
    >>> folder = getfixture("tmp_path")
    >>> with exclusive(folder / ".lock", "train"):
    ...     print([path.name for path in folder.iterdir()])
    ['.lock']
    >>> list(folder.iterdir())
    []
    """
    path = Path(path)
    own = Holder(os.getpid(), socket.gethostname(), task, start_time(os.getpid()))
    start = time.monotonic()
    while True:
        with explaining_write_errors(path, path.parent):
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = _try_to_lock(path, own)
        if lock is not None:
            break
        waited = time.monotonic() - start
        if waited >= wait_s:
            raise AstromorphError(_explain(path, own))
        if waited < POLL_SECONDS:
            holder = _read(path)
            LOG.info(
                "waiting for %s to end (process %d on %s)",
                holder.task,
                holder.pid,
                holder.host,
            )
        time.sleep(POLL_SECONDS)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            if _is_same_file(lock, path):
                path.unlink()  # while it is locked: nobody else can have locked it
        # The system closes a file and releases its lock even if it reports an error,
        # such as a full disk, on which the text in the lock file is not needed.
        with contextlib.suppress(OSError):
            os.close(lock)


def current_holder(path: str | Path) -> Holder | None:
    """The process that holds a lock; None if it is free.

    Parameters
    ----------
    path : path
        The lock file.
    """
    path = Path(path)
    try:
        file = os.open(path, os.O_RDWR)
    except OSError:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return None
    except OSError as error:
        holder = _read(path)
        if error.errno in WITHOUT_LOCKS and not _may_be_running(holder, path):
            return None
        return holder
    finally:
        os.close(file)


def _try_to_lock(path: Path, own: Holder) -> int | None:
    """The open lock file, or None if another process holds the lock."""
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(file)
            if error.errno in WITHOUT_LOCKS:
                return _try_to_create(path, own)
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                return None
            raise
        # The previous holder may have removed the file after it was opened here.
        if _is_same_file(file, path):
            _write(file, own)
            return file
        os.close(file)


def _is_same_file(file: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file), os.stat(path))
    except FileNotFoundError:
        return False


def _write(file: int, own: Holder) -> None:
    """Write who holds the lock; on a full disk, the lock works without it."""
    with contextlib.suppress(OSError):
        os.ftruncate(file, 0)
        os.pwrite(file, json.dumps(asdict(own)).encode(), 0)


def _try_to_create(path: Path, own: Holder) -> int | None:
    """The same on a file system without locks, where the file itself is the lock."""
    holder = _read(path)
    # An empty file was created by `_try_to_lock`, perhaps in another process.
    if holder.pid and _may_be_running(holder, path):
        return None
    new = path.with_name(f"{path.name}.{own.host}.{own.pid}")
    file = os.open(new, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o666)
    os.write(file, json.dumps(asdict(own)).encode())
    os.replace(new, path)
    # If several processes replace it at the same time, the last one holds the lock.
    time.sleep(POLL_SECONDS)
    if _is_same_file(file, path):
        return file
    os.close(file)
    return None


def _may_be_running(holder: Holder, path: Path) -> bool:
    if holder.host == socket.gethostname():
        return is_running(holder.pid, holder.started)
    with contextlib.suppress(OSError):
        return time.time() - path.stat().st_mtime < MAX_AGE_ELSEWHERE
    return False


def _read(path: Path) -> Holder:
    """The process that holds a lock; of pid 0 if the file does not say."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        return Holder(
            int(values["pid"]), values["host"], values["task"], values["started"]
        )
    except (OSError, ValueError, KeyError, TypeError):
        return Holder(0, "", "another process")


def _explain(path: Path, own: Holder) -> str:
    holder = _read(path)
    if not holder.pid:
        return (
            f"{path.parent}: another process works in this folder ({path} is locked); "
            "wait for it to end, then run the same command again"
        )
    place = "" if holder.host == own.host else f" on {holder.host}"
    return (
        f"{path.parent}: {holder.task} is running in this folder (process {holder.pid} "
        f"on {holder.host}); wait for it to end, or end it with `kill {holder.pid}`"
        f"{place}, then run the same command again"
    )
