"""Processes that run beside this one: their ids, their ranks, whether they run."""

import os
from collections.abc import Iterator
from pathlib import Path

ENDED = ("Z", "X")  # states of processes whose exit code nobody has read yet
# Positions in /proc/PID/stat after the name of the program, which may contain spaces.
STATE, PARENT, START = 0, 1, 19
# Names the file through which the processes that `distributed.launch` starts find each
# other.
RENDEZVOUS = "ASTROMORPH_RENDEZVOUS"


def started_rank() -> int:
    """Rank of this process among those that were started together to train.

    Set by `astromorph.distributed.launch`, `torchrun` or `srun`; 0 for a single
    process.
    """
    return int(os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0")))


def is_launched() -> bool:
    """Whether `astromorph.distributed.launch` started this process.

    The process that called it waits for this one and records its results.
    """
    return RENDEZVOUS in os.environ


def start_time(pid: int) -> str | None:
    """When a process started, in the units of the kernel.

    Together with the id it identifies a process, because ids are used again.

    Parameters
    ----------
    pid : int
        Id of the process.

    Returns
    -------
    str or None
        None if there is no such process, or on systems without ``/proc``.
    """
    facts = _facts(pid)
    return facts[START] if facts else None


def is_running(pid: int, started: str | None = None) -> bool:
    """Whether a process of this machine is running.

    Parameters
    ----------
    pid : int
        Id of the process.
    started : str, optional
        Its `start_time`; a later process with the same id is a different one.

    Returns
    -------
    bool
    """
    facts = _facts(pid)
    if facts:
        return facts[STATE] not in ENDED and started in (None, facts[START])
    try:
        os.kill(pid, 0)  # sends nothing
    except PermissionError:
        return True  # it belongs to another user
    except (OSError, OverflowError):
        return False
    return pid > 0


def ancestors() -> Iterator[int]:
    """Ids of the parent of this process, of its parent, and so on.

    Only the parent on systems without ``/proc``.
    """
    pid = os.getppid()
    while pid > 1:
        yield pid
        facts = _facts(pid)
        pid = int(facts[PARENT]) if facts else 0


def _facts(pid: int) -> list[str]:
    """The content of ``/proc/PID/stat``; empty if it cannot be read."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    return text.rpartition(")")[2].split()
