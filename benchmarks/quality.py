"""Embedding quality: complete runs with several seeds, in one table.

    python benchmarks/quality.py radio --images FOLDER     # radio galaxies with labels
    python benchmarks/quality.py alma --images FOLDER      # ALMA disks with labels
    python benchmarks/quality.py kinds --weights FILE      # morphologies left out
    python benchmarks/quality.py sky --number 1000         # the simulated sky

Each run consists of `astromorph train` and `astromorph infer`. The numbers are those in
`evaluation.json`: balanced accuracy in five grouped folds, and the paired difference of
the trained network from the start weights and from the untrained network, in the mean
of the three measures, with a 95 % interval. `--recipe` selects recipes of `RECIPES`.

Every choice is made on practice sets (`--label practice`): the uncertain radio
galaxies, the ALMA disks of half of the objects, and the morphologies that
`benchmarks/train_sky.py --leave-out` did not draw. Published numbers are for the
confident radio galaxies, and the disks of the other objects (`--label label`) or all of
them (`--label all`).

`--splits` adds the accuracy of a linear probe in random splits, to compare it with
published values. In the split of MiraBest (Porter & Scaife 2023), 104 of the confident
images are test images, the default of `--test-images`; `labels.csv` does not say which.
If several images show one object, some may be on both sides of a split.
"""

import argparse
import csv
import hashlib
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
from sklearn.model_selection import StratifiedShuffleSplit, cross_val_score
from train_sky import LEFT_OUT

from astromorph.embedding.metrics import linear_probe
from astromorph.sky.simulate import simulate

Settings = dict[str, Any]
RECIPES: dict[str, Settings] = {
    "default": {},
    "simulated images": {"training_settings": {"simulated_images": 12_000}},
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
    "trained weights alone": {"training_settings": {"start_share": 0}},
    "start weights alone": {"training_settings": {"start_share": 1}},
}  # fmt: skip
NETWORKS = ("trained", "sky", "start", "untrained", "pixels")
MEASURES = ("knn", "knn_whitened", "linear")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", choices=["radio", "alma", "kinds", "sky"])
    parser.add_argument(
        "--images", type=Path, help="for radio and alma: folder with labels.csv"
    )
    parser.add_argument(
        "--number", type=int, default=1000, help="for kinds and sky: number of images"
    )
    parser.add_argument(
        "--weights", help="start weights, such as those without the kinds left out"
    )
    parser.add_argument("--recipe", nargs="+", default=["default"], choices=[*RECIPES])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--label", nargs="+", default=["label"])
    parser.add_argument("--settings", default="{}", help="further settings, as JSON")
    parser.add_argument("--splits", type=int, default=0, help="number of random splits")
    parser.add_argument(
        "--test-images", type=int, default=104, help="in each of them (%(default)s)"
    )
    parser.add_argument("--output", type=Path, default=Path("quality"))
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    datafile = file_list(options)
    print("| recipe | network | kNN | kNN whitened | linear | trained minus it "
          "| effective rank | minutes of training |\n|---|---|---|---|---|---|---|---|"
          )  # fmt: skip
    for recipe in options.recipe:
        settings = RECIPES[recipe] | json.loads(options.settings)
        if options.weights:
            network = settings.get("network_settings", {})
            weights = str(Path(options.weights).resolve())
            settings["network_settings"] = {"weights": weights} | network
        if options.data == "kinds":
            # As by default with the weights of the package. The labels of simulated
            # images would show the kinds that are left out.
            training = settings.get("training_settings", {})
            settings["training_settings"] = {"simulated_images": 0} | training
        runs = [
            run_recipe(options, datafile, recipe, settings, seed)
            for seed in options.seeds
        ]
        for label in options.label:
            title = recipe if len(options.label) == 1 else f"{recipe} ({label})"
            for name in NETWORKS:
                if name in runs[0][label]["networks"]:
                    found = [run[label] for run in runs]
                    print(table_row(title, name, found), flush=True)
            if options.splits:
                accuracies = []
                for seed in options.seeds:
                    results = results_folder(options, recipe, seed)
                    accuracies += accuracies_of_splits(
                        results, label, options.splits, options.test_images
                    )
                print(
                    f"{title}, {options.splits} splits with {options.test_images} test "
                    f"images: accuracy {statistics.mean(accuracies):.3f} ± "
                    f"{statistics.pstdev(accuracies):.3f}",
                    flush=True,
                )


def run_recipe(
    options: argparse.Namespace,
    datafile: Path,
    recipe: str,
    settings: Settings,
    seed: int,
) -> dict[str, Any]:
    """Train once; return the evaluation for each column of labels."""
    results = results_folder(options, recipe, seed)
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


def results_folder(options: argparse.Namespace, recipe: str, seed: int) -> Path:
    """The folder of a run."""
    words = f"{options.data} {recipe} {seed}".replace(",", "")
    return Path(options.output, words.replace(" ", "_"))


def accuracies_of_splits(
    results: Path, label: str, splits: int, test_images: int
) -> list[float]:
    """Accuracy of the linear probe of the evaluation in stratified random splits.

    Parameters
    ----------
    results : path
        Results of a run.
    label : str
        Column of the classes; images without one are left out.
    splits : int
        Number of splits.
    test_images : int
        Number of test images in each; the probe is fitted to all others.
    """
    table = pd.read_csv(results / "export" / "embeddings.csv", dtype={label: str})
    table = table[table[label].notna()]
    drawn = StratifiedShuffleSplit(splits, test_size=test_images, random_state=0)
    vectors = table.filter(regex=r"^emb_\d+$").to_numpy()
    scores = cross_val_score(linear_probe(), vectors, table[label], cv=drawn)
    return list(map(float, scores))


def table_row(recipe: str, name: str, found: list[dict[str, Any]]) -> str:
    """A table row with means and standard deviations over the seeds."""
    networks = [one["networks"][name] for one in found]
    cells = []
    for measure in MEASURES:
        values = [network[measure]["mean"] for network in networks]
        cells.append(f"{statistics.mean(values):.3f} ± {statistics.pstdev(values):.3f}")
    differences = [one["verdict"]["differences"].get(name) for one in found]
    if differences[0]:
        mean, low, high = (
            statistics.mean(d[key] for d in differences)
            for key in ("mean", "low", "high")
        )
        cells.append(f"{mean:+.3f} ({low:+.3f} to {high:+.3f})")
    else:
        cells.append("")
    cells.append(f"{statistics.mean(n['effective_rank'] for n in networks):.1f}")
    minutes = statistics.mean(one["minutes"] for one in found)
    cells.append(f"{minutes:.1f}" if name == "trained" else "")
    return f"| {recipe} | {name} | {' | '.join(cells)} |"


def file_list(options: argparse.Namespace) -> Path:
    """Write the list of the images."""
    output, number = options.output, options.number
    if options.data == "radio":
        return radio_list(options.images, output / "radio.csv")
    if options.data == "alma":
        return alma_list(options.images, output / "alma.csv")
    if options.data == "kinds":
        return simulate(output / f"kinds{number}", number, 78, LEFT_OUT)
    return simulate(output / f"sky{number}", number, seed=77)


def alma_list(images: Path, output: Path) -> Path:
    """Write a list with the columns `all`, `practice`, `label` and `object`.

    `practice` is the label of the disks of half of the objects, and `label` that of
    the disks of the other half.
    """
    with open(images / "labels.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    with open(output, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "all", "practice", "label", "object"])
        for row in rows:
            label, name = row["label"], row["object"]
            practises = hashlib.sha256(name.encode()).digest()[0] % 2 == 0
            halves = (label, "") if practises else ("", label)
            path = (images / row["filename"]).resolve()
            writer.writerow([path, label, *halves, name])
    return output


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
