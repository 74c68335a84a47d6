"""Names of earlier versions that live elsewhere now."""

import importlib
import warnings
from typing import Any

_TOLD: set[str] = set()


def moved(module: str, homes: dict[str, str], name: str) -> Any:
    """What a name of an earlier version means now; says so once.

    Parameters
    ----------
    module : str
        Where the name was.
    homes : dict of str to str
        For each such name the module where it is.
    name : str
        Which one.

    Raises
    ------
    AttributeError
        It is none of them.
    """
    if name not in homes:
        raise AttributeError(f"module {module!r} has no attribute {name!r}")
    if f"{module}.{name}" not in _TOLD:
        _TOLD.add(f"{module}.{name}")
        warnings.warn(
            f"{module}.{name} is now {homes[name]}.{name}; the old name will go in "
            "version 1.0",
            DeprecationWarning,
            stacklevel=3,
        )
    return getattr(importlib.import_module(homes[name]), name)
