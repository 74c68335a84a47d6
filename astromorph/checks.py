"""Checks of arguments; errors name the value and the allowed range."""

import math
import numbers
from typing import Any


def check_integer(
    name: str, value: Any, minimum: int, maximum: int | None = None
) -> int:
    """Check an integer and its range.

    Parameters
    ----------
    name : str
        Name of the argument, for the message.
    value : int
        The argument. NumPy integers are accepted; True and 64.0 are not.
    minimum : int
        Smallest allowed value.
    maximum : int, optional
        Largest allowed value.

    Returns
    -------
    int

    Raises
    ------
    ValueError
        It is not an integer in this range.

    Examples
    --------
    >>> check_integer("epochs", 0, 1)
    Traceback (most recent call last):
    ValueError: epochs: found 0; allowed are integers of at least 1
    """
    is_integer = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if is_integer and value >= minimum and (maximum is None or value <= maximum):
        return int(value)
    if maximum is None:
        allowed = f"of at least {minimum}"
    else:
        allowed = f"from {minimum} to {maximum}"
    raise ValueError(f"{name}: found {value!r}; allowed are integers {allowed}")


def check_number(
    name: str,
    value: Any,
    minimum: float = -math.inf,
    maximum: float = math.inf,
    *,
    above: float = -math.inf,
    below: float = math.inf,
) -> float:
    """Check a real number and its range.

    Parameters
    ----------
    name : str
        Name of the argument, for the message.
    value : float
        The argument.
    minimum, maximum : float
        Inclusive bounds.
    above, below : float
        Exclusive bounds.

    Returns
    -------
    float

    Raises
    ------
    ValueError
        It is not a number in this range.

    Examples
    --------
    >>> check_number("momentum", 1, 0, below=1)
    Traceback (most recent call last):
    ValueError: momentum: found 1; allowed are numbers of at least 0, below 1
    """
    is_real = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if is_real and minimum <= value <= maximum and above < value < below:
        return float(value)
    bounds = {
        "of at least": minimum,
        "above": above,
        "at most": maximum,
        "below": below,
    }
    allowed = ", ".join(
        f"{word} {bound:g}" for word, bound in bounds.items() if math.isfinite(bound)
    )
    raise ValueError(
        f"{name}: found {value!r}; allowed are numbers {allowed or '(finite)'}"
    )


def check_factory(name: str, value: Any, kind: type, example: str) -> None:
    """Check that an argument is a class or a function that returns an object.

    Parameters
    ----------
    name : str
        Name of the argument, for the message.
    value : callable
        The argument.
    kind : type
        The class of the objects that it returns.
    example : str
        A correct argument, for the message.

    Raises
    ------
    ValueError
        It is such an object, or not callable.
    """
    if isinstance(value, kind) or not callable(value):
        class_name = type(value).__name__
        article = "an" if class_name[0] in "AEIOUaeiou" else "a"
        raise ValueError(
            f"{name}: found {article} {class_name} object; give the class, or a "
            f"function that returns one, such as {example}"
        )


def check_instance(name: str, value: Any) -> None:
    """Check that an argument is an object, not its class.

    Parameters
    ----------
    name : str
        Name of the argument, for the message.
    value : object
        The argument.

    Raises
    ------
    ValueError
        It is a class.
    """
    if isinstance(value, type):
        raise ValueError(
            f"{name}: found the class {value.__name__}; give an instance of it, such "
            f"as {value.__name__}()"
        )
