"""The command `similar --at`: images by position."""

import csv

import numpy as np
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord
from finished_run import catalogue_rows, write_run

from astromorph.analysis.positions import images_at, separation_arcsec
from astromorph.cli import main as cli
from astromorph.errors import AstromorphError
from astromorph.fits.celestial import parse_position

# Around the pole, around RA 0, one alone, one without a position.
RA = ["0.001", "180", "359.9999", "0.0001", "83.822", ""]
DEC = ["89.9999", "89.9999", "10", "10", "-5.391", ""]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    rows = catalogue_rows(6, ra_deg=RA, dec_deg=DEC, label=list("abcdef"))
    files = write_run(tmp_path_factory.mktemp("at") / "results", rows)
    files.analysis_summary.write_text("{}")
    return files


def test_separations_are_those_of_astropy():
    """For random directions, the same one, opposite ones, and nearly equal ones."""
    draw = np.random.default_rng(1)
    ra, dec = draw.uniform(0, 360, 50), np.degrees(np.arcsin(draw.uniform(-1, 1, 50)))
    ra[:3], dec[:3] = [120.0, 300.0, 120.0 + 1e-7], [30.0, -30.0, 30.0]
    found = separation_arcsec(120.0, 30.0, ra, dec)
    here = SkyCoord(120.0, 30.0, unit="deg")
    expected = here.separation(SkyCoord(ra, dec, unit="deg")).to_value(u.arcsec)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)
    assert found[0] == 0
    assert found[1] == pytest.approx(180 * 3600)


def test_images_are_found_across_the_pole_and_across_ra_0(files, caplog):
    """The nearest first, with separations; images without a position are counted."""
    caplog.set_level("INFO")
    rows = images_at(files, 0.0, 90.0, radius_arcsec=1)
    assert [row["label"] for row in rows] == ["a", "b"]
    assert rows[0]["separation_arcsec"] == "0.360"
    assert "1 of 6 images have no position" in caplog.text
    rows = images_at(files, 359.99995, 10.0, radius_arcsec=1)
    assert [row["label"] for row in rows] == ["c", "d"]
    assert [row["rank"] for row in rows] == ["1", "2"]
    expected = 0.00005 * 3600 * np.cos(np.radians(10))
    assert float(rows[0]["separation_arcsec"]) == pytest.approx(expected, abs=6e-4)
    assert len(images_at(files, 1, 1)) == 5
    assert len(images_at(files, 1, 1, count=2)) == 2


def test_no_image_within_the_radius(files, tmp_path, caplog):
    """The nearest is logged, and the table has only a header."""
    caplog.set_level("INFO")
    table = tmp_path / "t.csv"
    assert images_at(files, 83.822, -5.4, radius_arcsec=1, table=table) == []
    assert "the nearest is fits/004.fits at 32.4 arcsec" in caplog.text
    with open(table, newline="") as file:
        header, *rows = csv.reader(file)
    assert header[:3] == ["rank", "separation_arcsec", "image_id"]
    assert rows == []


def test_a_run_without_positions(tmp_path):
    files = write_run(tmp_path / "results", catalogue_rows(3))
    with pytest.raises(AstromorphError, match="none of the 3 images has a position"):
        images_at(files, 0, 0)


@pytest.mark.parametrize(
    ("ra", "dec", "degrees"),
    [
        ("83.822", "-5.391", (83.822, -5.391)),
        ("05:35:17.28", "-05:23:27.6", (83.822, -5.391)),
        ("5h35m17.28s", "-5d23m27.6s", (83.822, -5.391)),
        ("5 35 17.28", "-5 23 27.6", (83.822, -5.391)),
        ("83d49m19.2s", "-5.391", (83.822, -5.391)),
        ("00:00:00", "-00:30:00", (0, -0.5)),
        ("360", "90", (0, 90)),
        ("-0.5", "0", (359.5, 0)),
        ("-1e-20", "0", (0, 0)),
    ],
)
def test_positions_in_degrees_and_sexagesimal(ra, dec, degrees):
    assert parse_position(ra, dec) == pytest.approx(degrees, abs=1e-9)


@pytest.mark.parametrize(
    ("ra", "dec", "message"),
    [
        ("M31", "0", "found the right ascension 'M31'; allowed are degrees"),
        ("1", "nan", "found the declination 'nan'"),
        ("25:00:00", "1", "found the right ascension .25:00:00."),
        ("400", "1", "found the right ascension 400; allowed are 0 to 360"),
        ("1", "90:00:01", "found the declination 90:00:01; allowed are -90 to 90"),
        ("5h75m", "1", "found the right ascension '5h75m'"),
        ("", "", "found the right ascension ''"),
    ],
)
def test_impossible_positions(ra, dec, message):
    with pytest.raises(ValueError, match=message):
        parse_position(ra, dec)


def test_the_command_takes_a_negative_sexagesimal_declination(files, capsys):
    """It is a value, although it begins like an option; other options need `--to`."""
    results = str(files.results)
    options = ["similar", "--results", results, "--at", "05:35:17.28", "-05:23:27.6"]
    cli.main([*options, "--radius", "2"])
    header, row = capsys.readouterr().out.splitlines()
    assert header.split()[:2] == ["rank", "separation_arcsec"]
    assert row.split()[:2] == ["1", "0.000"]
    for more in (["--unlike", "a.fits"], ["--output", "a.png"]):
        with pytest.raises(SystemExit):
            cli.main([*options, *more])
    with pytest.raises(SystemExit):
        cli.main(["similar", "--results", results, "--to", "a.fits", "--radius", "0"])
