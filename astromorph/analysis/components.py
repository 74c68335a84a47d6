"""The leading components of embeddings in 8 bits, from which marks are learned.

The map contains the same integers, so that the ranking in a browser and that of the
step `rank` agree to rounding.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from astromorph.analysis.space import Space

MAX_COMPONENTS = 24
MAX_CODE = 127


@dataclass(frozen=True, slots=True)
class Components:
    """Coordinates of N images, rounded to 8 bits.

    Attributes
    ----------
    codes : ndarray, shape (N, K), int8
        From -127 to 127.
    scales : ndarray, shape (K,), float32
        The coordinate of an image is its code times the scale of the component.
    """

    codes: NDArray[np.int8]
    scales: NDArray[np.float32]

    def values(self) -> NDArray[np.float64]:
        """The coordinates, `(N, K)`."""
        return self.codes.astype(np.float64) * self.scales.astype(np.float64)


def leading_components(vectors: NDArray[np.float32], space: Space) -> Components:
    """The leading components of the points between which `analyse` measures distances.

    Parameters
    ----------
    vectors : ndarray, shape (N, D), float32
        Embeddings of all images of the analysis; see `read_analysed_images`.
    space : Space
        The space in which they are compared.

    Returns
    -------
    Components
        At most `MAX_COMPONENTS`.
    """
    return quantise(space.project(vectors)[:, :MAX_COMPONENTS])


def quantise(points: NDArray[np.float32]) -> Components:
    """Round coordinates to 8 bits.

    Parameters
    ----------
    points : ndarray, shape (N, K), float32
        At least one row.

    Returns
    -------
    Components
        Each coordinate differs from the original by at most 1/254 of the largest one
        of its component.

    Examples
    --------
    >>> components = quantise(np.array([[0.5, 0.0], [-1.27, 0.0]], np.float32))
    >>> components.codes.tolist()
    [[50, 0], [-127, 0]]
    """
    largest = np.abs(points).max(axis=0)
    scales = np.where(largest > 0, largest / MAX_CODE, 1).astype(np.float32)
    codes = np.clip(np.rint(points / scales), -MAX_CODE, MAX_CODE)
    return Components(codes.astype(np.int8), scales)
