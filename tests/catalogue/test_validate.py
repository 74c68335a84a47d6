"""What is said of each file before the run, and when the run stops."""

import csv
import os
import re
import shutil

import numpy as np
import pytest
from astropy.io import fits

from astromorph.catalogue import validate as validation
from astromorph.catalogue.summary import Histogram, Summary, reason_kind
from astromorph.catalogue.validate import validate
from astromorph.catalogue.validation_page import Sample
from astromorph.errors import AstromorphError
from astromorph.filelist import duplicates
from astromorph.filelist.duplicates import (
    SAME_CONTENT,
    SAME_POSITION,
    duplicate_finder,
    position_keys,
    separation_arcsec,
    sky_cells,
    text_key,
    unit_vector,
)
from astromorph.preprocessing.list_wide import find_reference
from astromorph.settings.loading import parse

RNG = np.random.default_rng(0)


def rows(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def write(path, seed=0, shape=(20, 20), **cards):
    pixels = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    fits.PrimaryHDU(pixels, fits.Header(cards)).writeto(path)


@pytest.fixture
def check(tmp_path):
    """Validate named files of `tmp_path`; the rows of the catalogue by name."""

    def run(names, columns="", **values):
        text = "\n".join(names) if not columns else f"{columns}\n" + "\n".join(names)
        (tmp_path / "list.csv").write_text(text)
        settings = parse({"preprocess_settings": {"size": 32}} | values, "test")
        outputs = (tmp_path / "catalogue.csv", tmp_path / "page.html")
        validate(settings, tmp_path / "list.csv", *outputs)
        return rows(outputs[0])

    return run


def test_the_catalogue_has_a_row_per_file(prepared, sky):
    """In the order of the list, with label and position."""
    catalogue = rows(prepared / "catalogue.csv")
    labels = [r["label"] for r in rows(sky)]
    assert [r["label"] for r in catalogue] == labels
    assert {r["status"] for r in catalogue} == {"ok"}
    assert all(0 <= float(r["ra_deg"]) < 360 for r in catalogue)
    assert {r["unit"] for r in catalogue} == {"Jy/beam"}
    assert {r["channels"] for r in catalogue} == {"1"}
    assert all(float(r["beam_major_arcsec"]) > 0 for r in catalogue)


def test_two_processes_write_the_same_catalogue(sky, settings, tmp_path, monkeypatch):
    """Whatever their number, rows come in the order of the list."""
    monkeypatch.setattr(validation, "SERIAL_BELOW", 0)
    monkeypatch.setattr(validation, "IN_FLIGHT", 3)
    monkeypatch.setattr(validation, "CHUNK", 3)
    texts = []
    for processes in (1, 2):
        path, page = tmp_path / f"{processes}.csv", tmp_path / "page.html"
        validate(settings, sky, path, page, processes)
        texts.append((path.read_text(), page.read_text()))
    assert texts[0] == texts[1]


def test_the_page_shows_the_images_and_escapes_text(sky, settings, tmp_path):
    """A path with markup is text, not a tag; pictures and histograms are in it."""
    path = tmp_path / "list.txt"
    good = [str(p) for p in sorted(sky.parent.glob("*.fits"))[:12]]
    path.write_text("\n".join([*good, "<script>alert(1)</script>.fits"]))
    validate(settings, path, tmp_path / "c.csv", tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert "there is no such file" in page
    assert page.count("data:image/png;base64,") == 12
    for name in ("Longer side", "Pixel scale", "Share of bad pixels", "over noise"):
        assert re.search(f"<figcaption>[^<]*{name}", page), name
    assert "http" not in page.replace("http-equiv", "")


def test_header_columns_join_the_catalogue(tmp_path, check):
    """Any keyword, also one that a column of the list is called like."""
    write(tmp_path / "a.fits", 1, FILTER="R", EXPTIME=30.5)
    write(tmp_path / "b.fits", 2)
    table = check(
        ["a.fits,1", "b.fits,2"], "path,FILTER",
        data_settings={"header_columns": ["FILTER", "EXPTIME"]},
    )  # fmt: skip
    assert [r["header_FILTER"] for r in table] == ["R", ""]
    assert [r["header_EXPTIME"] for r in table] == ["30.5", ""]
    assert [r["FILTER"] for r in table] == ["1", "2"]


PLACE = {
    "CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRPIX1": 10.5, "CRPIX2": 10.5,
    "CRVAL1": 0.00001, "CRVAL2": 40.0, "CDELT1": -0.001, "CDELT2": 0.001,
}  # fmt: skip


@pytest.fixture
def repeated(tmp_path):
    """Files of which some show what another shows; the names, and who repeats whom."""
    beam = {"BMAJ": 10 / 3600, "BMIN": 10 / 3600, "RESTFRQ": 1e9}
    write(tmp_path / "a.fits", 1)
    os.link(tmp_path / "a.fits", tmp_path / "hard.fits")
    (tmp_path / "soft.fits").symlink_to("a.fits")
    shutil.copy(tmp_path / "a.fits", tmp_path / "copy.fits")
    write(tmp_path / "near.fits", 2, **PLACE, **beam)
    write(tmp_path / "nearer.fits", 3, **(PLACE | {"CRVAL1": 359.9999}), **beam)
    write(tmp_path / "far.fits", 4, **(PLACE | {"CRVAL2": 40.005}), **beam)
    write(tmp_path / "other.fits", 5, **PLACE, **(beam | {"RESTFRQ": 2e9}))
    write(tmp_path / "z.fits", 6)
    names = ["a", "hard", "near", "copy", "nearer", "far", "soft", "other", "z"]
    expected = {
        "hard": "the same file as", "soft": "the same file as",
        "copy": "the same content as",
        "nearer": "the same position and band, within the beam, as",
    }  # fmt: skip
    return [f"{name}.fits" for name in names], expected


def test_duplicates_are_found_and_kept(check, repeated):
    """Links, copies, the same place in the same band; not the same place in another."""
    names, expected = repeated
    table = check(names)
    found = {
        os.path.basename(r["path"])[:-5]: r["reason"] for r in table if r["reason"]
    }
    assert set(found) == set(expected)
    for name, words in expected.items():
        assert found[name].startswith(f"duplicate: {words} ")
    assert found["copy"].endswith("a.fits")
    assert found["nearer"].endswith("near.fits")
    assert {r["status"] for r in table if r["reason"]} == {"warning"}


def test_duplicates_can_be_dropped(check, repeated, caplog):
    """The later ones are rejected, which is no reason to stop."""
    names, expected = repeated
    table = check(
        names, validate_settings={"on_duplicate": "drop", "max_bad_fraction": 0}
    )
    rejected = {os.path.basename(r["path"])[:-5] for r in table if r["reason"]}
    assert rejected == set(expected)
    assert {r["status"] for r in table if r["reason"]} == {"rejected"}


def test_files_with_the_same_pieces_are_compared_whole(tmp_path, check):
    """Equal size, header and samples do not make two files one."""
    for name, value in (("a", 1.0), ("b", 2.0)):
        pixels = np.zeros((200, 200), np.float32)
        pixels[37, 41] = value
        fits.PrimaryHDU(pixels).writeto(tmp_path / f"{name}.fits")
    keys = [validation._content_keys([str(tmp_path / f"{n}.fits")])[0] for n in "ab"]
    assert keys[0][1] == keys[1][1]
    assert [r["reason"] for r in check(["a.fits", "b.fits"])] == ["", ""]


@pytest.mark.parametrize("reach", [0.5, 30.0, 4000.0])
def test_rows_within_reach_always_share_a_cell(reach):
    """Everywhere on the sky, across the meridian of 0 hours and at the poles."""
    for _ in range(400):
        dec = float(np.degrees(np.arcsin(RNG.uniform(-1, 1))))
        dec = float(RNG.choice([dec, 90 - reach / 3600 * RNG.random(), -89.999]))
        ra = float(RNG.choice([RNG.uniform(0, 360), 0.0, 359.9999]))
        here = np.array(unit_vector(ra, dec))
        offset = RNG.normal(size=3)
        offset -= offset @ here * here
        offset *= np.radians(reach / 3600) * RNG.random() / np.linalg.norm(offset)
        x, y, z = (here + offset) / np.linalg.norm(here + offset)
        other = (
            float(np.degrees(np.arctan2(y, x)) % 360),
            float(np.degrees(np.arcsin(z))),
        )
        assert (
            separation_arcsec(unit_vector(ra, dec), unit_vector(*other))
            <= reach * 1.001
        )
        keys = [
            {k[1] for k in position_keys(*p, "", reach)} for p in ((ra, dec), other)
        ]
        assert keys[0] & keys[1]
        assert len(set(sky_cells(ra, dec, reach / 3600, 8 * reach / 3600))) < 40


def test_the_strongest_and_earliest_match_is_named():
    """A row that is the same content and the same place is the same content."""
    with duplicate_finder() as found:
        for row in range(4):
            keys = [text_key(SAME_CONTENT, "x" if row != 1 else "y")]
            found.add(row, keys + position_keys(10.0, 10.0, "", 5.0), [f"{row}.fits"])
        matches = list(found.matches())
    assert [(m.row, m.first, m.kind) for m in matches] == [
        (1, 0, SAME_POSITION), (2, 0, SAME_CONTENT), (3, 0, SAME_CONTENT),
    ]  # fmt: skip
    assert duplicates.match_radius(None, None) == 1.0


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"on_bad": "fail"}, "1 of 4 listed files cannot be used; .*on_bad` is fail"),
        ({"max_bad_fraction": 0.2}, "max_bad_fraction` allows 20%"),
    ],
)
def test_too_many_bad_files_stop_the_run(tmp_path, check, rules, message):
    """With the reason and an example; one bad file fewer and it goes on."""
    for k in range(3):
        write(tmp_path / f"{k}.fits", k)
    names = ["0.fits", "1.fits", "2.fits", "absent.fits"]
    with pytest.raises(AstromorphError, match=f"(?s){message}.*absent.fits"):
        check(names, validate_settings=rules)
    assert len(check(names)) == 4
    check(names[:3], validate_settings=rules)


def test_stopping_names_the_worst_reasons_with_three_examples(tmp_path, check):
    """Most frequent first."""
    write(tmp_path / "good.fits")
    for k in range(4):
        write(tmp_path / f"cube{k}.fits", k, (3, 4, 5))
    (tmp_path / "text.fits").write_text("hello")
    names = ["good.fits", "text.fits", *(f"cube{k}.fits" for k in range(4))]
    with pytest.raises(AstromorphError) as caught:
        check(names)
    lines = str(caught.value).splitlines()
    assert "5 of 6 listed files cannot be used" in lines[0]
    assert lines[1].startswith("  4 times: ")
    assert "cube of N planes" in lines[1]
    assert lines[1].count(".fits") == 3
    assert "1 times: this is not a FITS file" in lines[2]


def test_the_first_image_decides_the_number_of_channels(tmp_path, check):
    """Others are rejected by name of the setting; 2-D images are one channel."""
    write(tmp_path / "a.fits", 1, (3, 20, 20))
    write(tmp_path / "b.fits", 2, (3, 20, 20))
    write(tmp_path / "c.fits", 3, (4, 20, 20))
    write(tmp_path / "d.fits", 4)
    names = ["x.fits", "a.fits", "b.fits", "c.fits", "d.fits"]
    table = check(
        names, data_settings={"planes": "channels"},
        validate_settings={"max_bad_fraction": 0.9},
    )  # fmt: skip
    status = [r["status"] for r in table]
    assert status == ["rejected", "ok", "ok", "rejected", "rejected"]
    assert (
        "it has 4 channels where the first image of the list has 3"
        in (table[3]["reason"])
    )
    settings = parse({"data_settings": {"planes": "channels"}}, "test")
    (tmp_path / "none.txt").write_text("x.fits\n")
    with pytest.raises(AstromorphError, match="none of the first 256 files"):
        find_reference(settings, tmp_path / "none.txt")


def test_columns_of_paths_are_channels(tmp_path, check):
    """`path_g`, `path_r`: one row, one image, one id."""
    for name in ("1g", "1r", "2g", "2r"):
        write(tmp_path / f"{name}.fits", seed=ord(name[1]) + ord(name[0]))
    table = check(
        ["1g.fits,1r.fits,x", "2g.fits,2r.fits,y", "1g.fits,absent.fits,z"],
        "path_g,path_r,label",
    )
    assert [r["channels"] for r in table] == ["2", "2", ""]
    assert [r["label"] for r in table] == ["x", "y", "z"]
    assert len({r["image_id"] for r in table}) == 3
    assert table[2]["reason"].startswith("file 2 of 2 (")


def test_a_wrong_split_is_known_before_the_run(tmp_path, check):
    """The cell, the file and what is allowed."""
    write(tmp_path / "a.fits")
    with pytest.raises(AstromorphError, match=r"a\.fits: .*'dr9'; allowed are train"):
        check(["a.fits,dr9"], "path,split")


def test_summaries_stay_small():
    """Reasons that differ in numbers and details are one kind."""
    reasons = ["the file is damaged: xyz", "the file is damaged: abc"]
    reasons += [f"its {k}x3 pixels are more" for k in range(3)]
    reasons += [f"file 1 of 2 (/a{k}): there is no such file" for k in range(3)]
    reasons += ["duplicate: the same file as /a", "duplicate: the same file as /b"]
    assert len({reason_kind(reason) for reason in reasons}) == 4
    summary = Summary("list")
    for k in range(1000):
        summary.add("rejected", "reason " + "x" * k, f"{k}.fits")
    assert len(summary.reasons) <= 201
    assert len(list(summary.lines())) <= 10
    assert summary.bad == 1000


def test_histograms_have_all_bins_between_the_ends():
    """Logarithmic bins; values that have no logarithm are left out."""
    histogram = Histogram("size", 1)
    for value in (1, 5, 2000, 0, -3, None, float("nan")):
        histogram.add(value)
    assert [(b.label, b.count, b.share) for b in histogram.bars] == [
        ("1", 2, 1.0), ("10", 0, 0.0), ("100", 0, 0.0), ("1000", 1, 0.5),
    ]  # fmt: skip


def test_the_sample_does_not_depend_on_the_order():
    """The smallest ids, however they come."""
    ids = [f"{k:016x}" for k in RNG.integers(0, 2**60, 500)]
    samples = []
    for order in (range(500), reversed(range(500))):
        sample = Sample(20)
        for k in order:
            sample.offer(ids[k], k)
        samples.append(sample.rows)
    assert samples[0] == samples[1]
    assert samples[0] == sorted(sorted(range(500), key=ids.__getitem__)[:20])


def test_a_pipe_is_rejected_at_once(tmp_path, check):
    """Nobody writes to it; reading would wait forever."""
    os.mkfifo(tmp_path / "pipe.fits")
    for name in "ab":
        write(tmp_path / f"{name}.fits")
    table = check(["pipe.fits", "a.fits", "b.fits"])
    assert "a pipe, a socket or a device" in table[0]["reason"]
    assert table[1]["reason"] == ""


def test_likely_copies_are_read_once_each():
    """Not once for each other file like them."""
    asked = []

    def identify(paths):
        asked.append(tuple(paths))
        return None if paths[0] == "3" else paths[-1]

    with duplicate_finder() as found:
        for row in range(6):
            key = text_key(SAME_CONTENT, "size and pieces")
            found.add(row, [key], [str(row), "b" if row in (1, 5) else str(row)])
        matches = [(m.row, m.first, m.first_path) for m in found.matches(identify)]
    assert matches == [(5, 1, "1")]
    assert len(asked) == 6


@pytest.mark.parametrize("start", np.linspace(0, 0.01, 7))
def test_only_rows_that_are_kept_have_duplicates(start):
    """In a row of places, each within reach of the next alone, every second stays."""
    with duplicate_finder() as found:
        for row in range(9):
            ra = 10 + start + row * 4 / 3600
            found.add(row, position_keys(ra, 0.0, "", 5.0), [f"{row}.fits"])
        matches = [(m.row, m.first) for m in found.matches()]
    assert matches == [(1, 0), (3, 2), (5, 4), (7, 6)]


def test_a_damaged_card_does_not_cost_the_image(tmp_path, check):
    """A keyword that is asked for and cannot be read is empty."""
    write(tmp_path / "a.fits", GOOD=1)
    raw = bytearray((tmp_path / "a.fits").read_bytes())
    at = raw.index(b"GOOD    ")
    raw[at : at + 80] = b"GOOD    = 'abc".ljust(80)
    (tmp_path / "a.fits").write_bytes(raw)
    rules = {"header_columns": ["GOOD", "BITPIX"]}
    write(tmp_path / "b.fits", seed=1)
    row, _ = check(["a.fits", "b.fits"], data_settings=rules)
    assert row["reason"] == ""
    assert row["header_BITPIX"] == "-32"
