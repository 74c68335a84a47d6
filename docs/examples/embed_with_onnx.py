"""Embed FITS images with an exported model, without PyTorch."""

import sys
from pathlib import Path

import numpy as np
import onnxruntime

from astromorph.preprocessing.preparation import read_preparation

folder, *images = map(Path, sys.argv[1:])  # the exported model, and FITS files
preparation = read_preparation(folder / "preprocessing.json")
session = onnxruntime.InferenceSession(folder / "encoder.onnx")
prepared = [preparation.prepare([path]) for path in images]  # (C, H, W) each
vectors = [session.run(None, {"images": image[None]})[0][0] for image in prepared]
np.savetxt("vectors.csv", vectors, delimiter=",")
print(len(vectors), "embeddings of length", len(vectors[0]))
