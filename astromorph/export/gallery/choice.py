"""Which images stand on which contact sheet, from what the analysis says of them.

The analysis is read twice, some ten thousand rows at a time; what is kept depends on
the number of sheets and of images on them, not on that of all images.
"""

import hashlib
import heapq
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from astromorph.artefacts.analysis_table import (
    ODD,
    REPRESENTATIVE,
    Analysis,
    read_analysis_parts,
)

MAX_CLUSTERS = 24  # sheets of clusters; those of the largest
MAX_PAGES = 4  # sheets of neighbours
MIN_COLUMNS, MIN_ROW = 3, 4
NEAREST_SHARE = 3  # a third of a cluster's sheet shows its middle
NO_CLUSTER = -1
PAIR, TRIPLE = 2, 3


@dataclass(frozen=True, slots=True)
class Frame:
    """One place on a sheet.

    Attributes
    ----------
    image_id : str
        Which image.
    note : str
        What is said of it, a few words.
    mark : str
        "representative", "odd", or nothing.
    view : int
        0 is the image itself, 1 and 2 are views that training makes of it.
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
        Of its file, without the suffix.
    kind : str
        ``clusters``, ``outliers``, ``neighbours``, ``duplicates`` or ``views``.
    title : str
        What stands on top.
    columns : int
        Frames in a row.
    frames : tuple of Frame
        Row by row.
    group : int
        How many frames belong together, side by side.
    """

    name: str
    kind: str
    title: str
    columns: int
    frames: tuple[Frame, ...]
    group: int = 1


@dataclass(frozen=True, slots=True)
class Member:
    """What is kept of one image of the analysis."""

    image_id: str
    cluster: int
    role: str
    score: float
    rank: int
    neighbours: tuple[tuple[str, float], ...]


# What is kept in a heap: a number turned around, the id to break ties, the image.
Ranked = tuple[int, str, Member]


def choose_sheets(analysis: str | Path, number: int, seed: int) -> list[Sheet]:
    """Say which images stand on which sheet.

    Parameters
    ----------
    analysis : path
        What `analyse` wrote.
    number : int
        Images on a sheet.
    seed : int
        Of what is drawn by lot.

    Returns
    -------
    list of Sheet
        A sheet for each of the `MAX_CLUSTERS` largest clusters and one for what is
        in none; outliers; neighbours of examples, on at most `MAX_PAGES`;
        near-duplicates; views. A sheet with nothing to show is left out.

    Raises
    ------
    AstromorphError
        There is no analysis in the file, or no image in it.
    """
    found = _Found(number, seed)
    for part in read_analysis_parts(analysis):
        found.take(part)
    near = {
        image_id
        for member in found.roles[REPRESENTATIVE].values()
        for image_id, _ in member.neighbours
    }
    clusters = _clusters_of(near, analysis) if near else {}
    sheets = [
        _cluster_sheet(cluster, found, clusters)
        for cluster in sorted(found.sizes, key=lambda c: (c == NO_CLUSTER, c))
        if cluster < MAX_CLUSTERS
    ]
    return [
        sheet
        for sheet in (
            *sheets,
            _outlier_sheet(found),
            *_neighbour_sheets(found),
            _duplicate_sheet(found),
            _view_sheet(found),
        )
        if sheet.frames
    ]


def count_columns(number: int) -> int:
    """Frames in a row: a sheet is about half as wide again as high."""
    return max(MIN_COLUMNS, math.ceil(math.sqrt(1.5 * number)))


@dataclass
class _Found:
    """What is kept while the analysis passes by."""

    number: int
    seed: int
    total: int = 0
    sizes: Counter[int] = field(default_factory=Counter)
    roles: dict[str, dict[int, Member]] = field(
        default_factory=lambda: {REPRESENTATIVE: {}, ODD: {}}
    )
    drawn: dict[int, list[Ranked]] = field(default_factory=dict)
    examples: list[Ranked] = field(default_factory=list)
    outliers: list[Ranked] = field(default_factory=list)
    pairs: dict[tuple[str, str], float] = field(default_factory=dict)

    def take(self, part: Analysis) -> None:
        """Keep what the sheets need of some rows."""
        for k, image_id in enumerate(part.image_ids):
            cluster, rank = int(part.cluster[k]), int(part.outlier_rank[k])
            member = Member(
                image_id,
                cluster,
                part.roles[k],
                float(part.outlier_score[k]),
                rank,
                tuple(
                    zip(part.neighbours[k], part.distances[k].tolist(), strict=False)
                ),
            )
            drawn = random_key(self.seed, image_id)
            self.total += 1
            self.sizes[cluster] += 1
            if cluster < MAX_CLUSTERS:
                if member.role in self.roles:
                    self.roles[member.role][cluster] = member
                _keep(self.drawn.setdefault(cluster, []), drawn, member, self.number)
            _keep(self.examples, drawn, member, self.number)
            _keep(self.outliers, rank, member, self.number)
            self._keep_pairs(member, part.duplicates[k])

    def members(self, cluster: int) -> list[str]:
        """Ids of a cluster's images in the order of the lot, the first ones only."""
        return [m.image_id for m in _smallest(self.drawn.get(cluster, []))]

    def _keep_pairs(self, member: Member, duplicates: Sequence[str]) -> None:
        apart = dict(member.neighbours)
        for other in duplicates:
            first, second = sorted((member.image_id, other))
            if first != second:
                known = self.pairs.get((first, second), math.inf)
                self.pairs[first, second] = min(known, apart.get(other, math.inf))
        if len(self.pairs) > 4 * self.number:
            self.pairs = dict(self.nearest_pairs(2 * self.number))

    def nearest_pairs(self, number: int) -> list[tuple[tuple[str, str], float]]:
        """The pairs that are most alike, each with its distance."""
        return heapq.nsmallest(number, self.pairs.items(), key=lambda p: (p[1], p[0]))


def random_key(seed: int, image_id: str) -> int:
    """A number by which an image is drawn; other images do not change it."""
    found = hashlib.blake2b(f"{seed}\0{image_id}".encode(), digest_size=8).digest()
    return int.from_bytes(found, "big")


def _keep(heap: list[Ranked], number: int, member: Member, most: int) -> None:
    """Keep the images with the smallest numbers; the largest goes first."""
    item = (-number, member.image_id, member)
    if len(heap) < most:
        heapq.heappush(heap, item)
    elif item[:2] > heap[0][:2]:
        heapq.heapreplace(heap, item)


def _smallest(heap: Iterable[Ranked]) -> list[Member]:
    return [member for *_, member in sorted(heap, key=lambda i: (-i[0], i[1]))]


def _clusters_of(wanted: set[str], analysis: str | Path) -> dict[str, int]:
    """The clusters of some images."""
    return {
        image_id: int(cluster)
        for part in read_analysis_parts(analysis)
        for image_id, cluster in zip(part.image_ids, part.cluster, strict=True)
        if image_id in wanted
    }


def _cluster_sheet(cluster: int, found: _Found, clusters: dict[str, int]) -> Sheet:
    """The middle of a cluster, some of it by lot, and its odd one."""
    size, number = found.sizes[cluster], found.number
    middle = found.roles[REPRESENTATIVE].get(cluster)
    odd = found.roles[ODD].get(cluster)
    frames: dict[str, Frame] = {}
    if middle:
        frames[middle.image_id] = Frame(middle.image_id, "the middle", REPRESENTATIVE)
        near = [i for i, _ in middle.neighbours if clusters.get(i) == cluster]
        for image_id in near[: max(1, number // NEAREST_SHARE) - 1]:
            frames[image_id] = Frame(image_id, "near the middle")
    last = {}
    if odd and not (middle and odd.image_id == middle.image_id):
        frames.pop(odd.image_id, None)
        last[odd.image_id] = Frame(odd.image_id, "the odd one", ODD)
    for image_id in found.members(cluster):
        if len(frames) + len(last) >= number:
            break
        if image_id not in last:
            frames.setdefault(image_id, Frame(image_id))
    shown = tuple(frames.values()) + tuple(last.values())
    name = "cluster_none" if cluster == NO_CLUSTER else f"cluster_{cluster:02d}"
    what = "In no cluster" if cluster == NO_CLUSTER else f"Cluster {cluster}"
    title = f"{what}: {len(shown)} of {size} {'image' if size == 1 else 'images'}"
    return Sheet(name, "clusters", title, count_columns(number), shown)


def _outlier_sheet(found: _Found) -> Sheet:
    frames = tuple(
        Frame(member.image_id, f"{member.rank}: score {member.score:.3g}")
        for member in _smallest(found.outliers)
    )
    title = f"Outliers: the first {len(frames)} of {found.total}"
    return Sheet("outliers", "outliers", title, count_columns(found.number), frames)


def _neighbour_sheets(found: _Found) -> Iterator[Sheet]:
    """Rows of an example and what is nearest to it."""
    width = max(MIN_ROW, count_columns(found.number))
    rows = max(1, found.number // width)
    representatives = found.roles[REPRESENTATIVE]
    examples = [representatives[cluster] for cluster in sorted(representatives)]
    known = {member.image_id for member in examples}
    by_lot = [m for m in _smallest(found.examples) if m.image_id not in known]
    examples += by_lot[: max(0, rows - len(examples))]
    examples = [m for m in examples if m.neighbours][: rows * MAX_PAGES]
    # Rows that begin with an example, as long as the longest list of neighbours.
    width = min(width, 1 + max((len(m.neighbours) for m in examples), default=0))
    pages = [examples[k : k + rows] for k in range(0, len(examples), rows)]
    for page, members in enumerate(pages, start=1):
        frames: list[Frame] = []
        for member in members:
            said = f"cluster {member.cluster}" if member.cluster >= 0 else "no cluster"
            frames.append(Frame(member.image_id, said, REPRESENTATIVE))
            near = [Frame(i, f"distance {d:.3g}") for i, d in member.neighbours]
            near += [Frame("")] * width
            frames += near[: width - 1]
        title = "Examples and their nearest neighbours"
        title += f", {page} of {len(pages)}" if len(pages) > 1 else ""
        name = f"neighbours_{page}"
        yield Sheet(name, "neighbours", title, width, tuple(frames), group=width)


def _duplicate_sheet(found: _Found) -> Sheet:
    frames: list[Frame] = []
    for (first, second), apart in found.nearest_pairs(max(1, found.number // PAIR)):
        said = f"distance {apart:.3g}" if math.isfinite(apart) else "nearly the same"
        frames += [Frame(first, said), Frame(second, said)]
    columns = -(-count_columns(found.number) // PAIR) * PAIR
    title = f"Near-duplicates: the nearest {len(frames) // PAIR} pairs"
    return Sheet("duplicates", "duplicates", title, columns, tuple(frames), PAIR)


def _view_sheet(found: _Found) -> Sheet:
    frames: list[Frame] = []
    for member in _smallest(found.examples)[: max(1, found.number // TRIPLE)]:
        frames.append(Frame(member.image_id, "as prepared", REPRESENTATIVE))
        frames += [Frame(member.image_id, f"view {k}", view=k) for k in (1, 2)]
    columns = -(-count_columns(found.number) // TRIPLE) * TRIPLE
    title = "Pairs of views that training compares"
    return Sheet("views", "views", title, columns, tuple(frames), TRIPLE)
