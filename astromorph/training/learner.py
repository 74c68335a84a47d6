"""What is trained: BYOL, and the head that learns from simulated images."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from astromorph.byol.byol import BYOL

if TYPE_CHECKING:
    from astromorph.training.auxiliary_task import AuxiliaryTask


class Learner(nn.Module):
    """What is trained: BYOL and, where there are lessons, their teacher.

    Parameters
    ----------
    byol : BYOL
        Online and target networks.
    teacher : Teacher, optional
        Knows the simulated images.
    lesson_weight : float
        Of the teacher's loss against BYOL's.
    """

    def __init__(
        self,
        byol: BYOL,
        teacher: "AuxiliaryTask | None" = None,
        lesson_weight: float = 0.0,
    ) -> None:
        super().__init__()
        self.byol = byol
        self.teacher = teacher
        self.lesson_weight = lesson_weight

    def forward(
        self, view_1: Tensor, view_2: Tensor, lessons: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The loss of two views of some images.

        Parameters
        ----------
        view_1, view_2 : Tensor, shape (N, C, H, W)
            The last K of them are simulated.
        lessons : Tensor, shape (K,), int64, optional
            Numbers of the simulated images.

        Returns
        -------
        loss, byol_loss, lesson_loss : Tensor, shape ()
            The first is the weighted sum of the others.
        """
        views = self.byol.normalised(torch.cat([view_1, view_2]))
        embeddings = self.byol.encoder(views.clone())  # which may change its input
        byol_loss = self.byol.compare(embeddings, views)
        if self.teacher is None or lessons is None:
            return byol_loss, byol_loss, torch.zeros_like(byol_loss)
        known = [part[-len(lessons) :] for part in embeddings.chunk(2)]
        lesson_loss = self.teacher(torch.cat(known), lessons.repeat(2))
        return byol_loss + self.lesson_weight * lesson_loss, byol_loss, lesson_loss
