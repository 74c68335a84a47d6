"""`astromorph init`: a folder for a run, with settings that suit the images."""

import csv
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from astromorph.cli import init
from astromorph.cli.init import init_run
from astromorph.errors import AstromorphError, WriteError
from astromorph.filelist.entries import read_filelist
from astromorph.settings.loading import load, parse
from astromorph.sky.simulate import simulate

ROOT = Path(__file__).parents[2]
WRITTEN = {
    "Snakefile",
    "filelist.csv",
    "config/config.yaml",
    "config/README.md",
    "config/settings.schema.json",
    "profiles/default/config.yaml",
}


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch):
    """The same files on machines with and without SLURM."""
    monkeypatch.setattr(init.shutil, "which", lambda name: None)


def write_image(path: Path, shape=(20, 20), ctype3: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    header = fits.Header()
    if ctype3:
        header["CTYPE1"], header["CTYPE2"], header["CTYPE3"] = "RA", "DEC", ctype3
        header["CRVAL3"], header["CRPIX3"], header["CDELT3"] = 1.0, 1.0, 1.0
    fits.PrimaryHDU(np.ones(shape, np.float32), header).writeto(path)
    return path


def files_below(folder: Path) -> set[str]:
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}


def settings_of(folder: Path):
    return parse(load(folder / "config/config.yaml"), "config.yaml")


def test_the_list_and_the_settings_can_be_read(tmp_path):
    """All columns of the table beside the images are in the list, row by row."""
    source = simulate(tmp_path / "fits", 6, seed=1)
    run = tmp_path / "run"
    lines = init_run(run, [tmp_path / "fits"])
    assert files_below(run) == WRITTEN
    expected = {Path(e.path).name: e.columns["label"] for e in read_filelist(source)}
    entries = list(read_filelist(run / "filelist.csv"))
    assert {Path(e.path).name: e.columns["label"] for e in entries} == expected
    assert all(Path(entry.path).is_file() for entry in entries)
    settings = settings_of(run)
    assert settings == parse({"datafile": "filelist.csv"}, "defaults")
    text = "\n".join(lines)
    assert "Found 6 FITS files." in text
    assert "Read all headers: images of 76 to 106 (median 88) pixels a side." in lines
    assert "`label` for 6 of 6 files" in text
    assert "6 images are too few to learn from" in text


def test_all_endings_are_found_and_results_are_not(tmp_path):
    """Compressed files are found; hidden files and results of earlier runs are not."""
    names = [f"a.fits.{ending}" for ending in ("gz", "bz2", "Z", "xz", "zip", "fz")]
    names += ["a.fits", "b.FIT", "c.fts", "d.fz", "e.fit.bz2", "deep/er/f.fits"]
    others = [".a.fits", ".hidden/a.fits", "a.fits.tmp", "a.png", "results/t.fits"]
    for name in (*names, *others):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    found = init.find_files([tmp_path], tmp_path / "results")
    assert {os.path.relpath(path, tmp_path) for path in found} == set(names)


def test_paths_in_the_folder_of_the_run_are_relative(tmp_path):
    """It can be moved with its images; a name that begins with # is not a comment."""
    for name in ("#1.fits", "a, b.fits"):
        write_image(tmp_path / "run" / name)
    init_run(tmp_path / "run", [tmp_path / "run"])
    moved = (tmp_path / "run").rename(tmp_path / "moved")
    paths = [Path(entry.path) for entry in read_filelist(moved / "filelist.csv")]
    assert {path.name for path in paths} == {"#1.fits", "a, b.fits"}
    assert all(path.is_file() for path in paths)


def test_labels_are_matched_by_name_without_ending(tmp_path):
    """Rows for other files are ignored; files without a row have empty cells."""
    for name in ("a.fits.gz", "b.fits.gz"):
        (tmp_path / "fits").mkdir(exist_ok=True)
        write_image(tmp_path / "fits" / name)
    (tmp_path / "fits/labels.csv").write_text("filename;kind\nb;disc\nmissing;ring\n")
    lines = init_run(tmp_path / "run", [tmp_path / "fits"])
    entries = list(read_filelist(tmp_path / "run/filelist.csv"))
    assert [entry.columns for entry in entries] == [{"kind": ""}, {"kind": "disc"}]
    assert any("`kind` for 1 of 2 files" in line for line in lines)
    assert "#   label: COLUMN" in (tmp_path / "run/config/config.yaml").read_text()


@pytest.mark.parametrize(
    "table", ["name,kind\na.fits,disc\n", "path,split\na.fits,validation\n", '"']
)
def test_a_table_that_cannot_be_used_is_explained(tmp_path, table):
    """The list is written without it."""
    write_image(tmp_path / "fits/a.fits")
    (tmp_path / "fits/labels.csv").write_text(table)
    lines = init_run(tmp_path / "run", [tmp_path / "fits"])
    assert [line for line in lines if line.startswith("Not used: ")]
    assert (tmp_path / "run/filelist.csv").read_text().startswith("path\n")


@pytest.mark.parametrize(
    ("shapes", "ctype3", "planes", "words"),
    [
        ([(20, 20)], "", None, None),
        ([(1, 1, 20, 20)], "", None, None),
        ([(3, 20, 20)], "", "channels", "cubes of 3 planes"),
        ([(20, 20, 3)], "", "channels", "3 colours on the last axis"),
        ([(37, 20, 20)], "FREQ", "mean", "cubes of 37 planes"),
        ([(37, 20, 20), (40, 20, 20)], "", "mean", "cubes of 37 to 40 planes"),
        ([(4, 20, 20)], "STOKES", 0, "Stokes parameters"),
        ([(20, 20), (3, 20, 20)], "", 0, "1 of 2 images are cubes of 3 planes"),
    ],
)
def test_planes_are_chosen_and_the_comment_says_why(
    tmp_path, shapes, ctype3, planes, words
):
    """With the written setting, each image can be read."""
    for k, shape in enumerate(shapes):
        write_image(tmp_path / f"fits/{k}.fits", shape, ctype3)
    lines = init_run(tmp_path / "run", [tmp_path / "fits"])
    assert settings_of(tmp_path / "run").data_settings.planes == planes
    text = (tmp_path / "run/config/config.yaml").read_text()
    if words:
        assert words in text
        assert any(words in line for line in lines)
    else:
        assert "planes" not in text
    rules = settings_of(tmp_path / "run").data_settings
    for entry in read_filelist(tmp_path / "run/filelist.csv"):
        init.describe_image(entry.paths, rules)


@pytest.mark.parametrize(
    ("side", "advice"), [(20, "32 is enough"), (64, ""), (150, "128 keeps finer")]
)
def test_the_comment_on_size_depends_on_the_images(tmp_path, side, advice):
    """Small and large images get a hint, others none."""
    write_image(tmp_path / "fits/a.fits", (side, side))
    init_run(tmp_path / "run", [tmp_path / "fits"])
    text = (tmp_path / "run/config/config.yaml").read_text()
    assert f"Yours have {side} pixels." in text
    assert [a for a in ("32 is enough", "128 keeps finer") if a in text] == (
        [advice] if advice else []
    )


def check_refused(tmp_path: Path, images: Path, words: str, **options: bool) -> None:
    """The error has these words, and nothing was written."""
    with pytest.raises(AstromorphError, match=words):
        init_run(tmp_path / "new" / "run", [images], **options)
    assert not (tmp_path / "new").exists()


def test_a_folder_without_fits_files_is_refused(tmp_path):
    """The message names what was looked for and what was found instead."""
    (tmp_path / "fits").mkdir()
    check_refused(tmp_path, tmp_path / "fits", "no FITS files .*found no files at all")
    (tmp_path / "fits/a.png").touch()
    check_refused(
        tmp_path, tmp_path / "fits", r"found 1 other file, such as .*a\.png.*convert"
    )
    check_refused(tmp_path, tmp_path / "absent", "absent: there is no such folder")


def test_a_single_image_gets_a_warning(tmp_path):
    """Most likely one file was given in place of its folder."""
    source = simulate(tmp_path / "fits", 2, seed=1)
    path = next(iter(read_filelist(source))).path
    lines = init_run(tmp_path / "run", [path])
    assert "Found 1 FITS file." in lines
    (warning,) = (line for line in lines if line.startswith("Warning"))
    assert "it needs at least 2, and 200 or more" in warning


def test_files_that_are_not_images_are_refused(tmp_path):
    """The reasons are those of the validation."""
    write_image(tmp_path / "fits/a.fits")
    for name in ("b.fits", "c.fits"):
        (tmp_path / "fits" / name).write_text("text")
    (tmp_path / "fits/0.fits").write_text("")
    check_refused(tmp_path, tmp_path / "fits", "(?s)3 of 4 FITS .*not a FITS file")
    for name in ("d.fits", "e.fits"):
        write_image(tmp_path / "fits" / name)
    lines = init_run(tmp_path / "run", [tmp_path / "fits"])
    (bad,) = [line for line in lines if line.startswith("3 of them cannot be used")]
    assert "b.fits: this is not a FITS file" in bad  # the most frequent reason


def test_mosaics_are_refused_unless_asked_for(tmp_path):
    """One image per object is needed; only the header of the file is read."""
    write_image(tmp_path / "fits/a.fits", (1, 5000))
    check_refused(tmp_path, tmp_path / "fits", "one image per object")
    lines = init_run(tmp_path / "run", [tmp_path / "fits"], large_images=True)
    assert any("1 of 1 images have more than 4096 pixels" in line for line in lines)


def test_existing_files_are_only_overwritten_with_force(tmp_path):
    """The message names them; files that would not change do not matter."""
    write_image(tmp_path / "fits/a.fits")
    run = tmp_path / "run"
    init_run(run, [tmp_path / "fits"])
    init_run(run, [tmp_path / "fits"])
    (run / "config/config.yaml").write_text("mine: 1\n")
    (run / "Snakefile").unlink()
    with pytest.raises(AstromorphError, match=r"config/config\.yaml exists already"):
        init_run(run, [tmp_path / "fits"])
    assert not (run / "Snakefile").exists()
    assert (run / "config/config.yaml").read_text() == "mine: 1\n"
    init_run(run, [tmp_path / "fits"], force=True)
    assert files_below(run) == WRITTEN
    assert "mine" not in (run / "config/config.yaml").read_text()


def test_nothing_remains_if_a_file_cannot_be_written(tmp_path):
    """Neither files nor folders that were made for them."""
    write_image(tmp_path / "fits/a.fits")
    run = tmp_path / "run"
    run.mkdir()
    (run / "profiles").touch()  # a file where a folder is needed
    with pytest.raises(WriteError, match="profiles"):
        init_run(run, [tmp_path / "fits"], force=True)
    assert files_below(run) == {"profiles"}
    assert [path.name for path in run.iterdir()] == ["profiles"]


def test_many_files_are_sampled(tmp_path, monkeypatch):
    """All are listed, but only some headers are read."""
    monkeypatch.setattr(init, "MAX_SAMPLED", 3)
    for k in range(8):
        write_image(tmp_path / f"fits/{k}.fits")
    lines = init_run(tmp_path / "run", [tmp_path / "fits"])
    assert "Found 8 FITS files." in lines
    assert any("the headers of 3 of them" in line for line in lines)
    with open(tmp_path / "run/filelist.csv", newline="") as file:
        assert len(list(csv.DictReader(file))) == 8


@pytest.mark.slow
def test_the_wheel_runs_in_an_empty_folder(tmp_path):
    """Without a clone: `astromorph init`, then Snakemake with its written files."""
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in ("astromorph", "workflow", "config", "profiles", "envs", "slurm"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, copy / name, symlinks=True, ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    options = ["--quiet", "--no-deps", "--no-index"]
    site = tmp_path / "site"
    build = [*pip, "wheel", *options, "--no-build-isolation", "-w", tmp_path, copy]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    install = [*pip, "install", *options, "--target", site, wheel]
    subprocess.run(install, check=True, capture_output=True)
    shutil.rmtree(copy)

    environment = os.environ | {"PYTHONPATH": str(site)}
    simulate(tmp_path / "fits", 4, seed=1)

    def run(folder: Path, *command: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", *command],
            cwd=folder, capture_output=True, text=True, env=environment,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    run(tmp_path, "astromorph", "init", "run", "--images", "fits")
    run_folder = tmp_path / "run"
    assert files_below(run_folder) >= WRITTEN
    output = run(run_folder, "snakemake", "-n")
    assert "export_map" in output
    assert "profiles/default" in output
    output = run(run_folder, "snakemake", "--cores", "1", "results/validation.html")
    assert (run_folder / "results/catalogue.csv").is_file()
    assert "4 files: 4 ok" in output
    program = "import astromorph; print(astromorph.__file__)"
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=run_folder, capture_output=True, text=True, env=environment, check=True,
    )  # fmt: skip
    assert done.stdout.startswith(str(site))
