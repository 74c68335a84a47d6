"""The mean of the weights before and after training.

Training on a few hundred images adapts a network to them, but the network also forgets
a part of what its start weights had learned from many more. The mean of both sets of
weights keeps more of either than one of them alone (Wortsman et al. 2022,
arXiv:2109.01903).
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn


def copy_state(network: nn.Module) -> dict[str, Tensor]:
    """Copies of all weights and buffers of a network, by name, on the CPU."""
    return {
        name: value.detach().cpu().clone()
        for name, value in network.state_dict().items()
    }


@torch.no_grad()
def average_weights(
    network: nn.Module, start: Mapping[str, Tensor], share: float
) -> None:
    """Replace the weights of a network by their mean with the start weights.

    The running statistics of batch norm are averaged like weights.

    Parameters
    ----------
    network : nn.Module
        The trained network, changed in place.
    start : mapping of str to Tensor
        Weights and buffers before training; see `copy_state`.
    share : float
        Weight of `start` in the mean, from 0 to 1; that of `network` is 1 - `share`.

    Raises
    ------
    ValueError
        `share` is out of range.

    Examples
    --------
    >>> network = nn.Linear(1, 1, bias=False)
    >>> _ = nn.init.constant_(network.weight, 3.0)
    >>> average_weights(network, {"weight": torch.ones(1, 1)}, 0.25)
    >>> network.weight.item()
    2.5
    """
    if not 0 <= share <= 1:
        raise ValueError(f"share: found {share}; allowed is 0 to 1")
    for name, value in network.state_dict().items():
        if value.is_floating_point():  # not counters
            value.lerp_(start[name].to(value), share)
