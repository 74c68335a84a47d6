"""Fixtures of the tests of FITS files."""

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def unusual_fits() -> Path:
    """A folder of FITS files from archives with unusual properties, if it exists."""
    folder = ROOT.parent / "shared" / "data" / "odd-fits"
    if not folder.is_dir():
        pytest.skip(f"{folder} is not on this machine")
    return folder
