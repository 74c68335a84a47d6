"""Lists that can be read only once: pipes and standard input."""

import csv
import os
import subprocess
import sys
import threading

import pytest

from astromorph.errors import AstromorphError
from astromorph.filelist.entries import read_filelist, read_paths
from astromorph.filelist.list_copy import reusable_list
from astromorph.system import files

TEXTS = {
    "text": "# mine\na.fits\n/data/b.fits\n",
    "csv": 'path,label,status\na.fits,"x\ny",=1\n/data/b.fits,"p;q",\n',
    "semicolons": 'label,a,b,c;path\n"1;2";a.fits\nx;/data/b.fits\n',
    "channels": "path_g,path_r,label\ng.fits,/data/r.fits,x\n,r.fits,y\n",
    "windows": "\ufeffpath\r\na.fits\r\n",
    "not UTF-8": "a\udce9.fits\n",
}


def summary(entries, folder):
    """Files relative to a folder, and columns, of each row."""
    return [
        ([p.removeprefix(f"{folder}/") for p in e.paths], dict(e.columns))
        for e in entries
    ]


def feed(path, content):
    """Write to a named pipe in a thread."""

    def write():
        with open(path, "wb") as file:
            file.write(content)

    thread = threading.Thread(target=write)
    thread.start()
    return thread


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_copy_of_a_pipe_lists_the_same_files(tmp_path, monkeypatch, text):
    """With absolute paths, so that it can be used from anywhere."""
    monkeypatch.chdir(tmp_path)
    content = text.encode("utf-8", "surrogateescape")
    (tmp_path / "list.txt").write_bytes(content)
    os.mkfifo("pipe")
    thread = feed("pipe", content)
    copy = reusable_list("pipe", tmp_path / "results" / "filelist.csv")
    thread.join()
    assert copy == str(tmp_path / "results" / "filelist.csv")
    copied, listed = list(read_filelist(copy)), list(read_filelist("list.txt"))
    assert summary(copied, tmp_path) == summary(listed, tmp_path)
    assert all(p.startswith("/") for e in copied for p in e.paths if p)
    assert reusable_list(copy, "other") == copy


def test_a_list_that_is_longer_than_a_pipe_is_copied_completely(tmp_path, monkeypatch):
    """While it is being written."""
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    names = [f"/data/{k:050d}.fits" for k in range(20_000)]
    thread = feed("pipe", "\n".join(names).encode())
    copy = reusable_list("pipe", "copy.csv")
    thread.join()
    assert [paths[0] for paths in read_paths(copy)] == names


def test_a_pipe_without_a_writer_is_an_error(tmp_path, monkeypatch):
    """Not an endless wait; neither does a program read it several times."""
    monkeypatch.setattr(files, "WAIT_SECONDS", 0.2)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(AstromorphError, match=r"pipe: .* no program has written to it"):
        reusable_list(str(pipe), tmp_path / "copy")
    assert not (tmp_path / "copy").exists()
    for reader in (read_filelist, read_paths):
        with pytest.raises(AstromorphError, match="a pipe, which can be read only on"):
            list(reader(pipe))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"path,x\na.fits,\xff\n", "pipe: .* line 2 is not UTF-8 text"),
        (b"\x89PNG\r\n\x1a\n\0", "pipe: this is not UTF-8 text"),
        (b'path,x\na.fits,"1\n', "pipe: this CSV cannot be read: line 2"),
        (b"# nothing\n", None),
    ],
)
def test_an_unusable_pipe_is_an_error_with_its_name(tmp_path, content, message):
    """An empty list is found when the copy is read."""
    os.mkfifo(tmp_path / "pipe")
    thread = feed(tmp_path / "pipe", content)
    copy = tmp_path / "copy.csv"
    if message:
        with pytest.raises(AstromorphError, match=message):
            reusable_list(str(tmp_path / "pipe"), copy)
        assert not copy.exists()
    else:
        reusable_list(str(tmp_path / "pipe"), copy)
        with pytest.raises(AstromorphError, match="names no file"):
            list(read_filelist(copy))
    thread.join()


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [
        "{astromorph} -d <(cat list.csv)",
        "cat list.csv | {astromorph} -d -",
        "{astromorph} -d /dev/stdin < list.csv",
        "mkfifo p; cat list.csv > p & {astromorph} -d p",
    ],
    ids=["substitution", "minus", "redirection", "named"],
)
def test_a_list_from_a_program_is_used(tmp_path, sky, command):
    """The catalogue has its rows, and the copy is in the results folder."""
    with open(sky, newline="") as file:
        rows = list(csv.reader(file))[:5]
    number = rows[0].index("path")
    for row in rows[1:]:
        row[number] = str(sky.parent / row[number])
    with open(tmp_path / "list.csv", "w", newline="") as file:
        csv.writer(file).writerows(rows)
    step = f"{sys.executable} -m astromorph validate --results r"
    done = subprocess.run(
        ["bash", "-c", command.format(astromorph=step)],
        cwd=tmp_path, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    with open(tmp_path / "r" / "catalogue.csv", newline="") as file:
        assert [row["status"] for row in csv.DictReader(file)] == ["ok"] * 4
    copied = summary(read_filelist(tmp_path / "r" / "filelist.csv"), "")
    assert copied == summary(read_filelist(tmp_path / "list.csv"), "")


@pytest.mark.slow
@pytest.mark.parametrize("source", ["- </dev/zero", "/dev/fd/5 5<.", "/dev/fd/77"])
def test_standard_input_without_a_list_is_an_error(tmp_path, source):
    """A device, a folder, or nothing at all."""
    step = f"{sys.executable} -m astromorph validate -d {source}"
    done = subprocess.run(
        ["bash", "-c", step], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert f" ERROR {source.split()[0]}: " in done.stderr
