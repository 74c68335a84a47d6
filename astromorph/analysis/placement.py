"""Place new images among those of an earlier analysis, which stays as it is.

Points `(N, K)`, float32; rows are images.
"""

import json
import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from astromorph.analysis import neighbours
from astromorph.analysis.embedded_images import (
    EmbeddedImages,
    read_analysis_settings,
    read_embedded_images,
)
from astromorph.analysis.space import ANCHORS, Space, fit_space
from astromorph.artefacts.analysis_table import (
    OLD_SUFFIX,
    ORDINARY,
    Analysis,
    read_analysis,
    read_reference,
)
from astromorph.artefacts.embeddings import read_made_with
from astromorph.artefacts.run_files import RunFiles
from astromorph.artefacts.run_table import open_run
from astromorph.errors import AstromorphError

Points = NDArray[np.float32]
Indices = NDArray[np.int64]
Labels = NDArray[np.int32]

LOG = logging.getLogger(__name__)
MIN_WEIGHT_DISTANCE = 1e-6  # below, weights no longer grow
NOVELTY_NEIGHBOUR = 5  # the distance to this neighbour determines the novelty
MAX_NOVELTY = 99.0  # percent; more novel images are in no cluster
SAME_IMAGE = 0.1  # maximum distance of an image from itself in the reference
MAX_LISTED = 20  # new images on the page
SETTING = "analysis_settings.reference_results"


@dataclass(frozen=True, slots=True)
class Reference:
    """An earlier run whose map is kept.

    Attributes
    ----------
    files : RunFiles
        Its files.
    images : EmbeddedImages
        Its N analysed images.
    analysis : Analysis
        Their analysis.
    summary : dict
        The contents of its `analysis.json`.
    """

    files: RunFiles
    images: EmbeddedImages
    analysis: Analysis
    summary: dict[str, Any]


def read_reference_run(files: RunFiles, folder: str) -> Reference:
    """Read an earlier run, after checking that its embeddings are comparable.

    Parameters
    ----------
    files : RunFiles
        The run whose images are placed; its embeddings are read.
    folder : str
        The results folder of the earlier run.

    Raises
    ------
    AstromorphError
        The earlier run is not finished, is this run, was itself placed among the images
        of another one, or used another model or other settings.
    """
    found = f"{SETTING}: found {folder}"
    path = RunFiles.of_run(folder).analysis
    if not path.exists():
        raise AstromorphError(
            f"{found}, which has no {path.name}; allowed is the results folder of a "
            "finished run"
        )
    if Path(folder).resolve() == files.results.resolve():
        raise AstromorphError(
            f"{found}, which is the results folder of this run; allowed is that of an "
            "earlier run, in another folder"
        )
    if other := read_reference(path):
        raise AstromorphError(
            f"{found}, whose images were placed on the map of {other}; name that "
            "folder instead"
        )
    reference = open_run(folder)
    _check_comparable(files, reference)
    return Reference(
        reference,
        read_embedded_images(reference),
        read_analysis(reference.analysis),
        _read_summary(reference.analysis_summary),
    )


def _read_summary(path: Path) -> dict[str, Any]:
    try:
        summary: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return summary
    except (OSError, ValueError) as error:
        raise AstromorphError(
            f"{path}: the summary of the analysis cannot be read ({error}); run "
            "`analyse` again"
        ) from None


def _check_comparable(files: RunFiles, reference: RunFiles) -> None:
    """Raise an error that names a difference in how embeddings were made."""
    own = read_made_with(files.all_embeddings[0])
    for path in (*files.all_embeddings[1:], *reference.all_embeddings):
        other = read_made_with(path)
        if other == own:
            continue
        if other["model"] != own["model"]:
            raise AstromorphError(
                f"{path}: these embeddings are from another model file (SHA-256 "
                f"{other['model'][:16]}...) than {files.all_embeddings[0]} "
                f"({own['model'][:16]}...): set `trained_network_name` to the model of "
                f"the run in {reference.results}"
            )
        differences = "; ".join(_differences(own, other))
        raise AstromorphError(
            f"{path}: these embeddings were made with other settings than "
            f"{files.all_embeddings[0]}: {differences}; use the same settings in both "
            "runs"
        )
    settings = json.loads(own["tensor_settings"]).get("preprocess_settings", {})
    if settings.get("stretch_scope") == "dataset":
        raise AstromorphError(
            "preprocess_settings.stretch_scope: found `dataset`, with which each list "
            f"has its own brightness scale; `{SETTING}` needs `image` in both runs"
        )


def _differences(own: dict[str, str], other: dict[str, str]) -> list[str]:
    """Names and values of the settings that differ."""
    first, second = (
        _flat(json.loads(made_with["tensor_settings"]))
        | {"inference_settings.symmetry": made_with["symmetry"]}
        for made_with in (own, other)
    )
    return [
        f"`{name}` is {json.dumps(second.get(name))} instead of "
        f"{json.dumps(first.get(name))}"
        for name in sorted(first.keys() | second.keys())
        if first.get(name) != second.get(name)
    ]


def _flat(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def place_among(
    images: EmbeddedImages, reference: Reference, listed: Collection[str] = ()
) -> tuple[Analysis, dict[str, Any]]:
    """Place new images among those of an earlier run.

    The space, the map, the clusters and the neighbours of the earlier run do not
    change. An image that is in both runs keeps its row. Each new image gets

    - neighbours in the earlier run, as many as its images have;
    - a position: the mean of those of its five nearest neighbours, weighted by inverse
      distance; exactly that of an image with the same embedding;
    - the cluster with the largest sum of these weights, of each method;
    - a novelty: the percentage of images of the earlier run whose fifth neighbour is
      nearer than that of the new image. Above 99 %, it is in no cluster (-1);
    - an outlier score like those of the earlier run. Ranks are those among all images.

    Parameters
    ----------
    images : EmbeddedImages
        The images of the new run.
    reference : Reference
        The earlier run. If an id of it belongs to another image of this run, it gets
        the suffix `OLD_SUFFIX`.
    listed : collection of str
        The ids of all files that are listed in this run, by default those of `images`.

    Returns
    -------
    analysis : Analysis
        The images of the new run, followed by those of the earlier one that are not
        among them.
    summary : dict
        The summary of the earlier run, with an entry `reference`.

    Raises
    ------
    AstromorphError
        The earlier run has fewer than two images.
    """
    if reference.analysis.distances.shape[1] == 0:
        raise AstromorphError(
            f"{reference.files.analysis}: found {len(reference.analysis)} image; at "
            f"least two are needed for `{SETTING}`"
        )
    rules = read_analysis_settings(reference.files.analysis_summary)
    space = fit_space(reference.images.vectors, rules.whiten, rules.components)
    listed = listed or images.image_ids
    reference = _rename_others(images, listed, reference, space)
    old = reference.analysis
    in_old = {image_id: row for row, image_id in enumerate(old.image_ids)}
    rows = [in_old.get(image_id, -1) for image_id in images.image_ids]
    shared = np.array(rows, np.int64)
    fresh = np.flatnonzero(shared < 0)
    placed = _place(images, fresh, reference, space)
    others = np.setdiff1d(np.arange(len(old)), shared)
    novelty_of_old = _novelty(old.distances, old.distances)
    # The rows of the result: first `placed`, then `old`.
    order = np.where(shared < 0, 0, len(fresh) + shared)
    order[fresh] = np.arange(len(fresh))
    order = np.concatenate([order, len(fresh) + others])
    earlier = replace(old, new=np.zeros(len(old), bool), novelty=novelty_of_old)
    analysis = _join(placed, earlier, order)
    ranks = np.empty(len(order), np.int32)
    ranks[np.argsort(-analysis.outlier_score, kind="stable")] = np.arange(
        1, len(order) + 1
    )
    analysis = replace(analysis, outlier_rank=ranks)
    return analysis, _summarise(analysis, reference, int(np.count_nonzero(shared >= 0)))


def _rename_others(
    images: EmbeddedImages, listed: Collection[str], reference: Reference, space: Space
) -> Reference:
    """Add a suffix to ids of the earlier run that the list uses for other images.

    Ids are computed from listed paths, which are often relative and the same in two
    folders. An image with the same id and nearly the same embedding is the same one.
    """
    in_old = {name: row for row, name in enumerate(reference.images.image_ids)}
    rows = [row for row, name in enumerate(images.image_ids) if name in in_old]
    names = [images.image_ids[row] for row in rows]
    own = space.project(images.vectors[rows])
    old = space.project(reference.images.vectors[[in_old[name] for name in names]])
    is_same = np.linalg.norm(own - old, axis=1) <= SAME_IMAGE
    same = {name for name, equal in zip(names, is_same, strict=True) if equal}
    other = {name: name + OLD_SUFFIX for name in in_old.keys() & set(listed) - same}
    if not other:
        return reference
    LOG.info(
        "%d ids of the earlier run belong to other images in this one, because both "
        "lists contain the same relative paths; they get the suffix %s",
        len(other),
        OLD_SUFFIX,
    )

    def renamed(names: Sequence[str]) -> tuple[str, ...]:
        return tuple(other.get(name, name) for name in names)

    old_images, analysis = reference.images, reference.analysis
    return replace(
        reference,
        images=replace(old_images, image_ids=renamed(old_images.image_ids)),
        analysis=replace(
            analysis,
            image_ids=renamed(analysis.image_ids),
            neighbours=tuple(map(renamed, analysis.neighbours)),
            duplicates=tuple(map(renamed, analysis.duplicates)),
        ),
        summary=_renamed_values(reference.summary, other),
    )


def _renamed_values(value: Any, names: dict[str, str]) -> Any:
    """A summary with other ids."""
    if isinstance(value, dict):
        return {key: _renamed_values(item, names) for key, item in value.items()}
    if isinstance(value, list):
        return [_renamed_values(item, names) for item in value]
    return names.get(value, value) if isinstance(value, str) else value


def _place(
    images: EmbeddedImages, rows: Indices, reference: Reference, space: Space
) -> Analysis:
    """The analysis of some rows of the new run."""
    old = reference.analysis
    vectors = images.vectors[rows]
    old_points = space.project(reference.images.vectors)
    indices, distances = neighbours.nearest_among(
        space.project(vectors), old_points, old.distances.shape[1]
    )
    novelty = _novelty(distances, old.distances)
    inverse = 1 / np.maximum(distances[:, :ANCHORS], MIN_WEIGHT_DISTANCE)
    weights = (inverse / inverse.sum(axis=1, keepdims=True)).astype(np.float32)
    anchors = indices[:, :ANCHORS]
    places = (weights[:, :, None] * old.map[anchors]).sum(axis=1)
    same = distances[:, 0] <= neighbours.MAX_ROUNDING
    places[same] = old.map[anchors[same, 0]]
    far = novelty > MAX_NOVELTY

    def vote(labels: Labels) -> Labels:
        votes = majority(labels[anchors], weights)
        return np.where(far, -1, votes).astype(np.int32)

    components = space.components(vectors)
    old_components = space.components(reference.images.vectors)
    first_two = np.zeros((len(rows), 2), np.float32)
    first_two[:, : components.shape[1]] = components[:, :2]
    ids = old.image_ids
    return Analysis(
        image_ids=tuple(images.image_ids[k] for k in rows.tolist()),
        cluster=vote(old.cluster),
        kmeans=vote(old.kmeans),
        hdbscan=vote(old.hdbscan),
        map=places.astype(np.float32),
        pca=first_two,
        outlier_score=_outlier_scores(components, indices, old, old_components),
        outlier_rank=np.zeros(len(rows), np.int32),
        roles=(ORDINARY,) * len(rows),
        neighbours=tuple(tuple(ids[k] for k in row) for row in indices.tolist()),
        distances=distances,
        duplicates=_duplicates(indices, distances, old),
        new=np.ones(len(rows), bool),
        novelty=novelty,
    )


def majority(labels: Labels, weights: Points) -> Labels:
    """The label of each row with the largest sum of weights.

    Parameters
    ----------
    labels : ndarray, shape (N, M), int32
        Labels of M neighbours.
    weights : ndarray, shape (N, M), float32
        Their weights.

    Returns
    -------
    ndarray, shape (N,), int32
        Of labels with equal sums, the first one in the row.
    """
    equal = labels[:, :, None] == labels[:, None, :]
    sums = (equal * weights[:, None, :]).sum(axis=2)
    chosen = sums.argmax(axis=1)[:, None]
    return np.asarray(np.take_along_axis(labels, chosen, axis=1)[:, 0])


def _novelty(distances: Points, reference: Points) -> Points:
    """Percentage of reference images with a nearer fifth neighbour `(N,)`."""
    column = min(NOVELTY_NEIGHBOUR, reference.shape[1]) - 1
    known = np.sort(reference[:, column])
    nearer = np.searchsorted(known, distances[:, column], side="left")
    return np.asarray(100 * nearer / len(known), np.float32)


def _outlier_scores(
    components: Points, indices: Indices, old: Analysis, old_components: Points
) -> Points:
    """Scores on the scale of the earlier run."""
    lengths = np.empty(len(components), np.float32)
    for row, near in enumerate(indices):
        differences = old_components[near] - components[row]
        lengths[row] = np.linalg.norm(differences, axis=1).mean()
    # The scores of the earlier run are such lengths divided by their median.
    in_old = {image_id: row for row, image_id in enumerate(old.image_ids)}
    unit = int(old.outlier_score.argmax())
    near = np.array([in_old[image_id] for image_id in old.neighbours[unit]])
    differences = old_components[near] - old_components[unit]
    length = float(np.linalg.norm(differences, axis=1).mean())
    score = float(old.outlier_score[unit])
    return np.asarray(lengths * (score / length if length else 1.0), np.float32)


def _duplicates(
    indices: Indices, distances: Points, old: Analysis
) -> tuple[tuple[str, ...], ...]:
    """Images of the earlier run that are near-duplicates of each new image."""
    limits = neighbours.duplicate_limits(old.distances)
    own = neighbours.duplicate_limits(old.distances, distances)
    near = distances <= np.minimum(limits[indices], own[:, None])
    return tuple(
        tuple(old.image_ids[k] for k in row[chosen].tolist())
        for row, chosen in zip(indices, near, strict=True)
    )


def _join(first: Analysis, second: Analysis, order: Indices) -> Analysis:
    """The rows of two analyses, one after the other, in another order."""

    def joined(name: str) -> Any:
        one, other = getattr(first, name), getattr(second, name)
        if isinstance(one, tuple):
            both = one + other
            return tuple(both[k] for k in order.tolist())
        return np.concatenate([one, other])[order]

    return Analysis(**{name: joined(name) for name in Analysis.__slots__})


def _summarise(
    analysis: Analysis, reference: Reference, number_shared: int
) -> dict[str, Any]:
    new = np.flatnonzero(np.asarray(analysis.new))
    novelty = np.asarray(analysis.novelty)
    ids = analysis.image_ids
    order = np.lexsort((new, -analysis.distances[new, 0], -novelty[new]))
    pairs = sorted(
        (float(distance), ids[k], other)
        for k in new.tolist()
        for other, distance in zip(
            analysis.neighbours[k], analysis.distances[k], strict=True
        )
        if other in analysis.duplicates[k]
    )
    by_rank = np.argsort(analysis.outlier_rank)[:MAX_LISTED].tolist()
    summary = reference.summary
    return summary | {
        "images": len(analysis),
        "near_duplicates": sum(map(bool, analysis.duplicates)),
        "near_duplicate_pairs": summary["near_duplicate_pairs"] + len(pairs),
        "closest_pairs": sorted(
            [
                *summary["closest_pairs"],
                *({"image_ids": [k, m], "distance": d} for d, k, m in pairs),
            ],
            key=lambda pair: float(pair["distance"]),
        )[:MAX_LISTED],
        "outliers": [
            {"image_id": ids[k], "score": float(analysis.outlier_score[k])}
            for k in by_rank
        ],
        "reference": {
            "results": str(reference.files.results),
            "images": len(reference.analysis),
            "new": len(new),
            "in_both": number_shared,
            "in_no_cluster": int(np.count_nonzero(novelty[new] > MAX_NOVELTY)),
            "near_duplicate_pairs": len(pairs),
            "most_novel": [
                {
                    "image_id": ids[k],
                    "novelty": float(novelty[k]),
                    "cluster": int(analysis.cluster[k]),
                    "nearest": analysis.neighbours[k][0],
                    "distance": float(analysis.distances[k, 0]),
                }
                for k in new[order][:MAX_LISTED].tolist()
            ],
        },
    }
