"""Lines of the log: no text of a file can forge one, in any process."""

import logging
import os
import re
import subprocess
import sys

import numpy as np
import pytest
from astropy.io import fits

from astromorph.system.logs import (
    MAX_CHARACTERS,
    OneLine,
    escape_undecodable,
    printable,
)
from astromorph.system.workers import process_pool

FORGED = "\x1b[2J\x1b]0;owned\x07\n12:00:00 ERROR forged: all is lost\n"
LINE = re.compile(r"\d\d:\d\d:\d\d (INFO|WARNING|ERROR) ")


@pytest.mark.parametrize(
    "text",
    [FORGED, "a\rb", "a\u2028b\u2029c\x85d", "\u202eabc\u2066", "nul\0"],
)
def test_a_record_is_one_printable_line(text):
    """With escape sequences instead of unprintable characters."""
    record = logging.LogRecord("a", logging.INFO, "", 0, "name %s", (text,), None)
    line = OneLine("%(message)s").format(record)
    assert line.isprintable()
    assert line == "name " + printable(text)
    assert eval(f"'{line[5:]}'") == text


def test_a_very_long_record_is_shortened():
    """Its beginning and end remain."""
    text = "a" * 10**6 + "z" * 10
    record = logging.LogRecord("a", logging.INFO, "", 0, text, (), None)
    line = OneLine("%(message)s").format(record)
    assert len(line) < MAX_CHARACTERS + 100
    assert line.startswith("aaa")
    assert line.endswith("z" * 10)
    assert f"[{10**6 + 10 - MAX_CHARACTERS} characters]" in line


def write_with_bad_card(folder):
    """An image with control characters in a card, listed among 600."""
    pixels = np.random.default_rng(0).normal(size=(32, 32)).astype("f4")
    fits.PrimaryHDU(pixels).writeto(folder / "good.fits")
    raw = bytearray((folder / "good.fits").read_bytes())
    end = raw.index(b"END" + b" " * 77)
    raw[end : end + 160] = f"bad key {FORGED}".encode().ljust(80) + b"END".ljust(80)
    (folder / "bad.fits").write_bytes(raw)
    names = ["good.fits"] * 300 + ["bad.fits"] + ["good.fits"] * 299
    (folder / "list.txt").write_text("\n".join(names))


@pytest.mark.slow
@pytest.mark.parametrize("threads", [1, 2])
def test_a_header_card_forges_no_line_of_the_log(tmp_path, threads):
    """Neither in the main process nor in those that read headers."""
    write_with_bad_card(tmp_path)
    settings = '{"data_settings": {"header_columns": ["FILTER"]}}'
    done = subprocess.run(
        [
            sys.executable, "-m", "astromorph", "validate", "-d", "list.txt",
            "--settings", settings, "--threads", str(threads),
        ],
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert all(line.isprintable() and LINE.match(line) for line in lines), lines
    about = [line for line in lines if "forged" in line]
    for line in about:  # newer versions of the step may read cards without a warning
        assert " WARNING " in line
        assert "\\x1b[2J" in line


NOISY = f"""
import logging, warnings
from astropy.io import fits
from astropy.utils.exceptions import AstropyUserWarning
from astromorph.system.logs import set_up_logging
from astromorph.system.workers import process_pool

FORGED = {FORGED!r}

def work(number):
    logging.getLogger("astromorph.any").info("info %s", FORGED)
    warnings.warn(f"python {{number}} {{FORGED}}", UserWarning)
    warnings.warn(f"astropy {{number}} {{FORGED}}", AstropyUserWarning)
    if number == 0:
        raise ValueError(f"failed {{FORGED}}")

def main():
    set_up_logging(logging.INFO)
    with process_pool(1) as pool:
        pool.submit(work, 1).result()
        pool.submit(work, 0).result()
"""


@pytest.mark.slow
def test_a_worker_process_logs_like_its_parent(tmp_path):
    """Records, warnings of Python and astropy, and an exception that is not handled."""
    (tmp_path / "noisy.py").write_text(NOISY)
    (tmp_path / "main.py").write_text("import noisy\nnoisy.main()\n")
    done = subprocess.run(
        [sys.executable, "main.py"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert all(line.isprintable() for line in lines), lines
    assert all(LINE.match(line) or line.startswith("  ") for line in lines), lines
    for kind in ("INFO info", r"WARNING .*python \d", r"WARNING .*astropy \d"):
        assert sum(bool(re.search(f" {kind} ", line)) for line in lines) == 2, kind
    assert lines[-1].split(" ", 1)[1] == printable(
        f"ERROR unexpected ValueError: failed {FORGED}"
    )
    assert "  Traceback (most recent call last):" in lines


def level_of_root():
    """The level of the log in the process that calls this."""
    return logging.getLogger().level


@pytest.mark.slow
def test_workers_have_the_level_of_their_parent():
    """Only rank 0 of several processes that train together logs information."""
    root = logging.getLogger()
    before = root.level
    try:
        for level in (logging.INFO, logging.ERROR):
            root.setLevel(level)
            with process_pool(1) as pool:
                assert pool.submit(level_of_root).result() == level
    finally:
        root.setLevel(before)


def test_bytes_of_names_that_are_not_utf8_are_shown_as_a_shell_shows_them():
    """Other characters are not changed."""
    name = os.fsdecode("café ".encode() + b"caf\xe9\xff.fits")
    assert printable(name) == escape_undecodable(name) == r"café caf\xe9\xff.fits"
