"""The parts of a training that a user may bring, checked and put together."""

import logging
from collections.abc import Callable
from copy import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler

from astromorph import distributed
from astromorph.byol.augment import SkyAugmentation
from astromorph.byol.byol import BYOL
from astromorph.byol.optimise import parameter_groups, warm_up_cosine
from astromorph.checks import check_factory, check_instance, check_number
from astromorph.devices import Precision

LOG = logging.getLogger(__name__)
Views = Callable[[Tensor], Tensor]
Schedule = Callable[[int, int], float]
OPTIMIZER = "torch.optim.AdamW, or functools.partial(torch.optim.SGD, momentum=0.9)"
SCHEDULER = (
    "lr_scheduler=torch.optim.lr_scheduler.ExponentialLR with "
    'lr_scheduler_options={"gamma": 0.9}'
)


def byol_of(network: nn.Module, options: dict[str, Any]) -> BYOL:
    """A network as it is, if it is a BYOL, or one around it."""
    given = {name: value for name, value in options.items() if value is not None}
    if not isinstance(network, BYOL):
        return BYOL(network, **given)
    if given:
        raise ValueError(
            f"{', '.join(given)}: the network is a BYOL already; give these to it"
        )
    return network


def views_of(byol: BYOL, given: Views | None, default: Views | None) -> Views:
    """What makes the views: the user's, BYOL's own, the class's, or the sky's."""
    own = byol.augmentation_function
    if given is not None and own is not None and own is not given:
        raise ValueError(
            "augmentation_function: the network is a BYOL that has one already; give "
            "one of the two"
        )
    check_instance("augmentation_function", given)
    chosen = given or own or default or SkyAugmentation()
    if isinstance(chosen, SkyAugmentation):
        # A copy, as its random numbers are replaced at each step.
        chosen = copy(chosen)
        chosen.generator = torch.Generator()
    return chosen


def optimizer_of(
    learner: nn.Module,
    make: Callable[..., torch.optim.Optimizer],
    learning_rate: float,
) -> torch.optim.Optimizer:
    """The optimizer of all that is trained."""
    check_factory("optimizer", make, torch.optim.Optimizer, OPTIMIZER)
    rate = check_number("learning_rate", learning_rate, above=0)
    return make(parameter_groups(learner), lr=rate)


def scheduler_of(
    optimizer: torch.optim.Optimizer,
    make: Callable[..., LRScheduler] | None,
    options: dict[str, Any] | None,
    schedule: Schedule | None,
) -> tuple[LRScheduler | None, Schedule | None]:
    """The scheduler by epoch, and the schedule by step, of which one is used."""
    if make is None:
        if schedule is not None and not callable(schedule):
            raise ValueError(
                f"schedule: found {schedule!r}; allowed are a function of step and "
                "steps, and None"
            )
        return None, schedule
    check_factory("lr_scheduler", make, LRScheduler, SCHEDULER)
    if schedule is not None and schedule is not warm_up_cosine:
        raise ValueError(
            "schedule: found one beside an lr_scheduler; both set the learning rate: "
            "give one of the two"
        )
    return make(optimizer, **(options or {})), None


def agreed(precision: Precision) -> Precision:
    """One precision for all processes."""
    fast = distributed.all_agree(precision.dtype == torch.bfloat16)
    return Precision(torch.bfloat16 if fast else torch.float32)


def warn_if_alone() -> None:
    """Warn where several processes were started and each would train for itself."""
    number = distributed.unjoined_processes()
    if number > 1:
        LOG.warning(
            "%d processes were started, but this one trains alone, as each of them "
            "does, and all write the same files; put the program into "
            "`with astromorph.distributed.process_group(%d):`", number, number,
        )  # fmt: skip
