"""How fast the map is in a browser, for different numbers of images.

Writes the files of a run with synthetic images, positions and columns, exports the map,
and opens it in headless Chromium without a graphics card. Printed are the sizes of the
page and of its folder, the time until it is ready, the frames per second while the map
is dragged, the time of a step of zooming, what of it labels take, and pictures if they
are shown, and the time from a movement of the pointer to the facts of the image.

    python benchmarks/map_points.py --images 1000 10000 100000 1000000
"""

import argparse
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from astromorph.artefacts.analysis_table import Analysis, write_analysis
from astromorph.artefacts.columns import CATALOGUE_COLUMNS, SPLIT_COLUMNS
from astromorph.artefacts.embeddings import Embeddings, write_embeddings
from astromorph.artefacts.tables import write_csv
from astromorph.export.html_map.html_map import export_map
from results import ROWS_OF_A_SHARD, make_tensors, megabytes, run_files

GROUPS, NEIGHBOURS, SIDE = 30, 10, 16
READY = "body[data-ready]"
SIZE = {"width": 1300, "height": 850}  # of the window, in pixels
FRAMES, HOVERS = 60, 20


def make(folder: Path, images: int) -> None:
    """Write the files of a run that the map reads."""
    files = run_files(folder, images)
    draw = np.random.default_rng(0)
    ids = [f"{k:016x}" for k in range(images)]
    groups = draw.integers(GROUPS, size=images)
    centres = draw.normal(0, 8, (GROUPS, 2))
    places = centres[groups] + draw.standard_normal((images, 2))
    make_tensors(files, ids, SIDE)
    for shard, start in enumerate(range(0, images, ROWS_OF_A_SHARD)):
        some = ids[start : start + ROWS_OF_A_SHARD]
        write_embeddings(
            files.embeddings(f"{shard:05d}"),
            Embeddings(tuple(some), np.zeros((len(some), 2), np.float32)),
        )
    scores = draw.random(images, np.float32)
    near = (np.arange(images)[:, None] + np.arange(1, NEIGHBOURS + 1)) % images
    write_analysis(
        files.analysis,
        Analysis(
            image_ids=tuple(ids),
            cluster=groups.astype(np.int32),
            kmeans=groups.astype(np.int32),
            hdbscan=(groups // 2 - 1).astype(np.int32),
            map=places.astype(np.float32),
            pca=places[:, ::-1].astype(np.float32),
            outlier_score=scores,
            outlier_rank=(images - scores.argsort().argsort()).astype(np.int32),
            roles=("",) * images,
            neighbours=tuple(tuple(ids[j] for j in row) for row in near.tolist()),
            distances=np.sort(draw.random((images, NEIGHBOURS), np.float32)),
            duplicates=((),) * images,
        ),
    )
    files.analysis_summary.write_text('{"settings": {}}')
    numbers = draw.standard_normal((images, 3)).round(6).tolist()
    facts = {"status": "ok", "width": "64", "height": "64", "file_bytes": "20000"}
    write_csv(
        files.catalogue,
        (*CATALOGUE_COLUMNS, "label", "redshift", "flux", "size", "remark"),
        (
            facts
            | {
                "image_id": ids[k],
                "path": f"images/{k:07d}.fits",
                "object": f"SYNTHETIC {k}",
                "ra_deg": 360 * k / images,
                "dec_deg": 0.0,
                "label": f"kind {groups[k] % 7}",
                "redshift": numbers[k][0],
                "flux": numbers[k][1],
                "size": numbers[k][2],
                "remark": f"remark about image {k}",
            }
            for k in range(images)
        ),
    )
    write_csv(
        files.split,
        SPLIT_COLUMNS,
        (
            {
                "image_id": ids[k],
                "path": f"images/{k:07d}.fits",
                "status": "ok",
                "subset": "train",
                "shard": f"{k // ROWS_OF_A_SHARD:05d}",
                "position": k % ROWS_OF_A_SHARD,
            }
            for k in range(images)
        ),
    )


# Draws frames while the map moves; returns frames per second and ms of a draw.
PAN = """async frames => {
  const { view, moveTo, drawAll } = astromorphMap;
  const next = () => new Promise(requestAnimationFrame);
  await next();
  const began = performance.now();
  for (let k = 0; k < frames; k++) {
    moveTo(view.x + (k < frames / 2 ? 4 : -4) * view.scale, view.y, view.scale);
    await next();
  }
  const seconds = (performance.now() - began) / 1000, drawn = performance.now();
  for (let k = 0; k < 10; k++) drawAll();
  return [frames / seconds, (performance.now() - drawn) / 10];
}"""
# Median milliseconds of a step of zooming, and the part of it that is not the points.
ZOOM = """steps => {
  const { view, moveTo, drawAll } = astromorphMap, times = [], others = [];
  const median = values => values.sort((a, b) => a - b)[values.length >> 1];
  for (let k = 0; k < steps; k++) {
    moveTo(view.x, view.y, view.scale * (k < steps / 2 ? 0.95 : 1 / 0.95));
    let began = performance.now();
    drawAll();
    const all = performance.now() - began;
    began = performance.now();
    drawPoints();
    times.push(all);
    others.push(all - (performance.now() - began));
  }
  return [median(times), median(others)];
}"""
# Milliseconds from a movement of the pointer over a point until its card is filled.
HOVER = """async row => {
  const { pixelOf, nearestRow } = astromorphMap, plot = document.getElementById("plot");
  const card = document.getElementById("card"), box = plot.getBoundingClientRect();
  const [x, y] = pixelOf(row), found = String(nearestRow(x, y).row);
  const began = performance.now();
  const at = { clientX: box.left + x, clientY: box.top + y, bubbles: true };
  plot.dispatchEvent(new PointerEvent("pointermove", at));
  while (card.hidden || card.dataset.row !== found)
    await new Promise(resolve => setTimeout(resolve, 0));
  return performance.now() - began;
}"""


def measure(page_file: Path) -> dict[str, Any]:
    """Open the page in Chromium, drag it, and point at images all over the list."""
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium, args=["--no-sandbox", "--disable-gpu"]
        )
        tab = browser.new_page(
            viewport={"width": SIZE["width"], "height": SIZE["height"]}
        )
        began = time.monotonic()
        tab.goto(page_file.as_uri())
        tab.wait_for_selector(READY, timeout=120_000)
        opens = time.monotonic() - began
        frames, draw = tab.evaluate(PAN, FRAMES)
        zoom, labels = tab.evaluate(ZOOM, FRAMES)
        tab.check("#draw")
        _, pictures = tab.evaluate(ZOOM, FRAMES)
        tab.uncheck("#draw")
        number = tab.evaluate("astromorphMap.page.number")
        # The first view may leave out some images, and labels may cover others.
        tab.click("#whole")
        tab.uncheck("#labels")
        tab.wait_for_timeout(500)  # until the map stands still
        rows = [k * (number - 1) // (HOVERS - 1) for k in range(HOVERS)]
        hovers = [tab.evaluate(HOVER, row) for row in rows]
        browser.close()
    median = float(np.median(hovers))
    return {
        "opens": opens, "frames": frames, "draw": draw, "hover": median,
        "zoom": zoom, "labels": labels, "pictures": pictures,
        "slowest": max(hovers),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--images", type=int, nargs="+", default=[1000, 10_000, 100_000, 1_000_000]
    )
    parser.add_argument(
        "--one-file", type=int, default=20_000, help="export_settings.map_one_file"
    )
    parser.add_argument("--folder", type=Path, help="keep the files here")
    options = parser.parse_args()
    print(f"{'images':>8} {'export s':>8} {'page MB':>8} {'folder MB':>9} {'files':>6} "
          f"{'opens s':>8} {'frames/s':>8} {'draw ms':>8} {'zoom ms':>8} {'labels':>8} "
          f"{'pictures':>8} {'hover ms':>8} "
          f"{'slowest':>8} {'load':>5}")  # fmt: skip
    for images in options.images:
        with tempfile.TemporaryDirectory() as temporary:
            folder = options.folder / str(images) if options.folder else Path(temporary)
            files = run_files(folder, images)
            if not files.analysis.exists():
                make(folder, images)
            shutil.rmtree(files.map_pictures, ignore_errors=True)
            began = time.monotonic()
            export_map(files, SIDE, options.one_file, with_evaluation=False)
            taken = time.monotonic() - began
            beside = files.map_pictures if files.map_pictures.exists() else None
            page, written = megabytes(files.map), megabytes(beside) if beside else 0
            number = len(list(beside.iterdir())) if beside else 0
            found = measure(files.map)
        print(
            f"{images:>8} {taken:>8.1f} {page:>8.2f} "
            f"{written:>9.1f} {number:>6} {found['opens']:>8.2f} "
            f"{found['frames']:>8.1f} {found['draw']:>8.1f} {found['zoom']:>8.1f} "
            f"{found['labels']:>8.1f} {found['pictures']:>8.1f} {found['hover']:>8.1f} "
            f"{found['slowest']:>8.1f} {os.getloadavg()[0]:>5.1f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
