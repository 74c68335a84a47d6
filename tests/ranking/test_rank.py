"""The step `rank` on the files of a finished run."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
from finished_run import catalogue_rows, write_run
from PIL import Image

from astromorph.analysis.components import leading_components
from astromorph.analysis.embedded_images import read_embedded_images
from astromorph.analysis.space import fit_space
from astromorph.artefacts.records import read_record
from astromorph.cli.main import main
from astromorph.errors import AstromorphError
from astromorph.ranking import rank as module
from astromorph.ranking.rank import rank
from astromorph.settings.sections import AnalysisSettings

NUMBER = 90
RARE = np.arange(NUMBER) % 6 == 1


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run in which every sixth image is of a rare kind; one image is not used."""
    draw = np.random.default_rng(1)
    vectors = draw.normal(size=(NUMBER, 6)) + 5 * RARE[:, None] * [1, 0, 0, 0, 0, 0]
    files = write_run(
        tmp_path_factory.mktemp("run") / "results",
        catalogue_rows(NUMBER, object=[f"<b>SKY</b> {k}" for k in range(NUMBER)]),
        shard_sizes=(50, 40),
        subsets=["train"] * (NUMBER - 1) + ["none"],
        vectors=vectors.astype(np.float32),
    )
    settings = {"analysis_settings": {"whiten": 0.25}, "seed": 3}
    files.analysis_summary.write_text(json.dumps({"settings": settings}))
    return files


@pytest.fixture(autouse=True)
def few_pictures(monkeypatch):
    """Contact sheets of a few frames are drawn quickly."""
    monkeypatch.setattr(module, "FRAMES", 6)
    monkeypatch.setattr(module, "LISTED", 4)


def write_marks(run, rows, name="marks.csv"):
    """Marks by path: rare images are interesting, and of the class `A&B`."""
    lines = ["path,mark,class"] + [
        f"fits/{k:03d}.fits,{'' if RARE[k] else 'not '}interesting,"
        f"{'A&B' if RARE[k] else ''}"
        for k in rows
    ]
    path = run.results.parent / name
    path.write_text("\n".join(lines))
    return str(path)


def test_the_command_ranks_rare_images_first(run, capsys):
    """The table, the page and the contact sheets of a run."""
    marks = write_marks(run, range(48))
    main(["rank", "--marks", marks, "--results", str(run.results)])
    assert capsys.readouterr().out.strip() == str(run.ranking_page)
    table = pd.read_csv(run.ranking)
    assert table.columns.tolist() == [
        "rank", "image_id", "path", "score", "uncertainty", "informative", "mark",
        "class", "score_A&B",
    ]  # fmt: skip
    assert table["rank"].tolist() == list(range(1, NUMBER))
    assert (np.diff(table["score"]) <= 0).all()
    rows = table["path"].str[5:8].astype(int)
    assert RARE[rows[:15]].mean() > 0.9
    assert table["score_A&B"].tolist() == pytest.approx(table["score"].tolist())
    uncertainty = 1 - (2 * table["score"] - 1).abs()
    assert table["uncertainty"].tolist() == pytest.approx(uncertainty.tolist())
    marked = table["mark"].notna()
    assert set(rows[marked]) == set(range(48))
    assert (table["mark"][marked] == "interesting").tolist() == list(RARE[rows[marked]])
    places = table["informative"].dropna()
    assert sorted(places) == list(range(1, 42))
    assert not marked[places.index].any()
    assert table["uncertainty"][places.idxmin()] == table["uncertainty"][~marked].max()
    page = run.ranking_page.read_text()
    assert "8 images marked as interesting, 40 as not interesting" in page
    assert "Average precision" in page and "Class A&amp;B" in page
    assert page.count("data:image/jpeg") == 2 * 4
    assert "<b>SKY" not in page
    for name in ("interesting", "class_00", "informative"):
        with Image.open(run.ranking_sheets / f"{name}.png") as picture:
            assert picture.width > 900
    assert 'href="ranking.csv"' in page
    record = read_record(run, "rank", "rank")
    assert set(record.outputs) == {"ranking.csv", "ranking.html", "ranking"}


@pytest.mark.browser
def test_the_curve_can_be_read_on_a_telephone(run):
    """It fits into the window, with letters of at least ten pixels."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("there is no chromium on this machine")
    from playwright.sync_api import sync_playwright

    rank(run, write_marks(run, range(48)))
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(
            executable_path=chromium, args=["--no-sandbox"]
        )
        page = opened.new_page(viewport={"width": 390, "height": 800})
        page.goto(run.ranking_page.as_uri())
        right, scale = page.locator("svg.plot").first.evaluate(
            "e => [e.getBoundingClientRect().right, e.getScreenCTM().a]"
        )
        opened.close()
    assert right <= 390
    assert 13 * scale >= 10


def test_the_coordinates_are_those_between_which_neighbours_are_found(run):
    """The settings of the analysis that was made count."""
    images = read_embedded_images(run)
    rules = AnalysisSettings(whiten=0.25)
    space = fit_space(images.vectors, rules.whiten, rules.components)
    values = leading_components(images.vectors, space).values()
    vectors = images.vectors.astype(float) - images.vectors.mean(axis=0)
    u, s, _ = np.linalg.svd(vectors, full_matrices=False)
    points = u * (s / np.sqrt(len(u))) ** 0.75
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    signs = np.sign((points * values).sum(axis=0))
    assert values * signs == pytest.approx(points, abs=0.005)


def test_few_marks_give_a_sentence_instead_of_a_number(run, tmp_path):
    """And classes alone are ranked by the highest score of any class."""
    rank(run, write_marks(run, [0, 1, 2]))
    page = run.ranking_page.read_text()
    assert "1 image marked as interesting, 2 as not interesting, 1 with a class" in page
    assert page.count("Too few marks to say how good the ranking is") == 2
    assert "Average precision" not in page
    path = tmp_path / "classes.csv"
    path.write_text("path,class\nfits/000.fits,b\nfits/001.fits,a\ngone.fits,a\n")
    rank(run, path)
    table = pd.read_csv(run.ranking)
    highest = table[["score_a", "score_b"]].max(axis=1)
    assert table["score"].tolist() == highest.tolist()
    page = run.ranking_page.read_text()
    assert "1 further\nmarked image is not in this run" in page
    assert "Interesting" not in page
    assert not (run.ranking_sheets / "interesting.png").exists()


def test_a_run_may_be_marked_completely(run):
    """There is nothing left to look at."""
    rank(run, write_marks(run, range(NUMBER - 1)))
    assert pd.read_csv(run.ranking)["informative"].isna().all()
    page = run.ranking_page.read_text()
    assert page.count("All images are marked.") == 2
    assert ".png" not in page
    assert list(run.ranking_sheets.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,mark\nfits/000.fits,not interesting\n",
         "0 images marked as interesting, 1 as not interesting.*mark at least one"),
        ("path,mark\n", "mark at least one image of this run"),
        ("path,class\n" + "".join(f"fits/{k:03d}.fits,{k}\n" for k in range(60)),
         "found 60 classes; at most 50 are allowed"),
    ],
)  # fmt: skip
def test_marks_without_an_example_are_explained(run, tmp_path, text, message):
    """Nothing can be learned from them."""
    path = tmp_path / "marks.csv"
    path.write_text(text)
    with pytest.raises(AstromorphError, match=message):
        rank(run, path)


def test_a_missing_file_is_an_error_of_the_command(run, caplog):
    """Both ways to name it are in the message."""
    for options, message in (([], "with --marks"), (["--marks", "no.csv"], "no.csv")):
        with pytest.raises(SystemExit):
            main(["rank", "--results", str(run.results), *options])
        assert message in caplog.text
    assert f"mark images on the map ({run.map}), save" in caplog.text
