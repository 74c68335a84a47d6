"""What several tests share."""

from pathlib import Path

import pytest

from astromorph.catalogue.validate import validate
from astromorph.preprocessing.preprocess import preprocess
from astromorph.settings.loading import parse
from astromorph.settings.sections import Settings
from astromorph.sky.simulate import simulate

ROOT = Path(__file__).parents[1]
# Started first, so that the workers of `make test` end at about the same time.
LONGEST_MODULES = (
    "workflow/test_workflow.py",
    "workflow/test_slurm.py",
    "benchmarks/test_scripts.py",
    "project/test_guide.py",
    "training/test_distributed.py",
    "training/test_resume.py",
    "export/test_map.py",
    "test_compat.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the modules that take longest first; the order within them stays."""
    rank = {ROOT / "tests" / name: k for k, name in enumerate(LONGEST_MODULES)}
    items.sort(key=lambda item: rank.get(item.path, len(rank)))


@pytest.fixture(scope="session")
def settings() -> Settings:
    """Small images, small shards."""
    return parse({"preprocess_settings": {"size": 32, "shard_size": 16}}, "test")


@pytest.fixture(scope="session")
def sky(tmp_path_factory) -> Path:
    """The file list of 28 simulated images, four of each kind."""
    return simulate(tmp_path_factory.mktemp("sky"), 28, seed=1)


@pytest.fixture(scope="session")
def prepared(sky, settings, tmp_path_factory) -> Path:
    """A folder with catalogue.csv, validation.html and two shards of the sky."""
    folder = tmp_path_factory.mktemp("prepared")
    validate(settings, sky, folder / "catalogue.csv", folder / "validation.html")
    for name, rows in (("00000", (0, 16)), ("00001", (16, 28))):
        outputs = (folder / f"{name}.pt", folder / f"{name}.csv")
        preprocess(settings, sky, rows, *outputs)
    return folder


@pytest.fixture(scope="session")
def odd_fits() -> Path:
    """Real FITS files with every oddity, from `shared/data` in a folder further up."""
    for parent in ROOT.parents:
        folder = parent / "shared" / "data" / "odd-fits"
        if folder.is_dir():
            return folder
    pytest.skip("shared/data/odd-fits is not beside the repository")
