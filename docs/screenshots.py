"""Take the pictures of README and guide from a finished run on the simulated sky.

    make run
    python docs/screenshots.py sample

Chromium must be installed. `PICTURES` lists the pictures and their functions.
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
SIZE = (1280, 860)  # pixels of the browser's window
MAX_BYTES = 300_000
GRAYS = (224, 112, 56, 28)  # in the palette; as many as fit into the bytes


def write_screenshots(run: Path, folder: Path, names: list[str]) -> None:
    """Take the pictures of a run, all or those that are named."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names or PICTURES:
        data = small(PICTURES[name](run.resolve()))
        part = (folder / name).with_suffix(".tmp")
        part.write_bytes(data)
        part.replace(folder / f"{name}.png")
        print(f"{folder / name}.png: {len(data) / 1000:.0f} kB")


def report(run: Path) -> bytes:
    """The report, made by ``snakemake --report``, with a contact sheet opened."""
    with browser() as page:
        page.goto((run / "report.html").as_uri())
        page.get_by_text("Galleries", exact=True).first.click()
        page.wait_for_selector("tbody tr")
        page.locator("tbody tr").first.locator("a").first.click()
        page.wait_for_function(
            "() => [...document.images].some(i => i.complete && i.naturalWidth > 500)"
        )
        return bytes(page.screenshot())


def gallery(run: Path) -> bytes:
    """A contact sheet: examples and their neighbours."""
    return (run / "results" / "export" / "gallery" / "neighbours_1.png").read_bytes()


def the_map(run: Path) -> bytes:
    """The map coloured by label, one image open."""
    with browser("--disable-3d-apis") as page:
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


PICTURES: dict[str, Callable[[Path], bytes]] = {
    "map": the_map,
    "report": report,
    "gallery": gallery,
}


@contextlib.contextmanager
def browser(*options: str) -> Iterator[Any]:
    """A page of Chromium."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", *options]
        )
        yield chromium.new_page(viewport={"width": SIZE[0], "height": SIZE[1]})
        chromium.close()


def small(data: bytes) -> bytes:
    """The PNG with its most frequent colours, and as many grays as its size allows."""
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
        "names", nargs="*", help=f"some of {', '.join(PICTURES)}; by default all"
    )
    parser.add_argument(
        "--output", type=Path, default=HERE / "images",
        help="where the PNG files are written, by default docs/images",
    )  # fmt: skip
    options = parser.parse_args()
    if unknown := set(options.names) - set(PICTURES):
        parser.error(f"found {sorted(unknown)}; pictures are {list(PICTURES)}")
    write_screenshots(options.run, options.output, options.names)
