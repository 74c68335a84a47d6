"""Save a training, resume it, and stop when it no longer improves."""

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
PATIENCE = 3  # stop after this many epochs without improvement

# 1. ByolTrainer: an interrupted training gives the same result as an uninterrupted one.
trainer = ByolTrainer(AstroMorphologyModel(), seed=1)
trainer.train_model(images, epochs=1, batch_size=8)
trainer.save("state.pt")
trainer = ByolTrainer(AstroMorphologyModel(), seed=1)
trainer.load("state.pt")
trainer.train_model(images, epochs=2, batch_size=8, resume=True)  # one more


def save(path: str, state: dict) -> None:
    """Write a file completely, or leave the old one unchanged."""
    torch.save(state, "temporary.pt")
    Path("temporary.pt").replace(path)


# 2. Your own loop, which resumes where it stopped and saves the best model.
def train(epochs: int) -> None:
    """Train up to a number of epochs in total, including those of earlier calls."""
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
        torch.set_rng_state(state["random"])  # order of images, and views
        print("resuming after epoch", epoch)
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
            save("best.pt", {"byol": byol.state_dict(), "epoch": epoch})
        state = {name: part.state_dict() for name, part in parts.items()}
        state |= {"epoch": epoch, "best": best, "waiting": waiting}
        save("last.pt", state | {"random": torch.get_rng_state()})


train(epochs=2)  # as if the program had been killed here
train(epochs=10)
best = torch.load("best.pt", weights_only=True)
byol = BYOL(AstroMorphologyModel())
byol.load_state_dict(best["byol"])
rank = rank_me(byol.eval()(images).detach().numpy())
print("best epoch", best["epoch"], "with effective rank", round(rank, 1))
