"""Figure and page of the report: the history of training, settings and versions."""

import html
import json
import re
from dataclasses import replace

import pytest
from export.test_gallery import save_model
from PIL import Image

from astromorph.artefacts import tables as artefacts
from astromorph.artefacts.columns import HISTORY_COLUMNS
from astromorph.artefacts.run_files import Identity, RunFiles
from astromorph.errors import AstromorphError
from astromorph.export.report import draw_history, plot_history, write_settings_page
from astromorph.settings.loading import parse

NUMBERS = [1.5, float("inf"), 0.5]


@pytest.fixture
def files(tmp_path) -> RunFiles:
    """A run with a model file that was trained for seven epochs."""
    files = RunFiles(tmp_path)
    files.model.parent.mkdir()
    save_model(files.model, {"epochs": 7})
    return files


def columns(**changed: list[float]) -> dict[str, list[float]]:
    missing = [float("nan")] * 3
    return dict.fromkeys(HISTORY_COLUMNS, missing) | {"epoch": [1, 2, 3]} | changed


def titles(figure) -> list[str]:
    return [t for axes in figure.axes if (t := axes.get_title(loc="left"))]


def test_panels_without_numbers_are_left_out():
    """A history without test images and auxiliary task."""
    figure = draw_history(columns(train_loss=NUMBERS, spread=NUMBERS))
    assert [title.split()[0] for title in titles(figure)] == ["BYOL", "Spread"]
    labels = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert labels == ["training images"]


def test_a_diverged_loss_does_not_set_the_range_of_the_axis():
    """The largest finite value determines it."""
    figure = draw_history(columns(train_loss=NUMBERS))
    assert figure.axes[0].get_ylim() == pytest.approx((0, 1.08 * 1.5))


def test_the_history_is_drawn_with_the_same_bytes_each_time(files):
    """The file contains no date."""
    rows = [{"epoch": k, "train_loss": 2 / k, "spread": 0.5} for k in (1, 2, 3)]
    artefacts.write_csv(files.history, HISTORY_COLUMNS, rows)
    data = []
    for _ in range(2):
        plot_history(files)
        data.append(files.history_figure.read_bytes())
    assert data[0] == data[1]
    with Image.open(files.history_figure) as image:
        assert image.width > 900


def test_a_history_without_epochs_is_an_error(files):
    """The message names the file and the remedy."""
    artefacts.write_csv(files.history, HISTORY_COLUMNS, [])
    with pytest.raises(AstromorphError, match=r"history\.csv: .* run `train` again"):
        plot_history(files)


def test_changed_settings_are_listed_first(files):
    """Those of training come from the model, all others from the run."""
    reference = {"name": "zoo", "network": "resnet50", "weights": "zoo.pt"}
    changes = {
        "epochs": 5,
        "analysis_settings": {"clusters": 4},
        "evaluation_settings": {"references": [reference]},
        "core_limit": 1,
    }
    write_settings_page(files, parse(changes, "test"))
    page = files.settings_page.read_text()
    first = page.split("<h2>")[1]
    first = first.replace("<wbr>", "")
    rows = re.findall(r'"name">(.*?)</td>\s*<td class="value".*?>(.*?)</td>', first)
    assert rows[:1] == [("epochs", "7")]
    names, values = zip(*rows[1:], strict=True)
    assert names == (
        "evaluation_settings.references",
        "analysis_settings.clusters",
    )
    assert [json.loads(html.unescape(value)) for value in values] == [[reference], 4]
    assert page.count(">changed</span>") == 3
    assert ">core_limit</td>" not in page


def test_a_page_without_changed_settings_has_a_note(files):
    """There is no empty table."""
    save_model(files.model, {})
    write_settings_page(files, parse({}, "test"))
    assert "All settings have their default values." in files.settings_page.read_text()


def test_the_page_says_what_it_was_made_from(files):
    """In a run; in one's own code there is nothing to say."""
    write_settings_page(files, parse({}, "test"))
    assert "Made on" not in files.settings_page.read_text()
    files = replace(files, identity=Identity("5e77", "1157", "2026-11-26"))
    write_settings_page(files, parse({}, "test"))
    text = files.settings_page.read_text()
    assert "Made on 2026-11-26 from settings <code>5e77</code>" in text
    assert "file list <code>1157</code>" in text
