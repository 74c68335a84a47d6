"""Use your own optimizer, and a learning rate that changes with every step."""

import logging
import math
import sys

import torch
from torch.utils.data import DataLoader

from astromorph import (
    BYOL,
    LARS,
    AstroMorphologyModel,
    ByolTrainer,
    SizeBucketSampler,
    SkyAugmentation,
    collate_images,
    moving_average_decay,
    prepared_images,
)
from astromorph.byol.optimise import parameter_groups
from astromorph.sky.simulate import simulate

logging.basicConfig(level=logging.INFO, format="%(message)s")

# The name of a file list, or simulated images; each in its original size.
datafile = sys.argv[1] if len(sys.argv) > 1 else simulate("fits", number=24, seed=0)
images = prepared_images(datafile, {"preprocess_settings": {"size": "native"}}).images
resized = prepared_images(datafile)  # all in the same size
epochs, batch_size = 2, 8
steps = epochs * math.ceil(len(resized) / batch_size)

# 1. ByolTrainer with any class of torch.optim, and a scheduler stepped by epoch.
trainer = ByolTrainer(
    AstroMorphologyModel(),
    optimizer=torch.optim.RMSprop,
    learning_rate=1e-3,
    lr_scheduler=torch.optim.lr_scheduler.StepLR,
    lr_scheduler_options={"step_size": 1, "gamma": 0.3},
)
trainer.train_model(images, epochs=epochs, batch_size=batch_size)


# 2. ByolTrainer with a function of the step: the factor of the learning rate.
def sawtooth(step: int, steps: int) -> float:
    """Fall from 1 to 0 three times."""
    return 1 - (3 * step / steps) % 1


trainer = ByolTrainer(AstroMorphologyModel(), schedule=sawtooth)
trainer.train_model(resized, epochs=epochs, batch_size=batch_size)

# 3. ByolTrainer with a scheduler of torch, stepped by batch.
trainer = ByolTrainer(AstroMorphologyModel(), schedule=None)
one_cycle = torch.optim.lr_scheduler.OneCycleLR(
    trainer.optimizer, max_lr=2e-3, total_steps=steps
)
trainer.train_model(
    resized, epochs=epochs, batch_size=batch_size, after_step=lambda _: one_cycle.step()
)
print("after", trainer.step, "steps the learning rate is", one_cycle.get_last_lr()[0])

# 4. Your own loop.
byol, augment = BYOL(AstroMorphologyModel()), SkyAugmentation()
sampler = SizeBucketSampler([i.shape[1:] for i in images], batch_size=batch_size)
loader = DataLoader(images, batch_sampler=sampler, collate_fn=collate_images)
optimizer = LARS(parameter_groups(byol), lr=0.2, weight_decay=1e-6)
steps = epochs * len(loader)
scheduler = torch.optim.lr_scheduler.OneCycleLR(
    optimizer, max_lr=0.2, total_steps=steps, cycle_momentum=False
)
for _ in range(epochs):
    for batch in loader:
        loss = byol.loss(augment(batch), augment(batch))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        byol.update_moving_average(
            moving_average_decay(scheduler.last_epoch, steps, 0.99)
        )
        scheduler.step()
print("loss", float(loss.detach()))
