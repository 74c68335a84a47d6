"""Progress of long loops: a bar in a terminal, lines in a log file."""

import logging
import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")
LOG = logging.getLogger(__name__)
SECONDS_BETWEEN_LINES = 20.0


def track(items: Iterable[Item], total: int, label: str) -> Iterator[Item]:
    """Yield items and report the progress.

    Parameters
    ----------
    items : iterable
        The items of the loop.
    total : int
        Number of items.
    label : str
        Description of the items in the plural, such as ``"files"``.

    Yields
    ------
    item
        The items, unchanged and in order.
    """
    if sys.stderr.isatty():
        from tqdm import tqdm

        yield from tqdm(items, total=total, desc=label, leave=False, file=sys.stderr)
        return
    start = last_line = time.monotonic()
    for done, item in enumerate(items):
        now = time.monotonic()
        if now - last_line >= SECONDS_BETWEEN_LINES:
            rate = done / (now - start)
            LOG.info("%s: %d of %d, %.1f per second", label, done, total, rate)
            last_line = now
        yield item
