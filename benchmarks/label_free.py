"""Measures without labels: whether they rank embeddings as labels do.

    python benchmarks/label_free.py FOLDER...

Each folder contains finished runs with labels on one list of images, such as the output
of `benchmarks/quality.py` with several recipes and seeds. The networks of all its runs
(trained, start weights, untrained, pixels, references) are ranked by their score with
labels, the mean of the three balanced accuracies, and by each measure without labels.
The table shows Spearman's rank correlation of both: 1 if a measure ranks networks as
the labels do, 0 if it knows nothing about them.
"""

import argparse
import json
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from scipy.stats import spearmanr

from astromorph.embedding.metrics import GEOMETRIC

LABELLED = ("knn", "knn_whitened", "linear")
PLAIN = ("effective_rank", "spread", "uniformity")
LOWER_IS_BETTER = ("uniformity",)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+", type=Path, help="folders with runs")
    options = parser.parse_args()
    columns: dict[str, list[float]] = {}
    for folder in options.folders:
        networks = list(labelled_networks(folder))
        print(f"{folder}: {len(networks)} networks of {len(list(runs(folder)))} runs")
        if len(networks) < 3:
            raise SystemExit(
                f"{folder}: a correlation needs at least 3 networks with labels; "
                "evaluate runs with `evaluation_settings.label`"
            )
        scores = [score for score, _ in networks]
        for name in networks[0][1]:
            values = [measures[name] for _, measures in networks]
            correlation = float(spearmanr(values, scores).statistic)
            columns.setdefault(name, []).append(correlation)
    names = [folder.name for folder in options.folders]
    print(f"\n| measure | {' | '.join(names)} | mean |")
    print("|---" * (len(names) + 2) + "|")
    means = {name: statistics.mean(values) for name, values in columns.items()}
    for name in sorted(means, key=means.__getitem__, reverse=True):
        cells = [f"{value:+.2f}" for value in (*columns[name], means[name])]
        print(f"| {name} | {' | '.join(cells)} |")


def runs(folder: Path) -> Iterator[Path]:
    """The evaluations of all runs in a folder."""
    return folder.rglob("evaluation.json")


def labelled_networks(folder: Path) -> Iterator[tuple[float, dict[str, float]]]:
    """The score with labels and the measures without them of each network."""
    for file in sorted(runs(folder)):
        for network in json.loads(file.read_text())["networks"].values():
            if all(name in network for name in LABELLED):
                score = statistics.mean(network[name]["mean"] for name in LABELLED)
                yield score, measures_without_labels(network)


def measures_without_labels(network: dict[str, Any]) -> dict[str, float]:
    """Measures of which larger values should mean a better embedding."""
    measures = {
        name: -network[name] if name in LOWER_IS_BETTER else network[name]
        for name in PLAIN
    }
    for kind, sign in (("retrieval", 1), ("alignment", -1)):
        values = network[kind]
        measures[f"{kind}, all"] = sign * statistics.mean(values.values())
        measures[f"{kind}, geometric"] = sign * statistics.mean(
            values[name] for name in GEOMETRIC
        )
    # Close views of an image are worth nothing if all images are close (Wang & Isola
    # 2020): the distance of views relative to that of images.
    distance = max(network["spread"], 1e-9) ** 2
    measures["alignment over spread"] = measures["alignment, all"] / distance
    return measures


if __name__ == "__main__":
    main()
