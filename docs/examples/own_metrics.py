"""Log your own measures to TensorBoard during training."""

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
monitored = images.images[:64]

trainer = ByolTrainer(AstroMorphologyModel())
with SummaryWriter("runs/own_metrics") as writer:

    def log_measures(trainer: ByolTrainer) -> None:
        """Log three measures after each step; every tenth step would be enough."""
        vectors = trainer(monitored).numpy()
        rotated = trainer(monitored.rot90(1, (2, 3))).numpy()
        writer.add_scalar("own/effective rank", rank_me(vectors), trainer.step)
        writer.add_scalar("own/uniformity", uniformity(vectors), trainer.step)
        writer.add_scalar("own/retrieval", retrieval(rotated, vectors), trainer.step)

    trainer.train_model(images, epochs=2, batch_size=8, after_step=log_measures)
print("tensorboard --logdir runs")
