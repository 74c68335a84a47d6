"""Background and noise of an image, by sigma clipping."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

CLIP_SIGMAS, MAX_CLIPS = 3.0, 5
MAX_VALUES = 2**12  # pixels from which background and noise are measured


def sigma_clip(
    values: NDArray[Any], max_values: int = MAX_VALUES
) -> tuple[float, float]:
    """Median and standard deviation after sigma clipping.

    The results equal those of ``astropy.stats.sigma_clipped_stats(values)``: values
    more than 3 standard deviations from the median are removed, up to 5 times. The
    values are sorted once, and each iteration is a search in the sorted array, which
    makes it several times faster. Of more than `max_values` values, evenly spaced ones
    are used; with 4096 values, background and noise have errors of about 0.02 and 0.01
    times the noise.

    Parameters
    ----------
    values : ndarray, shape (N,)
        Finite, N at least 1.
    max_values : int
        How many values are used at most, approximately.

    Returns
    -------
    background, noise : float
        The clipped deviation can be 0 where most values are equal (simulations, sums
        with a floor, a faint source on an empty background); the deviation of all
        values is returned then. It is 0 if all values are equal.
    """
    # An odd step, since an even one could select the same columns in every row.
    step = -(-values.size // max_values)
    step += step % 2 == 0
    ordered = np.sort(values[::step])
    reference = ordered[len(ordered) // 2]
    distance = ordered.astype(np.float64) - float(reference)
    first, last = 0, len(distance)
    median, deviation = _median_and_deviation(distance)
    unclipped_deviation = deviation
    for _ in range(MAX_CLIPS):
        limit = CLIP_SIGMAS * deviation
        new_first = int(distance.searchsorted(median - limit, "left"))
        new_last = int(distance.searchsorted(median + limit, "right"))
        new_first, new_last = max(first, new_first), min(last, new_last)
        if (new_first, new_last) == (first, last) or new_first >= new_last:
            break
        first, last = new_first, new_last
        median, deviation = _median_and_deviation(distance[first:last])
    noise = deviation or unclipped_deviation or float(np.std(values, dtype=np.float64))
    return float(reference) + median, noise


def _median_and_deviation(ordered: NDArray[np.float64]) -> tuple[float, float]:
    """Median and standard deviation of sorted values."""
    number = len(ordered)
    median = 0.5 * float(ordered[(number - 1) // 2] + ordered[number // 2])
    if ordered[0] == ordered[-1]:
        return median, 0.0
    mean = float(ordered.sum()) / number
    variance = float(ordered @ ordered) / number - mean * mean
    return median, math.sqrt(max(0.0, variance))
