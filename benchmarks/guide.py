"""What the how-to pages expect of their programs: numbers on simulated images.

python benchmarks/guide.py

Each line is a recipe: effective rank of the embedding, balanced accuracy of the
neighbours on whitened embeddings (seven kinds, which no training sees), and the share
of images that find themselves again after a quarter turn and a flip. 210 images of
64 pixels, 12 epochs, batches of 32, the network `amm`, one seed.
"""

import logging
import sys
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

NUMBER, EPOCHS, BATCH_SIZE, LESSONS = 210, 12, 32, 1000


def window(images: Tensor) -> Tensor:
    """Three quarters of each image, as in docs/examples/own_augmentation.py."""
    number, _, height, width = images.shape
    views = []
    for image, (y, x) in zip(images, (torch.rand(number, 2) / 4).tolist(), strict=True):
        top, left = int(y * height), int(x * width)
        part = image[:, top : top + 3 * height // 4, left : left + 3 * width // 4]
        part = part.flip(2) if torch.rand(()) < 0.5 else part
        views.append(functional.interpolate(part[None], (height, width))[0])
    return torch.stack(views)


def distance(prediction: Tensor, target: Tensor) -> Tensor:
    """As in docs/examples/own_loss.py."""
    return functional.smooth_l1_loss(prediction, target, reduction="none").mean(dim=1)


def network() -> nn.Module:
    """The same random weights each time."""
    torch.manual_seed(0)
    return AstroMorphologyModel()


def from_sky(images: PreparedImages, lessons: bool) -> tuple[BYOL, dict[str, Any]]:
    """What a recipe with the sky's weights is made of."""
    byol = BYOL(network())
    start_from_sky(byol)
    teacher = auxiliary_task_for(images, byol, LESSONS) if lessons else None
    return byol, {"learning_rate": 3e-4, "teacher": teacher}


def recipes(images: PreparedImages) -> dict[str, Callable[[], ByolTrainer]]:
    """By name, what makes the trainer."""

    def plain(**options: Any) -> ByolTrainer:
        return ByolTrainer(network(), **options)

    def sky(lessons: bool) -> ByolTrainer:
        byol, options = from_sky(images, lessons)
        return ByolTrainer(byol, **options)

    def taught() -> ByolTrainer:
        byol = BYOL(network())
        return ByolTrainer(byol, teacher=auxiliary_task_for(images, byol, LESSONS))

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
        "random weights, lessons": taught,
        "sky's weights, no lessons": partial(sky, False),
        "sky's weights, lessons": partial(sky, True),
    }


def look(name: str, byol: BYOL, images: PreparedImages, seconds: float) -> None:
    """One line."""
    vectors = embed_images(byol, images)
    score = knn_score(whiten(vectors), images.column("label"), images.image_ids)
    turned = images.images.rot90(1, (2, 3)).flip(3)
    again = retrieval(
        embed_images(byol, turned, symmetry="none"),
        embed_images(byol, images, symmetry="none"),
    )
    print(
        f"| {name} | {rank_me(vectors):.1f} | {score.mean:.2f} | {again:.2f} "
        f"| {seconds:.0f} |",
        flush=True,
    )


def main() -> None:
    """All recipes, or those that are named."""
    logging.getLogger("astromorph").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        images = prepared_images(simulate(folder, NUMBER, seed=0))
    print("| recipe | effective rank | neighbours | turned | seconds |")
    print("|---|---|---|---|---|")
    look("random weights, untrained", BYOL(network()).eval(), images, 0)
    look("sky's weights, untrained", from_sky(images, False)[0].eval(), images, 0)
    for name, make in recipes(images).items():
        if len(sys.argv) == 1 or name in sys.argv[1:]:
            begun = time.perf_counter()
            trainer = make()
            trainer.train_model(images, epochs=EPOCHS, batch_size=BATCH_SIZE)
            look(name, trainer.byol, images, time.perf_counter() - begun)


if __name__ == "__main__":
    main()
