"""Digests: equal for equivalent inputs, different for all others."""

import ast
import json
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from astromorph import provenance
from astromorph.cli import steps
from astromorph.cli.execute import step_code
from astromorph.cli.steps import STEPS
from astromorph.provenance import canonical_json, digest

EXPORTS = {name for name in STEPS if name.startswith("export_")}
REPORTS = {name for name in STEPS if name.startswith("report_")}
READING = {"validate", "preprocess", "export_gallery", "rank", "report_home"}
LABELS = {"validate", "analyse", "evaluate", "rank", "report_home"}
EMBEDDING = {"train", "infer", "evaluate"}
# The steps whose digest changes if any module of a folder is edited.
FOLDERS = {
    "": set(STEPS),
    # Values of settings are params of the rules; only presets and how a network beside
    # ours is found are code of a step.
    "settings": {"validate", "preprocess", "train", "evaluate"},
    "system": set(STEPS),
    "artefacts": set(STEPS),
    "filelist": READING | {"split"},
    "fits": READING,  # and not train
    "pages": {
        "validate", "train", "evaluate", "analyse", "export_tensorboard", "export_map",
        "export_gallery", "report_history", "report_settings", "report_home", "rank",
    },
    "preprocessing": READING | {"train"},
    "catalogue": {"validate", "split", "report_home"},
    "sky": {"train"},
    "models": EMBEDDING,
    "datasets": EMBEDDING,
    "byol": EMBEDDING | {"export_gallery", "report_home", "rank"},
    "training": {"train"},
    "embedding": {"infer", "evaluate"},
    "analysis": {"analyse", "export_map", "rank"},
    "export": EXPORTS | REPORTS | {"rank"},
    "ranking": {"rank"},
    "cli": set(),
}  # fmt: skip
DOCUMENTED = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
# The record of an image, which simulated images and FITS files share.
SHARED_RECORDS = {"fits": {"pixels.py"}}


def test_canonical_json_has_one_form():
    """Order and nulls do not matter; values and names do."""
    assert canonical_json({"b": 1, "a": {"x": None, "y": [1.5]}}) == (
        '{"a":{"y":[1.5]},"b":1}'
    )
    assert canonical_json({"a": 1, "b": 2}) != canonical_json({"a": 2, "b": 1})


@given(st.lists(st.text()), st.lists(st.text()))
def test_only_equal_lists_have_equal_digests(a, b):
    """The boundaries of parts count: ["ab"] differs from ["a", "b"]."""
    assert (digest(a) == digest(b)) == (a == b)


@pytest.fixture(scope="module")
def original() -> dict[str, str]:
    """The digests of the package itself, which are those of a copy."""
    return digests()


@pytest.fixture(scope="module")
def parsed_modules(tmp_path_factory) -> Path:
    """The cache of a process that has parsed all modules."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        clear_caches()
        digests()
    return folder


@pytest.fixture
def package(tmp_path, parsed_modules, monkeypatch) -> Path:
    """A copy of the package whose modules may be edited, all of them parsed once."""
    copy = tmp_path / "astromorph"
    ignored = shutil.ignore_patterns("__pycache__", "*.pt")
    shutil.copytree(provenance.PACKAGE, copy, ignore=ignored)
    shutil.copytree(parsed_modules, tmp_path / "cache")
    monkeypatch.setattr(provenance, "PACKAGE", copy)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    clear_caches()
    yield copy
    clear_caches()


def clear_caches() -> None:
    """Forget all sources, as a new process does that finds the cache folder."""
    provenance._read.cache_clear()
    provenance._functions.cache_clear()
    provenance.code_digest.cache_clear()
    provenance.function_digest.cache_clear()
    provenance._SOURCES = provenance._Sources()


def append(path: Path, text: str = "EDITED = 1") -> None:
    """Append text, by default a statement that changes digests, to a source file."""
    with open(path, "a", encoding="utf-8") as file:
        file.write(f"\n\n{text}\n")


def digests() -> dict[str, str]:
    """The code digest of each step."""
    return {name: step_code(step) for name, step in STEPS.items()}


def changed(before: dict[str, str]) -> set[str]:
    """The steps whose digests differ from those before."""
    clear_caches()
    return {name for name, value in digests().items() if before[name] != value}


def test_modules_are_parsed_once_for_each_content(package, original, monkeypatch):
    """Later processes read the cache, unless it is damaged, old or of other files."""
    cache = package.parent / "cache" / "astromorph" / provenance.SOURCES_CACHE
    parsed = []
    parse = provenance._parse
    monkeypatch.setattr(
        provenance, "_parse", lambda *args: parsed.append(args[1]) or parse(*args)
    )
    cache.unlink()
    assert changed(original) == set()
    content = cache.read_text()
    entries = json.loads(content)
    assert len(parsed) == len(set(parsed)) == len(entries) > 100
    parsed.clear()
    assert changed(original) == set()
    assert parsed == []
    append(package / "atomic.py")
    assert changed(original) == set(STEPS)
    assert [path.name for path in parsed] == ["atomic.py"]
    assert len(json.loads(cache.read_text())) == len(entries) + 1
    for damaged in (
        content[:-9],
        "[]",
        json.dumps({key: [["a"], [1], "b"] for key in entries}),
        json.dumps(dict.fromkeys(entries, "text")),
    ):
        cache.write_text(damaged)
        parsed.clear()
        assert changed(original) == set(STEPS)
        assert len(parsed) == len(entries)
    monkeypatch.setattr(provenance, "MAX_SOURCES", len(entries))
    append(package / "atomic.py", "MORE = 1")
    assert changed(original) == set(STEPS)
    assert len(json.loads(cache.read_text())) == len(entries)
    cache.unlink()
    cache.mkdir()  # nothing can be written
    parsed.clear()
    assert changed(original) == set(STEPS)
    assert len(parsed) == len(entries)


def test_every_folder_is_in_the_table():
    """A new folder needs a row."""
    folders = {path.parent.name for path in provenance.PACKAGE.glob("*/__init__.py")}
    assert folders | {""} == set(FOLDERS)


@pytest.mark.parametrize("folder", FOLDERS)
def test_an_edit_changes_the_digests_of_the_steps_that_use_it(
    package, original, folder
):
    """Imports are followed through the package, from folder to folder."""
    pattern = "**/*.py" if folder else "*.py"
    for path in (package / folder).glob(pattern):
        if path.name not in SHARED_RECORDS.get(folder, ()):
            append(path)
    assert changed(original) == FOLDERS[folder]


@pytest.mark.parametrize(
    ("module", "steps"),
    [
        ("byol/byol.py", EMBEDDING),
        ("fits/image.py", READING),
        ("export/tables/csv.py", {"export_csv"}),
        ("export/html_map/html_map.py", {"export_map"}),
        ("export/palette.py", {"export_map", "export_gallery", "report_home", "rank"}),
        ("artefacts/column_types.py", EXPORTS | LABELS),
        ("artefacts/run_files.py", set()),
        ("settings/sections.py", set()),
        ("cli/main.py", set()),
    ],
)
def test_an_edit_of_one_module_changes_few_digests(package, original, module, steps):
    """Settings count by their values, file names as inputs and outputs of rules."""
    append(package / module)
    assert changed(original) == steps


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("job.settings.export_settings.csv_separator)", '"|")', {"export_csv"}),
        ("evaluate(\n", "evaluate(\n        *(),\n", {"evaluate"}),
        (
            '"export_tables"))\n\n\ndef _export_tensorboard',
            '"export_csv"))\n\n\ndef _export_tensorboard',
            {"export_parquet", "export_fits", "export_votable"},
        ),
        ('"export_tables", _exports', '"export_csv", _exports', set()),
    ],
    ids=("argument", "call", "shared function", "table of steps"),
)
def test_an_edit_of_how_a_step_is_called_changes_its_digest(
    package, original, old, new, expected
):
    """And that of no other step, although the module of the calls contains them all."""
    module = package / "cli" / "steps.py"
    text = module.read_text(encoding="utf-8")
    module.write_text(text.replace(old, new, 1), encoding="utf-8")
    assert changed(original) == expected


def test_the_calls_of_steps_are_found_by_their_names():
    """`step_code` looks them up in the source."""
    for name, step in STEPS.items():
        assert step.run is getattr(steps, f"_{name}")


def test_comments_docstrings_and_layout_do_not_count(package, original):
    """Every module is rewritten without comments and with other docstrings."""
    for path in package.rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, DOCUMENTED) and ast.get_docstring(node) is not None:
                node.body[0] = ast.Expr(ast.Constant("Another docstring."))
        path.write_text(ast.unparse(tree), encoding="utf-8")
    assert changed(original) == set()


def test_imports_for_type_checkers_alone_do_not_count(package):
    """A module that is imported under `if TYPE_CHECKING:` changes no digest."""
    used = package / "byol" / "used.py"
    used.write_text("VALUE = 1\n", encoding="utf-8")
    guarded = "    from astromorph.byol import used"
    append(package / "byol" / "byol.py", f"if TYPE_CHECKING:\n{guarded}")
    clear_caches()
    before = digests()
    append(used)
    assert changed(before) == set()
    append(package / "byol" / "byol.py", f"if not TYPE_CHECKING:\n{guarded}")
    clear_caches()
    before = digests()
    append(used)
    assert changed(before) == EMBEDDING


def test_a_template_belongs_to_the_module_that_names_it(package, original):
    """An edit of the map's page or scripts changes the map, and no other step."""
    append(package / "pages" / "templates" / "map.html", "<!-- more -->")
    assert changed(original) == {"export_map"}
    before = digests()
    append(package / "export" / "html_map" / "scripts" / "list.js", "// more")
    assert changed(before) == {"export_map"}


def test_training_does_not_depend_on_reading_or_on_exports():
    """Its inputs are tensors: it uses only the record of an image from `fits`."""
    needed, waiting = set(), ["training.train"]
    while waiting:
        module = waiting.pop()
        if module not in needed:
            needed.add(module)
            waiting += provenance.imported_modules(module)
    folders = {module.split(".")[0] for module in needed}
    assert not folders & {"filelist", "catalogue", "analysis", "export", "cli"}
    assert {module for module in needed if module.startswith("fits.")} == {
        "fits.pixels"
    }
