"""A program ``python`` that starts sooner, because PyTorch is already imported.

A complete run of the workflow starts two dozen processes, and most of them import
PyTorch, which takes longer than what they do in a test. Here, a server that has
imported it forks for each of them: ``python -m astromorph``, ``-m snakemake``, ``-c``
and scripts of the project. The processes have the arguments, folder, variables and
streams of those that they replace, and end if these are killed. All others are started
by Python itself, also those with another PYTHONPATH.

What differs from a new Python: signals are not passed on, so that tests that interrupt
steps use real processes; process group, session and limits are those of the server; and
all processes have the hash seed of the server. Linux is needed.
"""

import atexit
import contextlib
import gc
import json
import os
import selectors
import shutil
import signal
import socket
import struct
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
LAUNCHER = """\
#!{python} -IS
import json, os, socket, struct, sys

names = os.environ.get("PYTHONPATH", "").split(os.pathsep)
folders = [name for name in names if name not in ("", {root!r})]
server = socket.socket(socket.AF_UNIX)
try:
    known = sys.argv[1:3] in (["-m", "astromorph"], ["-m", "snakemake"])
    if not (known or "".join(sys.argv[1:2]).startswith(("-c", {root!r}))):
        raise OSError("another program")
    if folders != {folders!r} or "LD_PRELOAD" in os.environ:
        raise OSError("another package, or a library that is loaded first")
    server.connect({address!r})
except OSError:
    os.execv({python!r}, [{python!r}, *sys.argv[1:]])
program = [sys.argv[1:], os.getcwd(), dict(os.environ)]
text = json.dumps(program).encode()
socket.send_fds(server, [struct.pack("<Q", len(text))], [0, 1, 2])
server.sendall(text)
status = server.recv(1)
sys.exit(status[0] if status else 1)
"""
Run = Callable[[list[str]], None]


def install(prepare: Callable[[], None], run: Run) -> None:
    """Start a server, and make this process start programs by it.

    Parameters
    ----------
    prepare : callable
        Is called once, in the server.
    run : callable
        Executes what the arguments of Python name, in a forked process.
    """
    folder = Path(tempfile.mkdtemp(prefix="forked-python-"))
    address = str(folder / "server")
    launcher = folder / "bin" / "python"
    launcher.parent.mkdir()
    names = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    folders = [name for name in names if name not in ("", str(ROOT))]
    text = LAUNCHER.format(
        python=sys.executable, root=str(ROOT), folders=folders, address=address
    )
    launcher.write_text(text)
    launcher.chmod(0o755)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    listener.listen(64)
    parent = os.getpid()
    if os.fork() == 0:
        try:
            prepare()
            _serve(listener, parent, run, launcher)
        except BaseException:
            traceback.print_exc()
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            os._exit(0)
    listener.close()
    atexit.register(_clean_up, folder, parent)
    _call_python(launcher)


def _call_python(launcher: Path) -> None:
    """Let this process and shells that it starts find `launcher` as Python."""
    sys.executable = str(launcher)
    folders = [str(launcher.parent), os.environ.get("PATH", os.defpath)]
    os.environ["PATH"] = os.pathsep.join(folders)


def _clean_up(folder: Path, owner: int) -> None:
    if os.getpid() == owner:  # not a forked process
        shutil.rmtree(folder, ignore_errors=True)


def _serve(listener: socket.socket, parent: int, run: Run, launcher: Path) -> None:
    """Fork for each program until the parent has ended."""
    gc.freeze()
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in range(3):
        os.dup2(nowhere, stream)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal interrupts all processes
    selector = selectors.DefaultSelector()
    selector.register(listener, selectors.EVENT_READ)
    running: dict[int, tuple[int, socket.socket]] = {}  # by file that tells of the end
    while os.getppid() == parent:
        for key, _ in selector.select(timeout=1):
            if selector.get_map().get(key.fd) is not key:
                continue  # closed because of an earlier event
            if key.fileobj is listener:
                connection, _ = listener.accept()
                if (received := _receive(connection)) is None:
                    connection.close()
                    continue
                program, streams = received
                pid = os.fork()
                if pid == 0:
                    selector.close()
                    listener.close()
                    connection.close()
                    for ended, (_, other) in running.items():
                        os.close(ended)
                        other.close()
                    _execute(program, streams, run, launcher)
                for stream in streams:
                    os.close(stream)
                ended = os.pidfd_open(pid)
                running[ended] = pid, connection
                selector.register(ended, selectors.EVENT_READ)
                selector.register(connection, selectors.EVENT_READ, pid)
            elif key.data is not None:  # the program that waits has been killed
                selector.unregister(key.fileobj)
                with contextlib.suppress(ProcessLookupError):
                    os.kill(key.data, signal.SIGKILL)
            else:
                pid, connection = running.pop(key.fd)
                selector.unregister(key.fd)
                os.close(key.fd)
                status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                code = status if status >= 0 else 128 - status  # as a shell says it
                with contextlib.suppress(KeyError):
                    selector.unregister(connection)
                with contextlib.suppress(OSError):
                    connection.sendall(bytes([code]))
                connection.close()


def _receive(connection: socket.socket) -> tuple[list[Any], list[int]] | None:
    """What a launcher sends, and its streams; None if it has been killed."""
    head, streams, _, _ = socket.recv_fds(connection, 8, 3)
    text, part = b"", head if len(head) == 8 else b""
    while part and len(text) < struct.unpack("<Q", head)[0]:
        part = connection.recv(1 << 20)
        text += part
    if not part:
        for stream in streams:
            os.close(stream)
        return None
    return json.loads(text), streams


def _execute(program: list[Any], streams: list[int], run: Run, launcher: Path) -> None:
    """What the forked process does; it ends here."""
    code = 1
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
            os.close(stream)
        words, folder, variables = program
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(variables)
        if words[:2] == ["-m", "snakemake"]:  # its steps are forked, too
            _call_python(launcher)
        code = _exit_code(run, words)
        sys.stdout.flush()
        sys.stderr.flush()
    except (OSError, ValueError):  # a stream is closed or full
        code = code or 120  # as Python says it
    finally:
        os._exit(code)


def _exit_code(run: Run, words: list[str]) -> int:
    code: object = 0
    try:
        run(words)
    except SystemExit as error:
        code = error.code
    except BaseException:
        traceback.print_exc()
        code = 1
    threading._shutdown()
    atexit._run_exitfuncs()
    if isinstance(code, str):
        print(code, file=sys.stderr)
    return code if isinstance(code, int) else int(code is not None)
