"""The tables of markers in tests/conftest.py name modules and fixtures that exist."""

import re
from pathlib import Path

from conftest import MARKED_FIXTURES, MARKED_MODULES

TESTS = Path(__file__).parents[1]


def test_marked_modules_exist():
    """A module that is renamed keeps its marker."""
    assert not [name for name in MARKED_MODULES if not (TESTS / name).is_file()]


def test_marked_fixtures_exist():
    """A fixture that is renamed keeps its marker."""
    texts = [path.read_text() for path in TESTS.rglob("test_*.py")]
    fixtures = {
        name
        for text in texts
        for name in re.findall(r"@pytest\.fixture[^\n]*\ndef (\w+)\(", text)
    }
    assert set(MARKED_FIXTURES) <= fixtures
