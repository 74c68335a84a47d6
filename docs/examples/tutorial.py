"""Find the most unusual image in the results of a run.

    python docs/examples/tutorial.py results

Without an argument, it first simulates and embeds images in the working directory.
"""

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd

from astromorph.sky.simulate import simulate

results = Path(sys.argv[1] if len(sys.argv) > 1 else "simulated_results")
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
        subprocess.run([*command, "--results", str(results)], check=True)

# Is the embedding good enough?
verdict = json.loads((results / "evaluation.json").read_text())["verdict"]
print("The embedding is", verdict["sentence"])

# The table: metadata, the columns of the list, results of the analysis, the embedding.
table = pd.read_csv(results / "export/embeddings.csv", dtype={"image_id": "str"})
table = table.set_index("image_id")

# The most unusual image has the outlier rank 1, here as on the home page and the map.
odd = table[table["outlier_rank"] == 1].iloc[0]
print("The most unusual image is", odd["path"])
if "label" in table:
    print(f'Its label in the list is "{odd["label"]}".')
nearest = odd["neighbour_ids"].split()[:3]
print("The images most similar to it are", table.loc[nearest, "path"].tolist())
