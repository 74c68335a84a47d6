"""What a result was made from: canonical settings, digests, versions.

Snakemake remembers the parameters of a rule as an unordered set of values. One
canonical string per rule is therefore the only form in which it notices that
two settings have changed places.
"""

import ast
import functools
import hashlib
import importlib.metadata
import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).parent
# Their effect reaches a step as the values in its settings string, or not at all.
UNTRACKED = frozenset(
    {
        "__init__", "__main__", "arguments", "cli", "commands", "errors", "progress",
        "settings", "trouble",
    }
)  # fmt: skip
PAGES = (".html", ".js")
RECORDED_PACKAGES = ("astromorph", "torch", "torchvision", "astropy", "numpy")


def canonical_json(value: Any) -> str:
    """One string per meaning: sorted keys, nulls dropped, no spaces.

    Parameters
    ----------
    value : dict, list, str, int, float, bool or None
        Plain values, nested at will.

    Returns
    -------
    str
        ASCII JSON.
    """
    return json.dumps(
        _without_nulls(value), sort_keys=True, separators=(",", ":"), allow_nan=False
    )


def _without_nulls(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _without_nulls(v) for k, v in value.items() if v is not None}
    if isinstance(value, list | tuple):
        return [_without_nulls(v) for v in value]
    return value


def digest(parts: Iterable[str], length: int = 16) -> str:
    """Hexadecimal SHA-256 of strings, cut to `length` characters.

    The lengths of the parts enter it, so that ``["ab", "c"]`` and
    ``["a", "bc"]`` differ.
    """
    sha = hashlib.sha256()
    for part in parts:
        data = part.encode("utf-8", "surrogateescape")
        sha.update(b"%d:%b" % (len(data), data))
    return sha.hexdigest()[:length]


def code_digest(*modules: str) -> str:
    """Digest of what modules of this package do, with all that they import.

    Syntax trees without docstrings are compared: a comment or another layout
    changes nothing, a real edit does, also one of a page's template. `UNTRACKED`
    modules do not count.

    Parameters
    ----------
    *modules : str
        Names inside the package, such as ``"export_csv"``.

    Returns
    -------
    str
        16 hexadecimal digits.
    """
    seen: set[str] = set()
    waiting = list(modules)
    while waiting:
        module = waiting.pop()
        if module not in seen and module not in UNTRACKED:
            seen.add(module)
            waiting.extend(imported_modules(module))
    return digest(f"{m}={_meaning(m)}" for m in sorted(seen))


@functools.cache
def imported_modules(module: str) -> frozenset[str]:
    """Modules of this package that `module` imports, anywhere in its text."""
    names: set[str] = set()
    for node in ast.walk(_tree(module)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
            names.add(node.module)
    parts = [name.split(".") for name in names]
    found = {p[1] for p in parts if p[0] == PACKAGE.name and len(p) > 1}
    return frozenset(m for m in found if (PACKAGE / f"{m}.py").is_file())


def _tree(module: str) -> ast.Module:
    path = PACKAGE / f"{module}.py"
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


@functools.cache
def _meaning(module: str) -> str:
    tree = _tree(module)
    for node in ast.walk(tree):
        documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
        if isinstance(node, documented) and ast.get_docstring(node) is not None:
            del node.body[0]
    # Pages are made by templates, which modules name.
    pages = [_template(name) for name in sorted(_texts(tree)) if name.endswith(PAGES)]
    return ast.dump(tree) + "".join(pages)


def _texts(tree: ast.Module) -> set[str]:
    constants = (n.value for n in ast.walk(tree) if isinstance(n, ast.Constant))
    return {value for value in constants if isinstance(value, str)}


def _template(name: str) -> str:
    path = PACKAGE / "templates" / name
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that shape a result."""
    found = {"python": sys.version.split()[0]}
    for name in RECORDED_PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found
