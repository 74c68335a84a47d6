"""Use a model of the workflow in Python, and one trained in Python in the workflow."""

import csv
import json
import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch

from astromorph import (
    ByolTrainer,
    NLayerResnet,
    SkyAugmentation,
    embed_images,
    load_model,
    prepared_images,
)
from astromorph.artefacts.model_file import save_model
from astromorph.byol.build import build_byol, make_model_file
from astromorph.settings.loading import parse
from astromorph.settings.sections import AugmentationSettings
from astromorph.settings.steps import train_step_settings
from astromorph.sky.simulate import simulate

logging.basicConfig(level=logging.INFO, format="%(message)s")
datafile = simulate("fits", number=24, seed=0)  # or the name of your own list

# 1. A network that the settings describe, trained with your own components: here the
# augmentation does not rotate. `build_byol` adds projector and predictor.
values = {"datafile": str(datafile), "network_name": "amm"}
settings = parse(values, "settings")
images = prepared_images(datafile, settings)
torch.manual_seed(0)
training = train_step_settings(settings)
byol = build_byol(training, in_channels=1)
strengths = AugmentationSettings(rotation=False)
trainer = ByolTrainer(byol, augmentation_function=SkyAugmentation(strengths))
trainer.train_model(images, epochs=2, batch_size=8)
save_model(
    "mine.pt",
    make_model_file(byol, training, 1, images.tensor_settings, images.image_ids),
)

# 2. The workflow and the command line read this file and write tables and map: here
# into a folder of their own, so that the results of a run are not replaced.
Path("settings.json").write_text(json.dumps(values))
command = [sys.executable, "-m", "astromorph", "infer", "-c", "settings.json"]
options = ["-n", "mine.pt", "--results", "results_of_mine"]
subprocess.run([*command, *options], check=True)

# 3. In the other direction, any model file becomes a torch module. Its input must be
# prepared like the training images.
byol, model = load_model("mine.pt")  # or results/model/model.pt of a run
preparation = json.loads(model.tensor_settings) | {
    "data_settings": model.settings["data_settings"]  # stacksize
}
again = prepared_images(datafile, preparation)
vectors = embed_images(byol, again)  # averages over the 8 flips and rotations
network: torch.nn.Module = byol.encoder  # (N, C, H, W) to (N, D), one pass
with open("results_of_mine/export/embeddings.csv", newline="") as file:
    rows = list(csv.DictReader(file))
columns = [name for name in rows[0] if name.startswith("emb_")]
table_vectors = np.array([[float(row[name]) for name in columns] for row in rows])
difference = np.abs(vectors - table_vectors).max()
print("largest difference from the command line", f"{difference:.0e}")

# 4. A network that the settings cannot describe, which the workflow cannot use. Save
# its weights, and embed a folder in Python.
own = NLayerResnet(in_channels=1, last_layer="layer1")
own.avgpool = torch.nn.AdaptiveMaxPool2d(1)
trainer = ByolTrainer(own, representation_size=16)
trainer.train_model(images, epochs=1, batch_size=8)
torch.save(trainer.byol.state_dict(), "own.pt")

folder = prepared_images(sorted(Path("fits").glob("*.fits")))
vectors = embed_images(trainer, folder)
with open("own.csv", "w", newline="") as file:
    table = csv.writer(file)
    table.writerow(["path", *(f"emb_{k}" for k in range(vectors.shape[1]))])
    for path, vector in zip(folder.paths, vectors, strict=True):
        table.writerow([path, *map(str, vector)])
print("own.csv has", len(vectors), "rows")
