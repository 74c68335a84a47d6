"""Write the JSON schema of all settings from their definitions.

Editors use it to complete names and to mark wrong values.

python docs/settings_schema.py [FILE]
"""

import argparse
import json
from pathlib import Path
from typing import Any

from astromorph.settings.sections import NETWORKS, Settings

SCHEMA = Path(__file__).parents[1] / "config" / "settings.schema.json"


def settings_schema() -> dict[str, Any]:
    """The schema of a settings file, in YAML or TOML."""
    schema = Settings.model_json_schema()
    schema["properties"]["network_name"]["enum"] = list(NETWORKS)
    for section in (schema, *schema["$defs"].values()):
        section["properties"] = {
            name: _or_null(setting) for name, setting in section["properties"].items()
        }
        del section["title"]
    for name, setting in schema["properties"].items():
        field = Settings.model_fields[name]
        if "anyOf" in setting and "$ref" in setting["anyOf"][0]:
            setting["description"] = f"{(field.annotation.__doc__ or '').strip()}"
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Settings of astromorph",
        **schema,
    }


def _or_null(setting: dict[str, Any]) -> dict[str, Any]:
    """A setting without a value has its default: YAML reads ``epochs:`` as null."""
    words: dict[str, Any] = {
        key: setting.pop(key) for key in ("description", "default") if key in setting
    }
    setting.pop("title", None)
    if "description" in words:
        words["description"] = " ".join(words["description"].split())
    kinds = setting.pop("anyOf", None) or [setting]
    if {"type": "null"} not in kinds:
        kinds = [*kinds, {"type": "null"}]
    return {**words, "anyOf": kinds}


def write_schema(path: Path) -> None:
    """Write the schema."""
    text = json.dumps(settings_schema(), indent=2, ensure_ascii=False)
    path.write_text(f"{text}\n", encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "file", type=Path, nargs="?", default=SCHEMA,
        help="the file to write, by default config/settings.schema.json",
    )  # fmt: skip
    write_schema(parser.parse_args().file)
