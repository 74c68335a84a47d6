"""Embedding quality: complete runs with several seeds, in one table.

    python benchmarks/quality.py radio --images FOLDER     # radio galaxies with labels
    python benchmarks/quality.py sky --number 1000         # the simulated sky

Each run consists of `astromorph train` and `astromorph infer`. The numbers are those in
`evaluation.json`: balanced accuracy in five grouped folds. `--recipe` selects recipes
of `RECIPES`. `--label practice` evaluates the uncertain radio galaxies, which are used
to choose settings; published numbers are for the confident ones.
"""

import argparse
import csv
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from astromorph.sky.simulate import simulate

Settings = dict[str, Any]
RECIPES: dict[str, Settings] = {
    "default": {},
    "no auxiliary task": {"training_settings": {"auxiliary_weight": 0}},
    "no simulated images": {"training_settings": {"simulated_images": 0}},
    "random start": {"network_settings": {"weights": "random"}},
    "random start, no simulated images": {
        "network_settings": {"weights": "random"},
        "training_settings": {"simulated_images": 0},
    },
    "weak views": {
        "augmentation_settings": {
            "scale": [1, 1], "shift": 0, "gamma": 0, "contrast": 0, "brightness": 0,
            "blur": 0, "noise": 0,
        },
        "network_settings": {"weights": "random"},
        "training_settings": {"simulated_images": 0},
    },
    "amm": {"network_name": "amm"},
    "amm, random start": {
        "network_name": "amm", "network_settings": {"weights": "random"},
    },
    "amm, random start, no simulated images": {
        "network_name": "amm", "network_settings": {"weights": "random"},
        "training_settings": {"simulated_images": 0},
    },
    "one view in inference": {"inference_settings": {"symmetry": "none"}},
}  # fmt: skip
NETWORKS = ("trained", "sky", "untrained", "pixels")
MEASURES = ("knn", "knn_whitened", "linear")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", choices=["radio", "sky"])
    parser.add_argument("--images", type=Path, help="for radio: folder with labels.csv")
    parser.add_argument(
        "--number", type=int, default=1000, help="for sky: number of images"
    )
    parser.add_argument("--recipe", nargs="+", default=["default"], choices=[*RECIPES])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--label", nargs="+", default=["label"])
    parser.add_argument("--settings", default="{}", help="further settings, as JSON")
    parser.add_argument("--output", type=Path, default=Path("quality"))
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    if options.data == "radio":
        datafile = radio_list(options.images, options.output / "radio.csv")
    else:
        datafile = simulate(
            options.output / f"sky{options.number}", options.number, seed=77
        )
    print("| recipe | network | kNN | kNN whitened | linear | effective rank "
          "| minutes of training |\n|---|---|---|---|---|---|---|")  # fmt: skip
    for recipe in options.recipe:
        settings = RECIPES[recipe] | json.loads(options.settings)
        runs = [
            run_recipe(options, datafile, recipe, settings, seed)
            for seed in options.seeds
        ]
        for label in options.label:
            title = recipe if len(options.label) == 1 else f"{recipe} ({label})"
            for name in NETWORKS:
                found = [
                    (r[label]["networks"].get(name), r[label]["minutes"]) for r in runs
                ]
                if found[0][0]:
                    print(table_row(title, name, found), flush=True)


def run_recipe(
    options: argparse.Namespace,
    datafile: Path,
    recipe: str,
    settings: Settings,
    seed: int,
) -> dict[str, Any]:
    """Train once; return the evaluation for each column of labels."""
    words = f"{options.data} {recipe} {seed}".replace(",", "")
    results = options.output / words.replace(" ", "_")
    command = [sys.executable, "-m", "astromorph"]
    arguments = ["-d", str(datafile), "--results", str(results), "--settings"]
    evaluations = {}
    with open(f"{results}.log", "w") as log:
        start = time.perf_counter()
        chosen = settings | {"seed": seed}
        train = [*command, "train", *arguments, json.dumps(chosen)]
        subprocess.run(train, check=True, stderr=log)
        minutes = (time.perf_counter() - start) / 60
        for label in options.label:
            chosen["evaluation_settings"] = {"label": label}
            infer = [*command, "infer", *arguments, json.dumps(chosen)]
            subprocess.run(infer, check=True, stderr=log)
            found = json.loads((results / "evaluation.json").read_text())
            evaluations[label] = found | {"minutes": minutes}
    return evaluations


def table_row(recipe: str, name: str, found: list[tuple[dict[str, Any], float]]) -> str:
    """A table row with means and standard deviations over the seeds."""
    cells = []
    for measure in MEASURES:
        values = [networks[measure]["mean"] for networks, _ in found]
        cells.append(f"{statistics.mean(values):.3f} ± {statistics.pstdev(values):.3f}")
    cells.append(f"{statistics.mean(n['effective_rank'] for n, _ in found):.1f}")
    minutes = statistics.mean(m for _, m in found)
    cells.append(f"{minutes:.1f}" if name == "trained" else "")
    return f"| {recipe} | {name} | {' | '.join(cells)} |"


def radio_list(images: Path, output: Path) -> Path:
    """Write a list with confident FRI and FRII as `label`, all others as `practice`."""
    with open(images / "labels.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    with open(output, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label", "practice"])
        for row in rows:
            known = row["label"] if row["label"] in ("FRI", "FRII") else ""
            sure = row["confidence"] == "confident"
            path = (images / row["filename"]).resolve()
            writer.writerow([path, known if sure else "", "" if sure else known])
    return output


if __name__ == "__main__":
    main()
