"""The space in which all distances between embeddings are taken.

Principal components of the embeddings, their variances evened in part, and of each
image the direction from the mean alone.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]

TINY = 1e-6  # what float32 embeddings of equal images differ by
ROWS_AT_A_TIME = 8192
ROWS_PER_COMPONENT = 4
MIN_COMPONENTS = 8
MIN_ANGULAR = 3  # in fewer dimensions a direction says too little


@dataclass(frozen=True, slots=True)
class Space:
    """Where an embedding lies among the others.

    Attributes
    ----------
    mean : ndarray, shape (D,), float64
        Of the embeddings.
    axes : ndarray, shape (D, K), float64
        Principal components, scaled.
    least : float
        Lengths below this are as good as none.
    explained : ndarray, shape (K,), float64
        Share of the variance that each component has.
    """

    mean: NDArray[np.float64]
    axes: NDArray[np.float64]
    least: float
    explained: NDArray[np.float64]

    @property
    def angular(self) -> bool:
        """Whether points have length 1."""
        return int(self.axes.shape[1]) >= MIN_ANGULAR

    def place(self, vectors: Vectors) -> Vectors:
        """Points of embeddings, also of others than the space was made from.

        Euclidean distances between them run from 0 to 2: 1.41 is unrelated, 2
        opposite. In spaces of one or two dimensions points have any length, and
        distances are those of the components.

        Parameters
        ----------
        vectors : ndarray, shape (N, D), float32
            Embeddings.

        Returns
        -------
        ndarray, shape (N, K), float32
        """
        return self._projected(vectors, self.angular)

    def components(self, vectors: Vectors) -> Vectors:
        """The same `(N, K)` with their own lengths: how far from the mean."""
        return self._projected(vectors, False)

    def _projected(self, vectors: Vectors, directions: bool) -> Vectors:
        points = np.empty((len(vectors), self.axes.shape[1]), np.float32)
        for rows in _parts(len(vectors)):
            found = (np.asarray(vectors[rows], np.float64) - self.mean) @ self.axes
            if directions:
                length = np.linalg.norm(found, axis=1, keepdims=True)
                found /= np.maximum(length, self.least)
            points[rows] = found
        return points


def fit_space(vectors: Vectors, whiten: float, components: int) -> Space:
    """Find the space of some embeddings.

    Distances are by cosine, about the mean: an image twice as bright is in the same
    direction, farther out. On radio galaxies and on the simulated sky the twelve
    nearest are of an image's own kind more often by cosine than by Euclidean
    distance, whatever the network; and most often where the standard deviation of
    each component is evened half way (`whiten` 0.5), for trained and untrained
    networks alike. docs/analysis.md has the figures.

    Parameters
    ----------
    vectors : ndarray, shape (N, D), float32
        Embeddings, at least one.
    whiten : float
        Power of each component's standard deviation by which it is divided: 0
        leaves them, 1 gives all the same variance.
    components : int
        Most that are kept; no more than one for every four images, but eight where
        there are as many. Those without variance are left out.

    Returns
    -------
    Space
    """
    mean: NDArray[np.float64] = np.asarray(vectors.mean(axis=0, dtype=np.float64))
    deviations, axes = _principal(vectors, mean)
    total = float((deviations**2).sum())
    size = float(np.sqrt(np.mean(mean**2) * len(mean)))
    if not len(deviations) or deviations[0] <= TINY * size or total == 0:
        return Space(mean, np.zeros((len(mean), 1)), 1.0, np.zeros(1))
    most = min(components, max(MIN_COMPONENTS, len(vectors) // ROWS_PER_COMPONENT))
    kept = min(most, int(np.count_nonzero(deviations > TINY * deviations[0])))
    scale = deviations[:kept] ** -whiten
    typical = float(np.sqrt(((deviations[:kept] * scale) ** 2).sum()))
    return Space(
        mean, axes[:, :kept] * scale, TINY * typical, deviations[:kept] ** 2 / total
    )


def _principal(
    vectors: Vectors, mean: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Standard deviations, the largest first, and axes `(D, K)` with fixed signs."""
    number, length = vectors.shape
    if number <= length:
        centred = np.asarray(vectors, np.float64) - mean
        _, singular, rows = np.linalg.svd(centred, full_matrices=False)
        deviations, axes = singular / np.sqrt(number), rows.T
    else:
        # A second copy in double precision of a large set would cost memory.
        covariance = np.zeros((length, length))
        for part in _parts(number):
            centred = np.asarray(vectors[part], np.float64) - mean
            covariance += centred.T @ centred
        variances, columns = np.linalg.eigh(covariance / number)
        deviations = np.sqrt(np.maximum(variances[::-1], 0))
        axes = columns[:, ::-1]
    largest = np.abs(axes).argmax(axis=0)
    signs = np.sign(axes[largest, np.arange(axes.shape[1])])
    return deviations, axes * signs


def _parts(number: int) -> Iterator[slice]:
    for start in range(0, number, ROWS_AT_A_TIME):
        yield slice(start, start + ROWS_AT_A_TIME)
