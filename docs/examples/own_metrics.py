"""Measures of one's own in TensorBoard, during training."""

import logging
import sys

from torch.utils.tensorboard import SummaryWriter

from astromorph import AstroMorphologyModel, ByolTrainer, prepared_images
from astromorph.byol.collapse import rank_me
from astromorph.embedding.metrics import retrieval, uniformity
from astromorph.sky.simulate import simulate

logging.basicConfig(level=logging.INFO, format="%(message)s")

# The name of a file list, or simulated images.
datafile = sys.argv[1] if len(sys.argv) > 1 else simulate("fits", number=24, seed=0)
images = prepared_images(datafile)
some = images.images[:64]  # that are looked at

trainer = ByolTrainer(AstroMorphologyModel())
with SummaryWriter("runs/own_metrics") as writer:

    def look(trainer: ByolTrainer) -> None:
        """After every step; every tenth would do."""
        vectors, turned = (trainer(i).numpy() for i in (some, some.rot90(1, (2, 3))))
        writer.add_scalar("own/effective rank", rank_me(vectors), trainer.step)
        writer.add_scalar("own/uniformity", uniformity(vectors), trainer.step)
        writer.add_scalar("own/turned", retrieval(turned, vectors), trainer.step)

    trainer.train_model(images, epochs=2, batch_size=8, after_step=look)
print("tensorboard --logdir runs")
