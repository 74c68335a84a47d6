"""Measures of an embedding, with and without labels.

Arrays are `(N, D)`, float; rows are images.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import spearmanr
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.metrics import confusion_matrix, r2_score, recall_score
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from astromorph.byol.augment import SkyAugmentation, gaussian_blur
from astromorph.byol.collapse import TINY, unit_vectors
from astromorph.datasets.tensor_datasets import ImageSet
from astromorph.settings.sections import AugmentationSettings

Vectors = NDArray[np.floating]
NEIGHBOURS = 10
FOLDS = 5
PENALTIES = np.logspace(-2, 6, 17)  # of ridge regression
MAX_WHITENED = 64  # principal components
ROWS_PER_COMPONENT = 4
Perturbation = Callable[[Tensor, Tensor], Tensor]
Embedder = Callable[[ImageSet, Perturbation | None], NDArray[np.float32]]
# Without noise and blur, to which principal components of the pixels are most robust.
GEOMETRIC = ("rotated", "flipped", "shifted")
# With these strengths, `SkyAugmentation` only rotates and flips.
NO_STRENGTH = {
    "scale": (1.0, 1.0),
    "shift": 0.0,
    "gamma": 0.0,
    "contrast": 0.0,
    "brightness": 0.0,
    "blur": 0.0,
    "noise": 0.0,
    "channel_gain": 0.0,
}


@dataclass(frozen=True, slots=True)
class Score:
    """Balanced accuracy of a classifier in cross-validation.

    Attributes
    ----------
    mean, std : float
        Mean and standard deviation over the folds, from 0 to 1.
    confusion : list of list of int
        Confusion matrix over all folds: rows are true classes, columns predicted ones.
    predicted : ndarray, shape (N,), str
        The class predicted for each image when it was in the test set.
    """

    mean: float
    std: float
    confusion: list[list[int]]
    predicted: NDArray[np.str_]

    def to_dict(self) -> dict[str, Any]:
        """All but the predictions, for JSON."""
        return {"mean": self.mean, "std": self.std, "confusion": self.confusion}


@dataclass(frozen=True, slots=True)
class RegressionScore:
    """How well numbers are predicted in cross-validation.

    Attributes
    ----------
    mean, std : float
        Spearman's rank correlation of predicted and true numbers, from -1 to 1: mean
        and standard deviation over the folds.
    r2_mean, r2_std : float
        Coefficient of determination: 1 for a perfect prediction, 0 for one that is no
        better than the mean number, below 0 for a worse one.
    predicted : ndarray, shape (N,), float64
        The number predicted for each image when it was in the test set.
    """

    mean: float
    std: float
    r2_mean: float
    r2_std: float
    predicted: NDArray[np.float64]

    def to_dict(self) -> dict[str, float]:
        """All but the predictions, for JSON."""
        return {
            "mean": self.mean,
            "std": self.std,
            "r2_mean": self.r2_mean,
            "r2_std": self.r2_std,
        }


@dataclass(frozen=True, slots=True)
class Robustness:
    """How similar perturbed images are to their originals.

    Attributes
    ----------
    retrieval, alignment : dict of str to float
        By perturbation; see the functions of the same names.
    retrieved : dict of str to ndarray, shape (N,), bool
        By perturbation: `retrieved` of each image.
    """

    retrieval: dict[str, float]
    alignment: dict[str, float]
    retrieved: dict[str, NDArray[np.bool_]]

    def to_dict(self) -> dict[str, dict[str, float]]:
        """The means, for JSON."""
        return {"retrieval": self.retrieval, "alignment": self.alignment}


def principal_components(vectors: Vectors, number: int) -> NDArray[np.float64]:
    """The leading principal components, largest variance first.

    Parameters
    ----------
    vectors : ndarray, shape (N, D)
        Embeddings.
    number : int
        Number of components, at least 1.

    Returns
    -------
    ndarray, shape (N, K), float64
        K is the smallest of `number`, N and D.

    Examples
    --------
    >>> principal_components(np.array([[0.0, 0.0], [2.0, 0.0], [4.0, 0.1]]), 1).shape
    (3, 1)
    """
    vectors = np.asarray(vectors, np.float64)
    number = min(number, *vectors.shape)
    if (vectors == vectors[0]).all():  # scikit-learn would divide by their variance
        return np.zeros((len(vectors), number))
    return np.asarray(PCA(number, svd_solver="full").fit_transform(vectors))


def whiten(vectors: Vectors) -> NDArray[np.float64]:
    """The first 64 principal components, each scaled to variance 1.

    Directions of little variance, which contain much of the information, then count as
    much as the first ones. No labels are used. The number does not depend on the
    variances, so that an embedding with one dominant direction keeps its other
    components. There is at most one component for every four images.

    Parameters
    ----------
    vectors : ndarray, shape (N, D)
        Embeddings of at least one image.

    Returns
    -------
    ndarray, shape (N, K), float64
        K from 1 to 64. All 0 if the embeddings are all equal.

    Examples
    --------
    >>> vectors = np.random.default_rng(0).normal(size=(40, 5)) * [9, 1, 1, 1, 1]
    >>> whitened = whiten(vectors)
    >>> whitened.shape, whitened.std(axis=0).round(6).tolist()
    ((40, 5), [1.0, 1.0, 1.0, 1.0, 1.0])
    """
    number = max(1, min(MAX_WHITENED, len(vectors) // ROWS_PER_COMPONENT))
    components = principal_components(vectors, number)
    singular_values = np.linalg.norm(components, axis=0)
    if singular_values[0] <= TINY:
        return np.zeros((len(components), 1))
    components = components[:, singular_values > TINY * singular_values[0]]
    return np.asarray(components / components.std(axis=0))


def alignment(one: Vectors, other: Vectors) -> float:
    """Mean squared distance between the normalised embeddings of two views.

    Wang & Isola (2020), eq. 1.

    Parameters
    ----------
    one, other : ndarray, shape (N, D)
        Embeddings of the two views of each image.

    Returns
    -------
    float
        From 0 (equal) to 4.

    Examples
    --------
    >>> alignment(np.array([[1.0, 0.0]]), np.array([[0.0, 5.0]]))
    2.0
    """
    distance = unit_vectors(one) - unit_vectors(other)
    return float((distance**2).sum(axis=1).mean())


def uniformity(vectors: Vectors) -> float:
    """How evenly normalised vectors cover the sphere.

    Wang & Isola (2020), eq. 2: the logarithm of the mean of ``exp(-2 d^2)`` over all
    pairs.

    Parameters
    ----------
    vectors : ndarray, shape (N, D)
        Embeddings.

    Returns
    -------
    float
        0 if the embedding has collapsed, about -4 if it is uniform; 0 for one image.

    Examples
    --------
    >>> round(uniformity(np.eye(64)), 2), abs(round(uniformity(np.ones((4, 4))), 2))
    (-4.0, 0.0)
    """
    unit = unit_vectors(vectors)
    squared_distances = 2 - 2 * unit @ unit.T
    pairs = squared_distances[np.triu_indices(len(unit), 1)]
    return float(np.log(np.exp(-2 * pairs).mean())) if len(pairs) else 0.0


def retrieval(perturbed: Vectors, originals: Vectors) -> float:
    """Fraction of perturbed images whose nearest original, by cosine, is their own.

    Parameters
    ----------
    perturbed, originals : ndarray, shape (N, D)
        Embeddings of the same images in the same order.

    Returns
    -------
    float
        From 0 to 1.

    Examples
    --------
    >>> retrieval(np.array([[1.0, 0.1], [1.0, 0.2]]), np.eye(2))
    0.5
    """
    return float(retrieved(perturbed, originals).mean())


def retrieved(perturbed: Vectors, originals: Vectors) -> NDArray[np.bool_]:
    """Whether the nearest original, by cosine, of each perturbed image is its own.

    Parameters
    ----------
    perturbed, originals : ndarray, shape (N, D)
        Embeddings of the same images in the same order.

    Returns
    -------
    ndarray, shape (N,), bool
    """
    similarity = unit_vectors(perturbed) @ unit_vectors(originals).T
    return np.asarray(similarity.argmax(axis=1) == np.arange(len(similarity)))


def knn_score(
    vectors: Vectors,
    labels: Sequence[str],
    groups: Sequence[str],
    neighbours: int = NEIGHBOURS,
) -> Score:
    """Balanced accuracy of a nearest-neighbour classifier, by cosine.

    Parameters
    ----------
    vectors : ndarray, shape (N, D)
        Embeddings.
    labels : sequence of str
        N classes; at least two, each with as many groups as there are folds.
    groups : sequence of str
        N names; images of a group are never in both training and test set of a fold.
    neighbours : int
        Number of neighbours that vote, at least 1; by default 10.

    Returns
    -------
    Score
        Over five folds.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> vectors = rng.normal(size=(60, 2)) + np.repeat([[5, 0], [0, 5]], 30, axis=0)
    >>> labels, groups = ["a"] * 30 + ["b"] * 30, [str(k) for k in range(60)]
    >>> score = knn_score(vectors, labels, groups)
    >>> score.mean, score.confusion
    (1.0, [[30, 0], [0, 30]])
    """

    def weigh(distances: NDArray[np.float64]) -> NDArray[np.float64]:
        # A tie goes to the class whose voters are nearer.
        return 1 + 1e-3 * (1 - distances)

    return _cross_validate(
        lambda training_images: KNeighborsClassifier(
            min(neighbours, training_images), weights=weigh, metric="cosine"
        ),
        vectors,
        labels,
        groups,
    )


def linear_score(
    vectors: Vectors, labels: Sequence[str], groups: Sequence[str]
) -> Score:
    """Balanced accuracy of a linear probe: logistic regression on scaled embeddings.

    Parameters
    ----------
    vectors : ndarray, shape (N, D)
        Embeddings.
    labels : sequence of str
        N classes; at least two, each with as many groups as there are folds.
    groups : sequence of str
        N names; images of a group are never in both training and test set of a fold.

    Returns
    -------
    Score
        Over five folds.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> vectors = rng.normal(size=(60, 2)) + np.repeat([[5, 0], [0, 5]], 30, axis=0)
    >>> labels, groups = ["a"] * 30 + ["b"] * 30, [str(k) for k in range(60)]
    >>> linear_score(vectors, labels, groups).mean
    1.0
    """
    return _cross_validate(
        lambda training_images: linear_probe(), vectors, labels, groups
    )


def linear_probe() -> Pipeline:
    """The classifier of `linear_score`, not yet fitted."""
    return make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=2000))


def knn_regression_score(
    vectors: Vectors,
    numbers: Sequence[float],
    groups: Sequence[str],
    neighbours: int = NEIGHBOURS,
) -> RegressionScore:
    """How well the mean number of the nearest neighbours, by cosine, predicts numbers.

    Parameters
    ----------
    vectors : ndarray, shape (N, D)
        Embeddings.
    numbers : sequence of float
        N finite numbers; at least 25.
    groups : sequence of str
        N names; images of a group are never in both training and test set of a fold.
    neighbours : int
        Number of neighbours, at least 1; by default 10.

    Returns
    -------
    RegressionScore
        Over five folds.

    Examples
    --------
    >>> angles = np.linspace(0, 1.5, 200)
    >>> vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    >>> groups = [str(k) for k in range(200)]
    >>> bool(knn_regression_score(vectors, angles, groups).mean > 0.99)
    True
    """
    return _cross_validate_regression(
        lambda training_images: KNeighborsRegressor(
            min(neighbours, training_images), metric="cosine"
        ),
        vectors,
        numbers,
        groups,
    )


def ridge_score(
    vectors: Vectors, numbers: Sequence[float], groups: Sequence[str]
) -> RegressionScore:
    """How well a linear regression on scaled embeddings predicts numbers.

    Ridge regression; its penalty is chosen within the training images of a fold.

    Parameters
    ----------
    vectors : ndarray, shape (N, D)
        Embeddings.
    numbers : sequence of float
        N finite numbers; at least 25.
    groups : sequence of str
        N names; images of a group are never in both training and test set of a fold.

    Returns
    -------
    RegressionScore
        Over five folds.

    Examples
    --------
    >>> vectors = np.random.default_rng(0).normal(size=(100, 3))
    >>> groups = [str(k) for k in range(100)]
    >>> score = ridge_score(vectors, 2 * vectors[:, 0] - vectors[:, 1], groups)
    >>> score.r2_mean > 0.99
    True
    """
    return _cross_validate_regression(
        lambda training_images: make_pipeline(StandardScaler(), RidgeCV(PENALTIES)),
        vectors,
        numbers,
        groups,
    )


def _cross_validate_regression(
    make_regressor: Callable[[int], Any],
    vectors: Vectors,
    numbers: Sequence[float],
    groups: Sequence[str],
) -> RegressionScore:
    """Scores in five folds of similar numbers that keep the images of a group together.

    `make_regressor` is given the number of training images of a fold.
    """
    vectors, true = np.asarray(vectors, np.float64), np.asarray(numbers, np.float64)
    # The folds are those of classes, with a fifth of the sorted numbers in each class.
    ranks = true.argsort(kind="stable").argsort(kind="stable")
    all_predicted = np.empty_like(true)
    correlations, determinations = [], []
    for train, test in _folds(vectors, ranks * FOLDS // len(ranks), groups):
        predicted = make_regressor(len(train)).fit(vectors[train], true[train])
        predicted = all_predicted[test] = predicted.predict(vectors[test])
        correlations.append(rank_correlation(predicted, true[test]))
        determinations.append(_determination(predicted, true[test]))
    return RegressionScore(
        mean=float(np.mean(correlations)),
        std=float(np.std(correlations)),
        r2_mean=float(np.mean(determinations)),
        r2_std=float(np.std(determinations)),
        predicted=all_predicted,
    )


def _determination(predicted: Vectors, true: Vectors) -> float:
    """The coefficient of determination; 0 for numbers that are all equal."""
    return 0.0 if np.ptp(true) == 0 else float(r2_score(true, predicted))


def _folds(
    vectors: Vectors, classes: NDArray[Any], groups: Sequence[str]
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Training and test images of each fold, the same for the same classes."""
    folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=0)
    yield from folds.split(vectors, classes, list(groups))


def rank_correlation(one: Vectors, other: Vectors) -> float:
    """Spearman's rank correlation of two columns.

    Parameters
    ----------
    one, other : ndarray, shape (N,)
        Equal values share the mean of their ranks.

    Returns
    -------
    float
        From -1 to 1; 0 if a column is constant.

    Examples
    --------
    >>> round(rank_correlation([1, 2, 3], [10, 20, 1000]), 6)
    1.0
    """
    if np.ptp(one) == 0 or np.ptp(other) == 0:
        return 0.0
    return float(spearmanr(one, other).statistic)


def _cross_validate(
    make_classifier: Callable[[int], Any],
    vectors: Vectors,
    labels: Sequence[str],
    groups: Sequence[str],
) -> Score:
    """Balanced accuracy in five folds that keep the images of a group together.

    `make_classifier` is given the number of training images of a fold.
    """
    vectors = np.asarray(vectors, np.float64)
    true = np.asarray(labels)
    predicted = np.empty_like(true)
    accuracies = []
    for train, test in _folds(vectors, true, groups):
        classifier = make_classifier(len(train)).fit(vectors[train], true[train])
        predicted[test] = classifier.predict(vectors[test])
        # The mean recall of the classes in the fold is the balanced accuracy, but gives
        # no warning if a class is predicted that is not in the fold.
        classes = np.unique(true[test])
        accuracies.append(
            recall_score(true[test], predicted[test], labels=classes, average="macro")
        )
    confusion = confusion_matrix(true, predicted)
    return Score(
        float(np.mean(accuracies)),
        float(np.std(accuracies)),
        confusion.tolist(),
        predicted,
    )


def make_perturbations(noise: Tensor) -> dict[str, Perturbation]:
    """The perturbations by name; their random numbers are the same in every call.

    Parameters
    ----------
    noise : Tensor, shape (N,), float32
        Standard deviation of the noise of each image, for pixels from 0 to 1.

    Returns
    -------
    dict of str to callable
        Each takes images `(B, C, H, W)` and their indices `(B,)` among the N images,
        and returns perturbed images `(B, C, H, W)`.
    """

    def augment(**strengths: Any) -> Perturbation:
        settings = AugmentationSettings.model_validate(NO_STRENGTH | strengths)
        generator = torch.Generator().manual_seed(1)
        return lambda images, indices: SkyAugmentation(settings, generator)(images)

    def add_noise(images: Tensor, indices: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(2)
        sigma = noise[indices].view(-1, 1, 1, 1).to(images)
        added = torch.randn(images.shape, generator=generator).to(images)
        return (images + sigma * added).clamp(0, 1)

    def dim(images: Tensor, indices: Tensor) -> Tensor:
        background = images.flatten(2).median(dim=2).values[..., None, None]
        return background + 0.5 * (images - background)

    return {
        "rotated": augment(flip=False),
        "flipped": lambda images, indices: images.flip(3),
        "shifted": augment(rotation=False, flip=False, shift=0.08),
        "noisier": add_noise,
        "blurred": lambda images, indices: gaussian_blur(
            images, torch.ones(len(images))
        ),
        "fainter": dim,
    }


def measure_robustness(embed: Embedder, images: ImageSet, noise: Tensor) -> Robustness:
    """Retrieval and alignment of perturbed images, by perturbation.

    Parameters
    ----------
    embed : callable
        Embeds images, perturbed if a perturbation is given.
    images : CachedDataset, MappedDataset or NativeDataset
        N images.
    noise : Tensor, shape (N,), float32
        Standard deviation of their noise, as for `make_perturbations`.

    Returns
    -------
    Robustness
    """
    originals = embed(images, None)
    perturbed = {
        name: embed(images, perturbation)
        for name, perturbation in make_perturbations(noise).items()
    }
    found = {name: retrieved(one, originals) for name, one in perturbed.items()}
    return Robustness(
        {name: float(one.mean()) for name, one in found.items()},
        {name: alignment(one, originals) for name, one in perturbed.items()},
        found,
    )
