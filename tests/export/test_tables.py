"""The tables for other programs: types, units, complete and reproducible content."""

import math
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
from astropy.io import fits
from astropy.io.votable import parse as parse_votable
from astropy.io.votable.ucd import parse_ucd
from astropy.table import Table
from export.test_map import map_column
from finished_run import LENGTH, catalogue_rows, image_ids, random_analysis, write_run
from hypothesis import given
from hypothesis import strategies as st

from astromorph.artefacts import analysis_table, tables
from astromorph.artefacts.analysis_table import write_analysis
from astromorph.artefacts.column_types import (
    ANALYSED,
    DISTANCES,
    EMBEDDING,
    FACTS,
    describe_fits_names,
    escape_to_ascii,
    listed_names,
    shorten_ids,
)
from astromorph.artefacts.run_files import Identity
from astromorph.artefacts.tables import read_table
from astromorph.errors import AstromorphError
from astromorph.export.html_map.html_map import export_map
from astromorph.export.tables.csv import export_csv
from astromorph.export.tables.fits import export_fits
from astromorph.export.tables.parquet import export_parquet
from astromorph.export.tables.votable import export_votable
from astromorph.export.tensorboard import export_tensorboard

ROWS_AT_A_TIME = "astromorph.artefacts.run_table.ROWS_AT_A_TIME"
NUMBER = 7
# The columns of the list; the name of `X` is also that of an exported column.
LISTED = {
    "redshift": ["0.5", "", "1e-3", "-2", "0", "nan", "7"],
    "survey_id": ["1", "-2", "", "9223372036854775807", "0", "5", "6"],
    "code": ["007", "1", "2", "3", "4", "5", "6"],
    "remark": ["", "ünï <b>", "=1+1", "tab\tand\nline", "🌌 far", "back\\slash", "x"],
    "X": ["a", "b", "c", "d", "e", "f", "g"],
    "emb_0": ["1.5"] * 7,
    "nothing": [""] * 7,
}
MADE_WITH = '{"analysis_settings":{"clusters":4}}'
FORMATS = {"fits": "fits", "vot": "votable"}
EXPORTS = {
    "csv": lambda files: export_csv(files, "comma"),
    "parquet": lambda files: export_parquet(files, MADE_WITH),
    "fits": lambda files: export_fits(files, MADE_WITH),
    "vot": lambda files: export_votable(files, MADE_WITH),
}


def write_listed(results, listed, neighbours=3):
    """A run of seven images in two shards, with additional columns in the list."""
    facts = {
        "path": [f"fits/ä{k}.fits" for k in range(NUMBER)],
        "hdu": range(NUMBER),
        "width": [90 + k for k in range(NUMBER)],
        "height": [80] * NUMBER,
        "ra_deg": [10.1 * k for k in range(NUMBER)],
        "dec_deg": [-0.1 * k for k in range(NUMBER)],
        "pixel_scale_arcsec": [1.8] * NUMBER,
        "object": range(NUMBER),
        "unit": ["Jy/beam"] * NUMBER,
        "rest_frequency_hz": [None] + [1.4e9] * 6,
        "channels": [1] * NUMBER,
        "file_bytes": [2**40] * NUMBER,
        "beam_major_arcsec": [5] * NUMBER,
    }
    vectors = np.random.default_rng(2).normal(size=(NUMBER, LENGTH)).astype(np.float32)
    vectors[0, :3] = 1e-40, 3e38, -0.0
    files = write_run(
        results,
        catalogue_rows(NUMBER, **facts, **listed),
        shard_sizes=(3, 4),
        subsets=["train"] + ["test"] * 6,
        vectors=vectors,
        analysis=random_analysis(image_ids(NUMBER), neighbours),
    )
    return files, vectors


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Such a run, read in blocks that differ from the shards and chunks."""
    monkeypatch.setattr(ROWS_AT_A_TIME, 3)
    monkeypatch.setattr(tables, "MAX_ROW_BYTES", 500)
    monkeypatch.setattr(analysis_table, "ROWS_AT_A_TIME", 2)
    return write_listed(tmp_path / "results", LISTED)


def check_numbers(column):
    """Check a numeric column, which is the same in all typed tables."""
    redshift = np.ma.filled(np.ma.asarray(column("redshift"), float), np.nan)
    np.testing.assert_array_equal(redshift, [0.5, np.nan, 1e-3, -2, 0, np.nan, 7])
    identity = np.ma.asarray(column("survey_id"))
    assert identity.dtype.kind == "i"
    assert np.ma.getmaskarray(identity).tolist() == [k == 2 for k in range(NUMBER)]
    assert identity.compressed().tolist() == [1, -2, 2**63 - 1, 0, 5, 6]
    np.testing.assert_array_equal(column("ra_deg"), 10.1 * np.arange(NUMBER))
    assert list(column("width")) == [90 + k for k in range(NUMBER)]
    assert list(column("file_bytes")) == [2**40] * NUMBER
    frequency = np.ma.filled(np.ma.asarray(column("rest_frequency_hz")), np.nan)
    np.testing.assert_array_equal(frequency, [np.nan] + [1.4e9] * 6)
    found = random_analysis(image_ids(NUMBER))
    np.testing.assert_array_equal(column("cluster"), found.cluster)
    np.testing.assert_array_equal(column("x"), found.map[:, 0])
    np.testing.assert_array_equal(column("outlier_rank"), found.outlier_rank)


def check_texts(text):
    """Check the texts, which are the same in all typed tables."""
    assert text("image_id") == [f"{k:016x}" for k in range(NUMBER)]
    assert text("object") == [str(k) for k in range(NUMBER)], "names are no numbers"
    assert text("code") == LISTED["code"], "leading zeros are kept"
    assert text("listed_X") == LISTED["X"]
    assert text("subset") == ["train"] + ["test"] * 6
    assert text("remark") == LISTED["remark"]
    assert text("path") == [f"fits/ä{k}.fits" for k in range(NUMBER)]
    assert text("nothing") == [""] * NUMBER
    assert text("role") == ["", "odd", "", "", "", "", ""]


def test_parquet_is_complete(run):
    """Types, nulls, lists, unchanged texts, and vectors bit for bit."""
    files, vectors = run
    export_parquet(files, MADE_WITH)
    table = pq.read_table(files.table("parquet"))

    def column(name):
        values = table.column(name)
        empty = np.array(values.is_null().to_pylist())
        filled = values.fill_null(0) if empty.any() else values
        return np.ma.array(filled.to_numpy(), mask=empty)

    check_numbers(column)
    check_texts(lambda name: [cell or "" for cell in table.column(name).to_pylist()])
    read = np.stack([column(f"emb_{k}") for k in range(LENGTH)], axis=1)
    assert read.tobytes() == vectors.tobytes()
    found = random_analysis(image_ids(NUMBER))
    neighbours = table.column("neighbour_ids").to_pylist()
    assert neighbours == [list(ids) for ids in found.neighbours]
    distances = np.array(table.column("neighbour_distances").to_pylist(), np.float32)
    np.testing.assert_array_equal(distances, found.distances)
    assert table.column("duplicate_ids").to_pylist()[2] == ["0" * 16]
    notes = table.schema.field("ra_deg").metadata
    assert (notes[b"unit"], notes[b"ucd"]) == (b"deg", b"pos.eq.ra;meta.main")
    assert table.column("listed_emb_0").to_pylist() == [1.5] * NUMBER


def test_the_fits_table_is_complete(run):
    """It can be read by astropy and conforms to the standard; texts are escaped."""
    files, vectors = run
    export_fits(files, MADE_WITH)
    with fits.open(files.table("fits")) as opened:
        opened.verify("exception")
        header = opened[1].header
        raw = opened[1].data["remark"]
        assert all(text.isascii() and text.isprintable() for text in raw)
    table = Table.read(files.table("fits"))
    check_numbers(lambda name: table[name])

    def text(name):
        cells = np.ma.filled(np.ma.asarray(table[name]).astype(str), "")
        return [cell.encode().decode("unicode_escape") for cell in cells]

    check_texts(text)
    read = np.ascontiguousarray(table["embedding"], np.float32)
    assert read.tobytes() == vectors.tobytes()
    found = random_analysis(image_ids(NUMBER))
    assert text("neighbour_ids")[1].split() == list(found.neighbours[1])
    np.testing.assert_array_equal(table["neighbour_distances"], found.distances)
    assert table["pixel_scale_arcsec"].unit == "arcsec"
    place = 1 + table.colnames.index("dec_deg")
    assert header[f"TUCD{place}"] == "pos.eq.dec;meta.main"
    assert header[f"TCOMM{place}"] == "declination of the centre, ICRS"
    assert header["SETTINGS"] == MADE_WITH
    assert files.table("fits").stat().st_size % 2880 == 0


def test_the_votable_is_complete(run):
    """It can be read by astropy, with deviations from the standard as errors."""
    files, vectors = run
    export_votable(files, MADE_WITH)
    votable = parse_votable(files.table("vot"), verify="exception")
    first = votable.get_first_table()
    table = first.to_table(use_names_over_ids=True)
    check_numbers(lambda name: table[name])
    check_texts(lambda name: list(np.ma.filled(table[name], "")))
    read = np.ascontiguousarray(table["embedding"], np.float32)
    assert read.tobytes() == vectors.tobytes()
    np.testing.assert_array_equal(
        table["neighbour_distances"], random_analysis(image_ids(NUMBER)).distances
    )
    field = first.get_field_by_id("ra_deg")
    assert (field.unit, field.ucd) == ("deg", "pos.eq.ra;meta.main")
    assert votable.get_coosys_by_id("icrs").system == "ICRS"
    assert b"<BINARY2>" in files.table("vot").read_bytes()
    assert first.nrows == NUMBER


@pytest.mark.parametrize("form", EXPORTS)
def test_the_same_input_gives_the_same_bytes(run, form, monkeypatch):
    """Tables depend neither on the time nor on the size of blocks."""
    files, _ = run
    contents = []
    for _ in range(2):
        EXPORTS[form](files)
        contents.append(files.table(form).read_bytes())
        if form != "parquet":  # its row groups are the blocks
            monkeypatch.setattr(ROWS_AT_A_TIME, 4)
    assert contents[0] == contents[1]


@pytest.mark.parametrize("form", EXPORTS)
def test_one_image_has_no_neighbours(tmp_path, form):
    """Columns of length 0 are omitted; the table can be read."""
    files, _ = write_listed(tmp_path, {}, neighbours=0)
    EXPORTS[form](files)
    out = files.table(form)
    if form == "parquet":
        names = pq.read_schema(out).names
    elif form == "csv":
        names = out.read_text().splitlines()[0].split(",")
    else:
        names = Table.read(out, format=FORMATS[form]).colnames
    assert "neighbour_ids" in names
    assert "neighbour_distances" not in names


def test_all_ucds_are_words_of_the_vocabulary():
    """UCD1+ allows them in these positions; descriptions fit a FITS card."""
    for column in (*FACTS, *ANALYSED, DISTANCES, EMBEDDING):
        if column.ucd:
            parse_ucd(column.ucd, check_controlled_vocabulary=True)
        assert len(column.meaning) <= 60
        assert column.meaning.isascii()


def test_names_from_the_list_are_unique():
    """Case is ignored; two that only differ in case get different names."""
    given_names = ["x", "Cluster", "emb_12", "kind", "Kind", "listed_x", "embedding"]
    names = listed_names(given_names)
    ours = {c.name.lower() for c in (*FACTS, *ANALYSED, DISTANCES, EMBEDDING)}
    lowered = [name.lower() for name in names.values()]
    assert len(set(lowered)) == len(given_names)
    assert not ours & set(lowered)
    assert names["kind"] == "kind"
    assert names["listed_x"] == "listed_x"
    assert names["Cluster"] == "listed_Cluster"
    assert names["x"] == "listed_listed_x"


QUESTION = "T01: Is the galaxy simply smooth and rounded, with no sign of a disk?"
LONG = [QUESTION, f"{QUESTION} a01", f"{QUESTION.upper()} A02", "ä" * 40, "'" * 40, "é"]


@pytest.mark.parametrize("form", EXPORTS)
def test_long_names_from_the_list_are_columns_of_every_table(tmp_path, form):
    """Those of the FITS table are cut, and its comments have them all."""
    files, _ = write_listed(tmp_path, {name: ["1"] * NUMBER for name in LONG})
    EXPORTS[form](files)
    out = files.table(form)
    if form == "csv":
        assert set(LONG) <= set(tables.csv_columns(out))
    elif form == "parquet":
        assert set(LONG) <= set(pq.read_schema(out).names)
    elif form == "vot":
        assert set(LONG) <= set(Table.read(out, use_names_over_ids=True).colnames)
    else:
        header = fits.getheader(out, 1)
        names = list(header["TTYPE*"].values())
        assert len({name.lower() for name in names}) == len(names)
        assert [name for name in names if name.startswith("T01")] == [
            f"{QUESTION[:65]}...",
            f"{QUESTION[:64]}...2",
            f"{QUESTION.upper()[:64]}...3",
        ]
        assert r"\xe9" in names
        comments = list(header["TCOMM*"].values())
        for name in LONG[:5]:
            assert f"column of the file list: {escape_to_ascii(name)}" in comments


def test_names_that_fits_must_cut_are_reported_before_a_run():
    """So are columns that a FITS table has no place for."""
    (remark,) = describe_fits_names(["z", QUESTION, "ä" * 40])
    assert remark.startswith("The names of 2 columns are longer than the 68 charac")
    assert f"`{QUESTION}` becomes `{QUESTION[:65]}...`" in remark
    assert not list(describe_fits_names(["z", "q" * 68]))
    (remark,) = describe_fits_names([f"c{k}" for k in range(980)])
    assert "a FITS table has at most 999; remove `fits`" in remark


def test_the_votable_has_the_names_of_the_list(tmp_path):
    """Also as ids, which astropy uses by default, as far as an id can have them."""
    names = ["label", "z", "P_spiral", "mag r", "mag_r", "2MASS", "é", "icrs", "a.b-c"]
    files, _ = write_listed(tmp_path, {name: ["1"] * NUMBER for name in names})
    export_votable(files, MADE_WITH)
    ids = [
        "label",
        "z",
        "P_spiral",
        "mag_r_2",
        "mag_r",
        "_2MASS",
        "_",
        "icrs_2",
        "a.b-c",
    ]
    for options, expected in (({}, ids), ({"use_names_over_ids": True}, names)):
        found = Table.read(files.table("vot"), **options).colnames
        start = found.index("label")
        assert found[start : start + len(names)] == expected


@pytest.mark.parametrize("form", EXPORTS)
def test_a_renamed_column_is_logged(run, form, caplog):
    """In the export of each table."""
    caplog.set_level("INFO")
    EXPORTS[form](run[0])
    assert "the column `X` of the list is exported as `listed_X`" in caplog.text


TYPES = (
    # cells of a column, their type in all tables, whether the map has numbers
    (["1", "2"], "int64", False),  # few integers are categories on the map
    ([str(k) for k in range(-7, 7)], "int64", True),
    (["1", "", "-3"], "int64", False),
    (["+3", "-0"], "int64", False),
    (["9007199254740992"], "int64", False),
    (["1234567890123456", *map(str, range(13))], "int64", True),
    (["9223372036854775807", "1"], "int64", False),  # more digits than a float has
    (["1", "2.5"], "float64", True),
    (["1.5", "nan", ""], "float64", True),
    (["1e5", ".5", "5.", "+3"], "float64", True),
    (["9007199254740992", "0.5"], "float64", True),
    (["1e-400", "0.5"], "float64", True),
    (["nan", ""], "text", False),
    (["", ""], "text", False),
    (["1", "x"], "text", False),
    (["01", "2"], "text", False),
    (["007", "008"], "text", False),
    (["00.5", "1"], "text", False),
    (["1_000"], "text", False),
    (["inf", "1"], "text", False),
    (["1e400", "1"], "text", False),
    (["٣"], "text", False),
    (["9223372036854775808"], "text", False),
    (["-9223372036854775808"], "text", False),
    (["20231104123456789012"], "text", False),
    (["1" * 5000, "2"], "text", False),
    (["9007199254740993", "0.5"], "text", False),
    (["True", "False"], "text", False),
    (["1\n", "2"], "text", False),
)
ROWS = 14


def column_cells(k):
    """The cells of a case, repeated for all rows."""
    cells = TYPES[k][0]
    return (cells * ROWS)[:ROWS]


@pytest.fixture(scope="module")
def typed(tmp_path_factory):
    """A run whose list has a column for each case, and all of its tables."""
    listed = {f"z{k}": column_cells(k) for k in range(len(TYPES))}
    rows = catalogue_rows(ROWS, **listed)
    files = write_run(tmp_path_factory.mktemp("typed"), rows)
    for export in EXPORTS.values():
        export(files)
    export_map(files, 16, ROWS, with_evaluation=False)
    export_tensorboard(files, 16)
    return {
        "csv": read_table(files.table("csv")),
        "parquet": pq.read_table(files.table("parquet")),
        "fits": Table.read(files.table("fits")),
        "vot": parse_votable(files.table("vot"))
        .get_first_table()
        .to_table(use_names_over_ids=True),
        "map": files.map.read_text(encoding="utf-8"),
        "metadata": (files.projector / "metadata.tsv").read_text(encoding="utf-8"),
    }


@pytest.mark.parametrize("k", range(len(TYPES)), ids=lambda k: TYPES[k][0][0][:20])
def test_every_table_has_the_same_types(typed, k):
    """A column is numeric if all cells are numbers and no digits are lost."""
    name, cells, (_, kind, map_has_numbers) = f"z{k}", column_cells(k), TYPES[k]
    empty = [cell.lower() in ("", "nan") for cell in cells]
    assert list(typed["csv"][name]) == cells, "CSV is text, as the list has it"
    column = typed["parquet"].column(name)
    types = {"int64": "int64", "float64": "double", "text": "string"}
    assert str(column.type) == types[kind]
    values = {"parquet": column.to_pylist()}
    for form in ("fits", "vot"):
        column = typed[form][name]
        assert column.dtype.kind == {"int64": "i", "float64": "f", "text": "U"}[
            kind
        ] or (kind == "text" and column.dtype.kind in "SO")
        missing = np.ma.getmaskarray(np.ma.asarray(column))
        values[form] = [
            None if gone else value
            for gone, value in zip(missing, column.tolist(), strict=True)
        ]
    on_map, numeric = map_column(typed["map"], name, ROWS)
    assert numeric == map_has_numbers
    if numeric:
        values["map"] = on_map
    elif on_map is not None:  # empty columns are left out
        assert on_map == cells
    if kind == "text":
        assert [value or "" for value in values["parquet"]] == cells
        shortened = [
            cell if len(cell) <= 4096 else f"{cell[:4093]}..." for cell in cells
        ]
        escaped = [value or "" for value in values["fits"]]
        assert escaped == [escape_to_ascii(cell) for cell in shortened]
        assert [value or "" for value in values["vot"]] == shortened
        return
    convert = int if kind == "int64" else float
    for form, found in values.items():
        for gone, cell, value in zip(empty, cells, found, strict=True):
            if gone:
                assert value is None or math.isnan(value), form
            else:
                assert value == convert(cell), form


def test_a_catalogue_column_with_an_invalid_number_becomes_text(tmp_path):
    """The invalid cell does not affect other cells."""
    rows = catalogue_rows(3, hdu=["1", "2.5", ""], height=["1", "x", ""])
    rows[0]["ra_deg"], rows[1]["ra_deg"] = "10", "nan"
    files = write_run(tmp_path, rows)
    EXPORTS["parquet"](files)
    table = pq.read_table(files.table("parquet"))
    assert table.column("hdu").to_pylist() == [1.0, 2.5, None]
    assert table.column("height").to_pylist() == ["1", "x", None]
    assert table.column("width").to_pylist() == [60, 60, 60]
    assert str(table.column("channels").type) == "int64", "even if it is empty"
    assert str(table.column("ra_deg").type) == "double"


@given(st.text())
def test_escaped_texts_can_be_undone(text):
    """For any characters."""
    escaped = escape_to_ascii(text)
    assert escaped.isascii()
    assert escaped.isprintable()
    assert escaped.encode().decode("unicode_escape") == text


@pytest.mark.parametrize("form", FORMATS)
def test_very_long_texts_are_cut_with_a_warning(tmp_path, caplog, form):
    """At 4096 characters, in tables whose rows have a fixed length."""
    remarks = ["ä" * 9000, *"bcdefg"]
    files, _ = write_listed(tmp_path, {"remark": remarks})
    EXPORTS[form](files)
    assert "truncated in `remark`" in caplog.text
    if form == "vot":
        votable = parse_votable(files.table(form), verify="exception")
        read = votable.get_first_table().to_table(use_names_over_ids=True)["remark"]
    else:
        read = Table.read(files.table(form))["remark"]
    assert str(read[0]).endswith("...")
    assert 2000 < len(read[0]) <= 4096
    assert list(read[1:]) == list("bcdefg")
    assert shorten_ids("aaaa bbbb cccc", 9) == "aaaa bbbb"
    assert shorten_ids("aaaa bbbb cccc", 13) == "aaaa bbbb"


def test_a_fits_table_of_too_many_columns_is_an_error(tmp_path):
    """The message gives the remedy."""
    listed = {f"c{k}": ["1"] * NUMBER for k in range(1000)}
    files, _ = write_listed(tmp_path, listed)
    with pytest.raises(AstromorphError, match=r"at most 999; remove `fits`"):
        EXPORTS["fits"](files)


@pytest.mark.parametrize("form", EXPORTS)
def test_no_table_is_written_from_files_that_do_not_match(tmp_path, form):
    """With fewer or more images than were analysed; the error names the step."""
    files, _ = write_listed(tmp_path, {})
    for number in (NUMBER - 1, NUMBER + 1):
        write_analysis(files.analysis, random_analysis(image_ids(number)))
        with pytest.raises(
            AstromorphError, match=r"analysis\.parquet: its images .* `analyse` again"
        ):
            EXPORTS[form](files)
    assert not files.table(form).exists()


def test_tables_contain_settings_and_program(run):
    """The settings are written unchanged, without those of the export."""
    files, _ = run
    EXPORTS["parquet"](files)
    metadata = pq.read_schema(files.table("parquet")).metadata
    assert metadata[b"settings"] == MADE_WITH.encode()
    assert metadata[b"creator"].startswith(b"astromorph ")


def test_tables_say_what_they_were_made_from(run):
    """Digests of the settings and of the list, and the date, in each header."""
    files, _ = run
    files = replace(files, identity=Identity("5e77", "1157", "2026-11-26"))
    for export in EXPORTS.values():
        export(files)
    header = fits.getheader(files.table("fits"), 1)
    assert [header[k] for k in ("SETTDIG", "LISTDIG", "DATE")] == [
        "5e77", "1157", "2026-11-26"
    ]  # fmt: skip
    expected = files.identity.to_dict()
    votable = parse_votable(files.table("vot"))
    infos = {info.name: info.value for info in votable.resources[0].infos}
    notes = pq.read_schema(files.table("parquet")).metadata
    for name, value in expected.items():
        assert infos[name] == notes[name.encode()].decode() == value
