"""How fast training and inference are, side by side with others in one run.

    python benchmarks/train.py                         # against the bare network
    python benchmarks/train.py --lightly               # and lightly's BYOL
    python benchmarks/train.py --predecessor FOLDER    # and astromorph 0.1.2

The same network, image size and batch for all. The bare network is a forward and
backward pass of the online network and a forward pass of the target, on tensors
that are there already, in our precision: what a loader, views, optimizer and
bookkeeping cost comes on top. lightly runs as its examples do: PIL images, its
BYOL transform, a DataLoader with a worker per core, float32. For astromorph 0.1.2 a
Python 3.12 environment is made in FOLDER (from the package index) unless it is
there; it reads FITS files image by image, as it always does.

Needs torch and torchvision alone, without the last two options; on a GPU say
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
from astromorph.training.trainer import ByolTrainer

CHANNELS = 3  # what lightly and the predecessor want
Contender = Callable[[], float]  # images per second of one go


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--layer", default="layer3", help="or amm")
    parser.add_argument("--steps", type=int, default=6, help="of each go")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--lightly", action="store_true")
    parser.add_argument("--predecessor", type=Path)
    parser.add_argument("--python", default="python3.12", help="of the predecessor")
    given = parser.parse_args()
    if given.threads:
        torch.set_num_threads(given.threads)
    device = choose_device()
    print(f"torch {torch.__version__}, {named(device)}, {torch.get_num_threads()} "
          f"threads, {given.layer}, {given.size} px, batch {given.batch}")  # fmt: skip
    contenders: dict[str, Contender] = {
        "bare network": bare(given, device),
        "ours": ours(given),
    }
    asked = {"bare network": 0.90, "lightly": 1.5, "0.1.2": 8.0}
    if given.lightly:
        contenders["lightly"] = lightlys(given, device)
    if given.predecessor:
        contenders["0.1.2"] = predecessors(given)
    compare(contenders, given.rounds, asked, "training")
    compare(
        {"bare network": bare_inference(given, device), "ours": our_inference(given)},
        given.rounds, asked, "inference",
    )  # fmt: skip


def compare(
    contenders: dict[str, Contender], rounds: int, asked: dict[str, float], what: str
) -> None:
    """Let them take turns, so that what else the machine does hits all alike."""
    for go in contenders.values():
        go()  # so that all have started
    speeds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, go in contenders.items():
            speeds[name].append(go())
    print(f"\n| {what} | images/s | ours over it | asked |\n|---|---|---|---|")
    for name, found in speeds.items():
        ratios = [a / b for a, b in zip(speeds["ours"], found, strict=True)]
        wanted = asked.get(name, "")
        ratio = statistics.median(ratios)
        print(f"| {name} | {statistics.median(found):.1f} | {ratio:.2f} | {wanted} |")


def encoder(given: argparse.Namespace) -> NLayerResnet | AstroMorphologyModel:
    torch.manual_seed(0)
    if given.layer == "amm":
        return AstroMorphologyModel(CHANNELS)
    return NLayerResnet(CHANNELS, given.layer)


def byol(given: argparse.Namespace) -> BYOL:
    return BYOL(encoder(given))


def pictures(number: int, size: int) -> Tensor:
    """Blobs of many widths in noise, `(N, 1, S, S)`, float16."""
    generator = torch.Generator().manual_seed(1)
    place = torch.arange(size) - size / 2
    squared = place[:, None] ** 2 + place[None, :] ** 2
    width = 2 + size / 6 * torch.rand(number, 1, 1, generator=generator)
    noise = 0.03 * torch.randn(number, size, size, generator=generator)
    images = 0.2 + 0.7 * torch.exp(-squared / (2 * width**2)) + noise
    return images.clamp(0, 1)[:, None].half()


def ours(given: argparse.Namespace) -> Contender:
    data = CachedDataset(pictures(given.batch * given.steps, given.size), CHANNELS)
    augment = SkyAugmentation(views(), torch.Generator().manual_seed(1), CHANNELS)  # type: ignore[arg-type]
    trainer = ByolTrainer(
        byol(given), augmentation_function=augment, precision=given.precision
    )

    def go() -> float:
        start = time.perf_counter()
        trainer.train_epoch(data, given.batch, 10**6)  # ends with a wait for the GPU
        return len(data) / (time.perf_counter() - start)

    return go


def bare(given: argparse.Namespace, device: torch.device) -> Contender:
    network = byol(given).to(device).to(memory_format=torch.channels_last)
    precision = choose_precision(given.precision, device)
    images = CachedDataset(pictures(given.batch, given.size), CHANNELS)
    view = images.batch(torch.arange(given.batch)).to(device)
    view = view.contiguous(memory_format=torch.channels_last)

    def go() -> float:
        start = time.perf_counter()
        for _ in range(given.steps):
            network.zero_grad(set_to_none=True)
            with precision.autocast(device):
                loss = network.loss(view, view)
            loss.backward()
        loss.item()
        return given.batch * given.steps / (time.perf_counter() - start)

    return go


def our_inference(given: argparse.Namespace) -> Contender:
    network = byol(given)
    data = CachedDataset(pictures(given.batch * given.steps, given.size), CHANNELS)
    settings = SimpleNamespace(symmetry="none", batch_size=given.batch)

    def go() -> float:
        start = time.perf_counter()
        embed(network, data, settings)  # type: ignore[arg-type]
        return len(data) / (time.perf_counter() - start)

    return go


@torch.inference_mode()
def bare_inference(given: argparse.Namespace, device: torch.device) -> Contender:
    network = encoder(given).to(device).to(memory_format=torch.channels_last).eval()
    view = torch.rand(given.batch, CHANNELS, given.size, given.size, device=device)
    view = view.contiguous(memory_format=torch.channels_last)

    @torch.inference_mode()
    def go() -> float:
        start = time.perf_counter()
        for _ in range(given.steps):
            features = network(view)
        features.sum().item()
        return given.batch * given.steps / (time.perf_counter() - start)

    return go


def lightlys(given: argparse.Namespace, device: torch.device) -> Contender:
    """The BYOL of lightly's examples, with our network as its backbone."""
    from copy import deepcopy

    from lightly.loss import NegativeCosineSimilarity
    from lightly.models.modules import BYOLPredictionHead, BYOLProjectionHead
    from lightly.models.utils import deactivate_requires_grad, update_momentum
    from lightly.transforms import BYOLTransform
    from lightly.transforms.byol_transform import BYOLView1Transform, BYOLView2Transform
    from PIL import Image
    from torch import nn

    size = given.size
    transform = BYOLTransform(
        BYOLView1Transform(input_size=size), BYOLView2Transform(input_size=size)
    )
    arrays = (255 * pictures(given.batch * given.steps, size)).byte()
    photos = [Image.fromarray(a[0].numpy()).convert("RGB") for a in arrays]

    class Photos(torch.utils.data.Dataset[list[Tensor]]):
        def __len__(self) -> int:
            return len(photos)

        def __getitem__(self, index: int) -> list[Tensor]:
            return list(transform(photos[index]))  # type: ignore[arg-type]

    reference = byol(given)
    features, hidden = reference.representation_size, reference.projection_hidden_size
    small = reference.projection_size
    backbone: nn.Module = encoder(given).to(device)
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
        Photos(), batch_size=given.batch, shuffle=True, drop_last=True,
        num_workers=os.cpu_count() or 2, persistent_workers=True,
    )  # fmt: skip

    def go() -> float:
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

    return go


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
name, options = ("amm", {}) if sys.argv[2] == "amm" else (
    "n_layer_resnet", {"last_layer": sys.argv[2]})
trainer = ByolTrainer(DEFAULT_MODELS[name](**options), hidden_layer="avgpool",
    augmentation_function=augment, normalization_function=MinMaxNorm(),
    representation_size=256)
data = FitsFilelistDataset(sys.argv[1], stacksize=3)
loader = DataLoader(data, batch_size=1, shuffle=True, pin_memory=True)
print("ready", version("astromorph"), flush=True)
for line in sys.stdin:
    start = time.perf_counter()
    trainer.train_epoch(loader, batch_size=int(sys.argv[3]))
    print(len(data) / (time.perf_counter() - start), flush=True)
"""


def predecessors(given: argparse.Namespace) -> Contender:
    """Version 0.1.2 in an environment and a process of its own.

    An image counts once, although it trains on four copies of each.
    """
    from astropy.io import fits

    python = given.predecessor / "bin" / "python"
    if not python.exists():
        subprocess.run([given.python, "-m", "venv", given.predecessor], check=True)
        wanted = ["astromorph==0.1.2", "click", "astropy"]
        subprocess.run([python, "-m", "pip", "install", "-q", *wanted], check=True)
    folder = Path(tempfile.mkdtemp())
    names = []
    # One more than a batch: it steps after image number `batch`, and the gradients
    # of what comes after its last step are never computed.
    for k, image in enumerate(pictures(given.batch + 1, given.size)):
        names.append(str(folder / f"{k}.fits"))
        fits.writeto(names[-1], image[0].float().numpy())
    (folder / "list.txt").write_text("".join(f"{name}\n" for name in names))
    (folder / "run.py").write_text(PREDECESSOR)
    threads = str(torch.get_num_threads())
    # Isolated (-I): with PYTHONPATH set, this package would be imported in its place,
    # whose version 0.1 names once made it run, as fast as ours.
    process = subprocess.Popen(
        [python, "-I", "run.py", "list.txt", given.layer, str(given.batch), threads],
        cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    assert process.stdin
    assert process.stdout
    sender, answers = process.stdin, process.stdout
    if answers.readline().split() != ["ready", "0.1.2"]:
        sys.exit(f"astromorph 0.1.2 does not start: {python} {folder / 'run.py'}")

    def go() -> float:
        sender.write("go\n")
        sender.flush()
        return float(answers.readline())

    return go


def views() -> SimpleNamespace:
    """The defaults of `augmentation_settings`, also where pydantic is absent."""
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


def named(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return device.type


if __name__ == "__main__":
    main()
