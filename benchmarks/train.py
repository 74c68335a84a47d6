"""Compare the speed of training and inference with other implementations.

    python benchmarks/train.py                         # with the bare network
    python benchmarks/train.py --lightly               # and lightly's BYOL
    python benchmarks/train.py --predecessor FOLDER    # and astromorph 0.1.2

All use the same network, image size and batch size. The bare network is a forward and
backward pass of the online network and a forward pass of the target, on existing
tensors in the precision of astromorph, without the cost of loader, views, optimizer and
bookkeeping; another table shows the time of each part of a step. Training is timed as
after its first 100 steps: until then, the statistics of batch norm are measured again
after each epoch, which would count for much in epochs of a few steps. lightly runs as
in its examples: PIL images, its BYOL transform, a DataLoader with a worker per core,
float32. For astromorph 0.1.2, a Python 3.12 environment is created in FOLDER (from the
package index) unless it exists; it reads FITS files one by one, as usual.

Only torch and torchvision are needed, except for the last two options. On a GPU, use
`--batch 1024`.
"""

import argparse
import ast
import importlib.util
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import torch
from torch import Tensor

from astromorph.byol.augment import SkyAugmentation
from astromorph.byol.byol import BYOL
from astromorph.datasets.tensor_datasets import CachedDataset
from astromorph.devices import choose_device, choose_precision
from astromorph.embedding.embed import embed
from astromorph.models.encoders import AstroMorphologyModel, NLayerResnet
from astromorph.training.batch_norm import FEW_STEPS
from astromorph.training.batches import Views
from astromorph.training.trainer import ByolTrainer

CHANNELS = 3  # required by lightly and the predecessor
Contender = Callable[[], float]  # runs once and returns images per second


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--layer", default="layer3", help="last layer, or amm")
    parser.add_argument("--steps", type=int, default=6, help="steps of each run")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--lightly", action="store_true")
    parser.add_argument("--predecessor", type=Path)
    parser.add_argument(
        "--python", default="python3.12", help="Python of the predecessor"
    )
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    device = choose_device()
    print(
        f"torch {torch.__version__}, {device_name(device)}, "
        f"{torch.get_num_threads()} threads, {options.layer}, {options.size} px, "
        f"batch {options.batch}"
    )
    contenders: dict[str, Contender] = {
        "bare network": bare(options, device),
        "ours": ours(options),
    }
    required = {"bare network": 0.90, "lightly": 2.2, "0.1.2": 8.0}
    if options.lightly:
        contenders["lightly"] = lightly_byol(options, device)
    if options.predecessor:
        contenders["0.1.2"] = predecessor(options)
    compare(contenders, options.rounds, required, "training")
    time_parts(options, device)
    contenders = {
        "bare network": bare_inference(options, device),
        "ours": our_inference(options),
    }
    compare(contenders, options.rounds, required, "inference")


def compare(
    contenders: dict[str, Contender], rounds: int, required: dict[str, float], what: str
) -> None:
    """Run contenders in turn, so that other work on the machine affects all of them."""
    for run in contenders.values():
        run()  # warm-up
    speeds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, run in contenders.items():
            speeds[name].append(run())
    print(f"\n| {what} | images/s | ours / this | required |\n|---|---|---|---|")
    for name, found in speeds.items():
        ratios = [a / b for a, b in zip(speeds["ours"], found, strict=True)]
        minimum = required.get(name, "")
        ratio = statistics.median(ratios)
        print(f"| {name} | {statistics.median(found):.1f} | {ratio:.2f} | {minimum} |")


def encoder(options: argparse.Namespace) -> NLayerResnet | AstroMorphologyModel:
    torch.manual_seed(0)
    if options.layer == "amm":
        return AstroMorphologyModel(CHANNELS)
    return NLayerResnet(CHANNELS, options.layer)


def byol(options: argparse.Namespace) -> BYOL:
    return BYOL(encoder(options))


def pictures(number: int, size: int) -> Tensor:
    """Images of blobs of various widths with noise, `(N, 1, S, S)`, float16."""
    generator = torch.Generator().manual_seed(1)
    place = torch.arange(size) - size / 2
    squared = place[:, None] ** 2 + place[None, :] ** 2
    width = 2 + size / 6 * torch.rand(number, 1, 1, generator=generator)
    noise = 0.03 * torch.randn(number, size, size, generator=generator)
    images = 0.2 + 0.7 * torch.exp(-squared / (2 * width**2)) + noise
    return images.clamp(0, 1)[:, None].half()


def ours(options: argparse.Namespace) -> Contender:
    data = CachedDataset(
        pictures(options.batch * options.steps, options.size), CHANNELS
    )
    augment = SkyAugmentation(views(), torch.Generator().manual_seed(1), CHANNELS)  # type: ignore[arg-type]
    trainer = ByolTrainer(
        byol(options), augmentation_function=augment, precision=options.precision
    )
    trainer.progress.step = FEW_STEPS  # see above

    def run() -> float:
        start = time.perf_counter()
        trainer.train_epoch(data, options.batch, 10**6)  # ends with a wait for the GPU
        return len(data) / (time.perf_counter() - start)

    return run


def bare(options: argparse.Namespace, device: torch.device) -> Contender:
    network = byol(options).to(device).to(memory_format=torch.channels_last)
    precision = choose_precision(options.precision, device)
    images = CachedDataset(pictures(options.batch, options.size), CHANNELS)
    view = images.batch(torch.arange(options.batch)).to(device)
    view = view.contiguous(memory_format=torch.channels_last)

    def run() -> float:
        start = time.perf_counter()
        for _ in range(options.steps):
            network.zero_grad(set_to_none=True)
            with precision.autocast(device):
                loss = network.loss(view, view)
            loss.backward()  # type: ignore[no-untyped-call]
        loss.item()
        return float(options.batch * options.steps) / (time.perf_counter() - start)

    return run


def time_parts(options: argparse.Namespace, device: torch.device) -> None:
    """Print the time of each part of a step, per image."""
    data = CachedDataset(pictures(options.batch, options.size), CHANNELS)
    augment = SkyAugmentation(views(), torch.Generator().manual_seed(1), CHANNELS)  # type: ignore[arg-type]
    trainer = ByolTrainer(
        byol(options), augmentation_function=augment, precision=options.precision
    )
    make_views, order = Views(augment, 0), torch.randperm(options.batch)
    images = data.batch(order).to(device)
    view_1, view_2 = make_views.at_step(0, images)

    def pass_through_network() -> None:
        trainer.optimizer.zero_grad(set_to_none=True)
        with trainer.precision.autocast(device):
            loss, _ = trainer._objective(view_1, view_2)
        loss.backward()

    parts: dict[str, Callable[[], object]] = {
        "images of the batch": lambda: data.batch(order).to(device),
        "both views": lambda: make_views.at_step(0, images),
        "network": pass_through_network,
        "optimizer": trainer.optimizer.step,
        "moving average": lambda: trainer.byol.update_moving_average(0.99),
    }
    times: dict[str, list[float]] = {name: [] for name in parts}
    for _ in range(options.rounds + 1):
        for name, run in parts.items():
            start = time.perf_counter()
            run()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            times[name].append(time.perf_counter() - start)
    # The first round is a warm-up.
    medians = {name: statistics.median(found[1:]) for name, found in times.items()}
    total = sum(medians.values())
    print("\n| part of a step | microseconds per image | share |\n|---|---|---|")
    for name, seconds in medians.items():
        microseconds = 1e6 * seconds / options.batch
        print(f"| {name} | {microseconds:.1f} | {100 * seconds / total:.1f} % |")
    colours = torch.rand(options.batch, CHANNELS, options.size, options.size)
    make_views = Views(SkyAugmentation(views(), stacksize=1), 0)  # type: ignore[arg-type]
    start = time.perf_counter()
    for step in range(options.rounds):
        make_views.at_step(step, colours.to(device))
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    seconds = (time.perf_counter() - start) / options.rounds / options.batch
    print(f"| both views of {CHANNELS} different channels | {1e6 * seconds:.1f} | |")


def our_inference(options: argparse.Namespace) -> Contender:
    network = byol(options)
    data = CachedDataset(
        pictures(options.batch * options.steps, options.size), CHANNELS
    )
    settings = SimpleNamespace(symmetry="none", batch_size=options.batch)

    def run() -> float:
        start = time.perf_counter()
        embed(network, data, settings)  # type: ignore[arg-type]
        return len(data) / (time.perf_counter() - start)

    return run


@torch.inference_mode()
def bare_inference(options: argparse.Namespace, device: torch.device) -> Contender:
    network = encoder(options).to(device).to(memory_format=torch.channels_last).eval()
    view = torch.rand(
        options.batch, CHANNELS, options.size, options.size, device=device
    )
    view = view.contiguous(memory_format=torch.channels_last)

    @torch.inference_mode()
    def run() -> float:
        start = time.perf_counter()
        for _ in range(options.steps):
            features = network(view)
        features.sum().item()
        return float(options.batch * options.steps) / (time.perf_counter() - start)

    return run


def lightly_byol(options: argparse.Namespace, device: torch.device) -> Contender:
    """BYOL as in lightly's examples, with the same network as its backbone."""
    from copy import deepcopy

    from lightly.loss import NegativeCosineSimilarity
    from lightly.models.modules import BYOLPredictionHead, BYOLProjectionHead
    from lightly.models.utils import deactivate_requires_grad, update_momentum
    from lightly.transforms.byol_transform import (
        BYOLTransform,
        BYOLView1Transform,
        BYOLView2Transform,
    )
    from PIL import Image
    from torch import nn

    size = options.size
    transform = BYOLTransform(
        BYOLView1Transform(input_size=size), BYOLView2Transform(input_size=size)
    )
    arrays = (255 * pictures(options.batch * options.steps, size)).byte()
    photos = [Image.fromarray(a[0].numpy()).convert("RGB") for a in arrays]

    class Photos(torch.utils.data.Dataset[list[Tensor]]):
        def __len__(self) -> int:
            return len(photos)

        def __getitem__(self, index: int) -> list[Tensor]:
            return list(transform(photos[index]))  # type: ignore[arg-type]

    reference = byol(options)
    features, hidden = reference.representation_size, reference.projection_hidden_size
    small = reference.projection_size
    backbone: nn.Module = encoder(options).to(device)
    projector = BYOLProjectionHead(features, hidden, small).to(device)
    predictor = BYOLPredictionHead(small, hidden, small).to(device)
    slow_backbone, slow_projector = deepcopy(backbone), deepcopy(projector)
    deactivate_requires_grad(slow_backbone)
    deactivate_requires_grad(slow_projector)
    learning = [
        *backbone.parameters(),
        *projector.parameters(),
        *predictor.parameters(),
    ]
    optimizer = torch.optim.SGD(learning, lr=0.06)
    criterion = NegativeCosineSimilarity()
    loader = torch.utils.data.DataLoader(
        Photos(), batch_size=options.batch, shuffle=True, drop_last=True,
        num_workers=os.cpu_count() or 2, persistent_workers=True,
    )  # fmt: skip

    def run() -> float:
        start = time.perf_counter()
        for one, two in loader:
            update_momentum(backbone, slow_backbone, m=0.99)
            update_momentum(projector, slow_projector, m=0.99)
            views = one.to(device), two.to(device)
            online = [predictor(projector(backbone(v).flatten(1))) for v in views]
            with torch.no_grad():
                target = [slow_projector(slow_backbone(v).flatten(1)) for v in views]
            loss = 0.5 * (
                criterion(online[0], target[1]) + criterion(online[1], target[0])
            )
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        loss.item()
        return len(photos) / (time.perf_counter() - start)

    return run


PREDECESSOR = """
import sys, time, torch
torch.set_num_threads(int(sys.argv[4]))
from importlib.metadata import version
from torch.utils.data import DataLoader
from astromorph.byol import ByolTrainer, MinMaxNorm
from astromorph.datasets import FitsFilelistDataset
from astromorph.models import DEFAULT_MODELS
from torchvision import transforms as T
augment = torch.nn.Sequential(
    T.RandomApply([T.ColorJitter(0.8, 0.8, 0.8, 0.2)], p=0.3), T.RandomGrayscale(p=0.2),
    T.RandomHorizontalFlip(), T.RandomRotation(degrees=(0, 360)),
    T.RandomApply([T.GaussianBlur((3, 3), (1.0, 2.0))], p=0.2))
class Counted(FitsFilelistDataset):
    read = 0
    def __getitem__(self, index):
        Counted.read += 1
        return super().__getitem__(index)
name, options = ("amm", {}) if sys.argv[2] == "amm" else (
    "n_layer_resnet", {"last_layer": sys.argv[2]})
trainer = ByolTrainer(DEFAULT_MODELS[name](**options), hidden_layer="avgpool",
    augmentation_function=augment, normalization_function=MinMaxNorm(),
    representation_size=256)
data = Counted(sys.argv[1], stacksize=3)
loader = DataLoader(data, batch_size=1, shuffle=True, pin_memory=True)
weights = trainer.byol.online_predictor.parameters
print("ready", version("astromorph"), flush=True)
for line in sys.stdin:
    Counted.read, before = 0, [w.detach().clone() for w in weights()]
    loss = float(trainer.train_epoch(loader, batch_size=int(sys.argv[3])))
    learned = any(not torch.equal(a, b) for a, b in zip(before, weights()))
    print(Counted.read, learned, loss == loss, flush=True)
"""


def predecessor(options: argparse.Namespace) -> Contender:
    """Version 0.1.2 in a separate environment and process.

    An image counts once, although this version trains on four copies of it. A whole
    epoch is timed here, and it counts only if all images were read, weights of a head
    have changed, and the loss is a number.
    """
    from astropy.io import fits

    python = options.predecessor / "bin" / "python"
    if not python.exists():
        subprocess.run([options.python, "-m", "venv", options.predecessor], check=True)
        wanted = ["astromorph==0.1.2", "click", "astropy"]
        subprocess.run([python, "-m", "pip", "install", "-q", *wanted], check=True)
    folder = Path(tempfile.mkdtemp())
    names = []
    # One more than a batch: a step follows image number `batch`, and gradients of
    # images after the last step are never computed.
    for k, image in enumerate(pictures(options.batch + 1, options.size)):
        names.append(str(folder / f"{k}.fits"))
        fits.writeto(names[-1], image[0].float().numpy())
    (folder / "list.txt").write_text("".join(f"{name}\n" for name in names))
    (folder / "run.py").write_text(PREDECESSOR)
    threads = str(torch.get_num_threads())
    arguments = ["list.txt", options.layer, str(options.batch), threads]
    # Isolated (-I): with PYTHONPATH set, this package would be imported instead.
    process = subprocess.Popen(
        [python, "-I", "run.py", *arguments],
        cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    assert process.stdin
    assert process.stdout
    sender, answers = process.stdin, process.stdout
    if answers.readline().split() != ["ready", "0.1.2"]:
        sys.exit(f"astromorph 0.1.2 does not start: {python} {folder / 'run.py'}")

    def run() -> float:
        start = time.perf_counter()
        sender.write("go\n")
        sender.flush()
        answer = answers.readline()
        seconds = time.perf_counter() - start
        if answer.split() != [str(len(names)), "True", "True"]:
            sys.exit(
                f"astromorph 0.1.2 has not trained on {len(names)} images: {answer}"
            )
        return len(names) / seconds

    return run


def views() -> SimpleNamespace:
    """The defaults of `augmentation_settings`, even without pydantic."""
    if importlib.util.find_spec("pydantic"):
        from astromorph.settings.sections import AugmentationSettings

        return SimpleNamespace(**AugmentationSettings().model_dump())
    import astromorph

    text = (Path(astromorph.__file__).parent / "settings" / "sections.py").read_text()
    for node in ast.parse(text).body:
        if isinstance(node, ast.ClassDef) and node.name == "AugmentationSettings":
            return SimpleNamespace(
                **{
                    line.target.id: ast.literal_eval(line.value)
                    for line in node.body
                    if isinstance(line, ast.AnnAssign) and line.value
                    and isinstance(line.target, ast.Name)
                }
            )  # fmt: skip
    raise LookupError("sections.py has no AugmentationSettings")


def device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return device.type


if __name__ == "__main__":
    main()
