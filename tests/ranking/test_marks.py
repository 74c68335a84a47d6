"""Files of marks: what is accepted, what is reported."""

import pytest

from astromorph.errors import AstromorphError
from astromorph.ranking.marks import read_marks

IDS = ("a1", "b2", "c3", "d4", "e5")
PATHS = ("a.fits", "b.fits", "c.fits", "two.fits", "two.fits")
TEXT = (
    "image_id,path,mark,class\nb2,b.fits,interesting,ring\na1,a.fits,not interesting,\n"
)


def read(tmp_path, text, encoding="utf-8"):
    path = tmp_path / "marks.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode(encoding))
    return read_marks(path, IDS, PATHS)


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        (TEXT, "utf-8"),
        (TEXT, "utf-8-sig"),
        (TEXT, "utf-16"),
        (TEXT.replace(",", ";"), "utf-8-sig"),
        (TEXT.replace(",", "\t"), "utf-8"),
        (TEXT.replace("\n", "\r\n"), "utf-8"),
        (TEXT.replace("\n", "\n\n"), "utf-8"),
        (TEXT.replace("not interesting", " Not_Interesting "), "utf-8"),
        ("class,MARK,Image_ID,note\nring,interesting,b2,x\n,not-interesting,a1,y\n",
         "utf-8"),
        ("path,mark,class\nb.fits,interesting,ring\na.fits,not interesting\n", "utf-8"),
        # The id of another run; the path is the same.
        (TEXT.replace("b2", "zz"), "utf-8"),
        # The id counts if both are known.
        (TEXT.replace("b.fits", "c.fits"), "utf-8"),
        # A row that repeats another, or completes it, does not contradict it.
        (TEXT + "b2,,,ring\nb2,,interesting,\n", "utf-8"),
        (TEXT + "c3,c.fits,,\n", "utf-8"),
    ],
)  # fmt: skip
def test_marks_are_read_in_many_forms(tmp_path, text, encoding):
    """All of these say the same."""
    marks = read(tmp_path, text, encoding)
    assert marks.rows == (0, 1)
    assert marks.marks == ("not interesting", "interesting")
    assert marks.classes == ("", "ring")
    assert marks.unknown == 0


def test_unknown_images_are_counted_and_named(tmp_path, caplog):
    """A path that two images have does not identify one of them."""
    text = TEXT + "x9,gone.fits,interesting,\n,two.fits,interesting,\nx8,,,disk\n"
    marks = read(tmp_path, text)
    assert (len(marks), marks.unknown) == (2, 3)
    assert "3 marked images are not in this run" in caplog.text
    assert "gone.fits, two.fits, x8" in caplog.text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "marks.csv: the file is empty"),
        ("path,label\na.fits,x\n", "no column `mark` or `class`; found `path`, `la"),
        ("mark,class\ninteresting,x\n", "no column `image_id` or `path`"),
        ("path,mark,mark\n", "two columns have the name `mark`"),
        ("path,mark\na.fits,maybe\n", "line 2: found the mark `maybe`; allowed are"),
        (TEXT + "b2,,not interesting,\n",
         "line 4: the image is marked `not interesting`, but in line 2 `interesting`"),
        # The same image by its id and by its path.
        (TEXT + "zz,b.fits,,disk\n",
         "line 4: the class of the image is `disk`, but in line 2 `ring`"),
        ('path,mark\n"a.fits\n\n",' + "y" * 200_000, "line 4: this is not a CSV file"),
    ],
)  # fmt: skip
def test_errors_name_the_line(tmp_path, text, message):
    """And what was found, and what is allowed."""
    with pytest.raises(AstromorphError, match=message):
        read(tmp_path, text)


def test_a_missing_file_is_explained(tmp_path):
    """The message names it."""
    with pytest.raises(AstromorphError, match=r"none\.csv: the marks cannot be read"):
        read_marks(tmp_path / "none.csv", IDS, PATHS)


def test_names_that_are_not_utf8_are_those_of_the_catalogue(tmp_path):
    """The catalogue writes such bytes as escape sequences."""
    path = tmp_path / "marks.csv"
    path.write_bytes(b"path,mark\ncaf\xe9.fits,interesting\n'=x.fits,interesting\n")
    marks = read_marks(path, ("1", "2"), ("caf\\xe9.fits", "=x.fits"))
    assert marks.rows == (0, 1)
