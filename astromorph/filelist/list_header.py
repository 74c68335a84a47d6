"""The first line of a file list: its format, and which columns contain paths."""

import csv
import re
from collections.abc import Sequence
from typing import NamedTuple

from astromorph.artefacts.columns import CATALOGUE_COLUMNS
from astromorph.system.logs import UNDECODABLE

# The name of the object; it takes precedence over OBJECT of the header.
OBJECT_COLUMN = "object"
SEPARATORS = ",;\t"  # of a CSV list
CHANNEL_COLUMN = re.compile(r"path(_\w+)?")
# Names of the column of paths, in lower case and without spaces, `_` and `-`, that are
# accepted if no column is called `path`.
OTHER_NAMES = frozenset(
    f"{kind}{part}"
    for kind in ("", "file", "fits", "fitsfile", "image", "imagefile")
    for part in ("", "s", "name", "names", "path", "paths", "file", "files")
) - {"", "s", "name", "names", "image", "images", "imagename", "imagenames"}
SPELLING = str.maketrans("", "", " _-")
FITS_NAME = re.compile(r"\.(fits?|fts|fz)(\.\w+)?(\[.*\])?$", re.IGNORECASE)
FILE_NAME = re.compile(r"/|\.\w{1,5}$")


class Header(NamedTuple):
    """The columns of a CSV list.

    Attributes
    ----------
    delimiter : str
        Separator of the cells.
    names : list of str
        The names of all columns as the catalogue has them; empty for a column without
        a name, which is ignored.
    path_columns : list of int
        Indices of the columns that contain paths.
    """

    delimiter: str
    names: list[str]
    path_columns: list[int]


def find_delimiter(line: str) -> str | None:
    """The delimiter of a CSV list.

    Parameters
    ----------
    line : str
        The first line of a list that is neither empty nor a comment.

    Returns
    -------
    str or None
        None if the line is a path, as in a text list.

    Raises
    ------
    csv.Error
        The line is neither a path nor a header with a column of paths.

    Examples
    --------
    >>> find_delimiter("label;filename"), find_delimiter("NGC 1275, centre.fits")
    (';', None)
    """
    for delimiter in sorted(SEPARATORS, key=line.count, reverse=True):
        if find_path_columns(_cells(line, delimiter)):
            return delimiter
    delimiter = max(SEPARATORS, key=line.count)
    cells = _cells(line, delimiter)
    if len(cells) < 2:
        if len(words := line.replace("|", " ").split()) > 1 and "path" in words:
            raise csv.Error(
                "its columns must be separated by commas, semicolons or tabs; the "
                f"header is {line.strip()!r}"
            )
        return None
    if any(FITS_NAME.search(cell) for cell in cells[:-1]):
        raise csv.Error(
            f"its first line, {line.strip()!r}, has {len(cells)} cells but no names of "
            "columns; put a line such as `path,label` before it, with a name for each "
            "column"
        )
    if not any(FILE_NAME.search(cell) for cell in cells):
        raise csv.Error(f"its header has no column `path`; {_describe(cells)}")
    return None


def make_header(cells: Sequence[str], delimiter: str) -> Header:
    """The columns of a CSV list.

    A column whose name the catalogue uses gets the prefix `listed_`.

    Parameters
    ----------
    cells : sequence of str
        The cells of the header.
    delimiter : str
        Their separator.

    Raises
    ------
    csv.Error
        There is no column of paths, two columns have one name, or a name is not UTF-8.
    """
    found = [cell.strip() for cell in cells]
    if match := UNDECODABLE.search(delimiter.join(found)):
        byte = ord(match[0]) - 0xDC00
        raise csv.Error(
            f"its header is not UTF-8 text: it has the byte 0x{byte:02x}; convert the "
            "list, for example with `iconv -f LATIN1 -t UTF-8`"
        )
    path_columns = find_path_columns(found)
    if not path_columns:
        raise csv.Error(f"its header has no column `path`; {_describe(found)}")
    ours = set(CATALOGUE_COLUMNS) - {OBJECT_COLUMN}
    names = [f"listed_{name}" if name in ours else name for name in found]
    further = [n for k, n in enumerate(names) if n and k not in path_columns]
    if repeated := [name for name in further if further.count(name) > 1]:
        raise csv.Error(
            f"two columns have the name `{repeated[0]}`; rename or remove one of them"
        )
    return Header(delimiter, names, path_columns)


def find_path_columns(names: Sequence[str]) -> list[int]:
    """Indices of the columns that contain paths.

    These are the column `path`; or all columns `path_g`, `path_r`, ...; or the only
    column with a similar name, such as `filename` or `Path`.

    Raises
    ------
    csv.Error
        Several columns have similar names.
    """
    names = [name.strip() for name in names]
    if "path" in names:
        return [names.index("path")]
    if channels := [k for k, n in enumerate(names) if CHANNEL_COLUMN.fullmatch(n)]:
        return channels
    spelled = [name.lower().translate(SPELLING) for name in names]
    if "path" in spelled:
        return [spelled.index("path")]
    similar = [k for k, name in enumerate(spelled) if name in OTHER_NAMES]
    if len(similar) > 1:
        raise csv.Error(
            "several of its columns may contain the paths: "
            f"{', '.join(f'`{names[k]}`' for k in similar)}; rename the right one to "
            "`path`"
        )
    return similar


def _describe(names: Sequence[str]) -> str:
    found = ", ".join(f"`{name.strip()}`" for name in names if name.strip())
    return f"it has {found}; rename the column with the paths of the files to `path`"


def _cells(line: str, delimiter: str) -> list[str]:
    return [cell.strip() for cell in next(csv.reader([line], delimiter=delimiter), [])]
