"""Fixtures that several folders of tests use."""

import gc
import os
import shutil
import tempfile
from multiprocessing.util import Finalize
from pathlib import Path

import pytest

from astromorph.artefacts.run_files import RunFiles
from astromorph.catalogue.validate import validate
from astromorph.filelist.shards import Shard
from astromorph.preprocessing.preprocess import preprocess
from astromorph.processes import is_running
from astromorph.settings.loading import parse
from astromorph.settings.sections import Settings
from astromorph.sky.simulate import simulate

ROOT = Path(__file__).parents[1]
# It replaces all steps when it is imported, as in the search for doctests.
collect_ignore = ["workflow/quick_steps"]
# Started first, so that the workers of `make test` end at about the same time. Tests of
# SLURM often wait, which leaves time for the linters that run beside them.
LONGEST_MODULES = (
    "benchmarks/test_scripts.py",
    "workflow/test_slurm.py",
    "workflow/test_workflow.py",
    "workflow/test_interrupted.py",
    "project/test_guide.py",
    "workflow/test_security.py",
    "training/test_distributed.py",
    "test_errors.py",
    "workflow/test_same_files.py",
    "export/test_map.py",
    "training/test_resume.py",
    "cli/test_cli.py",
    "export/test_gallery.py",
    "test_compat.py",
)
# Files in memory, and how much of it must be free.
MEMORY = Path("/dev/shm")
MIN_FREE_BYTES = 2**33
IN_MEMORY = "astromorph-tests-"


def pytest_configure() -> None:
    """Keep temporary files in memory: results are synced to the disk, which is slow.

    They are removed at the end. If TMPDIR is set, they are where it says.
    """
    if "TMPDIR" in os.environ or not _has_memory():
        return
    for left in MEMORY.glob(f"{IN_MEMORY}[0-9]*"):  # by tests that were killed
        if not is_running(int(left.name.removeprefix(IN_MEMORY))):
            shutil.rmtree(left, ignore_errors=True)
    folder = MEMORY / f"{IN_MEMORY}{os.getpid()}"
    folder.mkdir()  # others may enter it: munged must
    os.environ["TMPDIR"] = str(folder)
    tempfile.tempdir = None  # chosen again
    # Priority -100 removes a folder that multiprocessing has in it.
    Finalize(None, shutil.rmtree, (folder, True), exitpriority=-200)


def _has_memory() -> bool:
    """Whether programs and files of many gigabytes may be in the folder in memory."""
    if not os.access(MEMORY, os.W_OK | os.X_OK):
        return False
    found = os.statvfs(MEMORY)
    is_large = found.f_bavail * found.f_frsize >= MIN_FREE_BYTES
    return is_large and not found.f_flag & os.ST_NOEXEC


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the longest modules first; the order within a module is unchanged."""
    rank = {ROOT / "tests" / name: k for k, name in enumerate(LONGEST_MODULES)}
    items.sort(key=lambda item: rank.get(item.path, len(rank)))


def pytest_collection_finish() -> None:
    """Keep the collector from visiting what is imported: a million objects."""
    gc.freeze()


@pytest.fixture(scope="session")
def settings() -> Settings:
    """Settings with small images and small shards."""
    return parse({"preprocess_settings": {"size": 32, "shard_size": 16}}, "test")


@pytest.fixture(scope="session")
def sky(tmp_path_factory) -> Path:
    """The file list of 28 simulated images, four of each kind."""
    return simulate(tmp_path_factory.mktemp("sky"), 28, seed=1)


@pytest.fixture(scope="session")
def prepared(sky, settings, tmp_path_factory) -> Path:
    """The results of `validate` and `preprocess` for `sky`, with two shards.

    Tensors and contents are in the folder itself; as the files of a run they are
    `RunFiles.of_run(prepared, shards=2)`.
    """
    folder = tmp_path_factory.mktemp("prepared")
    (folder / "tensors").symlink_to(folder)
    files = RunFiles.of_run(folder, shards=2)
    data, preprocessing = settings.data_settings, settings.preprocess_settings
    validate(sky, files, data, settings.validate_settings, preprocessing)
    for shard in (Shard("00000", 0, 16), Shard("00001", 16, 28)):
        preprocess(sky, shard, files, data, preprocessing)
    return folder
