"""The step `evaluate`: an embedding against that of an untrained network.

The same measures are taken of several: the trained network, the weights that its
training began with where these were not random, the same network with random
weights, and principal components of the pixels.
"""

import heapq
import json
import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from astromorph.artefacts import tables as artefacts
from astromorph.artefacts.model_file import ModelFile
from astromorph.atomic import atomic_write
from astromorph.byol.augment import SkyAugmentation, gaussian_blur
from astromorph.byol.build import initial_byol, load_model
from astromorph.byol.byol import BYOL
from astromorph.byol.collapse import rank_me, spread
from astromorph.byol.start_weights import start_network
from astromorph.datasets.tensor_datasets import ImageSet, gather
from astromorph.embedding import metrics
from astromorph.embedding.embed import embed
from astromorph.errors import AstromorphError
from astromorph.pages.html import write_page
from astromorph.settings.sections import AugmentationSettings, Settings

Vectors = NDArray[np.float32]
Change = Callable[[Tensor, Tensor], Tensor]

LOG = logging.getLogger(__name__)
TRAINED, UNTRAINED, PIXELS = "trained", "untrained", "pixels"
PROBES = 256  # images that are looked at changed
LEADING = 5  # principal components that are held against nuisances
PIXEL_SIDE, PIXEL_COMPONENTS = 32, 128
# Without labels these decide: noise and blur are what pixels survive best.
GEOMETRIC = ("rotated", "flipped", "shifted")
MARGIN = 0.02  # a smaller difference is none
STILL = {
    "scale": (1.0, 1.0), "shift": 0.0, "gamma": 0.0, "contrast": 0.0,
    "brightness": 0.0, "blur": 0.0, "noise": 0.0, "channel_gain": 0.0, "erasing": 0.0,
}  # fmt: skip
ADVICE = (
    "train longer (`epochs`), make the views differ more (`augmentation_settings`), or "
    "give it more images"
)


@dataclass(frozen=True, slots=True)
class Subject:
    """One image that is evaluated.

    Attributes
    ----------
    image_id, shard, position : str, str, int
        Where its tensor is.
    label, group : str
        Its class, if it has one; what it must not be separated from.
    facts : dict of str to float
        What the embedding should not depend on.
    """

    image_id: str
    shard: str
    position: int
    label: str
    group: str
    facts: dict[str, float]


def evaluate(
    settings: Settings,
    model: str | Path,
    tensors: Sequence[str | Path],
    embeddings: Sequence[str | Path],
    tables: tuple[str | Path, str | Path],
    output: str | Path,
    page: str | Path,
    threads: int = 0,
) -> None:
    """Measure an embedding and its references, and say which is better.

    Parameters
    ----------
    settings : Settings
        `evaluation_settings` and `inference_settings` are used.
    model : path
        What `train` wrote.
    tensors, embeddings : sequence of path
        All shards, in order.
    tables : tuple of path
        What `validate` and `split` wrote.
    output : path
        JSON to write: measures by network, and the verdict.
    page : path
        HTML to write: the same to look at.
    threads : int
        CPU threads; 0 leaves the choice to torch.

    Raises
    ------
    AstromorphError
        The files do not belong together, or fewer than two images are left.
    """
    if threads:
        torch.set_num_threads(threads)
    rules = settings.evaluation_settings
    subjects, vectors = _choose(tables, embeddings, rules.images, rules.label)
    if len(subjects) < 2:
        raise AstromorphError(
            f"{tables[1]}: {len(subjects)} images have an embedding, at least 2 are "
            "needed to evaluate it"
        )
    byol, made = load_model(model)
    stacksize = int(made.settings["data_settings"]["stacksize"])
    images = _gather(tensors, subjects, stacksize)
    probes = _gather(tensors, subjects[:PROBES], stacksize)
    noise = torch.tensor([s.facts["noise"] for s in subjects[:PROBES]])
    found: dict[str, Any] = {}
    networks: dict[str, BYOL | None] = {TRAINED: byol, **_start(made)}
    networks |= {UNTRAINED: initial_byol(made), PIXELS: None}
    for name, network in networks.items():
        look = _eye(network, settings, images)
        values = vectors if name == TRAINED else look(images, None)
        found[name] = _measures(values, subjects) | _consistency(look, probes, noise)
        LOG.info("%s: %s", name, _line(found[name]))
    verdict = give_verdict(found)
    (LOG.info if verdict["better"] else LOG.warning)("%s", verdict["sentence"])
    result = {"images": len(subjects), "verdict": verdict, "networks": found}
    with atomic_write(output) as temporary:
        temporary.write_text(json.dumps(result, indent=1), encoding="utf-8")
    write_page(page, "evaluation.html", result=result)


def give_verdict(found: dict[str, Any]) -> dict[str, Any]:
    """Whether the trained network is better than the untrained one, in a sentence.

    Parameters
    ----------
    found : dict
        Measures by network.

    Returns
    -------
    dict
        `better`, `measure_scale`, `difference`, `sentence`.
    """
    if "knn_whitened" in found[TRAINED]:
        measure, words = "knn_whitened", "in balanced accuracy of nearest neighbours"
        values = {name: m["knn_whitened"]["mean"] for name, m in found.items()}
    else:
        measure = "found_again"
        words = "in finding turned, mirrored and shifted images again, without labels"
        values = {
            name: float(np.mean([m["found_again"][change] for change in GEOMETRIC]))
            for name, m in found.items()
        }
    difference = values[TRAINED] - values[UNTRAINED]
    others = [f"{n} {v:.3f}" for n, v in values.items() if n != TRAINED]
    numbers = f"({values[TRAINED]:.3f}; {', '.join(others)})"
    better = difference > MARGIN
    if better:
        sentence = (
            f"better than the untrained network by {difference:.3f} {words} {numbers}"
        )
    elif difference < -MARGIN:
        sentence = (
            f"WORSE than the untrained network by {-difference:.3f} {words} {numbers}: "
            f"{ADVICE}"
        )
    else:
        sentence = f"no better than the untrained network {words} {numbers}: {ADVICE}"
    if better and values[PIXELS] > values[TRAINED] + MARGIN:
        sentence += "; principal components of the pixels are better still"
    for name in set(values) - {TRAINED, UNTRAINED, PIXELS}:
        if values[name] > values[TRAINED] + MARGIN:
            sentence += f"; the weights that training began with ({name}) were better"
        elif better and values[name] >= values[TRAINED] - MARGIN:
            sentence += f"; the weights that training began with ({name}) are as good"
    return {
        "better": better,
        "measure": measure,
        "difference": difference,
        "sentence": sentence,
    }


def _start(made: ModelFile) -> dict[str, BYOL | None]:
    """The weights that training began with, where they were not random."""
    try:
        found = start_network(made)
    except AstromorphError as error:
        LOG.warning("the weights that training began with are left out: %s", error)
        return {}
    return {found[0]: found[1]} if found else {}


def _choose(
    tables: tuple[str | Path, str | Path],
    embeddings: Sequence[str | Path],
    number: int,
    column: str,
) -> tuple[list[Subject], Vectors]:
    """The images with the smallest ids, as good as drawn by lot, and their vectors."""
    heap: list[tuple[int, int, Subject, Any]] = []
    fates = artefacts.read_csv(tables[1], artefacts.SPLIT_COLUMNS)
    pairs = artefacts.rows_with_embeddings(*tables, embeddings)
    for place, (row, vector) in enumerate(pairs):
        fate = next(f for f in fates if f["image_id"] == row["image_id"])
        subject = Subject(
            row["image_id"], fate["shard"], int(fate["position"]),
            row.get(column, ""), fate["group"] or row["image_id"], _header_facts(row),
        )  # fmt: skip
        heapq.heappush(heap, (-int(row["image_id"], 16), -place, subject, vector))
        if len(heap) > number:
            heapq.heappop(heap)
    chosen = sorted(heap, key=lambda item: item[:2], reverse=True)
    vectors = np.array([item[3] for item in chosen], dtype=np.float32)
    return [item[2] for item in chosen], vectors


def _header_facts(row: dict[str, str]) -> dict[str, float]:
    """Facts of the catalogue that a good embedding does not follow."""
    beam, scale = row["beam_major_arcsec"], row["pixel_scale_arcsec"]
    facts = {"size in pixels": float(row["width"]) * float(row["height"])}
    if beam and scale:
        facts["beam in pixels"] = float(beam) / float(scale)
    return facts


def _gather(
    tensors: Sequence[str | Path], subjects: Sequence[Subject], stacksize: int
) -> ImageSet:
    """The subjects' images, in their order; their statistics join the facts."""
    wanted: dict[str, list[int]] = defaultdict(list)
    order: dict[str, list[int]] = defaultdict(list)
    for k, subject in enumerate(subjects):
        wanted[subject.shard].append(subject.position)
        order[subject.shard].append(k)
    images, ids, statistics = gather(tensors, wanted, stacksize)
    if images is None or len(ids) != len(subjects):
        raise AstromorphError(
            "the tensors do not hold the images that were embedded; run infer again"
        )
    place = [k for path in tensors for k in order.get(Path(path).stem, ())]
    for row, k in enumerate(place):
        if ids[row] != subjects[k].image_id:
            raise AstromorphError(
                "the tensors hold other images than those embedded; run infer again"
            )
        values = {name: float(column[row]) for name, column in statistics.items()}
        subjects[k].facts.update(_pixel_facts(values))
    back = np.argsort(place)
    return images.subset(back.tolist())


def _pixel_facts(values: dict[str, float]) -> dict[str, float]:
    noise = values["noise"] or 1.0
    return {
        "noise": values["stretched_noise"],
        "peak over noise": (values["maximum"] - values["background"]) / noise,
        "bad pixels": 1 - values["valid_fraction"],
    }


def _eye(
    byol: BYOL | None, settings: Settings, images: ImageSet
) -> Callable[[ImageSet, Change | None], Vectors]:
    """What sees images with a network, or with principal components of the pixels."""
    if byol is not None:
        network = byol
        return lambda data, change: embed(
            network, data, settings.inference_settings, change
        )
    pixels = _small(images, None)
    mean = pixels.mean(axis=0)
    _, _, axes = np.linalg.svd(pixels - mean, full_matrices=False)
    axes = axes[:PIXEL_COMPONENTS]
    return lambda data, change: (_small(data, change) - mean) @ axes.T


def _small(data: ImageSet, change: Change | None) -> Vectors:
    """Images of 32 by 32 pixels or fewer, `(N, P)`: all pixels in one row."""
    rows: NDArray[np.float32] | None = None
    for indices in data.batches(256):
        batch = data.batch(indices)
        batch = batch if change is None else change(batch, indices)
        # Cubes have many channels: fewer pixels of each keep the work the same.
        side = max(4, min(PIXEL_SIDE, int(2 * PIXEL_SIDE / batch.shape[1] ** 0.5)))
        small = functional.adaptive_avg_pool2d(batch, side).flatten(1).numpy()
        if rows is None:
            rows = np.empty((len(data), small.shape[1]), np.float32)
        rows[indices.numpy()] = small
    return np.empty((0, 1), np.float32) if rows is None else rows


def _measures(vectors: Vectors, subjects: Sequence[Subject]) -> dict[str, Any]:
    """Measures of the embeddings alone, and with labels where there are enough."""
    leading = metrics.principal_components(vectors, LEADING)
    names = set.intersection(*(set(subject.facts) for subject in subjects))
    facts = {n: np.array([s.facts[n] for s in subjects]) for n in sorted(names)}
    measures: dict[str, Any] = {
        "effective_rank": rank_me(vectors),
        "spread": spread(vectors),
        "uniformity": metrics.uniformity(vectors),
        "nuisance": {
            name: max(abs(metrics.rank_correlation(c, column)) for c in leading.T)
            for name, column in facts.items()
        },
    }
    return measures | _scores(vectors, subjects)


def _scores(vectors: Vectors, subjects: Sequence[Subject]) -> dict[str, Any]:
    """Neighbours and linear probe; nothing without two classes of five objects each."""
    groups: dict[str, set[str]] = defaultdict(set)
    for subject in subjects:
        if subject.label:
            groups[subject.label].add(subject.group)
    classes = sorted(name for name, g in groups.items() if len(g) >= metrics.FOLDS)
    if len(classes) < 2:
        return {}
    kept = [k for k, subject in enumerate(subjects) if subject.label in classes]
    labels = [subjects[k].label for k in kept]
    names = [subjects[k].group for k in kept]
    chosen = vectors[kept]
    counts = Counter(labels)
    return {
        "classes": {name: counts[name] for name in classes},
        "knn": asdict(metrics.knn_score(chosen, labels, names)),
        "knn_whitened": asdict(
            metrics.knn_score(metrics.whiten(chosen), labels, names)
        ),
        "linear": asdict(metrics.linear_score(chosen, labels, names)),
    }


def _consistency(look: Any, probes: ImageSet, noise: Tensor) -> dict[str, Any]:
    """Share of changed images that find their own original, by kind of change."""
    originals = look(probes, None)
    found, aligned = {}, {}
    for name, change in perturbations(noise).items():
        changed = look(probes, change)
        found[name] = metrics.retrieval(changed, originals)
        aligned[name] = metrics.alignment(changed, originals)
    return {"found_again": found, "alignment": aligned}


def perturbations(noise: Tensor) -> "dict[str, Change]":
    """What is done to images of which the embedding should stay the same.

    Parameters
    ----------
    noise : Tensor, shape (N,)
        Noise of each image, from 0 to 1.

    Returns
    -------
    dict of str to callable
        Images `(B, C, H, W)` and their numbers `(B,)` to changed images.
    """

    def moved(**strength: Any) -> Change:
        rules = AugmentationSettings.model_validate(STILL | strength)
        generator = torch.Generator().manual_seed(1)
        return lambda images, k: SkyAugmentation(rules, generator)(images)

    def noisier(images: Tensor, k: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(2)
        sigma = noise[k].view(-1, 1, 1, 1).to(images)
        added = torch.randn(images.shape, generator=generator).to(images)
        return (images + sigma * added).clamp(0, 1)

    def fainter(images: Tensor, k: Tensor) -> Tensor:
        level = images.flatten(2).median(dim=2).values[..., None, None]
        return level + 0.5 * (images - level)

    return {
        "rotated": moved(flip=False),
        "flipped": lambda images, k: images.flip(3),
        "shifted": moved(rotation=False, flip=False, shift=0.08),
        "noisier": noisier,
        "blurred": lambda images, k: gaussian_blur(images, torch.ones(len(images))),
        "fainter": fainter,
    }


def _line(measures: dict[str, Any]) -> str:
    parts = [f"effective rank {measures['effective_rank']:.1f}"]
    for name in ("knn", "knn_whitened", "linear"):
        if name in measures:
            score = measures[name]
            parts.append(f"{name} {score['mean']:.3f}±{score['spread']:.3f}")
    again = float(np.mean(list(measures["found_again"].values())))
    return ", ".join([*parts, f"found again {again:.3f} over all changes"])
