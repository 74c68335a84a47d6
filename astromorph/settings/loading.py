"""Read settings from files or plain values; errors suggest the most similar name."""

import difflib
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import yaml
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from astromorph.errors import AstromorphError, describe_file_error
from astromorph.settings.allowed import allowed_values
from astromorph.settings.sections import Section, Settings
from astromorph.system.files import is_read_once, open_file, open_once

# Minimum similarity, from 0 to 1, of an unknown key to a setting that is suggested, and
# the bonus for a setting of the same section.
MIN_SIMILARITY, SAME_SECTION_BONUS = 0.6, 0.1


def parse(values: Mapping[str, Any], source: str) -> Settings:
    """Make settings from plain values.

    Parameters
    ----------
    values : mapping
        Nested values, as read from YAML, TOML or JSON.
    source : str
        Name of their file, which begins each message.

    Returns
    -------
    Settings

    Raises
    ------
    AstromorphError
        One line for each unknown key, wrong type and value out of range.

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
        # A value of several possible types has a problem for each of them.
        lines = dict.fromkeys(
            _explain(dict(problem), values) for problem in error.errors()
        )
        raise AstromorphError(
            "\n".join(f"{source}: {line}" for line in lines)
        ) from None


def load(path: str | Path) -> dict[str, Any]:
    """Read the plain values of a TOML, YAML or JSON file.

    Parameters
    ----------
    path : path
        The file. Unless its name ends in ``.toml``, it is read as YAML, which includes
        JSON.

    Returns
    -------
    dict

    Raises
    ------
    AstromorphError
        The file is missing, cannot be parsed or is not a mapping, or a name occurs
        twice in it.

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
        with open_once(path) if is_read_once(path) else open_file(path) as file:
            text = file.read().decode()
        values = tomllib.loads(text) if path.suffix == ".toml" else yaml.safe_load(text)
    except OSError as error:
        raise AstromorphError(
            f"{path}: the settings file cannot be read "
            f"({describe_file_error(error, path)}); give an existing TOML or YAML file"
        ) from None
    except (tomllib.TOMLDecodeError, yaml.YAMLError, UnicodeDecodeError) as error:
        kind = "TOML" if path.suffix == ".toml" else "YAML"
        raise AstromorphError(
            f"{path}: this is not valid {kind}: {_describe_syntax(error)}"
        ) from None
    if path.suffix != ".toml":
        check_names_occur_once(text, str(path))
    if values is None:
        return {}
    if not isinstance(values, dict):
        found = type(values).__name__
        raise AstromorphError(
            f"{path}: found a {found} instead of settings; write lines `name: value`"
        )
    return cast("dict[str, Any]", values)


def _describe_syntax(error: Exception) -> str:
    """What is wrong, and where, in one line."""
    if isinstance(error, yaml.MarkedYAMLError) and (mark := error.problem_mark):
        return f"line {mark.line + 1}, column {mark.column + 1}: {error.problem}"
    return str(error)  # TOML's messages name the line


def check_names_occur_once(text: str, source: str) -> None:
    """Raise an error if a name is set twice, since only the last value would be used.

    Parameters
    ----------
    text : str
        Valid YAML or JSON.
    source : str
        The name of its file.

    Raises
    ------
    AstromorphError
        One line for each repeated name.

    Examples
    --------
    >>> check_names_occur_once("{epochs: 3, batch_size: 8}", "a.yaml")
    """
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    lines = [f"{source}: {problem}" for problem in _repeated_names(root)]
    if lines:
        raise AstromorphError("\n".join(lines))


def _repeated_names(
    node: yaml.Node | None, section: str = "", seen: frozenset[yaml.Node] = frozenset()
) -> Iterator[str]:
    """Describe the names that occur twice in a mapping, or in one below it.

    `seen` has the mappings above it, which an alias could contain again.
    """
    if not isinstance(node, yaml.MappingNode) or node in seen:
        return
    first_lines: dict[str, int] = {}
    for key, value in node.value:
        if not isinstance(key, yaml.ScalarNode) or key.value == "<<":
            continue
        name, line = f"{section}{key.value}", key.start_mark.line + 1
        if first := first_lines.get(key.value):
            is_section = isinstance(value, yaml.MappingNode)
            yield (
                f"`{name}` is set in line {first} and again in line {line}; write it "
                "once" + (", with all settings below it" if is_section else "")
            )
        first_lines[key.value] = line
        yield from _repeated_names(value, f"{name}.", seen | {node})


def check_reference_results(settings: Settings, source: str) -> None:
    """Raise an error if images cannot be placed on the map of an earlier run.

    Parameters
    ----------
    settings : Settings
        All settings of a run.
    source : str
        Where they come from.
    """
    folder = settings.analysis_settings.reference_results
    if folder and not settings.trained_network_name:
        raise AstromorphError(
            f"{source}: `analysis_settings.reference_results`: found {folder!r}, but "
            "`trained_network_name` is not set; set it to the model of that run, such "
            f"as {folder.rstrip('/')}/model/model.pt"
        )


def required_datafile(settings: Settings, source: str) -> str:
    """The name of the file list.

    Raises
    ------
    AstromorphError
        It is not set.
    """
    if not settings.datafile:
        raise AstromorphError(
            f"{source}: `datafile` is not set; name the file that lists your FITS "
            "files, one path per line (or CSV with a column `path`)"
        )
    return settings.datafile


def setting_names() -> Iterator[str]:
    """The name of each setting: ``"epochs"``, ``"data_settings.stacksize"``, ..."""
    for name, field in Settings.model_fields.items():
        section = _section_of(field.annotation)
        yield name
        if section:
            yield from (f"{name}.{key}" for key in section.model_fields)


def _section_of(annotation: Any) -> type[Section] | None:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation
    return None


def _explain(problem: dict[str, Any], values: Mapping[str, Any]) -> str:
    """A problem of pydantic in the words of the settings."""
    if problem["type"] in ("extra_forbidden", "invalid_key"):
        return _explain_unknown(".".join(str(part) for part in problem["loc"]))
    name, setting, found = _find_setting(problem["loc"], values)
    text = repr(found)
    if len(text) > 60:
        text = f"{text[:57]}..."
    if problem["type"] == "value_error":
        allowed = str(problem["ctx"]["error"])
    else:
        allowed = f"allowed: {allowed_values(setting)}"
        if problem["type"] == "finite_number":
            allowed += ", finite"
    return f"`{name}`: found {text}; {allowed} (see config/README.md)"


def _find_setting(
    location: Sequence[str | int], values: Mapping[str, Any]
) -> tuple[str, FieldInfo, Any]:
    """The name of a setting, its definition, and the value that was given.

    Below a setting, a location goes on with parts of its type and of its value.
    """
    name = str(location[0])
    setting, found = Settings.model_fields[name], values[name]
    section = _section_of(setting.annotation)
    if section and len(location) > 1:
        key = str(location[1])
        return f"{name}.{key}", section.model_fields[key], found[key]
    return name, setting, found


def _explain_unknown(where: str) -> str:
    section, _, unknown = where.rpartition(".")
    name, colon, value = unknown.partition(":")
    if colon:
        return (
            f"`{where}` is not a setting; write a blank after the colon, `{name}: "
            f"{value.strip()}`"
        )

    def similarity(name: str) -> float:
        own_section, _, key = name.rpartition(".")
        ratio = difflib.SequenceMatcher(None, unknown, key).ratio()
        return ratio + (SAME_SECTION_BONUS if own_section == section else 0)

    nearest = max(setting_names(), key=similarity)
    if similarity(nearest) >= MIN_SIMILARITY:
        return f"`{where}` is not a setting; did you mean `{nearest}`?"
    return f"`{where}` is not a setting; config/README.md lists all settings"
