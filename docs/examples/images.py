"""Load images in Python: prepared as in the workflow, or unchanged from the files."""

import logging
import sys

from astromorph import FitsFilelistDataset, MinMaxNorm, prepared_images
from astromorph.sky.simulate import simulate

logging.basicConfig(level=logging.INFO, format="%(message)s")

# The name of a file list, or simulated images.
datafile = sys.argv[1] if len(sys.argv) > 1 else simulate("fits", number=24, seed=0)

# As in the workflow: 64 by 64 pixels, stretched from the noise on, without bad files.
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

# Without resizing: a list of images.
native = prepared_images(datafile, {"preprocess_settings": {"size": "native"}})
print("native", [tuple(image.shape) for image in native.images[:3]])

# Unchanged: in the unit and size of the file, read on access.
dataset = FitsFilelistDataset(datafile)
pixels = dataset[0][0]  # the first of four copies
print("unchanged", tuple(pixels.shape), f"{pixels.min():.1e} to {pixels.max():.1e}")

# Brightness of the median pixel relative to the brightest: noise and faint structure.
norm = MinMaxNorm()
linear = [float(norm(copies[0]).median()) for copies in dataset]
stretched = [float(image.median()) for image in prepared.images]
for name, values in (("linear", linear), ("prepared", stretched)):
    print(f"median pixel, {name}: {min(values):.2f} to {max(values):.2f}")
