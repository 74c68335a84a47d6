"""Images in Python: as the workflow prepares them, and as they are in their files."""

import logging
import sys

from astromorph import FitsFilelistDataset, MinMaxNorm, prepared_images
from astromorph.sky.simulate import simulate

logging.basicConfig(level=logging.INFO, format="%(message)s")

# The name of a file list, or simulated images.
datafile = sys.argv[1] if len(sys.argv) > 1 else simulate("fits", number=24, seed=0)

# As the workflow: 64 by 64 pixels, brightness from the noise on, bad files left out.
prepared = prepared_images(datafile)
print("prepared", tuple(prepared.images.shape), "from", len(prepared.entries), "rows")
for row, reason in prepared.reasons.items():
    print("left out:", prepared.entries[row].path, reason)
print("labels", prepared.column("label")[:3])

# With other settings, named as in the configuration; and files without a list.
large = prepared_images(
    prepared.paths[:4],
    {
        "preprocess_settings": {"size": 128, "stretch": "linear"},
        "data_settings": {"stacksize": 3},
    },
)
print("large", tuple(large.images.shape))

# Each in its own size: a list.
native = prepared_images(datafile, {"preprocess_settings": {"size": "native"}})
print("native", [tuple(image.shape) for image in native.images[:3]])

# As they are: unit and size of the file, read when they are asked for.
dataset = FitsFilelistDataset(datafile)
pixels = dataset[0][0]  # the first of four copies
print("as it is", tuple(pixels.shape), f"{pixels.min():.1e} to {pixels.max():.1e}")

# How bright the median pixel is, where the brightest is 1: noise and faint parts.
norm = MinMaxNorm()
linear = [float(norm(copies[0]).median()) for copies in dataset]
stretched = [float(image.median()) for image in prepared.images]
for name, values in (("linear", linear), ("as the workflow", stretched)):
    print(f"median pixel, {name}: {min(values):.2f} to {max(values):.2f}")
