"""An optimizer of one's own, and a learning rate that is set at every step."""

import sys

import torch
from torch.utils.data import DataLoader

from astromorph import (
    BYOL,
    LARS,
    AstroMorphologyModel,
    ByolTrainer,
    FitsFilelistDataset,
    MinMaxNorm,
    SizeBucketSampler,
    SkyAugmentation,
    collate_images,
    moving_average_decay,
)
from astromorph.optimise import parameter_groups
from astromorph.simulate import simulate

# The name of a file list, or simulated images.
datafile = sys.argv[1] if len(sys.argv) > 1 else simulate("fits", number=24, seed=0)
images = [MinMaxNorm()(copies[0]) for copies in FitsFilelistDataset(datafile)]

# With the ready loop: any class of torch.optim, any scheduler, stepped by epoch.
trainer = ByolTrainer(
    AstroMorphologyModel(),
    optimizer=torch.optim.RMSprop,
    learning_rate=1e-3,
    lr_scheduler=torch.optim.lr_scheduler.StepLR,
    lr_scheduler_options={"step_size": 1, "gamma": 0.3},
)
trainer.train_model(images, epochs=2, batch_size=8)

# With a loop of one's own: stepped by batch.
byol, augment, epochs = BYOL(AstroMorphologyModel()), SkyAugmentation(), 2
sampler = SizeBucketSampler([i.shape[1:] for i in images], batch_size=8)
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
print("loss", float(loss))
