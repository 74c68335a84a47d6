"""The tables for other programs: types, units, nothing lost, the same each time."""

import json
import weakref

import numpy as np
import pyarrow.parquet as pq
import pytest
from artefacts.test_analysis_table import analysis_of
from astropy.io import fits
from astropy.io.votable import parse as parse_votable
from astropy.io.votable.ucd import parse_ucd
from astropy.table import Table
from hypothesis import given
from hypothesis import strategies as st

from astromorph.artefacts import analysis_table, table_rows
from astromorph.artefacts import tables as artefacts
from astromorph.artefacts.analysis_table import write_analysis
from astromorph.artefacts.cells import (
    Profile,
    cut_ids,
    escaped_ascii,
    integers,
    lines,
    numbers,
)
from astromorph.artefacts.embeddings import Embeddings, write_embeddings
from astromorph.artefacts.columns import (
    ANALYSED,
    DISTANCES,
    EMBEDDING,
    FACTS,
    Column,
    listed_names,
)
from astromorph.artefacts.table_rows import Inputs
from astromorph.artefacts.tables import CATALOGUE_COLUMNS, SPLIT_COLUMNS
from astromorph.errors import AstromorphError
from astromorph.export.tables.csv import export_csv
from astromorph.export.tables.fits import export_fits
from astromorph.export.tables.parquet import export_parquet
from astromorph.export.tables.votable import export_votable
from astromorph.settings.loading import parse
from astromorph.settings.sections import Settings

NUMBER, LENGTH = 7, 5
# What the list says of each image, by column; `X` has a name of ours.
LISTED = {
    "redshift": ["0.5", "", "1e-3", "-2", "0", "nan", "7"],
    "survey_id": ["1", "-2", "", "9223372036854775807", "0", "5", "6"],
    "code": ["007", "1", "2", "3", "4", "5", "6"],
    "remark": ["", "ünï <b>", "=1+1", "tab\tand\nline", "🌌 far", "back\\slash", "x"],
    "X": ["a", "b", "c", "d", "e", "f", "g"],
    "emb_0": ["1.5"] * 7,
    "nothing": [""] * 7,
}
EXPORTS = {
    "csv": export_csv, "parquet": export_parquet, "fits": export_fits,
    "votable": export_votable,
}  # fmt: skip


def write_inputs(folder, listed, neighbours=3):
    """A run of seven images in two shards, with what the list says of each."""
    folder.mkdir(exist_ok=True)
    ids = [f"{k:016x}" for k in range(NUMBER)]
    rows = [
        {
            "image_id": ids[k], "path": f"fits/ä{k}.fits", "status": "ok", "hdu": k,
            "width": 90 + k, "height": 80, "ra_deg": 10.1 * k, "dec_deg": -0.1 * k,
            "pixel_scale_arcsec": 1.8, "object": str(k), "unit": "Jy/beam",
            "rest_frequency_hz": 1.4e9 if k else None, "channels": 1,
            "file_bytes": 2**40, "beam_major_arcsec": 5,
        }
        | {name: cells[k] for name, cells in listed.items()}
        for k in range(NUMBER)
    ]  # fmt: skip
    artefacts.write_csv(folder / "catalogue.csv", (*CATALOGUE_COLUMNS, *listed), rows)
    fates = [
        {"image_id": i, "path": "", "status": "ok", "subset": "test" if k else "train"}
        for k, i in enumerate(ids)
    ]
    artefacts.write_csv(folder / "split.csv", SPLIT_COLUMNS, fates)
    vectors = np.random.default_rng(2).normal(size=(NUMBER, LENGTH)).astype(np.float32)
    vectors[0, :3] = 1e-40, 3e38, -0.0
    shards = []
    for name, part in (("a", slice(0, 3)), ("b", slice(3, 7))):
        shards.append(folder / f"{name}.parquet")
        write_embeddings(shards[-1], Embeddings(tuple(ids[part]), vectors[part]))
    path = folder / "analysis.parquet"
    write_analysis(path, analysis_of(NUMBER, neighbours))
    inputs = Inputs(folder / "catalogue.csv", folder / "split.csv", tuple(shards), path)
    return inputs, vectors


@pytest.fixture
def inputs(tmp_path, monkeypatch):
    """Such a run, read three rows at a time, so that blocks and shards differ."""
    monkeypatch.setattr(analysis_table, "ROWS_AT_A_TIME", 3)
    return write_inputs(tmp_path / "run", LISTED)


def check_numbers(column):
    """What every typed table says of the list's numbers and ours."""
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
    found = analysis_of(NUMBER, 3)
    np.testing.assert_array_equal(column("cluster"), found.cluster)
    np.testing.assert_array_equal(column("x"), found.map[:, 0])
    np.testing.assert_array_equal(column("outlier_rank"), found.outlier_rank)


def check_texts(text):
    """What every typed table says in words."""
    assert text("image_id") == [f"{k:016x}" for k in range(NUMBER)]
    assert text("object") == [str(k) for k in range(NUMBER)], "names are no numbers"
    assert text("code") == LISTED["code"], "leading zeros are kept"
    assert text("listed_X") == LISTED["X"]
    assert text("subset") == ["train"] + ["test"] * 6
    assert text("remark") == LISTED["remark"]
    assert text("path") == [f"fits/ä{k}.fits" for k in range(NUMBER)]
    assert text("nothing") == [""] * NUMBER
    assert text("role") == ["", "odd", "", "", "", "", ""]


def test_parquet_returns_all(inputs, tmp_path):
    """Types, nulls, lists, the list's texts as they were, vectors bit for bit."""
    files, vectors = inputs
    export_parquet(Settings(), files, tmp_path / "out.parquet")
    table = pq.read_table(tmp_path / "out.parquet")

    def column(name):
        values = table.column(name)
        empty = np.array(values.is_null().to_pylist())
        filled = values.fill_null(0) if empty.any() else values
        return np.ma.array(filled.to_numpy(), mask=empty)

    check_numbers(column)
    check_texts(lambda name: [cell or "" for cell in table.column(name).to_pylist()])
    read = np.stack([column(f"emb_{k}") for k in range(LENGTH)], axis=1)
    assert read.tobytes() == vectors.tobytes()
    found = analysis_of(NUMBER, 3)
    neighbours = table.column("neighbour_ids").to_pylist()
    assert neighbours == [list(ids) for ids in found.neighbours]
    distances = np.array(table.column("neighbour_distances").to_pylist(), np.float32)
    np.testing.assert_array_equal(distances, found.distances)
    assert table.column("duplicate_ids").to_pylist()[2] == ["0" * 16]
    notes = table.schema.field("ra_deg").metadata
    assert (notes[b"unit"], notes[b"ucd"]) == (b"deg", b"pos.eq.ra;meta.main")
    assert table.column("listed_emb_0").to_pylist() == [1.5] * NUMBER


def test_the_fits_table_returns_all(inputs, tmp_path):
    """By astropy, which finds nothing against the standard; texts are escaped."""
    files, vectors = inputs
    export_fits(Settings(), files, tmp_path / "out.fits")
    with fits.open(tmp_path / "out.fits") as opened:
        opened.verify("exception")
        header = opened[1].header
        raw = opened[1].data["remark"]
        assert all(text.isascii() and text.isprintable() for text in raw)
    table = Table.read(tmp_path / "out.fits")
    check_numbers(lambda name: table[name])

    def text(name):
        cells = np.ma.filled(np.ma.asarray(table[name]).astype(str), "")
        return [cell.encode().decode("unicode_escape") for cell in cells]

    check_texts(text)
    read = np.ascontiguousarray(table["embedding"], np.float32)
    assert read.tobytes() == vectors.tobytes()
    found = analysis_of(NUMBER, 3)
    assert text("neighbour_ids")[1].split() == list(found.neighbours[1])
    np.testing.assert_array_equal(table["neighbour_distances"], found.distances)
    assert table["pixel_scale_arcsec"].unit == "arcsec"
    place = 1 + table.colnames.index("dec_deg")
    assert header[f"TUCD{place}"] == "pos.eq.dec;meta.main"
    assert header[f"TCOMM{place}"] == "declination of the centre, ICRS"
    assert json.loads(header["SETTINGS"])["analysis_settings"]["neighbours"] == 12
    assert (tmp_path / "out.fits").stat().st_size % 2880 == 0


def test_the_votable_returns_all(inputs, tmp_path):
    """By astropy, for which every deviation from the standard is an error here."""
    files, vectors = inputs
    export_votable(Settings(), files, tmp_path / "out.vot")
    votable = parse_votable(tmp_path / "out.vot", verify="exception")
    first = votable.get_first_table()
    table = first.to_table(use_names_over_ids=True)
    check_numbers(lambda name: table[name])
    check_texts(lambda name: list(np.ma.filled(table[name], "")))
    read = np.ascontiguousarray(table["embedding"], np.float32)
    assert read.tobytes() == vectors.tobytes()
    np.testing.assert_array_equal(
        table["neighbour_distances"], analysis_of(NUMBER, 3).distances
    )
    field = first.get_field_by_id("ra_deg")
    assert (field.unit, field.ucd) == ("deg", "pos.eq.ra;meta.main")
    assert votable.get_coosys_by_id("icrs").system == "ICRS"
    assert b"<BINARY2>" in (tmp_path / "out.vot").read_bytes()
    assert first.nrows == NUMBER


@pytest.mark.parametrize("form", EXPORTS)
def test_the_same_input_gives_the_same_bytes(inputs, tmp_path, form, monkeypatch):
    """Nothing in a table tells when it was made; block sizes do not matter."""
    files, _ = inputs
    for name in ("one", "other"):
        EXPORTS[form](Settings(), files, tmp_path / name)
        if form != "parquet":  # whose row groups are the blocks
            monkeypatch.setattr(analysis_table, "ROWS_AT_A_TIME", 4)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()


@pytest.mark.parametrize("form", EXPORTS)
def test_one_image_has_no_neighbours(tmp_path, form):
    """A column that would be empty by its type is left out, and all can be read."""
    files, _ = write_inputs(tmp_path / "run", {}, neighbours=0)
    out = tmp_path / "out"
    EXPORTS[form](Settings(), files, out)
    if form == "parquet":
        names = pq.read_schema(out).names
    elif form == "csv":
        names = out.read_text().splitlines()[0].split(",")
    else:
        names = Table.read(out, format=form).colnames
    assert "neighbour_ids" in names
    assert "neighbour_distances" not in names


def test_all_ucds_are_words_of_the_vocabulary():
    """Of UCD1+, in the places where they may stand; meanings fit a FITS card."""
    for column in (*FACTS, *ANALYSED, DISTANCES, EMBEDDING):
        if column.ucd:
            parse_ucd(column.ucd, check_controlled_vocabulary=True)
        assert len(column.meaning) <= 60
        assert column.meaning.isascii()


def test_names_of_the_list_never_meet_ours():
    """Whatever their case; two that differ by case alone are told apart."""
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


def test_a_renamed_column_is_said(inputs, tmp_path, caplog):
    """In the log of each table."""
    caplog.set_level("INFO")
    export_csv(Settings(), inputs[0], tmp_path / "out.csv")
    assert "the list's column `X` is `listed_X` here" in caplog.text


@pytest.mark.parametrize(
    ("cells", "kind"),
    [
        (["1", "2"], "integer"),
        (["1", "", "-3"], "integer"),
        (["1", "2.5"], "number"),
        (["1", "nan"], "number"),
        (["nan", ""], "text"),
        (["", ""], "text"),
        (["1", "x"], "text"),
        (["01", "2"], "text"),
        (["1_000"], "text"),
        (["inf"], "text"),
        (["٣"], "text"),
        (["9223372036854775808"], "text"),
        (["9007199254740993", "0.5"], "text"),
        (["9007199254740992", "0.5"], "number"),
        (["1e5", ".5", "5.", "+3"], "number"),
        (["True", "False"], "text"),
    ],
)
def test_a_column_is_numeric_where_all_its_cells_are(cells, kind):
    """And where no digit would be lost."""
    profile = Profile(Column("z", "text", ""), free=True)
    for cell in cells:
        profile.see(cell)
    assert profile.found().kind == kind
    if kind == "integer":
        assert [str(v) for v in integers(cells)[0]] == [cell or "0" for cell in cells]
    if kind == "number":
        found = numbers(cells)
        assert [float(cell) for cell in cells if cell != "nan"] == [
            value for value in found if value == value
        ]


@given(st.text())
def test_escaped_texts_can_be_undone(text):
    """Whatever was in them."""
    escaped = escaped_ascii(text)
    assert escaped.isascii()
    assert escaped.isprintable()
    assert escaped.encode().decode("unicode_escape") == text


def test_numbers_are_text_that_gives_them_again():
    """Also subnormal ones, the largest and negative zero."""
    draw = np.random.default_rng(0)
    bits = draw.integers(0, 2**32, (5000, 4), dtype=np.uint64).astype(np.uint32)
    vectors = bits.view(np.float32)
    vectors[~np.isfinite(vectors)] = -0.0
    read = [[np.float32(n) for n in line.split(";")] for line in lines(vectors, ";")]
    assert np.array(read, np.float32).tobytes() == vectors.tobytes()


@pytest.mark.parametrize("form", ["fits", "votable"])
def test_texts_without_end_are_cut_and_it_is_said(tmp_path, caplog, form):
    """At 4096 characters, in the tables whose rows are all of one length."""
    remarks = ["ä" * 9000, *"bcdefg"]
    files, _ = write_inputs(tmp_path / "run", {"remark": remarks})
    EXPORTS[form](Settings(), files, tmp_path / "out")
    assert "cut in `remark`" in caplog.text
    if form == "votable":
        votable = parse_votable(tmp_path / "out", verify="exception")
        read = votable.get_first_table().to_table(use_names_over_ids=True)["remark"]
    else:
        read = Table.read(tmp_path / "out", format="fits")["remark"]
    assert str(read[0]).endswith("...")
    assert 2000 < len(read[0]) <= 4096
    assert list(read[1:]) == list("bcdefg")
    assert cut_ids("aaaa bbbb cccc", 9) == "aaaa bbbb"
    assert cut_ids("aaaa bbbb cccc", 13) == "aaaa bbbb"


def test_a_fits_table_of_too_many_columns_is_refused(tmp_path):
    """With the remedy."""
    files, _ = write_inputs(
        tmp_path / "run", {f"c{k}": ["1"] * NUMBER for k in range(1000)}
    )
    with pytest.raises(AstromorphError, match=r"at most 999; leave `fits` out"):
        export_fits(Settings(), files, tmp_path / "out.fits")


@pytest.mark.parametrize("form", EXPORTS)
def test_memory_is_that_of_a_block(tmp_path, form, monkeypatch):
    """The block before it is gone when a block is made."""
    monkeypatch.setattr(analysis_table, "ROWS_AT_A_TIME", 2)
    files, _ = write_inputs(tmp_path / "run", {})
    seen: list[weakref.ref] = []
    alive = []

    def watched(inputs):
        for block in table_rows.blocks(inputs):
            seen.append(weakref.ref(block.vectors))
            alive.append(sum(vectors() is not None for vectors in seen))
            yield block

    monkeypatch.setattr(f"astromorph.export.tables.{form}.blocks", watched)
    EXPORTS[form](Settings(), files, tmp_path / "out")
    assert len(seen) == 4
    assert max(alive) <= 2


def test_settings_in_a_table_are_those_that_shaped_it(inputs, tmp_path):
    """Of the analysis and of inference; how a table is written is not among them."""
    files, _ = inputs
    asked = parse({"analysis_settings": {"clusters": 4}}, "test")
    export_parquet(asked, files, tmp_path / "out.parquet")
    made = pq.read_schema(tmp_path / "out.parquet").metadata
    said = json.loads(made[b"settings"])
    assert said["analysis_settings"]["clusters"] == 4
    assert "export_settings" not in said
    assert made[b"creator"].startswith(b"astromorph ")
