"""Measures of one's own in TensorBoard, during training."""

import sys

import torch
from torch.utils.tensorboard import SummaryWriter

from astromorph import AstroMorphologyModel, ByolTrainer, FitsFilelistDataset
from astromorph.metrics import found_again, rank_me, uniformity
from astromorph.simulate import simulate

# The name of a file list, or simulated images.
datafile = sys.argv[1] if len(sys.argv) > 1 else simulate("fits", number=24, seed=0)
images = FitsFilelistDataset(datafile)
some = torch.nn.functional.interpolate(images[0][:1], (64, 64)).repeat(8, 1, 1, 1)
some = some + some.std() * torch.rand(8, 1, 64, 64)

trainer = ByolTrainer(AstroMorphologyModel())
with SummaryWriter("runs/own_metrics") as writer:

    def look(trainer: ByolTrainer) -> None:
        """After every step; every tenth would do."""
        vectors, turned = (trainer(i).numpy() for i in (some, some.rot90(1, (2, 3))))
        writer.add_scalar("own/effective rank", rank_me(vectors), trainer.step)
        writer.add_scalar("own/uniformity", uniformity(vectors), trainer.step)
        writer.add_scalar("own/turned", found_again(turned, vectors), trainer.step)

    trainer.train_model(images, epochs=2, batch_size=8, after_step=look)
print("tensorboard --logdir runs")
