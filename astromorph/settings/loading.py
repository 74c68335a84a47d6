"""Reading settings: from a file, from plain values, with messages that help."""

import difflib
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import yaml
from pydantic import (
    ValidationError,
)

from astromorph.errors import AstromorphError
from astromorph.settings.sections import Section, Settings


def parse(values: Mapping[str, Any], source: str) -> Settings:
    """Check plain values against the model.

    Parameters
    ----------
    values : mapping
        As read from YAML, TOML or JSON.
    source : str
        Where they are from; begins every message.

    Returns
    -------
    Settings

    Raises
    ------
    AstromorphError
        A line for each unknown key, wrong type or value out of range.

    Examples
    --------
    >>> parse({"preprocess_settings": {"size": 96}}, "mine").preprocess_settings.size
    96
    >>> parse({"epoch": 3}, "a.toml")  # doctest: +IGNORE_EXCEPTION_DETAIL
    Traceback (most recent call last):
    AstromorphError: a.toml: `epoch` is not a setting; did you mean `epochs`?
    """
    try:
        return Settings.model_validate(dict(values))
    except ValidationError as error:
        lines = [_explain(dict(problem)) for problem in error.errors()]
        raise AstromorphError(
            "\n".join(f"{source}: {line}" for line in lines)
        ) from None


def load(path: str | Path) -> dict[str, Any]:
    """Read the plain values of a TOML, YAML or JSON file.

    Parameters
    ----------
    path : path
        The file; its suffix says what it is.

    Returns
    -------
    dict

    Raises
    ------
    AstromorphError
        The file is missing, cannot be parsed or holds no table of settings.

    Examples
    --------
    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp()) / "settings.toml"
    >>> _ = file.write_text("epochs = 3")
    >>> load(file)
    {'epochs': 3}
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
        values = tomllib.loads(text) if path.suffix == ".toml" else yaml.safe_load(text)
    except OSError as error:
        raise AstromorphError(
            f"{path}: the settings file cannot be read ({error.strerror}); "
            "give an existing TOML or YAML file"
        ) from None
    except (tomllib.TOMLDecodeError, yaml.YAMLError, UnicodeDecodeError) as error:
        kind = "TOML" if path.suffix == ".toml" else "YAML"
        raise AstromorphError(f"{path}: this is not valid {kind}: {error}") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        found = type(values).__name__
        raise AstromorphError(
            f"{path}: found a {found} where settings belong; write lines `name: value`"
        )
    return cast("dict[str, Any]", values)


def required_datafile(settings: Settings, source: str) -> str:
    """The file list's name.

    Raises
    ------
    AstromorphError
        None is set.
    """
    if not settings.datafile:
        raise AstromorphError(
            f"{source}: `datafile` is not set; name the file that lists your FITS "
            "files, a path a line (or CSV with a `path` column)"
        )
    return settings.datafile


def setting_names() -> Iterator[str]:
    """Every setting: ``"epochs"``, ``"data_settings.stacksize"``, ..."""
    for name, field in Settings.model_fields.items():
        section = _section_of(field.annotation)
        yield name
        if section:
            yield from (f"{name}.{key}" for key in section.model_fields)


def _section_of(annotation: Any) -> type[Section] | None:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation
    return None


def _explain(problem: dict[str, Any]) -> str:
    where = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        return _explain_unknown(where)
    found = repr(problem["input"])
    if len(found) > 60:
        found = f"{found[:57]}..."
    message = problem["msg"][0].lower() + problem["msg"][1:]
    return f"`{where}`: found {found}; {message} (see config/README.md)"


def _explain_unknown(where: str) -> str:
    everything = list(setting_names())
    wrong = where.rpartition(".")[2]
    # Of two settings with one name, the shorter path goes first.
    by_key = {name.rpartition(".")[2]: name for name in reversed(everything)}
    by_key |= {name: name for name in everything if "." not in name}
    for key in (wrong, *difflib.get_close_matches(wrong, by_key, n=1, cutoff=0.6)):
        if key in by_key:
            return f"`{where}` is not a setting; did you mean `{by_key[key]}`?"
    return f"`{where}` is not a setting; config/README.md lists them all"
