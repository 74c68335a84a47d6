"""The step `report settings`: a page with all settings and versions.

Settings that differ from the defaults are listed first.
"""

import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from astromorph.artefacts.model_file import ModelFile, read_model_file
from astromorph.artefacts.run_files import RunFiles
from astromorph.pages.html import write_page
from astromorph.provenance import canonical_json, versions
from astromorph.settings.loading import parse
from astromorph.settings.sections import Section, Settings
from astromorph.settings.steps import PARTS, part_of

LOG = logging.getLogger(__name__)
# They change where and how a run works, and none of its results.
LEFT_OUT = frozenset({"trained_network_name", "core_limit", "export_to_csv"})


@dataclass(frozen=True, slots=True)
class SettingRow:
    """A setting as a row of the page.

    Attributes
    ----------
    name : str
        Name without its section.
    value, default : str
        As in YAML.
    is_changed : bool
        Whether the value differs from the default.
    description : str
        What the setting does.
    """

    name: str
    value: str
    default: str
    is_changed: bool
    description: str


def write_settings_page(files: RunFiles, settings: Settings) -> None:
    """Write the page.

    Parameters
    ----------
    files : RunFiles
        `model` is read without unpickling; `settings_page` is written.
    settings : Settings
        Settings of the run. Those that training depends on are replaced by the
        model's.

    Raises
    ------
    AstromorphError
        The model file cannot be read.
    """
    model = read_model_file(files.model)
    sections = dict(list_settings(_effective_settings(settings, model)))
    changed = [
        (section, row)
        for section, rows in sections.items()
        for row in rows
        if row.is_changed
    ]
    preprocessing = canonical_json(part_of(settings, "preprocess"))
    write_page(
        files.settings_page,
        "settings.html",
        sections=sections,
        changed=changed,
        training=[name for name in PARTS["train"] if name != "seed"],
        model=model,
        versions=[(n, model.versions.get(n, ""), v) for n, v in versions().items()],
        differences=_differences(model.tensor_settings, preprocessing),
    )
    LOG.info("%s: settings and versions", files.settings_page)


def list_settings(settings: Settings) -> Iterator[tuple[str, list[SettingRow]]]:
    """List every setting that can change a result, by section.

    Parameters
    ----------
    settings : Settings
        All settings.

    Yields
    ------
    section : str
        Name of the section; ``general`` for settings outside of sections.
    rows : list of SettingRow
    """
    names = type(settings).model_fields
    defaults = Settings()
    general = [n for n in names if not isinstance(getattr(settings, n), Section)]
    yield (
        "general",
        [_row(settings, defaults, name) for name in general if name not in LEFT_OUT],
    )
    for name in names:
        section = getattr(settings, name)
        if isinstance(section, Section):
            keys = type(section).model_fields
            yield name, [_row(section, getattr(defaults, name), key) for key in keys]


def _row(section: Section, defaults: Section, name: str) -> SettingRow:
    value, default = getattr(section, name), getattr(defaults, name)
    description = type(section).model_fields[name].description or ""
    return SettingRow(
        name,
        _as_yaml(value),
        _as_yaml(default),
        value != default,
        " ".join(description.split()),
    )


def _as_yaml(value: Any) -> str:
    """A value as in a settings file, strings without quotes."""
    if isinstance(value, str):
        return value
    plain = list(value) if isinstance(value, tuple) else value
    return json.dumps(plain, ensure_ascii=False)


def _effective_settings(settings: Settings, model: ModelFile) -> Settings:
    """The settings that the results depend on: those of training are the model's."""
    values = settings.model_dump(mode="json")
    for name, value in model.settings.items():
        if isinstance(value, dict):
            values[name] = {**values[name], **value}
        elif name != "seed":
            values[name] = value
    return parse(values, "settings and model file")


def _differences(of_training: str, of_run: str) -> list[tuple[str, str, str]]:
    """Preprocessing settings in which training images differ from those of the run."""
    training, run = (
        {
            f"{section}.{key}": value
            for section, values in json.loads(text).items()
            for key, value in values.items()
        }
        for text in (of_training, of_run)
    )
    return [
        (name, _as_yaml(training.get(name)), _as_yaml(run.get(name)))
        for name in sorted({*training, *run})
        if training.get(name) != run.get(name)
    ]
