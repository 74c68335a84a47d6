"""How well a ranking finds marked images that it has not seen."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score
from sklearn.model_selection import StratifiedKFold

from astromorph.ranking.model import Points, Target, fit_target

FOLDS = 5
MIN_OF_EACH = 5  # examples, and counter-examples; with fewer there is no number
RESAMPLES = 1000
MAX_RANKS = 300  # of the curve
INTERVAL = (2.5, 97.5)  # percentiles
Curve = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Quality:
    """A cross-validation over the marked images.

    Attributes
    ----------
    share : float
        Share of examples among the M marked images: the precision of a random order.
    average_precision, low, high : float
        Average precision, and the limits of its 95 % interval.
    ranks : ndarray, shape (R,), int64
        Evenly spaced ranks from 1 to M.
    precision, precision_low, precision_high : ndarray, shape (R,), float64
        Precision among the images up to each of these ranks, and the limits of its
        95 % interval.
    """

    share: float
    average_precision: float
    low: float
    high: float
    ranks: NDArray[np.int64]
    precision: Curve
    precision_low: Curve
    precision_high: Curve


def cross_validate(
    points: Points, target: Target, marked: NDArray[np.int64], seed: int = 0
) -> Quality | None:
    """Score each marked image with a model that has not seen its mark.

    The marked images are divided into five stratified folds. The intervals are
    percentiles of 1000 bootstrap samples of the scored images, drawn separately from
    examples and counter-examples; they do not include the variation between models.

    Parameters
    ----------
    points : ndarray, shape (N, K), float64
        All images.
    target : Target
        Examples and counter-examples.
    marked : ndarray, shape (M,), int64
        Rows of all marked images.
    seed : int
        Seed of the folds and of the bootstrap samples.

    Returns
    -------
    Quality or None
        None if there are fewer than `MIN_OF_EACH` examples or counter-examples.
    """
    if min(target.positives, target.negatives) < MIN_OF_EACH:
        return None
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
    scores = np.zeros(len(target.rows))
    for train, test in folds.split(target.rows, target.labels):
        part = replace(target, rows=target.rows[train], labels=target.labels[train])
        model = fit_target(points, part, marked)
        scores[test] = model.scores(points[target.rows[test]])
    labels = target.labels
    ranks = np.unique(np.linspace(1, len(labels), MAX_RANKS).astype(np.int64))
    ordered = _order(labels, scores)
    generator = np.random.default_rng([seed, len(labels)])
    curves = np.empty((RESAMPLES, len(ranks)))
    averages = np.empty(RESAMPLES)
    sides = [np.flatnonzero(side) for side in (labels, ~labels)]
    places = np.empty(len(labels), np.int64)
    places[np.argsort(-scores, kind="stable")] = np.arange(len(labels))
    for k in range(RESAMPLES):
        drawn = [places[generator.choice(side, len(side))] for side in sides]
        hits = ordered[np.sort(np.concatenate(drawn))]
        precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
        curves[k] = precision[ranks - 1]
        averages[k] = hits @ precision / max(hits.sum(), 1)
    low, high = np.percentile(averages, INTERVAL)
    limits = np.percentile(curves, INTERVAL, axis=0)
    return Quality(
        share=float(labels.mean()),
        average_precision=float(average_precision_score(labels, scores)),
        low=float(low),
        high=float(high),
        ranks=ranks,
        precision=precision_at_ranks(labels, scores)[ranks - 1],
        precision_low=limits[0],
        precision_high=limits[1],
    )


def precision_at_ranks(labels: NDArray[np.bool_], scores: Curve) -> Curve:
    """Share of examples among the first 1, 2, ..., M images by decreasing score.

    Equal scores count as a random order: each of their images as the share of examples
    among them.

    Parameters
    ----------
    labels : ndarray, shape (M,), bool
        Whether each image is an example.
    scores : ndarray, shape (M,), float64
        Their scores.

    Returns
    -------
    ndarray, shape (M,), float64

    Examples
    --------
    >>> labels, scores = np.array([True, False, True]), np.array([0.9, 0.5, 0.5])
    >>> precision_at_ranks(labels, scores).tolist()
    [1.0, 0.75, 0.6666666666666666]
    """
    precision: Curve = np.cumsum(_order(labels, scores)) / np.arange(1, len(labels) + 1)
    return precision


def _order(labels: NDArray[np.bool_], scores: Curve) -> Curve:
    """Labels by decreasing score; for equal scores, the share of examples."""
    _, groups = np.unique(-scores, return_inverse=True)
    sizes = np.bincount(groups)
    return np.repeat(np.bincount(groups, weights=labels) / sizes, sizes)
