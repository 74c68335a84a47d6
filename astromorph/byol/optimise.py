"""Optimizers, and schedules as functions of the step."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from astromorph.checks import check_factory, check_integer, check_number

StepSchedule = Callable[[int, int], float]  # of the step and the number of steps
OPTIMIZER_EXAMPLE = (
    "torch.optim.AdamW, or functools.partial(torch.optim.SGD, momentum=0.9)"
)
SCHEDULER_EXAMPLE = (
    "lr_scheduler=torch.optim.lr_scheduler.ExponentialLR with "
    'lr_scheduler_options={"gamma": 0.9}'
)


def moving_average_decay(step: int, steps: int, start: float) -> float:
    """Decay of the target's moving average at a step.

    It rises from `start` to 1 along a cosine: tau = 1 - (1 - tau_0)
    (1 + cos(pi k / K)) / 2 (Grill et al. 2020, section 3.3).

    Parameters
    ----------
    step : int
        k, from 0 to K.
    steps : int
        K, the number of training steps, at least 1.
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
    """Factor for the learning rate: it rises linearly, then falls along a cosine.

    Loshchilov & Hutter (2017), eq. 5, without restarts, after the warm-up of
    Goyal et al. (2017).

    Parameters
    ----------
    step : int
        From 0 to `steps`.
    steps : int
        Number of training steps, at least 1.
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
    """Two groups of parameters: weights, and biases and norms without weight decay.

    Parameters
    ----------
    model : nn.Module
        Parameters that do not require a gradient are left out.

    Returns
    -------
    list of dict
        The argument of a torch optimizer. The first group has the weight decay of the
        optimizer, the second has none.

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


class Schedule:
    """Learning rate and decay of the moving average during training.

    Parameters
    ----------
    optimizer : torch.optim.Optimizer
        Its learning rates are set.
    base_rates : list of float
        Learning rate of each of its parameter groups, without the factor.
    factor : callable, optional
        ``factor(step, steps)`` multiplies the base rates at each step.
    lr_scheduler : LRScheduler, optional
        Changes the learning rate after each epoch.
    start_decay : float
        Decay at the first step; it rises to 1 at the last.
    steps : int, optional
        Number of steps of the whole training. Without it, learning rate and decay do
        not change by step.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        base_rates: list[float],
        factor: StepSchedule | None,
        lr_scheduler: LRScheduler | None,
        start_decay: float,
        steps: int | None,
    ) -> None:
        self.optimizer = optimizer
        self.base_rates = base_rates
        self.factor = factor
        self.lr_scheduler = lr_scheduler
        self.start_decay = start_decay
        self.steps = steps

    @property
    def learning_rate(self) -> float:
        """The current learning rate of the first parameter group."""
        return float(self.optimizer.param_groups[0]["lr"])

    def set_learning_rate(self, step: int) -> None:
        """Set the learning rates of a step, counted from 0."""
        if self.factor is None or self.steps is None:
            return
        factor = self.factor(step, self.steps)
        groups = self.optimizer.param_groups
        for group, rate in zip(groups, self.base_rates, strict=True):
            group["lr"] = factor * rate

    def decay(self, step: int) -> float:
        """Decay of the moving average after a step, counted from 0."""
        if self.steps is None:
            return self.start_decay
        return moving_average_decay(step, self.steps, self.start_decay)

    def finish_epoch(self, loss: float) -> None:
        """Let `lr_scheduler` set the learning rate of the next epoch.

        Parameters
        ----------
        loss : float
            The loss that `ReduceLROnPlateau` monitors.
        """
        if isinstance(self.lr_scheduler, ReduceLROnPlateau):
            self.lr_scheduler.step(loss)
        elif self.lr_scheduler is not None:
            self.lr_scheduler.step()


def make_optimizer(
    model: nn.Module,
    factory: Callable[..., torch.optim.Optimizer],
    learning_rate: float,
) -> torch.optim.Optimizer:
    """The optimizer of a model, with two groups of parameters.

    Raises
    ------
    ValueError
        `factory` is an optimizer object, or `learning_rate` is out of range.
    """
    check_factory("optimizer", factory, torch.optim.Optimizer, OPTIMIZER_EXAMPLE)
    rate = check_number("learning_rate", learning_rate, above=0)
    return factory(parameter_groups(model), lr=rate)


def make_scheduler(
    optimizer: torch.optim.Optimizer,
    factory: Callable[..., LRScheduler] | None,
    options: dict[str, Any] | None,
    schedule: StepSchedule | None,
) -> tuple[LRScheduler | None, StepSchedule | None]:
    """The scheduler by epoch and the schedule by step, at least one of them None.

    Raises
    ------
    ValueError
        `factory` is a scheduler object, or there is a schedule as well.
    """
    if factory is None:
        if schedule is not None and not callable(schedule):
            raise ValueError(
                f"schedule: found {schedule!r}; allowed are a function of step and "
                "steps, and None"
            )
        return None, schedule
    check_factory("lr_scheduler", factory, LRScheduler, SCHEDULER_EXAMPLE)
    if schedule is not None and schedule is not warm_up_cosine:
        raise ValueError(
            "schedule: found one besides an lr_scheduler; both set the learning rate, "
            "so give only one of them"
        )
    return factory(optimizer, **(options or {})), None


# Called with parameters and `lr`. AdamW (Loshchilov & Hutter 2019) has torch's default
# weight decay, LARS that of BYOL (Grill et al. 2020, section 3.3).
adamw = partial(torch.optim.AdamW, weight_decay=1e-2, fused=True)
sgd = partial(torch.optim.SGD, momentum=0.9, weight_decay=1e-4)
lars = partial(LARS, momentum=0.9, weight_decay=1e-6)
OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adamw": adamw,
    "sgd": sgd,
    "lars": lars,
}
