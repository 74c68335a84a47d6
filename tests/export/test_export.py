"""What leaves: one table, one folder for the projector."""

import csv
from dataclasses import replace

import numpy as np
import pytest
import torch
from artefacts.test_analysis_table import analysis_of
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from astromorph.artefacts import tables as artefacts
from astromorph.artefacts.analysis_table import write_analysis
from astromorph.artefacts.embeddings import Embeddings, write_embeddings
from astromorph.artefacts.table_rows import Inputs
from astromorph.artefacts.tables import (
    CATALOGUE_COLUMNS,
    SPLIT_COLUMNS,
    spreadsheet_safe,
    undo_spreadsheet_safe,
)
from astromorph.artefacts.tensor_file import SHARD_FORMAT, SHARD_VERSION, save_tensors
from astromorph.embedding.embed import dihedral_views, embed
from astromorph.errors import AstromorphError
from astromorph.export import tensorboard as board
from astromorph.export.sprites import MAX_SPRITE, make_sprite
from astromorph.export.stratified import stratified_sample
from astromorph.export.tables.csv import export_csv
from astromorph.export.tensorboard import export_tensorboard, one_cell
from astromorph.pages.thumbnail import thumbnail
from astromorph.settings.loading import parse
from astromorph.settings.sections import InferenceSettings, Settings

NASTY = ["=cmd()", "<b>bold</b>", 'quo"te,comma', "tab\there\nline", "ünï", "-1.5"]


@pytest.fixture
def results(tmp_path):
    """A catalogue of six rows with nasty names, two shards, an analysis.

    The third was rejected, the fifth left out by the split. A column of the list has
    a name of ours.
    """
    ids = [f"{k:016x}" for k in range(6)]
    rows = [
        {
            "image_id": i,
            "path": f"{i}.fits",
            "status": "ok",
            "object": n,
            "kind": n,
            "x": "7",
        }
        for i, n in zip(ids, NASTY, strict=True)
    ]
    catalogue = tmp_path / "catalogue.csv"
    artefacts.write_csv(catalogue, (*CATALOGUE_COLUMNS, "kind", "x"), rows)
    vectors = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    kept = [k for k in range(6) if k != 2]
    fates = [r | {"subset": "none" if k == 4 else "train"} for k, r in enumerate(rows)]
    for fate in fates:
        del fate["object"], fate["kind"], fate["x"]
    artefacts.write_csv(tmp_path / "split.csv", SPLIT_COLUMNS, fates)
    embeddings, tensors = [], []
    for name, part in (("a", slice(0, 2)), ("b", slice(2, 5))):
        some = tuple(ids[k] for k in kept[part])
        embeddings.append(tmp_path / f"{name}.parquet")
        write_embeddings(embeddings[-1], Embeddings(some, vectors[part]))
        images = torch.rand(len(some), 1, 16, 16).half()
        tensors.append(tmp_path / f"{name}.pt")
        shard = {
            "format": SHARD_FORMAT,
            "format_version": SHARD_VERSION,
            "images": images.numpy(),
            "shapes": np.full((len(some), 2), 16, np.int32),
            "channels": 1,
            "valid": np.full(32 * len(some), 255, np.uint8),
            "image_ids": list(some),
            "rows": np.arange(len(some)),
            "statistics": {},
            "settings": "{}",
        }
        save_tensors(tensors[-1], shard)
    seen = tuple(ids[k] for k in (0, 1, 3, 5))
    write_analysis(
        tmp_path / "analysis.parquet", replace(analysis_of(4, 2), image_ids=seen)
    )
    inputs = Inputs(
        catalogue, tmp_path / "split.csv", tuple(embeddings),
        tmp_path / "analysis.parquet",
    )  # fmt: skip
    return tmp_path, inputs, tensors, vectors[[0, 1, 2, 4]]


@pytest.mark.parametrize(("separator", "sign"), [("comma", ","), ("semicolon", ";")])
def test_the_csv_returns_what_was_embedded(results, separator, sign):
    """Vectors come back to the last bit, names unharmed but for formulas."""
    folder, inputs, _, vectors = results
    settings = parse({"export_settings": {"csv_separator": separator}}, "test")
    export_csv(settings, inputs, folder / "out.csv")
    with open(folder / "out.csv", newline="", encoding="utf-8") as file:
        table = list(csv.DictReader(file, delimiter=sign))
    read = [[np.float32(row[f"emb_{k}"]) for k in range(3)] for row in table]
    np.testing.assert_array_equal(np.array(read), vectors)
    names = [row["kind"] for row in table]
    assert names == ["'=cmd()", "<b>bold</b>", "tab\there\nline", "-1.5"]
    found = analysis_of(4, 2)
    assert [int(row["cluster"]) for row in table] == found.cluster.tolist()
    assert [np.float32(row["x"]) for row in table] == found.map[:, 0].tolist()
    assert [row["listed_x"] for row in table] == ["7"] * 4
    assert table[0]["neighbour_ids"].split() == list(found.neighbours[0])
    assert [row["role"] for row in table] == ["", "odd", "", ""]
    assert [row["duplicate_ids"] for row in table] == ["", "", "0" * 16, ""]


@pytest.mark.parametrize("text", ["=1+1", "@SUM(A1)", "+x", "-x", "\tx"])
def test_no_cell_is_a_formula(text):
    """What a spreadsheet would run gets an apostrophe before it."""
    assert spreadsheet_safe(text) == f"'{text}"
    assert undo_spreadsheet_safe(spreadsheet_safe(text)) == text


@pytest.mark.parametrize("text", ["-1.5", "+3e8", "NGC 1", "", "a=b", "'", "'t Hooft"])
def test_other_cells_stay(text):
    """Numbers and plain names are not touched."""
    assert spreadsheet_safe(text) == text
    assert undo_spreadsheet_safe(text) == text


@given(st.text(alphabet="'=+-@\t\ra1 ", max_size=6))
def test_steps_read_back_what_was_written(text):
    """The apostrophe is for spreadsheets alone."""
    assert undo_spreadsheet_safe(spreadsheet_safe(text)) == text


def test_metadata_has_a_line_per_point(results):
    """Tabs and line breaks in names do not break the projector's table."""
    folder, inputs, tensors, vectors = results
    export_tensorboard(Settings(), inputs, tensors, folder / "board")
    metadata = (folder / "board/metadata.tsv").read_text(encoding="utf-8")
    lines = [line.split("\t") for line in metadata.splitlines()]
    assert {len(line) for line in lines} == {len(lines[0])}
    assert len(lines) == 5
    assert len(lines[0]) > 1, "a header is one only where there are two columns"
    columns = dict(zip(lines[0], zip(*lines[1:], strict=True), strict=True))
    found = analysis_of(4, 2)
    assert list(map(int, columns["cluster"])) == found.cluster.tolist()
    assert list(map(int, columns["outlier_rank"])) == found.outlier_rank.tolist()
    assert columns["listed_x"] == ("7",) * 4
    points = np.loadtxt(folder / "board/tensors.tsv", delimiter="\t")
    np.testing.assert_array_equal(points.astype(np.float32), vectors)
    for name, places in (("map", found.map), ("pca", found.pca)):
        points = np.loadtxt(folder / f"board/{name}.tsv", delimiter="\t")
        np.testing.assert_array_equal(points[:, :2].astype(np.float32), places)
    config = (folder / "board/projector_config.pbtxt").read_text()
    assert config.count('metadata_path: "metadata.tsv"') == 3
    assert config.count('image_path: "sprite.png"') == 3
    assert one_cell("a\tb\u2028c\x00") == "a\\tb c\\u0000"


def test_embeddings_of_another_list_are_refused(results):
    """A shard that the catalogue does not know names the file and the remedy."""
    folder, inputs, _, _ = results
    write_embeddings(
        inputs.embeddings[0], Embeddings(("f" * 16,), np.zeros((1, 3), np.float32))
    )
    with pytest.raises(AstromorphError, match=r"a\.parquet: f+ is not in"):
        export_csv(Settings(), inputs, folder / "out.csv")
    assert not (folder / "out.csv").exists()


@pytest.mark.parametrize("number", [3, 5])
def test_an_analysis_of_other_images_is_refused(results, number):
    """Fewer or more images: the file and the step to run again are named."""
    folder, inputs, _, _ = results
    write_analysis(inputs.analysis, analysis_of(number, 2))
    with pytest.raises(
        AstromorphError, match=r"analysis\.parquet: its images .* `analyse` again"
    ):
        export_csv(Settings(), inputs, folder / "out.csv")
    assert not (folder / "out.csv").exists()


def test_the_projector_shows_a_sample_of_many(results, monkeypatch, caplog):
    """What is kept is the same in all of its files, and the log says so."""
    caplog.set_level("INFO")
    folder, inputs, tensors, vectors = results
    monkeypatch.setattr(board, "MAX_POINTS", 3)
    export_tensorboard(Settings(), inputs, tensors, folder / "board")
    assert "a sample of 3 of 4 images" in caplog.text
    points = np.loadtxt(folder / "board/tensors.tsv", delimiter="\t")
    metadata = (folder / "board/metadata.tsv").read_text(encoding="utf-8")
    header, *lines = [line.split("\t") for line in metadata.splitlines()]
    ids = [line[header.index("image_id")] for line in lines]
    assert f"{1:016x}" in ids, "the odd member of a cluster is kept"
    kept = [(f"{k:016x}" in ids) for k in (0, 1, 3, 5)]
    np.testing.assert_array_equal(points.astype(np.float32), vectors[kept])
    with Image.open(folder / "board/sprite.png") as sheet:
        assert sheet.size == (96, 96)


def test_a_sample_has_its_share_of_every_cluster():
    """In proportion; representatives and the oddest are kept; the same each time."""
    draw = np.random.default_rng(1)
    cluster = np.repeat([0, 1, 2, -1], [6000, 3000, 990, 10]).astype(np.int32)
    rank = (1 + draw.permutation(10_000)).astype(np.int32)
    role = draw.random(10_000) < 0.001
    chosen = stratified_sample(cluster, rank, role, 1000)
    assert chosen.sum() == 1000
    assert chosen[role].all()
    assert chosen[rank <= 100].all()
    others = chosen & ~role & (rank > 100)
    shares = [others[cluster == k].sum() / others.sum() for k in (0, 1, 2)]
    np.testing.assert_allclose(shares, [0.6, 0.3, 0.099], atol=0.003)
    assert np.array_equal(chosen, stratified_sample(cluster, rank, role, 1000))
    assert stratified_sample(cluster, rank, role, 10_000).all()
    assert stratified_sample(cluster, rank, np.ones(10_000, bool), 10).sum() == 10


def test_thumbnails_stand_upright():
    """The first row of a FITS image is at the bottom of its picture."""
    pixels = np.zeros((1, 8, 8), np.float32)
    pixels[0, 0, :] = 1
    picture = thumbnail(pixels, 8)
    assert (picture[-1] == 255).all()
    assert (picture[:-1] == 0).all()


def test_sprites_stay_within_the_limit(results, monkeypatch):
    """Thumbnails shrink rather than pass the largest sprite."""
    _, _, tensors, _ = results
    ids = {f"{k:016x}" for k in (0, 1, 3, 4, 5)}
    sheet, side = make_sprite(tensors, ids, 48)
    assert (side, sheet.shape) == (48, (144, 144))
    assert (sheet[96:, 96:] == 0).all()
    fewer, side = make_sprite(tensors, ids - {"0" * 15 + "1"}, 48)
    assert (side, fewer.shape) == (48, (96, 96))
    np.testing.assert_array_equal(fewer[:48, 48:], sheet[:48, 96:])
    monkeypatch.setattr("astromorph.export.sprites.MAX_SPRITE", 30)
    sheet, side = make_sprite(tensors, ids, 48)
    assert (side, sheet.shape) == (10, (30, 30))
    assert MAX_SPRITE == 8192


def test_d4_are_the_eight_symmetries():
    """Eight different views, and the same eight for a turned image."""
    image = torch.arange(9.0).reshape(1, 1, 3, 3)
    views = {tuple(v.flatten().tolist()) for v in dihedral_views(image)}
    turned = {
        tuple(v.flatten().tolist()) for v in dihedral_views(image.rot90(1, (2, 3)))
    }
    assert len(views) == 8
    assert views == turned


def test_d4_embeddings_do_not_see_the_position_angle():
    """Averaged over the symmetries, a turned image has the same embedding."""
    from astromorph.byol.byol import BYOL
    from astromorph.datasets.tensor_datasets import CachedDataset
    from astromorph.models.encoders import AstroMorphologyModel

    torch.manual_seed(0)
    byol = BYOL(AstroMorphologyModel(1), features=128)
    images = torch.rand(3, 1, 32, 32)
    turned = images.rot90(1, (2, 3))
    settings = InferenceSettings(batch_size=2)
    same = [embed(byol, CachedDataset(data), settings) for data in (images, turned)]
    np.testing.assert_allclose(same[0], same[1], atol=1e-5)
    plain = InferenceSettings(symmetry="none")
    other = [embed(byol, CachedDataset(data), plain) for data in (images, turned)]
    assert np.abs(other[0] - other[1]).max() > 1e-3
