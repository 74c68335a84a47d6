"""Formulas of the step number."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn


def moving_average_decay(step: int, steps: int, start: float) -> float:
    """Share of the target that is kept at a step.

    It rises from `start` to 1 along a cosine: tau = 1 - (1 - tau_0)
    (1 + cos(pi k / K)) / 2 (Grill et al. 2020, section 3.3).

    Parameters
    ----------
    step : int
        k, from 0.
    steps : int
        K, the number of steps of the whole training, at least 1.
    start : float
        tau_0, from 0 to 1.

    Returns
    -------
    float
        From `start` to 1.
    """
    return 1 - (1 - start) * (1 + math.cos(math.pi * step / steps)) / 2


def warm_up_cosine(step: int, steps: int, warm_up: float = 0.1) -> float:
    """Factor on the learning rate: it rises in a line, then falls along a cosine.

    Loshchilov & Hutter (2017), eq. 5, without restarts, after the warm-up of
    Goyal et al. (2017).

    Parameters
    ----------
    step : int
        From 0.
    steps : int
        Of the whole training, at least 1.
    warm_up : float
        Share of the steps in which it rises, from 0 to below 1.

    Returns
    -------
    float
        Above 0, at most 1.
    """
    rising = warm_up * steps
    if step < rising:
        return (step + 1) / (rising + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / (steps - rising + 1)))


def parameter_groups(
    model: nn.Module, weight_decay: float
) -> Iterator[dict[str, object]]:
    """Two groups of parameters: weights decay, biases and norms do not.

    Parameters
    ----------
    model : nn.Module
        Parameters without gradient are left out.
    weight_decay : float
        For tensors of two and more dimensions.

    Yields
    ------
    dict
        As a torch optimizer takes it.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    decaying: list[Tensor] = [p for p in parameters if p.ndim > 1]
    others: list[Tensor] = [p for p in parameters if p.ndim <= 1]
    yield {"params": decaying, "weight_decay": weight_decay}
    yield {"params": others, "weight_decay": 0.0}


def adamw(model: nn.Module, learning_rate: float) -> torch.optim.Optimizer:
    """AdamW (Loshchilov & Hutter 2019) with the weight decay of torch's default."""
    return torch.optim.AdamW(parameter_groups(model, 1e-2), lr=learning_rate)
