"""Write the reference of all settings from their definitions.

python docs/settings_page.py [FILE]
"""

import argparse
import json
import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, TypeAdapter

from astromorph.settings import sections
from astromorph.settings.sections import PLANES, TORCHVISION, Settings

INTRODUCTION = """# Settings

Every setting with its default, its allowed values and its reason, generated from the
code that validates settings. [How settings are set](configuration.md) explains where to
set them, and lists them as a table.

"""
PATTERNS = {PLANES: "a range, a keyword or both, as in `sum 10:20`"}
WORDS = {"integer": "an integer", "number": "a number", "string": "a string"}


def write_settings_page(path: Path) -> None:
    """Write the page, if it differs from the existing one."""
    lines = [INTRODUCTION, "## General\n"]
    groups = []
    for name, field in Settings.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            groups.append((name, kind))
        else:
            lines.append(entry(name, field))
    for name, kind in groups:
        lines.append(f"## `{name}`\n")
        lines += [entry(key, field) for key, field in kind.model_fields.items()]
    lines += ["## Networks of torchvision\n", *_families(), ""]
    text = "\n".join(lines)
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")


def _families() -> list[str]:
    """Format a line for each family of networks: the same letters begin their names."""
    families: dict[str, list[str]] = {}
    for name in TORCHVISION:
        family = re.match(r"[a-z]+", name)
        families.setdefault(family[0] if family else name, []).append(f"`{name}`")
    return [f"- {', '.join(names)}" for names in families.values()]


def entry(name: str, field: Any) -> str:
    """Format one setting: name, default, range, description."""
    default = json.dumps(field.get_default(call_default_factory=True), default=list)
    words = " ".join((field.description or "").split()).replace("``", "`")
    allowed = range_of(field)
    if name == "network_name":
        allowed = (
            f"`n_layer_resnet`, `amm`, or one of [{len(TORCHVISION)} of "
            "torchvision](#networks-of-torchvision)"
        )
    return f"**`{name}`**, by default `{default}`: {allowed}.  \n{words}\n"


def range_of(field: Any) -> str:
    """Describe the allowed values of a setting, from its type and limits."""
    limited = field.annotation
    for limit in field.metadata:
        limited = Annotated[limited, limit]
    return in_words(TypeAdapter(limited).json_schema())


def in_words(schema: dict[str, Any]) -> str:
    """Describe a JSON schema in words.

    Examples
    --------
    >>> in_words({"type": "number", "exclusiveMinimum": 0, "maximum": 1})
    'a number, above 0, at most 1'
    """
    if "anyOf" in schema:
        return ", or ".join(in_words(one) for one in schema["anyOf"])
    if "const" in schema:
        return f"`{schema['const']}`"
    if "enum" in schema:
        return ", ".join(f"`{one}`" for one in schema["enum"])
    if "$ref" in schema:
        section = getattr(sections, schema["$ref"].rpartition("/")[2])
        return (
            f"a mapping with {', '.join(f'`{name}`' for name in section.model_fields)}"
        )
    kind = schema["type"]
    if kind == "null":
        return "`null`"
    if kind == "boolean":
        return "`true` or `false`"
    if kind == "array" and "prefixItems" in schema:
        return "two values: " + "; ".join(
            in_words(one) for one in schema["prefixItems"]
        )
    if kind == "array":
        return f"a list whose elements are each {in_words(schema['items'])}"
    if "pattern" in schema:
        return PATTERNS[schema["pattern"]]
    limits = {
        "minimum": "at least", "exclusiveMinimum": "above",
        "maximum": "at most", "exclusiveMaximum": "below",
    }  # fmt: skip
    bounds = [
        f"{word} {schema[key]:,.10g}" for key, word in limits.items() if key in schema
    ]
    return ", ".join([WORDS[kind], *bounds])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "file", type=Path, nargs="?", default=Path(__file__).parent / "settings.md",
        help="the page to write, by default docs/settings.md",
    )  # fmt: skip
    write_settings_page(parser.parse_args().file)
