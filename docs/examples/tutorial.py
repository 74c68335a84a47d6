"""From the results of a run to a finding: the oddest image.

    python docs/examples/tutorial.py results

Without a folder it simulates images in this one and embeds them first.
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
    # What `snakemake` did for you, with the command line, and quickly.
    settings = {
        "datafile": str(simulate("fits", number=60, seed=0)),
        "network_name": "amm",
        "epochs": 2,
        "training_settings": {"simulated_images": 60},
    }
    Path("settings.json").write_text(json.dumps(settings))
    for step in ("train", "infer"):
        command = [sys.executable, "-m", "astromorph", step, "-c", "settings.json"]
        subprocess.run(command, check=True)

# Is the embedding worth looking at?
verdict = json.loads((results / "evaluation.json").read_text())["verdict"]
print("The embedding is", verdict["sentence"])

# The table: facts, the list's own columns, and the embedding.
with open(results / "export/embeddings.csv", newline="") as file:
    rows = list(csv.DictReader(file))
columns = [name for name in rows[0] if name.startswith("emb_")]
vectors = np.array([[float(row[name]) for name in columns] for row in rows])

# The finding: the oddest image, the one farthest from its tenth neighbour.
white = whiten(vectors)
white /= np.linalg.norm(white, axis=1, keepdims=True)
distances = np.sort(1 - white @ white.T, axis=1)[:, min(10, len(rows) - 1)]
odd = int(distances.argmax())
print("The oddest image is", rows[odd]["path"])
if "label" in rows[odd]:
    print(f'It is listed with the label "{rows[odd]["label"]}".')
near = np.argsort(-(white @ white[odd]))[1:4]
print("It is still most like", [rows[k]["path"] for k in near])
