"""Training on several devices: thin wrappers around torch.distributed.

`launch`, `srun` or `torchrun` starts the processes; each has a rank, counted from 0.
For a single process, the rank is 0, the world size is 1, and these functions return
their argument.
"""

import logging
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, distributed, nn

from astromorph.errors import AstromorphError
from astromorph.parent_watch import VARIABLE as PARENT
from astromorph.processes import RENDEZVOUS

LOG = logging.getLogger(__name__)
# A job receives the first two before its time limit: SLURM sends the first, or both.
# Ctrl-C sends the third, and a terminal or ssh connection that is closed the last.
SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT, signal.SIGHUP)
PORTS = range(29_500, 32_500)  # jobs on one machine use different ones
POLL_SECONDS = 0.1
# Seconds that the other processes have after one has failed: to log their own errors.
# They cannot continue without it.
SECONDS_AFTER_FAILURE = 5.0
# A second Ctrl-C within this time is not the user's: a launcher passed on the first.
SECONDS_OF_ONE_INTERRUPT = 1.0


class Interrupted(AstromorphError):
    """A signal ended the training."""


def rank() -> int:
    """Rank of this process; rank 0 writes files."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def world_size() -> int:
    """Number of processes that train together."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def unjoined_processes() -> int:
    """Number of processes that were started together but have not joined yet.

    1 after `process_group` has joined them, and for a single process.
    """
    if distributed.is_initialized():
        return 1
    return int(
        os.environ.get("WORLD_SIZE", os.environ.get("SLURM_STEP_NUM_TASKS", "1"))
    )


def local_part(indices: Tensor) -> Tensor:
    """The part of a batch of indices `(B,)` that this process computes."""
    return indices[rank() :: world_size()]


def loss_weight(local_size: int, batch_size: int) -> float:
    """Factor by which the mean loss of a local part is multiplied.

    Gradients are averaged over the processes, and parts may differ by one image. With
    this factor the average is the gradient of the mean loss of the batch.
    """
    return local_size * world_size() / batch_size


def all_reduce_sum(value: Tensor) -> Tensor:
    """The sum of a tensor over all processes."""
    if world_size() > 1:
        value = value.clone()
        distributed.all_reduce(value)
    return value


def all_gather(value: Tensor) -> Tensor:
    """The tensors of all processes, stacked in the order of their ranks."""
    if world_size() == 1:
        return value[None]
    parts = [torch.empty_like(value) for _ in range(world_size())]
    distributed.all_gather(parts, value)
    return torch.stack(parts)


def all_agree(value: bool) -> bool:
    """Whether the value is True on all processes."""
    return not all_reduce_max(int(not value))


def all_reduce_max(value: int) -> int:
    """The maximum over all processes. All of them must call this."""
    if world_size() > 1:
        tensor = _to_tensor(value)
        distributed.all_reduce(tensor, distributed.ReduceOp.MAX)
        value = int(tensor)
    return value


def broadcast(value: int) -> int:
    """The value on rank 0, for all processes. All of them must call this."""
    if world_size() > 1:
        tensor = _to_tensor(value)
        distributed.broadcast(tensor, src=0)
        value = int(tensor)
    return value


def barrier() -> None:
    """Wait until all processes have called this."""
    if world_size() > 1:
        distributed.barrier()


def _to_tensor(value: int) -> Tensor:
    """A tensor on the device that the backend uses for communication."""
    device = "cuda" if distributed.get_backend() == "nccl" else "cpu"
    return torch.tensor(value, device=device)


@contextmanager
def handling_signals(handler: Callable[[int], None]) -> Iterator[None]:
    """Handle `SIGNALS` in the block; does nothing outside the main thread.

    SIGHUP remains ignored if it was, as under `nohup`.

    A second Ctrl-C is not handled: it raises KeyboardInterrupt at once.

    Parameters
    ----------
    handler : callable
        Called with the signal number.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # Python allows handlers in the main thread only
        return
    first_interrupt: list[float] = []

    def handle(number: int, _: object) -> None:
        if number == signal.SIGINT:
            now = time.monotonic()
            if not first_interrupt:
                first_interrupt.append(now)
            elif now - first_interrupt[0] > SECONDS_OF_ONE_INTERRUPT:
                raise KeyboardInterrupt
        handler(number)

    previous = {
        number: signal.signal(number, handle)
        for number in SIGNALS
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN
    }
    try:
        yield
    finally:
        for number, old_handler in previous.items():
            signal.signal(number, old_handler)


@contextmanager
def delaying_interrupt() -> Iterator[Callable[[], bool]]:
    """Remember a first Ctrl-C in the block instead of raising KeyboardInterrupt.

    Nothing changes if somebody else handles Ctrl-C, outside the main thread, or if
    several processes train together.

    Yields
    ------
    callable
        Whether Ctrl-C was pressed.
    """
    received: list[int] = []
    is_default = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    is_main = threading.current_thread() is threading.main_thread()
    if not (is_default and is_main and world_size() == 1):
        yield lambda: False
        return

    def remember(number: int, _: object) -> None:
        if received:
            raise KeyboardInterrupt
        received.append(number)

    signal.signal(signal.SIGINT, remember)
    try:
        yield lambda: bool(received)
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def wrap_for_training(module: nn.Module, device: torch.device) -> nn.Module:
    """Wrap a module so that its gradients are averaged over the processes.

    Convert batch norm to synchronised batch norm first. torch supports it on GPUs only;
    on CPUs, batch norm sees the local part of a batch.
    """
    if world_size() == 1:
        return module
    devices = [device] if device.type == "cuda" else None
    with warnings.catch_warnings():
        # The option that replaces it is not in torch 2.11.
        warnings.filterwarnings("ignore", "`broadcast_buffers`", FutureWarning)
        # Each process has its own buffers; rank 0 writes the model.
        return nn.parallel.DistributedDataParallel(
            module, device_ids=devices, broadcast_buffers=False
        )


def threads_per_process(threads: int) -> int:
    """Number of threads of each process if those of a machine share `threads`."""
    return max(1, threads // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


@contextmanager
def process_group(size: int) -> Iterator[None]:
    """Join the processes that were started together for the duration of the block.

    Parameters
    ----------
    size : int
        Number of processes according to the settings. With 1, nothing is joined.

    Raises
    ------
    AstromorphError
        A different number of processes was started.
    """
    if size == 1:
        yield
        return
    if "RANK" not in os.environ:
        _set_ranks_from_slurm()
    started = int(os.environ["WORLD_SIZE"])
    if started != size:
        raise AstromorphError(
            f"`training_settings.devices` times `nodes` is {size}, but {started} "
            "processes were started; make both numbers equal"
        )
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    distributed.init_process_group(
        "nccl" if torch.cuda.is_available() else "gloo",
        init_method=os.environ.get(RENDEZVOUS, "env://"),
        rank=int(os.environ["RANK"]),
        world_size=size,
    )
    try:
        yield
        distributed.barrier()  # gloo sometimes fails if a process leaves early
    finally:
        distributed.destroy_process_group()


def is_started() -> bool:
    """Whether this process was started as one of several."""
    return "RANK" in os.environ or int(os.environ.get("SLURM_STEP_NUM_TASKS", "1")) > 1


def check_devices(devices: int) -> None:
    """Compare the number of processes with the number of GPUs.

    Without GPUs, the log says that the processes share the CPU cores.

    Parameters
    ----------
    devices : int
        `training_settings.devices`.

    Raises
    ------
    AstromorphError
        There are GPUs, but not one for each process.
    """
    gpus = torch.cuda.device_count()
    setting = f"`training_settings.devices` is {devices}"
    if 0 < gpus < devices:
        raise AstromorphError(
            f"{setting}, but this machine has {gpus} GPU{'s' if gpus > 1 else ''}; "
            f"set it to {gpus} or less"
        )
    if not gpus:
        cores = len(os.sched_getaffinity(0))
        LOG.warning(
            "%s, but this machine has no GPU: %d processes share its %d CPU cores, "
            "which is seldom faster than one process with all of them",
            *(setting, devices, cores),
        )


def launch(arguments: Sequence[str], devices: int, nodes: int) -> None:
    """Start processes on this machine that train together, and wait for them.

    They receive the signals that this process receives. If one of them fails, the
    others are stopped; if this process is killed, they end as well.

    Parameters
    ----------
    arguments : sequence of str
        Arguments of ``python -m``.
    devices : int
        Number of processes.
    nodes : int
        Must be 1; processes on several machines are started with srun.

    Raises
    ------
    AstromorphError
        A process has failed, a signal has stopped them, or `nodes` is above 1.
    KeyboardInterrupt
        Ctrl-C has stopped them.
    """
    if nodes > 1:
        raise AstromorphError(
            f"`training_settings.nodes` is {nodes}, but this process was not started "
            "by srun as one of several; run the step with srun, one task per device"
        )
    check_devices(devices)
    command = [sys.executable, "-m", *arguments]
    processes: list[subprocess.Popen[bytes]] = []
    signals: list[int] = []

    def pass_on(number: int) -> None:
        signals.append(number)
        for process in processes:
            process.send_signal(number)

    with tempfile.TemporaryDirectory() as folder, handling_signals(pass_on):
        try:
            for rank in range(devices):
                environment = _environment(rank, devices, f"file://{folder}/rendezvous")
                # In a session of its own, so that Ctrl-C reaches only this process.
                processes.append(
                    subprocess.Popen(command, env=environment, start_new_session=True)
                )
                if signals:  # received before there was a process to pass it on to
                    processes[-1].send_signal(signals[-1])
            failed = _wait(processes)
        finally:
            for process in processes:
                process.kill()
                process.wait()
    if not failed:
        return
    if signals:
        message = (
            f"training on {devices} devices was stopped by {signal_name(signals[0])}; "
            "run the same command again to continue from the last checkpoint"
        )
        raise interruption(signals[0], message)
    raise AstromorphError(
        f"one of {devices} processes that train together has failed, and the others "
        "were stopped; its error is above"
    )


def _environment(rank: int, devices: int, rendezvous: str) -> dict[str, str]:
    """The environment of one of several processes."""
    return {
        "OMP_NUM_THREADS": "1",
        **os.environ,
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(devices),
        "LOCAL_WORLD_SIZE": str(devices),
        RENDEZVOUS: rendezvous,
        PARENT: str(os.getpid()),
    }


def _wait(processes: Sequence[subprocess.Popen[bytes]]) -> bool:
    """Wait until all processes have ended; return whether one has failed.

    Those that have not ended a few seconds after one has failed are killed.
    """
    deadline = None
    while None in (codes := [process.poll() for process in processes]):
        now = time.monotonic()
        if deadline is None and any(codes):
            deadline = now + SECONDS_AFTER_FAILURE
        if deadline is not None and now > deadline:
            return True
        time.sleep(POLL_SECONDS)
    return any(codes)


def signal_name(number: int) -> str:
    """The name of a signal in a message."""
    name = signal.Signals(number).name
    return "Ctrl-C" if name == "SIGINT" else name


def interruption(number: int, message: str) -> BaseException:
    """The exception with which training ends after a signal.

    Parameters
    ----------
    number : int
        The signal.
    message : str
        What was saved, and how to continue.

    Returns
    -------
    BaseException
        A KeyboardInterrupt after Ctrl-C, else an `Interrupted`.
    """
    if number == signal.SIGINT:
        return KeyboardInterrupt(message)
    return Interrupted(message)


def _set_ranks_from_slurm() -> None:
    """Set the environment variables of torch.distributed from those of srun."""
    environment = os.environ
    first_node = environment.get("SLURM_LAUNCH_NODE_IPADDR", "127.0.0.1")
    # The same port for all tasks of a job.
    port = PORTS[int(environment.get("SLURM_JOB_ID", "0")) % len(PORTS)]
    os.environ |= {
        "RANK": environment["SLURM_PROCID"],
        "WORLD_SIZE": environment["SLURM_STEP_NUM_TASKS"],
        "LOCAL_RANK": environment.get("SLURM_LOCALID", "0"),
        "MASTER_ADDR": environment.get("MASTER_ADDR", first_node),
        "MASTER_PORT": environment.get("MASTER_PORT", str(port)),
    }
