"""Programs in processes that need not import PyTorch and UMAP first.

A server that has imported them forks for each program, which takes hundredths of a
second instead of seconds. Otherwise the processes are like those of ``python -m
astromorph``, ``python -m snakemake`` and ``python script.py``: with a folder,
arguments, streams, signals and an exit code of their own. For the programs that these
start in turn, see `forked_python`.
"""

import atexit
import contextlib
import gc
import importlib
import multiprocessing
import os
import runpy
import select
import signal
import site
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from pathlib import Path
from unittest import mock

import forked_python

IMPORTS = (
    "astromorph.cli.commands",  # first: it chooses the cache folders of the others
    "torch._dynamo",  # as the first optimizer does
    "torchvision",
    "pandas",
    "pyarrow.parquet",
    "sklearn.cluster",
    "sklearn.linear_model",
    "umap",
    "matplotlib.figure",
    "astropy.io.fits",
    "astropy.visualization",
    "tensorboard.summary.writer.event_file_writer",
    "snakemake.cli",
)
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(list(IMPORTS))


class Command:
    """A running program, with methods of `subprocess.Popen`.

    Parameters
    ----------
    arguments : list of str
        Arguments of the program.
    cwd : path
        The folder in which it runs.
    stdout, stderr : path or Connection
        The files or the pipe that receive its streams.
    program : str or path
        ``astromorph``, ``snakemake`` or a script.
    environment : mapping, optional
        Its environment variables; by default, those of this process.
    new_session : bool
        Whether it has a session and a process group of its own.
    forks : bool
        Whether the programs that it starts are forked as well, see `forked_python`.
    """

    def __init__(
        self,
        arguments: list[str],
        cwd: Path,
        stdout: Path | Connection,
        stderr: Path | Connection,
        program: str | Path = "astromorph",
        environment: Mapping[str, str] | None = None,
        new_session: bool = False,
        forks: bool = False,
    ) -> None:
        with mock.patch.dict(os.environ, OMP_NUM_THREADS="1"):  # of server and children
            forkserver.ensure_running()
        variables = dict(os.environ if environment is None else environment)
        self._process = CONTEXT.Process(
            target=_execute,
            args=(
                *(program, arguments, cwd, (stdout, stderr), variables),
                *(new_session, forks),
            ),
        )
        self._process.start()
        self.pid = self._process.pid

    def poll(self) -> int | None:
        """The exit code, or None while it runs."""
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """The exit code, once it has ended."""
        self._process.join(timeout)
        if (code := self.poll()) is None:
            raise subprocess.TimeoutExpired("astromorph", timeout)
        return code

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):  # it has just ended
                os.kill(self.pid, number)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)


class PipedCommand(Command):
    """A running program with a session of its own, whose output goes to a pipe.

    Parameters
    ----------
    arguments, cwd, program, environment, forks
        See `Command`.
    """

    def __init__(
        self,
        arguments: list[str],
        cwd: Path,
        program: str | Path,
        environment: Mapping[str, str],
        forks: bool = False,
    ) -> None:
        self._output, end = multiprocessing.Pipe(duplex=False)
        super().__init__(arguments, cwd, end, end, program, environment, True, forks)
        end.close()

    def finish(self, timeout: float) -> str:
        """Its output, once it and all processes that it started have ended."""
        end = time.monotonic() + timeout
        parts = []
        while part := self._read(end - time.monotonic()):
            parts.append(part)
        self._output.close()
        self.wait(end - time.monotonic())
        return b"".join(parts).decode()

    def _read(self, timeout: float) -> bytes:
        """The next part of the output; empty at its end."""
        number = self._output.fileno()
        if not select.select([number], [], [], max(timeout, 0))[0]:
            os.killpg(self.pid, signal.SIGKILL)
            raise subprocess.TimeoutExpired("the command", timeout)
        return os.read(number, 1 << 16)


def run(
    arguments: list[str],
    cwd: Path,
    program: str | Path = "astromorph",
    timeout: float = 300,
    forks: bool = True,
) -> subprocess.CompletedProcess[str]:
    """Execute a program to its end, like `subprocess.run` with captured output.

    With `forks`, the programs that Snakemake or a script starts are forked as well.
    """
    with tempfile.TemporaryDirectory() as folder:
        streams = Path(folder, "stdout"), Path(folder, "stderr")
        forks = forks and program != "astromorph"
        command = Command(arguments, cwd, *streams, program, forks=forks)
        try:
            code = command.wait(timeout)
        finally:
            command.kill()
        texts = [stream.read_text() for stream in streams]
    return subprocess.CompletedProcess(arguments, code, *texts)


def _execute(
    program: str | Path,
    arguments: list[str],
    cwd: Path,
    streams: tuple[Path | Connection, Path | Connection],
    variables: dict[str, str],
    new_session: bool,
    forks: bool,
) -> None:
    """What the forked process does."""
    gc.freeze()  # the collector does not visit what the server has imported
    if new_session:
        os.setsid()
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(variables)
    for number, stream in enumerate(streams, 1):
        if isinstance(stream, Connection):
            os.dup2(stream.fileno(), number)
        else:
            file = os.open(stream, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(file, number)
            os.close(file)
    for stream in streams:
        if isinstance(stream, Connection):
            stream.close()
    sys.argv = [str(program), *arguments]
    try:
        if forks:
            forked_python.install(_import_package, _run_python)
        _run_program(program)
    finally:
        atexit._run_exitfuncs()  # which `multiprocessing` omits


def _run_program(program: str | Path) -> None:
    if program == "astromorph":
        from astromorph.cli.main import main

        main()
    elif program == "snakemake":
        # The workflow imports the package beside it, which may be a copy.
        _forget_package()
        _start_like_python()
        from snakemake.cli import main

        main()
    else:
        sys.path.insert(0, str(Path(program).parent))
        runpy.run_path(str(program), run_name="__main__")


def _forget_package() -> None:
    for name in [n for n in sys.modules if n.partition(".")[0] == "astromorph"]:
        del sys.modules[name]


def _import_package() -> None:
    """Import the package that PYTHONPATH names, if it names one."""
    if os.environ.get("PYTHONPATH"):
        _forget_package()
        _start_like_python()
        importlib.import_module("astromorph.cli.commands")


def _run_python(arguments: list[str]) -> None:
    """What Python does with these arguments."""
    option, *words = arguments
    if option == "-m":
        sys.argv = words
        _run_program(words[0])
    elif option == "-c":
        sys.argv = [option, *words[1:]]
        exec(compile(words[0], "<string>", "exec"), {"__name__": "__main__"})
    else:
        sys.argv = arguments
        _run_program(option)


def _start_like_python() -> None:
    """Do what Python does at its start because of PYTHONPATH."""
    folders = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    sys.path[:0] = filter(None, folders)
    sys.modules.pop("sitecustomize", None)
    site.execsitecustomize()
