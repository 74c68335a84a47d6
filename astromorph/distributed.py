"""Training on several devices: thin wrappers around torch.distributed.

`torchrun` or `srun` starts the processes; each has a rank, counted from 0. For a single
process, the rank is 0, the world size is 1, and these functions return their argument.
"""

import os
import signal
import subprocess
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, distributed, nn

from astromorph.errors import AstromorphError

# Sent to a job before its time limit: SLURM sends the first, or both.
SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
PORTS = range(29_500, 32_500)  # jobs on one machine use different ones


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

    Parameters
    ----------
    handler : callable
        Called with the signal number.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # Python allows handlers in the main thread only
        return
    previous = {
        number: signal.signal(number, lambda received, _: handler(received))
        for number in SIGNALS
    }
    try:
        yield
    finally:
        for number, old_handler in previous.items():
            signal.signal(number, old_handler)


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
    """Join the processes started by torchrun or srun for the duration of the block.

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
    distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield
        distributed.barrier()  # gloo sometimes fails if a process leaves early
    finally:
        distributed.destroy_process_group()


def is_started() -> bool:
    """Whether torchrun or srun has started this process as one of several."""
    return "RANK" in os.environ or int(os.environ.get("SLURM_STEP_NUM_TASKS", "1")) > 1


def launch(arguments: Sequence[str], devices: int, nodes: int) -> None:
    """Start processes on this machine with torchrun, and wait for them.

    If one of them fails, torchrun stops the others.

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
        A process has failed, or `nodes` is above 1.
    """
    if nodes > 1:
        raise AstromorphError(
            f"`training_settings.nodes` is {nodes}, but this process was not started "
            "by srun as one of several; run the step with srun, one task per device"
        )
    tempfile.gettempdir()  # torchrun needs one; without any, this error is explained
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += [f"--nproc-per-node={devices}", "-m", *arguments]
    # torchrun would set it as well, with a long warning.
    environment = {"OMP_NUM_THREADS": "1", **os.environ}
    with (
        subprocess.Popen(command, env=environment) as process,
        handling_signals(lambda _: process.terminate()),  # torchrun passes on SIGTERM
    ):
        failed = process.wait()
    if failed:
        raise AstromorphError(
            f"one of {devices} processes that train together has failed, and the "
            "others were stopped; its error is above"
        )


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
