"""One training on several GPUs.

torchrun --standalone --nproc-per-node=2 several_devices.py filelist.csv
"""

import logging
import os
import sys

import torch

from astromorph import AstroMorphologyModel, ByolTrainer, distributed, prepared_images
from astromorph.sky.simulate import simulate

# torchrun tells each process their number; without torchrun there is one.
with distributed.process_group(int(os.environ.get("WORLD_SIZE", "1"))):
    first = distributed.rank() == 0
    logging.basicConfig(
        level=logging.INFO if first else logging.WARNING, format="%(message)s"
    )
    # Each process simulates the same images, or reads the same list.
    folder = f"fits{distributed.rank()}"
    datafile = sys.argv[1] if len(sys.argv) > 1 else simulate(folder, 24, seed=0)
    images = prepared_images(datafile)
    torch.manual_seed(0)  # the same random weights in all processes
    trainer = ByolTrainer(AstroMorphologyModel())
    history = trainer.train_model(
        images, epochs=2, batch_size=16, save_file="several.pt"
    )  # only the first process writes the file
    if first:
        print(distributed.world_size(), "processes, loss", history[-1].train_loss)
