"""The images most like any FITS image."""

import csv
import json
import shutil

import numpy as np
import pytest
from astropy.io import fits
from PIL import Image

from astromorph.analysis.analyse import analyse
from astromorph.analysis.similar import similar
from astromorph.analysis.strip import shorten
from astromorph.artefacts.model_file import ModelFile, save_model
from astromorph.byol.build import seeded_byol
from astromorph.byol.start_weights import load_start_weights
from astromorph.catalogue.split import split
from astromorph.catalogue.validate import validate
from astromorph.cli import main as cli
from astromorph.cli.pipeline import RunFiles, finished_run
from astromorph.embedding.infer import infer
from astromorph.errors import AstromorphError
from astromorph.preprocessing.preprocess import preprocess
from astromorph.settings.loading import parse
from astromorph.settings.steps import part_of
from astromorph.sky.simulate import simulate

pytestmark = pytest.mark.slow

SETTINGS = {
    "network_name": "amm",
    "preprocess_settings": {"size": 32, "shard_size": 40},
    "inference_settings": {"batch_size": 16},
    "analysis_settings": {"map": "pca", "neighbours": 5},
}


def make(folder, changes, channels=1, listed=simulate):
    """A finished run on 70 simulated images, ten of each kind; no step trains."""
    settings = parse(SETTINGS | changes, "test")
    datafile = listed(folder / "fits", 70, seed=4)
    layout = RunFiles(folder / "results")
    validate(settings, datafile, layout.catalogue, layout.validation_page)
    shards = {"00000": (0, 40), "00001": (40, 70)}
    for name, rows in shards.items():
        outputs = layout.tensors(name), layout.contents(name)
        preprocess(settings, datafile, rows, *outputs)
    split(settings, datafile, [layout.contents(n) for n in shards], layout.split)
    byol = seeded_byol(settings, channels)
    load_start_weights(byol, settings)
    told = part_of(settings, "train")
    file = ModelFile(byol.state_dict(), told, channels, "{}", "0")
    save_model(layout.own_model, file)
    for name in shards:
        infer(settings, layout.own_model, layout.tensors(name), layout.embeddings(name))
    summary = layout.analysis.with_suffix(".json")
    page = layout.analysis.with_suffix(".html")
    analyse(
        settings, layout.catalogue, layout.split,
        [layout.embeddings(n) for n in shards], layout.analysis, summary, page, 1,
    )  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make(tmp_path_factory.mktemp("similar"), {})


def test_a_listed_image_finds_itself_first(folder, tmp_path, capsys, caplog):
    """At distance about 0, which is said; table, CSV and picture agree."""
    caplog.set_level("INFO")
    asked = folder / "fits" / "sky_000045.fits"
    options = ["--to", str(asked), "--top", "4", "--results", str(folder / "results")]
    outputs = ["--output", str(tmp_path / "s.png"), "--table", str(tmp_path / "s.csv")]
    cli.main(["similar", *options, *outputs])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == [
        "rank", "distance", "image_id", "path", "object", "cluster", "label",
    ]  # fmt: skip
    with open(tmp_path / "s.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(lines) - 1 == 4
    assert rows[0]["path"] == str(asked)
    assert float(rows[0]["distance"]) < 1e-3
    assert [r["distance"] for r in rows] == sorted(r["distance"] for r in rows)
    assert "is in the list itself" in caplog.text
    with Image.open(tmp_path / "s.png") as picture:
        assert picture.width > 3 * picture.height
        assert len(np.unique(np.asarray(picture.convert("L")))) > 50


def test_neighbours_are_those_of_the_analysis(folder):
    """The same space: after itself come the neighbours that the table lists."""
    from astromorph.artefacts.analysis_file import read_analysis

    run = finished_run(folder / "results")
    analysis = read_analysis(run.analysis)
    rows = similar(run, [str(folder / "fits" / "sky_000012.fits")], 6, None, None)
    k = analysis.image_ids.index(rows[0]["image_id"])
    assert tuple(row["image_id"] for row in rows[1:]) == analysis.neighbours[k]
    np.testing.assert_allclose(
        [float(row["distance"]) for row in rows[1:]], analysis.distances[k], atol=1e-3
    )


def test_an_image_that_was_never_listed_finds_its_kind(folder, tmp_path):
    """A turned copy finds its original; new objects mostly their own kind."""
    run = finished_run(folder / "results")
    original = folder / "fits" / "sky_000003.fits"
    pixels = fits.getdata(original).squeeze()
    fits.PrimaryHDU(np.rot90(pixels).copy()).writeto(tmp_path / "turned.fits")
    rows = similar(run, [str(tmp_path / "turned.fits")], 3, None, None)
    assert rows[0]["path"] == str(original)
    simulate(tmp_path / "new", 14, seed=77)
    with open(tmp_path / "new" / "filelist.csv", newline="") as file:
        new = list(csv.DictReader(file))
    same = [
        other["label"] == row["label"]
        for row in new
        for other in similar(run, [str(tmp_path / "new" / row["path"])], 3, None, None)
    ]
    assert np.mean(same) > 0.5  # chance is 1 in 7


def test_one_scale_for_all_and_no_symmetry(tmp_path_factory):
    """A listed image is prepared and embedded as the run did it: distance 0."""
    changes = {
        "preprocess_settings": SETTINGS["preprocess_settings"]
        | {"stretch_scope": "dataset", "stretch": "sqrt"},
        "inference_settings": {"symmetry": "none"},
    }
    folder = make(tmp_path_factory.mktemp("one scale"), changes)
    run = finished_run(folder / "results")
    asked = str(folder / "fits" / "sky_000060.fits")
    datafile = str(folder / "fits" / "filelist.csv")
    for listed in (None, datafile):
        rows = similar(run, [asked], 2, None, None, listed)
        assert rows[0]["path"] == asked
        assert float(rows[0]["distance"]) < 1e-3
    with pytest.raises(AstromorphError, match="name the list with --datafile"):
        similar(run, [asked, asked], 2, None, None)


def in_bands(folder, number, seed):
    """The simulated images, each with a fainter copy as a second file."""
    listed = simulate(folder, number, seed=seed)
    with open(listed, newline="") as file:
        names = [row["path"] for row in csv.DictReader(file)]
    rows = ["path_g,path_r"]
    for name in names:
        pixels = fits.getdata(folder / name)
        fits.PrimaryHDU(0.5 * pixels + 1).writeto(folder / f"r_{name}")
        rows.append(f"{name},r_{name}")
    (folder / "bands.csv").write_text("\n".join(rows) + "\n")
    return folder / "bands.csv"


def in_cubes(folder, number, seed):
    """The simulated images as cubes of three planes."""
    listed = simulate(folder, number, seed=seed)
    for path in folder.glob("*.fits"):
        pixels = fits.getdata(path)
        fits.PrimaryHDU(np.stack([pixels, pixels[::-1], 2 * pixels])).writeto(
            path, overwrite=True
        )
    return listed


@pytest.mark.parametrize(
    ("changes", "channels", "listed"),
    [
        ({"preprocess_settings": {"size": "native", "shard_size": 40}}, 1, simulate),
        ({}, 2, in_bands),
        ({"data_settings": {"planes": "channels"}}, 3, in_cubes),
        ({"data_settings": {"planes": "max"}}, 1, in_cubes),
    ],
    ids=["native", "bands", "planes", "peak"],
)
def test_images_of_any_form_find_themselves(tmp_path, changes, channels, listed):
    """Sizes of their own, several files, cubes: read and embedded as the run did."""
    folder = make(tmp_path, changes, channels, listed)
    asked = [str(folder / "fits" / "sky_000045.fits")]
    if listed is in_bands:
        asked.append(str(folder / "fits" / "r_sky_000045.fits"))
    rows = similar(
        finished_run(folder / "results"), asked, 3, tmp_path / "strip.png", None
    )
    assert asked[0] in rows[0]["path"]
    assert float(rows[0]["distance"]) < 1e-3 < float(rows[1]["distance"])
    with Image.open(tmp_path / "strip.png") as strip:
        assert strip.width > 2 * strip.height  # the images beside each other


def test_what_cannot_be_answered_has_a_reason(folder, tmp_path):
    """Missing results, a file that is no image, other channels, another model."""
    with pytest.raises(AstromorphError, match="name the folder of a finished run"):
        finished_run(tmp_path)
    run = finished_run(folder / "results")
    with pytest.raises(AstromorphError, match=r"none\.fits: .*no such file"):
        similar(run, [str(tmp_path / "none.fits")], 2, None, None)
    asked = str(folder / "fits" / "sky_000001.fits")
    with pytest.raises(AstromorphError, match="it has 2 channels"):
        similar(run, [asked, asked], 2, None, None)
    shutil.copytree(folder / "results", tmp_path / "results")
    settings = parse({"network_name": "amm", "seed": 9}, "test")
    state = seeded_byol(settings, 1).state_dict()
    file = ModelFile(state, part_of(settings, "train"), 1, "{}", "0")
    save_model(tmp_path / "other.pt", file)
    other = finished_run(tmp_path / "results", str(tmp_path / "other.pt"))
    with pytest.raises(AstromorphError, match="did not make the embeddings"):
        similar(other, [asked], 2, None, None)
    (tmp_path / "results" / "analysis.json").write_text(json.dumps({}))
    with pytest.raises(AstromorphError, match="run `analyse` first"):
        similar(finished_run(tmp_path / "results"), [asked], 2, None, None)


def test_long_names_keep_their_ends():
    """What tells files of one folder apart is mostly the end."""
    assert shorten("a.fits") == "a.fits"
    assert shorten("x" * 40 + "_0017.fits").endswith("xx_0017.fits")
    assert len(shorten("x" * 99)) == 24
    assert shorten("a\nb") == "a?b"
