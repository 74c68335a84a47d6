"""What carries the embedding in the workflow, in Python: start weights and lessons."""

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
torch.manual_seed(0)  # of the random weights; `seed` is for all else

# The name of a file list, or simulated images. The first number is that of the
# lessons: 12,000 in the workflow, few here, so that this takes a minute.
datafile = sys.argv[1] if len(sys.argv) > 1 else simulate("fits", number=70, seed=0)
number, epochs = (12_000, 30) if len(sys.argv) > 1 else (210, 2)
images = prepared_images(datafile)


def look(name: str, network: BYOL) -> None:
    """Effective rank, and accuracy of the neighbours where there are labels."""
    vectors = embed_images(network, images)
    labels = images.column("label")
    said = f"{name}: effective rank {rank_me(vectors):.1f}"
    if all(labels):
        score = knn_score(whiten(vectors), labels, images.image_ids)
        said += f", neighbours right in {score.mean:.2f}"
    print(said)


byol = BYOL(NLayerResnet(in_channels=1, last_layer="layer3"))
look("random weights", byol)
start_from_sky(byol)
look("the sky's weights", byol)

trainer = ByolTrainer(
    byol,
    teacher=auxiliary_task_for(images, byol, number),  # half of each batch
    learning_rate=3e-4,  # smaller, since the weights know something already
    seed=0,
)
history = trainer.train_model(images, epochs=epochs, batch_size=128)
look("trained", trainer.byol)
print("lesson loss", round(history[-1].lesson_loss, 2))

# With a network of your own there is no start; the lessons go as well.
# byol = BYOL(YourNetwork())
# ByolTrainer(byol, teacher=auxiliary_task_for(images, byol))
