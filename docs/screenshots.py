"""Take the screenshots of README and guide from a finished run on the simulated sky.

Run ``make run``, then ``python docs/screenshots.py sample``. Chromium is required. Each
screenshot has a function; `SCREENSHOTS` lists them by file name.
"""

import contextlib
import io
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from PIL import Image

HERE = Path(__file__).parent
SIZE = (1280, 860)  # pixels of the browser's window
MAX_BYTES = 300_000
GRAYS = (224, 112, 56, 28)  # in the palette: the most that fit `MAX_BYTES`


def write_screenshots(run: Path, folder: Path, names: list[str]) -> None:
    """Take all screenshots of a run, or those with the given names."""
    folder.mkdir(exist_ok=True)
    for name in names or SCREENSHOTS:
        data = compress(SCREENSHOTS[name](run.resolve()))
        temporary = (folder / name).with_suffix(".tmp")
        temporary.write_bytes(data)
        temporary.replace(folder / f"{name}.png")
        print(f"{folder / name}.png: {len(data) / 1000:.0f} kB")


def screenshot_report(run: Path) -> bytes:
    """The report made by ``snakemake --report``, with an open contact sheet."""
    with open_browser() as page:
        page.goto((run / "report.html").as_uri())
        page.get_by_text("Galleries", exact=True).first.click()
        page.wait_for_selector("tbody tr")
        page.locator("tbody tr").first.locator("a").first.click()
        page.wait_for_function(
            "() => [...document.images].some(i => i.complete && i.naturalWidth > 500)"
        )
        return bytes(page.screenshot())


def read_gallery_sheet(run: Path) -> bytes:
    """A contact sheet with examples and their neighbours."""
    return (run / "results" / "export" / "gallery" / "neighbours_1.png").read_bytes()


def screenshot_map(run: Path) -> bytes:
    """The map coloured by label, with an open image."""
    with open_browser("--disable-3d-apis") as page:
        page.goto((run / "results" / "export" / "map.html").as_uri())
        page.wait_for_selector("body[data-ready]")
        page.select_option("#colour", "label")
        page.fill("#query", "SKY 000012")
        page.press("#query", "Enter")
        page.wait_for_selector("#image .picture[data-drawn]")
        page.fill("#query", "")
        page.click("#whole")
        page.wait_for_timeout(1000)
        return bytes(page.screenshot())


SCREENSHOTS: dict[str, Callable[[Path], bytes]] = {
    "map": screenshot_map,
    "report": screenshot_report,
    "gallery": read_gallery_sheet,
}


@contextlib.contextmanager
def open_browser(*options: str) -> Iterator[Any]:
    """A page in Chromium."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", *options]
        )
        yield chromium.new_page(viewport={"width": SIZE[0], "height": SIZE[1]})
        chromium.close()


def compress(data: bytes) -> bytes:
    """Reduce a PNG to its most frequent colours and as many grays as fit."""
    with Image.open(io.BytesIO(data)) as picture:
        pixels = picture.convert("RGB")
    counts = sorted(pixels.getcolors(pixels.width * pixels.height), reverse=True)
    colours = [c for _, c in counts if max(c) - min(c) > 8][:32]
    for number in GRAYS:
        grays = [(round(255 * k / (number - 1)),) * 3 for k in range(number)]
        palette = Image.new("P", (1, 1))
        palette.putpalette([part for colour in colours + grays for part in colour])
        buffer = io.BytesIO()
        reduced = pixels.quantize(palette=palette, dither=Image.Dither.NONE)
        reduced.save(buffer, format="PNG", optimize=True)
        if buffer.tell() <= MAX_BYTES:
            break
    return buffer.getvalue()


if __name__ == "__main__":
    write_screenshots(Path(sys.argv[1]), HERE / "images", sys.argv[2:])
