"""Cells of a notebook: train, embed, and search for similar images."""

# %% The images, as the workflow prepares them
import logging

from sklearn.neighbors import NearestNeighbors

from astromorph import ByolTrainer, NLayerResnet, embed_images, prepared_images
from astromorph.sky.simulate import simulate

logging.basicConfig(level=logging.INFO, format="%(message)s")
datafile = simulate("fits", number=30, seed=0)  # or the name of your own file list
images = prepared_images(datafile)  # images.images: (N, 1, 64, 64), from 0 to 1

# %% Training; each epoch logs a line
trainer = ByolTrainer(NLayerResnet(in_channels=1, last_layer="layer1"))
history = trainer.train_model(images, epochs=2, batch_size=10)

# %% The images most similar to the first one
embeddings = embed_images(trainer, images)
search = NearestNeighbors(n_neighbors=4, metric="cosine").fit(embeddings)
distances, rows = search.kneighbors(embeddings[:1])
for distance, row in zip(distances[0], rows[0], strict=True):
    print(f"{distance:.4f}  {images.paths[row]}  {images.column('label')[row]}")
