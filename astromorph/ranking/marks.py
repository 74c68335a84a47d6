"""The file of marks, `marks.csv`: what the user has said about some images.

Its columns are `image_id`, `path`, `mark` and `class`. The map writes such files, and
any spreadsheet can.
"""

import csv
import io
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from astromorph.artefacts.tables import undo_spreadsheet_safe
from astromorph.errors import AstromorphError, describe_file_error
from astromorph.filelist.list_header import SEPARATORS
from astromorph.system.logs import escape_undecodable, printable

Mark = Literal["interesting", "not interesting", ""]
INTERESTING: Mark = "interesting"
NOT_INTERESTING: Mark = "not interesting"
MARKS_COLUMNS = ("image_id", "path", "mark", "class")
MAX_NAMED = 5  # unknown images that the log names

LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Marks:
    """The marks of N images of a run.

    Attributes
    ----------
    rows : tuple of int
        N different rows of the images, increasing, from 0.
    marks : tuple of str
        N marks: ``interesting``, ``not interesting`` or empty.
    classes : tuple of str
        N names of classes; empty for none.
    unknown : int
        Number of rows of the file whose image is not in the run.
    """

    rows: tuple[int, ...]
    marks: tuple[Mark, ...]
    classes: tuple[str, ...]
    unknown: int = 0

    def __len__(self) -> int:
        return len(self.rows)

    def count(self, mark: Mark) -> int:
        """Number of images with a mark."""
        return self.marks.count(mark)


@dataclass(slots=True)
class _Marked:
    """What the file says about an image, and the lines that say it."""

    mark: Mark = ""
    mark_line: int = 0
    name: str = ""
    name_line: int = 0


def read_marks(
    path: str | Path, image_ids: Sequence[str], paths: Sequence[str]
) -> Marks:
    """Read a file of marks.

    Cells are separated by commas, semicolons or tabs; columns may be in any order, and
    further ones are ignored. An image is found by its id, or by its path if the id is
    empty or unknown.

    Parameters
    ----------
    path : path
        The file.
    image_ids : sequence of str
        The ids of the images of the run.
    paths : sequence of str
        Their paths, as in the catalogue.

    Returns
    -------
    Marks
        Rows without a mark and a class are left out. Rows whose image is not in the
        run are counted, and a warning names the first ones.

    Raises
    ------
    AstromorphError
        The file cannot be read, a mark is not allowed, or two rows contradict each
        other.
    """
    by_id = {image_id: row for row, image_id in enumerate(image_ids)}
    repeated = {name for name, number in Counter(paths).items() if number > 1}
    by_path = {name: row for row, name in enumerate(paths) if name not in repeated}
    found: dict[int, _Marked] = {}
    unknown: list[str] = []
    for line, cells in _read_rows(path):
        mark, name = _parse_mark(path, line, cells["mark"]), cells["class"]
        if not mark and not name:
            continue
        row = by_id.get(cells["image_id"], by_path.get(cells["path"]))
        if row is None:
            unknown.append(cells["path"] or cells["image_id"])
        else:
            _add(found.setdefault(row, _Marked()), mark, name, path, line)
    if unknown:
        named = ", ".join(printable(name) for name in unknown[:MAX_NAMED])
        more = ", ..." if len(unknown) > MAX_NAMED else ""
        LOG.warning(
            "%s: %d marked images are not in this run and are ignored: %s%s",
            path, len(unknown), named, more,
        )  # fmt: skip
    rows = sorted(found)
    return Marks(
        tuple(rows),
        tuple(found[row].mark for row in rows),
        tuple(found[row].name for row in rows),
        len(unknown),
    )


def _add(marked: _Marked, mark: Mark, name: str, path: str | Path, line: int) -> None:
    """Add what a line says about an image to what earlier lines said."""
    if mark and marked.mark and mark != marked.mark:
        raise AstromorphError(
            f"{path}, line {line}: the image is marked `{mark}`, but in line "
            f"{marked.mark_line} `{marked.mark}`; remove one of the two lines"
        )
    if name and marked.name and name != marked.name:
        raise AstromorphError(
            f"{path}, line {line}: the class of the image is `{printable(name)}`, but "
            f"in line {marked.name_line} `{printable(marked.name)}`; remove one of the "
            "two lines"
        )
    if mark and not marked.mark:
        marked.mark, marked.mark_line = mark, line
    if name and not marked.name:
        marked.name, marked.name_line = name, line


def _parse_mark(path: str | Path, line: int, cell: str) -> Mark:
    text = " ".join(cell.replace("_", " ").replace("-", " ").lower().split())
    for mark in (INTERESTING, NOT_INTERESTING, ""):
        if text == mark:
            return mark
    raise AstromorphError(
        f"{path}, line {line}: found the mark `{printable(cell)}`; allowed are "
        f"`{INTERESTING}`, `{NOT_INTERESTING}` and an empty cell"
    )


def _read_rows(path: str | Path) -> list[tuple[int, dict[str, str]]]:
    """The rows of the file with their line numbers; all `MARKS_COLUMNS` are present."""
    text = _read_text(path)
    header = next((line for line in text.splitlines() if line.strip()), "")
    separator = max(SEPARATORS, key=header.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    rows: list[tuple[int, dict[str, str]]] = []
    names: list[str] = []
    try:
        for cells in reader:
            values = [undo_spreadsheet_safe(cell.strip()) for cell in cells]
            if not any(values):
                continue
            if not names:
                names = _check_header(path, [value.lower() for value in values])
                continue
            row = dict.fromkeys(MARKS_COLUMNS, "") | dict(
                zip(names, values, strict=False)
            )
            rows.append((reader.line_num, row))
    except csv.Error as error:
        raise AstromorphError(
            f"{path}, line {reader.line_num}: this is not a CSV file ({error}); save "
            "the marks from the map again, or write a CSV file"
        ) from None
    if not names:
        raise AstromorphError(f"{path}: the file is empty; {_COLUMNS_NEEDED}")
    return rows


_COLUMNS_NEEDED = (
    "its first line must name the columns, such as image_id,path,mark,class"
)


def _check_header(path: str | Path, names: list[str]) -> list[str]:
    """The names of the columns, if an image and a mark can be read from them."""
    for one, other in (("image_id", "path"), ("mark", "class")):
        if one not in names and other not in names:
            found = ", ".join(f"`{printable(name)}`" for name in names[:8])
            raise AstromorphError(
                f"{path}: there is no column `{one}` or `{other}`; found {found}; "
                f"{_COLUMNS_NEEDED}"
            )
    for name in MARKS_COLUMNS:
        if names.count(name) > 1:
            raise AstromorphError(
                f"{path}: two columns have the name `{name}`; rename or remove one"
            )
    return names


def _read_text(path: str | Path) -> str:
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise AstromorphError(
            f"{path}: the marks cannot be read ({describe_file_error(error)}); save "
            "them from the map, or correct `marks` or --marks"
        ) from None
    encoding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    return escape_undecodable(data.decode(encoding, errors="surrogateescape"))
