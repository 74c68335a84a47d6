"""HTML pages from the templates of the package; all text is escaped."""

import json
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from astromorph.artefacts.run_files import Identity
from astromorph.atomic import atomic_write


def render_template(template: str, identity: Identity | None, **values: Any) -> str:
    """Fill in a template; a missing value is an error.

    Parameters
    ----------
    template : str
        Name of a file in ``astromorph/pages/templates``.
    identity : Identity or None
        What the page is made from; None outside a run.
    **values
        Values of the variables in the template.

    Returns
    -------
    str
        The page.
    """
    return _environment().get_template(template).render(identity=identity, **values)


def write_page(
    page: str | Path, template: str, identity: Identity | None, **values: Any
) -> None:
    """Write a filled-in template, completely or not at all.

    Parameters
    ----------
    page : path
        HTML to write.
    template, identity, **values
        See `render_template`.

    Raises
    ------
    WriteError
        The disk is full or not writable.
    """
    html = render_template(template, identity, **values)
    with atomic_write(page) as temporary:
        temporary.write_text(html, encoding="utf-8")


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("astromorph.pages"),
        autoescape=True,
        undefined=StrictUndefined,
    )
    environment.filters["json"] = script_json
    return environment


def script_json(value: Any) -> Markup:
    """JSON for a script element, escaped so that it cannot end the element."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)
