"""Background and noise of an image, by sigma clipping."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

CLIP, CLIPS = 3.0, 5  # how far, how often at most
MAX_MEASURED = 2**12  # pixels that background and noise are taken from


def sigma_clip(values: NDArray[Any], most: int = MAX_MEASURED) -> tuple[float, float]:
    """Median and standard deviation after sigma clipping.

    The same numbers as ``astropy.stats.sigma_clipped_stats(values)``: values
    more than 3 standard deviations from the median are left out, up to 5 times.
    After one sorting, every pass is a search in it, which makes it several
    times faster. Of more than `most` values, evenly spaced ones are taken; with
    4096 this leaves errors of about 0.02 and 0.01 times the noise.

    Parameters
    ----------
    values : ndarray, shape (N,)
        Finite, N at least 1.
    most : int
        About how many of them are looked at.

    Returns
    -------
    background, noise : float
        Where most values are alike (simulations, sums with a floor, a faint
        source on nothing) the clipped deviation can be 0; that of all values
        then stands in. 0 where all are equal.
    """
    # An odd step does not walk along the same columns again and again.
    step = -(-values.size // most)
    step += step % 2 == 0
    ordered = np.sort(values[::step])
    reference = ordered[len(ordered) // 2]
    distance = ordered.astype(np.float64) - float(reference)
    first, last = 0, len(distance)
    middle, deviation = _middle(distance)
    everything = deviation
    for _ in range(CLIPS):
        reach = CLIP * deviation
        new_first = int(distance.searchsorted(middle - reach, "left"))
        new_last = int(distance.searchsorted(middle + reach, "right"))
        new_first, new_last = max(first, new_first), min(last, new_last)
        if (new_first, new_last) == (first, last) or new_first >= new_last:
            break
        first, last = new_first, new_last
        middle, deviation = _middle(distance[first:last])
    noise = deviation or everything or float(np.std(values, dtype=np.float64))
    return float(reference) + middle, noise


def _middle(ordered: NDArray[np.float64]) -> tuple[float, float]:
    """Median and standard deviation of sorted values."""
    number = len(ordered)
    median = 0.5 * float(ordered[(number - 1) // 2] + ordered[number // 2])
    if ordered[0] == ordered[-1]:
        return median, 0.0
    mean = float(ordered.sum()) / number
    variance = float(ordered @ ordered) / number - mean * mean
    return median, math.sqrt(max(0.0, variance))
