"""The simulated sky, and atomic writing of files and folders."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from astromorph.atomic import atomic_folder, atomic_write
from astromorph.errors import AstromorphError
from astromorph.sky import draw as sky
from astromorph.sky.canvas import Canvas, power_law_field
from astromorph.sky.morphologies import KINDS, MORPHOLOGIES, SAMPLE_MORPHOLOGIES
from astromorph.sky.simulate import simulate
from astromorph.sky.training_set import (
    MEASURES,
    DrawingRules,
    draw_labelled_images,
    measure_shape,
)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", MORPHOLOGIES)
def test_drawings_are_random_and_reproducible(name):
    """Pixels are finite, and equal only for the same seed."""
    first, again, other = (
        sky.draw_morphology(name, (50, 70), np.random.default_rng(s)) for s in (1, 1, 2)
    )
    assert (first.morphology, first.kind) == (name, MORPHOLOGIES[name].kind)
    assert first.pixels.shape == (50, 70)
    assert np.isfinite(first.pixels).all()
    np.testing.assert_array_equal(first.pixels, again.pixels)
    assert not np.array_equal(first.pixels, other.pixels)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", MORPHOLOGIES)
@pytest.mark.parametrize("side", [30, 400])
def test_small_objects_in_a_wide_field_are_drawn(name, side):
    """Far from the object, no exponential overflows and no value is NaN."""
    y, x = np.mgrid[-side:side:32j, -side:side:32j]
    canvas = Canvas(x, y, pixel=side / 16)
    for seed in range(4):
        plane = MORPHOLOGIES[name].paint(canvas, np.random.default_rng(seed))
        assert np.isfinite(plane).all()


def test_objects_are_brighter_than_the_noise():
    """Except for the kind without an object."""
    for name in MORPHOLOGIES:
        drawn = [
            sky.draw_morphology(name, (64, 64), np.random.default_rng(s))
            for s in range(8)
        ]
        peaks = [drawing.source.max() for drawing in drawn]
        assert (max(peaks) == 0) == (name == "none"), name
        assert name == "none" or min(peaks) > 6, name
        assert name != "none" or max(d.pixels.max() for d in drawn) < 6


def test_sharp_morphologies_are_not_blurred_by_the_beam():
    """Cosmic rays arise in the detector; a point source has the size of the beam."""
    wide = sky.Telescope(beam=6.0, signal=100.0)
    sizes = {}
    for name in ("cosmic rays", "point"):
        drawn = [
            sky.draw_morphology(name, (64, 64), np.random.default_rng(s), wide).source
            for s in range(8)
        ]
        # Mean number of pixels above half of the peak, as if each had one object.
        sizes[name] = np.median([(plane > 50).sum() for plane in drawn])
    assert sizes["point"] > np.pi * 3**2  # a Gaussian of 6 pixels FWHM
    assert sizes["cosmic rays"] < sizes["point"] / 2


@pytest.mark.parametrize("exponent", [2.0, 4.0])
def test_power_law_fields_have_the_spectrum(exponent):
    """The slope of the power spectrum is the exponent; mean 0 and variance 1."""
    canvas = sky.random_canvas((128, 128), np.random.default_rng(0), inclined=False)
    fields = [
        power_law_field(canvas, np.random.default_rng(s), exponent) for s in range(8)
    ]
    assert np.mean(fields) == pytest.approx(0, abs=1e-9)
    assert np.var(fields[0]) == pytest.approx(1)
    power = np.mean([np.abs(np.fft.fft2(f))[1:30, 0] ** 2 for f in fields], axis=0)
    slope = np.polyfit(np.log(np.arange(1, 30)), np.log(power), 1)[0]
    assert slope == pytest.approx(-exponent, abs=0.3)


def test_drawing_has_the_properties_of_the_telescope():
    """These are the signal-to-noise ratio and the correlation of the noise."""
    rng = np.random.default_rng(2)
    for white in (True, False):
        drawing = sky.draw("disk", (80, 80), rng, sky.Telescope(4.0, 50.0, white))
        noise = drawing.pixels - drawing.source
        assert drawing.source.max() == pytest.approx(50)
        assert np.median(np.abs(noise)) == pytest.approx(0.6745, rel=0.3)
        correlation = np.corrcoef(noise[:, 1:].ravel(), noise[:, :-1].ravel())[0, 1]
        assert (correlation < 0.5) == white


def test_measures_distinguish_shapes():
    """Rotation and brightness do not change them."""
    y, x = np.indices((81, 81)) - 40.0

    def blob(x0, y0, major, minor=None):
        return np.exp(-(((x - x0) / major) ** 2 + ((y - y0) / (minor or major)) ** 2))

    def measures(plane):
        return dict(zip(MEASURES, measure_shape(plane), strict=True))

    disk, long = measures(blob(0, 0, 9)), measures(blob(0, 0, 16, 4))
    ring = measures(np.exp(-(((np.hypot(x, y) - 20) / 3) ** 2)))
    double = measures(blob(-20, 0, 4) + blob(20, 0, 4))
    lopsided = measures(blob(0, 0, 9) + blob(20, 10, 4))
    assert disk["axis_ratio"] == pytest.approx(1, abs=1e-3)
    assert long["axis_ratio"] == pytest.approx(0.25, abs=0.02)
    # A Gaussian: 80 % lies within 1.27 widths, 20 % within 0.47.
    assert disk["concentration"] == pytest.approx(np.log(1.269 / 0.472), abs=0.05)
    assert disk["asymmetry"] < 0.01 < 0.15 < lopsided["asymmetry"]
    assert disk["peak_distance"] < 0.05 < 0.85 < double["peak_distance"]
    assert ring["emptiness"] > 0.99 > disk["emptiness"]
    assert ring["concentration"] < disk["concentration"]
    assert double["multipole_2"] > 0.9 > 0.1 > disk["multipole_2"]
    assert double["m20"] > disk["m20"]
    rotated = measure_shape(np.rot90(0.1 * (blob(0, 0, 9) + blob(20, 10, 4))))
    np.testing.assert_allclose(list(lopsided.values()), rotated, atol=1e-6)
    assert np.isnan(measure_shape(np.zeros((9, 9)))).all()


def test_morphologies_of_a_kind_are_chosen_at_random():
    """All morphologies of the kind `jets` occur."""
    rng = np.random.default_rng(0)
    drawn = {sky.draw("jets", (40, 40), rng).morphology for _ in range(20)}
    assert drawn == {n for n, m in SAMPLE_MORPHOLOGIES.items() if m.kind == "jets"}
    assert len(drawn) == 2


def test_beam_is_a_convolution_with_a_gaussian():
    """A point becomes a Gaussian with the width of the beam and the same flux."""
    plane = np.zeros((41, 41))
    plane[20, 20] = 3.0
    smoothed = sky.convolve_beam(plane, 5.0)
    assert smoothed.sum() == pytest.approx(3.0, rel=1e-4)
    y, x = np.indices(plane.shape) - 20
    sigma = 5.0 / 2.3548200450309493
    profile = np.exp(-(x**2 + y**2) / (2 * sigma**2)) / (2 * np.pi * sigma**2)
    np.testing.assert_allclose(smoothed, 3 * profile, atol=1e-4)


def test_simulated_files_vary_and_have_complete_headers(tmp_path):
    """Sizes, shapes, borders and axes vary."""
    filelist = simulate(tmp_path, 70, seed=4)
    with open(filelist, newline="") as file:
        listed = list(csv.DictReader(file))
    assert {r["label"] for r in listed} == set(KINDS)
    shapes, nan, axes = [], 0, set()
    for row in listed:
        with fits.open(tmp_path / row["path"]) as hdus:
            header, data = hdus[0].header, hdus[0].data
        shapes.append(data.shape[-2:])
        nan += np.isnan(data).any()
        axes.add(data.shape[:-2])
        assert WCS(header).has_celestial
        assert header["OBJECT"].startswith("SKY ")
        assert header["BUNIT"] == "Jy/beam"
        assert header["RESTFRQ"] > 1e9
    assert axes == {(), (1, 1)}
    assert 5 < nan < 40
    assert 40 <= np.min(shapes) < 50 < 110 < np.max(shapes) <= 120
    assert 10 < sum(ny == nx for ny, nx in shapes) < 65


def test_image_depends_only_on_seed_and_number(tmp_path):
    """A longer sample begins with the images of a shorter one."""
    simulate(tmp_path / "a", 3, seed=4)
    simulate(tmp_path / "b", 9, seed=4)
    for name in ("sky_000000.fits", "sky_000002.fits"):
        first, second = (tmp_path / folder / name for folder in "ab")
        assert first.read_bytes() == second.read_bytes()


def test_number_below_one_is_an_error(tmp_path):
    """The error gives the allowed values."""
    with pytest.raises(AstromorphError, match="found 0; give 1 or more"):
        simulate(tmp_path, 0, 0)


def test_file_is_replaced_completely_or_not_at_all(tmp_path):
    """If writing fails, the old file remains, and no temporary file."""
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), atomic_write(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    with atomic_write(path) as temporary:
        temporary.write_text("new")
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_folder_is_replaced_completely_or_not_at_all(tmp_path):
    """Files of the old folder are removed."""
    path = tmp_path / "folder"
    path.mkdir()
    (path / "old.txt").write_text("old")
    with pytest.raises(RuntimeError), atomic_folder(path) as temporary:
        (temporary / "new.txt").write_text("half")
        raise RuntimeError
    assert [p.name for p in path.iterdir()] == ["old.txt"]
    with atomic_folder(path) as temporary:
        (temporary / "new.txt").write_text("new")
    assert [p.name for p in path.iterdir()] == ["new.txt"]
    assert list(tmp_path.iterdir()) == [path]


SCRIPT = """
from astromorph.sky.training_set import DrawingRules, draw_labelled_images
print("started")
parallel = draw_labelled_images(DrawingRules(3, 16), 1030, processes=2)
print(len(parallel), float(parallel.images.mean()))
"""


@pytest.mark.slow
@pytest.mark.parametrize("source", ["script", "standard input"])
def test_a_script_without_a_main_guard_draws_in_several_processes(tmp_path, source):
    """It runs once, not again in every process."""
    path = tmp_path / "draw.py"
    path.write_text(SCRIPT)
    command, text = [sys.executable, str(path)], None
    if source != "script":
        command, text = [sys.executable], SCRIPT
    done = subprocess.run(
        command, input=text, cwd=tmp_path, capture_output=True, text=True, timeout=120,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    serial = draw_labelled_images(DrawingRules(3, 16), 1030)
    expected = f"1030 {float(serial.images.mean())}"
    assert done.stdout.splitlines() == ["started", expected]
