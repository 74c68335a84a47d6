"""Find the most unusual image in the results of a run.

    python docs/examples/tutorial.py results

Without an argument, it first simulates and embeds images in the working directory.
"""

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np

from astromorph.embedding.metrics import whiten
from astromorph.sky.simulate import simulate

results = Path(sys.argv[1] if len(sys.argv) > 1 else "results")
if len(sys.argv) == 1:
    # Like `snakemake`, but with the command line and a short training.
    settings = {
        "datafile": str(simulate("fits", number=30, seed=0)),
        "network_name": "amm",
        "epochs": 2,
        "training_settings": {"simulated_images": 30},
    }
    Path("settings.json").write_text(json.dumps(settings))
    for step in ("train", "infer"):
        command = [sys.executable, "-m", "astromorph", step, "-c", "settings.json"]
        subprocess.run(command, check=True)

# Is the embedding good enough?
verdict = json.loads((results / "evaluation.json").read_text())["verdict"]
print("The embedding is", verdict["sentence"])

# The table: metadata, the columns of the list, and the embedding.
with open(results / "export/embeddings.csv", newline="") as file:
    rows = list(csv.DictReader(file))
columns = [name for name in rows[0] if name.startswith("emb_")]
vectors = np.array([[float(row[name]) for name in columns] for row in rows])

# The most unusual image is the one farthest from its tenth neighbour.
white = whiten(vectors)
white /= np.linalg.norm(white, axis=1, keepdims=True)
distances = np.sort(1 - white @ white.T, axis=1)[:, min(10, len(rows) - 1)]
odd = int(distances.argmax())
print("The most unusual image is", rows[odd]["path"])
if "label" in rows[odd]:
    print(f'Its label in the list is "{rows[odd]["label"]}".')
nearest = np.argsort(-(white @ white[odd]))[1:4]
print("The images most similar to it are", [rows[k]["path"] for k in nearest])
