"""Train the encoders that come with the package on the simulated sky.

    python benchmarks/train_sky.py

draws images of every sort that `astromorph.sky.objects` knows, seen by every
telescope there may be, and lets each network tell the sort and the measures of the
shape from a view of the image. What it writes, `astromorph/sky_weights/*.pt`, is
what `network_settings.weights: sky` starts from. No image of the real sky, and no
weights from elsewhere, have a part in it.
"""

import argparse
import hashlib
import time
from pathlib import Path

import torch
from torch import Tensor, nn

from astromorph.atomic import atomic_write
from astromorph.byol.augment import SkyAugmentation
from astromorph.byol.optimise import adamw, parameter_groups, warm_up_cosine
from astromorph.byol.start_weights import WEIGHTS_FORMAT, WEIGHTS_VERSION, sky_file
from astromorph.devices import Precision, choose_device, choose_precision
from astromorph.models.encoders import Encoder, build_network
from astromorph.settings.sections import NetworkSettings
from astromorph.sky.training_set import (
    DrawingRules,
    LabelledImages,
    draw_labelled_images,
)
from astromorph.training.auxiliary_task import AuxiliaryTask

SIZE, BATCH, LEARNING_RATE = 64, 128, 1e-3
LINES = 20  # of progress


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="+", default=["n_layer_resnet", "amm"])
    parser.add_argument("--images", type=int, default=60_000)
    parser.add_argument("--samples", type=int, default=480_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--output", type=Path, default=sky_file("amm").parent)
    given = parser.parse_args()
    start = time.perf_counter()
    draft = DrawingRules(seed=given.seed, size=SIZE)
    lessons = draw_labelled_images(draft, given.images, given.processes)
    print(f"{len(lessons)} images drawn in {time.perf_counter() - start:.0f} s")
    for name in given.networks:
        encoder = learn(name, lessons, given.samples, given.seed)
        values = {
            "format": WEIGHTS_FORMAT,
            "format_version": WEIGHTS_VERSION,
            "network_name": name,
            "images": given.images,
            "samples": given.samples,
            "seed": given.seed,
            "state": {
                key: packed(value) for key, value in encoder.state_dict().items()
            },
        }
        given.output.mkdir(parents=True, exist_ok=True)
        with atomic_write(given.output / f"{name}.pt") as temporary:
            torch.save(values, temporary)
        digest = hashlib.sha256((given.output / f"{name}.pt").read_bytes()).hexdigest()
        print(f"wrote {given.output / name}.pt; `WITH_SKY` needs {digest[:16]}")


def learn(name: str, lessons: LabelledImages, samples: int, seed: int) -> Encoder:
    """Train one network to tell what the images show."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    device = choose_device()
    encoder = build_network(name, NetworkSettings(), in_channels=1)
    teacher = AuxiliaryTask(lessons, encoder.features)
    both = nn.ModuleList([encoder, teacher.head])
    both.to(device).to(memory_format=torch.channels_last).train()
    optimizer = adamw(parameter_groups(both), lr=LEARNING_RATE)
    augment = SkyAugmentation(generator=generator)
    precision: Precision = choose_precision("auto", device)
    steps, order = samples // BATCH, torch.empty(0, dtype=torch.int64)
    told, start = 0.0, time.perf_counter()
    for step in range(steps):
        if len(order) < BATCH:
            more = torch.randperm(len(teacher), generator=generator)
            order = torch.cat([order, more])
        chosen, order = order[:BATCH], order[BATCH:]
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * warm_up_cosine(step, steps)
        view = augment(teacher.images.batch(chosen).to(device))
        view = view.contiguous(memory_format=torch.channels_last)
        with precision.autocast(device):
            loss = teacher(encoder(view), chosen)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        told += float(loss.detach())
        every = max(1, steps // LINES)
        if (step + 1) % every == 0:
            speed = BATCH * (step + 1) / (time.perf_counter() - start)
            print(f"{name}: step {step + 1} of {steps}, loss {told / every:.3f}, "
                  f"{speed:.0f} images/s", flush=True)  # fmt: skip
            told = 0.0
    return encoder.cpu().eval()


def packed(value: Tensor) -> Tensor:
    """Half the bytes of weights; counters as they are."""
    return value.half() if value.is_floating_point() else value


if __name__ == "__main__":
    main()
