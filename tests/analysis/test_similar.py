"""The command `similar`: find the images of a run most similar to a FITS image."""

import csv
import json
import shutil

import numpy as np
import pytest
from astropy.io import fits
from PIL import Image

from astromorph.analysis.analyse import analyse
from astromorph.analysis.similar import shorten, similar
from astromorph.artefacts.analysis_table import read_analysis
from astromorph.artefacts.model_file import ModelFile, save_model
from astromorph.artefacts.run_files import RunFiles
from astromorph.byol.build import seeded_byol
from astromorph.byol.start_weights import load_start_weights
from astromorph.catalogue.split import split
from astromorph.catalogue.validate import validate
from astromorph.cli import main as cli
from astromorph.cli.pipeline import finished_run
from astromorph.embedding.infer import infer
from astromorph.errors import AstromorphError
from astromorph.filelist.shards import Shard
from astromorph.preprocessing.preprocess import preprocess
from astromorph.settings.loading import parse
from astromorph.settings.steps import train_step_settings
from astromorph.sky.simulate import simulate

pytestmark = pytest.mark.slow

SETTINGS = {
    "network_name": "amm",
    "preprocess_settings": {"size": 32, "shard_size": 40},
    "inference_settings": {"batch_size": 16},
    "analysis_settings": {"map": "pca", "neighbours": 5},
}


def finish_run(folder, changes, channels=1, write_images=simulate):
    """A finished run on 70 simulated images, ten of each kind, without training."""
    settings = parse(SETTINGS | changes, "test")
    datafile = write_images(folder / "fits", 70, seed=4)
    files = RunFiles.of_run(folder / "results", shards=2)
    data, preprocessing = settings.data_settings, settings.preprocess_settings
    validation = settings.validate_settings
    validate(datafile, files, data, validation, preprocessing)
    for shard, rows in zip(files.shards, [(0, 40), (40, 70)], strict=True):
        preprocess(datafile, Shard(shard, *rows), files, data, preprocessing)
    split(datafile, files, settings.split_settings, validation, settings.seed)
    training = train_step_settings(settings)
    byol = seeded_byol(training, channels)
    load_start_weights(byol, training)
    model = ModelFile(byol.state_dict(), training.to_dict(), channels, "{}", "0")
    save_model(files.own_model, model)
    for shard in files.shards:
        infer(files, shard, settings.inference_settings)
    analyse(files, settings.analysis_settings, settings.seed, threads=1)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return finish_run(tmp_path_factory.mktemp("similar"), {})


def test_a_listed_image_is_most_similar_to_itself(folder, tmp_path, capsys, caplog):
    """At distance 0, which is logged; the printed table, CSV and picture agree."""
    caplog.set_level("INFO")
    image = folder / "fits" / "sky_000045.fits"
    options = ["--to", str(image), "--top", "4", "--results", str(folder / "results")]
    outputs = ["--output", str(tmp_path / "s.png"), "--table", str(tmp_path / "s.csv")]
    cli.main(["similar", *options, *outputs])
    lines = capsys.readouterr().out.splitlines()
    columns = "rank distance image_id path object cluster label"
    assert lines[0].split() == columns.split()
    with open(tmp_path / "s.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(lines) - 1 == 4
    assert rows[0]["path"] == str(image)
    assert float(rows[0]["distance"]) < 1e-3
    assert [r["distance"] for r in rows] == sorted(r["distance"] for r in rows)
    assert "is in the file list" in caplog.text
    with Image.open(tmp_path / "s.png") as picture:
        assert picture.width > 3 * picture.height
        assert len(np.unique(np.asarray(picture.convert("L")))) > 50


def test_neighbours_are_those_of_the_analysis(folder):
    """After the image itself come the neighbours in the table."""
    files = finished_run(folder / "results")
    analysis = read_analysis(files.analysis)
    rows = similar(files, [str(folder / "fits" / "sky_000012.fits")], 6, None, None)
    k = analysis.image_ids.index(rows[0]["image_id"])
    assert tuple(row["image_id"] for row in rows[1:]) == analysis.neighbours[k]
    np.testing.assert_allclose(
        [float(row["distance"]) for row in rows[1:]], analysis.distances[k], atol=1e-3
    )


def test_an_unlisted_image_is_similar_to_its_kind(folder, tmp_path):
    """A rotated copy is nearest to its original; new objects mostly to their kind."""
    files = finished_run(folder / "results")
    original = folder / "fits" / "sky_000003.fits"
    pixels = fits.getdata(original).squeeze()
    fits.PrimaryHDU(np.rot90(pixels).copy()).writeto(tmp_path / "rotated.fits")
    rows = similar(files, [str(tmp_path / "rotated.fits")], 3, None, None)
    assert rows[0]["path"] == str(original)
    simulate(tmp_path / "new", 14, seed=77)
    with open(tmp_path / "new" / "filelist.csv", newline="") as file:
        new = list(csv.DictReader(file))
    same = []
    for row in new:
        image = str(tmp_path / "new" / row["path"])
        for other in similar(files, [image], 3, None, None):
            same.append(other["label"] == row["label"])
    assert np.mean(same) > 0.5  # chance is 1 in 7


def test_a_run_with_one_brightness_scale_and_no_symmetry(tmp_path_factory):
    """A listed image is prepared and embedded like the run: its distance is 0."""
    changes = {
        "preprocess_settings": SETTINGS["preprocess_settings"]
        | {"stretch_scope": "dataset", "stretch": "sqrt"},
        "inference_settings": {"symmetry": "none"},
    }
    folder = finish_run(tmp_path_factory.mktemp("one scale"), changes)
    files = finished_run(folder / "results")
    image = str(folder / "fits" / "sky_000060.fits")
    for datafile in (None, str(folder / "fits" / "filelist.csv")):
        rows = similar(files, [image], 2, None, None, datafile)
        assert rows[0]["path"] == image
        assert float(rows[0]["distance"]) < 1e-3
    with pytest.raises(AstromorphError, match="it has 2 channels"):
        similar(files, [image, image], 2, None, None)


def write_bands(folder, number, seed):
    """Simulated images, each with a fainter copy as a second file."""
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


def write_cubes(folder, number, seed):
    """Simulated images as cubes of three planes."""
    listed = simulate(folder, number, seed=seed)
    for path in folder.glob("*.fits"):
        pixels = fits.getdata(path)
        fits.PrimaryHDU(np.stack([pixels, pixels[::-1], 2 * pixels])).writeto(
            path, overwrite=True
        )
    return listed


@pytest.mark.parametrize(
    ("changes", "channels", "write_images"),
    [
        ({"preprocess_settings": {"size": "native", "shard_size": 40}}, 1, simulate),
        ({}, 2, write_bands),
        ({"data_settings": {"planes": "channels"}}, 3, write_cubes),
        ({"data_settings": {"planes": "max"}}, 1, write_cubes),
    ],
    ids=["native", "bands", "planes", "peak"],
)
def test_images_of_any_form_are_similar_to_themselves(
    tmp_path, changes, channels, write_images
):
    """Native sizes, several files and cubes are read and embedded as in the run."""
    folder = finish_run(tmp_path, changes, channels, write_images)
    paths = [str(folder / "fits" / "sky_000045.fits")]
    if write_images is write_bands:
        paths.append(str(folder / "fits" / "r_sky_000045.fits"))
    files = finished_run(folder / "results")
    rows = similar(files, paths, 3, tmp_path / "strip.png", None)
    assert paths[0] in rows[0]["path"]
    assert float(rows[0]["distance"]) < 1e-3 < float(rows[1]["distance"])
    with Image.open(tmp_path / "strip.png") as strip:
        assert strip.width > 2 * strip.height  # the images beside each other


def test_errors_say_what_is_wrong(folder, tmp_path):
    """Missing results, a missing file, other channels, another model."""
    with pytest.raises(AstromorphError, match="give the folder of a finished run"):
        finished_run(tmp_path)
    files = finished_run(folder / "results")
    with pytest.raises(AstromorphError, match=r"none\.fits: .*no such file"):
        similar(files, [str(tmp_path / "none.fits")], 2, None, None)
    image = str(folder / "fits" / "sky_000001.fits")
    with pytest.raises(AstromorphError, match="it has 2 channels"):
        similar(files, [image, image], 2, None, None)
    shutil.copytree(folder / "results", tmp_path / "results")
    training = train_step_settings(parse({"network_name": "amm", "seed": 9}, "test"))
    state = seeded_byol(training, 1).state_dict()
    model = ModelFile(state, training.to_dict(), 1, "{}", "0")
    save_model(tmp_path / "other.pt", model)
    other = finished_run(tmp_path / "results", str(tmp_path / "other.pt"))
    with pytest.raises(AstromorphError, match="are not from this model"):
        similar(other, [image], 2, None, None)
    (tmp_path / "results" / "analysis.json").write_text(json.dumps({}))
    with pytest.raises(AstromorphError, match="run `analyse` first"):
        similar(finished_run(tmp_path / "results"), [image], 2, None, None)


def test_long_names_are_shortened_in_the_middle():
    """Files in one folder mostly differ in the ends of their names."""
    assert shorten("a.fits") == "a.fits"
    assert shorten("x" * 40 + "_0017.fits").endswith("xx_0017.fits")
    assert len(shorten("x" * 99)) == 24
    assert shorten("a\nb") == "a?b"
