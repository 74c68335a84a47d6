"""Evaluate the recipes of the how-to pages on simulated images.

    python benchmarks/guide.py
    python benchmarks/guide.py --recipes default "own loss"

Each row of the table is a recipe: effective rank of the embedding, balanced accuracy
of the nearest neighbours on whitened embeddings (seven kinds, not used in training),
the fraction of images that are retrieved after a quarter turn and a flip, the training
time in seconds and its ratio to that of the first trained recipe. Images of 64 by 64
pixels, the network `amm`, one seed.
"""

import argparse
import logging
import tempfile
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from astromorph import (
    BYOL,
    LARS,
    AstroMorphologyModel,
    ByolTrainer,
    PreparedImages,
    SkyAugmentation,
    auxiliary_task_for,
    embed_images,
    prepared_images,
    start_from_sky,
)
from astromorph.byol.collapse import rank_me
from astromorph.embedding.metrics import knn_score, retrieval, whiten
from astromorph.settings.sections import AugmentationSettings
from astromorph.sky.simulate import simulate


def window(images: Tensor) -> Tensor:
    """Crop three quarters of each side, as in docs/examples/own_augmentation.py."""
    number, _, height, width = images.shape
    views = []
    for image, (y, x) in zip(images, (torch.rand(number, 2) / 4).tolist(), strict=True):
        top, left = int(y * height), int(x * width)
        part = image[:, top : top + 3 * height // 4, left : left + 3 * width // 4]
        part = part.flip(2) if torch.rand(()) < 0.5 else part
        views.append(functional.interpolate(part[None], (height, width))[0])
    return torch.stack(views)


def distance(prediction: Tensor, target: Tensor) -> Tensor:
    """The loss of docs/examples/own_loss.py."""
    return functional.smooth_l1_loss(prediction, target, reduction="none").mean(dim=1)


def network() -> nn.Module:
    """A network with the same random weights in each call."""
    torch.manual_seed(0)
    return AstroMorphologyModel()


def sky_network() -> BYOL:
    """A BYOL network with the start weights that come with the package."""
    byol = BYOL(network())
    start_from_sky(byol)
    return byol


def recipes(
    images: PreparedImages, labelled_images: int
) -> dict[str, Callable[[], ByolTrainer]]:
    """The names of recipes, and functions that create their trainers."""

    def plain(**options: Any) -> ByolTrainer:
        return ByolTrainer(network(), **options)

    def sky(auxiliary: bool) -> ByolTrainer:
        return with_task(sky_network(), auxiliary, learning_rate=3e-4)

    def with_task(byol: BYOL, auxiliary: bool, **options: Any) -> ByolTrainer:
        if auxiliary:
            task = auxiliary_task_for(images, byol, labelled_images)
            options["auxiliary_task"] = task
        return ByolTrainer(byol, **options)

    weak = SkyAugmentation(
        AugmentationSettings(scale=(0.9, 1.1), contrast=0.1, gamma=0.1)
    )
    return {
        "default": plain,
        "own views (window)": partial(plain, augmentation_function=window),
        "weak views": partial(plain, augmentation_function=weak),
        "own loss": partial(plain, loss_fn=distance),
        "RMSprop": partial(plain, optimizer=torch.optim.RMSprop),
        "LARS": partial(plain, optimizer=LARS, learning_rate=0.2),
        "random weights, auxiliary task": lambda: with_task(BYOL(network()), True),
        "sky weights, no auxiliary task": partial(sky, False),
        "sky weights, auxiliary task": partial(sky, True),
    }


def print_row(name: str, byol: BYOL, images: PreparedImages, *times: str) -> None:
    """Evaluate one network and print its row of the table."""
    vectors = embed_images(byol, images)
    score = knn_score(whiten(vectors), images.column("label"), images.image_ids)
    turned = [image.rot90(1, (1, 2)).flip(2) for image in images.images]
    retrieved = retrieval(
        embed_images(byol, turned, symmetry="none"),
        embed_images(byol, images, symmetry="none"),
    )
    figures = [f"{rank_me(vectors):.1f}", f"{score.mean:.2f}", f"{retrieved:.2f}"]
    print("|", " | ".join([name, *figures, *times]), "|", flush=True)


def main() -> None:
    """Train and evaluate all recipes, or the chosen ones."""
    options = parse_options()
    logging.getLogger("astromorph").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        images = prepared_images(simulate(folder, options.images, seed=0))
    every = recipes(images, options.labelled_images)
    if unknown := set(options.recipes or ()) - set(every):
        raise SystemExit(f"--recipes: found {sorted(unknown)}; known are {list(every)}")
    print("| recipe | effective rank | kNN | retrieval | seconds | ratio |")
    print("|---|---|---|---|---|---|")
    print_row("random weights, untrained", BYOL(network()).eval(), images, "", "")
    print_row("sky weights, untrained", sky_network().eval(), images, "", "")
    first = 0.0
    for name in options.recipes or every:
        start = time.perf_counter()
        trainer = every[name]()
        trainer.train_model(
            images, epochs=options.epochs, batch_size=options.batch_size
        )
        seconds = time.perf_counter() - start
        first = first or seconds
        times = f"{seconds:.1f}", f"{seconds / first:.2f}"
        print_row(name, trainer.byol, images, *times)


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--images", type=int, default=210, help="simulated images, 35 or more"
    )
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument(
        "--labelled-images",
        type=int,
        default=1000,
        help="simulated images of the auxiliary task",
    )
    parser.add_argument("--recipes", nargs="+", help="recipes to run; by default all")
    return parser.parse_args()


if __name__ == "__main__":
    main()
