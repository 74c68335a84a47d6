"""Cells of a notebook: train, embed, and look for what is like an image."""

# %% The images, as the workflow prepares them
import numpy as np
import torch
from sklearn.neighbors import NearestNeighbors

from astromorph import ByolTrainer, NLayerResnet, Settings
from astromorph.filelist import read_filelist
from astromorph.fits_image import read
from astromorph.preprocess import prepare
from astromorph.simulate import simulate

datafile = simulate("fits", number=30, seed=0)  # or the name of your own file list
settings = Settings()
entries = list(read_filelist(datafile))
pixels = [read(entry.paths, settings.data_settings)[1] for entry in entries]
prepared = [prepare(image, settings.preprocess_settings).pixels for image in pixels]
images = torch.from_numpy(np.stack(prepared)).float()  # (N, 1, 64, 64), from 0 to 1

# %% Training; the log says how far it is
trainer = ByolTrainer(NLayerResnet(in_channels=1, last_layer="layer1"))
trainer.train_model(images, epochs=2, batch_size=10)

# %% Which images are like the first one?
embeddings = trainer(images).numpy()
search = NearestNeighbors(n_neighbors=4, metric="cosine").fit(embeddings)
distances, rows = search.kneighbors(embeddings[:1])
for distance, row in zip(distances[0], rows[0], strict=True):
    print(f"{distance:.4f}  {entries[row].path}  {entries[row].columns.get('label')}")
