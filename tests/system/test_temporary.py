"""Runs work, or end with one clear line, if home or TMPDIR cannot be written."""

import errno
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from astromorph.errors import AstromorphError, explain_error
from astromorph.system.cache_folders import FOLDERS, check_folders, is_writable
from astromorph.system.temporary import temporary_database

# Not even root can create a folder there.
NO_HOME = "/proc/nowhere"
# A user that the system does not know.
UNKNOWN_USER = """
import pwd
def unknown(uid): raise KeyError(uid)
pwd.getpwuid = unknown
"""
IMPORTS = """
import os
import astromorph
print(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"))
import astropy.config.paths, astropy.io.fits, matplotlib
import numba.core.caching as numba_cache
print(astropy.config.paths.get_cache_dir())
print(matplotlib.get_cachedir())
from astromorph.atomic import _cache_file
print(_cache_file("a.json"))
function = astropy.config.paths.get_cache_dir
file = astropy.config.paths.__file__
print(numba_cache.UserWideCacheLocator.from_function(function, file).get_cache_path())
"""


def python(code, environment, **options):
    """Run a program with these variables only."""
    kept = {k: os.environ[k] for k in ("PATH", "PYTHONPATH") if k in os.environ}
    return subprocess.run(
        [sys.executable, "-c", code], env=kept | environment, capture_output=True,
        text=True, timeout=100, **options,
    )  # fmt: skip


def test_is_writable(tmp_path):
    """A folder counts if it can be created."""
    (tmp_path / "file").write_text("")
    (tmp_path / "broken").symlink_to("nowhere")
    expected = {
        tmp_path: True, tmp_path / "a" / "b": True, tmp_path / "file": False,
        tmp_path / "file" / "a": False, tmp_path / "broken": False, NO_HOME: False,
        "~/.cache": False, "a\0": False,
    }  # fmt: skip
    assert {path: is_writable(str(path)) for path in expected} == expected


@pytest.mark.slow
@pytest.mark.parametrize(
    ("code", "environment"),
    [
        ("", {"HOME": NO_HOME}),
        ("", {"HOME": "/", "XDG_CACHE_HOME": NO_HOME, "XDG_CONFIG_HOME": NO_HOME}),
        (UNKNOWN_USER, {}),
        (UNKNOWN_USER, {"HOME": NO_HOME}),
    ],
    ids=["home", "variables", "unknown user", "unknown user with home"],
)
def test_packages_find_a_folder_without_a_home(tmp_path, code, environment):
    """The folder is temporary, and is removed at the end."""
    done = python(code + IMPORTS, environment | {"TMPDIR": str(tmp_path)})
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    folder, *used = done.stdout.splitlines()
    assert Path(folder).is_relative_to(tmp_path)
    assert [path for path in used if not path.startswith(folder)] == []
    assert len(used) == 4
    assert list(tmp_path.iterdir()) == []


def test_a_home_that_can_be_written_is_used(tmp_path):
    """No variable is changed, and no folder is created."""
    code = "import os; old = dict(os.environ)\nimport astromorph\n"
    code += "assert os.environ == old"
    done = python(code, {"HOME": str(tmp_path / "home"), "TMPDIR": str(tmp_path)})
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.iterdir()) == []
    code = "import astromorph"
    done = python(code, {"HOME": NO_HOME, "XDG_CACHE_HOME": str(tmp_path / "new")})
    assert (tmp_path / "new").is_dir()  # astropy ignores it otherwise


def test_worker_processes_use_the_folder_of_their_parent(tmp_path):
    """And do not remove it."""
    inner = "import astromorph, os; print(os.environ['XDG_CACHE_HOME'])"
    code = f"""
import os, subprocess, sys
import astromorph
folder = os.environ["XDG_CACHE_HOME"]
done = subprocess.run([sys.executable, "-c", {inner!r}], stdout=subprocess.PIPE)
assert done.stdout.decode().strip() == folder
assert os.path.isdir(folder)
"""
    done = python(code, {"HOME": NO_HOME, "TMPDIR": str(tmp_path)})
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_no_folder_at_all_is_one_clear_line(tmp_path):
    """The command line names the folder and TMPDIR."""
    code = """
import sys, tempfile
tempfile._candidate_tempdir_list = lambda: ["/proc/none"]
sys.argv = ["astromorph", "validate", "-d", "list.txt"]
from astromorph.cli.main import main
main()
"""
    done = python(code, {"HOME": NO_HOME}, cwd=tmp_path)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert f" ERROR {NO_HOME}/.cache: " in line
    assert "TMPDIR=/scratch/$USER" in line


def test_check_folders_accepts_a_folder_that_can_be_written(monkeypatch, tmp_path):
    """Also through the variables."""
    monkeypatch.setenv("HOME", NO_HOME)
    for variable in FOLDERS:
        monkeypatch.delenv(variable, raising=False)
    with pytest.raises(AstromorphError, match="cannot be written or is full"):
        check_folders()
    for variable in FOLDERS:
        monkeypatch.setenv(variable, str(tmp_path))
    check_folders()


def test_a_full_folder_for_temporary_files_is_named(monkeypatch, tmp_path):
    """The message of SQLite alone says neither which disk nor what to do."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    message = rf"{tmp_path}: .*database or disk is full, .* MB free.*set TMPDIR"
    with (
        pytest.raises(AstromorphError, match=message),
        temporary_database() as database,
    ):
        database.execute("PRAGMA max_page_count = 5")
        database.execute("CREATE TABLE a (b)")
        database.executemany("INSERT INTO a VALUES (?)", [("x" * 999,)] * 99)


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")
def test_duplicates_on_a_full_disk_are_explained(tmp_path):
    """The search for duplicates writes more than fits."""
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(tmp_path)]
    try:
        done = subprocess.run(mount, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("no `mount` on this machine")
    if done.returncode:
        pytest.skip(f"no permission to mount a small disk: {done.stderr.strip()}")
    code = """
from astromorph.filelist.duplicates import SAME_CONTENT, duplicate_finder, text_key
with duplicate_finder() as finder:
    for row in range(10**5):
        finder.add(row, [text_key(SAME_CONTENT, str(row))], [f"{row}.fits"])
"""
    try:
        assert not is_writable(str(tmp_path))  # it has less space than caches need
        done = python(code, {"HOME": "/", "TMPDIR": str(tmp_path)})
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)
    *_, line = done.stderr.splitlines()
    assert line.startswith("astromorph.errors.AstromorphError: ")
    assert f"{tmp_path}: a temporary file cannot be written" in line


def test_missing_folder_for_temporary_files_is_explained(monkeypatch):
    """What tempfile raises has no file name."""
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: ["/proc/none"])
    monkeypatch.setattr(tempfile, "tempdir", None)
    with pytest.raises(FileNotFoundError) as caught:
        tempfile.gettempdir()
    message = explain_error(caught.value)
    assert "/proc/none" in message
    assert "set TMPDIR" in message
    assert "ulimit -n" in explain_error(OSError(errno.EMFILE, "Too many open files"))
