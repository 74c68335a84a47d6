"""Several processes that train one network: torch.distributed behind few names.

`torchrun` or `srun` starts the processes; each has a rank, from 0. Alone, a
process is rank 0 of 1 and nothing here does anything.
"""

import os
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, distributed, nn

from astromorph.errors import AstromorphError

# What a job gets before its time is up: SLURM sends the first, or both.
SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
PORTS = range(29_500, 32_500)  # of jobs on one machine each takes its own
HOW = "`training_settings.devices` times `nodes`"


def rank() -> int:
    """The number of this process; 0 writes."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def world_size() -> int:
    """How many processes train together."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def unjoined_processes() -> int:
    """How many processes were started together, where this one has not joined them."""
    if distributed.is_initialized():
        return 1
    return int(
        os.environ.get("WORLD_SIZE", os.environ.get("SLURM_STEP_NUM_TASKS", "1"))
    )


def local_part(indices: Tensor) -> Tensor:
    """The part of a batch, known to all processes, that falls to this one."""
    return indices[rank() :: world_size()]


def loss_weight(here: int, everywhere: int) -> float:
    """Factor on the mean loss of a part, so that the parts' mean is the whole's.

    Gradients are averaged over the processes, parts may differ by one image.
    """
    return here * world_size() / everywhere


def all_reduce_sum(value: Tensor) -> Tensor:
    """The sum over all processes."""
    if world_size() > 1:
        value = value.clone()
        distributed.all_reduce(value)
    return value


def all_gather(value: Tensor) -> Tensor:
    """Those of all processes, stacked in the order of their ranks."""
    if world_size() == 1:
        return value[None]
    parts = [torch.empty_like(value) for _ in range(world_size())]
    distributed.all_gather(parts, value)
    return torch.stack(parts)


def all_agree(value: bool) -> bool:
    """What all processes say: True where each of them does."""
    return not all_reduce_max(int(not value))


def all_reduce_max(value: int) -> int:
    """The largest that any process says; all of them must ask."""
    if world_size() > 1:
        said = _shared(value)
        distributed.all_reduce(said, distributed.ReduceOp.MAX)
        value = int(said)
    return value


def broadcast(value: int) -> int:
    """What the first process says; all of them must ask."""
    if world_size() > 1:
        said = _shared(value)
        distributed.broadcast(said, src=0)
        value = int(said)
    return value


def barrier() -> None:
    """Go on when all processes are here."""
    if world_size() > 1:
        distributed.barrier()


def _shared(value: int) -> Tensor:
    """A number as a tensor that processes can exchange."""
    device = "cuda" if distributed.get_backend() == "nccl" else "cpu"
    return torch.tensor(value, device=device)


@contextmanager
def handling_signals(heed: Callable[[int], None]) -> Iterator[None]:
    """Do something at a signal that means the end; only a main thread can.

    Parameters
    ----------
    heed : callable
        Takes the signal's number.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {
        number: signal.signal(number, lambda got, _: heed(got)) for number in SIGNALS
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def wrap_for_training(learner: nn.Module, device: torch.device) -> nn.Module:
    """A module whose gradients are averaged over the processes.

    Batch norm sees the whole batch on GPUs; on CPUs each process's part.
    """
    if world_size() == 1:
        return learner
    devices = [device] if device.type == "cuda" else None
    with warnings.catch_warnings():
        # Its successor is not in torch 2.11.
        warnings.filterwarnings("ignore", "`broadcast_buffers`", FutureWarning)
        # Buffers are each process's own: rank 0 writes the model.
        return nn.parallel.DistributedDataParallel(
            learner, device_ids=devices, broadcast_buffers=False
        )


def threads_per_process(given: int) -> int:
    """Threads of this process, where those of a machine share `given`."""
    return max(1, given // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


@contextmanager
def process_group(wanted: int) -> Iterator[None]:
    """Join the processes that torchrun or srun has started; leave them at the end.

    Parameters
    ----------
    wanted : int
        Processes that the settings ask for; with 1, nothing is joined.

    Raises
    ------
    AstromorphError
        Another number was started.
    """
    if wanted == 1:
        yield
        return
    if "RANK" not in os.environ:
        _ranks_of_slurm()
    found = int(os.environ["WORLD_SIZE"])
    if found != wanted:
        raise AstromorphError(
            f"{HOW} is {wanted}, but {found} processes were started; make both the same"
        )
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield
        distributed.barrier()  # gloo fails now and then where one leaves early
    finally:
        distributed.destroy_process_group()


def is_started() -> bool:
    """Whether torchrun or srun has started this process as one of several."""
    return "RANK" in os.environ or int(os.environ.get("SLURM_STEP_NUM_TASKS", "1")) > 1


def launch(arguments: Sequence[str], devices: int, nodes: int) -> None:
    """Let torchrun start processes on this machine, and wait for them.

    A process that dies ends the others.

    Parameters
    ----------
    arguments : sequence of str
        Of ``python -m``.
    devices : int
        Processes to start.
    nodes : int
        Must be 1: other machines are srun's.

    Raises
    ------
    AstromorphError
        A process has failed, or there are several nodes.
    """
    if nodes > 1:
        raise AstromorphError(
            f"`training_settings.nodes` is {nodes}, but srun has started one process "
            "here; run the step with srun, a task for each device"
        )
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += [f"--nproc-per-node={devices}", "-m", *arguments]
    # Else torchrun says at length that it sets this.
    environment = {"OMP_NUM_THREADS": "1", **os.environ}
    with (
        subprocess.Popen(command, env=environment) as process,
        handling_signals(lambda _: process.terminate()),  # all that torchrun passes on
    ):
        failed = process.wait()
    if failed:
        raise AstromorphError(
            f"one of {devices} processes that trained together has failed, which ended "
            "the others; its error stands above"
        )


def _port(given: Mapping[str, str]) -> int:
    """A port that all tasks of a job agree on."""
    return PORTS[int(given.get("SLURM_JOB_ID", "0")) % len(PORTS)]


def _ranks_of_slurm() -> None:
    """Tell torch what srun knows."""
    given = os.environ
    first = given.get("SLURM_LAUNCH_NODE_IPADDR", "127.0.0.1")
    os.environ |= {
        "RANK": given["SLURM_PROCID"],
        "WORLD_SIZE": given["SLURM_STEP_NUM_TASKS"],
        "LOCAL_RANK": given.get("SLURM_LOCALID", "0"),
        "MASTER_ADDR": given.get("MASTER_ADDR", first),
        "MASTER_PORT": given.get("MASTER_PORT", str(_port(given))),
    }
