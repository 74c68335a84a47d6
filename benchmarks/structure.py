"""Measure the structure of the source code in one or more checkouts.

    python benchmarks/structure.py                    # this checkout
    python benchmarks/structure.py ../old .           # side by side, with ratios

The code is parsed but not imported, so that any version can be measured. Modules are
the Python files of the package except `__init__.py`. The import level of a module is
the length of the longest chain of imports below it. The length of a function is its
number of lines from `def` to the end without the docstring. Comments that switch the
formatter off are counted in the package, tests, benchmarks and docs, lines of tests in
the tests, and everything else in the package.
"""

import argparse
import ast
import statistics
from collections import Counter
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
PACKAGE = "astromorph"
TRAINING_STEPS = ("training.train", "train")  # names of its module, newest first
FORMATTER_OFF = "# fmt: " + "skip"  # in two parts, or this file would count itself
RUN_TIME_IMPORTS = "modules that the step `train` imports"
ALL_IMPORTS = f"{RUN_TIME_IMPORTS}, TYPE_CHECKING included"


def find_modules(repository: Path) -> dict[str, Path]:
    """Modules of the package by dotted name, packages by the name of their folder."""
    package = repository / PACKAGE
    modules = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package).with_suffix("").parts
        modules[".".join(p for p in parts if p != "__init__")] = path
    return modules


def is_type_checking(node: ast.AST) -> bool:
    """Whether the node is an `if TYPE_CHECKING` block."""
    return isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")


def imported_names(tree: ast.AST, type_checking: bool) -> set[str]:
    """Full names that a module imports, with or without those under TYPE_CHECKING."""
    names: set[str] = set()
    pending = [tree]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        if type_checking or not is_type_checking(node):
            pending += ast.iter_child_nodes(node)
        elif isinstance(node, ast.If):
            pending += node.orelse
    return names


def import_graph(modules: dict[str, Path], type_checking: bool) -> dict[str, set[str]]:
    """The modules that each module imports, except `__init__.py` files."""
    graph = {}
    for module in proper_modules(modules):
        names = imported_names(parse(modules[module]), type_checking)
        inner = {name.removeprefix(f"{PACKAGE}.") for name in names}
        graph[module] = (inner & set(proper_modules(modules))) - {module}
    return graph


def proper_modules(modules: dict[str, Path]) -> list[str]:
    """Modules that are not `__init__.py` files."""
    return [name for name, path in modules.items() if path.name != "__init__.py"]


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def reachable(graph: dict[str, set[str]], start: str) -> set[str]:
    """All modules that a module imports directly or indirectly, without itself."""
    found: set[str] = set()
    pending = [start]
    while pending:
        new = graph[pending.pop()] - found
        found |= new
        pending += new
    return found - {start}


def count_levels(graph: dict[str, set[str]]) -> int:
    """Number of import levels; the modules of a cycle share one level."""
    remaining = dict(graph)
    levels = 0
    while remaining:
        free = [name for name in remaining if not remaining[name] & set(remaining)]
        if not free:  # a cycle: all remaining modules count as one level
            return levels + 1
        for name in free:
            del remaining[name]
        levels += 1
    return levels


def function_lengths(modules: dict[str, Path]) -> list[int]:
    """Lines of every function and method of the package, in ascending order."""
    return sorted(
        count_node_lines(node) - docstring_lines(node)
        for path in modules.values()
        for node in ast.walk(parse(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    )


def count_node_lines(node: ast.stmt) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


def docstring_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    has_docstring = ast.get_docstring(function, clean=False) is not None
    return count_node_lines(function.body[0]) if has_docstring else 0


def python_files(repository: Path, *folders: str) -> list[Path]:
    return [
        path
        for folder in folders
        for path in sorted((repository / folder).rglob("*.py"))
        if "_build" not in path.parts
    ]


def count_lines(paths: list[Path]) -> int:
    return sum(len(path.read_text(encoding="utf-8").splitlines()) for path in paths)


def measure(repository: Path) -> dict[str, float]:
    """All numbers of one checkout, by the name of the row."""
    modules = find_modules(repository)
    if not modules:
        raise SystemExit(f"{repository}: no package `{PACKAGE}` in this folder")
    proper = proper_modules(modules)
    folders = Counter(modules[name].parent for name in proper)
    with_types, at_run_time = (import_graph(modules, types) for types in (True, False))
    lengths = function_lengths(modules)
    package_trees = [parse(path) for path in modules.values()]
    python = python_files(repository, PACKAGE, "tests", "benchmarks", "docs")
    texts = [path.read_text(encoding="utf-8") for path in python]
    figures: dict[str, float] = {
        "modules": len(proper),
        "folders": len(folders),
        "modules in the largest folder": max(folders.values()),
        "import levels": count_levels(with_types),
        "functions": len(lengths),
        "lines of a function, median": statistics.median(lengths),
        "lines of a function, 90th percentile": lengths[int(0.9 * (len(lengths) - 1))],
        "lines of a function, max": lengths[-1],
        "lines of the largest module": max(count_lines([p]) for p in modules.values()),
        "lines of source": count_lines(list(modules.values())),
        "lines of tests": count_lines(python_files(repository, "tests")),
        f"`{FORMATTER_OFF}` comments": sum(text.count(FORMATTER_OFF) for text in texts),
        "TYPE_CHECKING blocks": sum(
            is_type_checking(node) for tree in package_trees for node in ast.walk(tree)
        ),
    }
    step = next((name for name in TRAINING_STEPS if name in at_run_time), None)
    if step:
        figures[RUN_TIME_IMPORTS] = len(reachable(at_run_time, step))
        figures[ALL_IMPORTS] = len(reachable(with_types, step))
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "repositories", type=Path, nargs="*", default=[REPOSITORY], metavar="FOLDER",
        help="root folders of checkouts (default: this checkout); with several, "
        "the last column is the ratio of the last to the first",
    )  # fmt: skip
    repositories = parser.parse_args().repositories
    columns = [measure(repository.resolve()) for repository in repositories]
    names = [repository.resolve().name for repository in repositories]
    ratio = ["ratio"] if len(columns) > 1 else []
    print("|", " | ".join(["", *names, *ratio]), "|")
    print("|---" * (1 + len(names) + len(ratio)) + "|")
    for row in columns[-1]:
        cells = [f"{figures[row]:,g}" for figures in columns if row in figures]
        if ratio and len(cells) == len(columns):
            cells.append(f"{columns[-1][row] / columns[0][row]:.2f}")
        print("|", " | ".join([row, *cells]), "|")


if __name__ == "__main__":
    main()
