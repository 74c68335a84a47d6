"""BYOL compared with lightly, an independent implementation."""

import pytest
import torch
from lightly.loss import NegativeCosineSimilarity
from lightly.models.utils import update_momentum
from lightly.utils.lars import LARS as LightlyLARS
from lightly.utils.scheduler import cosine_schedule
from torch import nn

from astromorph.byol.byol import BYOL, cosine_loss
from astromorph.byol.optimise import LARS, moving_average_decay, parameter_groups
from astromorph.models.encoders import AstroMorphologyModel


def byol() -> BYOL:
    torch.manual_seed(4)
    byol = BYOL(AstroMorphologyModel(1), features=128)
    for parameter in byol.target.parameters():  # so that online and target differ
        nn.init.normal_(parameter, std=0.05)
    return byol


def drawn(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_the_loss_equals_that_of_lightly():
    """Their loss is minus the mean cosine, ours is 2 plus twice their loss."""
    a, b = drawn(2, 40, 16)
    theirs = NegativeCosineSimilarity()(a, b)
    torch.testing.assert_close(cosine_loss(a, b).mean(), 2 + 2 * theirs)


def test_the_symmetric_loss_and_its_gradients_equal_those_of_lightly():
    """One forward pass of both views equals two, in evaluation mode."""
    ours, theirs = byol().eval(), byol().eval()
    one, two = torch.rand(2, 6, 1, 32, 32, generator=torch.Generator().manual_seed(2))
    criterion = NegativeCosineSimilarity()
    loss = ours.loss(one, two)
    loss.backward()
    online = [theirs.predictor(theirs.projector(theirs.encoder(v))) for v in (one, two)]
    with torch.no_grad():
        target = [theirs.target(v) for v in (one, two)]
    halves = criterion(online[0], target[1]) + criterion(online[1], target[0])
    expected = 2 * 2 + 2 * halves  # 2 + 2 x for each half
    expected.backward()
    torch.testing.assert_close(loss, expected)
    pairs = zip(ours.named_parameters(), theirs.parameters(), strict=True)
    for (name, a), b in pairs:
        if a.requires_grad:
            torch.testing.assert_close(a.grad, b.grad, msg=name)


@pytest.mark.parametrize("start", [0.9, 0.99, 0.996])
def test_the_decay_of_the_target_equals_that_of_lightly(start):
    """Their last step has the number K - 1, ours K."""
    for step in range(0, 51):
        expected = cosine_schedule(step, 51, start, 1.0)
        assert moving_average_decay(step, 50, start) == pytest.approx(expected)


def test_the_target_moves_like_that_of_lightly():
    """All weights are the same after an update."""
    ours, theirs = byol(), byol()
    ours.update_moving_average(0.93)
    update_momentum(theirs.encoder, theirs.target[0], 0.93)
    update_momentum(theirs.projector, theirs.target[1], 0.93)
    pairs = zip(ours.target.parameters(), theirs.target.parameters(), strict=True)
    for a, b in pairs:
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("decay", [0.0, 1e-6, 0.1])
def test_lars_steps_equal_those_of_lightly(momentum, decay):
    """Ten steps of a small network; neither scales biases and norms."""
    ours, theirs = (byol().projector for _ in range(2))
    options = {"lr": 0.3, "momentum": momentum, "trust_coefficient": 0.01}
    one = LARS(parameter_groups(ours), weight_decay=decay, **options)
    two = LightlyLARS(parameter_groups(theirs), weight_decay=decay, **options)
    for step in range(10):
        data = drawn(8, 128, seed=step)
        for network, optimizer in ((ours, one), (theirs, two)):
            optimizer.zero_grad()
            network(data).square().mean().backward()
            optimizer.step()
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_lars_does_not_scale_the_step_of_a_tensor_of_zeros():
    """Without a norm there is no ratio."""
    weight = nn.Parameter(torch.zeros(3, 3))
    weight.grad = torch.ones(3, 3)
    LARS([weight], lr=0.5, weight_decay=0.1).step()
    torch.testing.assert_close(weight.data, torch.full((3, 3), -0.5))


@pytest.mark.parametrize(
    "wrong",
    [{"lr": -1.0}, {"lr": 1.0, "momentum": 1.0}, {"lr": 1.0, "weight_decay": -1.0},
     {"lr": 1.0, "trust_coefficient": 0.0}],
)  # fmt: skip
def test_lars_refuses_numbers_out_of_range(wrong):
    """The message says what is allowed."""
    name = list(wrong)[-1]
    with pytest.raises(ValueError, match=f"{name}: found .*; allowed are"):
        LARS([nn.Parameter(torch.ones(2))], **wrong)
