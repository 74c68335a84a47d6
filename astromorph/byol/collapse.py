"""Measures of collapse, in which the embeddings of all images become the same."""

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.floating]
TINY = 1e-7


def rank_me(vectors: Vectors) -> float:
    """Effective rank: the exponential of the entropy of the singular values.

    Garrido et al. (2023), eq. 1.

    Parameters
    ----------
    vectors : ndarray, shape (N, D)
        Embeddings.

    Returns
    -------
    float
        From 1 (collapsed) to the smaller of N and D.

    Examples
    --------
    >>> round(rank_me(np.eye(4)), 3), round(rank_me(np.ones((4, 4))), 3)
    (4.0, 1.0)
    """
    singular = np.linalg.svd(np.asarray(vectors, np.float64), compute_uv=False)
    share = singular / max(singular.sum(), TINY) + TINY
    return float(np.exp(-(share * np.log(share)).sum()))


def spread(vectors: Vectors) -> float:
    """Standard deviation of unit vectors, times the square root of D.

    Chen & He (2021), fig. 2.

    Parameters
    ----------
    vectors : ndarray, shape (N, D)
        Embeddings.

    Returns
    -------
    float
        1 if the directions are evenly distributed, 0 if all are the same.

    Examples
    --------
    >>> round(spread(np.concatenate([np.eye(2), -np.eye(2)])), 6)
    1.0
    """
    unit = unit_vectors(vectors)
    return float(unit.std(axis=0).mean() * np.sqrt(unit.shape[1]))


def unit_vectors(vectors: Vectors) -> NDArray[np.float64]:
    """Vectors scaled to the length 1; a vector of zeros does not change.

    Parameters
    ----------
    vectors : ndarray, shape (N, D)
        Embeddings.

    Returns
    -------
    ndarray, shape (N, D), float64

    Examples
    --------
    >>> unit_vectors(np.array([[3.0, 4.0], [0.0, 0.0]]))
    array([[0.6, 0.8],
           [0. , 0. ]])
    """
    vectors = np.asarray(vectors, dtype=np.float64)
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(length, TINY))
