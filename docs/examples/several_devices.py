"""One training on several GPUs.

torchrun --nproc-per-node=2 several_devices.py
"""

import os

from astromorph import (
    AstroMorphologyModel,
    ByolTrainer,
    FitsFilelistDataset,
    distributed,
)
from astromorph.simulate import simulate

with distributed.joined(int(os.environ.get("WORLD_SIZE", "1"))):
    folder = f"fits{distributed.rank()}"  # here each makes its own; share yours
    images = FitsFilelistDataset(simulate(folder, number=24, seed=0))
    trainer = ByolTrainer(AstroMorphologyModel())
    history = trainer.train_model(
        images, epochs=2, batch_size=16, save_file="several.pt"
    )  # the first process writes
    if distributed.rank() == 0:
        print(distributed.world(), "processes, loss", history[-1].train_loss)
