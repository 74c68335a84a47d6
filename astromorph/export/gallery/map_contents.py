"""What the pictures of the map show: places, classes and their sizes, examples.

The tables are read once to count and once for each picture, some ten thousand rows at a
time; what is kept depends on the number of classes, not on that of images.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from astromorph.artefacts import tables as artefacts
from astromorph.artefacts.analysis_table import (
    REPRESENTATIVE,
    Analysis,
    read_analysis_parts,
)
from astromorph.artefacts.tables import CATALOGUE_COLUMNS
from astromorph.errors import AstromorphError
from astromorph.export.gallery.choice import MAX_CLUSTERS, NO_CLUSTER, Frame, Sheet
from astromorph.pages.palette import COLOURS, MARKERS

MAX_CLASSES = len(COLOURS) * len(MARKERS)
CLUSTER = "cluster"
# Codes of points beyond those of classes.
OTHERS, NONE = MAX_CLASSES, MAX_CLASSES + 1


@dataclass(frozen=True, slots=True)
class MapClass:
    """An entry of a legend: `code` says how its points are drawn."""

    code: int
    name: str
    size: int


@dataclass(frozen=True, slots=True)
class MapExample:
    """The middle of a cluster: where it is on the map, and of which class."""

    x: float
    y: float
    code: int
    name: str


@dataclass(frozen=True, slots=True)
class MapSheet:
    """A picture of the map.

    Attributes
    ----------
    sheet : Sheet
        Name and title; a frame for each of `examples`.
    by : str
        `cluster`, or a column of the list.
    classes : tuple of Class
        The largest first; then all others, then what is in none.
    codes : dict of str to int
        Of the words of `by` that have a colour of their own.
    examples : tuple of Example
        Middles of the largest clusters.
    number : int
        Of all points.
    limits : tuple of float
        Least and largest x, then y.
    analysis, catalogue : path
        Where the points are.
    """

    sheet: Sheet
    by: str
    classes: tuple[MapClass, ...]
    codes: dict[str, int]
    examples: tuple[MapExample, ...]
    number: int
    limits: tuple[float, float, float, float]
    analysis: str | Path
    catalogue: str | Path

    def points(self) -> Iterator[tuple[NDArray[np.float32], NDArray[np.int64]]]:
        """Places `(M, 2)` and codes `(M,)`, part by part."""
        for part, words in _parts(self.analysis, self.catalogue, self.by):
            codes = [_code(word, self.codes) for word in words]
            yield part.map, np.array(codes, np.int64)


def choose_maps(
    analysis: str | Path, catalogue: str | Path, label: str
) -> list[MapSheet]:
    """Say what pictures of the map there are.

    Parameters
    ----------
    analysis, catalogue : path
        What `analyse` and `validate` wrote.
    label : str
        A column that the list may have.

    Returns
    -------
    list of MapSheet
        Coloured by cluster; and by the label, where an image has one.

    Raises
    ------
    AstromorphError
        The files do not belong together.
    """
    maps = [_map(analysis, catalogue, CLUSTER, "map_clusters")]
    # A list's column of that name is another.
    if label in artefacts.list_columns(catalogue) and label != CLUSTER:
        by_label = _map(analysis, catalogue, label, "map_label")
        maps += [by_label] if by_label.codes else []
    return maps


@dataclass
class _Found:
    """What is kept while the points pass by."""

    sizes: Counter[str] = field(default_factory=Counter)
    middles: dict[int, tuple[str, float, float, str]] = field(default_factory=dict)
    low: tuple[float, float] = (np.inf, np.inf)
    high: tuple[float, float] = (-np.inf, -np.inf)

    def take(self, part: Analysis, words: list[str]) -> None:
        self.sizes.update(words)
        (x, y), (right, top) = part.map.min(axis=0), part.map.max(axis=0)
        self.low = min(self.low[0], float(x)), min(self.low[1], float(y))
        self.high = max(self.high[0], float(right)), max(self.high[1], float(top))
        for k, role in enumerate(part.roles):
            cluster = int(part.cluster[k])
            if role == REPRESENTATIVE and cluster < MAX_CLUSTERS:
                x, y = part.map[k].tolist()
                self.middles[cluster] = (part.image_ids[k], x, y, words[k])


def _map(analysis: str | Path, catalogue: str | Path, by: str, name: str) -> MapSheet:
    found = _Found()
    for part, words in _parts(analysis, catalogue, by):
        found.take(part, words)
    number = found.sizes.total()
    without = found.sizes.pop("", 0)
    ranked = sorted(found.sizes.items(), key=lambda item: (-item[1], item[0]))
    if by == CLUSTER:
        ranked.sort(key=lambda item: int(item[0]))
    codes = {word: k for k, (word, _) in enumerate(ranked[:MAX_CLASSES])}
    classes = [MapClass(codes[word], word, size) for word, size in ranked[:MAX_CLASSES]]
    if rest := ranked[MAX_CLASSES:]:
        size = sum(size for _, size in rest)
        classes.append(MapClass(OTHERS, f"{len(rest)} others", size))
    if without:
        classes.append(MapClass(NONE, f"no {by}", without))
    middles = [found.middles[cluster] for cluster in sorted(found.middles)]
    title = f"Map by {by}: {number} image" + ("" if number == 1 else "s")
    title += "; pictures: middles of clusters" if middles else ""
    frames = tuple(Frame(image_id, mark=REPRESENTATIVE) for image_id, *_ in middles)
    return MapSheet(
        sheet=Sheet(name, "map", title, 1, frames),
        by=by,
        classes=tuple(classes),
        codes=codes,
        examples=tuple(MapExample(x, y, _code(w, codes), w) for _, x, y, w in middles),
        number=number,
        limits=(found.low[0], found.high[0], found.low[1], found.high[1]),
        analysis=analysis,
        catalogue=catalogue,
    )


def _code(word: str, codes: dict[str, int]) -> int:
    return codes.get(word, OTHERS) if word else NONE


def _parts(
    analysis: str | Path, catalogue: str | Path, by: str
) -> Iterator[tuple[Analysis, list[str]]]:
    """Parts of the analysis, and for each image the word that colours it."""
    if by == CLUSTER:
        for part in read_analysis_parts(analysis):
            clusters = part.cluster.tolist()
            yield part, ["" if c == NO_CLUSTER else str(c) for c in clusters]
        return
    rows = artefacts.read_csv(catalogue, CATALOGUE_COLUMNS)
    for part in read_analysis_parts(analysis):
        words = []
        for image_id in part.image_ids:
            row = next((row for row in rows if row["image_id"] == image_id), None)
            if row is None:
                raise AstromorphError(
                    f"{catalogue}: the image {image_id} of {analysis} is not in it, or "
                    "not in this order; run validate and what follows again"
                )
            words.append(row[by] or "")
        yield part, words
