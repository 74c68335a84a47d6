"""The training history: a record of each epoch, in the log and in TensorBoard."""

import logging
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from astromorph.byol.collapse import Vectors, rank_me, spread
from astromorph.errors import (
    explaining_write_errors,
    without_tensorboard_tracebacks,
)

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

LOG = logging.getLogger(__name__)
# Collapse: a measure below this fraction of its value before training,
COLLAPSED_SHARE = 0.3
# or so low that all embeddings are practically the same.
MIN_RANK, MIN_SPREAD = 1.05, 0.01


@dataclass(frozen=True, slots=True)
class Epoch:
    """Losses and measures of one epoch.

    Attributes
    ----------
    epoch : int
        Number of the epoch, from 1.
    train_loss : float
        BYOL's mean loss over the training images, from 0 to 8.
    test_loss : float or None
        BYOL's mean loss over the test images; None if there are none.
    auxiliary_loss : float or None
        Loss of the auxiliary task on simulated images; None without one.
    learning_rate : float
        Learning rate of the last step.
    moving_average_decay : float
        Decay of the moving average after the last step.
    effective_rank, spread : float
        Of the embeddings of up to 512 test images (training images if there are fewer
        than 64 test images); 1 and 0 mean collapse.

    Examples
    --------
    >>> epoch = Epoch(1, 4.2, None, None, 1e-3, 0.99, 12.5, 0.4)
    >>> epoch.effective_rank
    12.5
    """

    epoch: int
    train_loss: float
    test_loss: float | None
    auxiliary_loss: float | None
    learning_rate: float
    moving_average_decay: float
    effective_rank: float
    spread: float


class Reporter:
    """Measures, records and reports each training epoch.

    Parameters
    ----------
    history : list of Epoch
        One record is appended for each epoch.
    epochs : int
        Number of epochs of the training.
    initial_collapse : tuple of float
        Effective rank and spread before training.
    has_auxiliary_task : bool
        Whether there is an auxiliary loss.
    use_momentum : bool
        Whether the target network is a moving average.
    compute_test_loss : callable
        Returns the loss of the test images, or None if there are none.
    compute_embeddings : callable
        Returns the embeddings `(N, D)` that are monitored for collapse.
    """

    def __init__(
        self,
        history: list[Epoch],
        epochs: int,
        initial_collapse: tuple[float, float],
        has_auxiliary_task: bool,
        use_momentum: bool,
        compute_test_loss: Callable[[], float | None],
        compute_embeddings: Callable[[], Tensor],
    ) -> None:
        self.history = history
        self.epochs = epochs
        self.initial_collapse = initial_collapse
        self.has_auxiliary_task = has_auxiliary_task
        self.use_momentum = use_momentum
        self.compute_test_loss = compute_test_loss
        self.compute_embeddings = compute_embeddings
        self._write_scalars: Callable[[Epoch], None] = _write_nothing

    @contextmanager
    def writing_to(self, log_dir: str | Path | None) -> Iterator[None]:
        """Write scalars for TensorBoard, starting with those of earlier epochs.

        Parameters
        ----------
        log_dir : path or None
            The folder; nothing is written if None.
        """
        with scalar_writer(log_dir) as write:
            self._write_scalars = write
            for record in self.history:
                write(record)
            yield

    def finish_epoch(
        self,
        epoch: int,
        train_loss: float,
        auxiliary_loss: float,
        learning_rate: float,
        moving_average_decay: float,
    ) -> float:
        """Report an epoch; the parameters are described in `Epoch`.

        Returns
        -------
        float
            The test loss, or the training loss if there are no test images.
        """
        test_loss = self.compute_test_loss()
        collapse = measure_collapse(self.compute_embeddings().numpy())
        warn_of_collapse(collapse, self.initial_collapse, epoch, self.use_momentum)
        record = Epoch(
            epoch,
            train_loss,
            test_loss,
            auxiliary_loss if self.has_auxiliary_task else None,
            learning_rate,
            moving_average_decay,
            *collapse,
        )
        self.history.append(record)
        self._write_scalars(record)
        log_epoch(record, self.epochs)
        return train_loss if test_loss is None else test_loss


def measure_collapse(embeddings: Vectors) -> tuple[float, float]:
    """Effective rank and spread of embeddings `(N, D)`; NaN if one is not finite."""
    if not np.isfinite(embeddings).all():
        return math.nan, math.nan
    return rank_me(embeddings), spread(embeddings)


def warn_of_collapse(
    now: tuple[float, float],
    before: tuple[float, float],
    epoch: int,
    use_momentum: bool = True,
) -> None:
    """Log a warning if the embeddings of different images become the same.

    Parameters
    ----------
    now, before : tuple of float
        Effective rank and spread after the epoch, and before training.
    epoch : int
        Number of the epoch, from 1.
    use_momentum : bool
        Whether the target network is a moving average.
    """
    shares = now[0] < COLLAPSED_SHARE * before[0], now[1] < COLLAPSED_SHARE * before[1]
    if not (_is_collapsed(now) or any(shares)):
        return
    remedy = "set a smaller `learning_rate` or a larger `batch_size`"
    remedy += "" if use_momentum else ", or `use_momentum` to true"
    if _is_collapsed(before):
        remedy = "it had collapsed before training: check that the images differ"
    LOG.warning(
        "epoch %d: the embedding is collapsing (effective rank %.2f, spread %.4f; "
        "%.2f and %.4f before training); %s",
        *(epoch, *now, *before, remedy),
    )


def _is_collapsed(measures: tuple[float, float]) -> bool:
    return measures[0] < MIN_RANK or measures[1] < MIN_SPREAD


def log_epoch(record: Epoch, epochs: int) -> None:
    """Write one line about an epoch to the log."""
    losses = [f"train loss {record.train_loss:.4f}"]
    if record.auxiliary_loss is not None:
        losses.append(f"auxiliary loss {record.auxiliary_loss:.4f}")
    if record.test_loss is not None:
        losses.append(f"test loss {record.test_loss:.4f}")
    LOG.info(
        "epoch %d of %d: %s, effective rank %.1f",
        *(record.epoch, epochs, ", ".join(losses), record.effective_rank),
    )


def _write_nothing(record: Epoch) -> None:
    pass


@contextmanager
def scalar_writer(log_dir: str | Path | None) -> Iterator[Callable[[Epoch], None]]:
    """A function that writes the scalars of an epoch for TensorBoard.

    Parameters
    ----------
    log_dir : path or None
        The folder; nothing is written if None.
    """
    if log_dir is None:
        yield _write_nothing
        return
    with summary_writer(log_dir) as writer:

        def write(record: Epoch) -> None:
            values = {
                "loss/train": record.train_loss,
                "loss/test": record.test_loss,
                "loss/auxiliary": record.auxiliary_loss,
                "embedding/effective_rank": record.effective_rank,
                "embedding/spread": record.spread,
                "schedule/learning_rate": record.learning_rate,
                "schedule/moving_average_decay": record.moving_average_decay,
            }
            with explaining_write_errors(log_dir, log_dir):
                for name, value in values.items():
                    if value is not None:
                        writer.add_scalar(name, value, record.epoch)

        yield write


@contextmanager
def summary_writer(log_dir: str | Path) -> Iterator["SummaryWriter"]:
    """A writer of TensorBoard's files, without the traceback of its thread.

    Parameters
    ----------
    log_dir : path
        The folder.

    Raises
    ------
    WriteError
        The disk is full or not writable. An error of the block is raised first.
    """
    from torch.utils.tensorboard import SummaryWriter

    with without_tensorboard_tracebacks():
        with explaining_write_errors(log_dir, log_dir):
            writer = SummaryWriter(str(log_dir))
        try:
            yield writer
        except BaseException:
            with suppress(OSError):
                writer.close()
            raise
        with explaining_write_errors(log_dir, log_dir):
            writer.close()
