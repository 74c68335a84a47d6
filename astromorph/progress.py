"""Progress of long loops: bars at the bottom of a terminal, lines in a log file.

Steps report their progress as lines of their log. Where people look at a terminal, such
lines become bars, whether a step logs to the terminal itself or the workflow reads its
log.
"""

import logging
import multiprocessing
import os
import re
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TextIO, TypeVar

Item = TypeVar("Item")
LOG = logging.getLogger(__name__)
SECONDS_BETWEEN_LINES = 20.0
BAR_FORMAT = "{desc}: {percentage:3.0f}%|{bar:20}| {n_fmt} of {total_fmt}"
EPOCHS = "epochs"
EPOCH_LINE = re.compile(r"epoch (\d+) of (\d+): (.*)")
# Training logs it after the first Ctrl-C; the workflow shows it at once.
AFTER_CTRL_C = (
    "Ctrl-C: writing a checkpoint after this step; press it again to end at once"
)
# The last error of an interrupted step; training has more to say.
INTERRUPTED = "interrupted; files that were already complete are kept"
ITEMS_LINE = re.compile(r"(.*): (\d+) of (\d+), ([\d.]+ per second)")


@dataclass(frozen=True, slots=True)
class Progress:
    """The progress of a loop.

    Attributes
    ----------
    label : str
        Description of the items in the plural, such as ``"files"``.
    done, total : int
        Number of items.
    note : str
        What else its line says.
    """

    label: str
    done: int
    total: int
    note: str = ""


def parse_progress(message: str) -> Progress | None:
    """The progress that a line of a log reports; None for all other lines.

    Examples
    --------
    >>> parse_progress("images read: 300 of 1000, 15.2 per second")
    Progress(label='images read', done=300, total=1000, note='15.2 per second')
    >>> parse_progress("epoch 2 of 60: train loss 3.1")
    Progress(label='epochs', done=2, total=60, note='train loss 3.1')
    >>> parse_progress("the model was written to model.pt")
    """
    if match := EPOCH_LINE.fullmatch(message):
        return Progress(EPOCHS, int(match[1]), int(match[2]), match[3])
    if match := ITEMS_LINE.fullmatch(message):
        return Progress(match[1], int(match[2]), int(match[3]), match[4])
    return None


def shows_bars(stream: TextIO) -> bool:
    """Whether bars can be drawn: the stream is a terminal that can move its cursor."""
    return stream.isatty() and os.environ.get("TERM") != "dumb"


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
    # The bars of several worker processes would overwrite each other.
    if shows_bars(sys.stderr) and multiprocessing.parent_process() is None:
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


class Bars:
    """Bars at the bottom of a terminal, below the lines that are written.

    Parameters
    ----------
    stream : text file
        The terminal.
    """

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self._bars: dict[str, Any] = {}

    def show(self, name: str, progress: Progress, with_time: bool = True) -> None:
        """Draw the bar of this name, or draw it again.

        Parameters
        ----------
        name : str
            The bar; it is drawn until `close` is called with its name.
        progress : Progress
            What it shows.
        with_time : bool
            Whether it also shows an estimate of the remaining time.
        """
        from tqdm import tqdm

        bar = self._bars.get(name)
        if bar is None:
            bar = self._bars[name] = tqdm(
                total=progress.total,
                initial=progress.done,
                file=self.stream,
                leave=False,
                dynamic_ncols=True,
                bar_format=BAR_FORMAT + with_time * ", {remaining} left" + "{postfix}",
            )
        elif progress.label != bar.desc or progress.done < bar.n:
            # Another loop of the same name: its remaining time counts from here.
            bar.initial, bar.start_t = progress.done, time.time()
        bar.total, bar.n = progress.total, progress.done
        bar.set_description_str(progress.label, refresh=False)
        bar.set_postfix_str(progress.note)

    def write(self, text: str) -> None:
        """Write a line above the bars."""
        from tqdm import tqdm

        tqdm.write(text, file=self.stream)

    def close(self, name: str | None = None) -> None:
        """Remove the bar of this name, if there is one; by default all bars."""
        for key in [*self._bars] if name is None else [name]:
            bar = self._bars.pop(key, None)
            if bar is not None:
                bar.close()


class _BarsInsteadOfLines(logging.Filter):
    """Draws the epochs of a training as a bar, and lets all other records pass."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self.bars = Bars(stream)

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is written as a line."""
        if record.levelno >= logging.ERROR:  # the last line, as after Ctrl-C
            self.bars.close()
        progress = parse_progress(record.getMessage())
        if progress is None or progress.label != EPOCHS:
            return True
        if progress.done < progress.total:
            self.bars.show(EPOCHS, progress)
            return False
        self.bars.close()
        return True


def show_bars_in_log(handler: logging.Handler) -> None:
    """Draw bars below the lines that a handler writes to a terminal.

    Nothing changes if the stream of the handler is no terminal.

    Parameters
    ----------
    handler : logging.Handler
        Each record of an epoch becomes a bar, except the last one of a training.
    """
    if not isinstance(handler, logging.StreamHandler):
        return
    if not shows_bars(handler.stream):
        return
    from tqdm.contrib import DummyTqdmFile

    handler.addFilter(_BarsInsteadOfLines(handler.stream))
    handler.setStream(DummyTqdmFile(handler.stream))
