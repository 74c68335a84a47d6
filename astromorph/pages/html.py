"""HTML pages from the templates of the package, in which all text is escaped."""

import json
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from astromorph.atomic import atomic_write


def render_template(template: str, **values: Any) -> str:
    """The page: a template filled in; a value that is missing is an error.

    Parameters
    ----------
    template : str
        A file in the folder ``templates`` of the package.
    **values
        What it names.
    """
    return _environment().get_template(template).render(**values)


def write_page(page: str | Path, template: str, **values: Any) -> None:
    """Write a filled template, whole or not at all.

    Raises
    ------
    WriteError
        The disk is full, or may not be written to.
    """
    html = render_template(template, **values)
    with atomic_write(page) as temporary:
        temporary.write_text(html, encoding="utf-8")


def template_source(name: str) -> Markup:
    """The text of a template as it stands, for a page that holds it."""
    environment = _environment()
    if environment.loader is None:
        return Markup()
    return Markup(environment.loader.get_source(environment, name)[0])


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("astromorph.pages"),
        autoescape=True,
        undefined=StrictUndefined,
    )
    environment.filters["json"] = _json
    return environment


def _json(value: Any) -> Markup:
    """A value for a script element: no sign in it ends the element or a comment."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return Markup(text)
