"""Find rare images by marking a few: a simulated user, in one table.

    python benchmarks/ranking.py --radio FOLDER --alma FOLDER
    python benchmarks/ranking.py --radio FOLDER --choose   # components and C

The folders contain FITS files and `labels.csv` with the columns `filename` and `label`,
and for radio galaxies `confidence`. The simulated user knows one example (five for
FR I) and marks one image after the other, alternately the most likely and the most
informative one, always correctly. Networks are not trained: `sky` has the start weights
of the package, `untrained` random ones.

Found: examples among the first 100 images that the user looks at, those that are
already marked and then those with the highest scores. AUROC and average precision are
those of the ranking of all unmarked images. Numbers are means and standard deviations
over the seeds, which choose the first examples and, for the simulated sky, the rare
images, one in a hundred, of another kind for each seed.

`--choose` uses the uncertain radio galaxies only; the table contains all others.
"""

import argparse
import csv
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, roc_auc_score

from astromorph import (
    BYOL,
    NLayerResnet,
    embed_images,
    prepared_images,
    start_from_sky,
)
from astromorph.analysis import components as components_module
from astromorph.analysis.components import leading_components
from astromorph.analysis.neighbours import nearest_neighbours, outlier_scores
from astromorph.analysis.space import fit_space
from astromorph.ranking import model as model_module
from astromorph.ranking.model import Target, fit_target, most_informative
from astromorph.settings.sections import AnalysisSettings
from astromorph.sky.simulate import simulate

CHECKPOINTS = (10, 30, 100)  # numbers of marks
LOOKED_AT = 100
RARE = 0.01  # share of the rare kind in the simulated sky
SPARE = 1.4  # times as many images are simulated, so that one kind can be left out
RULES = AnalysisSettings()
Labels = NDArray[np.bool_]
Measured = tuple[float, float, float]  # AUROC, average precision, found
Measures = dict[int, Measured]  # by number of marks


@dataclass(frozen=True)
class Images:
    """Embeddings of the images of one set, by network, and their labels."""

    labels: NDArray[np.str_]
    vectors: dict[str, NDArray[np.float32]]

    def some(self, rows: NDArray[np.int64]) -> "Images":
        """The same for some rows."""
        vectors = {name: values[rows] for name, values in self.vectors.items()}
        return Images(self.labels[rows], vectors)


@dataclass(frozen=True)
class Task:
    """What the user looks for: for each seed images and which of them are examples."""

    name: str
    starts: int
    draw: Callable[[int], tuple[Images, Labels]]


def networks() -> Iterator[tuple[str, BYOL]]:
    for name in ("sky", "untrained"):
        torch.manual_seed(0)
        byol = BYOL(NLayerResnet(in_channels=1, last_layer="layer3"))
        if name == "sky":
            start_from_sky(byol)
        yield name, byol.eval()


def embed_list(filelist: Path | str) -> tuple[Images, NDArray[np.int64]]:
    """Embed the images of a list; also the rows of the usable ones."""
    prepared = prepared_images(filelist)
    vectors = {name: embed_images(byol, prepared) for name, byol in networks()}
    return Images(np.array(prepared.column("label")), vectors), prepared.rows


def embed_folder(folder: Path) -> tuple[Images, list[dict[str, str]]]:
    """Embed the files of `labels.csv`; also its rows for the usable ones."""
    with open(folder / "labels.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    with tempfile.TemporaryDirectory() as temporary:
        filelist = Path(temporary) / "list.csv"
        with open(filelist, "w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["path", "label"])
            for row in rows:
                writer.writerow([(folder / row["filename"]).resolve(), row["label"]])
        images, usable = embed_list(filelist)
    return images, [rows[k] for k in usable]


def points_of(vectors: NDArray[np.float32]) -> NDArray[np.float64]:
    """The coordinates from which marks are learned."""
    space = fit_space(vectors, RULES.whiten, RULES.components)
    return leading_components(vectors, space).values()


def measure(
    scores: NDArray[np.floating[Any]], examples: Labels, marked: list[int]
) -> Measured:
    """AUROC and average precision of the unmarked images, and the number found."""
    rest = np.setdiff1d(np.arange(len(scores)), marked)
    order = rest[np.argsort(-scores[rest], kind="stable")]
    looked = [*marked, *order[: max(0, LOOKED_AT - len(marked))]][:LOOKED_AT]
    if examples[rest].all() or not examples[rest].any():
        return np.nan, np.nan, float(examples[looked].sum())
    return (
        float(roc_auc_score(examples[rest], scores[rest])),
        float(average_precision_score(examples[rest], scores[rest])),
        float(examples[looked].sum()),
    )


def simulate_user(
    points: NDArray[np.float64], examples: Labels, starts: int, seed: int
) -> Measures:
    """Mark one image after the other; measure at each of `CHECKPOINTS`."""
    generator = np.random.default_rng(seed)
    first = generator.choice(np.flatnonzero(examples), starts, replace=False)
    marked = [int(row) for row in first]
    measures: Measures = {}
    while True:
        target = Target("interesting", np.array(marked), examples[marked])
        scores = fit_target(points, target, marked).scores(points)
        if len(marked) in CHECKPOINTS:
            measures[len(marked)] = measure(scores, examples, marked)
        if len(marked) == max(CHECKPOINTS):
            return measures
        if len(marked) % 2:
            unmarked = np.setdiff1d(np.arange(len(points)), marked)
            marked.append(int(unmarked[np.argmax(scores[unmarked])]))
        else:
            marked.append(int(most_informative(points, scores, marked, 1)[0]))


def outliers(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """The outlier scores of `analyse`."""
    space = fit_space(vectors, RULES.whiten, RULES.components)
    points = space.project(vectors)
    indices, _ = nearest_neighbours(points, RULES.neighbours, 0, 1)
    return outlier_scores(space.components(vectors), indices)[0]


def tasks_of(options: argparse.Namespace) -> Iterator[Task]:
    if options.radio:
        images, rows = embed_folder(options.radio)
        sure = np.array([row["confidence"] == "confident" for row in rows])
        chosen = images.some(np.flatnonzero(sure != options.choose))
        names = ("Hybrid", "FRI", "FRII") if options.choose else ("Hybrid", "FRI")
        for name in names:
            starts = 5 if name == "FRI" else 1
            yield fixed(f"radio galaxies: {name}", starts, chosen, name)
    if options.choose:
        return
    if options.alma:
        images, _ = embed_folder(options.alma)
        yield fixed("ALMA disks: ring", 1, images, "ring")
    if not options.sky:
        return
    with tempfile.TemporaryDirectory() as folder:
        filelist = simulate(folder, int(SPARE * options.sky), seed=77)
        images, _ = embed_list(filelist)
    number_rare = max(2, round(RARE * options.sky))
    kinds = sorted(set(images.labels) - {"none"})

    def draw(seed: int) -> tuple[Images, Labels]:
        kind = kinds[seed % len(kinds)]
        generator = np.random.default_rng(seed)
        is_rare = images.labels == kind
        rare = generator.choice(np.flatnonzero(is_rare), number_rare, replace=False)
        others = generator.choice(
            np.flatnonzero(~is_rare), options.sky - number_rare, replace=False
        )
        some = images.some(np.sort(np.concatenate([rare, others])))
        return some, some.labels == kind

    yield Task("simulated sky: a kind of 1 %", 1, draw)


def fixed(name: str, starts: int, images: Images, label: str) -> Task:
    """A task with the same images for every seed."""
    return Task(name, starts, lambda seed: (images, images.labels == label))


def compare(task: Task, seeds: int) -> None:
    """Print the rows of a task."""
    drawn = [task.draw(seed) for seed in range(seeds)]
    for network in ("sky", "untrained"):
        runs = []
        for seed, (images, examples) in enumerate(drawn):
            vectors = images.vectors[network]
            points = points_of(vectors)
            runs.append(simulate_user(points, examples, task.starts, seed))
        for marks in CHECKPOINTS:
            row(task, network, marks, [run[marks] for run in runs], drawn)
    results = [
        measure(outliers(images.vectors["sky"]), examples, [])
        for images, examples in drawn
    ]
    row(task, "sky, outlier score", 0, results, drawn)
    results = [
        measure(np.random.default_rng(seed).random(len(examples)), examples, [])
        for seed, (_, examples) in enumerate(drawn)
    ]
    row(task, "random order", 0, results, drawn)


def row(
    task: Task,
    method: str,
    marks: int,
    results: list[Measured],
    drawn: list[tuple[Images, Labels]],
) -> None:
    examples = drawn[0][1]
    cells = [task.name, f"{examples.sum()} of {len(examples)}", method, str(marks)]
    for values, form in zip(zip(*results, strict=True), (".2f", ".2f", ".1f")):  # noqa: B905
        known = np.array(values)[~np.isnan(values)]
        cells.append(
            f"{known.mean():{form}} ± {known.std():{form}}" if len(known) else "-"
        )
    print("|", " | ".join(cells), "|", flush=True)


def choose(tasks: list[Task], seeds: int) -> None:
    """Print mean AUROC and average precision for components and regularisation."""
    print("| components | C | AUROC | average precision |\n|---|---|---|---|")
    for number in (8, 16, 24, 32, 64):
        for strength in (0.1, 0.3, 1.0, 3.0, 10.0):
            components_module.MAX_COMPONENTS = number
            model_module.INVERSE_REGULARISATION = strength
            found = []
            for task in tasks:
                images, examples = task.draw(0)
                points = points_of(images.vectors["sky"])
                for seed in range(seeds):
                    run = simulate_user(points, examples, task.starts, seed)
                    found += [run[marks][:2] for marks in CHECKPOINTS]
            auroc, precision = np.nanmean(found, axis=0)
            print(
                f"| {number} | {strength} | {auroc:.3f} | {precision:.3f} |", flush=True
            )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--radio", type=Path, help="folder of radio galaxies")
    parser.add_argument("--alma", type=Path, help="folder of ALMA disks")
    parser.add_argument(
        "--sky", type=int, default=2000, help="number of simulated images, 0 for none"
    )
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--choose", action="store_true")
    options = parser.parse_args()
    if options.choose:
        choose(list(tasks_of(options)), options.seeds)
        return
    print("| looking for | examples | method | marks | AUROC | average precision "
          "| found in 100 |\n|---|---|---|---|---|---|---|")  # fmt: skip
    for task in tasks_of(options):
        compare(task, options.seeds)


if __name__ == "__main__":
    main()
