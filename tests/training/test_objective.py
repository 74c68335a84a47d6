"""The loss that training minimises."""

import torch
from training.test_trainer import auxiliary_task, images

from astromorph.byol.byol import BYOL
from astromorph.models.encoders import AstroMorphologyModel
from astromorph.training.loop import Objective


def test_the_objective_is_the_weighted_sum_of_both_losses():
    """The auxiliary task only receives the simulated images, in both views."""
    torch.manual_seed(0)
    byol = BYOL(AstroMorphologyModel(1)).eval()
    task = auxiliary_task()
    view_1, view_2 = images(7, seed=1), images(7, seed=2)
    simulated = torch.tensor([3, 8, 20])
    loss, losses = Objective(byol, task, 0.5)(view_1, view_2, simulated)
    embeddings = torch.cat([byol(view_1[4:]), byol(view_2[4:])])
    auxiliary_loss = task(embeddings, simulated.repeat(2))
    byol_loss = byol.loss(view_1, view_2)
    torch.testing.assert_close(
        losses, torch.stack([byol_loss, auxiliary_loss]).detach()
    )
    torch.testing.assert_close(loss, byol_loss + 0.5 * auxiliary_loss)
    assert not losses.requires_grad
    loss.backward()
    assert task.head.weight.grad.abs().max() > 0
    assert all(p.grad is None for p in byol.target.parameters())


def test_without_an_auxiliary_task_the_objective_is_the_loss_of_byol():
    """The second loss is 0."""
    torch.manual_seed(0)
    byol = BYOL(AstroMorphologyModel(1)).eval()
    view_1, view_2 = images(4, seed=1), images(4, seed=2)
    loss, losses = Objective(byol)(view_1, view_2)
    torch.testing.assert_close(loss, byol.loss(view_1, view_2))
    assert losses.tolist() == [loss.item(), 0]
