"""BYOL: the loss, the target network, the heads."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from astromorph.byol import BYOL, cosine_loss
from astromorph.networks import AstroMorphologyModel
from astromorph.optimise import (
    adamw,
    moving_average_decay,
    parameter_groups,
    warm_up_cosine,
)


def small(**options) -> BYOL:
    torch.manual_seed(0)
    return BYOL(AstroMorphologyModel(1), features=128, **options)


def views(number: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return tuple(torch.rand(2, number, 1, 32, 32, generator=generator))


def test_cosine_loss_is_the_squared_distance_of_unit_vectors():
    """2 - 2 cos equals |a/|a| - b/|b||^2, equation 2 of the paper."""
    a, b = torch.randn(2, 50, 7, generator=torch.Generator().manual_seed(1))
    distance = functional.normalize(a, dim=1) - functional.normalize(b, dim=1)
    torch.testing.assert_close(cosine_loss(a, b), distance.square().sum(dim=1))


@pytest.mark.parametrize(("sign", "loss"), [(1, 0.0), (-1, 4.0)])
def test_cosine_loss_runs_from_0_to_4(sign, loss):
    """Parallel vectors cost nothing, opposite ones 4."""
    a = torch.randn(5, 3, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(cosine_loss(a, sign * a), torch.full((5,), loss))


def test_loss_is_symmetric_in_the_views():
    """Both orders of the views count, so that swapping them changes nothing."""
    byol, (a, b) = small().eval(), views()
    torch.testing.assert_close(byol.loss(a, b), byol.loss(b, a))


def test_loss_predicts_the_target_of_the_other_view():
    """The loss is q(g(f(v1))) against the target of v2, plus the reverse."""
    byol, (a, b) = small().eval(), views()
    nn.init.normal_(byol.target[1][-1].weight)  # so that target and online differ
    online = [byol.predictor(byol.projector(byol.encoder(v))) for v in (a, b)]
    target = [byol.target(v) for v in (a, b)]
    expected = cosine_loss(online[0], target[1]) + cosine_loss(online[1], target[0])
    torch.testing.assert_close(byol.loss(a, b), expected.mean())


def test_no_gradient_reaches_the_target():
    """Only encoder, projector and predictor learn by gradient."""
    byol, (a, b) = small(), views()
    byol.loss(a, b).backward()
    assert all(p.grad is None for p in byol.target.parameters())
    for part in (byol.encoder, byol.projector, byol.predictor):
        assert all(p.grad is not None for p in part.parameters())


def test_target_starts_as_the_online_network_and_follows_it():
    """The target: xi = tau xi + (1 - tau) theta, for each weight."""
    byol = small()
    online = [*byol.encoder.parameters(), *byol.projector.parameters()]
    target = list(byol.target.parameters())
    assert len(online) == len(target)
    for theta, xi in zip(online, target, strict=True):
        torch.testing.assert_close(theta, xi)
    before = [xi.clone() for xi in target]
    with torch.no_grad():
        for theta in online:
            theta.add_(1.0)
    byol.update_moving_average(0.75)
    for xi, old in zip(target, before, strict=True):
        torch.testing.assert_close(xi, old + 0.25)


def test_target_keeps_its_own_batch_norm_statistics():
    """In training the target's running means move by its own forward passes."""
    byol, (a, b) = small(), views()
    byol.train().loss(a, b)
    online, target = byol.encoder.body[0][1], byol.target[0].body[0][1]
    assert target.num_batches_tracked == 1
    torch.testing.assert_close(online.running_mean, target.running_mean)
    byol.update_moving_average(0.0)
    assert target.num_batches_tracked == 1


def test_without_momentum_the_target_is_the_online_network():
    """`use_momentum` false: the loss does not depend on the target's weights."""
    byol, (a, b) = small(use_momentum=False).eval(), views()
    before = byol.loss(a, b)
    for parameter in byol.target.parameters():
        parameter.data.zero_()
    torch.testing.assert_close(byol.loss(a, b), before)


@pytest.mark.parametrize("size", [None, 16, 128, 300])
def test_representation_size_is_honoured(size):
    """Narrower, equal or wider than the features, the embedding has that length."""
    byol = small(representation_size=size)
    assert byol(torch.rand(3, 1, 32, 32)).shape == (3, size or 128)
    assert byol.projection_size < byol.representation_size
    assert byol.projection_hidden_size > byol.representation_size


def test_decay_rises_along_a_cosine():
    """From tau_0 over the middle to 1, never falling."""
    taus = [moving_average_decay(k, 100, 0.9) for k in range(101)]
    assert taus[0] == pytest.approx(0.9)
    assert taus[50] == pytest.approx(0.95)
    assert taus[100] == 1
    assert taus == sorted(taus)
    assert taus[25] == pytest.approx(1 - 0.1 * (1 + math.sqrt(0.5)) / 2)


def test_biases_and_norms_do_not_decay():
    """One-dimensional parameters have weight decay 0; the target is in no group."""
    byol = small()
    decaying, others = parameter_groups(byol, 0.1)
    assert decaying["weight_decay"] == 0.1
    assert others["weight_decay"] == 0
    assert all(p.ndim > 1 for p in decaying["params"])
    assert all(p.ndim == 1 for p in others["params"])
    trained = {id(p) for p in (*decaying["params"], *others["params"])}
    assert trained == {id(p) for p in byol.parameters() if p.requires_grad}
    assert not trained & {id(p) for p in byol.target.parameters()}
    assert adamw(byol, 0.5).param_groups[1]["lr"] == 0.5


@pytest.mark.parametrize("steps", [1, 2, 7, 1000])
def test_the_learning_rate_rises_and_falls(steps):
    """In a line to 1 at a tenth of the steps, then along a cosine; never 0."""
    factors = [warm_up_cosine(k, steps) for k in range(steps)]
    assert 0 < min(factors) <= max(factors) <= 1
    top = factors.index(max(factors))
    assert top == pytest.approx(0.1 * steps, abs=1)
    assert factors[:top] == sorted(factors[:top])
    assert factors[top:] == sorted(factors[top:], reverse=True)
    if steps == 1000:
        assert factors[550] == pytest.approx(0.5, abs=0.01)
        assert factors[-1] < 1e-4
