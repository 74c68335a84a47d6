"""What an epoch came to: the record, TensorBoard's scalars, lines in the log."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

LOG = logging.getLogger(__name__)
COLLAPSED = 0.3  # share of the measures before training below which it is one


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
        Of the embeddings of up to 512 held-out images (training ones where too
        few are held out): 1 and 0 are a collapse.
    """

    epoch: int
    train_loss: float
    test_loss: float | None
    lesson_loss: float | None
    learning_rate: float
    moving_average_decay: float
    effective_rank: float
    spread: float


def announce_collapse(
    now: tuple[float, float], before: tuple[float, float], epoch: int
) -> None:
    """Warn where the embeddings begin to be all the same.

    Parameters
    ----------
    now, before : tuple of float
        Effective rank and spread after the epoch, and before training.
    epoch : int
        From 1.
    """
    if now[0] < COLLAPSED * before[0] or now[1] < COLLAPSED * before[1]:
        LOG.warning(
            "epoch %d: the embedding collapses (effective rank %.2f, spread %.4f; %.2f "
            "and %.4f before training); set a smaller `learning_rate`, a larger "
            "`batch_size`, or `byol_settings.use_momentum: true`", epoch, *now, *before,
        )  # fmt: skip


def report(epoch: Epoch, epochs: int) -> None:
    """One line for the log."""
    test = "none held out" if epoch.test_loss is None else f"{epoch.test_loss:.4f}"
    lesson = "" if epoch.lesson_loss is None else f" lessons {epoch.lesson_loss:.4f},"
    LOG.info(
        "epoch %d of %d: train loss %.4f,%s test loss %s, effective rank %.1f",
        epoch.epoch, epochs, epoch.train_loss, lesson, test, epoch.effective_rank,
    )  # fmt: skip


@contextmanager
def scalars(log_dir: str | Path | None) -> Iterator[Callable[[Epoch], None]]:
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
