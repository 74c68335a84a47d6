"""The interactive map: its content, and its behaviour in a browser."""

import base64
import csv
import functools
import io
import itertools
import json
import re
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from finished_run import (
    catalogue_rows,
    image_ids,
    random_analysis,
    write_run,
    write_tensors,
)
from PIL import Image

from astromorph.analysis.embedded_images import EmbeddedImages
from astromorph.analysis.space import fit_space
from astromorph.artefacts.analysis_table import Analysis, write_analysis
from astromorph.artefacts.columns import CATALOGUE_COLUMNS
from astromorph.artefacts.run_files import RunFiles
from astromorph.artefacts.tables import spreadsheet_safe, write_csv
from astromorph.errors import AstromorphError
from astromorph.export.html_map import html_map as module
from astromorph.export.html_map.chunks import MISSING, Chunks
from astromorph.export.html_map.html_map import export_map
from astromorph.export.html_map.packing import (
    SheetLayout,
    pack_categories,
    pack_numbers,
    pack_words,
)
from astromorph.export.palette import COLOURS, MARKERS
from astromorph.filelist.entries import read_filelist

NUMBER, WIDTH, SIDE = 48, 8, 32
NASTY = (
    "<script>window.hacked = 1</script>", '<img src=x onerror="window.hacked = 1">',
    "</script><script>window.hacked = 1</script>", "\"quotes\" and 'more'", "ünï ✨ 名",
    "tab\there", "null \x01 bell \x07", "=cmd|' /C calc'!A0", "-1+1", "$$x^2$$ @{path}",
    "<!-- comment", "a, b; c",
)  # fmt: skip
NAMES = [NASTY[k] if k < len(NASTY) else f"SKY {k:03d}" for k in range(NUMBER)]
KINDS = ["disk", "<b>ring</b>", "jet", ""]
ROLES = {3: "odd", 12: "representative", 30: "representative"}
IDS = image_ids(NUMBER)
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


def analysis() -> Analysis:
    """Images in rows of eight; the neighbours of an image are the next in the list."""
    places = np.array([divmod(k, WIDTH)[::-1] for k in range(NUMBER)], np.float32)
    cluster = np.repeat([0, 1, -1], [24, 16, 8]).astype(np.int32)
    near = [[(k + j) % NUMBER for j in (1, 2, 3)] for k in range(NUMBER)]
    return Analysis(
        image_ids=IDS,
        cluster=cluster,
        kmeans=cluster,
        hdbscan=(np.arange(NUMBER) % 40).astype(np.int32),
        map=places,
        pca=places[:, ::-1] * np.float32(0.5),
        outlier_score=np.linspace(0, 1, NUMBER, dtype=np.float32),
        outlier_rank=np.arange(NUMBER, 0, -1, dtype=np.int32),
        roles=tuple(ROLES.get(k, "") for k in range(NUMBER)),
        neighbours=tuple(tuple(IDS[j] for j in row) for row in near),
        distances=np.tile(np.float32([0.25, 0.5, 1.5]), (NUMBER, 1)),
        duplicates=tuple((IDS[11],) if k == 10 else () for k in range(NUMBER)),
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run with all files that the export reads; image k has the gray value 5 k.

    One listed file is rejected and one is left out by the split.
    """
    rows = catalogue_rows(
        NUMBER,
        object=NAMES,
        ra_deg=[10.5 + k for k in range(NUMBER)],
        dec_deg=[-5.25] * NUMBER,
        pixel_scale_arcsec=[0.5] * NUMBER,
        kind=KINDS * 12,
        unit=["JY/BEAM"] * NUMBER,
    )
    for k, row in enumerate(rows):
        row["<i>redshift</i>"] = 0.001 * k if k % 5 else ""
    bad = {"image_id": "f" * 16, "path": "bad.fits", "status": "rejected"}
    repeated = rows[0] | {"image_id": "e" * 16}
    gray = np.arange(NUMBER + 1, dtype=np.float16)[:, None, None, None] * 5 / 255
    files = write_run(
        tmp_path_factory.mktemp("a run"),
        [*rows[:7], bad, *rows[7:], repeated],
        shard_sizes=(21, NUMBER - 20, 1),
        subsets=["train"] * 7 + ["none"] + ["train"] * (NUMBER - 7) + ["none"],
        analysis=analysis(),
        pixels=np.tile(gray, (1, 1, 16, 16)).astype(np.float16),
        statistics={
            "noise": np.arange(NUMBER + 1, dtype=np.float32) / 7,
            # From 1e-5 to 1e3, and one outlier.
            "maximum": np.append(np.logspace(-5, 3, NUMBER), 0).astype(np.float32),
            "minimum": np.append(np.arange(NUMBER), 1e9).astype(np.float32),
        },
    )
    verdict = {"better": True, "summary": "better <b>by far</b>"}
    files.evaluation.write_text(json.dumps({"verdict": verdict}))
    return files


def copy_of(run, folder):
    """A copy of the run in a folder that a test may change."""
    ignore = shutil.ignore_patterns("export")
    shutil.copytree(run.results, folder, ignore=ignore, dirs_exist_ok=True)
    return replace(run, results=folder)


def export(run, folder, max_one_file=10**6):
    """The page of a copy of a run."""
    files = copy_of(run, folder)
    export_map(files, SIDE, max_one_file, with_evaluation=False)
    return files.map


@pytest.fixture(scope="module")
def exported(run):
    """The page in one file, with a verdict."""
    export_map(run, SIDE, 10**6, with_evaluation=True)
    return run.map


def script_data(text: str, name: str):
    """The JSON of a script element of the page."""
    found = re.search(rf'<script type="[^"]+" id="{name}">(.*?)</script>', text, re.S)
    assert found, name
    return json.loads(found[1])


def array(packed) -> np.ndarray:
    return np.frombuffer(base64.b64decode(packed["base64"]), packed["type"])


def map_column(text: str, name: str, number: int) -> tuple[list | None, bool]:
    """The unpacked cells of a column or None, and whether they are numbers."""
    page = script_data(text, "page")
    what = "names" if name in page["names"] else "facts"
    if name not in page[what]:
        return None, False
    cells, numeric = [], False
    for k, start in enumerate(range(0, number, page["rows"][what])):
        chunk = script_data(text, f"{what}-{k}")
        columns = chunk if what == "names" else chunk["columns"]
        data = columns[page[what].index(name)]
        numeric = "numbers" in data
        cells += unpacked(data, min(page["rows"][what], number - start))
    return cells, numeric


def unpacked(data, number: int) -> list:
    """The cells of a packed column."""
    if "numbers" in data:
        return array(data["numbers"]).tolist()
    codes = range(number) if data["codes"] is None else array(data["codes"])
    return [data["words"][code] for code in codes]


def cells(text: str, name: str) -> list:
    """The cells of a column that the page has."""
    found, _ = map_column(text, name, NUMBER)
    assert found is not None
    return found


def test_the_page_contains_every_column_of_every_image(exported):
    """Names of any kind are preserved; rejected and excluded files are missing."""
    text = exported.read_text(encoding="utf-8")
    assert cells(text, "object") == NAMES
    assert cells(text, "path") == [f"fits/{k:03d}.fits" for k in range(NUMBER)]
    assert cells(text, "kind") == KINDS * 12
    assert cells(text, "ra_deg") == [10.5 + k for k in range(NUMBER)]
    redshift = np.array(cells(text, "<i>redshift</i>"))
    assert np.isnan(redshift[::5]).all()
    assert redshift[7] == 0.007
    np.testing.assert_allclose(cells(text, "noise"), np.arange(NUMBER) / 7, rtol=1e-6)
    assert cells(text, "cluster") == ["0"] * 24 + ["1"] * 16 + [""] * 8
    kinds = {c["name"]: c["kind"] for c in script_data(text, "page")["columns"]}
    assert kinds["kind"] == kinds["cluster"] == kinds["role"] == "category"
    assert kinds["noise"] == kinds["<i>redshift</i>"] == "number"
    assert kinds["path"] == "text"
    assert "telescope" not in kinds  # empty everywhere
    units = {c["name"]: c["unit"] for c in script_data(text, "page")["columns"]}
    wanted = {"noise": "JY/BEAM", "pixel_scale_arcsec": "arcsec", "kind": ""}
    assert units.items() >= wanted.items()


def test_neighbours_are_row_numbers(exported):
    """With their distances, and the near-duplicates."""
    relations = script_data(exported.read_text(encoding="utf-8"), "facts-0")
    nearest = array(relations["nearest"]).reshape(NUMBER, 3)
    assert nearest[5].tolist() == [6, 7, 8]
    assert nearest[-1].tolist() == [0, 1, 2]
    assert array(relations["distances"])[:3].tolist() == [0.25, 0.5, 1.5]
    assert relations["duplicates"] == {"10": [11]}


def test_pictures_are_in_order_on_sheets(exported):
    """Image k has the gray value 5 k; none bleeds into the next one."""
    text = exported.read_text(encoding="utf-8")
    data = base64.b64decode(script_data(text, "pictures-0"))
    sheet = np.asarray(Image.open(io.BytesIO(data)))
    assert 'id="pictures-1"' not in text
    for k in range(NUMBER):
        top, left = (SIDE * part for part in divmod(k, 16))
        picture = sheet[top : top + SIDE, left : left + SIDE].astype(int)
        assert abs(picture - 5 * k).max() <= 2


@pytest.mark.parametrize(("side", "cell"), [(16, 16), (20, 24), (64, 64)])
def test_sheets_consist_of_whole_blocks(side, cell):
    """The second sheet of 300 pictures has 44 and is only as high as necessary."""
    drawn = SheetLayout.for_side(side).draw(np.full((300, side, side), 200, np.uint8))
    first, second = (Image.open(io.BytesIO(data)).size for data in drawn)
    assert first == (16 * cell, 16 * cell)
    assert second == (16 * cell, 3 * cell)


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        (["1", "2", "1", "2"], "category"),
        ([f"name {k}" for k in range(24)], "category"),
        ([f"name {k}" for k in range(60)], "text"),
        ([f"name {k % 30}" for k in range(60)], "category"),
    ],
)
def test_words_that_repeat_are_categories(words, kind):
    """As are few words; they are packed in the order of their first rows."""
    column = pack_words(pd.Series(words, name="a"))
    assert (column.kind, column.numbers) == (kind, None)
    assert [column.words[code] for code in column.codes] == words
    assert pack_categories(pd.Series(words, name="a")).kind == "category"


def test_numbers_are_packed_as_float32_if_that_is_exact():
    """All others are float64."""
    assert pack_numbers("a", np.array([0.5, np.nan])).numbers.dtype == np.float32
    assert pack_numbers("a", np.array([0.1])).numbers.dtype == np.float64


@pytest.mark.parametrize("max_one_file", [NUMBER + 1, NUMBER + 2])
def test_many_pictures_are_beside_the_page(run, tmp_path, max_one_file):
    """The number of listed files decides; the folder is complete and replaced."""
    files = copy_of(run, tmp_path)
    files.map_pictures.mkdir(parents=True)
    (files.map_pictures / "old.js").write_text("old")
    export_map(files, SIDE, max_one_file, with_evaluation=False)
    text = files.map.read_text(encoding="utf-8")
    in_page = max_one_file == NUMBER + 2
    assert ('id="pictures-0"' in text) == ('id="facts-0"' in text) == in_page
    # Representatives are seen without the folder.
    assert ('id="pictures-typical"' in text) != in_page
    page = script_data(text, "page")
    assert page["chunks"] == (None if in_page else "map_files")
    if not in_page:
        columns = {c["name"]: k for k, c in enumerate(page["columns"])}
        names = {p.name for p in files.map_pictures.iterdir()}
        expected = {"names-0.js", "facts-0.js", "pictures-0.js", "group-pca-0.js"}
        expected |= {"group-components-0.js"}
        assert expected < names
        assert names - expected <= {f"column-{k}.js" for k in columns.values()}
        # What the page needs to open is in the page.
        first = f"column-{columns[page['first']]}"
        assert f"{first}.js" not in names
        assert {"group-map-0", first} <= set(re.findall(r'id="([\w-]+)"', text))


def test_layouts_have_16_bits_per_axis():
    """Positions are exact to half a step; those that are not finite are marked."""
    places = np.random.default_rng(0).normal(size=(50, 2)).astype(np.float32)
    places[7], places[:, 1] = (np.nan, 0), places[:, 1] * 1e-6
    chunks = Chunks(None, "stamp")
    layout = chunks.add_layout("map", places)
    values = array(json.loads(chunks.in_page["group-map-0"])).reshape(-1, 2)
    assert (values.dtype, layout["parts"], layout["width"]) == (np.uint16, 1, 2)
    assert values[7].tolist() == [MISSING, MISSING]
    known = np.delete(np.arange(50), 7)
    found = layout["offsets"] + values[known] * layout["scales"]
    error = abs(found - places[known]) / layout["scales"]
    assert error.max() < 0.51
    same = chunks.add_layout("pca", np.full((3, 2), 5, np.float32))
    assert same["offsets"] == [5, 5]
    assert array(json.loads(chunks.in_page["group-pca-0"])).tolist() == [0] * 6


def test_a_large_page_is_reported(run, tmp_path, monkeypatch, caplog):
    """The warning names the setting, unless the data are in the folder."""
    monkeypatch.setattr(module, "LARGE_PAGE", 0)
    export(run, tmp_path / "one")
    assert "`export_settings.map_one_file` below 50" in caplog.text
    caplog.clear()
    export(run, tmp_path / "folder", max_one_file=0)
    assert not [r for r in caplog.records if r.levelname == "WARNING"]


def test_no_text_of_the_input_is_markup(exported):
    """Names are JSON without characters that are special in HTML."""
    text = exported.read_text(encoding="utf-8")
    assert "window.hacked = 1</script>" not in text
    assert "<img src=x" not in text
    assert "better &lt;b&gt;by far&lt;/b&gt;" in text
    scripts = re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', text)
    assert len(scripts) >= 3
    assert not any(set("<>&") & set(script) for script in scripts)


def test_files_that_do_not_match_are_an_error(run, tmp_path):
    """The message names the file, the image and the remedy."""
    files = copy_of(run, tmp_path)
    other = replace(analysis(), image_ids=("d" * 16, *IDS[1:]))
    write_analysis(files.analysis, other)
    files.evaluation.write_text("[]")
    with pytest.raises(AstromorphError, match=r"analysis\.parquet: .*run `analyse`"):
        export_map(files, SIDE, 100, with_evaluation=False)
    write_analysis(files.analysis, analysis())
    with pytest.raises(
        AstromorphError, match=r"evaluation\.json: the evaluation cannot be read"
    ):
        export_map(files, SIDE, 100, with_evaluation=True)
    write_tensors(files.all_tensors[1], ["e" * 16], np.zeros((1, 1, 16, 16)))
    with pytest.raises(
        AstromorphError, match=r"00002\.pt: the image 0+14 .*run `preprocess`"
    ):
        export_map(files, SIDE, 100, with_evaluation=False)
    assert not files.map.exists()


def test_one_image_alone_has_a_map(tmp_path):
    """The page is written even without neighbours and without a range of values."""
    one = {
        name: value[:1] if name != "distances" else value[:1, :0]
        for name in Analysis.__slots__
        for value in [getattr(analysis(), name)]
        if value is not None
    }
    one["neighbours"] = ((),)
    files = write_run(tmp_path, catalogue_rows(1), analysis=Analysis(**one))
    export_map(files, SIDE, 100, with_evaluation=False)
    text = files.map.read_text(encoding="utf-8")
    assert script_data(text, "page")["number"] == 1


# ---- in a browser ----


@pytest.fixture(scope="module")
def browser():
    """Headless Chromium, without a graphics card."""
    if CHROMIUM is None:
        pytest.skip("there is no chromium on this machine")
    from playwright.sync_api import sync_playwright

    options = ["--no-sandbox", "--disable-gpu"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=options)
        yield browser
        browser.close()


class Tab:
    """A page of a browser, which records all messages and requests."""

    def __init__(self, browser, **options) -> None:
        self.messages, self.requests, self.options = [], [], options
        context = browser.new_context(**options)
        self.page = context.new_page()
        self.page.on("console", self._record_message)
        self.page.on("pageerror", lambda error: self.messages.append(str(error)))
        context.route(re.compile(r"^(?!file:|data:|blob:)"), self._refuse)

    def _record_message(self, message) -> None:
        if message.type in ("error", "warning"):
            self.messages.append(message.text)

    def _refuse(self, route) -> None:
        self.requests.append(route.request.url)
        route.abort()

    def forget(self) -> None:
        """Forget what was recorded and stored, and what a failed test has left."""
        page = self.page
        if page.url.startswith("file:"):
            page.evaluate("localStorage.clear()")
        page.mouse.move(0, 0)
        page.mouse.up()
        page.keyboard.up("Shift")
        scheme = self.options.get("color_scheme", "null")
        page.emulate_media(media="null", color_scheme=scheme)
        page.goto("about:blank")
        self.messages.clear()
        self.requests.clear()


@functools.cache
def tab_of(browser, **options) -> Tab:
    """One tab for all pages with these options: a new one takes half a second."""
    return Tab(browser, **options)


class Watched:
    """A page that records all messages and requests.

    Labels, which cover points, are switched off unless they are tested.
    """

    def __init__(
        self, browser, path, width=1300, height=850, labels=False, **options
    ) -> None:
        tab = tab_of(browser, **options)
        tab.forget()
        self.page, self.messages, self.requests = tab.page, tab.messages, tab.requests
        self.page.set_viewport_size({"width": width, "height": height})
        self.page.goto(path.as_uri())
        self.page.wait_for_selector("body[data-ready]", timeout=30_000)
        if not labels:
            self.page.evaluate(
                """() => {
                  document.getElementById("labels").checked = false;
                  astromorphMap.drawAll();
                }"""
            )

    def place(self, row: int) -> tuple[float, float]:
        """The position of the point of an image on the screen."""
        return tuple(self.page.evaluate(
            """row => {
              const box = document.getElementById("plot").getBoundingClientRect();
              const [x, y] = astromorphMap.pixelOf(row);
              return [box.left + x + 1, box.top + y + 1];
            }""", row))  # fmt: skip

    def shown(self) -> list[int]:
        """The rows that are drawn."""
        return self.page.evaluate(
            """() => {
              const { order, paint } = astromorphMap.points;
              const shown = [...order].filter((_, k) => paint[k] !== 255);
              return shown.sort((a, b) => a - b);
            }""")  # fmt: skip

    def plot_pixels(self, marks: bool = False):
        """The colours of the points, or of the marks above them, near an image.

        Returns a function of a row and a number of pixels to its right.
        """
        colours = self.page.evaluate(
            """id => {
              astromorphMap.drawAll();
              const canvas = document.getElementById(id), { width, height } = canvas;
              const context = new OffscreenCanvas(width, height).getContext("2d");
              const pixels = {};
              context.drawImage(canvas, 0, 0);
              const { data } = context.getImageData(0, 0, width, height);
              for (let row = 0; row < astromorphMap.page.number; row++) {
                const [x, y] = astromorphMap.pixelOf(row).map(Math.floor);
                pixels[row] = [];
                for (let k = 0; k < 20; k++) {
                  const at = 4 * (y * width + x + k);
                  pixels[row].push([...data.slice(at, at + 3)]);
                }
              }
              return pixels;
            }""", "marks" if marks else "points")  # fmt: skip
        return lambda row, k=0: tuple(colours[str(row)][k])

    def state(self, name: str):
        """A value of the script's state."""
        return self.page.evaluate(f"astromorphMap.state.{name}")

    def expect_state(self, name: str, value) -> None:
        """Wait until the script's state has a value."""
        same = (
            f"value => JSON.stringify(astromorphMap.state.{name})"
            " === JSON.stringify(value)"
        )
        self.page.wait_for_function(same, arg=value, timeout=10_000)

    def colour(self, name: str) -> None:
        """Colour by a column."""
        self.page.select_option("#colour", name)
        title = self.page.locator("#legend h2", has_text=name)
        title.wait_for()

    def drag(self, *places) -> None:
        """Drag the pointer along positions."""
        mouse = self.page.mouse
        mouse.move(*places[0])
        mouse.down()
        for place in places[1:]:  # slowly, like a user
            self.page.wait_for_timeout(100)
            mouse.move(*place, steps=4)
        self.page.wait_for_timeout(100)
        mouse.up()

    def expect_list(self, rows: list[int]) -> None:
        """Wait until the list has these rows."""
        self.expect_state("list", rows)

    def expect_title(self, row: int) -> None:
        """Wait until an image is open."""
        self.expect_state("row", row)
        same = "t => document.querySelector('#image .title')?.textContent === t"
        self.page.wait_for_function(same, arg=NAMES[row], timeout=10_000)

    def tool(self, name: str) -> None:
        """Select a tool by its button."""
        self.page.click(f"#tools [data-tool={name}]")

    def around(self, *rows: int) -> list[tuple[float, float]]:
        """Corners of a box around points."""
        xs, ys = zip(*map(self.place, rows), strict=True)
        left, right, top, bottom = min(xs) - 9, max(xs) + 9, min(ys) - 9, max(ys) + 9
        return [(left, top), (right, top), (right, bottom), (left, bottom)]


@pytest.fixture
def map_page(browser, exported):
    """The page; finally checks that there were no network requests or messages."""
    watched = Watched(browser, exported)
    yield watched
    assert watched.messages == []
    assert watched.requests == []
    assert watched.page.evaluate("window.hacked") is None


@pytest.mark.browser
def test_points_are_drawn(map_page):
    """One for each image, with colour at its position."""
    assert map_page.shown() == list(range(NUMBER))
    for row, colour in ((0, COLOURS[0]), (30, COLOURS[1])):
        wanted = np.array([int(colour[k : k + 2], 16) for k in (1, 3, 5)])
        for _ in range(50):  # the browser shows what is drawn when it has time
            x, y = (round(v) for v in map_page.place(row))
            picture = Image.open(io.BytesIO(map_page.page.screenshot()))
            found = np.array(picture.convert("RGB").getpixel((x, y)))
            if abs(found - wanted).max() < 60:
                break
            map_page.page.wait_for_timeout(200)
        assert abs(found - wanted).max() < 60
    assert "better <b>by far</b>" in map_page.page.inner_text("header")


@pytest.mark.browser
@pytest.mark.parametrize("row", [0, 1, 7, 20, 47])
def test_hover_shows_picture_and_facts_of_this_image(map_page, row):
    """The gray value and the name are those of the point under the pointer."""
    map_page.page.mouse.move(*map_page.place(row))
    card = map_page.page.locator("#card")
    card.wait_for()
    drawn = map_page.page.wait_for_selector("#card canvas[data-drawn]")
    gray = drawn.evaluate("c => c.getContext('2d').getImageData(40, 40, 1, 1).data[0]")
    assert abs(gray - 5 * row) <= 3
    shown = card.locator(".title").evaluate("e => e.textContent")
    assert shown == NAMES[row]
    if KINDS[row % 4]:
        assert KINDS[row % 4] in card.inner_text()
    map_page.page.mouse.move(5, 5)
    card.wait_for(state="hidden")


@pytest.mark.browser
def test_colours_follow_the_column(map_page):
    """Categories have colours, then markers; numbers have a colour bar."""
    assert map_page.state("scale") is None
    map_page.colour("outlier_score")
    scale = map_page.state("scale")
    assert (scale["low"], scale["high"]) == pytest.approx((1 / 47, 46 / 47))
    assert scale["isLog"] is False
    codes = map_page.page.evaluate("[...astromorphMap.points.codes]")
    steps = len(map_page.page.evaluate("astromorphMap.points.palette")) - 1
    middle = np.clip((np.arange(NUMBER) - 1) / 45, 0, 1) * steps
    assert abs(np.array(codes) - np.minimum(np.floor(middle), steps - 1)).max() <= 1
    map_page.colour("<i>redshift</i>")
    codes = np.array(map_page.page.evaluate("[...astromorphMap.points.codes]"))
    steps = len(map_page.page.evaluate("astromorphMap.points.palette")) - 1
    assert (np.flatnonzero(codes == steps) % 5 == 0).all()
    map_page.colour("cluster_hdbscan")
    assert map_page.state("scale") is None
    rest = map_page.page.locator("#legend li").last.inner_text()
    most = len(COLOURS) * len(MARKERS)
    assert f"other values ({40 - most})" in rest
    palette = map_page.page.evaluate("astromorphMap.points.palette")
    assert {p["marker"] for p in palette} == set(range(len(MARKERS)))
    assert len({(p["marker"], p["colour"]) for p in palette}) == most + 1


@pytest.mark.browser
def test_scales_suit_the_range_of_the_values(map_page):
    """Logarithmic over decades; one outlier has no influence; plain texts and units."""
    page = map_page.page
    map_page.colour("maximum")
    scale = map_page.state("scale")
    assert scale["isLog"] is True
    values = np.logspace(-5, 3, NUMBER)
    assert (scale["low"], scale["high"]) == pytest.approx((values[1], values[46]))
    codes = page.evaluate("[...astromorphMap.points.codes]")
    assert np.ptp(np.diff(codes[1:46])) <= 1, "equal steps of colour"
    ticks = page.evaluate("ticksOf(astromorphMap.state.scale)")
    assert [tick["text"] for tick in ticks] == ["10⁻⁴", "0.01", "1", "100"]
    place = (np.log10(0.01) - np.log10(values[1])) / np.log10(values[46] / values[1])
    assert ticks[1]["share"] == pytest.approx(place)
    assert "from 10⁻⁵ to 1000 JY/BEAM" in page.inner_text("#legend")
    page.uncheck("#log")
    map_page.expect_state("scale.isLog", False)
    assert map_page.state("scale")["high"] < 1000
    page.check("#log")
    map_page.expect_state("scale.isLog", True)
    map_page.colour("minimum")
    assert map_page.state("scale")["high"] == 46, "not the outlier 1e9"
    map_page.colour("<i>redshift</i>")
    assert map_page.state("scale")["isLog"] is False
    numbers = [1e-5, -1e-9, 2.5e-7, 0.01, 0, 123456789]
    texts = page.evaluate("numbers => numbers.map(n => plainNumber(n))", numbers)
    assert texts == ["10⁻⁵", "−10⁻⁹", "2.5×10⁻⁷", "0.01", "0", "1.2346×10⁸"]


@pytest.mark.browser
def test_groups_have_pictures_and_names(browser, exported):
    """Those of the representatives, in the legend and on the map, without overlap."""
    watched = Watched(browser, exported, labels=True)
    page = watched.page
    page.wait_for_function("() => astromorphMap.labels()?.placed.length === 2")
    placed = page.evaluate("astromorphMap.labels().placed")
    assert [(one["row"], one["text"]) for one in placed] == [
        (12, "cluster 0"), (30, "cluster 1"),
    ]  # fmt: skip
    one, other = (label["box"] for label in placed)
    size = page.locator("#plot").bounding_box()
    for box in (one, other):
        assert 0 < box["left"] < box["right"] < size["width"]
        assert 0 < box["top"] < box["bottom"] < size["height"]
    apart = [one["left"] - other["right"], other["left"] - one["right"],
             one["top"] - other["bottom"], other["top"] - one["bottom"]]  # fmt: skip
    assert max(apart) > 0
    # While the map is zoomed, labels follow their groups; then they find new places.
    follows = """() => {
      const { view, moveTo, drawAll, labels } = astromorphMap, before = labels();
      moveTo(view.x, view.y, 1.25 * view.scale);
      drawAll();
      return labels() === before;
    }"""
    assert page.evaluate(follows)
    settled = "() => astromorphMap.labels()?.scale === astromorphMap.view.scale"
    page.wait_for_function(settled)
    page.click("#whole")
    page.wait_for_function(settled)
    one, other = (one["box"] for one in page.evaluate("astromorphMap.labels().placed"))
    x, y = (one["left"] + one["right"]) / 2, (one["top"] + one["bottom"]) / 2 - 9
    at = (size["x"] + x, size["y"] + y)
    gray = """([x, y]) => {
      const context = new OffscreenCanvas(1, 1).getContext("2d");
      context.drawImage(document.getElementById("marks"), -x, -y);
      return context.getImageData(0, 0, 1, 1).data[0];
    }"""
    seen = f"at => Math.abs(({gray})(at) - 60) <= 3"
    page.wait_for_function(seen, arg=[x, y])
    page.mouse.click(*at)
    watched.expect_title(12)
    page.keyboard.press("Escape")  # closes the card, then the image
    page.keyboard.press("Escape")
    page.click("#labels")
    page.wait_for_function("() => astromorphMap.labels() === null")
    assert page.evaluate(gray, [x, y]) == 0

    # The legend by keyboard: a picture selects its cluster, and again clears the list.
    pictures = page.locator("#legend button.example")
    assert pictures.nth(0).get_attribute("aria-label") == "Select cluster 0, 24 images"
    drawn = page.wait_for_selector("#legend .example canvas[data-drawn]")
    shown = drawn.evaluate("c => c.getContext('2d').getImageData(9, 9, 1, 1).data[0]")
    assert abs(shown - 60) <= 3
    pictures.nth(0).focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    watched.expect_list(list(range(24, 40)))
    assert pictures.nth(1).get_attribute("aria-pressed") == "true"
    page.keyboard.press("Enter")
    watched.expect_list([])
    assert pictures.nth(1).get_attribute("aria-pressed") == "false"
    # Groups of other columns have the picture of one of their own images.
    watched.colour("kind")
    rows = page.evaluate("typicalRows('kind')")
    assert [row % 4 for row in rows[:3]] == [0, 1, 2]
    assert rows[3] == -1, "none for images without a value"
    assert watched.messages == []


@pytest.mark.browser
def test_few_far_points_are_outside_of_the_first_view(browser, run, tmp_path):
    """An arrow with their number shows the whole map; numbers are exact."""
    files = copy_of(run, tmp_path)
    places = analysis().map.copy()
    places[[5, 40]] = (200, 2), (210, 3)
    write_analysis(files.analysis, replace(analysis(), map=places))
    export_map(files, SIDE, 10**6, with_evaluation=False)
    watched = Watched(browser, files.map)
    page = watched.page
    size = page.locator("#plot").bounding_box()
    inside = [row for row in range(NUMBER) if row not in (5, 40)]
    pixels = np.array([page.evaluate(f"astromorphMap.pixelOf({k})") for k in inside])
    assert (pixels > 0).all()
    assert (pixels < (size["width"], size["height"])).all()
    assert np.ptp(pixels, axis=0).max() > 0.6 * min(size["width"], size["height"])
    arrow = page.locator("#edge-right")
    assert arrow.inner_text() == "2 ▶"
    assert "2 images to the right" in arrow.get_attribute("aria-label")
    assert page.locator(".edge:visible").count() == 1
    exact = """() => {
      const { px, py } = astromorphMap.points;
      const pair = () => [0, 1].map(() => Math.floor(65536 * Math.random() ** 3)).sort(
        (a, b) => a - b);
      for (let k = 0; k < 2000; k++) {
        const [left, right] = pair(), [bottom, top] = pair();
        const isInside = (x, j) =>
          x >= left && x <= right && py[j] >= bottom && py[j] <= top;
        const number = px.filter(isInside).length;
        if (astromorphMap.countShown(left, bottom, right, top) !== number) return k;
      }
      return null;
    }"""
    assert page.evaluate(exact) is None
    arrow.click()
    hidden = "() => document.querySelector('.edge:not([hidden])') === null"
    page.wait_for_function(hidden)
    far = page.evaluate("astromorphMap.pixelOf(40)")
    assert 0 < far[0] < size["width"]
    page.click("#main-part")
    arrow.wait_for()
    assert watched.messages == []


@pytest.mark.browser
def test_the_legend_filters_with_counts(map_page):
    """Checkboxes, the buttons None and All, and a filter of a second column."""
    page = map_page.page
    map_page.colour("kind")
    assert "<b>ring</b>" in page.inner_text("#legend")
    assert page.locator("#legend .count").all_inner_texts() == ["12"] * 4
    page.locator("#legend label", has_text="<b>ring</b>").locator("input").uncheck()
    assert map_page.shown() == [k for k in range(NUMBER) if k % 4 != 1]
    assert "36 of 48 images shown" in page.inner_text("#shown")
    map_page.colour("cluster")
    page.locator("#legend label", has_text="none").locator("input").uncheck()
    assert map_page.shown() == [k for k in range(40) if k % 4 != 1]
    assert "kind" in page.inner_text("#shown")
    page.mouse.move(*map_page.place(45))
    page.wait_for_timeout(150)
    assert page.locator("#card").is_hidden()
    page.click("text=Show all images")
    assert map_page.shown() == list(range(NUMBER))
    page.locator("#legend button", has_text="None").click()
    assert map_page.shown() == []
    page.locator("#legend button", has_text="All").first.click()
    assert map_page.shown() == list(range(NUMBER))


@pytest.mark.browser
def test_numbers_are_filtered_by_range(map_page):
    """A minimum and a maximum; images without a number are hidden."""
    map_page.colour("<i>redshift</i>")
    fields = map_page.page.locator("#legend input[type=number]")
    fields.nth(0).fill("0.0195")
    fields.nth(0).press("Tab")
    fields.nth(1).fill("0.031")
    fields.nth(1).press("Tab")
    assert map_page.shown() == [k for k in range(20, 32) if k % 5]


@pytest.mark.browser
@pytest.mark.parametrize(
    ("query", "rows"),
    [
        ("sky 02", list(range(20, 30))),
        ("047.fits", [47]),
        ("fits/01", list(range(10, 20))),
        ("0000001f", [31]),
        ("<script>", [0, 2]),
        ("fits/999", []),
    ],
)
def test_search_shows_matches_and_their_number(map_page, query, rows):
    """By object, file name, path or id; matches are marked and zoomed to."""
    page = map_page.page
    page.fill("#query", query)
    page.press("#query", "Enter")
    map_page.expect_state("found", rows)
    says = page.inner_text("#said")
    assert says == (
        f"{len(rows)} match{'es' * (len(rows) != 1)}" if rows else "no match"
    )
    if rows:
        box = page.locator("#plot").bounding_box()
        x, y = map_page.place(rows[-1])
        assert box["x"] < x < box["x"] + box["width"]
        assert box["y"] < y < box["y"] + box["height"]
    if len(rows) > 1:
        page.click("#take")
        map_page.expect_list(rows)
    if len(rows) == 1:
        map_page.expect_state("row", rows[0])


def saved(page, words: str, folder):
    """The file that a button saves."""
    with page.expect_download() as waiting:
        page.click(f"text={words}")
    path = folder / waiting.value.suggested_filename
    waiting.value.save_as(path)
    return path


@pytest.mark.browser
def test_a_lasso_selection_can_be_saved(map_page, tmp_path):
    """As a table without formulas, and as a file list for astromorph."""
    page = map_page.page
    map_page.tool("lasso")
    map_page.drag(*map_page.around(0, 3, 19), map_page.around(0)[0])
    rows = [8 * j + k for j in range(3) for k in range(4)]
    map_page.expect_list(rows)
    assert "List of 12 images" in page.inner_text("#list")
    assert page.locator("#list .strip canvas").count() == 12
    with open(
        saved(page, "Save table", tmp_path), newline="", encoding="utf-8"
    ) as file:
        table = list(csv.DictReader(file))
    assert [row["image_id"] for row in table] == [IDS[k] for k in rows]
    safe = {k: spreadsheet_safe(NAMES[k]) for k in rows}
    assert [row["object"] for row in table] == list(safe.values())
    assert [float(row["ra_deg"]) for row in table] == [10.5 + k for k in rows]
    assert [float(row["x"]) for row in table] == [k % 8 for k in rows]
    entries = list(read_filelist(saved(page, "Save file list", tmp_path)))
    assert [entry.columns["kind"] for entry in entries] == [KINDS[k % 4] for k in rows]
    assert all(entry.path.startswith("/") for entry in entries)
    assert [entry.path[-13:] for entry in entries] == [
        f"fits/{k:03d}.fits" for k in rows
    ]


@pytest.mark.browser
def test_a_box_selects_and_shift_adds(map_page):
    """Only images that are shown are selected; the list can be cleared."""
    page = map_page.page
    map_page.colour("kind")
    page.locator("#legend label", has_text="jet").locator("input").uncheck()
    map_page.tool("box")
    corners = map_page.around(40, 43)
    map_page.drag(corners[0], corners[2])
    map_page.expect_list([40, 41, 43])
    page.keyboard.down("Shift")
    corners = map_page.around(0)
    map_page.drag(corners[0], corners[2])
    page.keyboard.up("Shift")
    map_page.expect_list([0, 40, 41, 43])
    page.click("text=Clear")
    map_page.expect_list([])


@pytest.mark.browser
def test_a_click_shows_the_image_and_its_neighbours(map_page):
    """Facts, distances, and links by position, which are only followed on a click."""
    page = map_page.page
    page.mouse.click(*map_page.place(10))
    image = page.locator("#image")
    image.wait_for()
    assert image.locator(".title").evaluate("e => e.textContent") == NAMES[10]
    assert image.locator(".distance").all_inner_texts() == ["0.250", "0.500", "1.50"]
    assert image.locator(".strip button.same").count() == 1
    assert "1 near-duplicate (orange frame)" in image.inner_text()
    gray = page.wait_for_selector("#image .picture[data-drawn]").evaluate(
        "c => c.getContext('2d').getImageData(99, 99, 1, 1).data[0]"
    )
    assert abs(gray - 50) <= 3
    links = image.locator("a")
    addresses = [links.nth(k).get_attribute("href") for k in range(2)]
    assert "aladin" in addresses[0]
    assert "target=20.5%20-5.25&fov=0.0167" in addresses[0]
    assert "simbad" in addresses[1]
    assert {links.nth(k).get_attribute("target") for k in range(2)} == {"_blank"}
    assert "noopener" in links.first.get_attribute("rel")
    image.locator(".strip button").nth(1).click()
    map_page.expect_title(12)
    image.locator("text=Back").click()
    map_page.expect_title(10)
    image.locator("text=Add neighbours").click()
    map_page.expect_list([10, 11, 12, 13])


@pytest.mark.browser
def test_the_map_can_be_used_by_keyboard(map_page):
    """Tab focuses the map, arrow keys move it, Enter opens, Escape closes an image."""
    page = map_page.page
    seen = set()
    for _ in range(40):
        page.keyboard.press("Tab")
        seen.add(page.evaluate("document.activeElement.id"))
        if "plot" in seen:
            break
    assert {"colour", "layout", "query", "draw", "whole", "plot"} <= seen
    outline = "getComputedStyle(document.activeElement).outlineStyle"
    assert page.evaluate(outline) == "solid"
    start = page.evaluate("astromorphMap.view.x")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("+")
    assert page.evaluate("astromorphMap.view.x") > start
    page.keyboard.press("0")
    page.keyboard.press("Enter")
    page.locator("#image").wait_for()
    row = map_page.state("row")
    assert row in (19, 20, 27, 28)
    map_page.expect_title(row)
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    map_page.expect_title(row + 2)
    page.keyboard.press("Escape")
    assert map_page.state("row") == -1
    assert page.evaluate("document.activeElement.id") == "plot"


@pytest.mark.browser
def test_a_selection_survives_a_change_of_layout(map_page):
    """Selected and other points move to their new places, with their new colours."""
    map_page.tool("lasso")
    map_page.drag(*map_page.around(0, 3, 19), map_page.around(0)[0])
    rows = [8 * j + k for j in range(3) for k in range(4)]
    map_page.expect_list(rows)
    scales = map_page.page.evaluate("astromorphMap.points.scales")
    map_page.page.select_option("#layout", "pca")
    map_page.page.wait_for_function(
        "old => astromorphMap.points.scales[0] !== old", arg=scales[0]
    )
    assert map_page.state("list") == rows
    image, places = map_page.plot_pixels(), analysis().pca
    blue = tuple(int(COLOURS[0][k : k + 2], 16) for k in (1, 3, 5))
    for row in range(NUMBER):
        is_strong = image(row) == pytest.approx(blue, abs=40)
        assert is_strong == (row in rows)
        assert image(row) != (255, 255, 255)
    view = map_page.page.evaluate("astromorphMap.view")
    shown = [map_page.page.evaluate(f"astromorphMap.pixelOf({k})") for k in (0, 19, 47)]
    centre = (view["width"] / 2, view["height"] / 2)
    wanted = (places[[0, 19, 47]] - (view["x"], view["y"])) / view["scale"]
    assert np.allclose(shown, wanted * (1, -1) + centre, atol=0.1)


@pytest.mark.browser
def test_principal_components_instead_of_the_map(map_page):
    """The points move, and so do their positions under the pointer."""
    before = map_page.place(9)
    map_page.page.select_option("#layout", "pca")
    map_page.page.wait_for_timeout(200)
    after = map_page.place(15)
    map_page.page.mouse.move(*after)
    map_page.page.locator("#card").wait_for()
    assert map_page.page.locator("#card .title").inner_text() == NAMES[15]
    assert before != map_page.place(9)


@pytest.mark.browser
def test_dragging_moves_and_the_wheel_zooms(map_page):
    """The point under the pointer stays there."""
    page, (x, y) = map_page.page, map_page.place(12)
    map_page.drag((x, y), (x + 60, y - 30))
    assert map_page.place(12) == pytest.approx((x + 60, y - 30), abs=1)
    assert map_page.state("row") == -1
    scale = page.evaluate("astromorphMap.view.scale")
    page.mouse.wheel(0, -300)
    page.wait_for_timeout(200)
    assert page.evaluate("astromorphMap.view.scale") < 0.8 * scale
    assert map_page.place(12) == pytest.approx((x + 60, y - 30), abs=1)
    map_page.tool("zoom")
    scale = page.evaluate("astromorphMap.view.scale")
    x, y = map_page.place(12)
    map_page.drag((x - 80, y - 80), (x + 80, y + 80))
    assert page.evaluate("astromorphMap.view.scale") < 0.4 * scale
    box = page.locator("#plot").bounding_box()
    middle = (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    assert map_page.place(12) == pytest.approx(middle, abs=15)
    assert map_page.state("list") == []


@pytest.mark.browser
def test_two_fingers_zoom(browser, exported):
    """Twice the distance of the fingers is twice the size of the map."""
    watched = Watched(browser, exported, has_touch=True)
    page = watched.page
    session = page.context.new_cdp_session(page)
    box = page.locator("#plot").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2

    def touch(kind, half):
        fingers = [{"x": x + k * half, "y": y, "id": k + 1} for k in (-1, 1)]
        what = {"type": kind, "touchPoints": fingers}
        session.send("Input.dispatchTouchEvent", what)

    scale = page.evaluate("astromorphMap.view.scale")
    touch("touchStart", 40)
    for half in range(45, 81, 5):
        touch("touchMove", half)
    now = page.evaluate("astromorphMap.view.scale")
    assert now == pytest.approx(scale / 2, rel=0.15)
    assert watched.state("row") == -1
    assert watched.messages == []


@pytest.mark.browser
def test_a_list_dims_all_other_points(map_page):
    """They are still drawn, in a colour near that of the background."""
    image = map_page.plot_pixels()
    before = [image(row) for row in (0, 30)]
    map_page.page.evaluate("astromorphMap.setList([0])")
    image = map_page.plot_pixels()
    assert image(0) == before[0]
    assert all(v > 200 for v in image(30))
    assert image(30) != (255, 255, 255)


@pytest.mark.browser
def test_the_picture_of_the_map_is_saved(map_page, tmp_path):
    """With points and the colour bar."""
    map_page.colour("outlier_score")
    path = saved(map_page.page, "Save picture", tmp_path)
    assert path.name == "map.png"
    with Image.open(path) as picture:
        pixels = np.asarray(picture.convert("RGB")).reshape(-1, 3)
    size = map_page.page.locator("#plot").bounding_box()
    assert len(pixels) == pytest.approx(size["width"] * size["height"], rel=0.02)
    assert len(np.unique(pixels, axis=0)) > 200, "the colour bar has all colours"
    map_page.page.check("#draw")
    map_page.page.wait_for_timeout(500)  # until they are loaded
    path = saved(map_page.page, "Save picture", tmp_path)
    with Image.open(path) as picture:
        pixels = np.asarray(picture.convert("RGB")).reshape(-1, 3).astype(int)
    is_gray = (np.ptp(pixels, axis=1) == 0) & (abs(pixels[:, 0] - 110) < 80)
    assert is_gray.sum() > 5 * 58**2, "small pictures, if they are shown"


@pytest.mark.browser
def test_dark_mode_and_print(browser, exported):
    """Black points are white on a dark page, and black again on paper."""
    watched = Watched(browser, exported, color_scheme="dark")
    page = watched.page
    paper = "getComputedStyle(document.body).backgroundColor"
    assert max(int(v) for v in re.findall(r"\d+", page.evaluate(paper))) < 40
    watched.colour("cluster_hdbscan")
    colours = "astromorphMap.points.palette.map(p => p.colour)"
    assert {"#000000", "#ffffff"} & set(page.evaluate(colours)) == {"#ffffff"}
    assert max(watched.plot_pixels()(0, 14)) < 40
    page.emulate_media(media="print", color_scheme="dark")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.evaluate(paper) == "rgb(255, 255, 255)"
    assert {"#000000", "#ffffff"} & set(page.evaluate(colours)) == {"#000000"}
    assert watched.plot_pixels()(0, 14) == (255, 255, 255)
    assert page.locator(".bar").is_hidden()
    assert watched.messages == []


@pytest.mark.browser
def test_new_images_are_drawn_above_all_others(browser, run, tmp_path, monkeypatch):
    """A column of bool `new`: larger markers with an outline; it is also a category."""

    def with_new(files):
        return run_table(files).assign(new=np.arange(NUMBER) == 30)

    run_table = module.run_table
    monkeypatch.setattr(module, "run_table", with_new)
    watched = Watched(browser, export(run, tmp_path))
    assert watched.page.evaluate("astromorphMap.points.isNew") == [30]
    outline = [watched.plot_pixels(marks=True)(row, 8) for row in (29, 30)]
    assert max(outline[0]) == 0, "nothing is drawn above an ordinary point"
    assert outline[1] == pytest.approx((27, 31, 36), abs=12)
    watched.colour("new")
    counts = watched.page.locator("#legend .count").all_inner_texts()
    assert counts == ["1", str(NUMBER - 1)]
    assert watched.messages == []


@pytest.mark.browser
def test_pictures_replace_points(map_page):
    """There is one in each cell of the map; hovering and clicking refer to it."""
    page = map_page.page
    page.check("#draw")
    page.wait_for_function(
        "() => Number(document.getElementById('pictures').dataset.number) > 9"
    )
    page.mouse.click(*map_page.place(20))
    assert map_page.state("row") >= 0
    page.uncheck("#draw")
    assert page.locator("#pictures").is_hidden()


@pytest.mark.browser
@pytest.mark.parametrize("wide", [360, 1024, 1280])
def test_a_narrow_window_is_readable(browser, exported, wide):
    """The page is not wider than the window, and an open image does not hide points."""
    watched = Watched(browser, exported, wide, 720)
    width = "document.documentElement.scrollWidth"
    assert watched.page.evaluate(width) <= wide
    words = """() => {
      const name = document.querySelector("#legend .name");
      name.textContent = "filament";
      return name.offsetHeight / parseFloat(getComputedStyle(name).lineHeight);
    }"""
    assert watched.page.evaluate(words) < 1.5, "a word of the legend is in one line"
    watched.page.locator("#plot").scroll_into_view_if_needed()
    watched.page.mouse.click(*watched.place(12))
    watched.page.locator("#image").wait_for()
    assert watched.page.evaluate(width) <= wide
    plot = watched.page.locator("#plot").bounding_box()
    assert plot["y"] >= 0
    assert plot["y"] + plot["height"] <= 720
    places = [watched.place(row) for row in range(NUMBER)]
    assert all(plot["x"] < x < plot["x"] + plot["width"] for x, _ in places)
    assert all(plot["y"] < y < plot["y"] + plot["height"] for _, y in places)
    assert plot["width"] * plot["height"] > 0.3 * wide * 720
    picture = watched.page.locator("#image .picture").bounding_box()
    assert picture["y"] < 720
    assert watched.messages == []


@pytest.mark.browser
def test_pictures_beside_the_page_are_shown(browser, run, tmp_path):
    """If the folder is missing, the page shows a message and still works."""
    page = export(run, tmp_path / "map #1", max_one_file=0)
    pictures = page.parent / "map_files"
    watched = Watched(browser, page)
    watched.page.mouse.move(*watched.place(13))
    watched.page.wait_for_selector("#card canvas[data-drawn]")
    assert watched.messages == []
    facts = (pictures / "facts-0.js").read_text()
    other = facts.replace(script_data(page.read_text(), "page")["stamp"], "other")
    (pictures / "facts-0.js").write_text(other)
    watched.page.reload()
    watched.page.wait_for_selector("body[data-ready]")
    watched.page.mouse.move(*watched.place(13))
    watched.page.wait_for_selector("#trouble", state="visible")
    assert "belong to it" in watched.page.inner_text("#trouble")
    assert other != facts
    shutil.move(pictures, tmp_path / "gone")
    watched = Watched(browser, page)
    watched.page.mouse.move(*watched.place(13))
    watched.page.wait_for_selector("#trouble", state="visible")
    assert "map_files" in watched.page.inner_text("#trouble")


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """The page of 200,000 images, with its data in a folder, and their positions.

    Positions are random in a circle; `kind` is `a`, `b` or `c` in turn; image k has the
    name `OBJECT k`; the neighbour of an image is the next one.
    """
    number, draw = 200_000, np.random.default_rng(0)
    angle, radius = 2 * np.pi * draw.random(number), np.sqrt(draw.random(number))
    places = np.stack([radius * np.cos(angle), 0.5 * radius * np.sin(angle)], axis=1)
    ids = pd.Series(image_ids(number))
    near = pa.ListArray.from_arrays(np.arange(number + 1), list(np.roll(ids, -1)))
    far = pa.array(draw.random((number, 1)).tolist(), pa.list_(pa.float32()))
    none = pa.ListArray.from_arrays(
        np.zeros(number + 1, int), pa.array([], pa.string())
    )
    empty = pd.Series([""] * number)
    table = pd.DataFrame(dict.fromkeys((*CATALOGUE_COLUMNS, "subset"), empty))
    table = table.assign(
        image_id=ids,
        path=[f"fits/{k}.fits" for k in range(number)],
        object=[f"OBJECT {k}" for k in range(number)],
        kind=(["a", "b", "c"] * number)[:number],
        remark=[f"remark {k}" for k in range(number)],
        cluster=np.int32(0), cluster_kmeans=np.int32(0), cluster_hdbscan=np.int32(0),
        x=places[:, 0].astype(np.float32), y=places[:, 1].astype(np.float32),
        pca_1=places[:, 1].astype(np.float32), pca_2=places[:, 0].astype(np.float32),
        outlier_score=np.linspace(0, 1, number, dtype=np.float32),
        outlier_rank=np.arange(number, 0, -1, dtype=np.int32), role="",
        neighbour_ids=pd.arrays.ArrowExtensionArray(near),
        neighbour_distances=pd.arrays.ArrowExtensionArray(far),
        duplicate_ids=pd.arrays.ArrowExtensionArray(none),
    )  # fmt: skip
    files = RunFiles(tmp_path_factory.mktemp("large"))
    write_csv(files.catalogue, CATALOGUE_COLUMNS, catalogue_rows(1))
    write_analysis(files.analysis, random_analysis(image_ids(1)))
    picture = np.full((16, 16), 77, np.uint8)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "run_table", lambda files: table)
        vectors = draw.random((number, 4), np.float32)
        embedded = EmbeddedImages(tuple(ids), tuple(table["path"]), vectors)
        analysed = (embedded, fit_space(vectors, whiten=0.5, components=4))
        patch.setattr(module, "read_analysed_images", lambda files: analysed)
        pictures = lambda shards, side: itertools.repeat(picture, number)  # noqa: E731
        patch.setattr(module.ShardPictures, "thumbnails", pictures)
        export_map(files, 16, 0, with_evaluation=False)
    return files.map, places


@pytest.mark.slow
@pytest.mark.browser
def test_many_points(browser, large):
    """All are drawn; pointing, selecting, filtering and searching are correct."""
    path, places = large
    number = len(places)
    watched = Watched(browser, path)
    page = watched.page
    assert watched.requests == []
    assert len(page.evaluate("[...astromorphMap.points.order]")) == number
    assert sorted(watched.shown()) == list(range(number))
    row = 123_456
    near = page.evaluate(f"astromorphMap.nearestRow(...astromorphMap.pixelOf({row}))")
    assert near["row"] == row
    page.mouse.move(*watched.place(row))
    page.locator("#card").wait_for()
    assert page.inner_text("#card .title").startswith("OBJECT ")
    page.fill("#query", f"object {row}")
    page.press("#query", "Enter")
    watched.expect_state("row", row)
    page.locator("#image").wait_for()
    assert "remark 123456" in page.inner_text("#image")
    assert page.locator("#image .strip button").get_attribute("data-row") == str(
        row + 1
    )
    page.fill("#query", "")
    page.click("#whole")
    watched.tool("box")
    box = page.locator("#plot").bounding_box()
    middle = np.array([box["x"] + box["width"] / 2, box["y"] + box["height"] / 2])
    watched.drag(middle - 80, middle + np.array([100, 40]))
    page.locator("#list h2", has_text="List of").wait_for()
    listed = np.zeros(number, bool)
    listed[watched.state("list")] = True
    view = page.evaluate("astromorphMap.view")
    pixels = (places - [view["x"], view["y"]]) / view["scale"] * [1, -1]
    inside = ((pixels > -80) & (pixels < (100, 40))).all(axis=1)
    edge = (abs(pixels + 80).min(axis=1) < 2) | (
        abs(pixels - (100, 40)).min(axis=1) < 2
    )
    assert 1000 < inside.sum() < number / 2
    assert (listed == inside)[~edge].all()
    page.evaluate("astromorphMap.setList([])")
    # While the map is zoomed, the small pictures stay; then others are chosen.
    page.check("#draw")
    rows = "shownPictures.map(({ row }) => row)"
    page.wait_for_function(f"() => {rows}.length > 9")
    before = page.evaluate(rows)
    page.evaluate("() => { moveTo(view.x, view.y, 0.98 * view.scale); drawAll(); }")
    assert page.evaluate(rows) == before
    changed = f"before => String({rows}) !== String(before)"
    page.wait_for_function(changed, arg=before)
    page.uncheck("#draw")
    watched.colour("kind")
    page.locator("#legend label", has_text="b").first.locator("input").uncheck()
    assert watched.shown() == [k for k in range(number) if k % 3 != 1]
    page.select_option("#layout", "pca")
    page.wait_for_function("() => astromorphMap.points.offsets[0] > -0.6")
    assert page.evaluate("astromorphMap.points.offsets") == pytest.approx(
        places.min(axis=0)[::-1], abs=1e-6
    )
    assert watched.messages == []


@pytest.mark.browser
def test_no_request_leaves_the_machine(browser, run, tmp_path):
    """Only files of the folder are read; the policy of the page forbids others."""
    path = export(run, tmp_path / "a", max_one_file=0)
    watched = Watched(browser, path)
    page, requests = watched.page, []
    page.on("request", lambda request: requests.append(request.url))
    page.mouse.move(*watched.place(13))
    page.wait_for_selector("#card canvas[data-drawn]")
    page.mouse.click(*watched.place(13))
    watched.expect_title(13)
    page.fill("#query", "sky")
    page.press("#query", "Enter")
    page.locator("#said", has_text="matches").wait_for()
    page.click("#take")
    saved(page, "Save table", tmp_path)
    page.check("#draw")
    page.select_option("#layout", "pca")
    watched.colour("noise")
    page.wait_for_timeout(200)
    folder = (path.parent / "map_files").as_uri()
    assert len(requests) >= 5
    assert all(url.startswith((f"{folder}/", "data:", "blob:")) for url in requests)
    assert watched.messages == []
    for address in ("https://example.com", path.as_uri()):
        blocked = f"fetch('{address}').then(() => 'sent', () => 'blocked')"
        assert page.evaluate(blocked) == "blocked"
    assert watched.requests == []
