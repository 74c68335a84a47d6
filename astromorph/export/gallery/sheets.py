"""Selection of the images on each contact sheet from the analysis.

The analysis is read in parts, at most twice. The memory depends on the number of sheets
and of images on a sheet, not on the total number of images.
"""

import hashlib
import heapq
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from astromorph.artefacts.analysis_table import (
    ODD,
    REPRESENTATIVE,
    Analysis,
    read_analysis_parts,
)

MAX_CLUSTERS = 24  # the largest clusters, each of which has a sheet
MAX_NEIGHBOUR_SHEETS = 4
MIN_COLUMNS, MIN_NEIGHBOUR_COLUMNS = 3, 4
REPRESENTATIVE_SHARE = 3  # a third of a cluster's sheet is near its representative
NO_CLUSTER = -1
PAIR, TRIPLE = 2, 3


@dataclass(frozen=True, slots=True)
class Frame:
    """One position on a sheet.

    Attributes
    ----------
    image_id : str
        The image; empty for an empty position.
    note : str
        Text below the picture.
    mark : str
        "representative", "odd" or empty.
    view : int
        0 for the image itself, 1 and 2 for augmented views of it.
    """

    image_id: str
    note: str = ""
    mark: str = ""
    view: int = 0


@dataclass(frozen=True, slots=True)
class Sheet:
    """A contact sheet.

    Attributes
    ----------
    name : str
        Name of its file, without suffix.
    kind : str
        ``clusters``, ``outliers``, ``neighbours``, ``duplicates``, ``views`` or
        ``map``.
    title : str
        Text above the frames.
    columns : int
        Frames in a row.
    frames : tuple of Frame
        Row by row.
    group_size : int
        Number of adjacent frames that belong together.
    """

    name: str
    kind: str
    title: str
    columns: int
    frames: tuple[Frame, ...]
    group_size: int = 1


@dataclass(frozen=True, slots=True)
class Candidate:
    """The properties of an image of the analysis that the sheets need."""

    image_id: str
    cluster: int
    role: str
    outlier_score: float
    outlier_rank: int
    neighbours: tuple[tuple[str, float], ...]


def choose_sheets(
    analysis: str | Path, images_per_sheet: int, seed: int
) -> list[Sheet]:
    """Choose the images of all contact sheets.

    Parameters
    ----------
    analysis : path
        File written by `analyse`.
    images_per_sheet : int
        Maximum number of frames on a sheet.
    seed : int
        Seed of the random choices.

    Returns
    -------
    list of Sheet
        A sheet for each of the `MAX_CLUSTERS` largest clusters and one for images in
        no cluster; outliers; neighbours of examples, on at most
        `MAX_NEIGHBOUR_SHEETS` sheets; near-duplicates; augmented views. Sheets without
        a frame are omitted.

    Raises
    ------
    AstromorphError
        The file is missing or is not an analysis.
    """
    candidates = _Candidates(images_per_sheet, seed)
    for part in read_analysis_parts(analysis):
        candidates.add(part)
    near = {
        image_id
        for candidate in candidates.representatives.values()
        for image_id, _ in candidate.neighbours
    }
    clusters = _find_clusters(near, analysis) if near else {}
    cluster_sheets = [
        _cluster_sheet(cluster, candidates, clusters)
        for cluster in sorted(candidates.sizes, key=lambda c: (c == NO_CLUSTER, c))
        if cluster < MAX_CLUSTERS
    ]
    sheets = (
        *cluster_sheets,
        _outlier_sheet(candidates),
        *_neighbour_sheets(candidates),
        _duplicate_sheet(candidates),
        _view_sheet(candidates),
    )
    return [sheet for sheet in sheets if sheet.frames]


def random_key(seed: int, image_id: str) -> int:
    """A random number for an image; random choices take the images with the smallest.

    It only depends on the seed and the id, so that adding images to the list changes
    few choices.
    """
    key = hashlib.blake2b(f"{seed}\0{image_id}".encode(), digest_size=8).digest()
    return int.from_bytes(key, "big")


class _SmallestKeys:
    """The candidates with the smallest keys, at most a given number of them."""

    def __init__(self, max_size: int) -> None:
        self._max_size = max_size
        # A heap with the largest key first, as keys are negated.
        self._heap: list[tuple[int, str, Candidate]] = []

    def add(self, key: int, candidate: Candidate) -> None:
        item = (-key, candidate.image_id, candidate)
        if len(self._heap) < self._max_size:
            heapq.heappush(self._heap, item)
        elif item[:2] > self._heap[0][:2]:
            heapq.heapreplace(self._heap, item)

    def sorted(self) -> list[Candidate]:
        """The smallest key first; equal keys by id."""
        items = sorted(self._heap, key=lambda item: (-item[0], item[1]))
        return [candidate for *_, candidate in items]


@dataclass
class _Candidates:
    """Images that may be on a sheet, collected while the analysis is read."""

    images_per_sheet: int
    seed: int
    sizes: Counter[int] = field(default_factory=Counter)
    representatives: dict[int, Candidate] = field(default_factory=dict)
    least_typical: dict[int, Candidate] = field(default_factory=dict)
    cluster_samples: dict[int, _SmallestKeys] = field(default_factory=dict)
    pairs: dict[tuple[str, str], float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.sample = _SmallestKeys(self.images_per_sheet)
        self.outliers = _SmallestKeys(self.images_per_sheet)

    def add(self, part: Analysis) -> None:
        """Update the collections with some rows of the analysis."""
        for row, image_id in enumerate(part.image_ids):
            candidate = Candidate(
                image_id,
                int(part.cluster[row]),
                part.roles[row],
                float(part.outlier_score[row]),
                int(part.outlier_rank[row]),
                # Zip ends with the ids: distances are padded to a common length.
                tuple(
                    zip(
                        part.neighbours[row],
                        part.distances[row].tolist(),
                        strict=False,
                    )
                ),
            )
            key = random_key(self.seed, image_id)
            self.sizes[candidate.cluster] += 1
            self._add_to_cluster(candidate, key)
            self.sample.add(key, candidate)
            self.outliers.add(candidate.outlier_rank, candidate)
            self._add_pairs(candidate, part.duplicates[row])

    def sample_of_cluster(self, cluster: int) -> list[str]:
        """Ids of images of a cluster chosen at random."""
        return [c.image_id for c in self.cluster_samples[cluster].sorted()]

    def closest_pairs(self, number: int) -> list[tuple[tuple[str, str], float]]:
        """Pairs of near-duplicates with their distances, the closest first."""
        return heapq.nsmallest(number, self.pairs.items(), key=lambda p: (p[1], p[0]))

    def _add_to_cluster(self, candidate: Candidate, key: int) -> None:
        cluster = candidate.cluster
        if cluster >= MAX_CLUSTERS:
            return
        if candidate.role == REPRESENTATIVE:
            self.representatives[cluster] = candidate
        elif candidate.role == ODD:
            self.least_typical[cluster] = candidate
        if cluster not in self.cluster_samples:
            self.cluster_samples[cluster] = _SmallestKeys(self.images_per_sheet)
        self.cluster_samples[cluster].add(key, candidate)

    def _add_pairs(self, candidate: Candidate, duplicates: Sequence[str]) -> None:
        """Add near-duplicates; a pair may occur twice, once for each image."""
        distances = dict(candidate.neighbours)
        for other in duplicates:
            first, second = sorted((candidate.image_id, other))
            if first != second:
                known = self.pairs.get((first, second), math.inf)
                self.pairs[first, second] = min(known, distances.get(other, math.inf))
        if len(self.pairs) > 4 * self.images_per_sheet:
            self.pairs = dict(self.closest_pairs(2 * self.images_per_sheet))


def _find_clusters(image_ids: set[str], analysis: str | Path) -> dict[str, int]:
    """The clusters of some images."""
    return {
        image_id: int(cluster)
        for part in read_analysis_parts(analysis)
        for image_id, cluster in zip(part.image_ids, part.cluster, strict=True)
        if image_id in image_ids
    }


def _count_columns(frames: int) -> int:
    """Number of columns of a sheet that is about 1.5 times as wide as high."""
    return max(MIN_COLUMNS, math.ceil(math.sqrt(1.5 * frames)))


def _round_up(columns: int, group_size: int) -> int:
    """Round a number of columns up to whole groups of frames."""
    return -(-columns // group_size) * group_size


def _cluster_sheet(
    cluster: int, candidates: _Candidates, clusters: dict[str, int]
) -> Sheet:
    """The representative and images near it, random members, the least typical."""
    max_frames = candidates.images_per_sheet
    frames = _frames_near_representative(
        candidates.representatives.get(cluster),
        {i for i in clusters if clusters[i] == cluster},
        max(1, max_frames // REPRESENTATIVE_SHARE),
    )
    last = {}
    if odd := candidates.least_typical.get(cluster):
        frames.pop(odd.image_id, None)
        last[odd.image_id] = Frame(odd.image_id, "least typical", ODD)
    for image_id in candidates.sample_of_cluster(cluster):
        if len(frames) + len(last) >= max_frames:
            break
        if image_id not in last:
            frames.setdefault(image_id, Frame(image_id))
    shown = tuple(frames.values()) + tuple(last.values())
    name = "cluster_none" if cluster == NO_CLUSTER else f"cluster_{cluster:02d}"
    heading = "No cluster" if cluster == NO_CLUSTER else f"Cluster {cluster}"
    size = candidates.sizes[cluster]
    title = f"{heading}: {len(shown)} of {size} {'image' if size == 1 else 'images'}"
    return Sheet(name, "clusters", title, _count_columns(max_frames), shown)


def _frames_near_representative(
    representative: Candidate | None, members: set[str], max_frames: int
) -> dict[str, Frame]:
    """The representative of a cluster and its nearest neighbours in that cluster."""
    if representative is None:
        return {}
    first = representative.image_id
    frames = {first: Frame(first, "representative", REPRESENTATIVE)}
    near = [i for i, _ in representative.neighbours if i in members]
    for image_id in near[: max_frames - 1]:
        frames[image_id] = Frame(image_id, "near the representative")
    return frames


def _outlier_sheet(candidates: _Candidates) -> Sheet:
    """Images with the highest outlier scores."""
    frames = tuple(
        Frame(c.image_id, f"{c.outlier_rank}: score {c.outlier_score:.3g}")
        for c in candidates.outliers.sorted()
    )
    total = candidates.sizes.total()
    title = f"Outliers: the {len(frames)} highest scores of {total} images"
    columns = _count_columns(candidates.images_per_sheet)
    return Sheet("outliers", "outliers", title, columns, frames)


def _neighbour_sheets(candidates: _Candidates) -> Iterator[Sheet]:
    """Rows of an example and its nearest neighbours."""
    max_frames = candidates.images_per_sheet
    columns = max(MIN_NEIGHBOUR_COLUMNS, _count_columns(max_frames))
    rows = max(1, max_frames // columns)
    examples = _neighbour_examples(candidates, rows)
    # The sheet is not wider than the longest list of neighbours.
    longest = max((len(e.neighbours) for e in examples), default=0)
    columns = min(columns, 1 + longest)
    pages = [examples[k : k + rows] for k in range(0, len(examples), rows)]
    for page, members in enumerate(pages, start=1):
        frames = [f for member in members for f in _neighbour_row(member, columns)]
        title = "Examples and their nearest neighbours"
        title += f", sheet {page} of {len(pages)}" if len(pages) > 1 else ""
        yield Sheet(
            f"neighbours_{page}", "neighbours", title, columns, tuple(frames), columns
        )


def _neighbour_examples(candidates: _Candidates, rows: int) -> list[Candidate]:
    """Representatives of clusters, and random images if there are too few."""
    representatives = candidates.representatives
    examples = [representatives[cluster] for cluster in sorted(representatives)]
    known = {example.image_id for example in examples}
    others = [c for c in candidates.sample.sorted() if c.image_id not in known]
    examples += others[: max(0, rows - len(examples))]
    return [e for e in examples if e.neighbours][: rows * MAX_NEIGHBOUR_SHEETS]


def _neighbour_row(example: Candidate, columns: int) -> list[Frame]:
    note = f"cluster {example.cluster}" if example.cluster >= 0 else "no cluster"
    neighbours = [Frame(i, f"distance {d:.3g}") for i, d in example.neighbours]
    neighbours += [Frame("")] * columns
    return [Frame(example.image_id, note, REPRESENTATIVE), *neighbours[: columns - 1]]


def _duplicate_sheet(candidates: _Candidates) -> Sheet:
    """Pairs of near-duplicates."""
    max_frames = candidates.images_per_sheet
    frames: list[Frame] = []
    for pair, distance in candidates.closest_pairs(max(1, max_frames // PAIR)):
        # A near-duplicate that is not among the nearest neighbours has no distance.
        known = math.isfinite(distance)
        note = f"distance {distance:.3g}" if known else "near-duplicate"
        frames += [Frame(image_id, note) for image_id in pair]
    columns = _round_up(_count_columns(max_frames), PAIR)
    number = len(frames) // PAIR
    title = f"Near-duplicates: the {number} closest pairs"
    title = "Near-duplicates: the closest pair" if number == 1 else title
    return Sheet("duplicates", "duplicates", title, columns, tuple(frames), PAIR)


def _view_sheet(candidates: _Candidates) -> Sheet:
    """Random images, each with two augmented views."""
    max_frames = candidates.images_per_sheet
    frames: list[Frame] = []
    for candidate in candidates.sample.sorted()[: max(1, max_frames // TRIPLE)]:
        frames.append(Frame(candidate.image_id, "prepared image", REPRESENTATIVE))
        frames += [Frame(candidate.image_id, f"view {k}", view=k) for k in (1, 2)]
    columns = _round_up(_count_columns(max_frames), TRIPLE)
    title = "Augmented views, as compared in training"
    return Sheet("views", "views", title, columns, tuple(frames), TRIPLE)
