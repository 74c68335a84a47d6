"""The exports: the CSV table and the folder for the projector."""

import csv

import numpy as np
import pytest
import torch
from finished_run import catalogue_rows, image_ids, random_analysis, write_run
from PIL import Image

from astromorph.artefacts.run_files import RunFiles
from astromorph.embedding.embed import dihedral_views, embed
from astromorph.export import tensorboard
from astromorph.export.tables.csv import export_csv
from astromorph.export.tensorboard import (
    MAX_SPRITE,
    export_tensorboard,
    make_sprite,
    one_cell,
    stratified_sample,
)
from astromorph.pages.pictures import thumbnail
from astromorph.settings.sections import InferenceSettings

NASTY = ["=cmd()", "<b>bold</b>", 'quo"te,comma', "tab\there\nline", "ünï", "-1.5"]
ANALYSED = tuple(image_ids(6)[k] for k in (0, 1, 3, 5))
ANALYSIS = random_analysis(ANALYSED, neighbours=2)
VECTORS = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)


@pytest.fixture
def files(tmp_path) -> RunFiles:
    """A run of six files with unusual names in two shards.

    The third was rejected, the fifth left out by the split. A column of the list has
    a name of ours.
    """
    rows = catalogue_rows(6, object=NASTY, kind=NASTY, x=["7"] * 6)
    rows[2]["status"] = "rejected"
    return write_run(
        tmp_path,
        rows,
        shard_sizes=(2, 4),
        subsets=["train", "train", "none", "train", "none", "train"],
        vectors=VECTORS,
        analysis=ANALYSIS,
    )


@pytest.mark.parametrize(("separator", "sign"), [("comma", ","), ("semicolon", ";")])
def test_the_csv_preserves_embeddings_and_names(files, separator, sign):
    """Vectors are exact to the last bit; names only change if they are formulas."""
    export_csv(files, separator)
    with open(files.table("csv"), newline="", encoding="utf-8") as file:
        table = list(csv.DictReader(file, delimiter=sign))
    read = [[np.float32(row[f"emb_{k}"]) for k in range(3)] for row in table]
    np.testing.assert_array_equal(np.array(read), VECTORS[[0, 1, 2, 4]])
    names = [row["kind"] for row in table]
    assert names == ["'=cmd()", "<b>bold</b>", "tab\there\nline", "-1.5"]
    assert [int(row["cluster"]) for row in table] == ANALYSIS.cluster.tolist()
    assert [np.float32(row["x"]) for row in table] == ANALYSIS.map[:, 0].tolist()
    assert [row["listed_x"] for row in table] == ["7"] * 4
    assert table[0]["neighbour_ids"].split() == list(ANALYSIS.neighbours[0])
    assert [row["role"] for row in table] == ["", "odd", "", ""]
    assert [row["duplicate_ids"] for row in table] == ["", "", ANALYSED[0], ""]


def test_metadata_has_a_line_per_point(files):
    """Tabs and line breaks in names do not break the projector's table."""
    export_tensorboard(files, 48)
    folder = files.projector
    metadata = (folder / "metadata.tsv").read_text(encoding="utf-8")
    lines = [line.split("\t") for line in metadata.splitlines()]
    assert {len(line) for line in lines} == {len(lines[0])}
    assert len(lines) == 5
    assert len(lines[0]) > 1, "a header is one only where there are two columns"
    columns = dict(zip(lines[0], zip(*lines[1:], strict=True), strict=True))
    assert list(map(int, columns["cluster"])) == ANALYSIS.cluster.tolist()
    assert list(map(int, columns["outlier_rank"])) == ANALYSIS.outlier_rank.tolist()
    assert columns["listed_x"] == ("7",) * 4
    points = np.loadtxt(folder / "tensors.tsv", delimiter="\t")
    np.testing.assert_array_equal(points.astype(np.float32), VECTORS[[0, 1, 2, 4]])
    for name, places in (("map", ANALYSIS.map), ("pca", ANALYSIS.pca)):
        points = np.loadtxt(folder / f"{name}.tsv", delimiter="\t")
        np.testing.assert_array_equal(points[:, :2].astype(np.float32), places)
    config = (folder / "projector_config.pbtxt").read_text()
    assert config.count('metadata_path: "metadata.tsv"') == 3
    assert config.count('image_path: "sprite.png"') == 3
    assert one_cell("a\tb\u2028c\x00") == "a\\tb c\\u0000"


def test_the_projector_shows_a_sample_of_many(files, monkeypatch, caplog):
    """The sample is the same in all files, and is logged."""
    caplog.set_level("INFO")
    monkeypatch.setattr(tensorboard, "MAX_POINTS", 3)
    export_tensorboard(files, 48)
    folder = files.projector
    assert "a sample of 3 of 4 images" in caplog.text
    points = np.loadtxt(folder / "tensors.tsv", delimiter="\t")
    metadata = (folder / "metadata.tsv").read_text(encoding="utf-8")
    header, *lines = [line.split("\t") for line in metadata.splitlines()]
    ids = [line[header.index("image_id")] for line in lines]
    assert ANALYSED[1] in ids, "the odd member of a cluster is chosen"
    chosen = [image_id in ids for image_id in ANALYSED]
    vectors = VECTORS[[0, 1, 2, 4]][chosen]
    np.testing.assert_array_equal(points.astype(np.float32), vectors)
    with Image.open(folder / "sprite.png") as sheet:
        assert sheet.size == (96, 96)


def test_a_sample_contains_clusters_in_proportion():
    """Representatives and outliers come first; the sample is the same every time."""
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


def test_thumbnails_are_upright():
    """The first row of a FITS image is at the bottom of its picture."""
    pixels = np.zeros((1, 8, 8), np.float32)
    pixels[0, 0, :] = 1
    picture = thumbnail(pixels, 8)
    assert (picture[-1] == 255).all()
    assert (picture[:-1] == 0).all()


def test_sprites_stay_within_the_limit(files, monkeypatch):
    """Thumbnails are reduced if the sprite would be too large."""
    ids = {image_ids(6)[k] for k in (0, 1, 3, 4, 5)}
    sheet, side = make_sprite(files.all_tensors, ids, 48)
    assert (side, sheet.shape) == (48, (144, 144))
    assert (sheet[96:, 96:] == 0).all()
    fewer, side = make_sprite(files.all_tensors, ids - {ANALYSED[1]}, 48)
    assert (side, fewer.shape) == (48, (96, 96))
    np.testing.assert_array_equal(fewer[:48, 48:], sheet[:48, 96:])
    monkeypatch.setattr(tensorboard, "MAX_SPRITE", 30)
    sheet, side = make_sprite(files.all_tensors, ids, 48)
    assert (side, sheet.shape) == (10, (30, 30))
    assert MAX_SPRITE == 8192


def test_d4_are_the_eight_symmetries():
    """Eight different views, and the same eight for a rotated image."""
    image = torch.arange(9.0).reshape(1, 1, 3, 3)
    views = {tuple(v.flatten().tolist()) for v in dihedral_views(image)}
    turned = {
        tuple(v.flatten().tolist()) for v in dihedral_views(image.rot90(1, (2, 3)))
    }
    assert len(views) == 8
    assert views == turned


def test_d4_embeddings_do_not_depend_on_the_position_angle():
    """Averaged over the symmetries, a rotated image has the same embedding."""
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
