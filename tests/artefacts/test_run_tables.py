"""Tables between steps, and how they are joined."""

import csv
import io
import weakref

import numpy as np
import pandas as pd
import pytest
from finished_run import catalogue_rows, image_ids, random_analysis, write_run
from hypothesis import given
from hypothesis import strategies as st

from astromorph.artefacts.analysis_table import ANALYSIS_COLUMNS, write_analysis
from astromorph.artefacts.columns import CATALOGUE_COLUMNS, SPLIT_COLUMNS
from astromorph.artefacts.embeddings import Embeddings, vector_lines, write_embeddings
from astromorph.artefacts.run_table import embedded_table, embedding_blocks, run_table
from astromorph.artefacts.tables import (
    csv_line,
    csv_lines,
    read_csv,
    read_table,
    spreadsheet_safe,
    undo_spreadsheet_safe,
    write_csv,
    write_table,
)
from astromorph.errors import AstromorphError

ROWS_AT_A_TIME = "astromorph.artefacts.run_table.ROWS_AT_A_TIME"
# Characters with a special meaning in CSV and spreadsheets, and all others of UTF-8.
TEXTS = st.text(
    st.sampled_from("'=+-@\t\r\n,;\"\0 a1\\ü🌌\u2028")
    | st.characters(exclude_categories=["Cs"]),
    max_size=8,
)


@given(st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=5))
def test_texts_are_read_back(tmp_path_factory, pairs):
    """Any text survives; writing a table and writing rows give the same file."""
    folder = tmp_path_factory.mktemp("texts")
    table = pd.DataFrame(pairs, columns=["-one", "other,"], dtype="str")
    write_table(folder / "a.csv", table)
    write_csv(folder / "b.csv", list(table), table.to_dict("records"))
    assert (folder / "a.csv").read_bytes() == (folder / "b.csv").read_bytes()
    pd.testing.assert_frame_equal(read_table(folder / "a.csv"), table)
    assert list(read_csv(folder / "a.csv")) == table.to_dict("records")


@given(TEXTS, st.sampled_from(",;"))
def test_lines_are_those_of_the_csv_module(text, separator):
    """Quoting is the same; formulas get an apostrophe."""
    table = pd.DataFrame({"a": [text], "b": [""]}, dtype="str")
    (line,) = csv_lines(table, separator)
    assert f"{line}\n" == csv_line([text, ""], separator)
    (row,) = csv.reader(io.StringIO(line, newline=""), delimiter=separator)
    assert row == [spreadsheet_safe(text), ""]


def test_all_types_of_cells_are_written(tmp_path):
    """Missing cells are empty, floats can be read back exactly, ids are joined."""
    table = pd.DataFrame(
        {
            "text": ["=1", None],
            "float": [0.1, np.nan],
            "integer": pd.array([2**60 + 1, None], "Int64"),
            "single": np.float32([1e-40, 0.1]),
        }
    )
    write_table(tmp_path / "a.csv", table)
    lines = (tmp_path / "a.csv").read_text().splitlines()
    assert lines[1:] == ["'=1,0.1,1152921504606846977,1e-40", ",,,0.1"]
    write_table(tmp_path / "one.csv", pd.DataFrame({"a": ["", "b"]}))
    assert list(read_table(tmp_path / "one.csv")["a"]) == ["", "b"]


def test_texts_are_stored_by_arrow_in_the_requested_columns(tmp_path):
    """Arrow strings let a million rows fit into memory."""
    write_csv(tmp_path / "a.csv", ["a", "b", "c"], [{"a": "1", "b": None, "c": 2.5}])
    table = read_table(tmp_path / "a.csv", ["c", "a"])
    assert list(table) == ["c", "a"]
    assert table.iloc[0].tolist() == ["2.5", "1"]
    assert table["a"].dtype == pd.StringDtype("pyarrow", na_value=np.nan)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"no such file; run `split` first"),
        (b"", r"the column `image_id` is missing; .* run `split` again"),
        (b"image_id,path\n", r"the column `subset` is missing; .* run `split` again"),
        (b"image_id,subset\na\n", r"this is not a readable table .* run `split` again"),
        (
            b"image_id,subset\na,\xff\n",
            r"this is not a readable table .* run `split` again",
        ),
    ],
)
def test_a_missing_or_damaged_table_names_the_step(tmp_path, content, message):
    """The message names the step that writes it."""
    path = tmp_path / "split.csv"
    if content is not None:
        path.write_bytes(content)
    for read in (read_table, lambda *arguments: list(read_csv(*arguments))):
        with pytest.raises(AstromorphError, match=rf"split\.csv: {message}"):
            read(path, ["image_id", "subset"])


def test_contents_of_a_shard_are_written_by_preprocess(tmp_path):
    """For any name of the shard."""
    path = tmp_path / "tensors" / "00007.csv"
    with pytest.raises(AstromorphError, match="run `preprocess` first"):
        read_table(path)


@pytest.mark.parametrize("text", ["=1+1", "@SUM(A1)", "+x", "-x", "\tx"])
def test_no_cell_is_a_formula(text):
    """An apostrophe precedes text that a spreadsheet would execute."""
    assert spreadsheet_safe(text) == f"'{text}"
    assert undo_spreadsheet_safe(spreadsheet_safe(text)) == text


@pytest.mark.parametrize("text", ["-1.5", "+3e8", "NGC 1", "", "a=b", "'", "'t Hooft"])
def test_other_cells_are_not_changed(text):
    """Numbers and plain names stay the same."""
    assert spreadsheet_safe(text) == text
    assert undo_spreadsheet_safe(text) == text


@given(st.text(alphabet="'=+-@\t\ra1 ", max_size=6))
def test_the_apostrophe_can_be_undone(text):
    """Reading removes it: it is only for spreadsheets."""
    assert undo_spreadsheet_safe(spreadsheet_safe(text)) == text


def test_vectors_are_restored_exactly_from_text():
    """Including subnormal numbers, the largest ones and negative zero."""
    draw = np.random.default_rng(0)
    bits = draw.integers(0, 2**32, (5000, 4), dtype=np.uint64).astype(np.uint32)
    vectors = bits.view(np.float32)
    vectors[~np.isfinite(vectors)] = -0.0
    lines = vector_lines(vectors, ";")
    read = [[np.float32(n) for n in line.split(";")] for line in lines]
    assert np.array(read, np.float32).tobytes() == vectors.tobytes()


@pytest.fixture
def files(tmp_path):
    """Seven files in two shards: the third was rejected, the split left out the fifth.

    A column of the list has a name of ours.
    """
    rows = catalogue_rows(7, kind=list("abcdefg"), x=["7"] * 7)
    rows[2]["status"] = "rejected"
    subsets = ["train", "test", "none", "train", "none", "train", "train"]
    vectors = np.arange(12, dtype=np.float32).reshape(6, 2)
    return write_run(
        tmp_path / "results", rows, shard_sizes=(3, 4), subsets=subsets, vectors=vectors
    )


def test_the_joined_table_has_a_row_for_each_analysed_image(files):
    """Rows follow the list; the index is the row number in the catalogue."""
    table = run_table(files)
    assert list(table.index) == [0, 1, 3, 5, 6]
    assert tuple(table["image_id"]) == tuple(image_ids(7)[k] for k in table.index)
    assert list(table["kind"]) == list("abdfg")
    assert list(table["subset"]) == ["train", "test", "train", "train", "train"]
    expected = random_analysis(table["image_id"])
    np.testing.assert_array_equal(table["cluster"], expected.cluster)
    np.testing.assert_array_equal(table["x"], expected.map[:, 0])
    assert list(table["listed_x"]) == ["7"] * 5
    assert [tuple(ids) for ids in table["neighbour_ids"]] == list(expected.neighbours)
    assert set(table) == {
        *CATALOGUE_COLUMNS, *ANALYSIS_COLUMNS, "kind", "listed_x", "subset",
    }  # fmt: skip
    split = read_table(files.split).loc[table.index]
    assert tuple(split["image_id"]) == tuple(table["image_id"])
    pd.testing.assert_frame_equal(
        embedded_table(files), table[[*embedded_table(files)]]
    )


def test_only_the_requested_columns_are_read(files):
    """They are requested by their names in the exported tables."""
    table = run_table(files, ["listed_x", "role", "object"])
    assert set(table) == {"image_id", "listed_x", "role", "object"}
    assert set(embedded_table(files, ["subset"])) == {"image_id", "subset"}


@pytest.mark.parametrize("rows_at_a_time", [1, 2, 3, 100])
def test_blocks_contain_rows_with_their_embeddings(files, monkeypatch, rows_at_a_time):
    """For any sizes of blocks and shards, and for a subset of the rows."""
    monkeypatch.setattr(ROWS_AT_A_TIME, rows_at_a_time)
    vectors = {0: [0, 1], 1: [2, 3], 3: [4, 5], 5: [8, 9], 6: [10, 11]}
    table = run_table(files)
    for part in (table, table.iloc[[1, 2, 4]], table.iloc[[0]]):
        blocks = list(embedding_blocks(files, part))
        assert {len(rows) for rows, _ in blocks[:-1]} <= {rows_at_a_time}
        pd.testing.assert_frame_equal(pd.concat(rows for rows, _ in blocks), part)
        joined = np.concatenate([values for _, values in blocks])
        assert joined.tolist() == [vectors[k] for k in part.index]


def test_only_one_block_is_in_memory(files, monkeypatch):
    """The embeddings of a block are released before the next one is read."""
    monkeypatch.setattr(ROWS_AT_A_TIME, 1)
    references: list[weakref.ref] = []
    alive = []
    for _, vectors in embedding_blocks(files, run_table(files)):
        references.append(weakref.ref(vectors))
        alive.append(sum(reference() is not None for reference in references))
    assert len(references) == 5
    assert max(alive) <= 2


def test_embeddings_of_another_list_are_an_error(files):
    """If a shard is not in the catalogue, the message names the file and the remedy."""
    path = files.all_embeddings[1]
    foreign = Embeddings(("f" * 16,), np.zeros((1, 2), np.float32))
    table = run_table(files)
    write_embeddings(path, foreign)
    with pytest.raises(AstromorphError, match=r"00001\.parquet: f+ is not in .* infer"):
        run_table(files)
    with pytest.raises(AstromorphError, match=r"00001\.parquet: its images .* infer"):
        list(embedding_blocks(files, table))


def test_embeddings_in_another_order_are_an_error(files):
    """Even if all of their images are listed."""
    ids = image_ids(7)
    shard = Embeddings((ids[1], ids[0]), np.zeros((2, 2), np.float32))
    write_embeddings(files.all_embeddings[0], shard)
    with pytest.raises(AstromorphError, match=r"00000\.parquet: 0+ .* the same order"):
        run_table(files)


def test_a_split_of_another_list_is_an_error(files):
    """The message names both tables and the steps."""
    rows = [{"image_id": "f" * 16, "subset": "train"}] * 7
    write_csv(files.split, SPLIT_COLUMNS, rows)
    with pytest.raises(AstromorphError, match=r"split\.csv: .* preprocess and split"):
        embedded_table(files)


@pytest.mark.parametrize("number", [4, 6])
def test_an_analysis_of_other_images_is_an_error(files, number):
    """Fewer or more images: the file and the step to run again are named."""
    write_analysis(files.analysis, random_analysis(image_ids(number)))
    with pytest.raises(
        AstromorphError, match=r"analysis\.parquet: its images .* `analyse` again"
    ):
        run_table(files)


def test_a_renamed_column_is_logged(files, caplog):
    """Reading it logs both names."""
    caplog.set_level("INFO")
    run_table(files, ["kind"])
    assert "listed_x" not in caplog.text
    run_table(files)
    assert "the column `x` of the list is exported as `listed_x`" in caplog.text
