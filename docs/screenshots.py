"""Take the pictures of pages that the guide shows, in Chromium.

``python docs/screenshots.py RESULTS`` reads the results of a finished run of the
workflow, of simulated images: those of `make run` are in ``sample/results``.
"""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

HERE = Path(__file__).parent
COLOURS = 128  # of the palette that makes the files small


def screenshots(results: Path, folder: Path) -> None:
    """Write a PNG for each page, into `folder`."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    folder.mkdir(exist_ok=True)
    with sync_playwright() as playwright:
        options = ["--no-sandbox", "--disable-3d-apis"]
        browser = playwright.chromium.launch(executable_path=chromium, args=options)
        for name, (page_file, prepare) in PAGES.items():
            page = browser.new_page(viewport={"width": 1280, "height": 800})
            page.goto((results / page_file).resolve().as_uri())
            prepare(page)
            path = folder / f"{name}.png"
            page.screenshot(path=path)
            with Image.open(path) as picture:
                small = picture.convert("RGB").quantize(COLOURS)
            small.save(path, optimize=True)
        browser.close()


def one_image_of_the_map(page: Page) -> None:
    """Coloured by label, one image open, the pointer on another."""
    page.wait_for_selector("body[data-ready]")
    page.select_option("#colour", "label")
    page.fill("#query", "SKY 000012")
    page.press("#query", "Enter")
    page.wait_for_selector("#image .picture[data-drawn]")
    page.fill("#query", "")
    page.click("#whole")
    page.wait_for_timeout(1000)


PAGES: dict[str, tuple[str, Callable[[Page], None]]] = {
    "map": ("export/map.html", one_image_of_the_map),
}

if __name__ == "__main__":
    screenshots(Path(sys.argv[1]), HERE / "images")
