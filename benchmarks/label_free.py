"""Measures without labels: whether they rank embeddings as labels do.

    python benchmarks/label_free.py RESULTS... --weights FILE...

RESULTS are the results of finished runs with labels, such as those of
`benchmarks/quality.py`; each FILE has weights of the network of these runs, a model or
a `state_dict`. The networks that embed the images of each run are the trained one, its
start weights, these with noise, networks with random weights, the files, and the
principal components of the pixels. They are ranked by their score with labels, the mean
of the three balanced accuracies, and by each measure without labels. The table shows
Spearman's rank correlation of both: 1 if a measure ranks networks as the labels do, 0
if it knows nothing about them. The measures are those of `evaluation.html` and two
others: LiDAR (Thilak et al. 2023) and the intrinsic dimension (Levina & Bickel 2005).
"""

import argparse
import json
import statistics
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import spearmanr
from sklearn.neighbors import NearestNeighbors
from torch import nn

from astromorph.artefacts.run_files import RunFiles
from astromorph.byol.build import load_model, seeded_byol, training_settings_of
from astromorph.byol.byol import BYOL
from astromorph.byol.collapse import rank_me, spread, unit_vectors
from astromorph.byol.start_weights import load_start_weights
from astromorph.embedding import metrics
from astromorph.embedding.evaluate import (
    MAX_PERTURBED,
    draw_sample,
    make_embedders,
    network_embedder,
    read_images,
    score_classes,
)
from astromorph.settings.loading import parse
from astromorph.settings.presets import RANDOM, start_weights_source
from astromorph.settings.steps import TrainStepSettings

Vectors = NDArray[np.floating[Any]]
MEASURED = ("knn", "knn_whitened", "linear")
NOISE = (0.1, 0.2, 0.3, 0.5)  # relative to the standard deviation of each tensor
RANDOM_SEEDS = (1, 2)
NEIGHBOURS = 20  # of an image, for the intrinsic dimension
RIDGE = 1e-4  # added to the covariance within images, relative to its mean variance


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("results", nargs="+", type=Path, help="results with labels")
    parser.add_argument("--weights", nargs="*", default=[], type=Path)
    parser.add_argument(
        "--label", nargs="+", default=["label"],
        help="column with classes, one for all results or one for each",
    )  # fmt: skip
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--json", type=Path, help="file for all values")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    labels = options.label
    if len(labels) == 1:
        labels = labels * len(options.results)
    if len(labels) != len(options.results):
        parser.error(
            f"--label: found {len(labels)} columns for {len(options.results)} results; "
            "name one for all or one for each"
        )
    values: dict[str, dict[str, dict[str, float]]] = {}
    for results, label in zip(options.results, labels, strict=True):
        title = f"{results} ({label})"
        values[title] = {}
        for name, measures in measured_networks(results, options.weights, label):
            values[title][name] = measures
            cells = " ".join(f"{key} {value:.3f}" for key, value in measures.items())
            print(f"{title}: {name}: {cells}", flush=True)
        if options.json:
            options.json.write_text(json.dumps(values, indent=1))
    print_table(values)


def measured_networks(
    results: Path, files: list[Path], label: str
) -> Iterator[tuple[str, dict[str, float]]]:
    """Each network of a run, with its score and the measures without labels."""
    paths = RunFiles.of_run(results, len(list((results / "tensors").glob("*.pt"))))
    settings = parse({"evaluation_settings": {"label": label}}, "label_free.py")
    inference = settings.inference_settings
    byol, model = load_model(paths.model)
    sample = draw_sample(paths, settings.evaluation_settings)
    if len({image.label for image in sample if image.label}) < 2:
        raise SystemExit(
            f"{paths.catalogue}: the column `{label}` has no two classes; name another "
            "one with --label"
        )
    trained_with = training_settings_of(model)
    images, facts = read_images(paths.all_tensors, sample, trained_with.stacksize)
    subset = images.subset(range(min(len(images), MAX_PERTURBED)))
    noise = facts["stretched_noise"][: len(subset)].float()
    embedders = make_embedders(byol, model, images, inference)
    for name, network in networks(trained_with, model.in_channels, files):
        embedders[name] = network_embedder(network, inference)
    for name, embedder in embedders.items():
        vectors = embedder(images, None)
        scores, _ = score_classes(vectors, sample)
        measures = {
            "score": statistics.mean(scores[key]["mean"] for key in MEASURED),
            "effective rank (RankMe)": rank_me(vectors),
            "uniformity": -metrics.uniformity(vectors),
            "intrinsic dimension": intrinsic_dimension(vectors),
        }
        perturbed = {
            kind: embedder(subset, perturbation)
            for kind, perturbation in metrics.make_perturbations(noise).items()
        }
        originals = vectors[: len(subset)]
        yield name, measures | compare_views(originals, perturbed, spread(vectors))


def networks(
    settings: TrainStepSettings, in_channels: int, files: list[Path]
) -> Iterator[tuple[str, BYOL]]:
    """Networks of the same kind as that of a run, with other weights."""

    def started(**changes: object) -> BYOL:
        network = settings.network_settings.model_copy(update=changes)
        chosen = replace(settings, network_settings=network)
        byol = seeded_byol(chosen, in_channels)
        load_start_weights(byol, chosen)
        return byol.eval()

    for file in files:
        yield str(file), started(weights=str(file))
    for seed in RANDOM_SEEDS:
        chosen = replace(settings, seed=settings.seed + seed)
        yield f"random {seed}", seeded_byol(chosen, in_channels).eval()
    if start_weights_source(settings) != RANDOM:
        for share in NOISE:
            byol = started()
            add_noise(byol, share)
            yield f"start with noise {share}", byol


def add_noise(network: nn.Module, share: float) -> None:
    """Add Gaussian noise to all weights; batch norm is kept."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weights in network.parameters():
            if weights.ndim > 1:
                noise = torch.randn(weights.shape, generator=generator)
                weights.add_(share * weights.std() * noise)


def compare_views(
    originals: Vectors, perturbed: dict[str, Vectors], standard_deviation: float
) -> dict[str, float]:
    """How close embeddings of perturbed images are to those of the originals.

    Parameters
    ----------
    originals : ndarray, shape (N, D)
        Embeddings of the images.
    perturbed : dict of str to ndarray, shape (N, D)
        Embeddings of the perturbed images, by perturbation.
    standard_deviation : float
        The measure `spread` of the embeddings.
    """
    measures: dict[str, float] = {}
    for which, names in (("all", perturbed), ("geometric", metrics.GEOMETRIC)):
        views = [perturbed[name] for name in names]
        measures |= {
            f"retrieval, {which}": statistics.mean(
                metrics.retrieval(view, originals) for view in views
            ),
            f"alignment, {which}": -statistics.mean(
                metrics.alignment(view, originals) for view in views
            ),
        }
    # Close views of an image are worth nothing if all images are close (Wang & Isola
    # 2020): the distance of views relative to that of images.
    distance = max(standard_deviation, 1e-9) ** 2
    measures["alignment over spread"] = measures["alignment, all"] / distance
    return measures | {
        "LiDAR": lidar(np.stack([originals, *perturbed.values()], axis=1))
    }


def lidar(views: Vectors) -> float:
    """The effective rank of the variance between images relative to that within.

    LiDAR of Thilak et al. (2023).

    Parameters
    ----------
    views : ndarray, shape (N, V, D)
        Embeddings of V views of N images.
    """
    views = views.astype(np.float64)
    means = views.mean(axis=1)
    residuals = (views - means[:, None]).reshape(-1, views.shape[2])
    within = residuals.T @ residuals / len(residuals)
    within += RIDGE * max(np.trace(within) / len(within), 1e-12) * np.eye(len(within))
    variances, axes = np.linalg.eigh(within)
    scaled = (means - means.mean(axis=0)) @ axes / np.sqrt(variances)
    eigenvalues = np.linalg.svd(scaled, compute_uv=False) ** 2
    share = eigenvalues / eigenvalues.sum() + 1e-12
    return float(np.exp(-(share * np.log(share)).sum()))


def intrinsic_dimension(vectors: Vectors) -> float:
    """The intrinsic dimension from distances to neighbours.

    Levina & Bickel (2005); the inverses of the local dimensions are averaged. Equal
    images, which have no distance, are left out.
    """
    unit = np.unique(unit_vectors(vectors), axis=0)
    number = min(NEIGHBOURS, len(unit) - 1)
    distances = NearestNeighbors(n_neighbors=number).fit(unit).kneighbors()[0]
    distances = distances[distances[:, 0] > 0]
    logarithms = np.log(distances[:, -1:] / distances[:, :-1]).mean(axis=1)
    return float(1 / logarithms.mean())


def print_table(values: dict[str, dict[str, dict[str, float]]]) -> None:
    """Rank correlations by measure and run, the best measure first."""
    correlations: dict[str, list[float]] = {}
    for measured in values.values():
        scores = [measures["score"] for measures in measured.values()]
        for name in next(iter(measured.values())):
            if name != "score":
                of_measure = [measures[name] for measures in measured.values()]
                found = float(spearmanr(of_measure, scores).statistic)
                correlations.setdefault(name, []).append(found)
    numbers = ", ".join(f"{len(measured)}" for measured in values.values())
    print(f"\n{numbers} networks\n")
    print(f"| measure | {' | '.join(values)} | mean |")
    print("|---" * (len(values) + 2) + "|")
    means = {name: statistics.mean(found) for name, found in correlations.items()}
    for name in sorted(means, key=means.__getitem__, reverse=True):
        cells = [f"{value:+.2f}" for value in (*correlations[name], means[name])]
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
