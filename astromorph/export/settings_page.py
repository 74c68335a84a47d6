"""A page for the report: all settings, which of them are not the defaults, versions."""

import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from astromorph.artefacts.model_file import ModelFile, read_model_file
from astromorph.pages.html import write_page
from astromorph.provenance import canonical_json, versions
from astromorph.settings.loading import parse
from astromorph.settings.sections import Section, Settings
from astromorph.settings.steps import PARTS, part_of

LOG = logging.getLogger(__name__)
# They change where and how a run works, and none of its results.
LEFT_OUT = frozenset({"trained_network_name", "core_limit", "export_to_csv"})


@dataclass(frozen=True, slots=True)
class Line:
    """A setting as the page shows it.

    Attributes
    ----------
    name : str
        Without its section.
    value, default : str
        As YAML has them.
    changed : bool
        The two differ.
    meaning : str
        What it does.
    """

    name: str
    value: str
    default: str
    changed: bool
    meaning: str


def write_settings_page(
    settings: Settings, model: str | Path, output: str | Path
) -> None:
    """Write the page.

    Parameters
    ----------
    settings : Settings
        Those of the run. Of what training depends on, the model's own count.
    model : path
        What `train` wrote; nothing of it is unpickled.
    output : path
        HTML to write.

    Raises
    ------
    AstromorphError
        The model file cannot be read.
    """
    facts = read_model_file(model)
    sections = dict(list_settings(_of_results(settings, facts)))
    now = versions()
    made = canonical_json(part_of(settings, "preprocess"))
    write_page(
        output,
        "settings.html",
        sections=sections,
        changed=sum(line.changed for lines in sections.values() for line in lines),
        training=[name for name in PARTS["train"] if name != "seed"],
        facts=facts,
        versions=[(n, facts.versions.get(n, ""), v) for n, v in now.items()],
        differs=_differing(facts.tensor_settings, made),
    )
    LOG.info("%s: settings and versions", output)


def list_settings(settings: Settings) -> Iterator[tuple[str, list[Line]]]:
    """Every setting that shapes a result, by section.

    Parameters
    ----------
    settings : Settings
        All of them.

    Yields
    ------
    section : str
        Its name; ``general`` for those outside of any.
    lines : list of Line
    """
    fields = type(settings).model_fields
    defaults = Settings()
    single = [n for n in fields if not isinstance(getattr(settings, n), Section)]
    yield (
        "general",
        [_line(settings, defaults, n) for n in single if n not in LEFT_OUT],
    )
    for name in fields:
        section = getattr(settings, name)
        if isinstance(section, Section):
            plain = getattr(defaults, name)
            keys = type(section).model_fields
            yield name, [_line(section, plain, key) for key in keys]


def _line(section: Section, defaults: Section, name: str) -> Line:
    value, default = getattr(section, name), getattr(defaults, name)
    meaning = type(section).model_fields[name].description or ""
    return Line(
        name, _yaml(value), _yaml(default), value != default, " ".join(meaning.split())
    )


def _yaml(value: Any) -> str:
    """A value as a settings file has it; texts without quotes."""
    if isinstance(value, str):
        return value
    plain = list(value) if isinstance(value, tuple) else value
    return json.dumps(plain, ensure_ascii=False)


def _of_results(settings: Settings, facts: ModelFile) -> Settings:
    """The settings that the results were made with: training's are the model's."""
    values = settings.model_dump(mode="json")
    for name, value in facts.settings.items():
        if isinstance(value, dict):
            values[name] = {**values[name], **value}
        elif name != "seed":
            values[name] = value
    return parse(values, "settings and model file")


def _differing(trained_with: str, now: str) -> list[tuple[str, str, str]]:
    """Where images for training were prepared in another way than those of the run."""
    one, other = (
        {
            f"{section}.{key}": value
            for section, values in json.loads(text).items()
            for key, value in values.items()
        }
        for text in (trained_with, now)
    )
    return [
        (name, _yaml(one.get(name)), _yaml(other.get(name)))
        for name in sorted({*one, *other})
        if one.get(name) != other.get(name)
    ]
