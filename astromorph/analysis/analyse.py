"""The step `analyse`: clusters, map, neighbours, near-duplicates and outliers."""

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from astromorph.analysis import clusters, neighbours
from astromorph.analysis.layout_2d import FEWEST, layout_2d
from astromorph.analysis.space import fit_space
from astromorph.artefacts import tables as artefacts
from astromorph.artefacts.analysis_table import (
    ODD,
    ORDINARY,
    REPRESENTATIVE,
    Analysis,
    write_analysis,
)
from astromorph.atomic import atomic_write
from astromorph.errors import AstromorphError
from astromorph.pages.html import write_page
from astromorph.provenance import versions
from astromorph.settings.sections import AnalysisSettings, Settings
from astromorph.settings.steps import part_of

Vectors = NDArray[np.float32]

LOG = logging.getLogger(__name__)
KMEANS, HDBSCAN = "kmeans", "hdbscan"
ROWS_AT_A_TIME = 4096
SHOWN = 20  # outliers and near-duplicates on the page
PACKAGES = ("scikit-learn", "umap-learn", "pynndescent", "scipy")


@dataclass(frozen=True, slots=True)
class Embedded:
    """The images that are analysed.

    Attributes
    ----------
    image_ids, paths : tuple of str
        N of each, in the order of the list.
    vectors : ndarray, shape (N, D), float32
        Their embeddings.
    """

    image_ids: tuple[str, ...]
    paths: tuple[str, ...]
    vectors: Vectors


def analyse(
    settings: Settings,
    catalogue: str | Path,
    split: str | Path,
    embeddings: Sequence[str | Path],
    output: str | Path,
    summary: str | Path,
    page: str | Path,
    threads: int = 0,
) -> None:
    """Find out what lies together and what lies apart.

    Parameters
    ----------
    settings : Settings
        `seed` and `analysis_settings` are used.
    catalogue, split : path
        What `validate` and `split` wrote.
    embeddings : sequence of path
        All shards, in the order of the list.
    output : path
        Parquet to write: what `analysis_table.Analysis` holds.
    summary : path
        JSON to write: how it was found and how far to trust it.
    page : path
        HTML to write: the same to look at.
    threads : int
        Cores that look for neighbours; 0 for all. All else takes one, so that the
        result does not depend on their number.

    Raises
    ------
    AstromorphError
        The files do not belong together, or no image is left.
    """
    from threadpoolctl import threadpool_limits

    embedded = read_embedded(catalogue, split, embeddings)
    with threadpool_limits(1):
        analysis, result = analyse_embeddings(embedded, settings, threads)
    result["settings"] = part_of(settings, "analyse")
    result["versions"] = versions() | {name: version(name) for name in PACKAGES}
    write_analysis(output, analysis)
    with atomic_write(summary) as temporary:
        temporary.write_text(json.dumps(result, indent=1), encoding="utf-8")
    paths = dict(zip(embedded.image_ids, embedded.paths, strict=True))
    write_page(page, "analysis.html", result=result, paths=paths)
    _say(result)


def read_embedded(
    catalogue: str | Path, split: str | Path, embeddings: Sequence[str | Path]
) -> Embedded:
    """Read all embeddings that the split kept.

    Raises
    ------
    AstromorphError
        There is none, or the files do not belong together.
    """
    image_ids, paths = [], []
    parts: list[Vectors] = []
    waiting: list[Vectors] = []  # views that keep their whole shard in memory
    for row, vector in artefacts.rows_with_embeddings(catalogue, split, embeddings):
        image_ids.append(row["image_id"])
        paths.append(row["path"])
        waiting.append(vector)
        if len(waiting) == ROWS_AT_A_TIME:
            parts.append(np.array(waiting, np.float32))
            waiting.clear()
    if not image_ids:
        raise AstromorphError(
            f"{split}: no image is left that has an embedding; correct the list, then "
            "run again from `validate`"
        )
    if waiting:
        parts.append(np.array(waiting, np.float32))
    return Embedded(tuple(image_ids), tuple(paths), np.concatenate(parts))


def analyse_embeddings(
    embedded: Embedded, settings: Settings, threads: int = 0
) -> tuple[Analysis, dict[str, Any]]:
    """What `analyse` finds, and how.

    Parameters
    ----------
    embedded : Embedded
        At least one image.
    settings : Settings
        `seed` and `analysis_settings` are used.
    threads : int
        Cores that look for neighbours; 0 for all.

    Returns
    -------
    analysis : Analysis
    result : dict
        Plain values: what `results/analysis.json` says.
    """
    rules, seed = settings.analysis_settings, settings.seed
    space = fit_space(embedded.vectors, rules.whiten, rules.components)
    points = space.place(embedded.vectors)
    components = space.components(embedded.vectors)
    plane = np.zeros((len(points), 2), np.float32)
    plane[:, : components.shape[1]] = components[:, :2]
    LOG.info("%d images in %d components", *points.shape)
    indices, distances = neighbours.nearest_neighbours(
        points, rules.neighbours, seed, threads
    )
    near = neighbours.near_duplicates(indices, distances)
    scores, ranks = neighbours.outlier_scores(components, indices)
    places = plane
    if rules.map == "umap":
        places = layout_2d(points, plane, rules, seed, threads)
    labels, found = _clustered(points, rules, seed)
    chosen = labels[rules.cluster_by]
    middle, odd = clusters.member_roles(points, chosen)
    ids = embedded.image_ids
    analysis = Analysis(
        image_ids=ids,
        cluster=chosen,
        kmeans=labels[KMEANS],
        hdbscan=labels[HDBSCAN],
        map=places,
        pca=plane,
        outlier_score=scores,
        outlier_rank=ranks,
        roles=_roles(len(ids), middle, odd),
        neighbours=tuple(tuple(ids[k] for k in row) for row in indices.tolist()),
        distances=distances,
        duplicates=tuple(tuple(ids[k] for k in row) for row in near),
    )
    for name, method in found["methods"].items():
        _name_members(method["clusters"], points, labels[name], ids)
    return analysis, {
        "images": len(ids),
        "length": embedded.vectors.shape[1],
        "components": points.shape[1],
        "distance": "cosine" if space.angular else "Euclidean",
        "explained_variance": [round(float(x), 6) for x in space.explained],
        **found,
        **_pairs(ids, near, indices, distances),
        "intrinsic_dimension": neighbours.intrinsic_dimension(distances)
        if distances.shape[1] > 1
        else None,
        "exact_neighbours": len(ids) <= neighbours.EXACT_UP_TO,
        "map": _map_said(rules, len(ids)),
        "outliers": [
            {"image_id": ids[k], "score": float(scores[k])}
            for k in np.argsort(ranks)[:SHOWN].tolist()
        ],
    }


def smallest_cluster(rules: AnalysisSettings, number: int) -> int:
    """How many images HDBSCAN calls a cluster."""
    return rules.min_cluster_size or int(np.clip(number // 100, 5, 100))


def _name_members(
    found: Sequence[dict[str, Any]],
    points: Vectors,
    labels: NDArray[np.int32],
    ids: Sequence[str],
) -> None:
    """Note of each cluster its representative and its odd member."""
    middle, odd = clusters.member_roles(points, labels)
    for k, cluster in enumerate(found):
        cluster["representative"] = ids[middle[k]]
        cluster["odd"] = ids[odd[k]] if k in odd else None


def _clustered(
    points: Vectors, rules: AnalysisSettings, seed: int
) -> tuple[dict[str, NDArray[np.int32]], dict[str, Any]]:
    """Labels by method, and what is known of them."""
    by_number: dict[int, float] = {}
    number = rules.clusters
    if number is None:
        by_number = clusters.choose_number(points, rules.max_clusters, seed)
        number = max(by_number, key=lambda k: by_number[k]) if by_number else 1
    smallest = smallest_cluster(rules, len(points))
    share = smallest / len(points)
    labels = {
        KMEANS: clusters.kmeans(points, number, seed),
        HDBSCAN: clusters.hdbscan(points, smallest, seed),
    }

    def again(part: Vectors) -> NDArray[np.int32]:
        return clusters.kmeans(part, number, seed)

    def crowds_again(part: Vectors) -> NDArray[np.int32]:
        return clusters.hdbscan(part, max(2, round(share * len(part))), seed)

    refits = {KMEANS: again, HDBSCAN: crowds_again}
    methods = {
        name: _said(
            labels[name], clusters.measure_trust(points, labels[name], refit, seed)
        )
        for name, refit in refits.items()
    }
    return labels, {
        "cluster_by": rules.cluster_by,
        "clusters_chosen_by": "setting" if rules.clusters else "mean silhouette",
        "silhouette_by_clusters": {str(k): v for k, v in by_number.items()},
        "min_cluster_size": smallest,
        "methods": methods,
    }


def _said(labels: NDArray[np.int32], trust: clusters.Trust) -> dict[str, Any]:
    each = zip(trust.silhouettes, trust.stabilities, strict=True)
    return {
        "number": int(labels.max()) + 1,
        "in_none": int(np.count_nonzero(labels < 0)),
        "silhouette": trust.silhouette,
        "stability": trust.stability,
        "clusters": [
            {
                "size": int(np.count_nonzero(labels == k)),
                "silhouette": silhouette,
                "stability": stability,
            }
            for k, (silhouette, stability) in enumerate(each)
        ],
    }


def _roles(number: int, middle: dict[int, int], odd: dict[int, int]) -> tuple[str, ...]:
    found = [ORDINARY] * number
    for k in odd.values():
        found[k] = ODD
    for k in middle.values():
        found[k] = REPRESENTATIVE
    return tuple(found)


def _pairs(
    ids: Sequence[str],
    near: Sequence[Sequence[int]],
    indices: NDArray[np.int64],
    distances: Vectors,
) -> dict[str, Any]:
    """How many near-duplicates there are, and the closest pairs."""
    known = {
        (k, int(other)): float(distance)
        for k, some in enumerate(near)
        if some
        for other, distance in zip(indices[k], distances[k], strict=True)
    }
    pairs = [
        (known.get((k, other), known.get((other, k), 0.0)), k, other)
        for k, some in enumerate(near)
        for other in some
        if k < other
    ]
    return {
        "near_duplicates": sum(bool(some) for some in near),
        "near_duplicate_pairs": len(pairs),
        "closest_pairs": [
            {"image_ids": [ids[k], ids[other]], "distance": distance}
            for distance, k, other in sorted(pairs)[:SHOWN]
        ],
    }


def _map_said(rules: AnalysisSettings, number: int) -> dict[str, Any]:
    if rules.map == "pca" or number < FEWEST:
        return {"by": "pca"}
    return {"by": "umap", "laid_out": min(number, rules.map_sample)}


def _say(result: dict[str, Any]) -> None:
    for name, method in result["methods"].items():
        silhouette, stability = method["silhouette"], method["stability"]
        LOG.info(
            "%s: %d clusters, %d images in none, silhouette %s, stability %s",
            name, method["number"], method["in_none"],
            "-" if silhouette is None else f"{silhouette:.3f}",
            "-" if stability is None else f"{stability:.3f}",
        )  # fmt: skip
    LOG.info(
        "%d images have a near-duplicate; the oddest is %s",
        result["near_duplicates"], result["outliers"][0]["image_id"],
    )  # fmt: skip
