"""Checks of what a program hands in: what was found, and what is allowed."""

import math
import numbers
from typing import Any


def check_integer(name: str, value: Any, least: int, most: int | None = None) -> int:
    """A whole number in a range.

    Parameters
    ----------
    name : str
        What it is, for the message.
    value : int
        What was found; whole numbers of numpy count, True and 64.0 do not.
    least : int
        The smallest that is allowed.
    most : int, optional
        The largest that is allowed.

    Returns
    -------
    int

    Raises
    ------
    ValueError
        It is none.

    Examples
    --------
    >>> whole("epochs", 0, 1)
    Traceback (most recent call last):
    ValueError: epochs: found 0; allowed are whole numbers of at least 1
    """
    right = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if right and value >= least and (most is None or value <= most):
        return int(value)
    allowed = f"of at least {least}" if most is None else f"from {least} to {most}"
    raise ValueError(f"{name}: found {value!r}; allowed are whole numbers {allowed}")


def check_number(
    name: str,
    value: Any,
    least: float = -math.inf,
    most: float = math.inf,
    *,
    above: float = -math.inf,
    below: float = math.inf,
) -> float:
    """A number in a range.

    Parameters
    ----------
    name : str
        What it is, for the message.
    value : float
        What was found.
    least, most : float
        The smallest and the largest that are allowed.
    above, below : float
        The same, themselves not allowed.

    Returns
    -------
    float

    Raises
    ------
    ValueError
        It is none.

    Examples
    --------
    >>> real("momentum", 1, 0, below=1)
    Traceback (most recent call last):
    ValueError: momentum: found 1; allowed are numbers of at least 0, below 1
    """
    right = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if right and least <= value <= most and above < value < below:
        return float(value)
    bounds = {"of at least": least, "above": above, "at most": most, "below": below}
    told = [
        f"{word} {bound:g}" for word, bound in bounds.items() if math.isfinite(bound)
    ]
    raise ValueError(
        f"{name}: found {value!r}; allowed are numbers {', '.join(told) or '(finite)'}"
    )


def check_factory(name: str, given: Any, kind: type, example: str) -> None:
    """Refuse an object where a class, or what makes the object, is wanted.

    Parameters
    ----------
    name : str
        What it is, for the message.
    given : callable
        What was found.
    kind : type
        What objects are instances of.
    example : str
        How it is given.

    Raises
    ------
    ValueError
        It is such an object already, or cannot be called.
    """
    if isinstance(given, kind) or not callable(given):
        found = type(given).__name__
        article = "an" if found[0] in "AEIOUaeiou" else "a"
        raise ValueError(
            f"{name}: found {article} {found} object; give the class, or a function "
            f"that makes one, such as {example}"
        )


def check_instance(name: str, given: Any) -> None:
    """Refuse a class where an object of it is wanted.

    Parameters
    ----------
    name : str
        What it is, for the message.
    given : object
        What was found.

    Raises
    ------
    ValueError
        It is a class.
    """
    if isinstance(given, type):
        raise ValueError(
            f"{name}: found the class {given.__name__}; give an object of it, such as "
            f"{given.__name__}()"
        )
