"""Your own augmentation: flips, and a different random window for each image."""

import logging
import sys

import torch
from torch.nn import functional

from astromorph import (
    AstroMorphologyModel,
    ByolTrainer,
    SkyAugmentation,
    prepared_images,
)
from astromorph.settings.sections import AugmentationSettings
from astromorph.sky.simulate import simulate

logging.basicConfig(level=logging.INFO, format="%(message)s")

# The name of a file list, or simulated images.
datafile = sys.argv[1] if len(sys.argv) > 1 else simulate("fits", number=24, seed=0)
images = prepared_images(datafile)


def window(images: torch.Tensor) -> torch.Tensor:
    """Cut a random window out of each image and resize it to the original size."""
    number, _, height, width = images.shape
    corner = torch.rand(number, 2) / 4
    views = []
    for image, (y, x) in zip(images, corner.tolist(), strict=True):
        top, left = int(y * height), int(x * width)
        part = image[:, top : top + 3 * height // 4, left : left + 3 * width // 4]
        part = part.flip(2) if torch.rand(()) < 0.5 else part
        part = functional.interpolate(part[None], (height, width), mode="bilinear")
        views.append(part[0])
    return torch.stack(views)


trainer = ByolTrainer(AstroMorphologyModel(), augmentation_function=window)
trainer.train_model(images, epochs=2, batch_size=8)

# Or the built-in augmentation with other strengths: here size and flux matter.
strengths = AugmentationSettings(scale=(0.9, 1.1), contrast=0.1, gamma=0.1)
trainer = ByolTrainer(
    AstroMorphologyModel(), augmentation_function=SkyAugmentation(strengths)
)
history = trainer.train_model(images, epochs=2, batch_size=8)
print("loss", history[-1].train_loss)
