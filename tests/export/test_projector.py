"""TensorBoard in a browser, with the exported folder."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from finished_run import catalogue_rows, write_run

from astromorph.export.tensorboard import export_tensorboard
from astromorph.training.history import Epoch, scalar_writer

pytestmark = pytest.mark.slow

CHROMIUM = shutil.which("chromium")
# WebGL draws the points; without a screen, it is emulated in software.
OPTIONS = [
    "--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist",
]  # fmt: skip
PATIENCE = 60_000  # milliseconds, for machines that are busy
REMARKS = [
    "<img src=x onerror=alert(1)>",
    "tab\there",
    "line\nend",
    "ünï",
    "",
    "'",
    "x",
]
NUMBER = len(REMARKS)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two runs, each with curves and a projector."""
    folder = tmp_path_factory.mktemp("runs")
    for name in ("one", "two"):
        listed = {"label": REMARKS, "<b>bold</b>": ["1"] * NUMBER}
        files = write_run(folder / name / "results", catalogue_rows(NUMBER, **listed))
        export_tensorboard(files, 48)
        with scalar_writer(files.scalars) as write:
            write(Epoch(1, 2.0, 3.0, None, 0.1, 0.99, 5.0, 0.5))
    return folder


@pytest.fixture(scope="module")
def board(runs, tmp_path_factory):
    """The address of TensorBoard, which runs on a free port of this machine."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = tmp_path_factory.mktemp("log") / "tensorboard.log"
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(runs)]
    command += ["--host", "127.0.0.1", "--port", str(port), "--load_fast", "false"]
    with open(log, "w") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file)
    address = f"http://127.0.0.1:{port}"
    try:
        wait_for(address, process, log)
        yield address
    finally:
        process.terminate()
        process.wait()


def wait_for(address: str, process: subprocess.Popen, log: Path) -> None:
    """Wait until TensorBoard has found the folders of the projector."""
    deadline = time.monotonic() + PATIENCE / 1000
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()
        try:
            if answer(f"{address}/data/plugins_listing")["projector"]["enabled"]:
                return
        except OSError:
            pass
        time.sleep(0.3)
    raise AssertionError(log.read_text())


def answer(address: str):
    with urllib.request.urlopen(address, timeout=60) as response:
        return json.load(response)


def test_runs_are_distinguished_by_name(board):
    """Curves and projectors of several runs have the names of their folders."""
    assert set(answer(f"{board}/data/runs")) == {
        f"{name}/results/{kind}"
        for name in ("one", "two")
        for kind in ("tensorboard/train", "export/tensorboard")
    }
    assert set(answer(f"{board}/data/plugin/projector/runs")) == {
        f"{name}/results/export/tensorboard" for name in ("one", "two")
    }


@pytest.mark.browser
def test_the_projector_shows_points_thumbnails_and_facts(board, tmp_path):
    """In a real browser: all files load, and no other machine is contacted.

    What a name holds is shown and not run.
    """
    if CHROMIUM is None:
        pytest.skip("there is no chromium on this machine")
    playwright = pytest.importorskip("playwright.sync_api")
    answers: dict[str, int] = {}
    abroad, errors = [], []
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=OPTIONS)
        page = browser.new_page(viewport={"width": 1500, "height": 900})
        page.set_default_timeout(PATIENCE)
        page.on("response", lambda r: answers.update({r.url: r.status}))
        page.on("request", lambda r: abroad.append(r.url))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("dialog", lambda dialog: errors.append(dialog.message))
        page.goto(f"{board}/#projector")
        frame = page.frame_locator("iframe").frame_locator("iframe")
        frame.get_by_text(f"Points: {NUMBER}").wait_for()
        asked = answers_to(page, answers, "embeddings")
        # The map has three axes, so it is not normalised to a sphere.
        frame.locator("paper-dropdown-menu", has_text="tensors found").first.click()
        frame.locator("paper-item:visible", has_text="map").first.click()
        frame.get_by_text("Dimension: 3").wait_for()
        answers_to(page, answers, "map")
        frame.locator("paper-dropdown-menu", has_text="Label by").first.click()
        items = frame.locator("paper-item:visible")
        items.filter(has_text="outlier_rank").first.wait_for()
        names = items.all_inner_texts()
        picture = os.environ.get("ASTROMORPH_SCREENSHOTS", tmp_path)
        page.screenshot(path=Path(picture) / "projector.png")
        browser.close()
    assert set(asked.values()) == {200}
    assert errors == []
    local = (board, "data:", "blob:", "chrome:")
    assert [url for url in abroad if not url.startswith(local)] == []
    assert {"label", "<b>bold</b>", "cluster", "outlier_rank"} <= set(names)


def answers_to(page, answers: dict[str, int], tensor: str) -> dict[str, int]:
    """The answers for the files of a tensor, once all three have arrived."""
    wanted = re.compile(rf"/(tensor|metadata|sprite_image)\?.*name={tensor}\b")
    for _ in range(PATIENCE // 200):
        found = {url: code for url, code in answers.items() if wanted.search(url)}
        if len(found) == 3:
            return found
        page.wait_for_timeout(200)
    raise AssertionError(answers)
