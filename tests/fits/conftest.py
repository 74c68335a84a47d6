"""Fixtures of the tests of FITS files."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def unusual_fits() -> Path:
    """A folder of FITS files from archives with unusual properties, if it exists.

    It is looked for in `shared/data` beside the repository and further up.
    """
    for parent in Path(__file__).parents[3:]:
        folder = parent / "shared" / "data" / "odd-fits"
        if folder.is_dir():
            return folder
    pytest.skip("shared/data/odd-fits is not beside the repository")
