"""Digests: equal for equal meaning, different for anything else."""

import shutil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from astromorph import provenance
from astromorph.provenance import canonical_json, code_digest, digest


def test_canonical_json_has_one_form():
    """Order and nulls do not matter, values and their names do."""
    assert canonical_json({"b": 1, "a": {"x": None, "y": [1.5]}}) == (
        '{"a":{"y":[1.5]},"b":1}'
    )
    assert canonical_json({"a": 1, "b": 2}) != canonical_json({"a": 2, "b": 1})


@given(st.lists(st.text()), st.lists(st.text()))
def test_digests_keep_the_parts_apart(a, b):
    """Only equal lists have equal digests: ["ab"] is not ["a", "b"]."""
    assert (digest(a) == digest(b)) == (a == b)


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A copy of the package whose modules may be edited."""
    copy = tmp_path / "astromorph"
    shutil.copytree(provenance.PACKAGE, copy)
    monkeypatch.setattr(provenance, "PACKAGE", copy)
    forget()
    yield copy
    forget()


def forget() -> None:
    provenance.imported_modules.cache_clear()
    provenance._meaning.cache_clear()


def edit(package, module, old, new) -> None:
    path = package / f"{module}.py"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    forget()


def digests() -> dict[str, str]:
    steps = ("validate", "shards", "split", "train", "infer", "export_csv")
    return {step: code_digest(step) for step in steps}


def changed(before) -> set[str]:
    after = digests()
    return {step for step in after if before[step] != after[step]}


def test_comments_and_docstrings_do_not_count(package):
    """A comment, another layout, another docstring: the same digest."""
    before = digests()
    edit(package, "byol", "import torch\n", "import torch  # the library\n\n\n")
    edit(package, "byol", '"""Online and target', '"""Both networks, online and target')
    assert changed(before) == set()


@pytest.mark.parametrize(
    ("module", "old", "new", "steps"),
    [
        ("byol", "return 2 * self", "return 3 * self", {"train", "infer"}),
        ("export_csv", "written += len", "written += 2 * len", {"export_csv"}),
        (
            "preprocess",
            "SOFTENING = 3.0",
            "SOFTENING = 4.0",
            {"validate", "shards", "train"},
        ),
        ("settings", "= 128", "= 129", set()),
        ("cli", "sys.exit(1)", "sys.exit(3)", set()),
    ],
)
def test_an_edit_counts_for_the_steps_that_use_it(package, module, old, new, steps):
    """Imports are followed; settings reach a step by value, not by code."""
    before = digests()
    edit(package, module, old, new)
    assert changed(before) == steps


def test_a_template_is_part_of_the_module_that_names_it(package):
    """An edit of a page makes the page anew, and no other."""
    before = digests() | {"export_map": code_digest("export_map")}
    path = package / "templates" / "map.js"
    path.write_text(path.read_text() + "\n// more\n")
    forget()
    assert changed(before) == set()
    assert code_digest("export_map") != before["export_map"]


def test_fits_image_is_below_everything_that_reads(package):
    """An edit in the reader reaches validate, preprocess and split."""
    before = digests()
    edit(package, "fits_image", "reasons[:3]", "reasons[:4]")
    assert {"validate", "shards"} <= changed(before)
