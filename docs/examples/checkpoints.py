"""Save a training, go on with it, and stop when it no longer improves."""

import sys
from pathlib import Path

import torch

from astromorph import (
    BYOL,
    AstroMorphologyModel,
    ByolTrainer,
    FitsFilelistDataset,
    SkyAugmentation,
)
from astromorph.datasets import images_of
from astromorph.metrics import rank_me
from astromorph.networks import MinMaxNorm
from astromorph.simulate import simulate

# The name of a file list, or simulated images.
datafile = sys.argv[1] if len(sys.argv) > 1 else simulate("fits", number=24, seed=0)
data = images_of(FitsFilelistDataset(datafile))
images = MinMaxNorm()(data.batch(torch.arange(len(data))))

# The ready loop. The same training, interrupted or not, ends the same.
trainer = ByolTrainer(AstroMorphologyModel(), seed=1)
trainer.train_model(images, epochs=1, batch_size=8)
trainer.save("state.pt")
trainer = ByolTrainer(AstroMorphologyModel(), seed=1)
trainer.load("state.pt")
trainer.train_model(images, epochs=2, batch_size=8, resume=True)  # one more

# A loop of one's own: keep the best, stop after three epochs without a better one.
byol, augment = BYOL(AstroMorphologyModel()), SkyAugmentation()
optimizer = torch.optim.AdamW(byol.parameters(), lr=1e-3)
best, waiting, checkpoint = 0.0, 0, Path("best.pt")
for epoch in range(10):
    byol.train()
    for batch in images[torch.randperm(len(images))].split(8):
        loss = byol.loss(augment(batch), augment(batch))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        byol.update_moving_average(0.99)
    with torch.no_grad():
        rank = rank_me(byol.eval()(images).numpy())
    waiting = 0 if rank > best else waiting + 1
    if rank > best:
        best = rank
        state = {"byol": byol.state_dict(), "optimizer": optimizer.state_dict()}
        torch.save(state | {"epoch": epoch}, "best.tmp")
        Path("best.tmp").replace(checkpoint)  # whole, or as it was
    if waiting == 3:
        break
state = torch.load(checkpoint, weights_only=True)  # tensors and plain values only
byol.load_state_dict(state["byol"])
print("the best was epoch", state["epoch"], "with effective rank", round(best, 1))
