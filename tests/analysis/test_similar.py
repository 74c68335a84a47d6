"""The command `similar`: find the images of a run most similar to a FITS image."""

import csv
import json
import os
import shutil

import numpy as np
import pytest
from astropy.io import fits
from PIL import Image

from astromorph.analysis.analyse import analyse
from astromorph.analysis.embedded_images import (
    read_analysis_settings,
    read_embedded_images,
)
from astromorph.analysis.panels import Panel, draw_panels, shorten
from astromorph.analysis.similar import Examples, similar, similar_to_list
from astromorph.analysis.space import fit_space
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


def find(files, paths, count, output=None, datafile=None, **examples):
    """The rows of `similar`, without a table."""
    return similar(files, Examples(paths, **examples), count, output, None, datafile)


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
    assert f"{tmp_path / 's.csv'}: 4 rows" in caplog.text
    assert f"{tmp_path / 's.png'}: 5 images" in caplog.text
    with Image.open(tmp_path / "s.png") as picture:
        assert picture.width > 3 * picture.height
        assert len(np.unique(np.asarray(picture.convert("L")))) > 50


def test_panels_say_what_their_numbers_are(folder, tmp_path, monkeypatch):
    """Below the given image is what it is, below each other one its distance."""
    drawn = []
    monkeypatch.setattr(
        "astromorph.analysis.similar.draw_panels",
        lambda path, panels: drawn.extend(panels),
    )
    image = str(folder / "fits" / "sky_000045.fits")
    files = finished_run(folder / "results")
    rows = find(files, [image], 2, tmp_path / "s.png")
    assert [panel.lines[1] for panel in drawn] == [
        "the given image",
        *(f"distance {float(row['distance']):.3g}" for row in rows),
    ]


def test_the_command_takes_names_from_the_settings(folder, tmp_path, capsys):
    """The model and the list that they name are those of the run."""
    settings = tmp_path / "settings.yaml"
    settings.write_text("trained_network_name: absent.pt\n")
    image = str(folder / "fits" / "sky_000045.fits")
    command = ["similar", "--to", image, "--results", str(folder / "results")]
    with pytest.raises(SystemExit):
        cli.main([*command, "--configfile", str(settings)])
    model = str(folder / "results" / "model" / "model.pt")
    cli.main([*command, "-c", str(settings), "-n", model])
    assert image in capsys.readouterr().out


def test_a_panel_has_a_scale_bar_of_the_right_length(tmp_path):
    """10 of 30 arcsec are a third of the picture; none without a pixel scale."""

    def most_white(scale):
        panel = Panel(np.zeros((1, 60, 60), np.float32), ("a",), arcsec_per_pixel=scale)
        draw_panels(tmp_path / "p.png", [panel])
        with Image.open(tmp_path / "p.png") as picture:
            drawn = np.asarray(picture.convert("L"))
        rows = drawn[(drawn < 20).mean(axis=1) > 0.5]  # of the black picture
        return (rows > 200).sum(axis=1).max(), (rows[0] < 20).sum()

    bar, width = most_white(0.5)
    margin, _ = most_white(None)
    assert bar - margin == pytest.approx(width / 3, abs=3)


def test_neighbours_are_those_of_the_analysis(folder):
    """After the image itself come the neighbours in the table."""
    files = finished_run(folder / "results")
    analysis = read_analysis(files.analysis)
    rows = find(files, [str(folder / "fits" / "sky_000012.fits")], 6)
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
    rows = find(files, [str(tmp_path / "rotated.fits")], 3)
    assert rows[0]["path"] == str(original)
    simulate(tmp_path / "new", 14, seed=77)
    with open(tmp_path / "new" / "filelist.csv", newline="") as file:
        new = list(csv.DictReader(file))
    same = []
    for row in new:
        image = str(tmp_path / "new" / row["path"])
        for other in find(files, [image], 3):
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
        rows = find(files, [image], 2, datafile=datafile)
        assert rows[0]["path"] == image
        assert float(rows[0]["distance"]) < 1e-3
    with pytest.raises(AstromorphError, match="it has 2 channels"):
        find(files, [image, image], 2, files_per_image=2)


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
    rows = find(files, paths, 3, tmp_path / "strip.png", files_per_image=len(paths))
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
        find(files, [str(tmp_path / "none.fits")], 2)
    with pytest.raises(AstromorphError, match="no analysed image of the run has this"):
        find(files, ["55eb165ff2768dc"], 2)  # an id without its last character
    image = str(folder / "fits" / "sky_000001.fits")
    with pytest.raises(AstromorphError, match="it has 2 channels"):
        find(files, [image, image], 2, files_per_image=2)
    shutil.copytree(folder / "results", tmp_path / "results")
    training = train_step_settings(parse({"network_name": "amm", "seed": 9}, "test"))
    state = seeded_byol(training, 1).state_dict()
    model = ModelFile(state, training.to_dict(), 1, "{}", "0")
    save_model(tmp_path / "other.pt", model)
    other = finished_run(tmp_path / "results", str(tmp_path / "other.pt"))
    with pytest.raises(AstromorphError, match="are not from this model"):
        find(other, [image], 2)
    (tmp_path / "results" / "analysis.json").write_text(json.dumps({}))
    with pytest.raises(AstromorphError, match="run `analyse` first"):
        find(finished_run(tmp_path / "results"), [image], 2)


def test_long_names_are_shortened_in_the_middle():
    """Files in one folder mostly differ in the ends of their names."""
    assert shorten("a.fits") == "a.fits"
    assert shorten("x" * 40 + "_0017.fits").endswith("xx_0017.fits")
    assert len(shorten("x" * 99)) == 24
    assert shorten("a\nb") == "a?b"


def labels_of(rows):
    return [row["label"] for row in rows]


def images_of_kind(folder, kind):
    """Paths of the simulated images of a kind, in order."""
    with open(folder / "fits" / "filelist.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    return [str(folder / "fits" / r["path"]) for r in rows if r["label"] == kind]


def test_several_images_are_searched_for_by_their_mean(folder, tmp_path):
    """The distances are those from the mean; given images are not results."""
    files = finished_run(folder / "results")
    given = images_of_kind(folder, "ring")[:3]
    rows = find(files, given, 60, tmp_path / "strip.png")
    assert not {row["path"] for row in rows} & set(given)
    images = read_embedded_images(files)
    rules = read_analysis_settings(files.analysis_summary)
    space = fit_space(images.vectors, rules.whiten, rules.components)
    points = space.project(images.vectors)
    mean = points[[images.paths.index(path) for path in given]].mean(axis=0)
    mean /= np.linalg.norm(mean)
    for row in rows[::7]:
        k = images.image_ids.index(row["image_id"])
        distance = np.linalg.norm(points[k] - mean)
        assert float(row["distance"]) == pytest.approx(distance, abs=1e-3)
    with Image.open(tmp_path / "strip.png") as strip:
        assert strip.height > strip.width  # three given and 60 found, in rows of seven


def test_results_are_unlike_the_images_that_are_given_so(folder):
    """Images of the kind of `unlike` get later ranks the larger the weight is."""
    files = finished_run(folder / "results")
    like, unlike = (images_of_kind(folder, kind)[:3] for kind in ("disk", "spiral"))
    ranks = []
    for weight in (0.0, 0.3, 0.6):
        rows = find(files, like, 64, unlike=unlike, weight=weight)
        others = [k for k, label in enumerate(labels_of(rows)) if label == "spiral"]
        ranks.append(np.mean(others))
    assert ranks[0] < ranks[1] < ranks[2]
    without = find(files, like, 64 + 3)
    at_zero = [
        row["image_id"] for row in find(files, like, 64, unlike=unlike, weight=0)
    ]
    unlike_ids = {row["image_id"] for row in without if row["path"] in unlike}
    assert at_zero == [
        row["image_id"] for row in without if row["image_id"] not in unlike_ids
    ]
    with pytest.raises(AstromorphError, match="cancel each other"):
        find(files, like, 5, unlike=like, weight=1)


def test_images_are_given_by_id_or_by_the_path_of_a_file_that_is_gone(folder, tmp_path):
    """Both have the embedding of the run; an unknown id is reported as one."""
    shutil.copytree(folder / "results", tmp_path / "results")
    files = finished_run(tmp_path / "results")
    image = str(folder / "fits" / "sky_000021.fits")
    by_file = find(files, [image], 5)
    assert find(files, [by_file[0]["image_id"]], 5) == by_file
    gone = image.replace("sky_000021", "gone")
    text = files.catalogue.read_text().replace("sky_000021.fits", "gone.fits")
    files.catalogue.write_text(text)
    assert labels_of(find(files, [gone], 5)) == labels_of(by_file)
    with pytest.raises(AstromorphError, match="no analysed image of the run has"):
        find(files, ["0123456789abcdef"], 5)


def test_a_name_that_is_not_utf_8_is_found_in_the_run(tmp_path, caplog):
    """It is recognised as a listed image although the catalogue escapes its bytes."""
    name = b"caf\xe9.fits".decode("utf-8", "surrogateescape")

    def write_odd_name(folder, number, seed):
        listed = simulate(folder, number, seed=seed)
        (folder / "sky_000009.fits").rename(folder / name)
        names = sorted(os.fsencode(path.name) for path in folder.glob("*.fits"))
        listed.with_suffix(".txt").write_bytes(b"\n".join(names))
        return listed.with_suffix(".txt")

    caplog.set_level("INFO")
    folder = finish_run(tmp_path, {}, write_images=write_odd_name)
    files = finished_run(folder / "results")
    table = tmp_path / "table.csv"
    rows = similar(files, Examples([str(folder / "fits" / name)]), 2, None, table)
    assert rows[0]["path"].endswith(r"caf\xe9.fits")
    assert "is in the file list" in caplog.text
    assert r"caf\xe9.fits" in table.read_text(encoding="utf-8")
    others = [str(folder / "fits" / f"sky_00000{k}.fits") for k in (1, 2)]
    several = find(files, [str(folder / "fits" / name), *others], 69)
    assert len(several) == 67  # none of the three is a result


def test_a_list_of_images_is_searched_for(folder, tmp_path, capsys):
    """A row for each query and result; a rejected file has a row with the reason."""
    simulate(tmp_path / "new", 5, seed=78)
    (tmp_path / "new" / "bad.fits").write_bytes(b"no image")
    names = [f"sky_00000{k}.fits" for k in range(5)]
    names.insert(2, "bad.fits")
    (tmp_path / "new" / "list.txt").write_text("\n".join(names))
    files = finished_run(folder / "results")
    rows = list(similar_to_list(files, tmp_path / "new" / "list.txt", 3))
    assert [row["query"] for row in rows] == list("000111" + "2" + "333444555")
    assert rows[6]["status"] == "rejected"
    assert "not a FITS file" in rows[6]["reason"]
    assert rows[6]["rank"] == rows[6]["image_id"] == ""
    for query in (0, 5):
        path = str(tmp_path / "new" / names[query])
        alone = find(files, [path], 3)
        some = [row for row in rows if row["query_path"] == path]
        assert [row["image_id"] for row in some] == [row["image_id"] for row in alone]
        np.testing.assert_allclose(
            [float(row["distance"]) for row in some],
            [float(row["distance"]) for row in alone],
            atol=2e-4,
        )
    table = tmp_path / "table.csv"
    options = ["--list", str(tmp_path / "new" / "list.txt"), "--top", "3"]
    options += ["--results", str(folder / "results")]
    cli.main(["similar", *options, "--table", str(table)])
    assert capsys.readouterr().out == ""
    with open(table, newline="") as file:
        assert list(csv.DictReader(file)) == rows
    cli.main(["similar", *options])
    assert len(capsys.readouterr().out.splitlines()) == 1 + len(rows)
