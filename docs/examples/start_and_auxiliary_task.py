"""Use the start weights and the auxiliary task of the workflow in Python."""

import logging
import sys

import torch

from astromorph import (
    BYOL,
    ByolTrainer,
    NLayerResnet,
    auxiliary_task_for,
    embed_images,
    prepared_images,
    start_from_sky,
)
from astromorph.byol.collapse import rank_me
from astromorph.embedding.metrics import knn_score, whiten
from astromorph.sky.simulate import simulate

logging.basicConfig(level=logging.INFO, format="%(message)s")
torch.manual_seed(0)  # for the random weights; `seed` is for everything else

# The name of a file list, or simulated images. `number` is the number of simulated
# images for the auxiliary task: 12,000 in the workflow, fewer here to save time.
datafile = sys.argv[1] if len(sys.argv) > 1 else simulate("fits", number=70, seed=0)
number, epochs = (12_000, 30) if len(sys.argv) > 1 else (210, 2)
images = prepared_images(datafile)


def report(name: str, network: BYOL) -> None:
    """Print the effective rank and, with labels, the accuracy of nearest neighbours."""
    vectors = embed_images(network, images)
    labels = images.column("label")
    line = f"{name}: effective rank {rank_me(vectors):.1f}"
    if all(labels):
        score = knn_score(whiten(vectors), labels, images.image_ids)
        line += f", accuracy of neighbours {score.mean:.2f}"
    print(line)


byol = BYOL(NLayerResnet(in_channels=1, last_layer="layer3"))
report("random weights", byol)
start_from_sky(byol)
report("start weights", byol)

trainer = ByolTrainer(
    byol,
    auxiliary_task=auxiliary_task_for(images, byol, number),  # half of each batch
    learning_rate=3e-4,  # smaller, because the weights are already trained
    seed=0,
)
history = trainer.train_model(images, epochs=epochs, batch_size=128)
report("trained", trainer.byol)
print("auxiliary loss", round(history[-1].auxiliary_loss, 2))

# There are no start weights for your own network, but the auxiliary task works too.
# byol = BYOL(YourNetwork())
# ByolTrainer(byol, auxiliary_task=auxiliary_task_for(images, byol))
