"""Use a network of torchvision, and a small one, with `ByolTrainer` and `BYOL`."""

import logging
import sys

import torch
from torch import nn
from torch.utils.data import DataLoader
from torchvision.models import efficientnet_b0

from astromorph import (
    BYOL,
    ByolTrainer,
    SkyAugmentation,
    embed_images,
    prepared_images,
    split_images,
)
from astromorph.byol.collapse import rank_me
from astromorph.sky.simulate import simulate

logging.basicConfig(level=logging.INFO, format="%(message)s")

# The name of a file list, or simulated images; three channels, as for RGB.
datafile = sys.argv[1] if len(sys.argv) > 1 else simulate("fits", number=24, seed=0)
images = prepared_images(datafile, {"data_settings": {"stacksize": 3}})
train, test = split_images(images, test_fraction=0.2)
augment = SkyAugmentation(stacksize=3)  # keeps the three channels identical

trainer = ByolTrainer(
    efficientnet_b0(), representation_size=64, augmentation_function=augment
)
trainer.train_model(train, test, epochs=2, batch_size=16)
embeddings = embed_images(trainer, images)  # averages over flips and rotations
print(len(embeddings), "embeddings of length", embeddings.shape[1])
once = trainer(images.images).numpy()  # a single pass
print(f"effective rank {rank_me(once):.1f}, of averages {rank_me(embeddings):.1f}")


class Small(nn.Module):
    """Your own network; `hidden_layer` selects the layer that gives the embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.filters = nn.Sequential(
            nn.Conv2d(3, 16, 5, stride=2), nn.BatchNorm2d(16), nn.ReLU(),
            nn.Conv2d(16, 32, 3, stride=2), nn.BatchNorm2d(32), nn.ReLU(),
        )  # fmt: skip
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classes = nn.Linear(32, 10)

    def forward(self, images):
        """Compute ten numbers per image."""
        return self.classes(self.pool(self.filters(images)).flatten(1))


trainer = ByolTrainer(
    Small(),
    hidden_layer="pool",
    learning_rate=3e-3,
    augmentation_function=augment,
)
history = trainer.train_model(train, test, epochs=2, batch_size=16)
print("test loss", history[-1].test_loss)
print(f"effective rank {rank_me(embed_images(trainer, images)):.1f}")

# The same network in your own loop.
byol = BYOL(Small(), hidden_layer="pool")
optimizer = torch.optim.AdamW(byol.parameters(), lr=1e-3)
loader = DataLoader(train, batch_size=16, shuffle=True, drop_last=True)
for epoch in range(2):
    for batch in loader:
        loss = byol.loss(augment(batch), augment(batch))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        byol.update_moving_average(0.99)
    print("your own loop, epoch", epoch + 1, "loss", float(loss.detach()))
