"""The file list: formats, ids, digests and shards."""

import logging
import os
from pathlib import Path

import pytest

from astromorph.errors import AstromorphError
from astromorph.filelist.duplicates import (
    SAME_CONTENT,
    content_digest,
    duplicate_finder,
    text_key,
)
from astromorph.filelist.entries import (
    Entry,
    entries_from_paths,
    inspect_list,
    list_columns,
    read_filelist,
    read_paths,
    repeated_names,
)
from astromorph.filelist.shards import ColumnDigests, head_digest, plan_shards


def read(tmp_path, text, encoding="utf-8") -> list[Entry]:
    path = tmp_path / "list.txt"
    path.write_text(text, encoding=encoding)
    return list(read_filelist(path))


@pytest.mark.parametrize(
    "text",
    [
        "# made today\n\na.fits\nsub/b.fits\n",
        "a.fits\r\nsub/b.fits",
        "path,label\na.fits,x\nsub/b.fits,y\n",
        "label;path\nx;a.fits\ny;sub/b.fits\n",
        "path\tlabel\na.fits\tx\nsub/b.fits\ty\n",
        '# comment\npath,label\n"a.fits",x\n"sub/b.fits","y"\n',
    ],
)
def test_text_and_csv_lists_give_the_same_entries(tmp_path, text):
    """Paths and ids are equal, with any separator."""
    entries = read(tmp_path, text)
    assert [e.path for e in entries] == [
        str(tmp_path / "a.fits"),
        str(tmp_path / "sub/b.fits"),
    ]
    assert [e.image_id for e in entries] == [
        e.image_id for e in read(tmp_path, "a.fits\nsub/b.fits\n")
    ]


def test_byte_order_mark_is_not_part_of_the_path(tmp_path):
    """Lists written by spreadsheet programs begin with one."""
    (entry,) = read(tmp_path, "path\na.fits\n", encoding="utf-8-sig")
    assert entry.listed_path == "a.fits"


def test_absolute_paths_are_not_changed(tmp_path):
    """Only relative paths are joined to the list's folder."""
    (entry,) = read(tmp_path, "/data/a.fits\n")
    assert entry.path == "/data/a.fits"


def test_paths_of_a_list_in_the_working_directory_are_not_changed(
    tmp_path, monkeypatch
):
    """An empty cell remains an empty path."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "list.csv").write_text('path,label\nfits/a.fits,x\n"",y\n')
    assert [e.path for e in read_filelist("list.csv")] == ["fits/a.fits", ""]


def test_further_columns_are_read_and_renamed_if_the_catalogue_uses_the_name(tmp_path):
    """The column `status` becomes `listed_status`; cells may be empty."""
    entries = read(tmp_path, "path,label,status\na.fits,x,new\nb.fits,,\n")
    assert entries[0].columns == {"label": "x", "listed_status": "new"}
    assert entries[1].columns == {"label": "", "listed_status": ""}
    assert list_columns(entries) == ["label", "listed_status"]


def test_ids_are_unique_and_independent_of_other_rows(tmp_path):
    """Adding, removing or moving rows does not change the ids of the others."""
    ids = {e.listed_path: e.image_id for e in read(tmp_path, "a\nb\nc\n")}
    again = {e.listed_path: e.image_id for e in read(tmp_path, "d\nc\na\n")}
    assert all(ids[name] == again[name] for name in ("a", "c"))
    twice = [e.image_id for e in read(tmp_path, "a\na\na\n")]
    assert len(set(twice)) == 3


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: None, "there is no such file list; create a list with `find"),
        (lambda p: p.mkdir(), "this is a folder, not a file list"),
        (lambda p: p.write_text(""), "names no file"),
        (lambda p: p.write_text("# nothing\n\n"), "names no file"),
        (lambda p: p.write_text("path,label\n"), "names no file"),
        (lambda p: p.write_bytes(b"SIMPLE\xff\xfe\x00"), "not UTF-8 text"),
        (lambda p: p.write_bytes(b"SIMPLE  =" + b" " * 2871), "not an image"),
        (lambda p: p.write_bytes(b"\x89PNG\r\n"), "not an image"),
        (lambda p: p.write_text("a.fits\n", encoding="utf-16"), "iconv -f UTF-16"),
        (lambda p: p.write_bytes(b"a.fits\0b.fits\0"), "without -print0"),
    ],
)
def test_unusable_list_is_an_error(tmp_path, make, message):
    """The message says what was found and what to do."""
    path = tmp_path / "list.txt"
    make(path)
    with pytest.raises(AstromorphError, match=message):
        list(read_filelist(path))


@pytest.mark.parametrize(
    ("row", "number"),
    [
        ("b.fits,NGC 1275, A,x", 4),
        ("b.fits,NGC 1275,x,", 4),
        ("b.fits,x", 2),
        ("b.fits", 1),
    ],
)
def test_a_row_has_as_many_cells_as_the_header(tmp_path, row, number):
    """A comma too many would move cells to other columns."""
    path = tmp_path / "list.csv"
    path.write_text(f'path,name,label\na.fits,"NGC 1275, A",x\n# b\n\n{row}\n')
    message = rf"list\.csv: .* line 5 has {number} cells?, but the header has 3; a cell"
    for reader in (read_filelist, read_paths):
        with pytest.raises(AstromorphError, match=message):
            list(reader(path))


@pytest.mark.parametrize(
    "header",
    ["filename", "file", "Path", "FILEPATH", "fits", "Fits File", "image_path"],
)
def test_the_only_column_with_a_similar_name_contains_the_paths(tmp_path, header):
    """The log says which column was taken."""
    (entry,) = read(tmp_path, f"label;{header}\nx;a.fits\n")
    assert (entry.listed_path, entry.columns) == ("a.fits", {"label": "x"})
    ((level, message),) = inspect_list(tmp_path / "list.txt")
    assert level == logging.INFO and f"taken from the column `{header}`" in message
    (entry,) = read(tmp_path, f"{header},path\nb.fits,a.fits\n")
    assert (entry.listed_path, entry.columns) == ("a.fits", {header: "b.fits"})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,label\na.fits,x\n", "no column `path`; it has `name`, `label`; rename"),
        ("file,filename\na,b\n", "may contain the paths: `file`, `filename`; rename"),
        ("a.fits,FRI\nb.fits,FRII\n", "first line, 'a.fits,FRI', has 2 cells but no"),
        ("path label\na.fits x\n", "must be separated by commas, semicolons or tabs"),
        ("path,z,z\na.fits,1,2\n", "two columns have the name `z`"),
    ],
)
def test_a_header_without_a_clear_column_of_paths_is_an_error(tmp_path, text, message):
    """Otherwise every line would be taken for a path."""
    with pytest.raises(AstromorphError, match=message):
        read(tmp_path, text)


def test_commas_in_the_first_path_of_a_text_list_are_part_of_it(tmp_path):
    """A line that ends like the name of a file is a path."""
    names = ["NGC 1275, centre.fits", "filename, path.fits"]
    assert [e.listed_path for e in read(tmp_path, "\n".join(names))] == names


@pytest.mark.parametrize("header", ["", "path,label\n"])
def test_comments_are_counted_and_names_of_files_among_them_found(tmp_path, header):
    """A file whose name begins with # is listed with its folder."""
    (tmp_path / "#b.fits").touch()
    end = ",x\n" if header else "\n"
    text = f"# made today\n#old.fits{end}{header}a.fits{end}#b.fits{end}./#b.fits{end}"
    assert [e.listed_path for e in read(tmp_path, text)] == ["a.fits", "./#b.fits"]
    comments, file = inspect_list(tmp_path / "list.txt")
    assert comments[0] == logging.INFO and "3 lines begin with #" in comments[1]
    assert file[0] == logging.WARNING and "to list the file, write ./#b.fits" in file[1]


@pytest.mark.parametrize("header", [b"", b"path;label\n"])
def test_a_name_that_is_not_utf8_is_the_name_of_a_file(tmp_path, header):
    """It is read as bytes; digests and duplicates know it."""
    name = b"caf\xe9 \xff.fits"
    (tmp_path / os.fsdecode(name)).write_text("its content")
    end = b";x\n" if header else b"\n"
    (tmp_path / "list.txt").write_bytes(header + b"a.fits" + end + name + end)
    entries = list(read_filelist(tmp_path / "list.txt"))
    assert Path(entries[1].path).read_text() == "its content"
    assert len({e.image_id for e in entries}) == 2
    assert plan_shards(entries)[0].digest != plan_shards(entries[:1])[0].digest
    assert head_digest(entries) != head_digest(entries[:1])
    with duplicate_finder() as finder:
        for row in range(2):
            finder.add(row, [text_key(SAME_CONTENT, "x")], entries[1].paths)
        matches = list(finder.matches(content_digest))
    assert [match.first_path for match in matches] == [entries[1].path]


def test_a_name_of_a_column_that_is_not_utf8_is_an_error(tmp_path):
    path = tmp_path / "list.csv"
    path.write_bytes(b"path,caf\xe9\na.fits,1\n")
    with pytest.raises(AstromorphError, match=r"header is not UTF-8 text.*byte 0xe9"):
        list(read_filelist(path))


def test_another_cell_that_is_not_utf8_is_an_error_with_its_line(tmp_path):
    """Tables need text, and only the user knows its encoding."""
    (tmp_path / "list.csv").write_bytes(b"path,label\na.fits,x\nb.fits,\xe9toile\n")
    message = "line 3 is not UTF-8 text: the column `label` has the byte 0xe9; convert"
    with pytest.raises(AstromorphError, match=message):
        list(read_filelist(tmp_path / "list.csv"))


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('path,label\na.fits,"12 inch\nb.fits,1\nc.fits,2\n', 2),
        ('# mine\n\npath,label\na.fits,x\n# b\nb.fits,"1\nc.fits,"2\nd.fits,3\n', 6),
        ('path,label\n"a.fits,1\nb.fits,2\n', 2),
        ('path,"label\na.fits,1\nb.fits,2\n', 1),
        ('path,label\na.fits,"M31" north\nb.fits,2\n', 2),
        ('path,label\na.fits,"1\n' + "b.fits,2\n" * 20_000, 2),
    ],
    ids=["end", "next quote", "path", "header", "after a quote", "long"],
)
def test_unclosed_quote_is_an_error_with_its_line(tmp_path, text, line):
    """Neither reader swallows the following rows."""
    path = tmp_path / "list.csv"
    path.write_text(text)
    message = rf"list\.csv: this CSV cannot be read: line {line}: .* must be doubled"
    for reader in (read_filelist, read_paths):
        with pytest.raises(AstromorphError, match=message):
            list(reader(path))


def test_quoted_cells_may_contain_quotes_line_breaks_and_number_signs(tmp_path):
    """Quotes inside a cell that is not quoted are text."""
    text = (
        'path,"a\n# label"\n'
        'a.fits,"x\n# y\n\nz"\n# no row\n\n'
        'b.fits,"12"" disc"\r\n'
        'c.fits,a "b" 5\'10" c\n"d,1.fits",""\n'
    )
    entries = read(tmp_path, text)
    assert [e.listed_path for e in entries] == [
        "a.fits",
        "b.fits",
        "c.fits",
        "d,1.fits",
    ]
    cells = ["x\n# y\n\nz", '12" disc', 'a "b" 5\'10" c', ""]
    assert [e.columns for e in entries] == [{"a\n# label": cell} for cell in cells]
    listed = [(str(tmp_path / e.listed_path),) for e in entries]
    assert list(read_paths(tmp_path / "list.txt")) == listed


def test_quotes_in_a_text_list_are_part_of_the_path(tmp_path):
    """A text list has no quoted cells."""
    names = ['"a.fits', 'b".fits', '"c.fits"']
    assert [e.listed_path for e in read(tmp_path, "\n".join(names))] == names


@pytest.mark.parametrize("reader", [read_filelist, read_paths])
def test_missing_list_is_an_error_with_its_name(tmp_path, reader):
    """Both readers name it."""
    with pytest.raises(AstromorphError, match=r"gone\.txt: there is no such file list"):
        list(reader(tmp_path / "gone.txt"))


def entries(number: int) -> list[Entry]:
    return [Entry(f"{k:016x}", f"{k}.fits", f"/d/{k}.fits") for k in range(number)]


def test_shards_cover_every_row_once_and_grow():
    """16 shards of 1024 rows, then shards of 2048; the last has the remainder."""
    shards = plan_shards(entries(16 * 1024 + 2048 + 3))
    assert [s.start for s in shards[1:]] == [s.stop for s in shards[:-1]]
    sizes = [s.stop - s.start for s in shards]
    assert sizes == [1024] * 16 + [2048, 3]
    assert shards[17].name == "00017"


def test_appended_rows_change_only_the_last_shard():
    """The boundaries depend only on the row number."""
    before, after = plan_shards(entries(2400)), plan_shards(entries(3000))
    assert after[:2] == before[:2]
    assert after[2].digest != before[2].digest
    assert len(plan_shards(entries(45), shard_size=16)) == 3


def column_digest(*entries: Entry, columns=None) -> str:
    digests = ColumnDigests(columns)
    shards = plan_shards(digests.pass_through(entries))
    (digest,) = digests.digests(shards)
    return digest


def test_column_digest_depends_on_paths_and_selected_columns():
    """A changed label changes the digest of all columns, but not that of `group`."""
    a = Entry("0", "a", "a", {"label": "x", "group": "1"})
    b = Entry("0", "a", "a", {"label": "y", "group": "1"})
    c = Entry("0", "a", "/d/a", {"label": "x", "group": "1"})
    assert column_digest(a) == column_digest(a) != column_digest(b)
    assert column_digest(a, columns=["group"]) == column_digest(b, columns=["group"])
    assert column_digest(a) != column_digest(c)
    assert column_digest(a, b) != column_digest(b, a) != column_digest(a)


def test_names_repeated_in_different_chunks_are_found():
    """Few other names are reported with them."""
    names = [f"{k}.fits" for k in range(200_000)]
    repeated = repeated_names([*names, "7.fits", "8.fits", "8.fits"])
    assert {hash("7.fits"), hash("8.fits")} <= repeated
    assert len(repeated) < 10
    assert repeated_names(names[:5]) == frozenset()
    assert repeated_names(["a", "b", "a"]) == {hash("a")}


def test_home_folder_and_variables_are_replaced(tmp_path, monkeypatch):
    """Unless a file has that very name; ids are those of the listed text."""
    monkeypatch.setenv("HOME", "/home/someone")
    monkeypatch.setenv("SURVEY", "/data/survey")
    monkeypatch.setenv("FIELD", "f1")
    monkeypatch.delenv("ABSENT", raising=False)
    (tmp_path / "$FIELD.fits").touch()
    (tmp_path / "~").mkdir()
    (tmp_path / "~" / "b.fits").touch()
    listed = {
        "~/a.fits": "/home/someone/a.fits",
        "$SURVEY/a.fits": "/data/survey/a.fits",
        "${SURVEY}_2/$FIELD/a.fits[SCI,2]": "/data/survey_2/f1/a.fits[SCI,2]",
        "$FIELD/a.fits": f"{tmp_path}/f1/a.fits",
        "$FIELD.fits": f"{tmp_path}/$FIELD.fits",
        "~/b.fits": f"{tmp_path}/~/b.fits",
        "$ABSENT/a.fits": f"{tmp_path}/$ABSENT/a.fits",
        "a~.fits": f"{tmp_path}/a~.fits",
    }
    (tmp_path / "list.txt").write_text("\n".join(listed))
    entries = list(read_filelist(tmp_path / "list.txt"))
    assert [entry.path for entry in entries] == list(listed.values())
    assert [entry.listed_path for entry in entries] == list(listed)
    assert entries[0].image_id == entries_from_paths(["~/a.fits"])[0].image_id
    paths = [path for (path,) in read_paths(tmp_path / "list.txt")]
    assert paths == list(listed.values())


def test_hdu_column_is_added_to_every_path_of_its_row(tmp_path):
    """It remains a column of the list; an empty cell adds nothing."""
    (tmp_path / "list.csv").write_text(
        "path_g;path_r;hdu\ng.fits;r.fits;SCI,2\ng.fits;r.fits;\n;r.fits;1\n"
    )
    first, second, third = read_filelist(tmp_path / "list.csv")
    assert first.paths == (f"{tmp_path}/g.fits[SCI,2]", f"{tmp_path}/r.fits[SCI,2]")
    assert first.columns == {"listed_hdu": "SCI,2"}
    assert second.paths == (f"{tmp_path}/g.fits", f"{tmp_path}/r.fits")
    assert third.paths == ("", f"{tmp_path}/r.fits[1]")
    assert len({first.image_id, second.image_id, third.image_id}) == 3
