"""HTML pages from the templates of the package; all text is escaped."""

import base64
import hashlib
import json
import os
import re
from collections.abc import Iterable
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from astromorph.artefacts.run_files import Identity, RunFiles
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
    page: str | Path,
    template: str,
    files: RunFiles,
    final: Path | None = None,
    **values: Any,
) -> None:
    """Write a filled-in template, completely or not at all.

    Parameters
    ----------
    page : path
        HTML to write.
    template : str
        See `render_template`.
    files : RunFiles
        The files of the run; its identity and the place of its home page are used.
    final : path, optional
        Where the page will be, if it is written into a temporary folder.
    **values
        See `render_template`.

    Raises
    ------
    WriteError
        The disk is full or not writable.
    """
    home = link_to(files.home, final or page) if Path(page) != files.home else ""
    html = render_template(template, files.identity, home=home, **values)
    with atomic_write(page) as temporary:
        temporary.write_text(html, encoding="utf-8")


def script_of(names: Iterable[str], package: str) -> Markup:
    """Scripts of a page, joined in their order.

    Parameters
    ----------
    names : iterable of str
        Files in ``astromorph/pages/templates``, or below the folder of the package.
    package : str
        The package of the page.

    Returns
    -------
    Markup
        To be placed in a ``script`` element as it is.
    """
    folders = (resources.files(__package__) / "templates", resources.files(package))
    paths = [
        next(folder / name for folder in folders if (folder / name).is_file())
        for name in names
    ]
    return Markup("".join(path.read_text(encoding="utf-8") for path in paths))


def script_source(script: str) -> str:
    """The source in a Content-Security-Policy that allows one script and no other.

    Examples
    --------
    >>> script_source("alert(1)")
    "'sha256-bhHHL3z2vDgxUt0W3dWQOrprscmda2Y5pLsLg4GF+pI='"
    """
    value = hashlib.sha256(script.encode("utf-8")).digest()
    return f"'sha256-{base64.b64encode(value).decode()}'"


def link_to(path: Path, page: str | Path) -> str:
    """The address of a file in a link of a page.

    Examples
    --------
    >>> link_to(Path("results/index.html"), "results/export/map.html")
    '../index.html'
    """
    relative = Path(os.path.relpath(path, Path(page).parent)).as_posix()
    return quote(relative)


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("astromorph.pages"),
        autoescape=True,
        undefined=StrictUndefined,
    )
    environment.filters["json"] = script_json
    environment.filters["with_code"] = with_code
    environment.filters["breakable"] = breakable
    environment.filters["minus"] = minus
    return environment


def script_json(value: Any) -> Markup:
    """JSON for a script element, escaped so that it cannot end the element."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def with_code(text: str) -> Markup:
    """A message as HTML: escaped, with what is between backticks as code.

    Examples
    --------
    >>> with_code("train longer (`epochs`) <b>")
    Markup('train longer (<code>epochs</code>) &lt;b&gt;')
    >>> with_code("``[1, 2]`` or `null`")
    Markup('<code>[1, 2]</code> or <code>null</code>')
    """
    return Markup(re.sub("(``?)([^`]+)\\1", r"<code>\2</code>", str(escape(text))))


def breakable(text: str) -> Markup:
    """A name, path or value as HTML that is broken between its words, not inside them.

    Examples
    --------
    >>> breakable("fits/list_1.csv")
    Markup('fits/<wbr>list_<wbr>1.csv')
    """
    return Markup(re.sub(r"([/_,])(?=\S)", r"\1<wbr>", str(escape(text))))


def minus(text: str) -> str:
    r"""Text in which negative numbers have a minus sign, and 0.000 no sign.

    Examples
    --------
    >>> ascii(minus("-0.01 (-0.03 to -0.00); ResNet-18"))
    "'\\u22120.01 (\\u22120.03 to 0.00); ResNet-18'"
    """
    without = re.sub(r"(?<!\w)[-+](?=0\.0+(?!\d))", "", text)
    return re.sub(r"(?<![\w-])-(?=\d)", "\N{MINUS SIGN}", without)
