"""Save a training, go on with it, and stop when it no longer improves."""

import logging
import sys
from pathlib import Path

import torch

from astromorph import (
    BYOL,
    AstroMorphologyModel,
    ByolTrainer,
    SkyAugmentation,
    prepared_images,
)
from astromorph.byol.collapse import rank_me
from astromorph.sky.simulate import simulate

logging.basicConfig(level=logging.INFO, format="%(message)s")

# The name of a file list, or simulated images.
datafile = sys.argv[1] if len(sys.argv) > 1 else simulate("fits", number=24, seed=0)
images = prepared_images(datafile).images
PATIENCE = 3  # epochs without a better one after which to stop

# 1. The ready loop. The same training, interrupted or not, ends the same.
trainer = ByolTrainer(AstroMorphologyModel(), seed=1)
trainer.train_model(images, epochs=1, batch_size=8)
trainer.save("state.pt")
trainer = ByolTrainer(AstroMorphologyModel(), seed=1)
trainer.load("state.pt")
trainer.train_model(images, epochs=2, batch_size=8, resume=True)  # one more


def keep(path: str, state: dict) -> None:
    """Write a file whole, or leave it as it was."""
    torch.save(state, "part.tmp")
    Path("part.tmp").replace(path)


# 2. A loop of one's own, which goes on where it was and keeps the best.
def train(epochs: int) -> None:
    """Up to so many epochs, those of earlier calls counted."""
    byol, augment = BYOL(AstroMorphologyModel()), SkyAugmentation()
    optimizer = torch.optim.AdamW(byol.parameters(), lr=1e-3)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, gamma=0.95)
    parts = {"byol": byol, "optimizer": optimizer, "scheduler": scheduler}
    epoch, best, waiting = 0, 0.0, 0
    if Path("last.pt").exists():
        state = torch.load("last.pt", weights_only=True)  # tensors and plain values
        for name, part in parts.items():
            part.load_state_dict(state[name])
        epoch, best, waiting = state["epoch"], state["best"], state["waiting"]
        torch.set_rng_state(state["random"])  # of the order and of the views
        print("goes on after epoch", epoch)
    while epoch < epochs and waiting < PATIENCE:
        byol.train()
        for batch in images[torch.randperm(len(images))].split(8):
            loss = byol.loss(augment(batch), augment(batch))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            byol.update_moving_average(0.99)
        scheduler.step()
        epoch += 1
        with torch.no_grad():
            rank = rank_me(byol.eval()(images).numpy())
        waiting = 0 if rank > best else waiting + 1
        if rank > best:
            best = rank
            keep("best.pt", {"byol": byol.state_dict(), "epoch": epoch})
        state = {name: part.state_dict() for name, part in parts.items()}
        state |= {"epoch": epoch, "best": best, "waiting": waiting}
        keep("last.pt", state | {"random": torch.get_rng_state()})


train(epochs=2)  # as if it had been killed here
train(epochs=10)
best = torch.load("best.pt", weights_only=True)
byol = BYOL(AstroMorphologyModel())
byol.load_state_dict(best["byol"])
rank = rank_me(byol.eval()(images).detach().numpy())
print("the best was epoch", best["epoch"], "with effective rank", round(rank, 1))
