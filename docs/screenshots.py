"""Take the screenshots in README and guide from a finished run on the simulated sky.

    make run
    python docs/screenshots.py sample

Chromium must be installed. `SCREENSHOTS` lists the files and their functions.
"""

import argparse
import contextlib
import io
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

HERE = Path(__file__).parent
SIZE = (1280, 860)  # of the browser window, in pixels
HOME = (1100, 1612)  # the same for the home page
MAX_BYTES = 300_000
GRAYS = (224, 112, 56, 28)  # in the palette: the most that fit into MAX_BYTES


def write_screenshots(run: Path, folder: Path, names: list[str]) -> None:
    """Take all screenshots of a run, or only the named ones."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names or SCREENSHOTS:
        data = shrink_png(SCREENSHOTS[name](run.resolve()))
        temporary = (folder / name).with_suffix(".tmp")
        temporary.write_bytes(data)
        temporary.replace(folder / f"{name}.png")
        print(f"{folder / name}.png: {len(data) / 1000:.0f} kB")


def report(run: Path) -> bytes:
    """Show the report of ``snakemake --report`` with a contact sheet opened."""
    with browser() as page:
        page.goto((run / "report.html").as_uri())
        page.get_by_text("Galleries", exact=True).first.click()
        page.wait_for_selector("tbody tr")
        page.locator("tbody tr").first.locator("a").first.click()
        page.wait_for_function(
            "() => [...document.images].some(i => i.complete && i.naturalWidth > 500)"
        )
        return bytes(page.screenshot())


def home(run: Path) -> bytes:
    """Show the home page down to the oddest images."""
    with browser() as page:
        page.set_viewport_size({"width": HOME[0], "height": HOME[1]})
        page.goto((run / "results" / "index.html").as_uri())
        page.wait_for_function("() => [...document.images].every(i => i.complete)")
        return bytes(page.screenshot())


def validation(run: Path) -> bytes:
    """Show the whole validation page."""
    with browser() as page:
        page.set_viewport_size({"width": HOME[0], "height": SIZE[1]})
        page.goto((run / "results" / "validation.html").as_uri())
        return bytes(page.screenshot(full_page=True))


def gallery(run: Path) -> bytes:
    """Return a contact sheet: examples and their neighbours."""
    return (run / "results" / "export" / "gallery" / "neighbours_1.png").read_bytes()


def html_map(run: Path) -> bytes:
    """Show the map coloured by label, with one image opened."""
    with browser() as page:
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
    "home": home,
    "validation": validation,
    "map": html_map,
    "report": report,
    "gallery": gallery,
}


@contextlib.contextmanager
def browser() -> Iterator[Any]:
    """Open a page in Chromium."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        yield chromium.new_page(viewport={"width": SIZE[0], "height": SIZE[1]})
        chromium.close()


def shrink_png(data: bytes) -> bytes:
    """Reduce a PNG to its main colours and as many grays as the size limit allows."""
    with Image.open(io.BytesIO(data)) as picture:
        rgb = picture.convert("RGB")
    colours = Counter(map(tuple, np.asarray(rgb).reshape(-1, 3).tolist()))
    coloured = [c for c, _ in colours.most_common() if max(c) - min(c) > 8][:32]
    for number in GRAYS:
        grays = [(round(255 * k / (number - 1)),) * 3 for k in range(number)]
        palette = Image.new("P", (1, 1))
        palette.putpalette([part for colour in coloured + grays for part in colour])
        buffer = io.BytesIO()
        reduced = rgb.quantize(palette=palette, dither=Image.Dither.NONE)
        reduced.save(buffer, format="PNG", optimize=True)
        if buffer.tell() <= MAX_BYTES:
            break
    return buffer.getvalue()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", type=Path, help="folder of a run with its report.html")
    parser.add_argument(
        "names", nargs="*", help=f"any of {', '.join(SCREENSHOTS)}; by default all"
    )
    parser.add_argument(
        "--output", type=Path, default=HERE / "images",
        help="where the PNG files are written, by default docs/images",
    )  # fmt: skip
    options = parser.parse_args()
    if unknown := set(options.names) - set(SCREENSHOTS):
        parser.error(f"unknown: {sorted(unknown)}; allowed: {list(SCREENSHOTS)}")
    write_screenshots(options.run, options.output, options.names)
