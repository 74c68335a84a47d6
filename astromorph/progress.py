"""Progress of long work: a bar in a terminal, plain lines in a log file."""

import logging
import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")
LOG = logging.getLogger(__name__)
SECONDS_BETWEEN_LINES = 20.0


def track(items: Iterable[Item], total: int, what: str) -> Iterator[Item]:
    """Pass `items` through and show how far the work is.

    Parameters
    ----------
    items : iterable
        What is worked on, one at a time.
    total : int
        How many there will be.
    what : str
        What they are, in the plural: ``"files"``.

    Yields
    ------
    item
        The items, unchanged and in order.
    """
    if sys.stderr.isatty():
        from tqdm import tqdm

        yield from tqdm(items, total=total, desc=what, leave=False, file=sys.stderr)
        return
    start = last = time.monotonic()
    for done, item in enumerate(items):
        now = time.monotonic()
        if now - last >= SECONDS_BETWEEN_LINES:
            rate = done / (now - start)
            LOG.info("%s: %d of %d, %.1f per second", what, done, total, rate)
            last = now
        yield item
