"""Files of killed processes are removed; a place that cannot be written is found."""

import errno
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from astromorph import atomic
from astromorph.analysis.analyse import analyse
from astromorph.artefacts.run_files import RunFiles
from astromorph.atomic import atomic_folder, atomic_write, check_writable
from astromorph.embedding.evaluate import evaluate
from astromorph.embedding.infer import infer
from astromorph.errors import WriteError
from astromorph.settings.sections import (
    AnalysisSettings,
    EvaluationSettings,
    InferenceSettings,
)

WRITE = """
import sys, time
from pathlib import Path
from astromorph.atomic import atomic_folder, atomic_write
with atomic_write("a.txt") as file, atomic_folder("folder") as folder:
    file.write_text("half")
    (folder / "b.txt").write_text("half")
    print("writing", flush=True)
    time.sleep(60)
"""


@pytest.fixture(autouse=True)
def new_process():
    """Each process lists a folder once; each test is like a new process."""
    atomic._remove_leftovers.cache_clear()


def temporary_names(folder: Path) -> list[Path]:
    return sorted(folder.glob(".*.tmp"))


@pytest.mark.slow
def test_files_of_a_killed_process_are_removed_by_the_next_one(tmp_path):
    """Those of a process that is running are kept."""
    command = [sys.executable, "-c", WRITE]
    with subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "writing\n"
        written = temporary_names(tmp_path)
        assert len(written) == 2
        with atomic_write(tmp_path / "c.txt") as file:
            file.touch()
        assert temporary_names(tmp_path) == written
        process.kill()
    atomic._remove_leftovers.cache_clear()
    with atomic_folder(tmp_path / "folder"):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c.txt", "folder"]
    assert list((tmp_path / "folder").iterdir()) == []


def test_files_of_another_machine_are_removed_after_a_week(tmp_path):
    """Whether its process is running cannot be checked; other files are not touched."""
    names = [".a.pt.astromorph-elsewhere-1.tmp", ".b.astromorph-elsewhere-1.tmp"]
    others = [".a.pt.1.tmp", "a.astromorph-elsewhere-1.tmp", ".astromorph-x-1.tmp~"]
    for name in (names[0], *others):
        (tmp_path / name).touch()
    folder = tmp_path / names[1] / "new"
    folder.mkdir(parents=True)
    (folder / "b").touch()
    old = time.time() - atomic.MAX_AGE_ELSEWHERE - 60
    for path in (*tmp_path.iterdir(), folder):
        os.utime(path, (old, old))
    with atomic_write(tmp_path / "x") as file:
        file.touch()
    # A file in the folder has changed lately.
    assert not (tmp_path / names[0]).exists()
    assert (folder / "b").exists()
    os.utime(folder / "b", (old, old))
    atomic._remove_leftovers.cache_clear()
    with atomic_write(tmp_path / "x") as file:
        file.touch()
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([*others, "x"])


def test_a_second_file_in_the_same_folder_does_not_list_it_again(tmp_path, monkeypatch):
    """There can be many files in it."""
    listed, scandir = [], os.scandir

    def record(path: Path):
        listed.append(path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", record)
    for name in "abc":
        with atomic_write(tmp_path / name) as file:
            assert socket.gethostname() in file.name
            file.touch()
    assert listed == [tmp_path]


def test_an_output_that_cannot_be_written_is_found(tmp_path):
    """Nothing remains of the attempt, and existing files do not change."""
    path = tmp_path / "new" / "a.pt"
    check_writable([path], [tmp_path / "folder"])
    assert list(path.parent.iterdir()) == []
    path.write_text("old")
    (tmp_path / "folder").mkdir()
    check_writable([path], [tmp_path / "folder"])
    assert path.read_text() == "old"
    with pytest.raises(WriteError, match=r"a\.pt/b: cannot be written"):
        check_writable([path / "b"])
    with pytest.raises(
        WriteError, match=r"folder: cannot be written \(this is a folder"
    ):
        check_writable([tmp_path / "folder"])


def test_the_test_file_is_removed_if_closing_it_fails(tmp_path, monkeypatch):
    """Network file systems report a full disk when a file is closed."""
    touch = Path.touch

    def fail(path: Path) -> None:
        touch(path)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "touch", fail)
    with pytest.raises(WriteError, match="the disk is full"):
        check_writable([tmp_path / "a.pt"])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "step"),
    [
        ("analysis.html", lambda files: analyse(files, AnalysisSettings(), 0)),
        ("evaluation.html",
         lambda files: evaluate(files, InferenceSettings(), EvaluationSettings())),
        ("embeddings/00000.parquet",
         lambda files: infer(files, "00000", InferenceSettings())),
    ],
)  # fmt: skip
def test_long_steps_try_their_outputs_before_they_read(tmp_path, name, step):
    """Here there is nothing to read, and a folder has the name of the output."""
    (tmp_path / name).mkdir(parents=True)
    with pytest.raises(WriteError, match=f"{name}: cannot be written"):
        step(RunFiles.of_run(tmp_path, shards=1))
