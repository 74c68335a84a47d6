"""Train the encoders that come with the package on the simulated sky.

    python benchmarks/train_sky.py

It draws images of every morphology in `astromorph.sky.morphologies`, as seen by many
different telescopes, and trains each network to predict the morphology and the shape
measures from a view of the image. It writes `astromorph/byol/sky_weights/*.pt`, the
start weights of `network_settings.weights: sky`. No observed images and no pretrained
weights are used.

With `--leave-out`, every third morphology that is not in a simulated sample is not
drawn. `benchmarks/quality.py kinds` tests the weights with these: whether they contain
knowledge about shapes in general, or only about the morphologies that they were trained
on. Give another folder with `--output`.
"""

import argparse
import hashlib
import time
from pathlib import Path

import torch
from torch import Tensor, nn

from astromorph.artefacts.tensor_shard import save_values
from astromorph.byol.augment import SkyAugmentation
from astromorph.byol.optimise import adamw, parameter_groups, warm_up_cosine
from astromorph.byol.start_weights import WEIGHTS_FORMAT, WEIGHTS_VERSION, sky_file
from astromorph.devices import Precision, choose_device, choose_precision
from astromorph.models.encoders import Encoder, build_network
from astromorph.settings.sections import NetworkSettings
from astromorph.sky.morphologies import MORPHOLOGIES, SAMPLE_MORPHOLOGIES
from astromorph.sky.training_set import (
    DrawingRules,
    LabelledImages,
    draw_labelled_images,
)
from astromorph.training.auxiliary_task import AuxiliaryTask

SIZE, BATCH, LEARNING_RATE = 64, 128, 1e-3
LEFT_OUT = tuple(n for n in MORPHOLOGIES if n not in SAMPLE_MORPHOLOGIES)[::3]
PROGRESS_LINES = 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="+", default=["n_layer_resnet", "amm"])
    parser.add_argument("--images", type=int, default=70_000)
    parser.add_argument("--samples", type=int, default=900_000)
    parser.add_argument("--leave-out", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--output", type=Path, default=sky_file("amm").parent)
    options = parser.parse_args()
    start = time.perf_counter()
    left_out = LEFT_OUT if options.leave_out else ()
    names = tuple(name for name in MORPHOLOGIES if name not in left_out)
    rules = DrawingRules(seed=options.seed, size=SIZE, morphologies=names)
    images = draw_labelled_images(rules, options.images, options.processes)
    print(f"{len(images)} images drawn in {time.perf_counter() - start:.0f} s")
    for name in options.networks:
        encoder = train_encoder(name, images, options.samples, options.seed)
        values = {
            "format": WEIGHTS_FORMAT,
            "format_version": WEIGHTS_VERSION,
            "network_name": name,
            "images": options.images,
            "samples": options.samples,
            "seed": options.seed,
            "state": {key: halve(value) for key, value in encoder.state_dict().items()},
        }
        options.output.mkdir(parents=True, exist_ok=True)
        save_values(options.output / f"{name}.pt", values)
        digest = hashlib.sha256(
            (options.output / f"{name}.pt").read_bytes()
        ).hexdigest()
        print(f"wrote {options.output / name}.pt; `SKY_DIGESTS` needs {digest[:16]}")


def train_encoder(
    name: str, images: LabelledImages, samples: int, seed: int
) -> Encoder:
    """Train a network on the auxiliary task only."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    device = choose_device()
    encoder = build_network(name, NetworkSettings(), in_channels=1)
    task = AuxiliaryTask(images, encoder.features)
    networks = nn.ModuleList([encoder, task.head])
    networks.to(device).to(memory_format=torch.channels_last).train()
    optimizer = adamw(parameter_groups(networks), lr=LEARNING_RATE)
    augment = SkyAugmentation(generator=generator)
    precision: Precision = choose_precision("auto", device)
    steps, order = samples // BATCH, torch.empty(0, dtype=torch.int64)
    interval = max(1, steps // PROGRESS_LINES)
    loss_sum, start = 0.0, time.perf_counter()
    for step in range(steps):
        if len(order) < BATCH:
            more = torch.randperm(len(task), generator=generator)
            order = torch.cat([order, more])
        chosen, order = order[:BATCH], order[BATCH:]
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * warm_up_cosine(step, steps)
        view = augment(task.images.batch(chosen).to(device))
        view = view.contiguous(memory_format=torch.channels_last)
        with precision.autocast(device):
            loss = task(encoder(view), chosen)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss_sum += float(loss.detach())
        if (step + 1) % interval == 0:
            speed = BATCH * (step + 1) / (time.perf_counter() - start)
            print(
                f"{name}: step {step + 1} of {steps}, loss {loss_sum / interval:.3f}, "
                f"{speed:.0f} images/s",
                flush=True,
            )
            loss_sum = 0.0
    return encoder.cpu().eval()


def halve(value: Tensor) -> Tensor:
    """Convert weights to half precision; counters do not change."""
    return value.half() if value.is_floating_point() else value


if __name__ == "__main__":
    main()
