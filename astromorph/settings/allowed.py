"""The allowed values of a setting, in words."""

import types
import typing
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, Union

from pydantic.fields import FieldInfo

NUMBERS = {int: "whole number", float: "number"}


def allowed_values(setting: FieldInfo) -> str:
    """Describe what a setting may be, from its type and limits.

    Parameters
    ----------
    setting : FieldInfo
        A field of `astromorph.settings.sections`.

    Returns
    -------
    str
        Null, which means the default, is not mentioned.

    Examples
    --------
    >>> from astromorph.settings.sections import PreprocessSettings
    >>> allowed_values(PreprocessSettings.model_fields["size"])
    'a whole number from 16 to 1024, or native'
    """
    return _describe(setting.annotation, _Limits.of(setting.metadata))


@dataclass
class _Limits:
    """Limits of a number, and other words for a type that has its own."""

    values: dict[str, Any] = field(default_factory=dict)
    words: str = ""

    @classmethod
    def of(cls, metadata: Sequence[Any]) -> "_Limits":
        limits = cls()
        for item in _flat(metadata):
            if isinstance(item, FieldInfo):
                limits.words = item.description or limits.words
            for name in ("ge", "gt", "le", "lt", "min_length"):
                if (value := getattr(item, name, None)) is not None:
                    limits.values[name] = value
        return limits


def _flat(metadata: Sequence[Any]) -> Iterator[Any]:
    for item in metadata:
        yield item
        if isinstance(item, FieldInfo):
            yield from item.metadata


def _describe(kind: Any, limits: _Limits) -> str:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is Annotated:
        return _describe(arguments[0], _Limits.of(arguments[1:]))
    if limits.words:
        return limits.words
    if origin in (Union, types.UnionType):
        kinds = [argument for argument in arguments if argument is not type(None)]
        return ", or ".join(_describe(argument, limits) for argument in kinds)
    if origin is Literal:
        return _choice([str(value) for value in arguments])
    if origin is tuple and arguments[-1] is Ellipsis:
        return f"a list in brackets, each {_describe(arguments[0], _Limits())}"
    if origin is tuple:
        parts = ", then ".join(_describe(part, _Limits()) for part in arguments)
        return f"{len(arguments)} values in brackets: {parts}"
    if kind is bool:
        return "true or false"
    if kind in NUMBERS:
        return f"a {NUMBERS[kind]}{_range(kind, limits.values)}"
    if kind is str:
        return "a text" + (" that is not empty" if limits.values else "")
    return "a section with lines `name: value`, indented below its name"


def _choice(words: Sequence[str]) -> str:
    return " or ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


def _range(kind: type, limits: dict[str, Any]) -> str:
    if kind is int and "lt" in limits:
        limits = limits | {"le": limits["lt"] - 1}
    low, high = limits.get("ge"), limits.get("le")
    above, below = limits.get("gt"), limits.get("lt")
    if low is not None and high is not None:
        return f" from {low:g} to {high:.10g}"
    words = []
    if low is not None:
        words.append(f"of at least {low:g}")
    if above is not None:
        words.append(f"above {above:g}")
    if high is not None:
        words.append(f"of at most {high:.10g}" if not words else f"up to {high:.10g}")
    elif below is not None:
        words.append(f"below {below:g}")
    return (" " if words else "") + " and ".join(words)
