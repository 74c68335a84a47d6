"""The step `evaluate`: the quality of an embedding, compared with references.

The same measures are computed for several embeddings of the same images: those of the
trained network, of the weights that its training started from (unless random), of the
same network with random weights, of the networks in `evaluation_settings.references`,
and principal components of the pixels.
"""

import json
import logging
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from torch import Tensor
from torch.nn import functional

from astromorph.artefacts.columns import REJECTED
from astromorph.artefacts.labels import (
    MIN_NUMBERS,
    WITHOUT_LABELS,
    LabelKind,
    Labels,
    is_label,
    missing_column,
)
from astromorph.artefacts.model_file import ModelFile
from astromorph.artefacts.run_files import RunFiles
from astromorph.artefacts.run_table import embedded_table, embedding_blocks
from astromorph.artefacts.tables import csv_columns, read_table
from astromorph.atomic import atomic_write, check_writable
from astromorph.byol.build import initial_byol, load_model, training_settings_of
from astromorph.byol.byol import BYOL
from astromorph.byol.collapse import rank_me, spread
from astromorph.byol.start_weights import start_network
from astromorph.datasets.tensor_datasets import ImageSet, gather
from astromorph.embedding import metrics
from astromorph.embedding.embed import embed
from astromorph.embedding.evaluation_page import write_evaluation_page
from astromorph.embedding.metrics import (
    GEOMETRIC,
    Embedder,
    Perturbation,
    Robustness,
    measure_robustness,
)
from astromorph.embedding.references import (
    ReferenceNetwork,
    load_reference,
    reference_name,
)
from astromorph.embedding.verdict import (
    PIXELS,
    TRAINED,
    UNTRAINED,
    Results,
    give_verdict,
)
from astromorph.errors import AstromorphError
from astromorph.settings.sections import (
    EvaluationSettings,
    InferenceSettings,
    Reference,
)

Vectors = NDArray[np.float32]
Parameters = dict[str, NDArray[np.float64]]
LOG = logging.getLogger(__name__)
MAX_PERTURBED = 256  # images that are embedded again under each perturbation
NUISANCE_COLUMNS = ("width", "height", "beam_major_arcsec", "pixel_scale_arcsec")
LEADING = 5  # principal components that are correlated with nuisance parameters
PIXEL_SIDE = 32
MIN_PIXEL_SIDE = 4
PIXEL_COMPONENTS = 128
BATCH_SIZE = 256


@dataclass(frozen=True, slots=True)
class SampledImage:
    """An image that is evaluated.

    Attributes
    ----------
    image_id : str
        Its id.
    shard, position : str, int
        Where its tensor is.
    label : str
        Its class or number; empty if unknown.
    group : str
        Images of a group, such as those of one object, are kept in the same fold.
    nuisances : dict of str to float
        Properties in the catalogue that the embedding should not depend on.
    vector : ndarray, shape (D,), float32
        Its embedding.
    """

    image_id: str
    shard: str
    position: int
    label: str
    group: str
    nuisances: dict[str, float]
    vector: Vectors


def evaluate(
    files: RunFiles,
    inference: InferenceSettings,
    rules: EvaluationSettings,
    threads: int = 0,
) -> None:
    """Measure an embedding and its references, and report which is better.

    Parameters
    ----------
    files : RunFiles
        `catalogue`, `split`, `model`, `all_tensors` and `all_embeddings` are read;
        `evaluation` (JSON: the measures by network, and the verdict) and
        `evaluation_page` are written.
    inference : InferenceSettings
        How the references embed: in the same way as the trained network.
    rules : EvaluationSettings
        Size of the sample, column of the labels, other networks.
    threads : int
        CPU threads; 0 leaves the choice to torch.

    Raises
    ------
    AstromorphError
        The files do not match, or fewer than two images have an embedding.
    """
    if threads:
        torch.set_num_threads(threads)
    check_writable([files.evaluation, files.evaluation_page])
    sample = draw_sample(files, rules)
    label = _inspect_labels(files, rules.label, sample)
    if label["problem"]:
        LOG.warning("%s: %s; %s", files.catalogue, label["problem"], WITHOUT_LABELS)
    if label["caution"]:
        LOG.warning("%s: %s", files.catalogue, label["caution"])
    byol, model = load_model(files.model)
    stacksize = training_settings_of(model).stacksize
    images, statistics = read_images(files.all_tensors, sample, stacksize)
    nuisances = _collect_nuisances(sample, statistics)
    subset = images.subset(range(min(len(images), MAX_PERTURBED)))
    noise = torch.from_numpy(nuisances["noise"][: len(subset)]).float()
    networks: dict[str, dict[str, Any]] = {}
    results: dict[str, Results] = {}
    references = [reference_name(reference) for reference in rules.references]
    embedders = make_embedders(byol, model, images, inference, rules.references)
    for name, embedder in embedders.items():
        if name == TRAINED:
            vectors = np.stack([image.vector for image in sample])
        else:
            vectors = embedder(images, None)
        networks[name] = _measure_without_labels(vectors, nuisances)
        robustness = measure_robustness(embedder, subset, noise)
        scores, labelled = _score_with_labels(vectors, sample, label)
        networks[name] |= scores | robustness.to_dict()
        results[name] = labelled or _retrieval_results(robustness, sample)
        LOG.info("%s: %s", name, _describe(networks[name]))
    verdict = give_verdict(results, rules.label, references)
    level = logging.INFO if verdict["better"] else logging.WARNING
    LOG.log(level, "%s", verdict["sentence"])
    result = {
        "images": len(sample),
        "label": label,
        "verdict": verdict,
        "networks": networks,
        "references": references,
    }
    with atomic_write(files.evaluation) as temporary:
        temporary.write_text(json.dumps(result, indent=1), encoding="utf-8")
    write_evaluation_page(files, result)


def _inspect_labels(
    files: RunFiles, column: str, sample: Sequence[SampledImage]
) -> dict[str, str]:
    """What the labels are, and why they cannot be used or are few."""
    names = csv_columns(files.catalogue)
    label = {"column": column, "kind": "none", "description": "", "caution": ""}
    if column not in names:
        return label | {"problem": missing_column(column, names), "advice": ""}
    labels = Labels(column)
    table = read_table(files.catalogue, list(dict.fromkeys([column, "status"])))
    for cell in table[column][table["status"] != REJECTED]:
        labels.add(cell)
    label["kind"] = labels.kind
    problem, advice = labels.problem(), labels.advice()
    if not problem:
        problem, advice = _problem_of_sample(sample, labels.kind)
    if problem:
        return label | {"problem": problem, "advice": advice}
    sampled = Labels(column, known_kind=labels.kind)
    for image in sample:
        sampled.add(image.label)
    label |= {"description": sampled.describe(), "caution": sampled.caution()}
    return label | {"problem": "", "advice": ""}


def _problem_of_sample(
    sample: Sequence[SampledImage], kind: LabelKind
) -> tuple[str, str]:
    """Why the labels of the sampled images cannot be used, and what to do."""
    labelled = [image for image in sample if image.label]
    if kind == "numbers":
        objects = len({image.group for image in labelled})
        if objects >= MIN_NUMBERS:
            if len({float(image.label) for image in labelled}) >= 2:
                return "", ""
            found = "all have the same number; two different ones are needed"
        else:
            found = (
                f"those with a number show {objects} "
                f"object{'' if objects == 1 else 's'}; {MIN_NUMBERS} are needed"
            )
    else:
        number = len(_usable_classes(labelled))
        if number >= 2:
            return "", ""
        found = (
            f"{'one class has' if number else 'no class has'} images of at least "
            f"{metrics.FOLDS} objects; two are needed"
        )
    return (
        f"of the {len(sample)} images that are evaluated, {found}",
        "label images of more objects, or raise `evaluation_settings.images`",
    )


def _usable_classes(labelled: Sequence[SampledImage]) -> list[str]:
    """The classes that have an object for each fold, sorted."""
    groups: dict[str, set[str]] = defaultdict(set)
    for image in labelled:
        groups[image.label].add(image.group)
    return sorted(name for name in groups if len(groups[name]) >= metrics.FOLDS)


def draw_sample(files: RunFiles, rules: EvaluationSettings) -> list[SampledImage]:
    """The images of an evaluation: those with the smallest ids, a random choice.

    Parameters
    ----------
    files : RunFiles
        `catalogue`, `split` and `all_embeddings` are read.
    rules : EvaluationSettings
        Their maximum number, and the column of the labels.

    Returns
    -------
    list of SampledImage

    Raises
    ------
    AstromorphError
        Fewer than two images have an embedding.
    """
    table = embedded_table(files, NUISANCE_COLUMNS)
    sample = table.sort_values("image_id").head(rules.images)
    if len(sample) < 2:
        raise AstromorphError(
            f"{files.split}: {len(sample)} images have an embedding; at least 2 are "
            "needed for an evaluation"
        )
    in_order = sample.sort_index()
    blocks = [vectors for _, vectors in embedding_blocks(files, in_order)]
    positions = in_order.index.get_indexer(sample.index)
    sample[["shard", "position", "group"]] = read_table(
        files.split, ["shard", "position", "group"]
    )
    sample["label"] = ""
    if rules.label in csv_columns(files.catalogue):
        labels = read_table(files.catalogue, [rules.label])
        sample["label"] = labels[rules.label].where(
            labels[rules.label].map(is_label), ""
        )
    return [
        SampledImage(
            image_id=row["image_id"],
            shard=row["shard"],
            position=int(row["position"]),
            label=row["label"],
            group=row["group"] or row["image_id"],
            nuisances=_catalogue_nuisances(row),
            vector=vector,
        )
        for row, vector in zip(
            sample.to_dict("records"), np.concatenate(blocks)[positions], strict=True
        )
    ]


def _catalogue_nuisances(row: Mapping[str, str]) -> dict[str, float]:
    """Properties in the catalogue that the embedding should not depend on."""
    nuisances = {"size in pixels": float(row["width"]) * float(row["height"])}
    beam, pixel_scale = row["beam_major_arcsec"], row["pixel_scale_arcsec"]
    if beam and pixel_scale:
        nuisances["beam in pixels"] = float(beam) / float(pixel_scale)
    return nuisances


def read_images(
    tensors: Sequence[Path], sample: Sequence[SampledImage], stacksize: int
) -> tuple[ImageSet, dict[str, Tensor]]:
    """The images of the sample and their statistics, in the order of the sample.

    Parameters
    ----------
    tensors : sequence of path
        All tensor shards.
    sample : sequence of SampledImage
        N images, as from `draw_sample`.
    stacksize : int
        As in `data_settings`.

    Returns
    -------
    images : CachedDataset, MappedDataset or NativeDataset
        N images.
    statistics : dict of str to Tensor, shape (N,), float64
        See `astromorph.artefacts.tensor_shard.TensorShard`.

    Raises
    ------
    AstromorphError
        The shards contain other images.
    """
    by_shard: dict[str, list[int]] = defaultdict(list)
    for k, image in enumerate(sample):
        by_shard[image.shard].append(k)
    positions = {
        shard: [sample[k].position for k in members]
        for shard, members in by_shard.items()
    }
    images, image_ids, statistics = gather(tensors, positions, stacksize)
    gathered = [k for path in tensors for k in by_shard.get(path.stem, ())]
    if images is None or image_ids != [sample[k].image_id for k in gathered]:
        raise AstromorphError(
            f"{tensors[0].parent if tensors else 'tensors'}: these are not the images "
            "that were embedded; run `infer` again"
        )
    order = np.argsort(gathered)
    return images.subset(order.tolist()), {
        name: values[torch.from_numpy(order)] for name, values in statistics.items()
    }


def _collect_nuisances(
    sample: Sequence[SampledImage], statistics: Mapping[str, Tensor]
) -> Parameters:
    """Nuisance parameters that are known for every image, `(N,)` each."""
    names = set.intersection(*(set(image.nuisances) for image in sample))
    parameters = {
        name: np.array([image.nuisances[name] for image in sample]) for name in names
    }
    columns = {name: values.double().numpy() for name, values in statistics.items()}
    noise = np.where(columns["noise"] == 0, 1.0, columns["noise"])
    parameters |= {
        "noise": columns["stretched_noise"],
        "peak over noise": (columns["maximum"] - columns["background"]) / noise,
        "bad pixels": 1 - columns["valid_fraction"],
    }
    return dict(sorted(parameters.items()))


def _measure_without_labels(vectors: Vectors, nuisances: Parameters) -> dict[str, Any]:
    """Measures of the embeddings that need no labels.

    Nothing can be correlated with a parameter that is the same for all images.
    """
    leading = metrics.principal_components(vectors, LEADING)
    return {
        "effective_rank": rank_me(vectors),
        "spread": spread(vectors),
        "uniformity": metrics.uniformity(vectors),
        "nuisance": {
            name: max(
                abs(metrics.rank_correlation(component, values))
                for component in leading.T
            )
            for name, values in nuisances.items()
            if len(np.unique(values)) > 1
        },
    }


def _retrieval_results(
    robustness: Robustness, sample: Sequence[SampledImage]
) -> Results:
    """Whether each perturbed image was found, for the verdict without labels."""
    values = np.stack([robustness.retrieved[name] for name in GEOMETRIC], axis=1)
    groups = [image.group for image in sample[: len(values)]]
    return Results("retrieval", values.astype(np.float64), (), groups)


def _score_with_labels(
    vectors: Vectors, sample: Sequence[SampledImage], label: Mapping[str, str]
) -> tuple[dict[str, Any], Results | None]:
    """Scores of predictions of the labels, and the predictions, if there are any."""
    if label["problem"] or label["kind"] == "none":
        return {}, None
    if label["kind"] == "numbers":
        return _score_numbers(vectors, sample)
    return score_classes(vectors, sample)


def _score_numbers(
    vectors: Vectors, sample: Sequence[SampledImage]
) -> tuple[dict[str, Any], Results]:
    """Scores of regressions, and the predicted numbers."""
    labelled = [k for k, image in enumerate(sample) if image.label]
    numbers = [float(sample[k].label) for k in labelled]
    groups = [sample[k].group for k in labelled]
    vectors = vectors[labelled]
    scores = {
        "knn": metrics.knn_regression_score(vectors, numbers, groups),
        "knn_whitened": metrics.knn_regression_score(
            metrics.whiten(vectors), numbers, groups
        ),
        "linear": metrics.ridge_score(vectors, numbers, groups),
    }
    regression = {
        "numbers": len(numbers),
        "minimum": min(numbers),
        "maximum": max(numbers),
        **{name: score.to_dict() for name, score in scores.items()},
    }
    predicted = np.stack([score.predicted for score in scores.values()], axis=1)
    results = Results("numbers", predicted, numbers, groups)
    return {"regression": regression}, results


def score_classes(
    vectors: Vectors, sample: Sequence[SampledImage]
) -> tuple[dict[str, Any], Results]:
    """Scores of classifiers, and which images were classified correctly.

    Parameters
    ----------
    vectors : ndarray, shape (N, D)
        Embeddings of the sample.
    sample : sequence of SampledImage
        N images with labels, at least two classes of at least five groups.

    Returns
    -------
    measures : dict
        `classes`, the images in each, and `knn`, `knn_whitened` and `linear`, the
        balanced accuracies.
    results : Results
        Which images were classified correctly.
    """
    classes = _usable_classes([image for image in sample if image.label])
    labelled = [k for k, image in enumerate(sample) if image.label in classes]
    labels = [sample[k].label for k in labelled]
    groups = [sample[k].group for k in labelled]
    vectors = vectors[labelled]
    counts = Counter(labels)
    scores = {
        "knn": metrics.knn_score(vectors, labels, groups),
        "knn_whitened": metrics.knn_score(metrics.whiten(vectors), labels, groups),
        "linear": metrics.linear_score(vectors, labels, groups),
    }
    measures: dict[str, Any] = {"classes": {name: counts[name] for name in classes}}
    measures |= {name: score.to_dict() for name, score in scores.items()}
    correct = np.stack([s.predicted == labels for s in scores.values()], axis=1)
    return measures, Results("classes", correct.astype(np.float64), labels, groups)


def _describe(measures: Mapping[str, Any]) -> str:
    """The main measures of a network, for the log."""
    parts = [f"effective rank {measures['effective_rank']:.1f}"]
    for name in ("knn", "knn_whitened", "linear"):
        if name in (scores := measures.get("regression", measures)):
            score = scores[name]
            parts.append(f"{name} {score['mean']:.3f}±{score['std']:.3f}")
    retrieval = float(np.mean(list(measures["retrieval"].values())))
    return ", ".join([*parts, f"retrieval {retrieval:.3f} over all perturbations"])


def make_embedders(
    byol: BYOL,
    model: ModelFile,
    images: ImageSet,
    inference: InferenceSettings,
    references: Sequence[str | Reference] = (),
) -> dict[str, Embedder]:
    """The trained network and its references.

    Parameters
    ----------
    byol : BYOL
        The trained network.
    model : ModelFile
        The model file that it was read from.
    images : CachedDataset, MappedDataset or NativeDataset
        The images that the principal components of the pixels are fitted to.
    inference : InferenceSettings
        How the networks embed.
    references : sequence of str or Reference
        Other networks.

    Returns
    -------
    dict of str to callable
        The keys are `TRAINED`, the name of the start weights unless they were random,
        `UNTRAINED` and `PIXELS`. Each embedder takes images and a perturbation or
        None, and returns embeddings `(N, D)`, float32.
    """
    networks: dict[str, BYOL | ReferenceNetwork] = {
        TRAINED: byol,
        **_start_network(model),
        UNTRAINED: initial_byol(model),
    }
    for reference in references:
        network = load_reference(reference, images.channels)
        networks[reference_name(reference)] = network
    embedders = {
        name: network_embedder(network, inference) for name, network in networks.items()
    }
    return embedders | {PIXELS: _pixel_embedder(images)}


def _start_network(model: ModelFile) -> dict[str, BYOL]:
    """The network with the weights that training started from, unless random."""
    try:
        start = start_network(model)
    except AstromorphError as error:
        LOG.warning("the start weights are not evaluated: %s", error)
        return {}
    return {start[0]: start[1]} if start else {}


def network_embedder(
    network: BYOL | ReferenceNetwork, inference: InferenceSettings
) -> Embedder:
    """A function that embeds images with a network.

    Parameters
    ----------
    network : BYOL or ReferenceNetwork
        The network, in evaluation mode.
    inference : InferenceSettings
        How it embeds.

    Returns
    -------
    callable
        Takes images and a perturbation or None; returns embeddings `(N, D)`, float32.
    """
    return lambda images, perturbation: embed(network, images, inference, perturbation)


def _pixel_embedder(images: ImageSet) -> Embedder:
    """Project onto the leading principal components of the pixels of `images`."""
    pixels = _downsample(images, None)
    components = min(PIXEL_COMPONENTS, *pixels.shape)
    pca = PCA(components, svd_solver="full").fit(pixels)
    return lambda others, perturbation: pca.transform(_downsample(others, perturbation))


def _downsample(images: ImageSet, perturbation: Perturbation | None) -> Vectors:
    """Pixels of images, downsampled to at most 32 by 32, flattened to `(N, P)`."""
    rows: dict[int, Vectors] = {}
    for indices in images.batches(BATCH_SIZE):
        batch = images.batch(indices)
        batch = batch if perturbation is None else perturbation(batch, indices)
        # Cubes have many channels; fewer pixels of each limit the computing time.
        side = int(2 * PIXEL_SIDE / batch.shape[1] ** 0.5)
        side = max(MIN_PIXEL_SIDE, min(PIXEL_SIDE, side))
        small = functional.adaptive_avg_pool2d(batch, side).flatten(1).numpy()
        rows.update(zip(indices.tolist(), small, strict=True))
    return np.stack([rows[k] for k in range(len(images))])
