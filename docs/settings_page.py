"""Write the reference of all settings from the model that validates them."""

import json
import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, TypeAdapter

from astromorph.settings.sections import PLANES, TORCHVISION, Settings

INTRODUCTION = """# Settings

Every setting with its default, allowed values and purpose. This page is generated from
the model that validates settings. How to change them:
[how settings are set](configuration.md).

"""
PATTERNS = {PLANES: "a range or a method with a range, as in `sum 10:20`"}
TYPES = {"integer": "an integer", "number": "a number", "string": "a string"}


def write_settings_page(path: Path) -> None:
    """Write the page if it differs from the existing one."""
    lines = [INTRODUCTION, "## General\n"]
    sections = []
    for name, field in Settings.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            sections.append((name, kind))
        else:
            lines.append(describe_setting(name, field))
    for name, kind in sections:
        lines.append(f"## `{name}`\n")
        lines += [
            describe_setting(key, field) for key, field in kind.model_fields.items()
        ]
    lines += ["## Networks of torchvision\n", *_families(), ""]
    text = "\n".join(lines)
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")


def _families() -> list[str]:
    """A line for each family of networks: names that start with the same letters."""
    families: dict[str, list[str]] = {}
    for name in TORCHVISION:
        family = re.match(r"[a-z]+", name)
        families.setdefault(family[0] if family else name, []).append(f"`{name}`")
    return [f"- {', '.join(names)}" for names in families.values()]


def describe_setting(name: str, field: Any) -> str:
    """Name, default, allowed values and description of a setting."""
    default = json.dumps(field.get_default(call_default_factory=True), default=list)
    description = " ".join((field.description or "").split()).replace("``", "`")
    allowed = allowed_values(field)
    if name == "network_name":
        allowed = (
            f"`n_layer_resnet`, `amm`, or one of [{len(TORCHVISION)} of "
            "torchvision](#networks-of-torchvision)"
        )
    return f"**`{name}`**, by default `{default}`: {allowed}.  \n{description}\n"


def allowed_values(field: Any) -> str:
    """Allowed values of a setting, from its type and limits."""
    limited = field.annotation
    for limit in field.metadata:
        limited = Annotated[limited, limit]
    return describe_schema(TypeAdapter(limited).json_schema())


def describe_schema(schema: dict[str, Any]) -> str:
    """Describe a JSON schema.

    Examples
    --------
    >>> describe_schema({"type": "number", "exclusiveMinimum": 0, "maximum": 1})
    'a number, above 0, at most 1'
    """
    if "anyOf" in schema:
        return ", or ".join(describe_schema(part) for part in schema["anyOf"])
    if "const" in schema:
        return f"`{schema['const']}`"
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    kind = schema["type"]
    if kind == "null":
        return "`null`"
    if kind == "boolean":
        return "`true`, `false`"
    if kind == "array" and "prefixItems" in schema:
        return "two values: " + "; ".join(
            describe_schema(part) for part in schema["prefixItems"]
        )
    if kind == "array":
        return f"a list, each {describe_schema(schema['items'])}"
    if "pattern" in schema:
        return PATTERNS[schema["pattern"]]
    limits = {
        "minimum": "at least",
        "exclusiveMinimum": "above",
        "maximum": "at most",
        "exclusiveMaximum": "below",
    }
    bounds = [
        f"{text} {schema[key]:,.10g}" for key, text in limits.items() if key in schema
    ]
    return ", ".join([TYPES[kind], *bounds])


if __name__ == "__main__":
    write_settings_page(Path(__file__).parent / "settings.md")
