"""Provenance of results: canonical settings, code digests and versions.

Snakemake remembers the parameters of a rule as an unordered set of values. One
canonical string per rule is therefore the only form in which it notices that
two settings have swapped their values.
"""

import ast
import functools
import hashlib
import importlib.metadata
import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from astromorph.atomic import read_cache, write_cache

PACKAGE = Path(__file__).parent
# Modules and folders that affect a step only through its settings, through the paths of
# its inputs and outputs, or not at all.
UNTRACKED = (
    "artefacts.records",
    "artefacts.run_files",
    "cli",
    "errors",
    "locks",
    "parent_watch",
    "processes",
    "progress",
    "settings.loading",
    "settings.sections",
    "settings.steps",
)
# A string in a dumped syntax tree that names a template or a script.
NAMED = re.compile(r"""Constant\(value=['"]([^'"]*\.(?:html|js|css))['"]\)""")
Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
# The fields of syntax trees that contain statements, or parts that contain them.
BLOCKS = ("body", "orelse", "handlers", "finalbody", "cases")
INCLUDED = re.compile(r'{% (?:include|extends|from|import) "([^"]+)"')
# To parse all modules takes half a second, for which each command of a workflow would
# wait. What is found is kept in the user's cache folder, by the content of the files.
SOURCES_CACHE = "sources.json"
MAX_SOURCES = 2000
RECORDED_PACKAGES = ("astromorph", "torch", "torchvision", "astropy", "numpy")


def canonical_json(value: Any) -> str:
    """Write equal values as equal JSON: sorted keys, no nulls, no spaces.

    Parameters
    ----------
    value : dict, list, str, int, float, bool or None
        Plain values, nested to any depth.

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
    """Hexadecimal SHA-256 of strings, truncated to `length` characters.

    The lengths of the parts are included, so that ``["ab", "c"]`` and
    ``["a", "bc"]`` differ.
    """
    sha = hashlib.sha256()
    for part in parts:
        data = part.encode("utf-8", "surrogateescape")
        sha.update(b"%d:%b" % (len(data), data))
    return sha.hexdigest()[:length]


@functools.cache
def code_digest(*modules: str) -> str:
    """Digest of modules of this package and of all modules that they import.

    The digest is computed from syntax trees without docstrings. Comments, docstrings
    and layout do not change it; every other edit does, including edits of a template
    or script that a module names. `UNTRACKED` modules and imports for type checkers
    are ignored.

    Parameters
    ----------
    *modules : str
        Names inside the package, such as ``"export.tables.csv"``.

    Returns
    -------
    str
        16 hexadecimal digits.
    """
    seen: set[str] = set()
    waiting = list(modules)
    while waiting:
        module = waiting.pop()
        if module not in seen and not _is_untracked(module):
            seen.add(module)
            waiting.extend(imported_modules(module))
    code = digest(f"{m}={_read(m)[1]}" for m in sorted(seen))
    _SOURCES.save()
    return code


@functools.cache
def function_digest(module: str, name: str) -> str:
    """Digest of a function and of the functions of its module that it calls.

    For a module that is not tracked as a whole, such as the table of steps.

    Parameters
    ----------
    module : str
        Name inside the package, such as ``"cli.steps"``.
    name : str
        A function of that module.

    Returns
    -------
    str
        16 hexadecimal digits; comments, docstrings and layout do not change it.
    """
    functions = _functions(module)
    seen: set[str] = set()
    waiting = [functions[name].name]  # an error if there is no such function
    while waiting:
        function = functions.get(waiting.pop())
        if function is not None and function.name not in seen:
            seen.add(function.name)
            names = (n.id for n in ast.walk(function) if isinstance(n, ast.Name))
            waiting.extend(names)
    return digest(ast.dump(functions[n]) for n in sorted(seen))


@functools.cache
def _functions(module: str) -> dict[str, ast.FunctionDef]:
    """The functions of a module without docstrings, by name."""
    tree = ast.parse(_path(module).read_text(encoding="utf-8"))
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    for function in functions:
        _remove_docstring(function)
    return {function.name: function for function in functions}


def _is_untracked(module: str) -> bool:
    return any(module == name or module.startswith(f"{name}.") for name in UNTRACKED)


def imported_modules(module: str) -> frozenset[str]:
    """Modules of this package that `module` imports when it runs.

    Imports inside functions count, imports under ``if TYPE_CHECKING:`` do not.

    Parameters
    ----------
    module : str
        Name inside the package, such as ``"training.train"``.

    Returns
    -------
    frozenset of str
        Names of the same form.
    """
    return _read(module)[0]


@functools.cache
def _read(module: str) -> tuple[frozenset[str], str]:
    """What a module imports from this package, and its code with its templates."""
    path = _path(module)
    source = _SOURCES.parse(path)
    templates = [_template(name, path.parent) for name in source.templates]
    imported = frozenset(name for name in source.imports if _path(name).is_file())
    return imported, source.code + "".join(templates)


class _Source(NamedTuple):
    """What the content of a module says.

    Attributes
    ----------
    imports : list of str
        Names that it imports from this package when it runs, without the package.
    templates : list of str
        Templates and scripts that it names.
    code : str
        Digest of its syntax tree without docstrings.
    """

    imports: list[str]
    templates: list[str]
    code: str


class _Sources:
    """Parses modules, and keeps the results for later processes."""

    def __init__(self) -> None:
        self._used: dict[str, _Source] = {}
        self._is_complete = True

    def parse(self, path: Path) -> _Source:
        """Parse a module, unless one with the same content is known."""
        content = path.read_bytes()
        key = hashlib.sha256(self._parser + content).hexdigest()
        if (source := self._used.get(key) or _as_source(self._known.get(key))) is None:
            source, self._is_complete = _parse(content, path), False
        self._used[key] = source
        return source

    def save(self) -> None:
        """Write new results into the cache folder, if it can be written."""
        if self._is_complete:
            return
        self._known.update(self._used)
        if len(self._known) > MAX_SOURCES:  # most of them are of earlier versions
            self._known = dict(self._used)
        write_cache(SOURCES_CACHE, self._known)
        self._is_complete = True

    @functools.cached_property
    def _known(self) -> dict[str, Any]:
        return read_cache(SOURCES_CACHE)

    @functools.cached_property
    def _parser(self) -> bytes:
        """What the results depend on besides the content."""
        return sys.version.encode() + Path(__file__).read_bytes()


_SOURCES = _Sources()


def _as_source(value: Any) -> _Source | None:
    """An entry of the cache; None if there is none, or not what was written."""
    match value:
        case [[*imports], [*templates], str(code)]:
            if all(isinstance(name, str) for name in (*imports, *templates)):
                return _Source(imports, templates, code)
    return None


def _parse(content: bytes, path: Path) -> _Source:
    """Parse the content of a module."""
    tree = ast.parse(content, filename=str(path))
    names: set[str] = set()
    for node, is_executed in _statements(tree):
        if isinstance(node, Documented):
            _remove_docstring(node)
        elif is_executed and isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif is_executed and isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
            names.add(node.module)
    prefix = f"{PACKAGE.name}."
    found = {name.removeprefix(prefix) for name in names if name.startswith(prefix)}
    text = ast.dump(tree)
    return _Source(sorted(found), sorted(set(NAMED.findall(text))), digest([text]))


def _remove_docstring(node: Documented) -> None:
    if ast.get_docstring(node, clean=False) is not None:
        del node.body[0]


def _statements(tree: ast.Module) -> Iterator[tuple[ast.AST, bool]]:
    """A module and its statements, and whether more than type checkers read each.

    Imports and definitions are statements. Not to visit expressions is ten times faster
    than `ast.walk`.
    """
    waiting: list[tuple[ast.AST, bool]] = [(tree, True)]
    while waiting:
        node, is_executed = waiting.pop()
        yield node, is_executed
        guarded = isinstance(node, ast.If) and _is_type_checking(node.test)
        for name in BLOCKS:
            below = is_executed and not (guarded and name == "body")
            waiting.extend((part, below) for part in getattr(node, name, ()))


def _is_type_checking(test: ast.expr) -> bool:
    name = test.attr if isinstance(test, ast.Attribute) else getattr(test, "id", "")
    return name == "TYPE_CHECKING"


def _path(module: str) -> Path:
    return PACKAGE.joinpath(*module.split(".")).with_suffix(".py")


def _template(name: str, folder: Path) -> str:
    """A template and those that it extends, includes and imports, or a script.

    Scripts are below the folder of the module.
    """
    paths = (PACKAGE / "pages" / "templates" / name, folder / name)
    text = next((p.read_text(encoding="utf-8") for p in paths if p.is_file()), "")
    return text + "".join(_template(n, folder) for n in INCLUDED.findall(text))


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that affect results."""
    found = {"python": sys.version.split()[0]}
    for name in RECORDED_PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found
