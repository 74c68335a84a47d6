"""To be removed with the shims in `byol` and `training` that use it."""

import functools
import warnings
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

_TOLD: set[str] = set()
Given = ParamSpec("Given")
Back = TypeVar("Back")


def told(old: str, new: str, depth: int = 3) -> None:
    """Say once that a name is now another one.

    Parameters
    ----------
    old, new : str
        Both names.
    depth : int
        How many calls above is the line that uses the old one.
    """
    if old in _TOLD:
        return
    _TOLD.add(old)
    warnings.warn(
        f"{old} is now {new}; the old name will go in version 1.0",
        DeprecationWarning,
        stacklevel=depth,
    )


def old_attribute(owner: str, old: str, new: str) -> property:
    """A property that is what another attribute is now.

    Parameters
    ----------
    owner : str
        The class, for the message.
    old : str
        Its name.
    new : str
        The attribute that it is, with dots for one of an attribute.
    """

    def get(self: Any) -> Any:
        told(f"{owner}.{old}", f"{owner}.{new}")
        return functools.reduce(getattr, new.split("."), self)

    return property(get, doc=f"As version 0.1 called `{new}`.")


def old_keywords(
    **why: str,
) -> Callable[[Callable[Given, Back]], Callable[Given, Back]]:
    """A function that still takes keywords which do nothing any more, and says so.

    Parameters
    ----------
    **why : str
        For each of them what takes its place.
    """

    def around(function: Callable[Given, Back]) -> Callable[Given, Back]:
        @functools.wraps(function)
        def call(*args: Given.args, **kwargs: Given.kwargs) -> Back:
            for name in why.keys() & kwargs.keys():
                del kwargs[name]
                told(f"{function.__qualname__}({name}=)", why[name])
            return function(*args, **kwargs)

        return call

    return around


class Number(float):
    """A float that was once a tensor."""

    def item(self) -> float:
        """The number itself."""
        told("the result's .item()", "the result itself, a float")
        return float(self)
