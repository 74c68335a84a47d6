"""Pools of worker processes."""

import logging
import os
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing.context import SpawnContext, SpawnProcess
from types import ModuleType
from typing import Any

from astromorph.errors import AstromorphError
from astromorph.parent_watch import end_with
from astromorph.system.logs import set_up_logging

_STARTING = threading.Lock()


class _WorkerProcess(SpawnProcess):
    """A process that does not run the main module of its parent again.

    `spawn` runs it, for functions that are defined there, of which a pool of this
    package has none. A user's script without ``if __name__ == "__main__":`` would start
    the pool again in every worker, and fail.
    """

    @staticmethod
    def _Popen(process_obj: Any) -> Any:
        with _STARTING:
            main = sys.modules["__main__"]
            sys.modules["__main__"] = ModuleType("__main__")
            try:
                return SpawnProcess._Popen(process_obj)
            finally:
                sys.modules["__main__"] = main


class _WorkerContext(SpawnContext):
    """Starts `_WorkerProcess`."""

    Process = _WorkerProcess


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

    Their functions belong to importable modules, not to the main module.

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
            mp_context=_WorkerContext(),
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
