"""The file list: formats, ids, shards."""

import pytest

from astromorph.errors import AstromorphError
from astromorph.filelist.entries import Entry, list_columns, read_filelist, read_paths
from astromorph.filelist.repeated_names import repeated_names
from astromorph.filelist.shards import CellsDigest, plan_shards


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
def test_all_forms_list_the_same_files(tmp_path, text):
    """Text and CSV with any separator give the same paths and ids."""
    entries = read(tmp_path, text)
    assert [e.path for e in entries] == [
        str(tmp_path / "a.fits"),
        str(tmp_path / "sub/b.fits"),
    ]
    assert [e.image_id for e in entries] == [
        e.image_id for e in read(tmp_path, "a.fits\nsub/b.fits\n")
    ]


def test_a_byte_order_mark_is_no_part_of_a_path(tmp_path):
    """Lists from spreadsheets begin with one."""
    (entry,) = read(tmp_path, "path\na.fits\n", encoding="utf-8-sig")
    assert entry.listed == "a.fits"


def test_absolute_paths_stay(tmp_path):
    """Only relative ones count from the list's folder."""
    (entry,) = read(tmp_path, "/data/a.fits\n")
    assert entry.path == "/data/a.fits"


def test_a_list_in_the_working_directory_keeps_its_paths(tmp_path, monkeypatch):
    """`fits/a.fits` is listed as that, an empty cell as an empty path."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "list.csv").write_text('path,label\nfits/a.fits,x\n"",y\n')
    assert [e.path for e in read_filelist("list.csv")] == ["fits/a.fits", ""]


def test_further_columns_travel_and_do_not_collide(tmp_path):
    """A column that the catalogue uses too gets another name."""
    entries = read(tmp_path, "path,label,status\na.fits,x,new\nb.fits\n")
    assert entries[0].columns == {"label": "x", "listed_status": "new"}
    assert entries[1].columns == {"label": "", "listed_status": ""}
    assert list_columns(entries) == ["label", "listed_status"]


def test_ids_are_unique_and_stay(tmp_path):
    """Rows that come, go or move do not change those of the others."""
    ids = {e.listed: e.image_id for e in read(tmp_path, "a\nb\nc\n")}
    again = {e.listed: e.image_id for e in read(tmp_path, "d\nc\na\n")}
    assert all(ids[name] == again[name] for name in ("a", "c"))
    twice = [e.image_id for e in read(tmp_path, "a\na\na\n")]
    assert len(set(twice)) == 3


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: None, "there is no such file list; list one with `find"),
        (lambda p: p.mkdir(), "this is a folder, not a file list"),
        (lambda p: p.write_text(""), "names no file"),
        (lambda p: p.write_text("# nothing\n\n"), "names no file"),
        (lambda p: p.write_text("path,label\n"), "names no file"),
        (lambda p: p.write_bytes(b"SIMPLE\xff\xfe\x00"), "no text in UTF-8"),
    ],
)
def test_a_list_that_is_none_says_so(tmp_path, make, message):
    """What it is and what to do instead."""
    path = tmp_path / "list.txt"
    make(path)
    with pytest.raises(AstromorphError, match=message):
        list(read_filelist(path))


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
    ids=["end", "next quote", "path", "header", "behind a quote", "long"],
)
def test_a_quote_that_is_not_closed_takes_no_rows_with_it(tmp_path, text, line):
    """It is an error that names the line, whoever reads the list."""
    path = tmp_path / "list.csv"
    path.write_text(text)
    message = rf"list\.csv: this CSV cannot be read: line {line}: .* written twice"
    for reader in (read_filelist, read_paths):
        with pytest.raises(AstromorphError, match=message):
            list(reader(path))


def test_quoted_cells_may_hold_quotes_lines_and_what_looks_like_a_comment(tmp_path):
    """A row for each; quotes within a cell without them are text."""
    text = (
        'path,"a\n# label"\n'
        'a.fits,"x\n# y\n\nz"\n# no row\n\n'
        'b.fits,"12"" disc"\r\n'
        'c.fits,a "b" 5\'10" c\n"d,1.fits",""\n'
    )
    entries = read(tmp_path, text)
    assert [e.listed for e in entries] == ["a.fits", "b.fits", "c.fits", "d,1.fits"]
    cells = ["x\n# y\n\nz", '12" disc', 'a "b" 5\'10" c', ""]
    assert [e.columns for e in entries] == [{"a\n# label": cell} for cell in cells]
    listed = [(str(tmp_path / e.listed),) for e in entries]
    assert list(read_paths(tmp_path / "list.txt")) == listed


def test_quotes_in_a_text_list_are_parts_of_names(tmp_path):
    """There are no cells that they could open."""
    names = ['"a.fits', 'b".fits', '"c.fits"']
    assert [e.listed for e in read(tmp_path, "\n".join(names))] == names


@pytest.mark.parametrize("reader", [read_filelist, read_paths])
def test_a_missing_list_is_told_by_all_that_read_it(tmp_path, reader):
    """With its name."""
    with pytest.raises(AstromorphError, match=r"gone\.txt: there is no such file list"):
        list(reader(tmp_path / "gone.txt"))


def entries(number: int) -> list[Entry]:
    return [Entry(f"{k:016x}", f"{k}.fits", f"/d/{k}.fits") for k in range(number)]


def test_shards_cover_every_row_once_and_grow():
    """16 shards of 1024, then of 2048; the last is what remains."""
    shards = plan_shards(entries(16 * 1024 + 2048 + 3))
    assert [s.start for s in shards[1:]] == [s.stop for s in shards[:-1]]
    sizes = [s.stop - s.start for s in shards]
    assert sizes == [1024] * 16 + [2048, 3]
    assert shards[17].name == "00017"


def test_appended_rows_change_the_last_shard_only():
    """The cuts depend on the row number alone."""
    before, after = plan_shards(entries(2400)), plan_shards(entries(3000))
    assert after[:2] == before[:2]
    assert after[2].digest != before[2].digest
    assert len(plan_shards(entries(45), shard_size=16)) == 3


def content(*entries: Entry, columns=None) -> str:
    digest = CellsDigest(columns)
    shards = plan_shards(digest.watch(entries))
    (value,) = digest.values(shards)
    return value


def test_the_content_digest_sees_every_path_and_cell_that_counts():
    """A label that changes is a change of the list, but not of its groups."""
    a = Entry("0", "a", "a", {"label": "x", "group": "1"})
    b = Entry("0", "a", "a", {"label": "y", "group": "1"})
    c = Entry("0", "a", "/d/a", {"label": "x", "group": "1"})
    assert content(a) == content(a) != content(b)
    assert content(a, columns=["group"]) == content(b, columns=["group"])
    assert content(a) != content(c)
    assert content(a, b) != content(b, a) != content(a)


def test_a_name_that_comes_again_much_later_is_found():
    """Among more names than are looked at in one go, of which none is kept."""
    names = [f"{k}.fits" for k in range(200_000)]
    found = repeated_names([*names, "7.fits", "8.fits", "8.fits"])
    assert {hash("7.fits"), hash("8.fits")} <= found
    assert len(found) < 10
    assert repeated_names(names[:5]) == frozenset()
