"""End a process when the process that needs its results has ended.

If Snakemake, a training on several devices or a pool of workers is killed, nothing
tells the processes that it started. They would go on for hours beside the next run.
"""

import logging
import os
import signal
import threading
import time

from astromorph.processes import ancestors, is_running, start_time

LOG = logging.getLogger(__name__)
VARIABLE = "ASTROMORPH_PARENT_PID"
POLL_SECONDS = 1.0
GRACE_SECONDS = 60.0  # training finishes its step and writes a checkpoint


def end_with(pid: int) -> None:
    """End this process when another process of this machine ends.

    This process receives SIGTERM, after which training writes a checkpoint, and SIGKILL
    after a minute. A daemon thread looks at the other process every second.

    Parameters
    ----------
    pid : int
        Id of the other process. If it has already ended, so does this process.
    """
    watch = threading.Thread(
        target=_watch, args=(pid, start_time(pid)), name="parent watch", daemon=True
    )
    watch.start()


def end_with_starter() -> None:
    """End this process when the process named in ``ASTROMORPH_PARENT_PID`` ends.

    The variable is ignored if it does not name a parent of this process, or a parent of
    its parent, and so on: it also reaches processes that `srun` starts on other
    machines, and those in containers with process ids of their own.
    """
    text = os.environ.get(VARIABLE, "")
    if text.isdecimal() and int(text) in ancestors():
        end_with(int(text))


def _watch(pid: int, started: str | None) -> None:
    while is_running(pid, started):
        time.sleep(POLL_SECONDS)
    LOG.info("process %d, which started this one, has ended; this one ends too", pid)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE_SECONDS)
    os.kill(os.getpid(), signal.SIGKILL)
