"""What an epoch came to: the record, TensorBoard's scalars, lines in the log."""

import logging
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from astromorph.byol.collapse import Vectors, rank_me, spread

LOG = logging.getLogger(__name__)
COLLAPSED = 0.3  # share of the measures before training below which it is one
SAME = 1.05, 0.01  # effective rank and spread below which all embeddings are alike


@dataclass(frozen=True, slots=True)
class Epoch:
    """What one epoch came to.

    Attributes
    ----------
    epoch : int
        From 1.
    train_loss : float
        BYOL's loss, mean over the images, from 0 to 8.
    test_loss : float or None
        The same for the held-out images; None where there are none.
    lesson_loss : float or None
        How wrongly shapes of simulated images are told; None without them.
    learning_rate : float
        Of its last step.
    moving_average_decay : float
        After its last step.
    effective_rank, spread : float
        Of the embeddings of up to 512 held-out images (training ones where fewer
        than 64 are held out): 1 and 0 are a collapse.

    Examples
    --------
    >>> epoch = Epoch(1, 4.2, None, None, 1e-3, 0.99, 12.5, 0.4)
    >>> epoch.effective_rank
    12.5
    """

    epoch: int
    train_loss: float
    test_loss: float | None
    lesson_loss: float | None
    learning_rate: float
    moving_average_decay: float
    effective_rank: float
    spread: float


def measure_collapse(vectors: Vectors) -> tuple[float, float]:
    """Effective rank and spread of embeddings `(N, D)`; NaN where one is not finite."""
    if not np.isfinite(vectors).all():
        return math.nan, math.nan
    return rank_me(vectors), spread(vectors)


def warn_of_collapse(
    now: tuple[float, float],
    before: tuple[float, float],
    epoch: int,
    use_momentum: bool = True,
) -> None:
    """Warn where the embeddings begin to be all the same, or are.

    Parameters
    ----------
    now, before : tuple of float
        Effective rank and spread after the epoch, and before training.
    epoch : int
        From 1.
    use_momentum : bool
        Whether the target is a slow average.
    """
    gone = now[0] < SAME[0] or now[1] < SAME[1]
    if not (gone or now[0] < COLLAPSED * before[0] or now[1] < COLLAPSED * before[1]):
        return
    remedy = "set a smaller `learning_rate` or a larger `batch_size`"
    remedy += "" if use_momentum else ", or `use_momentum` to true"
    if before[0] < SAME[0] or before[1] < SAME[1]:
        remedy = "they were so before training: look whether the images differ"
    LOG.warning(
        "epoch %d: the embedding collapses (effective rank %.2f, spread %.4f; %.2f "
        "and %.4f before training); %s", epoch, *now, *before, remedy,
    )  # fmt: skip


def log_epoch(epoch: Epoch, epochs: int) -> None:
    """One line for the log."""
    test = "none held out" if epoch.test_loss is None else f"{epoch.test_loss:.4f}"
    lesson = "" if epoch.lesson_loss is None else f" lessons {epoch.lesson_loss:.4f},"
    LOG.info(
        "epoch %d of %d: train loss %.4f,%s test loss %s, effective rank %.1f",
        epoch.epoch, epochs, epoch.train_loss, lesson, test, epoch.effective_rank,
    )  # fmt: skip


@contextmanager
def scalar_writer(log_dir: str | Path | None) -> Iterator[Callable[[Epoch], None]]:
    """What writes an epoch's scalars for TensorBoard; nothing without a folder."""
    if log_dir is None:
        yield lambda epoch: None
        return
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(log_dir)) as writer:

        def write(epoch: Epoch) -> None:
            values = {
                "loss/train": epoch.train_loss,
                "loss/test": epoch.test_loss,
                "loss/lessons": epoch.lesson_loss,
                "embedding/effective_rank": epoch.effective_rank,
                "embedding/spread": epoch.spread,
                "schedule/learning_rate": epoch.learning_rate,
                "schedule/moving_average_decay": epoch.moving_average_decay,
            }
            for name, value in values.items():
                if value is not None:
                    writer.add_scalar(name, value, epoch.epoch)

        yield write
