"""Programs in processes that need not import PyTorch and UMAP first.

A server that has imported them forks for each program, which takes hundredths of a
second instead of seconds. Otherwise the processes are like those of ``python -m
astromorph``, ``python -m snakemake`` and ``python script.py``: with a folder,
arguments, streams, signals and an exit code of their own.
"""

import atexit
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import tempfile
from multiprocessing import forkserver
from pathlib import Path
from unittest import mock

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
    cwd, stdout, stderr : path
        The folder in which it runs, and the files that receive its streams.
    program : str or path
        ``astromorph``, ``snakemake`` or a script.
    """

    def __init__(
        self,
        arguments: list[str],
        cwd: Path,
        stdout: Path,
        stderr: Path,
        program: str | Path = "astromorph",
    ) -> None:
        with mock.patch.dict(os.environ, OMP_NUM_THREADS="1"):  # of server and children
            forkserver.ensure_running()
        self._process = CONTEXT.Process(
            target=_execute,
            args=(program, arguments, cwd, (stdout, stderr), dict(os.environ)),
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
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)


def run(
    arguments: list[str],
    cwd: Path,
    program: str | Path = "astromorph",
    timeout: float = 300,
) -> subprocess.CompletedProcess[str]:
    """Execute a program to its end, like `subprocess.run` with captured output."""
    with tempfile.TemporaryDirectory() as folder:
        streams = Path(folder, "stdout"), Path(folder, "stderr")
        command = Command(arguments, cwd, *streams, program)
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
    streams: tuple[Path, Path],
    variables: dict[str, str],
) -> None:
    """What the forked process does."""
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(variables)
    for number, stream in enumerate(streams, 1):
        file = os.open(stream, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, number)
        os.close(file)
    sys.argv = [str(program), *arguments]
    try:
        _run_program(program)
    finally:
        atexit._run_exitfuncs()  # which `multiprocessing` omits


def _run_program(program: str | Path) -> None:
    if program == "astromorph":
        from astromorph.cli.main import main

        main()
    elif program == "snakemake":
        # The workflow imports the package beside it, which may be a copy.
        for name in [n for n in sys.modules if n.partition(".")[0] == "astromorph"]:
            del sys.modules[name]
        from snakemake.cli import main

        main()
    else:
        sys.path.insert(0, str(Path(program).parent))
        runpy.run_path(str(program), run_name="__main__")
