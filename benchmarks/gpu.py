"""Measure training on a GPU: speed, memory, and whether results are reproducible.

    python benchmarks/gpu.py                           # on the GPU, 3 to 8 minutes
    python benchmarks/gpu.py --size 32 --batch 8 --layer amm --steps 1 --rounds 1

Only torch, torchvision and numpy are needed; this folder does not have to be installed.
Training is compared with the bare step, the forward and backward pass on existing
tensors as in benchmarks/train.py, in float32 and bfloat16, with both memory layouts,
and compiled; then two processes train together on the same device; training that was
interrupted is compared with uninterrupted training, and results on the GPU with those
on the CPU. Measurements that have not begun after `--seconds` are left out. One table
is printed, and a JSON file written.
"""

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("torch", "torchvision", "numpy")
MISSING = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
if MISSING:
    sys.exit(f"missing: {' '.join(MISSING)}; run `pip install {' '.join(MISSING)}`")
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # for reproducible products
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

import torch  # noqa: E402
from torch import Tensor, nn  # noqa: E402
from train import CHANNELS, byol, device_name, pictures, views  # noqa: E402

from astromorph.byol.augment import SkyAugmentation  # noqa: E402
from astromorph.datasets.tensor_datasets import CachedDataset  # noqa: E402
from astromorph.devices import Precision, choose_device  # noqa: E402
from astromorph.training.batch_norm import FEW_STEPS  # noqa: E402
from astromorph.training.trainer import ByolTrainer  # noqa: E402

GOAL = 0.90  # of the speed of the bare step
TOLERANCE = 1e-3  # of results on the GPU, relative to those on the CPU
PROCESS_SECONDS = 120.0
Row = tuple[str, object, str]  # what was measured, the result, what is required


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--layer", default="layer3", help="last layer, or amm")
    parser.add_argument("--steps", type=int, default=20, help="steps of each run")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--seconds", type=float, default=400, help="see above")
    parser.add_argument("--json", type=Path, default=Path("gpu.json"))
    parser.add_argument("--process", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    device = choose_device(options.device)
    if options.process:
        train_in_process(options, device, *options.process)
        return
    title = (
        f"torch {torch.__version__}, {device_name(device)}, {options.layer}, "
        f"{options.size} px, batch {options.batch}"
    )
    print(f"nothing is missing; {title}", flush=True)
    begin = time.monotonic()
    rows: list[Row] = []
    failed = False
    for measure in (speeds, compiled_speed, two_processes, resuming, cpu_and_gpu):
        name = measure.__name__.replace("_", " ")
        if time.monotonic() - begin > options.seconds:
            rows.append((name, "left out: no time", ""))
            continue
        try:
            rows += measure(options, device)
        except Exception as error:  # the other measurements are worth having
            failed = True
            reason = " ".join(str(error).split())[:160]
            rows.append((name, f"FAILED: {type(error).__name__}: {reason}", ""))
        print(f"{name}: {time.monotonic() - begin:.0f} s", file=sys.stderr, flush=True)
    print("\n| measurement | result | required |\n|---|---|---|")
    for what, result, required in rows:
        text = f"{result:.4g}" if isinstance(result, float) else str(result)
        print(f"| {what} | {text} | {required} |")
    values = {"title": title, "results": {what: result for what, result, _ in rows}}
    options.json.write_text(json.dumps(values, indent=1), encoding="utf-8")
    sys.exit(1 if failed else 0)


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def images_of(options: argparse.Namespace, steps: int) -> CachedDataset:
    return CachedDataset(pictures(options.batch * steps, options.size), CHANNELS)


def make_trainer(
    options: argparse.Namespace,
    device: torch.device,
    precision: str = "float32",
    compile: bool = False,
    strengths: object = None,
) -> ByolTrainer:
    """A trainer with the same weights at each call."""
    augment = SkyAugmentation(
        strengths or views(),  # type: ignore[arg-type]
        torch.Generator().manual_seed(1),
        CHANNELS,
    )
    return ByolTrainer(
        byol(options), augmentation_function=augment, precision=precision,
        compile=compile, device=str(device), seed=3,
    )  # fmt: skip


def training(
    options: argparse.Namespace, device: torch.device, precision: str, compile: bool
) -> Callable[[], float]:
    """Runs an epoch and returns images per second."""
    data = images_of(options, options.steps)
    data = CachedDataset(data.images.to(device), CHANNELS)
    trainer = make_trainer(options, device, precision, compile)
    trainer.progress.step = FEW_STEPS  # as after the first steps

    def run() -> float:
        synchronize(device)
        start = time.perf_counter()
        trainer.train_epoch(data, options.batch, 10**6)
        synchronize(device)
        return len(data) / (time.perf_counter() - start)

    return run


def bare_step(
    options: argparse.Namespace,
    device: torch.device,
    dtype: torch.dtype,
    memory_format: torch.memory_format,
    compile: bool,
) -> Callable[[], float]:
    """Runs the forward and backward pass, and returns images per second."""
    network = byol(options).to(device).to(memory_format=memory_format)
    loss_of: Callable[[Tensor, Tensor], Tensor] = network.loss
    if compile:
        loss_of = torch.compile(network.loss)
    images = images_of(options, 1)
    view = images.batch(torch.arange(options.batch)).to(device)
    view = view.contiguous(memory_format=memory_format)
    precision = Precision(dtype)

    def run() -> float:
        synchronize(device)
        start = time.perf_counter()
        for _ in range(options.steps):
            network.zero_grad(set_to_none=True)
            with precision.autocast(device):
                loss = loss_of(view, view)
            loss.backward()  # type: ignore[no-untyped-call]
        synchronize(device)
        return float(options.batch * options.steps) / (time.perf_counter() - start)

    return run


def compare(
    contenders: dict[str, Callable[[], Callable[[], float]]],
    options: argparse.Namespace,
    device: torch.device,
) -> tuple[dict[str, list[float]], dict[str, float]]:
    """Images per second of each round, and the peak memory of each contender in MB."""
    runs, memory = {}, {}
    for name, make in contenders.items():
        used = 0
        if device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(device)
            used = torch.cuda.memory_allocated(device)
        runs[name] = make()
        runs[name]()  # warm-up, and compilation
        if device.type == "cuda":
            memory[name] = (torch.cuda.max_memory_allocated(device) - used) / 1e6
    found: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(options.rounds):  # in turn, so that other work affects all of them
        for name, run in runs.items():
            found[name].append(run())
    return found, memory


def rows_of(
    found: dict[str, list[float]], memory: dict[str, float], pairs: dict[str, str]
) -> Iterator[Row]:
    for name, speeds in found.items():
        yield f"{name}, images/s", statistics.median(speeds), ""
    for name, megabytes in memory.items():
        yield f"{name}, peak memory in MB", megabytes, ""
    for ours, bare in pairs.items():
        ratios = [a / b for a, b in zip(found[ours], found[bare], strict=True)]
        yield f"{ours} / {bare}", statistics.median(ratios), f"at least {GOAL:.2f}"


DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def speeds(options: argparse.Namespace, device: torch.device) -> Iterator[Row]:
    """Training and the bare step in both precisions, the latter in both layouts."""
    contenders: dict[str, Callable[[], Callable[[], float]]] = {}
    pairs = {}
    layouts = {
        "contiguous": torch.contiguous_format,
        "channels last": torch.channels_last,
    }
    for precision, dtype in DTYPES.items():
        for layout, memory_format in layouts.items():
            contenders[f"bare step, {precision}, {layout}"] = partial(
                bare_step, options, device, dtype, memory_format, compile=False
            )
        contenders[f"training, {precision}"] = partial(
            training, options, device, precision, compile=False
        )
        pairs[f"training, {precision}"] = f"bare step, {precision}, channels last"
    yield from rows_of(*compare(contenders, options, device), pairs)


def compiled_speed(options: argparse.Namespace, device: torch.device) -> Iterator[Row]:
    """Training and the bare step, compiled."""
    if device.type != "cuda":
        yield "compiled", "left out: only on a GPU", ""
        return
    contenders = {
        "bare step, bfloat16, compiled": lambda: bare_step(
            options, device, torch.bfloat16, torch.channels_last, compile=True
        ),
        "training, bfloat16, compiled": lambda: training(
            options, device, "bfloat16", compile=True
        ),
    }
    bare, ours = contenders
    yield from rows_of(*compare(contenders, options, device), {ours: bare})


def two_processes(options: argparse.Namespace, device: torch.device) -> Iterator[Row]:
    """Two processes that train together on one device, each on half of a batch."""
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable, __file__, "--device", str(device),
            "--size", str(options.size), "--batch", str(options.batch),
            "--layer", options.layer, "--steps", str(options.steps),
        ]  # fmt: skip
        processes = [
            subprocess.Popen(
                [*command, "--process", str(rank), folder],
                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            )
            for rank in range(2)
        ]  # fmt: skip
        answers = []
        try:
            for process in processes:
                output, errors = process.communicate(timeout=PROCESS_SECONDS)
                if process.returncode:
                    raise RuntimeError(errors.strip().rpartition("\n")[2])
                answers.append(json.loads(output.strip().rpartition("\n")[2]))
        finally:
            for process in processes:
                process.kill()
    yield "two processes, images/s", min(a["speed"] for a in answers), ""
    equal = answers[0]["weights"] == answers[1]["weights"]
    yield "two processes have equal weights", "yes" if equal else "NO", "yes"


def train_in_process(
    options: argparse.Namespace, device: torch.device, rank: str, folder: str
) -> None:
    """One of two processes; NCCL needs a card for each, so they talk through gloo."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", f"file://{folder}/rendezvous", rank=int(rank), world_size=2
    )
    trainer = make_trainer(options, device)
    trainer.progress.step = FEW_STEPS
    data = images_of(options, options.steps)
    trainer.train_epoch(data, options.batch, 10**6)
    synchronize(device)
    start = time.perf_counter()
    trainer.train_epoch(data, options.batch, 10**6)
    synchronize(device)
    speed = len(data) / (time.perf_counter() - start)
    weights = [w.double().sum().item() for w in trainer.byol.encoder.parameters()]
    torch.distributed.barrier()
    print(json.dumps({"speed": speed, "weights": weights}), flush=True)


class _Stopped(Exception):
    """Raised to interrupt a training."""


@contextmanager
def deterministic(enabled: bool) -> Iterator[None]:
    """Only algorithms that give the same result in each run, if enabled.

    `median` has none for the indices that it returns, which are not used here.
    """
    torch.use_deterministic_algorithms(enabled, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


def resuming(options: argparse.Namespace, device: torch.device) -> Iterator[Row]:
    """Training twice, and training that was interrupted, in three epochs."""
    data = images_of(options, 3)
    for precision in DTYPES:
        for enabled in (False, True):
            with deterministic(enabled):
                whole, again, resumed = (
                    weights_of(make_trainer(options, device, precision), data, options),
                    weights_of(make_trainer(options, device, precision), data, options),
                    weights_if_interrupted(options, device, precision, data),
                )
            algorithms = "deterministic" if enabled else "default"
            for name, other in (("trained again", again), ("interrupted", resumed)):
                difference = float((whole - other).abs().max())
                yield (
                    f"equal weights if {name}, {precision}, {algorithms} algorithms",
                    "yes" if difference == 0 else f"no, differ by {difference:.1e}",
                    "yes" if enabled or device.type == "cpu" else "",
                )


def weights_if_interrupted(
    options: argparse.Namespace,
    device: torch.device,
    precision: str,
    data: CachedDataset,
) -> Tensor:
    """The same as `weights_of`, interrupted within the second epoch."""
    stopped = make_trainer(options, device, precision)

    def stop(trainer: ByolTrainer) -> None:
        if trainer.step == 4:
            raise _Stopped

    with suppress(_Stopped):
        weights_of(stopped, data, options, after_step=stop)
    with tempfile.TemporaryDirectory() as folder:
        stopped.save(Path(folder) / "state.pt")
        resumed = make_trainer(options, device, precision)
        resumed.load(Path(folder) / "state.pt")
    found = weights_of(resumed, data, options, resume=True)
    if (stopped.step, resumed.step) != (4, 9):
        raise RuntimeError(f"{resumed.step} steps after {stopped.step}; expected 9")
    return found


def weights_of(
    trainer: ByolTrainer,
    data: CachedDataset,
    options: argparse.Namespace,
    **training_options: object,
) -> Tensor:
    """All weights after three epochs, on the CPU."""
    trainer.train_model(data, None, 3, options.batch, **training_options)  # type: ignore[arg-type]
    state = trainer.byol.state_dict().values()
    return torch.cat([value.flatten().cpu().double() for value in state])


def cpu_and_gpu(options: argparse.Namespace, device: torch.device) -> Iterator[Row]:
    """Views, embeddings and gradients of the same weights and images."""
    small = argparse.Namespace(**vars(options) | {"batch": min(options.batch, 128)})
    images = images_of(small, 1).batch(torch.arange(small.batch))
    strengths = views()
    strengths.noise = 0.0  # its random numbers are drawn on the device
    results: list[dict[str, Tensor]] = []
    allowed = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        for place in (torch.device("cpu"), device):
            trainer = make_trainer(small, place, strengths=strengths)
            trainer.augment.generator.manual_seed(7)  # type: ignore[attr-defined]
            view = trainer.augment(images.to(place))
            network = trainer.byol
            network.eval()
            with torch.no_grad():
                embeddings = network(images.to(place))
            loss = network.loss(images.to(place), images.flip(3).to(place))
            loss.backward()  # type: ignore[no-untyped-call]
            results.append(
                {
                    "views": view.cpu(),
                    "embeddings": embeddings.cpu(),
                    "loss": loss.detach().cpu(),
                    "gradients": gradients(network),
                }
            )
    finally:
        torch.backends.cudnn.allow_tf32 = allowed
    on_cpu, on_device = results
    for name, expected in on_cpu.items():
        error = float((on_device[name] - expected).norm() / expected.norm())
        yield f"{name}, relative difference from CPU", error, f"at most {TOLERANCE:g}"


def gradients(network: nn.Module) -> Tensor:
    return torch.cat(
        [p.grad.flatten().cpu() for p in network.parameters() if p.grad is not None]
    )


if __name__ == "__main__":
    main()
