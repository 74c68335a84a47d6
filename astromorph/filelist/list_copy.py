"""Copies of lists that can be read only once: pipes and standard input."""

import csv
import io
import logging
import os
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path

from astromorph.atomic import atomic_write
from astromorph.errors import AstromorphError
from astromorph.filelist.entries import (
    explain_unreadable,
    open_text,
    read_rows,
    resolve_paths,
)
from astromorph.filelist.list_header import SEPARATORS
from astromorph.system.files import is_read_once, open_once

LOG = logging.getLogger(__name__)
ESCAPE = "surrogateescape"  # names of files that are not UTF-8 stay as they are


def reusable_list(datafile: str, copy: str | Path) -> str:
    """The name of a list that can be read several times.

    Parameters
    ----------
    datafile : str
        A file list; a pipe, ``/dev/fd/63`` or ``-`` for standard input is copied.
    copy : path
        The CSV to write. Relative paths in a pipe are relative to the working
        directory, and absolute in the copy, so that the copy lists the same files from
        anywhere.

    Returns
    -------
    str
        `datafile`, or the name of the copy.

    Raises
    ------
    AstromorphError
        The pipe cannot be read, or is not text, or no program writes to it.
    WriteError
        The copy cannot be written.
    """
    if not is_read_once(datafile):
        return datafile
    LOG.info("%s: reading the file list, which ends when its program ends", datafile)
    with (
        open_once(datafile) as stream,
        open_text(stream) as text,
        atomic_write(copy) as temporary,
        open(temporary, "w", newline="", encoding="utf-8", errors=ESCAPE) as file,
    ):
        try:
            _write_rows(file, read_rows(text))
        except csv.Error as error:
            raise AstromorphError(explain_unreadable(datafile, error)) from None
    LOG.info("%s: copied to %s; give that file to repeat the run", datafile, copy)
    return str(copy)


def _write_rows(
    file: io.TextIOBase, rows: Iterable[tuple[list[str], dict[str, str]]]
) -> None:
    """Write a list as CSV with absolute paths."""
    remaining = iter(rows)
    first = next(remaining, None)
    if first is None:
        return
    paths, columns = first
    numbers = range(1, len(paths) + 1)
    names = ["path"] if len(paths) == 1 else [f"path_{number}" for number in numbers]
    header = [*names, *columns]
    writer = csv.writer(file, delimiter=_delimiter(header))
    writer.writerow(header)
    folder = os.getcwd()
    for paths, columns in chain([first], remaining):
        writer.writerow([*resolve_paths(folder, paths), *columns.values()])


def _delimiter(header: Sequence[str]) -> str:
    """A delimiter that is recognised although it may also be in a column's name."""
    text = "".join(header)
    return min(SEPARATORS, key=text.count)
