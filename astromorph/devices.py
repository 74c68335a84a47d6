"""Device, precision and memory, and the transfer of batches to the device."""

import platform
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from astromorph.atomic import read_cache, write_cache

CONTROL_GROUPS = Path("/sys/fs/cgroup")
GROUP_OF_PROCESS = Path("/proc/self/cgroup")
BFLOAT16_CACHE = "bfloat16.json"  # whether it is faster, by machine
REPETITIONS = 12  # timings of the convolution
PREFETCH = 2  # batches that are prepared while the device works
MIN_SPEEDUP = 1.25  # for which bfloat16 is used
MAX_DEVICE_FRACTION = 0.4  # fraction of free GPU memory for images


@dataclass(frozen=True, slots=True)
class Precision:
    """The precision of training.

    Attributes
    ----------
    dtype : torch.dtype
        float32, or bfloat16 for convolutions and matrix products.
    """

    dtype: torch.dtype = torch.float32

    def autocast(self, device: torch.device) -> torch.autocast:
        """Context manager that runs the network in this precision."""
        return torch.autocast(
            device.type, torch.bfloat16, enabled=self.dtype == torch.bfloat16
        )


def choose_device(name: str = "auto") -> torch.device:
    """Choose a device by name; ``"auto"`` means CUDA, else MPS, else the CPU.

    Raises
    ------
    ValueError
        This machine has no such device.

    Examples
    --------
    >>> choose_device("cpu")
    device(type='cpu')
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda", torch.cuda.current_device())
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    available = ["cpu"]
    if torch.cuda.is_available():
        available += ["cuda", *(f"cuda:{k}" for k in range(torch.cuda.device_count()))]
    if torch.backends.mps.is_available():
        available += ["mps", "mps:0"]
    if str(name) not in available:
        raise ValueError(
            f"device: found {str(name)!r}; allowed on this machine are auto, "
            f"{', '.join(available)}"
        )
    return torch.device(name)


def choose_precision(name: str, device: torch.device) -> Precision:
    """Choose a precision by name.

    Parameters
    ----------
    name : {'auto', 'float32', 'bfloat16'}
        `auto` means bfloat16 if it is faster on this machine.
    device : torch.device
        Device of the network.

    Raises
    ------
    ValueError
        There is no precision of this name.
    """
    if name not in ("auto", "float32", "bfloat16"):
        raise ValueError(
            f"precision: found {name!r}; allowed are auto, float32, bfloat16"
        )
    use_bfloat16 = name == "bfloat16" or (name == "auto" and bfloat16_is_faster(device))
    return Precision(torch.bfloat16 if use_bfloat16 else torch.float32)


def bfloat16_is_faster(device: torch.device) -> bool:
    """Whether a convolution is clearly faster in bfloat16 on this machine.

    The measurement is made once per machine and saved in the user's cache folder:
    otherwise the load of the machine could change the precision, and with it the
    result, from one run to the next.

    Parameters
    ----------
    device : torch.device
        Device of the network.

    Returns
    -------
    bool
    """
    if device.type == "mps":
        return False
    results = read_cache(BFLOAT16_CACHE)
    machine = f"{_device_name(device)}, torch {torch.__version__}"
    if not isinstance(results.get(machine), bool):
        results[machine] = _measure_bfloat16(device)
        write_cache(BFLOAT16_CACHE, results)
    return bool(results[machine])


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _measure_bfloat16(device: torch.device) -> bool:
    """Time a convolution in float32 and bfloat16; the random state is unchanged."""
    with torch.random.fork_rng(devices=[]):
        images = torch.rand(16, 64, 32, 32, device=device)
        filters = nn.Conv2d(64, 64, 3, padding=1).to(device)
    images = images.contiguous(memory_format=torch.channels_last)
    filters = filters.to(memory_format=torch.channels_last)

    def seconds(enabled: bool) -> float:
        start = time.perf_counter()
        with torch.autocast(device.type, torch.bfloat16, enabled=enabled):
            filters(images).float().sum().backward()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - start

    # Alternating, so that a busy moment affects both.
    times = [(seconds(False), seconds(True)) for _ in range(REPETITIONS)]
    float32, bfloat16 = (min(column) for column in zip(*times, strict=True))
    is_faster: bool = float32 > MIN_SPEEDUP * bfloat16
    return is_faster


def fits_on_device(images: Tensor, device: torch.device) -> bool:
    """Whether all images fit into the memory of a GPU, together with the network."""
    if device.type != "cuda":
        return False
    free, _ = torch.cuda.mem_get_info(device)
    return images.nbytes < MAX_DEVICE_FRACTION * free


def prefetch_to_device(
    load_batch: Callable[[Tensor], Tensor],
    parts: Iterable[Tensor],
    device: torch.device,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield batches on the device while the next ones are being prepared.

    Parameters
    ----------
    load_batch : callable
        Returns the images of given indices.
    parts : iterable of Tensor
        The indices of each batch, on the CPU.
    device : torch.device
        Device of the images that are yielded.

    Yields
    ------
    indices, images : Tensor
        In the order of `parts`.
    """
    if device.type == "cpu":
        for indices in parts:
            yield indices, load_batch(indices)
        return

    def load(indices: Tensor) -> tuple[Tensor, Tensor]:
        images = load_batch(indices)
        if images.device.type == "cpu" and device.type == "cuda":
            images = images.pin_memory()
        return indices, images

    with ThreadPoolExecutor(1) as pool:
        waiting = []
        for indices in parts:
            waiting.append(pool.submit(load, indices))
            if len(waiting) > PREFETCH:
                chosen, images = waiting.pop(0).result()
                yield chosen, images.to(device, non_blocking=True)
        for future in waiting:
            chosen, images = future.result()
            yield chosen, images.to(device, non_blocking=True)


def available_memory() -> int:
    """Bytes of memory that this process can still use.

    The minimum over the machine and the control groups by which SLURM and
    containers limit a job.

    Returns
    -------
    int
        At least 0.
    """
    import psutil

    free = int(psutil.virtual_memory().available)
    return max(0, min([free, *_free_in_groups()]))


def _free_in_groups() -> list[int]:
    """Free bytes of each enclosing control group; empty without control groups."""
    try:
        lines = GROUP_OF_PROCESS.read_text(encoding="ascii").splitlines()
    except OSError:
        return []
    groups = [line.removeprefix("0::") for line in lines if line.startswith("0::")]
    if not groups:
        return []
    folder = CONTROL_GROUPS / groups[0].lstrip("/")
    free = []
    for group in (folder, *folder.parents):
        if not group.is_relative_to(CONTROL_GROUPS):
            break
        try:
            limit = (group / "memory.max").read_text(encoding="ascii").strip()
            used = (group / "memory.current").read_text(encoding="ascii").strip()
            free.append(int(limit) - int(used))
        except (OSError, ValueError):  # the limit of an unlimited group is "max"
            continue
    return free
