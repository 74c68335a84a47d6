"""The step `analyse`: clusters, layout, neighbours, near-duplicates and outliers."""

import json
import logging
import os
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from astromorph.analysis import neighbours
from astromorph.analysis.clusters import Clustering, Clusterings, find_clusters
from astromorph.analysis.embedded_images import EmbeddedImages, read_embedded_images
from astromorph.analysis.placement import place_among, read_reference_run
from astromorph.analysis.space import MIN_UMAP, Space, fit_space, layout_2d
from astromorph.artefacts.analysis_table import (
    ODD,
    ORDINARY,
    REPRESENTATIVE,
    Analysis,
    write_analysis,
)
from astromorph.artefacts.run_files import RunFiles
from astromorph.artefacts.run_table import all_tensors, run_table
from astromorph.artefacts.tables import read_table
from astromorph.atomic import atomic_write, check_writable
from astromorph.pages.html import link_to, write_page
from astromorph.pages.thumbnails import page_images
from astromorph.provenance import versions
from astromorph.settings.sections import AnalysisSettings

Vectors = NDArray[np.float32]

LOG = logging.getLogger(__name__)
MAX_LISTED = 20  # outliers, and pairs of near-duplicates, on the page
MAX_PICTURED = 50  # clusters of each method with pictures on the page
PACKAGES = ("scikit-learn", "umap-learn", "pynndescent", "scipy")


def analyse(
    files: RunFiles, rules: AnalysisSettings, seed: int, threads: int = 0
) -> None:
    """Find clusters, neighbours, near-duplicates and outliers among the embeddings.

    Parameters
    ----------
    files : RunFiles
        `catalogue`, `split`, `all_embeddings`, and from `all_tensors` the images on the
        page, are read; `analysis` (Parquet: a row per image), `analysis_summary`
        (JSON: numbers, settings and versions) and `analysis_page` are written.
    rules : AnalysisSettings
        All of its settings are used; with `reference_results`, images are placed among
        those of that run.
    seed : int
        Seed of all random choices.
    threads : int
        CPU threads for the neighbour search; 0 for all cores. Everything else runs on
        one thread, so that the result does not depend on their number.

    Raises
    ------
    AstromorphError
        The files do not match, or there are no embeddings.
    """
    check_writable([files.analysis, files.analysis_summary, files.analysis_page])
    images = read_embedded_images(files)
    reference = None
    if rules.reference_results:
        reference = read_reference_run(files, rules.reference_results)
    with threadpool_limits(1):
        if reference:
            listed = read_table(files.catalogue, ["image_id"])["image_id"]
            analysis, summary = place_among(images, reference, set(listed))
        else:
            analysis, summary = analyse_embeddings(images, rules, seed, threads)
    summary["settings"] = {
        "seed": seed,
        "analysis_settings": rules.model_dump(mode="json"),
    }
    summary["versions"] = versions() | {name: version(name) for name in PACKAGES}
    folder = rules.reference_results and os.path.abspath(rules.reference_results)
    write_analysis(files.analysis, analysis, folder)
    with atomic_write(files.analysis_summary) as temporary:
        temporary.write_text(json.dumps(summary, indent=1), encoding="utf-8")
    _write_page(files, images, summary, bool(reference))
    _log_summary(summary)


def _write_page(
    files: RunFiles,
    images: EmbeddedImages,
    summary: dict[str, Any],
    has_reference: bool = False,
) -> None:
    """Write the page, with pictures of the largest clusters, duplicates, outliers."""
    clusters = [
        (number < MAX_PICTURED, image_id)
        for method in summary["methods"].values()
        for number, cluster in enumerate(method["clusters"])
        for image_id in (cluster["representative"], cluster["odd"])
        if image_id
    ]
    pictured = {image_id for is_large, image_id in clusters if is_large}
    pictured |= {i for pair in summary["closest_pairs"] for i in pair["image_ids"]}
    pictured |= {outlier["image_id"] for outlier in summary["outliers"]}
    for new in summary.get("reference", {}).get("most_novel", ()):
        pictured |= {new["image_id"], new["nearest"]}
    listed = pictured.union(image_id for _, image_id in clusters)
    all_paths = dict(zip(images.image_ids, images.paths, strict=True))
    if has_reference:
        table = run_table(files, ["path"])
        all_paths = dict(zip(table["image_id"], table["path"], strict=True))
    paths = {name: path for name, path in all_paths.items() if name in listed}
    write_page(
        files.analysis_page,
        "analysis.html",
        files,
        result=summary,
        images=page_images(paths, all_tensors(files), pictured),
        max_pictured=MAX_PICTURED,
        gallery=link_to(files.gallery / "index.html", files.analysis_page),
    )


def analyse_embeddings(
    images: EmbeddedImages, rules: AnalysisSettings, seed: int, threads: int = 0
) -> tuple[Analysis, dict[str, Any]]:
    """Analyse embeddings, without reading or writing files.

    Parameters
    ----------
    images : EmbeddedImages
        At least one.
    rules : AnalysisSettings
        All of its settings are used.
    seed : int
        Seed of all random choices.
    threads : int
        CPU threads for the neighbour search; 0 for all cores.

    Returns
    -------
    analysis : Analysis
        A row for each image.
    summary : dict
        The contents of `results/analysis.json` without settings and versions.
    """
    ids = images.image_ids
    space = fit_space(images.vectors, rules.whiten, rules.components)
    points = space.project(images.vectors)
    components = space.components(images.vectors)
    LOG.info("%d images in %d components", *points.shape)
    indices, distances = neighbours.nearest_neighbours(
        points, rules.neighbours, seed, threads
    )
    duplicates = neighbours.near_duplicates(indices, distances)
    scores, ranks = neighbours.outlier_scores(components, indices)
    first_two = np.zeros((len(ids), 2), np.float32)
    first_two[:, : components.shape[1]] = components[:, :2]
    layout = first_two
    if rules.map == "umap":
        layout = layout_2d(points, first_two, rules, seed, threads)
    clusterings = find_clusters(points, rules, seed)
    displayed = clusterings.by_method[rules.cluster_by]
    analysis = Analysis(
        image_ids=ids,
        cluster=displayed.labels,
        kmeans=clusterings.by_method["kmeans"].labels,
        hdbscan=clusterings.by_method["hdbscan"].labels,
        map=layout,
        pca=first_two,
        outlier_score=scores,
        outlier_rank=ranks,
        roles=_assign_roles(displayed),
        neighbours=tuple(tuple(ids[k] for k in row) for row in indices.tolist()),
        distances=distances,
        duplicates=tuple(tuple(ids[k] for k in near) for near in duplicates),
    )
    summary = {
        "images": len(ids),
        "embedding_length": images.vectors.shape[1],
        **_describe_space(space),
        **_describe_clusterings(clusterings, rules, ids),
        **_describe_duplicates(duplicates, indices, distances, ids),
        "intrinsic_dimension": neighbours.intrinsic_dimension(distances)
        if distances.shape[1] > 1
        else None,
        "exact_neighbours": len(ids) <= neighbours.MAX_EXACT,
        "map": _describe_map(rules, len(ids)),
        "outliers": [
            {"image_id": ids[k], "score": float(scores[k])}
            for k in np.argsort(ranks)[:MAX_LISTED].tolist()
        ],
    }
    return analysis, summary


def _assign_roles(clustering: Clustering) -> tuple[str, ...]:
    """The role of each image in its cluster."""
    roles = [ORDINARY] * len(clustering.labels)
    for k in clustering.odd_members.values():
        roles[k] = ODD
    for k in clustering.representatives.values():
        roles[k] = REPRESENTATIVE
    return tuple(roles)


def _describe_space(space: Space) -> dict[str, Any]:
    return {
        "components": space.axes.shape[1],
        "distance": "cosine" if space.angular else "Euclidean",
        "explained_variance": [round(float(share), 6) for share in space.explained],
    }


def _describe_clusterings(
    clusterings: Clusterings, rules: AnalysisSettings, ids: Sequence[str]
) -> dict[str, Any]:
    silhouettes = clusterings.silhouette_by_number
    return {
        "cluster_by": rules.cluster_by,
        "clusters_chosen_by": "setting" if rules.clusters else "mean silhouette",
        "silhouette_by_clusters": {str(k): value for k, value in silhouettes.items()},
        "min_cluster_size": clusterings.min_cluster_size,
        "methods": {
            name: _describe_clustering(clustering, ids)
            for name, clustering in clusterings.by_method.items()
        },
    }


def _describe_clustering(clustering: Clustering, ids: Sequence[str]) -> dict[str, Any]:
    quality, odd_members = clustering.quality, clustering.odd_members
    return {
        "number": len(clustering.sizes),
        "unclustered": int(np.count_nonzero(clustering.labels < 0)),
        "silhouette": quality.silhouette,
        "stability": quality.stability,
        "clusters": [
            {
                "size": size,
                "silhouette": quality.silhouettes[k],
                "stability": quality.stabilities[k],
                "representative": ids[clustering.representatives[k]],
                "odd": ids[odd_members[k]] if k in odd_members else None,
            }
            for k, size in enumerate(clustering.sizes)
        ],
    }


def _describe_duplicates(
    duplicates: Sequence[Sequence[int]],
    indices: NDArray[np.int64],
    distances: Vectors,
    ids: Sequence[str],
) -> dict[str, Any]:
    """Numbers of near-duplicates, and the closest pairs."""
    known = {
        (k, int(other)): float(distance)
        for k, near in enumerate(duplicates)
        if near
        for other, distance in zip(indices[k], distances[k], strict=True)
    }
    # The other image may be among the neighbours of only one of the two.
    pairs = [
        (known.get((k, other), known.get((other, k), 0.0)), k, other)
        for k, near in enumerate(duplicates)
        for other in near
        if k < other
    ]
    return {
        "near_duplicates": sum(bool(near) for near in duplicates),
        "near_duplicate_pairs": len(pairs),
        "closest_pairs": [
            {"image_ids": [ids[k], ids[other]], "distance": distance}
            for distance, k, other in sorted(pairs)[:MAX_LISTED]
        ],
    }


def _describe_map(rules: AnalysisSettings, images: int) -> dict[str, Any]:
    if rules.map == "pca" or images < MIN_UMAP:
        return {"method": "pca"}
    return {"method": "umap", "fitted_images": min(images, rules.map_sample)}


def _log_summary(summary: dict[str, Any]) -> None:
    for name, method in summary["methods"].items():
        silhouette, stability = method["silhouette"], method["stability"]
        LOG.info(
            "%s: %d clusters, %d images in no cluster, silhouette %s, stability %s",
            name,
            method["number"],
            method["unclustered"],
            "-" if silhouette is None else f"{silhouette:.3f}",
            "-" if stability is None else f"{stability:.3f}",
        )
    if reference := summary.get("reference"):
        LOG.info(
            "%d new images were placed among %d of %s; %d are far from all clusters",
            reference["new"],
            reference["images"],
            reference["results"],
            reference["in_no_cluster"],
        )
    LOG.info(
        "%d images have a near-duplicate; the first outlier is %s",
        summary["near_duplicates"],
        summary["outliers"][0]["image_id"],
    )
