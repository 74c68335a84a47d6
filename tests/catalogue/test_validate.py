"""The step `validate`: catalogue, duplicates, page and stopping a run."""

import csv
import os
import shutil

import numpy as np
import pytest
from astropy.io import fits

from astromorph.artefacts.run_files import RunFiles
from astromorph.catalogue import summary as summaries
from astromorph.catalogue import validate as validation
from astromorph.catalogue.histogram import Histogram
from astromorph.catalogue.summary import Summary, general_reason
from astromorph.catalogue.validate import validate
from astromorph.catalogue.validation_page import RowSample
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
from astromorph.pages.html import with_code
from astromorph.preprocessing.list_reference import find_reference
from astromorph.settings.loading import parse

RNG = np.random.default_rng(0)


def read_rows(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def run_validate(datafile, files, settings, processes=1):
    data, preprocessing = settings.data_settings, settings.preprocess_settings
    rules = settings.validate_settings
    label = settings.evaluation_settings.label
    validate(datafile, files, data, rules, preprocessing, processes, label)


def write(path, seed=0, shape=(20, 20), **cards):
    pixels = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    fits.PrimaryHDU(pixels, fits.Header(cards)).writeto(path)


@pytest.fixture
def check(tmp_path):
    """A function that validates files of `tmp_path` and returns the catalogue."""

    def run(names, columns="", **values):
        text = "\n".join(names) if not columns else f"{columns}\n" + "\n".join(names)
        (tmp_path / "list.csv").write_text(text)
        settings = parse({"preprocess_settings": {"size": 32}} | values, "test")
        files = RunFiles(tmp_path)
        run_validate(tmp_path / "list.csv", files, settings)
        return read_rows(files.catalogue)

    return run


def test_catalogue_has_a_row_for_each_file(prepared, sky):
    """Rows are in the order of the list, with label and position."""
    catalogue = read_rows(prepared / "catalogue.csv")
    labels = [r["label"] for r in read_rows(sky)]
    assert [r["label"] for r in catalogue] == labels
    assert {r["status"] for r in catalogue} == {"ok"}
    assert all(0 <= float(r["ra_deg"]) < 360 for r in catalogue)
    assert {r["unit"] for r in catalogue} == {"Jy/beam"}
    assert {r["channels"] for r in catalogue} == {"1"}
    assert all(float(r["beam_major_arcsec"]) > 0 for r in catalogue)


def test_catalogue_does_not_depend_on_the_number_of_processes(
    sky, settings, tmp_path, monkeypatch
):
    """Rows are always in the order of the list."""
    monkeypatch.setattr(validation, "SERIAL_BELOW", 0)
    monkeypatch.setattr(validation, "MAX_PENDING_CHUNKS", 3)
    monkeypatch.setattr(validation, "CHUNK", 3)
    texts = []
    for processes in (1, 2):
        files = RunFiles(tmp_path / f"{processes}")
        run_validate(sky, files, settings, processes)
        texts.append((files.catalogue.read_text(), files.validation_page.read_text()))
    assert texts[0] == texts[1]


@pytest.mark.parametrize(
    ("header", "cells", "label", "level", "expected"),
    [
        ("morphology", "AB", "morfology", "WARNING", "do you mean `morphology`?"),
        ("label", "AA", "label", "WARNING", "the column `label` has one class, `A`"),
        ("label", "AA", "label", "WARNING", "label images of a second class or name"),
        ("label", ["", ""], "label", "WARNING", "the column `label` is empty"),
        ("label", "AB", "label", "INFO", "the column `label` has 2 classes; the emb"),
        ("label", "AB", "label", "WARNING", "the class `A` has 13 images, so that"),
        (
            "P_cs",
            ["0.25", "0.5"],
            "P_cs",
            "INFO",
            "has 26 numbers from 0.25 to 0.5; the",
        ),
        ("P_cs", ["0.25", "0.5"], "P_cs", "WARNING", "label at least 50 images"),
        ("T" * 70, "AB", "label", "WARNING", f"becomes `{'T' * 65}...`"),
    ],
)
def test_remarks_about_columns_are_on_the_page_and_in_the_log(
    check, tmp_path, caplog, header, cells, label, level, expected
):
    """Before anything is trained."""
    caplog.set_level("INFO")
    names = [f"{k}.fits" for k in range(26)]
    for k, name in enumerate(names):
        write(tmp_path / name, k)
    rows = [f"{name},{cells[k % 2]}" for k, name in enumerate(names)]
    evaluation = {"evaluation_settings": {"label": label}}
    check(rows, f"path,{header}", **evaluation)
    found = [r for r in caplog.records if expected in r.getMessage()]
    assert [(r.levelname, "list.csv: " in r.getMessage()) for r in found] == [
        (level, True)
    ]
    assert str(with_code(expected)) in (tmp_path / "validation.html").read_text()


def test_a_list_without_labels_needs_no_remark(check, tmp_path, caplog):
    """It is the default."""
    for k in range(2):
        write(tmp_path / f"{k}.fits", k)
    check(["0.fits", "1.fits"])
    assert "`label`" not in caplog.text


def test_few_images_are_said_to_be_few(check, tmp_path, caplog, monkeypatch):
    """In the log and on the page, in other words below each of two numbers."""
    for k in range(3):
        write(tmp_path / f"{k}.fits", k)
    names = ["0.fits", "1.fits", "2.fits"]
    check(names)
    (record,) = (r for r in caplog.records if "3 images are too few" in r.getMessage())
    assert record.levelname == "WARNING"
    page = (tmp_path / "validation.html").read_text()
    assert "3 images are too few to learn from and to judge the result" in page
    caplog.set_level("INFO")
    for module in (validation, summaries):
        monkeypatch.setattr(module, "TOO_FEW_IMAGES", 3)
    check(names)
    (record,) = (r for r in caplog.records if "3 images are few:" in r.getMessage())
    assert record.levelname == "INFO"
    monkeypatch.setattr(summaries, "FEW_IMAGES", 3)
    caplog.clear()
    check(names)
    assert "few" not in caplog.text.replace(str(tmp_path), "")
    assert "Remarks" not in (tmp_path / "validation.html").read_text()


def test_page_contains_images_and_escaped_text(sky, settings, tmp_path):
    """Markup in a path is text; pictures and histograms are embedded."""
    path = tmp_path / "list.txt"
    good = [str(p) for p in sorted(sky.parent.glob("*.fits"))[:12]]
    path.write_text("\n".join([*good, "<script>alert(1)</script>.fits"]))
    files = RunFiles(tmp_path)
    run_validate(path, files, settings)
    page = files.validation_page.read_text()
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert "there is no such file" in page
    assert page.count("data:image/jpeg;base64,") == 12
    for name in (
        "Longer side",
        "Pixel scale",
        "Share of bad pixels",
        "Peak above the background",
    ):
        assert f'aria-label="Histogram: {name}' in page, name
    assert "http" not in page.replace("http-equiv", "")


def test_header_columns_are_added_to_the_catalogue(tmp_path, check):
    """Even if a column of the list has the same name."""
    write(tmp_path / "a.fits", 1, FILTER="R", EXPTIME=30.5)
    write(tmp_path / "b.fits", 2)
    table = check(
        ["a.fits,1", "b.fits,2"], "path,FILTER",
        data_settings={"header_columns": ["FILTER", "EXPTIME"]},
    )  # fmt: skip
    assert [r["header_FILTER"] for r in table] == ["R", ""]
    assert [r["header_EXPTIME"] for r in table] == ["30.5", ""]
    assert [r["FILTER"] for r in table] == ["1", "2"]


POSITION = {
    "CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRPIX1": 10.5, "CRPIX2": 10.5,
    "CRVAL1": 0.00001, "CRVAL2": 40.0, "CDELT1": -0.001, "CDELT2": 0.001,
}  # fmt: skip


@pytest.fixture
def duplicate_files(tmp_path):
    """Files, some of them duplicates: their names and the expected reasons."""
    beam = {"BMAJ": 10 / 3600, "BMIN": 10 / 3600, "RESTFRQ": 1e9}
    write(tmp_path / "a.fits", 1)
    os.link(tmp_path / "a.fits", tmp_path / "hard.fits")
    (tmp_path / "soft.fits").symlink_to("a.fits")
    shutil.copy(tmp_path / "a.fits", tmp_path / "copy.fits")
    write(tmp_path / "near.fits", 2, **POSITION, **beam)
    write(tmp_path / "nearer.fits", 3, **(POSITION | {"CRVAL1": 359.9999}), **beam)
    write(tmp_path / "far.fits", 4, **(POSITION | {"CRVAL2": 40.005}), **beam)
    write(tmp_path / "other.fits", 5, **POSITION, **(beam | {"RESTFRQ": 2e9}))
    write(tmp_path / "z.fits", 6)
    names = ["a", "hard", "near", "copy", "nearer", "far", "soft", "other", "z"]
    expected = {
        "hard": "the same file as", "soft": "the same file as",
        "copy": "the same content as",
        "nearer": "the same position and band, within the beam, as",
    }  # fmt: skip
    return [f"{name}.fits" for name in names], expected


def test_duplicates_are_found_and_kept(check, duplicate_files):
    """Links, copies, and the same position in the same band are duplicates."""
    names, expected = duplicate_files
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


def test_duplicates_can_be_dropped(check, duplicate_files, caplog):
    """The later ones are rejected, which does not stop the run."""
    names, expected = duplicate_files
    table = check(
        names, validate_settings={"on_duplicate": "drop", "max_bad_fraction": 0}
    )
    rejected = {os.path.basename(r["path"])[:-5] for r in table if r["reason"]}
    assert rejected == set(expected)
    assert {r["status"] for r in table if r["reason"]} == {"rejected"}


def test_files_with_equal_parts_are_compared_completely(tmp_path, check):
    """Equal size, header and compared parts do not make two files duplicates."""
    for name, value in (("a", 1.0), ("b", 2.0)):
        pixels = np.zeros((200, 200), np.float32)
        pixels[37, 41] = value
        fits.PrimaryHDU(pixels).writeto(tmp_path / f"{name}.fits")
    keys = [validation._content_keys([str(tmp_path / f"{n}.fits")])[0] for n in "ab"]
    assert keys[0][1] == keys[1][1]
    assert [r["reason"] for r in check(["a.fits", "b.fits"])] == ["", ""]


def sparse(path, size, **written):
    """A file of zeros with bytes at a few positions, which takes no space."""
    with open(path, "wb") as file:
        file.truncate(size)
        for at in written.values():
            file.seek(at)
            file.write(b"x")
    return [str(path)]


def test_long_files_are_compared_in_parts(tmp_path, monkeypatch):
    """At most 256 MiB are read; beginning, end and evenly spaced parts count."""
    size, read = 30 * 2**30, 0
    pread = os.pread

    def counted(*arguments):
        nonlocal read
        data = pread(*arguments)
        read += len(data)
        return data

    monkeypatch.setattr(duplicates.os, "pread", counted)
    monkeypatch.setattr(duplicates, "MAX_COMPARED_BYTES", 2**22)
    files = {
        "a": sparse(tmp_path / "a", size), "copy": sparse(tmp_path / "copy", size),
        "longer": sparse(tmp_path / "longer", size + 1),
        "first": sparse(tmp_path / "first", size, at=0),
        "last": sparse(tmp_path / "last", size, at=size - 1),
    }  # fmt: skip
    digests = {name: duplicates.content_digest(path) for name, path in files.items()}
    assert digests["a"] == digests["copy"]
    assert len(set(digests.values())) == 4
    assert read == len(files) * 2**22


def test_every_byte_of_a_file_up_to_the_limit_is_compared(tmp_path, monkeypatch):
    """One byte more, and only parts are."""
    monkeypatch.setattr(duplicates, "MAX_COMPARED_BYTES", 2**20)
    for size, differ in ((2**20, True), (2**21, False)):
        a = sparse(tmp_path / f"a{size}", size)
        between = 100 * (size - 1024) // 1023 + 1024 + 100  # behind the 101st part
        b = sparse(tmp_path / f"b{size}", size, at=between)
        equal = duplicates.content_digest(a) == duplicates.content_digest(b)
        assert equal != differ, size
    assert duplicates.content_digest([str(tmp_path / "absent")]) is None


def test_a_file_that_is_listed_again_is_not_read_again():
    """Its content is known; a copy under another inode is read."""
    calls = []

    def content_id(paths):
        calls.append(paths[0])
        return "same"

    same_file, content = duplicates.SAME_FILE, text_key(SAME_CONTENT, "x")
    with duplicate_finder() as finder:
        for row, inode in enumerate(["1", "1", "2", "1", "2"]):
            keys = [text_key(same_file, inode), content]
            finder.add(row, keys, [f"{inode}.fits"])
        matches = [(m.row, m.first, m.kind) for m in finder.matches(content_id)]
    assert calls == ["1.fits", "2.fits"]
    assert matches == [
        (1, 0, same_file), (2, 0, SAME_CONTENT), (3, 0, same_file), (4, 2, same_file),
    ]  # fmt: skip


@pytest.mark.parametrize("radius", [0.5, 30.0, 4000.0])
def test_positions_within_the_radius_share_a_cell(radius):
    """Everywhere on the sky, including right ascension 0 and the poles."""
    for _ in range(400):
        dec = float(np.degrees(np.arcsin(RNG.uniform(-1, 1))))
        dec = float(RNG.choice([dec, 90 - radius / 3600 * RNG.random(), -89.999]))
        ra = float(RNG.choice([RNG.uniform(0, 360), 0.0, 359.9999]))
        here = np.array(unit_vector(ra, dec))
        offset = RNG.normal(size=3)
        offset -= offset @ here * here
        offset *= np.radians(radius / 3600) * RNG.random() / np.linalg.norm(offset)
        x, y, z = (here + offset) / np.linalg.norm(here + offset)
        other = (
            float(np.degrees(np.arctan2(y, x)) % 360),
            float(np.degrees(np.arcsin(z))),
        )
        assert (
            separation_arcsec(unit_vector(ra, dec), unit_vector(*other))
            <= radius * 1.001
        )
        keys = [
            {k[1] for k in position_keys(*p, "R", radius)} for p in ((ra, dec), other)
        ]
        assert keys[0] & keys[1]
        assert len(set(sky_cells(ra, dec, radius / 3600, 8 * radius / 3600))) < 40


def test_strongest_and_earliest_match_is_reported():
    """Equal content takes precedence over equal position."""
    with duplicate_finder() as finder:
        for row in range(4):
            keys = [text_key(SAME_CONTENT, "x" if row != 1 else "y")]
            finder.add(row, keys + position_keys(10.0, 10.0, "R", 5.0), [f"{row}.fits"])
        matches = list(finder.matches())
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
    """The error has a reason and an example; with one bad file fewer, it continues."""
    for k in range(3):
        write(tmp_path / f"{k}.fits", k)
    names = ["0.fits", "1.fits", "2.fits", "absent.fits"]
    with pytest.raises(AstromorphError, match=f"(?s){message}.*absent.fits"):
        check(names, validate_settings=rules)
    assert len(check(names)) == 4
    check(names[:3], validate_settings=rules)


def test_error_lists_the_most_frequent_reasons_first(tmp_path, check):
    """Each reason has three examples."""
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
    assert "cube of 3 planes" in lines[1] and "other numbers" not in lines[1]
    assert lines[1].count(".fits") == 3
    assert "1 times: this is not a FITS file" in lines[2]


def test_first_image_determines_the_number_of_channels(tmp_path, check):
    """Other images are rejected, and the reason names the setting."""
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
        "it has 4 channels, but the first image of the list has 3"
        in (table[3]["reason"])
    )
    settings = parse({"data_settings": {"planes": "channels"}}, "test")
    (tmp_path / "none.txt").write_text("x.fits\n")
    with pytest.raises(AstromorphError, match="none of the first 256 files"):
        datafile = tmp_path / "none.txt"
        find_reference(datafile, settings.data_settings, settings.preprocess_settings)


def test_files_of_several_path_columns_are_channels(tmp_path, check):
    """`path_g` and `path_r` of a row are one image with one id."""
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


def test_a_column_of_the_list_cannot_replace_a_keyword(tmp_path, check):
    """The catalogue would have two columns of one name, with the values of one."""
    write(tmp_path / "a.fits", FILTER="R")
    with pytest.raises(AstromorphError, match=r"'header_FILTER' .* rename it"):
        check(
            ["a.fits,fake"], "path,header_FILTER",
            data_settings={"header_columns": ["FILTER"]},
        )  # fmt: skip


HOSTILE = {
    "markup": "<script>alert(1)</script>", "attribute": "\" onerror=alert(1) x=\"",
    "terminal": "\x1b[2J\x1b]0;owned\x07", "bidi": "\u202egpj.\u2066exe",
    "lines": "\u2028a\u2029b\x85c", "forged": "x\n12:00:00 ERROR forged",
    "return": "a\r12:00:00 ERROR forged", "nul": "a\0b", "long": "w" * 50_000,
    "zero width": "a\u200bb\ufeffc", "formula": "=cmd|' /C calc'!A0",
}  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_hostile_names_and_cells_are_text_everywhere(tmp_path, check, caplog, text):
    """In the catalogue, the page, the log and the error; nothing is lost in cells."""
    caplog.set_level("INFO")
    for name in "ab":
        write(tmp_path / f"{name}.fits", seed=ord(name))
    quoted = '"' + text.replace('"', '""') + '"'
    column = '"c' + text[:200].replace('"', '""') + '"'
    names = [f"a.fits,{quoted}", f"b.fits,{quoted}", f"{quoted},"]
    first, _, last = check(names, f"path,{column}")
    assert first[f"c{text[:200]}".strip()].lstrip("'") == text.strip().lstrip("'")
    assert last["status"] == "rejected"
    page = (tmp_path / "validation.html").read_text(encoding="utf-8")
    assert "<script>alert" not in page
    assert '" onerror' not in page
    shown = set(page) - set("\n")
    assert all(c.isprintable() for c in shown), shown
    assert all(r.getMessage().isprintable() for r in caplog.records)
    assert len(page) < 200_000
    with pytest.raises(AstromorphError) as caught:
        check(names, f"path,{column}", validate_settings={"on_bad": "fail"})
    lines = str(caught.value).split("\n")
    assert len(lines) == 3
    assert all(line.isprintable() and len(line) < 10_000 for line in lines)


def test_a_name_cannot_add_a_line_to_an_error(check):
    """Line breaks in names are shown as escape sequences."""
    forged = '"a\n12:00:00 ERROR forged\u2028\x1b[2J.fits"'
    with pytest.raises(AstromorphError) as caught:
        check([forged, "b.fits"], "path")
    lines = str(caught.value).split("\n")
    assert len(lines) == 3
    assert all(line.isprintable() for line in lines)
    assert r"a\n12:00:00 ERROR forged\u2028\x1b[2J.fits" in lines[1]
    with pytest.raises(AstromorphError) as caught:
        check([f"{forged},dr9"], "path,split")
    assert str(caught.value).isprintable()


def test_invalid_cell_of_the_column_split_is_an_error(tmp_path, check):
    """The error names the cell, the file and the allowed values."""
    write(tmp_path / "a.fits")
    with pytest.raises(AstromorphError, match=r"a\.fits: .*'dr9'; allowed are train"):
        check(["a.fits,dr9"], "path,split")


def test_summary_has_constant_size():
    """Reasons that differ in numbers and details are counted together."""
    reasons = ["the file is damaged: xyz", "the file is damaged: abc"]
    reasons += [f"it has {k}x3 pixels, more" for k in range(3)]
    reasons += [f"file 1 of 2 (/a{k}): there is no such file" for k in range(3)]
    reasons += ["duplicate: the same file as /a", "duplicate: the same file as /b"]
    assert len({general_reason(reason) for reason in reasons}) == 4
    summary = Summary("list")
    for reason in reasons:
        summary.add("rejected", reason, "a.fits")
    lines = "\n".join(summary.lines())
    assert "3 times: it has 0x3 pixels, more (or other numbers); for example" in lines
    assert "2 times: the file is damaged; for example a.fits" in lines
    summary = Summary("list")
    for k in range(1000):
        summary.add("rejected", "reason " + "x" * k, f"{k}.fits")
    assert len(summary.reasons) <= 201
    assert len(list(summary.lines())) <= 10
    assert summary.bad == 1000


@pytest.mark.parametrize(
    ("values", "options", "edges", "counts"),
    [
        ((1, 5, 2000, 0, -3, None, float("nan")), {},
         (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000),
         (1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1)),
        ((300, 300, 300), {"min_step": 1}, (300, 310), (3,)),
        ((18, 19, 20, 20), {"min_step": 1}, (18, 19, 20, 21), (1, 1, 2)),
        ((0.3, 0.29999, 0.1 + 0.2, 0.349), {},
         (0.29, 0.3, 0.31, 0.32, 0.33, 0.34, 0.35), (1, 2, 0, 0, 0, 1)),
        ((0, 0, 0.1), {"fraction": True, "min_step": 0.01},
         tuple(k / 100 for k in range(12)), (2, *[0] * 9, 1)),
        ((), {}, (), ()),
    ],
)  # fmt: skip
def test_histograms_have_round_bins(values, options, edges, counts):
    """Logarithmic over a large range; values without a place are ignored."""
    histogram = Histogram("size", "files", **options)
    for value in values:
        histogram.add(value)
    bins = histogram.bins
    assert tuple(one.count for one in bins) == counts
    assert (*(one.low for one in bins), *(one.high for one in bins[-1:])) == edges


@pytest.mark.parametrize("fraction", [False, True])
def test_a_histogram_counts_every_value_in_a_few_bins(fraction):
    """In constant memory, between edges that contain the value."""
    values = np.random.default_rng(3).random(20_000)
    values = values if fraction else 10 ** (6 * values - 3)
    histogram = Histogram("x", "files", fraction)
    for value in values:
        histogram.add(value)
    assert len(histogram._counts) <= 6000
    bins = histogram.bins
    assert 5 < len(bins) <= 16
    edges = [*(one.low for one in bins), bins[-1].high]
    assert [one.count for one in bins] == np.histogram(values, edges)[0].tolist()


def test_the_gravest_status_is_first():
    """On the page and in the log, whatever is most frequent."""
    summary = Summary("list")
    for status in ("ok", "ok", "warning", "rejected", "ok"):
        summary.add(status, "", "a.fits")
    assert summary.ranked_statuses == [("rejected", 1), ("warning", 1), ("ok", 3)]
    assert next(summary.lines()) == "list: 5 files: 1 rejected, 1 warning, 3 ok"


def test_sample_does_not_depend_on_the_order():
    """It consists of the rows with the smallest ids."""
    ids = [f"{k:016x}" for k in RNG.integers(0, 2**60, 500)]
    samples = []
    for order in (range(500), reversed(range(500))):
        sample = RowSample(20)
        for k in order:
            sample.add(ids[k], k)
        samples.append(sample.rows)
    assert samples[0] == samples[1]
    assert samples[0] == sorted(sorted(range(500), key=ids.__getitem__)[:20])


def test_pipe_is_rejected_without_waiting(tmp_path, check):
    """Reading a pipe without a writer would block."""
    os.mkfifo(tmp_path / "pipe.fits")
    for name in "ab":
        write(tmp_path / f"{name}.fits")
    table = check(["pipe.fits", "a.fits", "b.fits"])
    assert "a pipe, a socket or a device" in table[0]["reason"]
    assert table[1]["reason"] == ""


def test_possible_copies_are_read_once_each():
    """They are not read again for each pair."""
    calls = []

    def content_id(paths):
        calls.append(tuple(paths))
        return None if paths[0] == "3" else paths[-1]

    with duplicate_finder() as finder:
        for row in range(6):
            key = text_key(SAME_CONTENT, "size and pieces")
            finder.add(row, [key], [str(row), "b" if row in (1, 5) else str(row)])
        matches = [(m.row, m.first, m.first_path) for m in finder.matches(content_id)]
    assert matches == [(5, 1, "1")]
    assert len(calls) == 6


@pytest.mark.parametrize("start", np.linspace(0, 0.01, 7))
def test_duplicates_repeat_only_originals(start):
    """In a chain of positions near the next one only, every second is an original."""
    with duplicate_finder() as finder:
        for row in range(9):
            ra = 10 + start + row * 4 / 3600
            finder.add(row, position_keys(ra, 0.0, "R", 5.0), [f"{row}.fits"])
        matches = [(m.row, m.first) for m in finder.matches()]
    assert matches == [(1, 0), (3, 2), (5, 4), (7, 6)]


def test_image_with_a_damaged_card_is_used(tmp_path, check):
    """A requested keyword that cannot be read is empty."""
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
