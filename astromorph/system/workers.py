"""Pools of worker processes."""

import logging
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context

from astromorph.errors import AstromorphError
from astromorph.parent_watch import end_with
from astromorph.system.logs import set_up_logging


def start_worker(parent_pid: int, level: int) -> None:
    """Prepare a worker process; the first function that it runs.

    Parameters
    ----------
    parent_pid : int
        The process that started it.
    level : int
        The level of its log, that of the parent.
    """
    set_up_logging(level)
    end_with(parent_pid)


@contextmanager
def process_pool(processes: int) -> Iterator[ProcessPoolExecutor]:
    """A pool of worker processes, which log like this process and end with it.

    Parameters
    ----------
    processes : int
        Number of processes, at least 1.

    Yields
    ------
    ProcessPoolExecutor

    Raises
    ------
    AstromorphError
        The system does not allow the locks that processes share.
    """
    try:
        pool = ProcessPoolExecutor(
            processes,
            mp_context=get_context("spawn"),
            initializer=start_worker,
            initargs=(os.getpid(), logging.getLogger().getEffectiveLevel()),
        )
    except (OSError, ImportError) as error:
        raise AstromorphError(
            f"{processes} processes cannot work together ({error}): shared memory, "
            "/dev/shm, is full or cannot be written; make it usable, or set "
            "`core_limit: 1` or give --threads 1"
        ) from None
    with pool:
        yield pool
