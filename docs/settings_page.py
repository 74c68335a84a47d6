"""Write the reference of all settings from the model that checks them."""

import json
from pathlib import Path

from pydantic import BaseModel

from astromorph.settings import Settings

INTRODUCTION = """# Settings

Every setting with its default and its reason, made from the model that checks them.
How to set them, and the same as a table: `config/README.md`.

"""


def write_settings_page(path: Path) -> None:
    """Write the page, where it differs from what is there."""
    lines = [INTRODUCTION, "## General\n"]
    sections = []
    for name, field in Settings.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            sections.append((name, kind))
        else:
            lines.append(entry(name, field))
    for name, kind in sections:
        lines.append(f"## `{name}`\n")
        lines += [entry(key, field) for key, field in kind.model_fields.items()]
    text = "\n".join(lines)
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")


def entry(name: str, field) -> str:
    """One setting: name, default, description."""
    default = field.get_default(call_default_factory=True)
    shown = json.dumps(default, default=list)
    words = " ".join((field.description or "").split()).replace("``", "`")
    return f"**`{name}`**, by default `{shown}`.  \n{words}\n"


if __name__ == "__main__":
    write_settings_page(Path(__file__).parent / "settings.md")
