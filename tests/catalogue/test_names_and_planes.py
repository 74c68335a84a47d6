"""Names of objects in the list, planes of one field, and warnings about positions."""

import csv
import os
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from astromorph.artefacts.run_files import RunFiles
from astromorph.catalogue.split import split
from astromorph.catalogue.validate import validate
from astromorph.filelist.entries import read_filelist
from astromorph.filelist.shards import Shard
from astromorph.preprocessing.preprocess import preprocess
from astromorph.settings.loading import parse

WCS = {"CTYPE1": "RA---SIN", "CTYPE2": "DEC--SIN", "CRPIX1": 16.5, "CRPIX2": 16.5,
       "CRVAL1": 150.0, "CRVAL2": 2.0, "CDELT1": -3e-4, "CDELT2": 3e-4}  # fmt: skip


@pytest.fixture
def catalogues(tmp_path):
    """A function that writes files and a list, and returns catalogue and split."""

    def run(headers, listed=None, **more):
        rng = np.random.default_rng(0)
        for name, cards in headers.items():
            pixels = rng.normal(10, 1, (1, 32, 32)).astype(np.float32)
            fits.PrimaryHDU(pixels, fits.Header(cards)).writeto(tmp_path / name)
        text = listed or "".join(f"{name}\n" for name in headers)
        (tmp_path / "list.csv").write_bytes(os.fsencode(text))
        section = {"preprocess_settings": {"size": 16, "shard_size": 100}} | more
        settings = parse(section, "test")
        files = RunFiles.of_run(tmp_path / "run", shards=1)
        data, preparing = settings.data_settings, settings.preprocess_settings
        rules, datafile = settings.validate_settings, tmp_path / "list.csv"
        validate(datafile, files, data, rules, preparing)
        shard = Shard("00000", 0, len(list(read_filelist(datafile))))
        preprocess(datafile, shard, files, data, preparing)
        split(datafile, files, settings.split_settings, rules, seed=0)
        return [
            list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))
            for path in (files.catalogue, files.split)
        ]

    return run


def different(pairs):
    """Headers of images of one position, which differ in some cards."""
    return {f"{k}.fits": WCS | cards for k, cards in enumerate(pairs)}


STOKES = {"CTYPE3": "STOKES", "CRPIX3": 1.0, "CDELT3": 1.0, "RESTFRQ": 1.4e9}
VELOCITY = {"CTYPE3": "VRAD", "CRPIX3": 1.0, "CDELT3": 1e3, "RESTFRQ": 1.4e9}


@pytest.mark.parametrize(
    ("cards", "duplicates"),
    [
        ([STOKES | {"CRVAL3": k} for k in (1.0, 2.0, 3.0, 4.0)], 0),
        ([VELOCITY | {"CRVAL3": k} for k in (1e4, 2e4, 3e4)], 0),
        ([{"FILTER": "R", "DATE-OBS": f"2020-01-0{k}"} for k in (1, 2)], 0),
        ([{"HIERARCH ESO INS FILT1 NAME": k} for k in "JHK"], 0),
        ([{"FILTER": k} for k in ("R", "V")], 0),
        ([{}, {}, {}], 0),
        ([{"FILTER": "R"}, {}], 0),
        ([STOKES | {"CRVAL3": 1.0}] * 3, 2),
        ([{"HIERARCH ESO INS FILT1 NAME": "J"}] * 2, 1),
        ([{"FILTER": "R", "DATE-OBS": "2020-01-01"},
          {"FILTER": "R", "DATE-OBS": "2020-01-01T00:00:00.0"}], 1),
    ],
)  # fmt: skip
def test_only_images_of_one_band_and_plane_are_duplicates(
    catalogues, cards, duplicates
):
    """With a known band, and the same Stokes parameter, velocity and time."""
    for table in catalogues(different(cards)):
        found = [row["reason"] for row in table if row["reason"]]
        assert len(found) == duplicates
        assert all("the same position and band" in reason for reason in found)


def test_the_column_object_takes_precedence_over_the_header(catalogues):
    """In the catalogue and for the groups; an empty cell is that of the header."""
    headers = {f"{k}.fits": {"OBJECT": f"FIELD {k}"} for k in range(5)}
    listed = "path,object,label\n0.fits,M 31,x\n1.fits,M  31,y\n2.fits,,z\n"
    catalogue, subsets = catalogues(headers, listed + "3.fits,FIELD 2,x\n4.fits,,\n")
    names = [row["object"] for row in catalogue]
    assert names == ["M 31", "M 31", "FIELD 2", "FIELD 2", "FIELD 4"]
    assert list(catalogue[0]).count("object") == 1
    assert "listed_object" not in catalogue[0]
    assert catalogue[1]["label"] == "y"
    groups = [row["group"] for row in subsets]
    assert groups == ["object M 31"] * 2 + ["object FIELD 2"] * 2 + ["object FIELD 4"]


def test_a_rejected_file_keeps_its_listed_object(catalogues):
    headers = {f"{k}.fits": {} for k in range(4)}
    listed = "path,object\n0.fits,a\n1.fits,b\n2.fits,c\nmissing.fits,M 33\n"
    catalogue, _ = catalogues(headers, listed)
    assert (catalogue[3]["status"], catalogue[3]["object"]) == ("rejected", "M 33")


def test_world_coordinates_without_a_position_cause_a_warning(catalogues):
    """The image is used; a duplicate with a warning is counted once."""
    bad = WCS | {"CUNIT1": "furlong", "RA": 150.0, "DEC": 2.0, "FILTER": "R"}
    headers = {"a.fits": bad, "b.fits": bad, "c.fits": WCS, "d.fits": {}}
    for table in catalogues(headers):
        assert [row["status"] for row in table] == ["warning"] * 2 + ["ok"] * 2
        assert "give no position: " in table[0]["reason"]
        assert "furlong" in table[0]["reason"]
        assert table[1]["reason"].startswith(table[0]["reason"] + "; duplicate: ")


def test_a_name_that_is_not_utf8_is_escaped_in_all_tables(catalogues):
    """The file is read; a missing one is rejected with a reason."""
    name = "caf\udce9.fits"
    catalogue, subsets = catalogues(
        {"a.fits": {"OBJECT": "x"}, name: {"OBJECT": "y"}},
        f"a.fits\n{name}\ngone\udcff.fits\n",
        validate_settings={"max_bad_fraction": 0.5},
    )
    assert [row["status"] for row in catalogue] == ["ok", "ok", "rejected"]
    assert catalogue[1]["object"] == "y"
    for table in (catalogue, subsets):
        assert Path(table[1]["path"]).name == r"caf\xe9.fits"
    assert "its name in the list is not UTF-8" in catalogue[2]["reason"]
