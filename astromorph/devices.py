"""Where training runs, in which precision, and how batches get there."""

import json
import logging
import os
import platform
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from astromorph.atomic import atomic_write
from astromorph.errors import WriteError

GROUPS = Path("/sys/fs/cgroup")
OF_PROCESS = Path("/proc/self/cgroup")
LOG = logging.getLogger(__name__)
GOES = 12
AHEAD = 2  # batches that are made while the device works
WORTH_IT = 1.25  # times as fast bfloat16 has to be
SHARE_OF_DEVICE = 0.4  # of its free memory that images may fill


@dataclass(frozen=True, slots=True)
class Precision:
    """How a network computes in training.

    Attributes
    ----------
    dtype : torch.dtype
        float32, or bfloat16 for convolutions and matrix products.
    """

    dtype: torch.dtype = torch.float32

    def autocast(self, device: torch.device) -> torch.autocast:
        """The context in which the network runs."""
        return torch.autocast(
            device.type, torch.bfloat16, enabled=self.dtype == torch.bfloat16
        )


def choose_device(name: str = "auto") -> torch.device:
    """The device of a name; ``"auto"`` takes CUDA, else MPS, else the CPU.

    Raises
    ------
    ValueError
        There is no such device here.

    Examples
    --------
    >>> choose_device("cpu")
    device(type='cpu')
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda", torch.cuda.current_device())
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    here = ["cpu"]
    if torch.cuda.is_available():
        here += ["cuda", *(f"cuda:{k}" for k in range(torch.cuda.device_count()))]
    if torch.backends.mps.is_available():
        here += ["mps", "mps:0"]
    if str(name) not in here:
        raise ValueError(
            f"device: found {str(name)!r}; allowed on this machine are auto, "
            f"{', '.join(here)}"
        )
    return torch.device(name)


def choose_precision(name: str, device: torch.device) -> Precision:
    """The precision of a name.

    Parameters
    ----------
    name : {'auto', 'float32', 'bfloat16'}
        `auto` takes bfloat16 where it is faster on this machine.
    device : torch.device
        Where the network is.

    Raises
    ------
    ValueError
        The name is none of the three.
    """
    if name not in ("auto", "float32", "bfloat16"):
        raise ValueError(
            f"precision: found {name!r}; allowed are auto, float32, bfloat16"
        )
    fast = name == "bfloat16" or (name == "auto" and bfloat16_is_faster(device))
    return Precision(torch.bfloat16 if fast else torch.float32)


def bfloat16_is_faster(device: torch.device) -> bool:
    """Whether bfloat16 is clearly faster here, by a convolution in both.

    It is measured once on a machine and then remembered in the user's cache folder,
    so that what else the machine does cannot change a result from one run to the
    next.

    Parameters
    ----------
    device : torch.device
        Where the network is.

    Returns
    -------
    bool
    """
    if device.type == "mps":
        return False
    memory = _memory()
    known = _remembered(memory)
    machine = f"{_name(device)}, torch {torch.__version__}"
    if not isinstance(known.get(machine), bool):
        known[machine] = _is_faster(device)
        try:
            with atomic_write(memory) as temporary:
                temporary.write_text(json.dumps(known, indent=1), encoding="utf-8")
        except WriteError as error:
            LOG.info("%s", error)
    return bool(known[machine])


def _memory() -> Path:
    """Where it is remembered: as the XDG base directory specification has it."""
    folder = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(folder) / "astromorph" / "bfloat16.json"


def _remembered(memory: Path) -> dict[str, Any]:
    try:
        found = json.loads(memory.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _is_faster(device: torch.device) -> bool:
    with torch.random.fork_rng(devices=[]):
        images = torch.rand(16, 64, 32, 32, device=device)
        filters = nn.Conv2d(64, 64, 3, padding=1).to(device)
    images = images.contiguous(memory_format=torch.channels_last)
    filters = filters.to(memory_format=torch.channels_last)

    def once(enabled: bool) -> float:
        start = time.perf_counter()
        with torch.autocast(device.type, torch.bfloat16, enabled=enabled):
            filters(images).float().sum().backward()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - start

    # In turns, so that a busy moment hits both.
    pairs = [(once(False), once(True)) for _ in range(GOES)]
    slow, fast = (min(times) for times in zip(*pairs, strict=True))
    faster: bool = slow > WORTH_IT * fast
    return faster


def fits_on_device(images: Tensor, device: torch.device) -> bool:
    """Whether all images can stay in the memory of a GPU."""
    if device.type != "cuda":
        return False
    free, _ = torch.cuda.mem_get_info(device)
    return images.nbytes < SHARE_OF_DEVICE * free


def prefetch_to_device(
    batch: Callable[[Tensor], Tensor], parts: Iterable[Tensor], device: torch.device
) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches on the device, the next ones made while one is used.

    Parameters
    ----------
    batch : callable
        Indices to images.
    parts : iterable of Tensor
        Indices of each batch, on the CPU.
    device : torch.device
        Where images go.

    Yields
    ------
    indices, images : Tensor
        In the order of `parts`.
    """
    if device.type == "cpu":
        for indices in parts:
            yield indices, batch(indices)
        return

    def made(indices: Tensor) -> tuple[Tensor, Tensor]:
        images = batch(indices)
        if images.device.type == "cpu" and device.type == "cuda":
            images = images.pin_memory()
        return indices, images

    with ThreadPoolExecutor(1) as pool:
        waiting = []
        for indices in parts:
            waiting.append(pool.submit(made, indices))
            if len(waiting) > AHEAD:
                chosen, images = waiting.pop(0).result()
                yield chosen, images.to(device, non_blocking=True)
        for future in waiting:
            chosen, images = future.result()
            yield chosen, images.to(device, non_blocking=True)


def available_memory() -> int:
    """Bytes that are free for this process.

    The least of what the machine has and of what the control groups, by which
    SLURM and containers hold a job to its share, leave.

    Returns
    -------
    int
        At least 0.
    """
    import psutil

    free = int(psutil.virtual_memory().available)
    return max(0, min([free, *_left_by_groups()]))


def _left_by_groups() -> list[int]:
    """Bytes that each enclosing group leaves; nothing without control groups."""
    try:
        lines = OF_PROCESS.read_text(encoding="ascii").splitlines()
    except OSError:
        return []
    own = [line.removeprefix("0::") for line in lines if line.startswith("0::")]
    if not own:
        return []
    folder = GROUPS / own[0].lstrip("/")
    left = []
    for place in (folder, *folder.parents):
        if not place.is_relative_to(GROUPS):
            break
        try:
            most = (place / "memory.max").read_text(encoding="ascii").strip()
            used = (place / "memory.current").read_text(encoding="ascii").strip()
            left.append(int(most) - int(used))
        except (OSError, ValueError):  # no limit here is the word "max"
            continue
    return left
