"""BYOL: the loss, the target network, the heads."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional
from torchvision import models

from astromorph.byol.byol import BYOL, cosine_loss
from astromorph.byol.optimise import (
    adamw,
    moving_average_decay,
    parameter_groups,
    warm_up_cosine,
)
from astromorph.models.encoders import AstroMorphologyModel, MinMaxNorm

# For networks with many features, whose default heads would take gigabytes.
SMALL_HEADS = {"projection_size": 8, "projection_hidden_size": 16}


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


def test_embeddings_come_with_the_loss_from_one_forward_pass():
    """Another loss on the embeddings needs no second pass of the encoder."""
    byol, (a, b) = small().eval(), views()
    passes = []
    byol.encoder.register_forward_hook(lambda *_: passes.append(1))
    loss, embeddings = byol.loss_and_embeddings(a, b)
    assert len(passes) == 1
    torch.testing.assert_close(loss, byol.loss(a, b))
    torch.testing.assert_close(embeddings, torch.cat([byol(a), byol(b)]))
    assert embeddings.requires_grad


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
    """In training mode, the target computes them in its own forward passes."""
    byol, (a, b) = small(), views()
    byol.train().loss(a, b)
    online, target = byol.encoder.body[0][1], byol.target[0].body[0][1]
    assert target.num_batches_tracked == 1
    torch.testing.assert_close(online.running_mean, target.running_mean)
    byol.update_moving_average(0.0)
    assert target.num_batches_tracked == 1


def test_without_momentum_the_target_is_the_online_network():
    """If `use_momentum` is False, the weights of the target have no effect."""
    byol, (a, b) = small(use_momentum=False).eval(), views()
    before = byol.loss(a, b)
    for parameter in byol.target.parameters():
        parameter.data.zero_()
    torch.testing.assert_close(byol.loss(a, b), before)


@pytest.mark.parametrize("size", [None, 16, 128, 300])
def test_representation_size_is_the_length_of_embeddings(size):
    """Whether it is smaller than, equal to or larger than the number of features."""
    byol = small(representation_size=size)
    assert byol(torch.rand(3, 1, 32, 32)).shape == (3, size or 128)
    assert byol.projection_size < byol.representation_size
    assert byol.projection_hidden_size > byol.representation_size


def test_decay_rises_along_a_cosine():
    """It rises monotonically from tau_0 to 1."""
    taus = [moving_average_decay(k, 100, 0.9) for k in range(101)]
    assert taus[0] == pytest.approx(0.9)
    assert taus[50] == pytest.approx(0.95)
    assert taus[100] == 1
    assert taus == sorted(taus)
    assert taus[25] == pytest.approx(1 - 0.1 * (1 + math.sqrt(0.5)) / 2)


def test_biases_and_norms_do_not_decay():
    """One-dimensional parameters have weight decay 0; the target is in no group."""
    byol = small()
    decaying, others = parameter_groups(byol)
    assert "weight_decay" not in decaying  # the optimizer's own
    assert others["weight_decay"] == 0
    assert all(p.ndim > 1 for p in decaying["params"])
    assert all(p.ndim == 1 for p in others["params"])
    trained = {id(p) for p in (*decaying["params"], *others["params"])}
    assert trained == {id(p) for p in byol.parameters() if p.requires_grad}
    assert not trained & {id(p) for p in byol.target.parameters()}
    groups = adamw(parameter_groups(byol), lr=0.5).param_groups
    assert [group["lr"] for group in groups] == [0.5, 0.5]
    assert [group["weight_decay"] for group in groups] == [0.01, 0]


@pytest.mark.parametrize("steps", [1, 2, 7, 1000])
def test_the_learning_rate_rises_and_falls(steps):
    """Linearly to 1 at a tenth of the steps, then along a cosine; never 0."""
    factors = [warm_up_cosine(k, steps) for k in range(steps)]
    assert 0 < min(factors) <= max(factors) <= 1
    top = factors.index(max(factors))
    assert top == pytest.approx(0.1 * steps, abs=1)
    assert factors[:top] == sorted(factors[:top])
    assert factors[top:] == sorted(factors[top:], reverse=True)
    if steps == 1000:
        assert factors[550] == pytest.approx(0.5, abs=0.01)
        assert factors[-1] < 1e-4


class CustomNetwork(nn.Module):
    """A user's network, in which layers follow the chosen one."""

    def __init__(self):
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU())
        self.second = nn.Conv2d(4, 6, 3, stride=4)
        self.last = nn.LazyLinear(5)
        self.last(torch.zeros(1, 6 * 15 * 15))

    def forward(self, images):
        """Five numbers for each image."""
        return self.last(self.second(self.first(images)).flatten(1))


@pytest.mark.parametrize(
    ("layer", "size"),
    [(None, 5), (-1, 5), (0, 4 * 62 * 62), ("second", 6 * 15 * 15),
     ("first.0", 4 * 62 * 62)],
)  # fmt: skip
def test_any_layer_of_any_network_is_an_embedding(layer, size):
    """By number or by name; the layers after it are not trained."""
    network = CustomNetwork()
    byol = BYOL(network, hidden_layer=layer, **SMALL_HEADS)
    assert byol.representation_size == size
    assert byol(torch.rand(3, 2, 64, 64)).shape == (3, size)
    trained = {name for name, p in network.named_parameters() if p.requires_grad}
    assert ("last.weight" in trained) == (size == 5)
    assert "first.0.weight" in trained
    byol.loss(*torch.rand(2, 3, 2, 64, 64)).backward()
    for name, parameter in network.named_parameters():
        assert (parameter.grad is not None) == (name in trained)


@pytest.mark.parametrize("layer", ["third", 7, "first.9"])
def test_an_unknown_layer_is_an_error_that_lists_the_layers(layer):
    """It lists the children with their indices, and the layers within them."""
    message = (
        r"found .*CustomNetwork has the layers 0 \(first\), 1 \(second\), 2 \(last\)"
    )
    with pytest.raises(ValueError, match=message + ".*first.0, first.1"):
        BYOL(CustomNetwork(), hidden_layer=layer)


def test_torchvision_classifiers_are_cut_before_their_last_layer():
    """By default, the features are the input of the last layer."""
    for network, size in ((models.resnet18(), 512), (models.mobilenet_v2(), 1280)):
        assert BYOL(network).representation_size == size
    byol = BYOL(models.resnet18(), hidden_layer="avgpool", representation_size=64)
    assert byol(torch.rand(2, 3, 64, 64)).shape == (2, 64)


def test_a_network_that_fails_on_images_of_zeros_is_refused():
    """The message says which options help."""
    with pytest.raises(ValueError, match=r"fails on test images .*\(2, 1, 64, 64\)"):
        BYOL(nn.Sequential(nn.Flatten(), nn.Linear(100, 3)))
    byol = BYOL(nn.Sequential(nn.Flatten(), nn.Linear(100, 3)), image_shape=(1, 10, 10))
    assert byol.representation_size == 3
    with pytest.raises(ValueError, match=r"not \(2, F\)"):
        BYOL(nn.Conv2d(1, 2, 3))


def test_counting_features_does_not_change_the_network():
    """Gradients, running statistics and modes do not change."""
    network = models.resnet18()
    state = {name: value.clone() for name, value in network.state_dict().items()}
    BYOL(network, hidden_layer="layer1", **SMALL_HEADS)
    assert network.training
    assert all(p.grad is None for p in network.parameters())
    assert all(torch.equal(v, state[k]) for k, v in network.state_dict().items())


def test_the_given_loss_and_normalization_are_used():
    """The loss receives predictions and targets; images are normalised first."""
    shapes = []

    def loss_fn(prediction, target):
        shapes.append((prediction.shape, target.shape))
        return (prediction - target).abs().sum(dim=1)

    byol = small(loss_fn=loss_fn, normalization_function=lambda images: images - 0.5)
    byol = byol.eval()
    a, b = views()
    loss = byol.loss(a, b)
    assert shapes == [((12, 64), (12, 64))]
    online = [byol.predictor(byol.projector(byol.encoder(v - 0.5))) for v in (a, b)]
    target = [byol.target(v - 0.5) for v in (b, a)]
    pairs = zip(online, target, strict=True)
    expected = sum((p - t).abs().sum(dim=1).mean() for p, t in pairs)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(byol(a), byol.encoder(a - 0.5))


def test_forward_returns_the_loss_of_two_views():
    """The augmentation makes both views; the target moves with the default decay."""
    drawn = []

    def augment(images):
        drawn.append(len(images))
        return images * (1 - 0.1 * len(drawn))

    byol = small(augmentation_function=augment, moving_average_decay=0.5).eval()
    images = views()[0]
    loss = byol(images, return_errors=True)
    torch.testing.assert_close(loss, byol.loss(images * 0.9, images * 0.8))
    assert drawn == [6, 6]
    before = [p.clone() for p in byol.target.parameters()]
    with torch.no_grad():
        for parameter in byol.encoder.parameters():
            parameter.add_(1)
    byol.update_moving_average()
    pairs = zip(before, byol.target[0].parameters(), strict=False)
    for old, new in pairs:
        torch.testing.assert_close(new, old + 0.5)
    assert 0 < small()(images, return_errors=True) < 8


def test_views_of_other_shapes_are_refused():
    """The error is raised before anything is computed."""
    with pytest.raises(ValueError, match=r"both must be \(N, C, H, W\)"):
        small().loss(torch.rand(2, 1, 32, 32), torch.rand(3, 1, 32, 32))


def test_minmaxnorm_accepts_odd_images():
    """Each image is scaled separately; constants and NaN become 0."""
    images = torch.rand(4, 2, 5, 5) * 70 - 30
    images[1] = 3.0
    images[2, :, 0] = torch.nan
    images[3, 0, 0, 0] = torch.inf
    copy = images.clone()
    scaled = MinMaxNorm()(images)
    torch.testing.assert_close(images, copy, equal_nan=True)
    assert scaled.isfinite().all()
    assert (scaled[1] == 0).all()
    for k in (0, 2, 3):
        assert scaled[k].min() == 0
        assert scaled[k].max() == 1
    assert (scaled[2, :, 0] == 0).all()
