"""The loss that is minimised, as one module for one or several processes."""

import logging
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from astromorph import distributed
from astromorph.byol.byol import BYOL
from astromorph.devices import Precision

if TYPE_CHECKING:  # the simulated images need more packages than the loop
    from astromorph.training.auxiliary_task import AuxiliaryTask

LOG = logging.getLogger(__name__)


class Objective(nn.Module):
    """The loss that is minimised: BYOL's, plus that of the auxiliary task.

    One module, because processes that train together average the gradients of one
    module's forward pass.

    Parameters
    ----------
    byol : BYOL
        Online and target network.
    auxiliary_task : AuxiliaryTask, optional
        What the encoder learns from simulated images.
    auxiliary_weight : float
        Weight of the auxiliary task's loss; BYOL's has the weight 1.
    """

    def __init__(
        self,
        byol: BYOL,
        auxiliary_task: "AuxiliaryTask | None" = None,
        auxiliary_weight: float = 0.0,
    ) -> None:
        super().__init__()
        self.byol = byol
        self.auxiliary_task = auxiliary_task
        self.auxiliary_weight = auxiliary_weight

    def forward(
        self, view_1: Tensor, view_2: Tensor, simulated: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """The loss of two views of a batch.

        Parameters
        ----------
        view_1, view_2 : Tensor, shape (N, C, H, W)
            One view of each image; the last K images are simulated.
        simulated : Tensor, shape (K,), int64, optional
            Which simulated images these are.

        Returns
        -------
        loss : Tensor, shape ()
            The weighted sum of both losses.
        losses : Tensor, shape (2,)
            BYOL's loss and the auxiliary task's, without gradient; the second is 0
            where there is none.
        """
        byol_loss, embeddings = self.byol.loss_and_embeddings(view_1, view_2)
        if self.auxiliary_task is None or simulated is None:
            return byol_loss, _detached(byol_loss, torch.zeros_like(byol_loss))
        of_simulated = [part[-len(simulated) :] for part in embeddings.chunk(2)]
        auxiliary_loss = self.auxiliary_task(
            torch.cat(of_simulated), simulated.repeat(2)
        )
        loss = byol_loss + self.auxiliary_weight * auxiliary_loss
        return loss, _detached(byol_loss, auxiliary_loss)


def _detached(byol_loss: Tensor, auxiliary_loss: Tensor) -> Tensor:
    return torch.stack([byol_loss, auxiliary_loss]).detach()


def place_objective(objective: Objective, device: torch.device) -> Objective:
    """Move the networks to a device, in the memory layout that suits it."""
    objective = objective.to(device)
    # Convolutions are faster where the channels of a pixel lie together in memory.
    objective = objective.to(memory_format=torch.channels_last)
    if distributed.world_size() > 1 and device.type == "cuda":
        synced: Any = nn.SyncBatchNorm.convert_sync_batchnorm(objective)  # type: ignore[no-untyped-call]
        objective = synced
    return objective


def wrap_objective(
    objective: Objective, device: torch.device, compile: bool
) -> nn.Module:
    """An objective that processes train together, and that torch may compile."""
    wrapped = distributed.wrap_for_training(objective, device)
    if not compile:
        return wrapped
    compiled: nn.Module = torch.compile(wrapped)  # type: ignore[assignment]
    return compiled


def agree_on_precision(precision: Precision) -> Precision:
    """bfloat16 where all processes chose it, else float32."""
    is_fast = distributed.all_agree(precision.dtype == torch.bfloat16)
    return Precision(torch.bfloat16 if is_fast else torch.float32)


def warn_of_separate_processes() -> None:
    """Log a warning if several processes were started that do not train together."""
    number = distributed.unjoined_processes()
    if number > 1:
        LOG.warning(
            "%d processes were started, but each trains by itself and writes the same "
            "files; put the program into `with astromorph.distributed.process_group"
            "(%d):`",
            *(number, number),
        )
