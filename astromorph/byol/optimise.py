"""Schedules as functions of the step, and optimizers."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from astromorph.checks import check_integer, check_number


def moving_average_decay(step: int, steps: int, start: float) -> float:
    """Decay of the target's moving average at a step.

    It rises from `start` to 1 along a cosine: tau = 1 - (1 - tau_0)
    (1 + cos(pi k / K)) / 2 (Grill et al. 2020, section 3.3).

    Parameters
    ----------
    step : int
        k, from 0 to K.
    steps : int
        K, the number of steps of the training, at least 1.
    start : float
        tau_0, from 0 to 1.

    Returns
    -------
    float
        From `start` to 1.

    Raises
    ------
    ValueError
        A number is out of range.

    Examples
    --------
    >>> [round(moving_average_decay(k, 100, 0.99), 4) for k in (0, 50, 100)]
    [0.99, 0.995, 1.0]
    """
    check_integer("steps", steps, 1)
    check_number("step", step, 0, steps)
    check_number("start", start, 0, 1)
    return 1 - (1 - start) * (1 + math.cos(math.pi * step / steps)) / 2


def warm_up_cosine(step: int, steps: int, warm_up: float = 0.1) -> float:
    """Factor on the learning rate: it rises linearly, then falls along a cosine.

    Loshchilov & Hutter (2017), eq. 5, without restarts, after the warm-up of
    Goyal et al. (2017).

    Parameters
    ----------
    step : int
        From 0 to `steps`.
    steps : int
        Number of steps of the training, at least 1.
    warm_up : float
        Fraction of the steps in which the factor rises, from 0 to below 1.

    Returns
    -------
    float
        Above 0, at most 1.

    Raises
    ------
    ValueError
        A number is out of range.

    Examples
    --------
    >>> [round(warm_up_cosine(k, 100), 3) for k in (0, 5, 10, 55, 99)]
    [0.091, 0.545, 1.0, 0.509, 0.001]
    """
    check_integer("steps", steps, 1)
    check_number("step", step, 0, steps)
    rise = check_number("warm_up", warm_up, 0, below=1) * steps
    if step < rise:
        return (step + 1) / (rise + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - rise) / (steps - rise + 1)))


def parameter_groups(model: nn.Module) -> list[dict[str, Any]]:
    """Two groups of parameters: weights, which decay, and biases and norms.

    Parameters
    ----------
    model : nn.Module
        Parameters without gradient are left out.

    Returns
    -------
    list of dict
        The argument of a torch optimizer. The first group has the optimizer's own
        weight decay, the second has none.

    Examples
    --------
    >>> groups = parameter_groups(nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)))
    >>> [[tuple(p.shape) for p in group["params"]] for group in groups]
    [[(2, 3)], [(2,), (2,), (2,)]]
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    decaying: list[Tensor] = [p for p in parameters if p.ndim > 1]
    others: list[Tensor] = [p for p in parameters if p.ndim <= 1]
    return [{"params": decaying}, {"params": others, "weight_decay": 0.0}]


class LARS(torch.optim.Optimizer):
    """SGD with momentum and a learning rate per tensor (You, Gitman & Ginsburg 2017).

    The step of each tensor is scaled by the ratio of its norm to that of its gradient,
    which allows very large batches. Groups without weight decay, here biases and
    norms, are not scaled, as in BYOL.

    Parameters
    ----------
    params : iterable
        Parameters or parameter groups, as for every torch optimizer.
    lr : float
        Learning rate, above 0.
    momentum : float
        From 0 to below 1.
    weight_decay : float
        At least 0; with 0, no step is scaled.
    trust_coefficient : float
        eta of the paper, above 0.
    eps : float
        Keeps the ratio of the norms finite; at least 0.

    Raises
    ------
    ValueError
        A number is out of range.

    Examples
    --------
    >>> layer = nn.Linear(2, 1)
    >>> optimizer = LARS(parameter_groups(layer), lr=0.2, weight_decay=1e-6)
    >>> layer(torch.ones(4, 2)).sum().backward()
    >>> optimizer.step()
    """

    def __init__(
        self,
        params: Any,
        lr: float,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        trust_coefficient: float = 1e-3,
        eps: float = 1e-8,
    ) -> None:
        check_number("lr", lr, above=0)
        check_number("momentum", momentum, 0, below=1)
        check_number("weight_decay", weight_decay, 0)
        check_number("trust_coefficient", trust_coefficient, above=0)
        check_number("eps", eps, 0)
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "weight_decay": weight_decay,
            "trust_coefficient": trust_coefficient,
            "eps": eps,
        }
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Update all parameters that have a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                self._update(parameter, group)
        return loss

    def _update(self, parameter: Tensor, group: dict[str, Any]) -> None:
        change, decay = parameter.grad, group["weight_decay"]
        if change is None:
            return
        if decay > 0:
            norm, slope = parameter.norm(), change.norm()
            divisor = slope + decay * norm + group["eps"]
            ratio = group["trust_coefficient"] * norm / divisor
            ratio = torch.where((norm > 0) & (slope > 0), ratio, torch.ones_like(ratio))
            change = (change + decay * parameter) * ratio
        state = self.state[parameter]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = change.clone()
        else:
            state["momentum_buffer"].mul_(group["momentum"]).add_(change)
        parameter.add_(state["momentum_buffer"], alpha=-group["lr"])


# Their arguments are parameters and `lr`. AdamW (Loshchilov & Hutter 2019) has torch's
# default weight decay, LARS that of BYOL (Grill et al. 2020, section 3.3).
adamw = partial(torch.optim.AdamW, weight_decay=1e-2, fused=True)
sgd = partial(torch.optim.SGD, momentum=0.9, weight_decay=1e-4)
lars = partial(LARS, momentum=0.9, weight_decay=1e-6)
OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adamw": adamw,
    "sgd": sgd,
    "lars": lars,
}
