"""The ranking: a logistic regression that is fitted to the marks.

`export/html_map/scripts/ranking.js` has the same functions for the map. The problem is
strictly convex, and both solve it to rounding, so that they agree.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from astromorph.ranking.marks import INTERESTING, NOT_INTERESTING, Marks

Points = NDArray[np.float64]

# Inverse strength of the L2 regularisation, for points of length 1 and weights with a
# mean of 1; chosen with benchmarks/ranking.py on the uncertain radio galaxies.
INVERSE_REGULARISATION = 1.0
TOLERANCE, MAX_ITERATIONS = 1e-10, 200
MAX_BACKGROUND = 500  # unmarked images that stand for those that are not interesting
MAX_INFORMATIVE = 50  # images with a place in the order of the most informative ones
CANDIDATES = 10  # times as many uncertain images are candidates


@dataclass(frozen=True, slots=True)
class Target:
    """What a ranking is about, and the marked images that show it.

    Attributes
    ----------
    name : str
        `interesting`, or the name of a class.
    rows : ndarray, shape (M,), int64
        Rows of the marked images that count.
    labels : ndarray, shape (M,), bool
        Whether each of them is an example; at least one is.
    is_class : bool
        Whether it is a class.
    """

    name: str
    rows: NDArray[np.int64]
    labels: NDArray[np.bool_]
    is_class: bool = False

    @property
    def positives(self) -> int:
        """Number of examples."""
        return int(np.count_nonzero(self.labels))

    @property
    def negatives(self) -> int:
        """Number of counter-examples."""
        return len(self.labels) - self.positives


@dataclass(frozen=True, slots=True)
class LinearModel:
    """A logistic regression.

    Attributes
    ----------
    coefficients : ndarray, shape (K,), float64
        One for each component.
    intercept : float
        The constant.
    """

    coefficients: NDArray[np.float64]
    intercept: float

    def scores(self, points: Points) -> NDArray[np.float64]:
        """Scores `(N,)` of points `(N, K)`, from 0 to 1; 0.5 is undecided."""
        exponents = points @ self.coefficients + self.intercept
        scores: NDArray[np.float64] = 1 / (1 + np.exp(-np.clip(exponents, -500, 500)))
        return scores


def find_targets(marks: Marks) -> list[Target]:
    """What can be learned from some marks.

    Parameters
    ----------
    marks : Marks
        Any number of marks.

    Returns
    -------
    list of Target
        `interesting` first, if an image has this mark; the counter-examples are the
        images marked as not interesting. Then each class in alphabetical order; the
        counter-examples are the images of other classes, and those of no class that
        are marked as not interesting.
    """
    rows = np.array(marks.rows, np.int64)
    kinds, classes = np.array(marks.marks), np.array(marks.classes)
    targets = []
    if INTERESTING in marks.marks:
        used = kinds != ""
        targets.append(Target(INTERESTING, rows[used], kinds[used] == str(INTERESTING)))
    used = (classes != "") | (kinds == str(NOT_INTERESTING))
    for name in sorted(set(marks.classes) - {""}):
        targets.append(Target(name, rows[used], classes[used] == name, True))
    return targets


def fit_target(
    points: Points, target: Target, marked: Sequence[int] | NDArray[np.int64]
) -> LinearModel:
    """Fit the regression to a target.

    Examples and counter-examples have the same total weight. Without counter-examples,
    evenly spaced unmarked images take their place: most of them are ordinary.

    Parameters
    ----------
    points : ndarray, shape (N, K), float64
        All images.
    target : Target
        Examples and counter-examples.
    marked : sequence of int
        Rows that are not used in place of counter-examples.

    Returns
    -------
    LinearModel
    """
    rows, labels = target.rows, target.labels
    if not target.negatives:
        background = background_rows(len(points), marked)
        rows = np.concatenate([rows, background])
        labels = np.concatenate([labels, np.zeros(len(background), np.bool_)])
    if labels.all():  # all images of the run are examples
        return LinearModel(np.zeros(points.shape[1]), 0.0)
    sides = np.bincount(labels, minlength=2)
    weights = len(target.rows) / 2 / sides[labels.astype(int)]
    regression = LogisticRegression(
        C=INVERSE_REGULARISATION,
        solver="newton-cholesky",
        tol=TOLERANCE,
        max_iter=MAX_ITERATIONS,
    )
    regression.fit(points[rows], labels, sample_weight=weights)
    return LinearModel(regression.coef_[0], float(regression.intercept_[0]))


def background_rows(
    number: int, marked: Sequence[int] | NDArray[np.int64]
) -> NDArray[np.int64]:
    """Evenly spaced rows among those that are not marked, at most `MAX_BACKGROUND`.

    Parameters
    ----------
    number : int
        Number of rows.
    marked : sequence of int
        Rows to leave out.

    Returns
    -------
    ndarray, shape (B,), int64
        In increasing order.
    """
    unmarked = np.setdiff1d(np.arange(number), marked)
    size = min(MAX_BACKGROUND, len(unmarked))
    return unmarked[np.arange(size) * len(unmarked) // max(size, 1)]


def most_informative(
    points: Points,
    scores: NDArray[np.float64],
    marked: Sequence[int] | NDArray[np.int64],
    number: int = MAX_INFORMATIVE,
) -> NDArray[np.int64]:
    """The images whose marks would improve the ranking most.

    The candidates are the unmarked images with scores closest to 0.5. The first one is
    the most uncertain. Each of the following has the largest product of its uncertainty
    and its distance from all chosen before, so that they are not all alike.

    Parameters
    ----------
    points : ndarray, shape (N, K), float64
        All images.
    scores : ndarray, shape (N,), float64
        Their scores.
    marked : sequence of int
        Rows to leave out.
    number : int
        Number of images to choose.

    Returns
    -------
    ndarray, shape (at most `number`,), int64
        Rows, the most informative first.
    """
    unmarked = np.setdiff1d(np.arange(len(points)), marked)
    certainty = np.abs(scores[unmarked] - 0.5)
    order = np.argsort(certainty, kind="stable")[: CANDIDATES * number]
    candidates = unmarked[order]
    uncertainty = 1 - 2 * certainty[order]
    chosen: list[int] = []
    distances = np.full(len(candidates), np.inf)
    while len(chosen) < min(number, len(candidates)):
        best = int(np.argmax(distances * uncertainty**2)) if chosen else 0
        chosen.append(best)
        offsets = points[candidates] - points[candidates[best]]
        distances = np.minimum(distances, (offsets**2).sum(axis=1))
        distances[best] = -1
    return candidates[chosen]
