"""Only one process at a time holds a lock, and a killed one holds none."""

import contextlib
import errno
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from astromorph import locks
from astromorph.errors import AstromorphError, WriteError
from astromorph.locks import exclusive

HOLD = """
import sys, time
from astromorph.locks import exclusive
with exclusive(sys.argv[1], "train"):
    print("locked", flush=True)
    sys.stdin.read()
"""
COUNT = """
import sys, time
from pathlib import Path
from astromorph.locks import exclusive
counter = Path(sys.argv[2])
for _ in range(30):
    with exclusive(sys.argv[1], "count", wait_s=60):
        number = int(counter.read_text())
        time.sleep(0.001)
        counter.write_text(str(number + 1))
"""


@contextlib.contextmanager
def holder(path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock until its input is closed."""
    command = [sys.executable, "-c", HOLD, str(path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes) as process:
        try:
            assert process.stdout.readline() == "locked\n"
            yield process
        finally:
            process.kill()


@pytest.fixture
def no_flock(monkeypatch):
    """A file system without locks."""

    def fail(file: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "no locks available")

    monkeypatch.setattr(fcntl, "flock", fail)


@pytest.mark.slow
def test_a_second_process_is_refused_with_the_first_named(tmp_path):
    """The message says which folder, which process and what to do."""
    path = tmp_path / "new" / ".lock"
    with holder(path) as process:
        with pytest.raises(AstromorphError) as found, exclusive(path, "infer"):
            pass
        message = str(found.value)
        assert message.startswith(f"{path.parent}: train is running in this folder")
        assert f"process {process.pid} on {socket.gethostname()}" in message
        assert f"`kill {process.pid}`" in message
        process.stdin.close()
        assert process.wait(30) == 0
        assert not path.exists()
    with exclusive(path, "infer"):
        assert json.loads(path.read_text())["task"] == "infer"


@pytest.mark.slow
def test_the_lock_of_a_killed_process_is_free_at_once(tmp_path):
    """Also before anybody has read the exit code of the killed process."""
    path = tmp_path / ".lock"
    with holder(path) as process:
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert path.exists()
        with exclusive(path, "infer"):
            pass
    assert not path.exists()


@pytest.mark.slow
def test_waiting_ends_when_the_lock_is_released(tmp_path):
    """`wait_s` is the longest time to wait."""
    path = tmp_path / ".lock"
    with holder(path) as process:
        timer = threading.Timer(0.3, process.send_signal, [signal.SIGKILL])
        timer.start()
        start = time.monotonic()
        with exclusive(path, "infer", wait_s=30):
            assert 0.2 < time.monotonic() - start < 20
        timer.join()


@pytest.mark.slow
def test_processes_that_remove_the_lock_file_exclude_each_other(tmp_path):
    """No count is lost, although each holder creates and removes the file."""
    counter = tmp_path / "counter"
    counter.write_text("0")
    command = [sys.executable, "-c", COUNT, str(tmp_path / ".lock"), str(counter)]
    processes = [subprocess.Popen(command) for _ in range(3)]
    assert [process.wait(60) for process in processes] == [0, 0, 0]
    assert counter.read_text() == "90"


def test_the_lock_is_released_after_an_error(tmp_path):
    """And its file is removed."""
    with pytest.raises(ZeroDivisionError), exclusive(tmp_path / ".lock", "train"):
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def test_a_lock_file_that_cannot_be_written_is_a_write_error(tmp_path):
    """Here, the folder is a file."""
    (tmp_path / "file").touch()
    lock = exclusive(tmp_path / "file" / ".lock", "train")
    with pytest.raises(WriteError, match="cannot be written"), lock:
        pass


def write_holder(path: Path, pid: int, host: str, started: str | None = None) -> None:
    facts = {"pid": pid, "host": host, "task": "train", "started": started}
    path.write_text(json.dumps(facts))


def test_without_locks_of_the_system_the_file_is_the_lock(tmp_path, no_flock):
    """A process that is running is respected; one that has ended is not."""
    path, here = tmp_path / ".lock", socket.gethostname()
    write_holder(path, os.getppid(), here)
    refused = pytest.raises(AstromorphError, match=f"process {os.getppid()} on")
    with refused, exclusive(path, "infer"):
        pass
    assert path.exists()
    # The same id, but another start: a later process, which holds nothing.
    write_holder(path, os.getppid(), here, started="1")
    with exclusive(path, "infer"):
        assert json.loads(path.read_text())["pid"] == os.getpid()
    assert list(tmp_path.iterdir()) == []


def test_without_locks_another_machine_is_respected_for_a_day(tmp_path, no_flock):
    """Its processes cannot be checked."""
    path = tmp_path / ".lock"
    write_holder(path, 1, "elsewhere")
    refused = pytest.raises(AstromorphError, match="`kill 1` on elsewhere")
    with refused, exclusive(path, "infer"):
        pass
    yesterday = time.time() - locks.MAX_AGE_ELSEWHERE - 60
    os.utime(path, (yesterday, yesterday))
    with exclusive(path, "infer"):
        pass


def test_a_full_disk_does_not_fail_the_work_when_the_lock_ends(tmp_path, monkeypatch):
    """Network file systems report a full disk when a file is closed."""
    close = os.close

    def fail(file: int) -> None:
        close(file)
        raise OSError(errno.ENOSPC, "No space left on device")

    with exclusive(tmp_path / "lock", "train"):
        monkeypatch.setattr(os, "close", fail)
    monkeypatch.undo()
    with exclusive(tmp_path / "lock", "train"):
        pass
