"""Processes end with the process that started them."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from astromorph.parent_watch import VARIABLE, end_with_starter
from astromorph.processes import ancestors, is_running, start_time

# Each starts a process that writes its id to a file, and then sleeps.
CHILD = """
import os, signal, sys, time
from pathlib import Path
from astromorph.parent_watch import end_with_starter
def save(*_):
    Path("saved").touch()
    sys.exit(1)
if "save" in sys.argv: signal.signal(signal.SIGTERM, save)
if "ignore" in sys.argv: signal.signal(signal.SIGTERM, signal.SIG_IGN)
from astromorph import parent_watch
parent_watch.GRACE_SECONDS = 0.5
end_with_starter()
Path("child").write_text(str(os.getpid()))
time.sleep(60)
"""
# As the workflow does: the shell is between the two.
PARENT = """
import subprocess, sys
from astromorph.cli.workflow import SHELL_PREFIX
step = f"'{sys.executable}' child.py {sys.argv[1]}"
subprocess.run(["bash", "-c", f"{SHELL_PREFIX}{step}"])
"""
# Functions of workers belong to importable modules.
WORK = """
import os, time
from pathlib import Path
def work(number):
    Path(f"worker{number}").write_text(str(os.getpid()))
    time.sleep(60)
"""
POOL = """
from pool_work import work
from astromorph.system.workers import process_pool
with process_pool(2) as pool:
    list(pool.map(work, range(2)))
"""


def read_pid(path: Path) -> int:
    """The id that a process writes when it has started."""
    deadline = time.monotonic() + 30
    while not (path.exists() and path.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return int(path.read_text())


def wait_until_ended(pid: int) -> None:
    deadline = time.monotonic() + 10
    while is_running(pid):
        assert time.monotonic() < deadline, f"process {pid} is still running"
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["save", "ignore", "die"])
def test_a_step_ends_when_its_starter_is_killed(tmp_path, how):
    """It can save its work first; if it ignores SIGTERM, it is killed."""
    (tmp_path / "child.py").write_text(CHILD)
    command = [sys.executable, "-c", PARENT, how]
    with subprocess.Popen(command, cwd=tmp_path) as starter:
        child = read_pid(tmp_path / "child")
        time.sleep(1.2)  # it has looked at its starter once
        assert is_running(child)
        starter.send_signal(signal.SIGKILL)
    wait_until_ended(child)
    assert (tmp_path / "saved").exists() == (how == "save")


@pytest.mark.slow
def test_the_command_line_ends_when_its_starter_is_killed(tmp_path):
    """`simulate` would write for an hour."""
    program = PARENT.replace("child.py", "-m astromorph simulate --number 99999")
    command = [sys.executable, "-c", program, "--output=sky"]
    with subprocess.Popen(command, cwd=tmp_path) as starter:
        deadline = time.monotonic() + 60
        while not list(tmp_path.glob("sky/*.fits")):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        starter.kill()
    time.sleep(2)
    written = len(list(tmp_path.glob("sky/*.fits")))
    time.sleep(1)
    assert len(list(tmp_path.glob("sky/*.fits"))) == written


@pytest.mark.slow
def test_workers_end_when_their_pool_is_killed(tmp_path):
    """Those of a pool of `concurrent.futures` wait for ever."""
    (tmp_path / "pool.py").write_text(POOL)
    (tmp_path / "pool_work.py").write_text(WORK)
    with subprocess.Popen([sys.executable, "pool.py"], cwd=tmp_path) as pool:
        workers = [read_pid(tmp_path / f"worker{number}") for number in range(2)]
        pool.kill()
    for worker in workers:
        wait_until_ended(worker)


@pytest.mark.parametrize(
    "value", ["", "x", "0", "999999999", str(os.getpid())],
    ids=["empty", "text", "zero", "absent", "itself"],
)  # fmt: skip
def test_only_a_parent_is_watched(monkeypatch, value):
    """Ids of other machines and containers belong to other processes."""
    monkeypatch.setenv(VARIABLE, value)
    before = {thread.name for thread in threading.enumerate()}
    end_with_starter()
    after = {thread.name for thread in threading.enumerate()}
    assert before == after


@pytest.mark.slow
def test_an_ended_process_is_not_running(tmp_path):
    """Even if nobody has read its exit code, or its id is used again."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    started = start_time(process.pid)
    assert started
    assert is_running(process.pid, started)
    assert not is_running(process.pid, str(int(started) + 1))
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert not is_running(process.pid, started)
    process.communicate()
    assert not is_running(process.pid)
    assert not is_running(0)
    assert not is_running(-1)
    assert not is_running(10**30)
    assert os.getppid() in ancestors()
    assert os.getpid() not in ancestors()
