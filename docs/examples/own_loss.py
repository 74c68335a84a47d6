"""Your own loss: a distance instead of the angle."""

import logging
import sys

from torch import Tensor
from torch.nn import functional

from astromorph import AstroMorphologyModel, ByolTrainer, prepared_images
from astromorph.sky.simulate import simulate

logging.basicConfig(level=logging.INFO, format="%(message)s")

# The name of a file list, or simulated images.
datafile = sys.argv[1] if len(sys.argv) > 1 else simulate("fits", number=24, seed=0)


def distance(prediction: Tensor, target: Tensor) -> Tensor:
    """Smooth L1 distances `(N,)` of vectors `(N, P)`."""
    return functional.smooth_l1_loss(prediction, target, reduction="none").mean(dim=1)


trainer = ByolTrainer(AstroMorphologyModel(), loss_fn=distance)
history = trainer.train_model(prepared_images(datafile), epochs=2, batch_size=8)
print("loss", history[-1].train_loss)
