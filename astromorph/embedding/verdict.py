"""Whether an embedding is better than its references, with confidence intervals.

All networks are compared on the same images. Differences are paired: of each image, its
result with the trained network and with the reference. Their standard errors are those
of a bootstrap over groups of images, such as those of one object (Efron & Tibshirani
1993, chapter 6).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from astromorph.artefacts.labels import FEW_IMAGES_PER_CLASS, FEW_NUMBERS

Scores = NDArray[np.float64]
Outcome = Literal["better", "equal", "worse"]
TRAINED, UNTRAINED, PIXELS = "trained", "untrained", "pixels"
SAMPLES = 2000  # of the bootstrap
SAMPLES_AT_ONCE = 200
NEGLIGIBLE = 0.01  # difference that no user would notice
NORMAL_95 = 1.96  # standard errors
FEW_COMPARED = 50  # images whose retrieval is too uncertain for a verdict
MEASURES = {
    "classes": "in balanced accuracy (mean of nearest neighbours, whitened nearest "
    "neighbours and a linear probe)",
    "numbers": "in rank correlation with `{label}` (mean of nearest neighbours, "
    "whitened nearest neighbours and ridge regression)",
    "retrieval": "in retrieval of rotated, flipped and shifted images",
}
ADVICE_IF_WORSE_THAN_START = (
    "raise `training_settings.start_share`, or list more images"
)
ADVICE = (
    "train longer (`epochs`), use stronger augmentations (`augmentation_settings`), or "
    "list more images"
)


@dataclass(frozen=True, slots=True)
class Results:
    """Results of one network for each image.

    Attributes
    ----------
    kind : str
        ``"classes"``: whether each image was classified correctly by each of M
        classifiers, 0 or 1. ``"numbers"``: the number that each of M regressions
        predicts. ``"retrieval"``: whether the image was found after each of M
        perturbations, 0 or 1.
    values : ndarray, shape (N, M), float64
        The results of N images.
    true : sequence
        N classes, or N numbers; not used for retrieval.
    groups : sequence of str
        N names; images of a group are drawn together.
    """

    kind: Literal["classes", "numbers", "retrieval"]
    values: Scores
    true: Sequence[Any]
    groups: Sequence[str]


@dataclass(frozen=True, slots=True)
class Difference:
    """The score of a network minus that of a reference, on the same images.

    Attributes
    ----------
    mean : float
        The difference.
    low, high : float
        Its 95 % confidence interval.
    """

    mean: float
    low: float
    high: float

    @property
    def outcome(self) -> Outcome:
        """``"equal"`` if the interval contains 0, or the difference is negligible."""
        if self.low <= 0 <= self.high or abs(self.mean) < NEGLIGIBLE:
            return "equal"
        return "better" if self.mean > 0 else "worse"


def score(results: Results) -> float:
    """The mean over all measures: balanced accuracy, rank correlation or retrieval.

    Parameters
    ----------
    results : Results
        Those of one network.

    Returns
    -------
    float
        From 0 to 1; for numbers from -1 to 1.
    """
    return float(_scores(results, np.ones((1, len(results.values))))[0])


def compare(one: Results, other: Results) -> Difference:
    """The difference between two networks and its confidence interval.

    Parameters
    ----------
    one, other : Results
        Results of the same images in the same order.

    Returns
    -------
    Difference
        The score of `one` minus that of `other`.

    Examples
    --------
    >>> groups = [str(k) for k in range(100)]
    >>> true = ["ring", "disk"] * 50
    >>> right, wrong = np.ones((100, 3)), np.zeros((100, 3))
    >>> wrong[::3] = 1
    >>> better = Results("classes", right, true, groups)
    >>> difference = compare(better, Results("classes", wrong, true, groups))
    >>> round(difference.mean, 2), difference.outcome
    (0.66, 'better')
    """
    _, members = np.unique(np.asarray(one.groups), return_inverse=True)
    number = int(members.max()) + 1
    rng = np.random.default_rng(0)
    differences = []
    for _ in range(0, SAMPLES, SAMPLES_AT_ONCE):
        drawn = rng.multinomial(number, [1 / number] * number, SAMPLES_AT_ONCE)
        weights = drawn[:, members].astype(np.float64)
        differences.append(_scores(one, weights) - _scores(other, weights))
    error = float(np.nanstd(np.concatenate(differences)))
    mean = score(one) - score(other)
    return Difference(mean, mean - NORMAL_95 * error, mean + NORMAL_95 * error)


def _scores(results: Results, weights: Scores) -> Scores:
    """The score with each row of weights `(B, N)`; `(B,)`."""
    if results.kind == "numbers":
        true = rankdata(np.asarray(results.true, np.float64))
        columns = [
            _correlations(rankdata(column), true, weights)
            for column in results.values.T
        ]
        return np.asarray(np.mean(columns, axis=0))
    means = results.values.mean(axis=1)
    if results.kind == "retrieval":
        return np.asarray((weights @ means) / weights.sum(axis=1))
    classes, codes = np.unique(np.asarray(results.true), return_inverse=True)
    members = np.eye(len(classes))[codes]
    counts = weights @ members
    with np.errstate(invalid="ignore"):  # a class of which no image was drawn
        recalls = (weights @ (members * means[:, None])) / counts
    return np.asarray(np.nanmean(recalls, axis=1))


def _correlations(one: Scores, other: Scores, weights: Scores) -> Scores:
    """Weighted correlation of two columns `(N,)` with each row of weights `(B, N)`."""
    shares = weights / weights.sum(axis=1, keepdims=True)
    one, other = one - one.mean(), other - other.mean()
    mean_one, mean_other = shares @ one, shares @ other
    covariance = shares @ (one * other) - mean_one * mean_other
    variances = (shares @ one**2 - mean_one**2) * (shares @ other**2 - mean_other**2)
    return np.asarray(covariance / np.sqrt(np.where(variances > 0, variances, np.inf)))


def give_verdict(
    results: Mapping[str, Results],
    label: str = "label",
    references: Sequence[str] = (),
) -> dict[str, Any]:
    """Compare the trained network with its references.

    Parameters
    ----------
    results : mapping of str to Results
        Of each network, on the same images. The keys are `TRAINED`, `UNTRAINED`,
        `PIXELS`, those of `references` and, unless they were random, the name of the
        start weights.
    label : str
        The column of the labels.
    references : sequence of str
        Other networks. They do not decide whether training was worth it.

    Returns
    -------
    dict
        `outcome`, str: ``"better"``, ``"equal"`` or ``"worse"`` than the untrained
        network; `better`, bool: whether it is better than the untrained network and
        not worse than the start weights; `measure`, str: the kind of the results;
        `scores`, dict of str to float; `differences`, dict of str to dict: the
        differences from each reference with `mean`, `low`, `high` and `outcome`;
        `sentence`, str; `summary`, str: the same without `references`.
    """
    trained = results[TRAINED]
    scores = {name: score(one) for name, one in results.items()}
    differences = {
        name: compare(trained, one) for name, one in results.items() if name != TRAINED
    }
    outcome = differences[UNTRAINED].outcome
    others = (*_ALWAYS, *references)
    start = next((name for name in results if name not in others), None)
    parts = [
        f"{_WORDS[outcome]} the untrained network "
        f"({_difference(differences[UNTRAINED])}) "
        + MEASURES[trained.kind].format(label=label)
    ]
    if start:
        parts.append(
            f"{_WORDS[differences[start].outcome].lower()} the weights that training "
            f"started from ({start}: {_difference(differences[start])})"
        )
    of_references = [
        f"{_WORDS[differences[name].outcome]} the network {name} "
        f"({_difference(differences[name])})"
        for name in references
    ]
    rest = []
    if differences[PIXELS].outcome == "worse":
        rest.append(
            "worse than principal components of the pixels "
            f"({_difference(differences[PIXELS])})"
        )
    if advice := _advice(trained, differences, start):
        rest.append(advice)
    return {
        "outcome": outcome,
        "better": outcome == "better"
        and (start is None or differences[start].outcome != "worse"),
        "measure": trained.kind,
        "scores": scores,
        "differences": {
            name: {
                "mean": one.mean,
                "low": one.low,
                "high": one.high,
                "outcome": one.outcome,
            }
            for name, one in differences.items()
        },
        "sentence": "; ".join(parts + of_references + rest),
        "summary": "; ".join(parts + rest),
    }


_ALWAYS = (TRAINED, UNTRAINED, PIXELS)
_WORDS: dict[Outcome, str] = {
    "better": "better than",
    "equal": "not clearly different from",
    "worse": "WORSE than",
}


def _difference(difference: Difference) -> str:
    """The difference and its interval in words."""
    return (
        f"{difference.mean:+.3f}, 95 % interval {difference.low:+.3f} to "
        f"{difference.high:+.3f}"
    )


def _advice(
    trained: Results, differences: Mapping[str, Difference], start: str | None
) -> str:
    """What to do; empty if the network is better than its references or as good."""
    compared = [differences[UNTRAINED].outcome]
    if start:
        compared.append(differences[start].outcome)
    if reason := _why_uncertain(trained):
        is_equal = set(compared) == {"equal"}
        doubt = "the difference is uncertain" if is_equal else "but this can be chance"
        verb = "list" if trained.kind == "retrieval" else "label"
        return f"{doubt}: {reason}; {verb} more images"
    if compared[1:] == ["worse"]:
        return ADVICE_IF_WORSE_THAN_START
    return "" if compared[0] == "better" else ADVICE


def _why_uncertain(results: Results) -> str:
    """Why a verdict can be chance; empty if there are enough images."""
    if results.kind == "retrieval":
        number = len(results.values)
        return f"{number} images were compared" if number < FEW_COMPARED else ""
    if results.kind == "numbers":
        number = len(results.true)
        return f"there are {number} numbers" if number < FEW_NUMBERS else ""
    classes, counts = np.unique(np.asarray(results.true), return_counts=True)
    fewest = int(counts.argmin())
    if counts[fewest] >= FEW_IMAGES_PER_CLASS:
        return ""
    return f"the class `{classes[fewest]}` has {counts[fewest]} images"
