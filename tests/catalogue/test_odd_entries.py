"""Odd entries of a list: each becomes a row with a true reason, and nothing hangs."""

import csv
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from astromorph.artefacts.run_files import RunFiles
from astromorph.byol.build import load_model
from astromorph.catalogue.validate import validate
from astromorph.compat import convert
from astromorph.errors import AstromorphError
from astromorph.filelist.entries import read_filelist
from astromorph.settings.loading import load, parse

LOOP = "the symbolic links of the path form a loop"
LONG = "the path is longer than the file system allows"
NO_FOLDER = "a part of the path is a file, not a folder"
SPECIAL = "this is a pipe, a socket or a device, not a file"
FOLDER = "this is a folder"
ABSENT = "there is no such file"
NOT_FITS = "this is not a FITS file"
BROKEN_LINK = "this is a symbolic link to a file that does not exist"
ODD = {
    "loop.fits": LOOP,
    "loop.fits/a.fits": LOOP,
    "loop_a.fits": LOOP,
    "x" * 300 + ".fits": LONG,
    "/".join(["x" * 200] * 30): LONG,
    "x" * 10**5: LONG,
    "good.fits/a.fits": NO_FOLDER,
    "good.fits/": NO_FOLDER,
    "good.fits/..": NO_FOLDER,
    "empty.fits/b/c.fits": NO_FOLDER,
    "socket.fits": SPECIAL,
    "link_to_socket.fits": SPECIAL,
    "pipe.fits": SPECIAL,
    "link_to_pipe.fits": SPECIAL,
    "/dev/null": SPECIAL,
    "/dev/zero": SPECIAL,
    "/dev/random": SPECIAL,
    "nul\0.fits": "the path contains a NUL character",
    "broken.fits": BROKEN_LINK,
    "folder": FOLDER,
    "folder/": FOLDER,
    ".": FOLDER,
    "..": FOLDER,
    "/": FOLDER,
    "link_to_folder": FOLDER,
    "empty.fits": "the file is empty",
    "absent.fits": ABSENT,
    "absent/a.fits": ABSENT,
    "Good.fits": ABSENT,
    "-rf": ABSENT,
    "*.fits": "a list names each file, without patterns such as *",
    "$HOME/a.fits": ABSENT,
    '"good.fits"': "its name is in quotes, which a text list does not need",
    "good.fits # mine": ABSENT,
    "good.fits[1]": "there is no HDU 1, which",
    "absent.fits[1]": ABSENT,
    "~/a.fits": ABSENT,
    "~someone/a.fits": "by the home folder of an existing user only",
    "https://example.org/a.fits": "this is an address; download the file",
    "s3://bucket/a.fits": "this is an address; download the file",
    "file:///data/a.fits": "this is an address; download the file",
    "\u202eé \x1b[2J.fits": ABSENT,
    "text.fits": NOT_FITS,
    "/proc/self/status": NOT_FITS,
    "/proc/self/mem": None,
    "link_to_good.fits": "",
    "  folder/../good.fits  ": "",
    "trailing.fits   ": "",
    "./good.fits": "",
    "folder//..//good.fits": "",
}


def write(path, seed):
    pixels = np.random.default_rng(seed).normal(size=(20, 20)).astype(np.float32)
    fits.PrimaryHDU(pixels).writeto(path)


@pytest.fixture
def odd(tmp_path, monkeypatch):
    """A folder with odd files, which is the working directory."""
    monkeypatch.chdir(tmp_path)  # names of sockets must be short
    write("good.fits", 0)
    write("trailing.fits", 1)
    Path("loop.fits").symlink_to("loop.fits")
    Path("loop_a.fits").symlink_to("loop_b.fits")
    Path("loop_b.fits").symlink_to("loop_a.fits")
    Path("broken.fits").symlink_to("nowhere.fits")
    Path("link_to_good.fits").symlink_to("good.fits")
    Path("folder").mkdir()
    Path("link_to_folder").symlink_to("folder")
    Path("empty.fits").write_bytes(b"")
    Path("text.fits").write_text("hello")
    os.mkfifo("pipe.fits")
    Path("link_to_pipe.fits").symlink_to("pipe.fits")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket.fits")
        Path("link_to_socket.fits").symlink_to("socket.fits")
        yield tmp_path


def test_odd_entries_are_rows_with_a_true_reason(odd):
    """None stops the run, waits or is told to be damaged."""
    Path("list.txt").write_text("\n".join([*ODD, "   ", "\t", ""]))
    settings = parse({"validate_settings": {"max_bad_fraction": 1.0}}, "test")
    files = RunFiles(odd / "results")
    validate(
        "list.txt", files, settings.data_settings, settings.validate_settings,
        settings.preprocess_settings,
    )  # fmt: skip
    with open(files.catalogue, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(ODD)
    wrong = {}
    for (name, expected), row in zip(ODD.items(), rows, strict=True):
        assert (row["status"] == "rejected") == (expected != ""), (name, row["reason"])
        reason = row["reason"]
        is_true = expected is None or reason.startswith(expected) or expected in reason
        if not is_true or "damaged" in reason or "Errno" in reason:
            wrong[name[:40]] = reason
    assert not wrong


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_without_permission_is_a_row(odd):
    """So is one in a folder that must not be searched."""
    write("secret.fits", 3)
    Path("secret.fits").chmod(0)
    assert reason_of("secret.fits") == "permission denied"
    Path("folder").chmod(0)
    assert reason_of("folder/a.fits") == "permission denied"
    Path("folder").chmod(0o700)


def reason_of(path):
    from astromorph.errors import FitsImageError
    from astromorph.fits.file import open_fits

    with pytest.raises(FitsImageError) as caught, open_fits(path):
        pass
    return str(caught.value)


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_file_of_another_user_is_not_damaged(odd):
    """The reason is the permission, of the file and of a folder of its path."""
    Path("good.fits").chmod(0o600)
    os.chmod("folder", 0o700)
    code = """
import os
from astromorph.errors import FitsImageError
from astromorph.fits.file import open_fits
os.setgroups([]), os.setgid(12345), os.setuid(12345)
for path in ("good.fits", "folder/a.fits"):
    try:
        with open_fits(path): print("read")
    except FitsImageError as error:
        print(error)
"""
    for parent in [odd, *odd.parents]:
        parent.chmod(parent.stat().st_mode | 0o005)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "permission denied\n" * 2, done.stderr


READERS: dict[str, Callable[[str], object]] = {
    "list": lambda path: list(read_filelist(path)),
    "settings": load,
    "model": load_model,
    "convert": lambda path: convert(path, "model.pt"),
}
UNREADABLE = {
    "loop.fits": LOOP,
    "x" * 300: LONG,
    "good.fits/a": NO_FOLDER,
    "folder": FOLDER,
    "broken.fits": BROKEN_LINK,
    "socket.fits": SPECIAL,
    "/dev/zero": SPECIAL,
    "nul\0": "the path contains a NUL character",
}


@pytest.mark.parametrize("name", UNREADABLE, ids=str.__repr__)
@pytest.mark.parametrize("reader", READERS.values(), ids=READERS)
def test_lists_settings_and_models_have_the_same_words(odd, reader, name):
    """Each message begins with the name."""
    with pytest.raises(AstromorphError) as caught:
        reader(name)
    assert str(caught.value).startswith(f"{name}: ")
    assert UNREADABLE[name] in str(caught.value)


@pytest.mark.parametrize("reader", [load_model, READERS["convert"]])
def test_a_pipe_is_no_model(odd, reader):
    """Nothing waits for a program that writes to it."""
    with pytest.raises(AstromorphError, match=rf"pipe\.fits: {SPECIAL}"):
        reader("pipe.fits")


def test_the_line_with_a_label_that_is_not_utf_8_is_named(tmp_path):
    """Also far from the start of the list; the names of files may be any bytes."""
    path = tmp_path / "list.csv"
    lines = [b"path,label", *(b"/data/%05d\xe9.fits,x" % k for k in range(20_000))]
    lines[15_000] = "/data/a.fits,é".encode("latin-1")
    path.write_bytes(b"\n".join(lines))
    message = r"list\.csv: .* line 15001 is not UTF-8 text: .* 0xe9; .*iconv"
    with pytest.raises(AstromorphError, match=message):
        list(read_filelist(path))
