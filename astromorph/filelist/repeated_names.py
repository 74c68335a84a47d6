"""Names that occur more than once among more than memory should hold."""

from collections.abc import Iterable
from itertools import islice

import numpy as np

# Bloom (1970), three bits a name: with 10^7 names 1 in 20 is taken for a repeated one.
BITS = 2**26
SHIFTS = np.array([0, 19, 38], np.uint64)
CHUNK = 2**15


def repeated_names(names: Iterable[str]) -> frozenset[int]:
    """Hashes of all names that come more than once, and of a few others.

    The names are not kept: ten million take no more memory than a thousand.

    Parameters
    ----------
    names : iterable of str
        Read once.

    Returns
    -------
    frozenset of int
        What `hash` gives of them in this process. One that is not in it came once.
    """
    seen, found = np.zeros(BITS // 8, np.uint8), set[int]()
    rest = iter(names)
    while chunk := [hash(name) for name in islice(rest, CHUNK)]:
        hashes, times = np.unique(np.array(chunk, np.int64), return_counts=True)
        places = hashes.view(np.uint64)[:, None] >> SHIFTS & np.uint64(BITS - 1)
        byte, bit = places >> np.uint64(3), places & np.uint64(7)
        bit = np.left_shift(1, bit).astype(np.uint8)
        known = (seen[byte] & bit != 0).all(axis=1)
        found.update(hashes[known | (times > 1)].tolist())
        np.bitwise_or.at(seen, byte, bit)
    return frozenset(found)
