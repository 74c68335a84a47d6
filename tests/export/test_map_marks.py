"""Marks and the ranking on the map, which agree with the step `rank`."""

import json
import re
import shutil
import subprocess
from dataclasses import replace
from importlib import resources

import numpy as np
import pandas as pd
import pytest
from finished_run import catalogue_rows, image_ids, write_run
from test_map import Watched, browser  # noqa: F401

from astromorph.analysis.components import quantise
from astromorph.artefacts.run_files import Identity
from astromorph.export.html_map.html_map import export_map
from astromorph.ranking.marks import Marks, read_marks
from astromorph.ranking.model import (
    background_rows,
    find_targets,
    fit_target,
    most_informative,
)
from astromorph.ranking.rank import rank

NODE = shutil.which("node")
NUMBER = 120
RARE = np.arange(NUMBER) % 8 == 3
IDS = image_ids(NUMBER)
CLASSES = ("", "ring", "A&B <b>", "=1+1")


def random_marks(draw, number, kinds) -> Marks:
    """Marks of random images."""
    rows = sorted(draw.choice(NUMBER, number, replace=False).tolist())
    marks = draw.choice(kinds, number).tolist()
    classes = draw.choice(CLASSES, number).tolist()
    return Marks(tuple(rows), tuple(marks), tuple(classes))


@pytest.mark.skipif(NODE is None, reason="there is no node on this machine")
def test_the_script_and_the_package_fit_the_same_model(tmp_path):
    """Targets, scores and both orders, for marks of one kind, of both, and classes."""
    draw = np.random.default_rng(4)
    points = quantise(draw.normal(size=(NUMBER, 5)).astype(np.float32))
    both = ["interesting", "not interesting"]
    cases = [
        random_marks(draw, 1, both[:1]),
        random_marks(draw, 6, both[:1]),
        random_marks(draw, 30, [*both, ""]),
        random_marks(draw, 100, [*both, ""]),
        random_marks(draw, NUMBER, both),
    ]
    task = {
        "points": {
            "values": points.codes.ravel().tolist(),
            "width": 5,
            "scales": points.scales.tolist(),
        },
        "cases": [
            [
                [row, {"mark": mark, "name": name}]
                for row, mark, name in zip(
                    marks.rows, marks.marks, marks.classes, strict=True
                )
            ]
            for marks in cases
        ],
    }
    script = resources.files("astromorph.export.html_map") / "scripts" / "ranking.js"
    program = tmp_path / "program.js"
    program.write_text(
        f"""const R = require({json.dumps(str(script))});
const task = JSON.parse(require("fs").readFileSync(0, "utf8"));
const points = {{ ...task.points, values: Int8Array.from(task.points.values) }};
console.log(JSON.stringify(task.cases.map((case_) => {{
  const marks = new Map(case_);
  const background = R.backgroundRows({NUMBER}, marks);
  return {{ background, targets: R.findTargets(marks).map((target) => {{
    const scores = R.scoresOf(points, R.fitTarget(points, target, marks));
    return {{ ...target, scores: [...scores], likely: R.mostLikely(scores, marks, 9),
      informative: R.mostInformative(points, scores, marks, 9) }};
  }}) }};
}})));"""
    )
    done = subprocess.run(
        [NODE, str(program)], input=json.dumps(task), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    values, compared = points.values(), 0
    for marks, found in zip(cases, json.loads(done.stdout), strict=True):
        assert found["background"] == background_rows(NUMBER, marks.rows).tolist()
        targets = find_targets(marks)
        assert len(found["targets"]) == len(targets) > 0
        for target, one in zip(targets, found["targets"], strict=True):
            assert (one["name"], one["isClass"]) == (target.name, target.is_class)
            assert one["rows"] == target.rows.tolist()
            assert one["labels"] == target.labels.tolist()
            scores = fit_target(values, target, marks.rows).scores(values)
            assert one["scores"] == pytest.approx(scores, abs=1e-6)
            unmarked = np.setdiff1d(np.arange(NUMBER), marks.rows)
            order = unmarked[np.argsort(-scores[unmarked], kind="stable")]
            assert one["likely"] == order[:9].tolist()
            expected = most_informative(values, scores, marks.rows, 9)
            assert one["informative"] == expected.tolist()
            compared += 1
    assert compared > 10


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run in which every eighth image is of a rare kind."""
    draw = np.random.default_rng(1)
    vectors = draw.normal(size=(NUMBER, 6)) + 4 * RARE[:, None] * [1, 0, 0, 0, 0, 0]
    files = write_run(
        tmp_path_factory.mktemp("run") / "results",
        catalogue_rows(NUMBER),
        vectors=vectors.astype(np.float32),
    )
    export_map(replace(files, identity=Identity("a", "b", "day")), 16, 10**6, False)
    return files


@pytest.fixture
def map_page(browser, run):  # noqa: F811
    """The page; finally checks that there were no requests or messages."""
    watched = Watched(browser, run.map)
    yield watched
    assert (watched.messages, watched.requests) == ([], [])


def press(watched, row: int, *keys: str) -> None:
    """Open an image and press keys while the map has focus."""
    watched.page.evaluate(f"astromorphMap.openImage({row})")
    watched.page.wait_for_function(
        f"document.querySelector('#image .title')?.textContent === '{row:03d}.fits'"
    )
    watched.page.focus("#plot")
    for key in keys:
        watched.page.keyboard.press(key)


def counted(watched, text: str) -> None:
    """Wait until the panel says how many marks there are."""
    watched.page.locator("#mark-count", has_text=text).wait_for()


@pytest.mark.browser
@pytest.mark.slow
def test_marks_rank_all_images_and_agree_with_the_step(map_page, run, tmp_path):
    """Mark by keys, walk along the strips, save, load, compare with `rank`."""
    watched, page = map_page, map_page.page

    def accept(dialog) -> None:
        dialog.accept()

    page.on("dialog", accept)
    press(watched, 3, "i")
    counted(watched, "1 interesting, 0 not interesting")
    page.locator(".note", has_text="There are no counter-examples yet").wait_for()
    press(watched, 4, "n")
    press(watched, 5, "i", "n")  # the second mark replaces the first
    press(watched, 6, "n", "u")
    counted(watched, "1 interesting, 2 not interesting")
    # In a strip, the next image takes the place of the marked one and has focus.
    page.focus("[data-strip=likely] button")
    for _ in range(8):
        row = page.evaluate("Number(document.activeElement.dataset.row)")
        page.keyboard.press("i" if RARE[row] else "n")
        page.wait_for_function(
            f"document.activeElement.dataset.row !== '{row}' && "
            "document.activeElement.closest('[data-strip=likely]')"
        )
    counted(watched, "Kept in this browser")
    page.keyboard.press("ArrowRight")
    assert page.locator("#mark-preview canvas").count() == 1
    likely = page.evaluate("astromorphMap.rankingOf().likely")
    assert RARE[likely[:3]].all()
    # A class by its name, then by its digit.
    press(watched, 11, "c")
    page.keyboard.type("A&B <b>")
    page.keyboard.press("Enter")
    press(watched, 19, "1")
    counted(watched, "2 with a class")
    assert page.locator("#ranked-by option").all_inner_texts() == [
        "interesting", "class A&B <b>",
    ]  # fmt: skip
    # The map is coloured by the score.
    page.click("button:has-text('Colour the map')")
    page.locator("#legend h2", has_text="score by marks").wait_for()
    assert watched.state("scale")["high"] > 0.5
    # The file has the marks of this page, and the step finds the same scores.
    with page.expect_download() as saving:
        page.click("button:has-text('Save marks')")
    path = tmp_path / "marks.csv"
    saving.value.save_as(path)
    paths = [f"fits/{k:03d}.fits" for k in range(NUMBER)]
    marks = read_marks(path, IDS, paths)
    assert {3, 4, 5, 11, 19} <= set(marks.rows)
    assert 6 not in marks.rows
    assert dict(zip(marks.rows, marks.classes, strict=True))[19] == "A&B <b>"
    scores = page.evaluate("[...astromorphMap.rankingOf().scores]")
    rank(run, path)
    table = pd.read_csv(run.ranking).sort_values("image_id")
    assert np.abs(table["score"].to_numpy() - scores).max() < 1e-3
    # Marks are there when the page is opened again, and after they were loaded.
    page.reload()
    page.wait_for_selector("body[data-ready]")
    counted(watched, f"{marks.count('interesting')} interesting")
    again = page.evaluate("astromorphMap.marksAsText()")
    assert again == path.read_text()
    page.click("button:has-text('Clear')")
    page.locator("#mark-count", has_text="Click an image").wait_for()
    with page.expect_file_chooser() as choosing:
        page.click("button:has-text('Load marks')")
    choosing.value.set_files(path)
    counted(watched, f"{marks.count('interesting')} interesting")
    assert page.evaluate("astromorphMap.marksAsText()") == again
    loaded = page.evaluate("[...astromorphMap.rankingOf().scores]")
    assert loaded == pytest.approx(scores, abs=1e-9)
    page.remove_listener("dialog", accept)


@pytest.mark.browser
@pytest.mark.slow
def test_an_address_names_an_image(map_page, run):
    """The contact sheets link to images on the map."""
    page = map_page.page
    for row in (7, 12):
        page.goto(f"{run.map.as_uri()}#image={IDS[row]}")
        page.locator("#image .title", has_text=f"{row:03d}.fits").wait_for()
        assert map_page.state("row") == row
    page.goto(f"{run.map.as_uri()}#image=nothing")
    page.locator("#trouble", has_text="no image with the id nothing").wait_for()


@pytest.mark.browser
@pytest.mark.slow
def test_files_of_marks_are_read_as_by_the_step(map_page):
    """Separators, a byte order mark, paths instead of ids; errors are explained."""
    page = map_page.page
    load = "text => astromorphMap.loadMarks(text).catch((error) => error.message)"
    text = (
        "\ufeffmark;class;path;image_id\r\n"
        "Not_Interesting;;fits/001.fits;\r\n"
        f'interesting;"a ""b""; c";other.fits;{IDS[2]}\r\n'
        "interesting;;gone.fits;\r\n;'=1+1;fits/003.fits;unknown\r\n"
    )
    said = page.evaluate(load, text)
    assert said == "3 marks loaded. 1 marked image not on this map."
    assert page.evaluate("astromorphMap.marksAsText()").splitlines() == [
        "image_id,path,mark,class",
        f"{IDS[1]},fits/001.fits,not interesting,",
        f'{IDS[2]},fits/002.fits,interesting,"a ""b""; c"',
        f"{IDS[3]},fits/003.fits,,'=1+1",
        ",gone.fits,interesting,",
    ]
    # Another run of the same list has other rows, and other images on its map.
    key = page.evaluate("Object.keys(localStorage)[0]")
    lines = [
        {"row": 7, "image_id": IDS[5], "path": "", "mark": "interesting", "class": "a"},
        {"image_id": "dropped", "path": "x", "mark": "interesting", "class": ""},
    ]
    page.evaluate("([key, text]) => localStorage.setItem(key, text)",
                  [key, json.dumps(lines)])  # fmt: skip
    page.reload()
    counted(
        map_page, "1 interesting, 0 not interesting, 1 with a class. 1 marked image"
    )
    assert page.evaluate("astromorphMap.marksAsText()").splitlines()[1:] == [
        f"{IDS[5]},fits/005.fits,interesting,a",
        "dropped,x,interesting,",
    ]
    for text, message in (
        ("path,label\n", "must name the columns, such as image_id,path,mark,class"),
        ("path,mark\nfits/001.fits,maybe\n", "found the mark “maybe”"),
        (f"image_id,path,mark\n{IDS[1]},,interesting\n,fits/001.fits,not interesting\n",
         "contradict each other"),
    ):  # fmt: skip
        assert re.search(message, page.evaluate(load, text))
