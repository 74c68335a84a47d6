"""Marks on the page of contact sheets, which the map and the step `rank` share."""

import re

import numpy as np
import pytest
from finished_run import catalogue_rows, image_ids, write_random_model, write_run
from test_map import browser  # noqa: F401

from astromorph.export.gallery.gallery import export_gallery
from astromorph.export.html_map.html_map import export_map
from astromorph.ranking.marks import read_marks
from astromorph.settings.sections import Settings

NUMBER = 40
IDS = image_ids(NUMBER)
PATHS = [f"fits/{k:03d}.fits" for k in range(NUMBER)]
ODD_NAME = '<b>"x" & y</b>'
SETTINGS = Settings()
COUNT = "#mark-count"


def export_sheets(files, **rules) -> None:
    """Write the contact sheets of a run."""
    export = SETTINGS.export_settings.model_copy(update={"gallery_images": 6} | rules)
    export_gallery(files, "list.csv", SETTINGS.data_settings, export, None, 0)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run with contact sheets and a map."""
    files = write_run(
        tmp_path_factory.mktemp("run") / "results",
        catalogue_rows(NUMBER, object=[ODD_NAME] + [""] * (NUMBER - 1)),
        vectors=np.random.default_rng(1).normal(size=(NUMBER, 6)).astype(np.float32),
    )
    write_random_model(files.model, SETTINGS)
    export_map(files, 16, 10**6, False)
    export_sheets(files)
    return files


class Tabs:
    """Pages of one browser; messages and requests to other machines are recorded."""

    def __init__(self, browser) -> None:  # noqa: F811
        self.context = browser.new_context(viewport={"width": 1000, "height": 800})
        self.wrong: list[str] = []
        self.context.route(
            re.compile(r"^(?!file:|data:|blob:)"),
            lambda route: self.wrong.append(route.request.url),
        )

    def open(self, path):
        """A new tab, in which questions are answered with yes."""
        page = self.context.new_page()
        page.on("console", lambda message: self.wrong.append(message.text))
        page.on("pageerror", lambda error: self.wrong.append(str(error)))
        page.on("dialog", lambda dialog: dialog.accept())
        page.goto(path.as_uri())
        page.locator(COUNT).wait_for()
        return page


@pytest.fixture
def tabs(browser):  # noqa: F811
    """Tabs; finally checks that there were no messages and no requests."""
    tabs = Tabs(browser)
    yield tabs
    assert tabs.wrong == []
    tabs.context.close()


def said(page, text: str) -> None:
    """Wait until the page says how many marks there are."""
    page.locator(COUNT, has_text=text).wait_for()


def frames_of(page, sheet: str):
    """The frames of a sheet, and the ids of their images."""
    frames = page.locator(f"#{sheet} .frame")
    ids = frames.evaluate_all("frames => frames.map(frame => frame.dataset.id)")
    return frames, ids


def save(page, path):
    """The marks of the page, saved as a file and read as by the step `rank`."""
    with page.expect_download() as saving:
        page.click("button:has-text('Save marks')")
    saving.value.save_as(path)
    marks = read_marks(path, IDS, PATHS)
    return {
        IDS[row]: (mark, name)
        for row, mark, name in zip(marks.rows, marks.marks, marks.classes, strict=True)
    }


@pytest.mark.browser
@pytest.mark.slow
def test_keys_mark_the_picture_that_is_pointed_at_or_focused(tabs, run, tmp_path):
    """Marks are shown on all frames of an image, kept, saved and loaded."""
    page = tabs.open(run.gallery / "index.html")
    frames, ids = frames_of(page, "outliers")
    said(page, "Point at a picture and press i")
    frames.nth(0).hover()
    page.keyboard.press("i")
    said(page, "1 interesting, 0 not interesting. Kept in this browser.")
    page.keyboard.press("Control+n")  # belongs to the browser
    page.keyboard.press("9")  # there is no such class
    # After a key, the next picture has focus, although the pointer is elsewhere.
    frames.nth(1).focus()
    page.mouse.move(1, 1)
    for key in ("n", "i", "u"):
        page.keyboard.press(key)
    frames.nth(3).focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("c")
    page.keyboard.type(ODD_NAME)
    page.keyboard.press("Enter")
    said(page, "2 interesting, 1 not interesting, 1 with a class")
    frames.nth(0).hover()
    page.keyboard.press("1")
    wanted = {
        ids[0]: ("interesting", ODD_NAME), ids[1]: ("not interesting", ""),
        ids[2]: ("interesting", ""), ids[4]: ("", ODD_NAME),
    }  # fmt: skip
    said(page, "2 with a class")
    assert save(page, tmp_path / "marks.csv") == wanted
    everywhere = page.locator(f".frame[data-id='{ids[1]}'] .mark")
    assert set(everywhere.all_inner_texts()) == {"✗ not interesting"}
    assert frames.nth(0).locator(".mark").inner_text() == f"✓ interesting, {ODD_NAME}"
    # They are there when the page is opened again, and after they were loaded.
    page.reload()
    said(page, "2 interesting")
    page.click("button:has-text('Clear')")
    said(page, "Point at a picture")
    assert page.locator(".mark").count() == 0
    for text, message in (
        (f"path,mark\n{PATHS[3]},maybe\n", "found the mark “maybe”"),
        ("path,label\n", "must name the columns"),
    ):
        (tmp_path / "wrong.csv").write_text(text)
        page.set_input_files("#marks-file", tmp_path / "wrong.csv")
        page.locator(".problem", has_text=message).wait_for()
    page.set_input_files("#marks-file", tmp_path / "marks.csv")
    said(page, "2 interesting, 1 not interesting, 2 with a class")
    assert page.locator(".problem").count() == 0
    assert save(page, tmp_path / "again.csv") == wanted


@pytest.mark.browser
@pytest.mark.slow
def test_map_and_contact_sheets_share_marks(tabs, run, tmp_path):
    """Each page shows at once what was marked on the other, in another tab."""
    sheets, the_map = tabs.open(run.gallery / "index.html"), tabs.open(run.map)
    frames, ids = frames_of(sheets, "outliers")
    frames.nth(2).hover()
    sheets.keyboard.press("i")
    the_map.locator("[data-strip=likely]").wait_for()
    said(the_map, "1 interesting, 0 not interesting")
    # A mark of an image without a frame is kept, too.
    other = next(k for k in range(NUMBER) if not sheets.locator(
        f".frame[data-id='{IDS[k]}']").count())  # fmt: skip
    the_map.evaluate(f"astromorphMap.setMark({other}, {{ mark: 'not interesting' }})")
    said(sheets, "1 interesting, 1 not interesting")
    frames.nth(3).hover()
    sheets.keyboard.press("n")
    said(the_map, "1 interesting, 2 not interesting")
    wanted = {
        ids[2]: ("interesting", ""), ids[3]: ("not interesting", ""),
        IDS[other]: ("not interesting", ""),
    }  # fmt: skip
    assert save(sheets, tmp_path / "marks.csv") == wanted
    assert save(the_map, tmp_path / "marks.csv") == wanted
    # On the way back from the map, the page of the sheets is as the map has left it.
    frames.nth(2).click()
    sheets.locator("#open-mark").wait_for()
    sheets.keyboard.press("u")
    said(sheets, "0 interesting, 2 not interesting")
    sheets.go_back()
    said(sheets, "0 interesting, 2 not interesting")
    assert frames.nth(2).locator(".mark").count() == 0


@pytest.mark.browser
@pytest.mark.slow
def test_sheets_without_a_map_can_be_marked(tabs, run, tmp_path):
    """Frames are no links then."""
    export_sheets(run, map=False)
    try:
        page = tabs.open(run.gallery / "index.html")
        frames, ids = frames_of(page, "outliers")
        assert page.locator("a.frame").count() == 0
        frames.nth(0).focus()
        page.keyboard.press("i")
        assert save(page, tmp_path / "marks.csv") == {ids[0]: ("interesting", "")}
    finally:
        export_sheets(run)


@pytest.mark.browser
@pytest.mark.slow
def test_a_point_of_the_map_is_marked_without_focus(tabs, run):
    """After the page was opened, it is enough to point at an image."""
    page = tabs.open(run.map)
    page.locator("body[data-ready]").wait_for()
    page.evaluate(
        """() => {
          document.getElementById("labels").checked = false;
          astromorphMap.drawAll();
        }"""
    )
    assert page.evaluate("document.activeElement === document.body")
    box = page.locator("#plot").bounding_box()
    x, y = page.evaluate("astromorphMap.pixelOf(7)")
    page.mouse.move(box["x"] + x + 1, box["y"] + y + 1)
    page.locator("#card[data-row='7']").wait_for()
    page.keyboard.press("i")
    said(page, "1 interesting")
    assert f"{IDS[7]},{PATHS[7]},interesting," in page.evaluate(
        "astromorphMap.marksAsText()"
    )
