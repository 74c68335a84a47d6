"""All pages of a run: content, links, colours, and what a browser makes of them."""

import contextlib
import io
import json
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
from finished_run import (
    catalogue_rows,
    image_ids,
    random_analysis,
    write_random_model,
    write_run,
)
from PIL import Image

from astromorph.analysis import analyse
from astromorph.analysis.analyse import EmbeddedImages
from astromorph.artefacts import tables as artefacts
from astromorph.artefacts.columns import HISTORY_COLUMNS
from astromorph.artefacts.run_files import Identity, RunFiles
from astromorph.catalogue.histogram import Histogram
from astromorph.catalogue.summary import Summary
from astromorph.catalogue.validation_page import SampledImages, write_validation_page
from astromorph.cli.execute import previous_jobs
from astromorph.cli.steps import STEPS, Job, previous_steps
from astromorph.embedding.evaluation_page import write_evaluation_page
from astromorph.errors import AstromorphError
from astromorph.export import home
from astromorph.export.gallery.gallery import export_gallery
from astromorph.export.html_map.html_map import export_map
from astromorph.export.palette import COLOURS
from astromorph.export.report import plot_history, write_settings_page
from astromorph.pages import html
from astromorph.pages.charts import make_plot, plot_histogram
from astromorph.pages.pictures import PageImage
from astromorph.pages.thumbnails import page_images, read_images
from astromorph.settings.loading import parse

NUMBER = 24
IDS = image_ids(NUMBER)
LABEL = "<script>alert(1)</script>"
LONG = "fits/" + "a_very_long_folder_name_" * 8 + '<b>&".fits'
STYLE = (Path(html.__file__).parent / "templates" / "style.css").read_text()
NETWORKS = ("trained", "sky", "untrained", "pixels", "photographs")
PERTURBED = ("rotated", "flipped", "shifted", "noisier", "blurred", "fainter")
SETTINGS = parse({"datafile": "list.csv", "epochs": 2, "network_name": "amm"}, "test")


def measures(k: int) -> dict:
    """The measures of one network."""
    score = {"mean": 0.8 - 0.1 * k, "std": 0.05, "confusion": [[5, 1], [0, 6]]}
    return {
        "effective_rank": 5.0, "spread": 0.5, "uniformity": -1.0,
        "nuisance": {"noise": 0.2, "size in pixels": 0.1 * k},
        "classes": {LABEL: 6, "ring": 6},
        "knn": score, "knn_whitened": score, "linear": score,
        "retrieval": dict.fromkeys(PERTURBED, 0.25 * k),
    }  # fmt: skip


EVALUATION = {
    "images": NUMBER,
    "label": {
        "column": "label",
        "kind": "classes",
        "problem": "",
        "advice": "",
        "description": "the column `label` has 2 classes",
        "caution": "label `more`",
    },
    "verdict": {
        "better": True,
        "sentence": "better than <i>the</i> untrained one",
        "summary": "better than <i>the</i> untrained one",
        "measure": "classes",
        "scores": {name: 0.8 - 0.1 * k for k, name in enumerate(NETWORKS)},
        "differences": {
            name: {
                "mean": 0.1 * k, "low": 0.1 * k - 0.15, "high": 0.1 * k + 0.15,
                "outcome": "better" if k > 1 else "equal",
            }
            for k, name in enumerate(NETWORKS)
            if k
        },
    },
    "networks": {name: measures(k) for k, name in enumerate(NETWORKS)},
    "references": ["photographs"],
}  # fmt: skip


def summary_of(ids) -> dict:
    """The content of `analysis.json` for some images."""
    clusters = [
        {"size": 9 - k, "silhouette": 0.5, "stability": None,
         "representative": ids[k], "odd": ids[k + 5] if k else None}
        for k in range(3)
    ]  # fmt: skip
    method = {"number": 3, "unclustered": 0, "silhouette": 0.5, "stability": 0.7}
    method["clusters"] = clusters
    return {
        "images": len(ids), "embedding_length": 5, "components": 2,
        "distance": "cosine", "explained_variance": [0.6, 0.4],
        "cluster_by": "kmeans", "min_cluster_size": 5,
        "methods": {"kmeans": method, "hdbscan": method},
        "silhouette_by_clusters": {"2": 0.3, "3": 0.5},
        "near_duplicates": 2, "near_duplicate_pairs": 1,
        "closest_pairs": [{"image_ids": [ids[1], ids[2]], "distance": 0.1}],
        "outliers": [{"image_id": i, "score": 2.0} for i in ids[::-1][:12]],
        "settings": {},
    }  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> RunFiles:
    """All pages of a run of two shards; one file is rejected, one has a long name."""
    rows = catalogue_rows(NUMBER + 1, label=["ring"] * NUMBER + [""])
    rows[NUMBER - 1]["path"] = LONG
    rows[0] |= {"status": "warning", "reason": "constant image of value 7"}
    rows[NUMBER] |= {"status": "rejected", "reason": "<b>no</b> image"}
    results = tmp_path_factory.mktemp("run") / "results"
    roles = ("representative",) * 3 + ("",) * (NUMBER - 3)
    analysis = replace(
        random_analysis(IDS), roles=roles,
        cluster=np.repeat([0, 1, 2], NUMBER // 3).astype(np.int32)[
            np.argsort(np.arange(NUMBER) % 3, kind="stable").argsort()
        ],
    )  # fmt: skip
    files = write_run(
        results, rows, shard_sizes=(10, NUMBER - 9), analysis=analysis,
        subsets=["embed"] + ["train"] * 19 + ["test"] * 4 + ["none"],
    )  # fmt: skip
    files = replace(files, identity=Identity("5e77", "1157", "2026-11-26"))
    write_random_model(files.model, SETTINGS)
    epochs = [{"epoch": k, "train_loss": 1 / k} for k in (1, 2)]
    artefacts.write_csv(files.history, HISTORY_COLUMNS, epochs)
    files.analysis_summary.write_text(json.dumps(summary_of(IDS)))
    files.evaluation.write_text(json.dumps(EVALUATION))
    write_pages(files)
    return files


def write_pages(files: RunFiles) -> None:
    """Write all pages in the order of the steps, and some other results."""
    counts = Summary("list.csv")
    for row in artefacts.read_csv(files.catalogue):
        counts.add(row["status"], row["reason"], row["path"])
    sample = SampledImages(number=1)
    sample.thumbnails.append((PageImage(LONG, "data:image/jpeg;base64,"), "<u>odd</u>"))
    sizes, scales = (Histogram(name, "files") for name in ("Side in pixels", "Scale"))
    for side in (40, 60, 60):
        sizes.add(side)
        scales.add(0.5)
    preprocessing = SETTINGS.preprocess_settings
    write_validation_page(
        files, counts, [sizes, scales], sample, preprocessing, ["Set `label`."]
    )
    plot_history(files)
    write_evaluation_page(files, EVALUATION)
    paths = tuple(row["path"] for row in artefacts.read_csv(files.catalogue))[:NUMBER]
    images = EmbeddedImages(IDS, paths, np.zeros((NUMBER, 5), np.float32))
    analyse._write_page(files, images, summary_of(IDS))
    files.table("csv").parent.mkdir()
    files.table("csv").write_text("x" * 1234)
    export_map(files, 16, 10**6, with_evaluation=True, with_gallery=True)
    export = SETTINGS.export_settings.model_copy(update={"gallery_images": 4})
    export_gallery(files, "list.csv", SETTINGS.data_settings, export, "label", 0)
    write_settings_page(files, SETTINGS)
    write_home(files)


def made(files: RunFiles, with_evaluation: bool = True) -> dict[str, list[Path]]:
    """The results of each step before the home page."""
    job = Job(SETTINGS, files, with_evaluation=with_evaluation)
    steps = previous_steps(STEPS["report_home"], job)
    return {step.name: step.all_outputs(files) for step in steps}


def write_home(files: RunFiles, with_evaluation: bool = True) -> str:
    """Write the home page and return it."""
    home.write_home(files, "list.csv", made(files, with_evaluation), with_evaluation)
    return files.home.read_text()


def pages_of(files: RunFiles) -> dict[str, Path]:
    """Every page by its name."""
    return {
        "home": files.home, "validation": files.validation_page,
        "evaluation": files.evaluation_page, "analysis": files.analysis_page,
        "gallery": files.gallery / "index.html", "settings": files.settings_page,
        "map": files.map,
    }  # fmt: skip


class Parsed(HTMLParser):
    """Tags and attributes of a page, and its text without style and scripts."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.text, self._hidden = "", False
        self.feed(path.read_text())

    def handle_starttag(self, tag, attrs):
        """Record a tag."""
        self.tags.append((tag, dict(attrs)))
        self._hidden = tag in ("style", "script")

    def handle_endtag(self, tag):
        """The text after it is visible."""
        self._hidden = False

    def handle_data(self, data):
        """Record visible text."""
        self.text += "" if self._hidden else data

    def links(self) -> list[str]:
        """The addresses of all links."""
        return [a["href"] for tag, a in self.tags if tag == "a" and "href" in a]


def targets_of(page: Path) -> set[Path]:
    """The files that the links of a page lead to."""
    links = [link.partition("#")[0] for link in Parsed(page).links()]
    return {(page.parent / unquote(link)).resolve() for link in links}


def test_every_link_of_every_page_leads_to_a_file(run):
    """From the folder of the page; links within a page to an element."""
    for path in pages_of(run).values():
        parsed = Parsed(path)
        ids = {f"#{a['id']}" for _, a in parsed.tags if "id" in a}
        for link in parsed.links():
            if link.startswith("#"):
                assert link in ids, (path, link)
            else:
                file = unquote(link.partition("#")[0])
                assert (path.parent / file).exists(), (path, link)


def test_every_page_leads_back_to_the_home_page(run):
    """And the home page leads to every page."""
    targets = targets_of(run.home)
    for name, path in pages_of(run).items():
        if name != "home":
            assert run.home.resolve() in targets_of(path), name
            assert path.resolve() in targets, name


def test_every_page_says_what_it_was_made_from(run):
    """With the digests of the settings and of the list."""
    for path in pages_of(run).values():
        text = Parsed(path).text
        assert "Made on 2026-11-26 from settings 5e77\nand file list 1157" in text, path


@pytest.mark.parametrize("name", ["home", "validation", "evaluation", "analysis"])
def test_markup_in_names_and_labels_is_text(run, name):
    """No element comes from a path, a reason, a label or a verdict."""
    parsed = Parsed(pages_of(run)[name])
    assert not {"b", "i", "u", "script"} & {tag for tag, _ in parsed.tags}
    expected = {
        "home": ["<b>no</b> image", "better than <i>the</i>"],
        "validation": ["<b>no</b> image"],
        "evaluation": [LABEL, "better than <i>the</i>"],
        "analysis": ['<b>&"'],
    }
    for text in expected[name]:
        assert text in parsed.text


def test_the_home_page_tells_what_was_made(run):
    """Settings, counts, reasons, verdict, pictures; only results that exist."""
    parsed = Parsed(run.home)
    text = " ".join(parsed.text.split())
    for expected in (
        "24 images, sorted by appearance",
        "The list list.csv names 25 files.",
        "amm, was trained for 2 epochs on 19 images; 4 other images measured the loss. "
        "1 image is blank or repeats another, and was only embedded.",
        "Each embedding has 5 numbers.",
        "25listed 24used 1of them with a warning 1rejected",
        "rejected<b>no</b> image1 warningconstant image of value 71",
        "1.2 kB",
    ):
        assert expected in text
    assert "embeddings.fits" not in text  # not made in this run
    assert "Logs" not in text
    pictures = [a["src"] for tag, a in parsed.tags if tag == "img"]
    assert len(pictures) == 1 + 3 + home.MAX_OUTLIERS  # map, clusters, oddest
    assert all(p.startswith(("data:image/jpeg", "data:image/png")) for p in pictures)


def test_the_home_page_of_an_embedding_run_has_no_evaluation(run, tmp_path):
    """With a model of another run, and without evaluation, neither is linked."""
    files = replace(run, named_model=tmp_path / "other.pt")
    shutil.copy(run.model, files.model)
    text = write_home(files, with_evaluation=False)
    try:
        assert "this run has not trained it" in text
        assert "evaluation.html" not in text
        assert "history" not in text
        assert "verdict" not in text.split("</style>")[1]
    finally:
        write_home(run)


def test_logs_are_linked_if_there_are_any(run):
    """A step of several shards has a link to the folder of its logs."""
    logs = [run.log("export", "csv"), run.log("infer", "00000"), run.log("train")]
    for log in logs:
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text("")
    write_home(run)
    links = {link for link in Parsed(run.home).links() if link.startswith("logs")}
    shutil.rmtree(run.results / "logs")
    write_home(run)
    assert links == {"logs/export/csv.log", "logs/infer/", "logs/train/train.log"}


def test_the_home_page_depends_on_all_results_of_the_run(run):
    """Of exports only on those that the settings want, and not on a foreign model."""
    jobs = set(previous_jobs(STEPS["report_home"], Job(SETTINGS, run)))
    names = {name for name, _ in jobs}
    assert names == set(STEPS) - {"report_home", "evaluate"} - {
        name for name, step in STEPS.items() if not step.is_wanted(SETTINGS)
    }
    assert {job for name, job in jobs if name == "infer"} == {"00000", "00001"}
    foreign = replace(run, named_model=Path("other.pt"))
    left = {
        name for name, _ in previous_jobs(STEPS["report_home"], Job(SETTINGS, foreign))
    }
    assert names - left == {"train", "report_history"}


def test_an_unreadable_summary_is_an_error(run, tmp_path):
    """The message names the file and the step that writes it."""
    files = replace(run, results=tmp_path)
    files.analysis_summary.write_text("{")
    with pytest.raises(
        AstromorphError, match=r"analysis\.json: .*; run `analyse` again"
    ):
        home.write_home(files, None, {}, False)


def test_only_the_requested_images_are_read(run):
    """In the order of the shards; one that is missing is an error."""
    pixels = dict(read_images(run.all_tensors, {IDS[20], IDS[3]}))
    assert list(pixels) == [IDS[3], IDS[20]]
    assert pixels[IDS[3]].shape == (1, 16, 16)
    images = page_images(
        {IDS[3]: "a/b.fits", IDS[4]: "c.fits"}, run.all_tensors, [IDS[3]]
    )
    assert images[IDS[3]].name == "b"
    assert images[IDS[3]].url.startswith("data:image/jpeg;base64,")
    assert images[IDS[4]].url == ""
    with pytest.raises(AstromorphError, match="none of the 2 shards"):
        dict(read_images(run.all_tensors, ["absent"]))


def test_the_evaluation_has_a_mark_for_each_network_and_measure(run):
    """Dots with intervals for three classifiers, bars for retrieval."""
    page = run.evaluation_page.read_text()
    plots = re.findall(r'<svg class="plot".*?</svg>', page, re.S)
    classes, retrieval, nuisance = plots
    assert classes.count("interval series-") == 3 * len(NETWORKS)
    assert retrieval.count("<rect") == len(PERTURBED) * len(NETWORKS)
    # Each bar ends with the mark of its network: colours are not the only difference.
    for series in range(len(NETWORKS)):
        marks = re.findall(rf'<(?:circle|path) class="series-{series}"', retrieval)
        assert len(marks) == len(PERTURBED)
    assert "interval" not in nuisance
    for series in range(len(NETWORKS)):
        assert len(re.findall(rf'"series-{series}"', nuisance)) == 2
    row = re.search(r"<tr><td>photographs</td>(.*?)</tr>", page, re.S)
    assert "0.400" in row[1]
    assert "+0.400" in row[1]
    assert "+0.250 to +0.550" in row[1]
    assert "better" in row[1]
    assert page.count("--share: 0.83") == page.count("--share: 0.17") == 1


def test_values_below_zero_have_an_axis_that_contains_them():
    """The positions increase with the values, and chance is between them."""
    plot = make_plot({"r": {0: (-0.2, 0.1), 1: (0.5, 0.0), 2: (1.0, None)}}, chance=0)
    low, middle, high = plot.rows[0].values
    assert plot.ticks[0].text == "-0.5"
    assert plot.left < low.low < low.x < low.high < plot.chance < middle.x < high.x
    assert high.x == plot.ticks[-1].x


def test_histograms_have_counts_at_their_axis(run):
    """Bars are as high as their counts; numbers at both axes are round."""
    page = run.validation_page.read_text()
    plot = re.search(r'<svg class="plot histogram".*?</svg>', page, re.S)[0]
    heights = [float(h) for h in re.findall(r'height="([\d.]+)"><title>', plot)]
    assert heights == [75.0, 150.0]  # 1 and 2 of 2
    assert re.findall(r"<title>(.*?)</title>", plot) == ["40 to 42: 1", "60 to 62: 2"]
    assert re.findall(r">(\d+)</text>", plot)[:3] == ["0", "1", "2"]
    assert ">Side in pixels</text>" in plot and ">files</text>" in plot


def test_a_value_that_all_files_have_is_no_histogram(run):
    """A single bar would look like a range."""
    page = run.validation_page.read_text()
    assert "<li>Scale: 0.5 in all 3 files</li>" in page
    assert page.count('class="plot histogram"') == 1


@pytest.mark.parametrize(
    ("edges", "logarithmic", "expected"),
    [
        ([0, 20, 40], False, ["0", "20", "40"]),
        ([10**k for k in range(-3, 10)], True, ["0.001", "1", "1000", "1e6", "1e9"]),
        ([100 * k for k in range(17)], False, [str(200 * k) for k in range(9)]),
    ],
)
def test_numbers_at_an_axis_do_not_overlap(edges, logarithmic, expected):
    """The edges that have one are the roundest."""
    counts = [1] * (len(edges) - 1)
    ticks = plot_histogram(edges, counts, logarithmic).x_ticks
    assert len(ticks) == len(edges)
    assert [tick.text for tick in ticks if tick.text] == expected


def test_the_gallery_is_linked_and_backticks_are_code(run):
    """From the map, the analysis and the home page; a remark names a setting."""
    for name in ("map", "analysis", "home"):
        assert run.gallery / "index.html" in targets_of(pages_of(run)[name]), name
    assert "<li>Set <code>label</code>.</li>" in run.validation_page.read_text()
    for name, path in pages_of(run).items():
        assert "`" not in Parsed(path).text, name


# ---- colours ----


def colours(part: str) -> dict[str, str]:
    """The colours that are defined in a part of the style."""
    return dict(re.findall(r"--(\w[\w-]*): (#[0-9a-f]+);", part))


def luminance(colour: str) -> float:
    """Relative luminance of WCAG 2.2."""
    digits = colour[1:] if len(colour) == 7 else "".join(2 * c for c in colour[1:])
    parts = [int(digits[k : k + 2], 16) / 255 for k in (0, 2, 4)]
    linear = [
        p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    """Contrast ratio of WCAG 2.2, from 1 to 21."""
    high, low = sorted([luminance(one), luminance(other)], reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours_have_enough_contrast(scheme):
    """WCAG AA: 4.5 to 1 for text, 3 to 1 for plots, from the palette."""
    _, light, dark = STYLE.split(":root {")
    values = colours(light.split("@media")[0])
    if scheme == "dark":
        values |= colours(dark.split("* {")[0])
    backs = [values[name] for name in ("back", "soft", "good", "poor")]
    for name in ("ink", "quiet", "link"):
        assert all(contrast(values[name], back) >= 4.5 for back in backs), name
    for name in ("plain", "rejected", "warning", "blue"):
        assert contrast(values["on-tag"], values[name]) >= 4.5, name
    for name in ("blue", "green", "orange", "purple"):
        assert contrast(values[name], values["back"]) >= 3, name
        assert values[name] in COLOURS
    grays = {values[f"gray-{series}"] for series in (4, 5, 6, 7)}
    assert len(grays) == 4, "networks from elsewhere can be told apart"
    assert all(contrast(gray, values["back"]) >= 3 for gray in grays)
    mixed = shaded_cell(STYLE, values, scheme)
    assert contrast(values["ink"], mixed) >= 4.5


def shaded_cell(style: str, values: dict[str, str], scheme: str) -> str:
    """The strongest colour of a cell of the confusion matrix."""
    found = re.findall(r"--shade: ([\d ]+); --shade-limit: ([\d.]+);", style)
    text, limit = found[scheme == "dark"]
    digits = values["back"][1:]
    digits = digits if len(digits) == 6 else "".join(2 * c for c in digits)
    back = [int(digits[k : k + 2], 16) for k in (0, 2, 4)]
    share = float(limit)
    mixed = [
        round(share * int(shade) + (1 - share) * below)
        for shade, below in zip(text.split(), back, strict=True)
    ]
    return "#" + "".join(f"{value:02x}" for value in mixed)


# ---- in a browser ----


@contextlib.contextmanager
def browser(**options):
    """A page in Chromium; messages and requests to other machines are errors."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("there is no chromium on this machine")
    from playwright.sync_api import sync_playwright

    wrong: list[str] = []
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(
            executable_path=chromium, args=["--no-sandbox"]
        )
        page = opened.new_context(**options).new_page()
        page.on("console", lambda message: wrong.append(message.text))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.route(
            re.compile(r"^(?!file:|data:)"), lambda route: wrong.append("request")
        )
        yield page
        opened.close()
    assert not wrong


@pytest.mark.browser
def test_sheets_have_the_background_of_the_page(run):
    """On a dark page, text and background are inverted, but not the pictures."""
    shots = {}
    for scheme in ("light", "dark"):
        with browser(color_scheme=scheme) as page:
            page.goto((run.gallery / "index.html").as_uri())
            sheet = page.locator(".frames.linked").first
            sheet.scroll_into_view_if_needed()
            sheet.evaluate("e => e.querySelector('img').decode()")
            with Image.open(io.BytesIO(sheet.screenshot())) as shot:
                shots[scheme] = np.asarray(shot.convert("L")).astype(int)
            outer, frame = (
                one.bounding_box() for one in (sheet, sheet.locator(".frame").first)
            )
    left, top = (round(frame[k] - outer[k]) + 5 for k in ("x", "y"))
    side = round(frame["width"]) - 10
    inside = np.s_[top : top + side, left : left + side]
    assert abs(shots["light"][inside] - shots["dark"][inside]).max() <= 4
    assert shots["light"][5, 5] > 250
    assert shots["dark"][5, 5] < 30


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_page_scrolls_horizontally(run, scheme):
    """At 1024 and at 360 pixels, with long names; the background follows the system."""
    with browser(color_scheme=scheme) as page:
        for name, path in pages_of(run).items():
            if name == "map":
                continue  # has a style of its own
            page.goto(path.as_uri())
            for width in (1024, 360):
                page.set_viewport_size({"width": width, "height": 800})
                needed = page.evaluate("document.documentElement.scrollWidth")
                assert needed <= width, name
            back = page.evaluate("getComputedStyle(document.body).backgroundColor")
            assert (
                back
                == {"light": "rgb(255, 255, 255)", "dark": "rgb(20, 24, 29)"}[scheme]
            )
            assert page.evaluate(
                "[...document.images].every(i => i.loading == 'lazy' || i.complete)"
            )
