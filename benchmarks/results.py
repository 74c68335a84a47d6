"""Time and memory of the steps that use embeddings: `analyse` and the exports.

Each step processes synthetic embeddings, a mixture of clusters, in a separate process.
To add a step, add a function to `STEPS`. Finally, the exponents are printed by which
the time grows from one number of images to the next.

    python benchmarks/results.py --images 1000 10000 100000
    python benchmarks/results.py --images 10000 100000 1000000 --length 64 --side 16
"""

import argparse
import contextlib
import importlib.util
import json
import math
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from astromorph.artefacts.columns import CATALOGUE_COLUMNS, SPLIT_COLUMNS
from astromorph.artefacts.embeddings import Embeddings, write_embeddings
from astromorph.artefacts.run_files import RunFiles
from astromorph.artefacts.shard_writer import SHARD_FORMAT, SHARD_VERSION, save_tensors
from astromorph.artefacts.tables import write_csv
from astromorph.settings.sections import Settings
from astromorph.settings.steps import part_of, train_step_settings

LATENT, KINDS = 16, 12
ROWS_OF_A_SHARD = 16_384
PICTURES = 4096  # different pictures, which are repeated
READY = "body[data-ready]"  # selector that matches once the map is ready


def make(folder: Path, images: int, length: int, side: int) -> None:
    """Write catalogue, split and embeddings of synthetic images."""
    files = run_files(folder, images)
    draw = np.random.default_rng(0)
    centres = 2 * draw.standard_normal((KINDS, LATENT))
    axes = draw.standard_normal((LATENT, length)) * np.linspace(1, 0.2, LATENT)[:, None]
    kinds = draw.integers(KINDS, size=images)
    ids = [f"{k:016x}" for k in range(images)]
    for shard, start in enumerate(range(0, images, ROWS_OF_A_SHARD)):
        rows = slice(start, min(start + ROWS_OF_A_SHARD, images))
        latent = centres[kinds[rows]] + draw.standard_normal((len(ids[rows]), LATENT))
        vectors = latent @ axes + 0.3 * draw.standard_normal((len(latent), length))
        write_embeddings(
            files.embeddings(f"{shard:05d}"),
            Embeddings(tuple(ids[rows]), vectors.astype(np.float32)),
        )
    make_tensors(files, ids, side)
    make_model(files.model)
    facts = {"status": "ok", "width": "64", "height": "64", "file_bytes": "20000"}
    write_csv(
        files.catalogue,
        (*CATALOGUE_COLUMNS, "label"),
        (
            facts
            | {
                "image_id": ids[k],
                "path": f"images/{k:07d}.fits",
                "object": f"SYNTHETIC {k}",
                "ra_deg": 360 * k / images,
                "dec_deg": 0.0,
                "label": f"kind {kinds[k]}",
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


def make_tensors(files: RunFiles, ids: list[str], side: int) -> None:
    """Write shards with images of a bright spot on noise, which are repeated."""
    draw = np.random.default_rng(1)
    number = min(PICTURES, len(ids))
    pixels = (0.1 * draw.random((number, 1, side, side))).astype(np.float16)
    row, column = np.mgrid[:side, :side]
    for k, (y, x, wide) in enumerate(draw.uniform(side / 8, 7 * side / 8, (number, 3))):
        pixels[k, 0] += np.exp(-((row - y) ** 2 + (column - x) ** 2) / wide)
    np.minimum(pixels, 1, out=pixels)
    for shard, start in enumerate(range(0, len(ids), ROWS_OF_A_SHARD)):
        some = ids[start : start + ROWS_OF_A_SHARD]
        values = {
            "format": SHARD_FORMAT, "format_version": SHARD_VERSION, "channels": 1,
            "images": pixels[np.arange(len(some)) % number], "image_ids": some,
            "shapes": np.full((len(some), 2), side, np.int32),
            "rows": np.arange(len(some)), "settings": "{}",
            "valid": np.full(len(some) * side**2 // 8, 255, np.uint8),
            "statistics": {"noise": draw.random(len(some), np.float32)},
        }  # fmt: skip
        save_tensors(files.tensors(f"{shard:05d}"), values)


def make_model(path: Path) -> None:
    """Write a model file, of which the gallery only uses the settings."""
    from astromorph.artefacts.model_file import ModelFile, save_model
    from astromorph.byol.build import seeded_byol

    state = seeded_byol(train_step_settings(Settings()), 1).state_dict()
    file = ModelFile(state, part_of(Settings(), "train"), 1, "{}", "0")
    save_model(path, file)


def run_files(folder: Path, images: int = 0) -> RunFiles:
    """The files of a run with a number of images, or of the existing run."""
    shards = -(-images // ROWS_OF_A_SHARD) or len(list(folder.glob("embeddings/*.p*")))
    return RunFiles.of_run(folder, shards)


def step_analyse(folder: Path, cores: int) -> None:
    from astromorph.analysis.analyse import analyse

    settings = Settings()
    analyse(run_files(folder), settings.analysis_settings, settings.seed, cores)


def step_csv(folder: Path, cores: int) -> None:
    from astromorph.export.tables.csv import export_csv

    export_csv(run_files(folder), "comma")


def step_parquet(folder: Path, cores: int) -> None:
    from astromorph.export.tables.parquet import export_parquet

    export_parquet(run_files(folder), "{}")


def step_fits(folder: Path, cores: int) -> None:
    from astromorph.export.tables.fits import export_fits

    export_fits(run_files(folder), "{}")


def step_votable(folder: Path, cores: int) -> None:
    from astromorph.export.tables.votable import export_votable

    export_votable(run_files(folder), "{}")


def step_tensorboard(folder: Path, cores: int) -> None:
    from astromorph.export.tensorboard import export_tensorboard

    export_tensorboard(run_files(folder), Settings().export_settings.thumbnail_size)


def step_map(folder: Path, cores: int) -> None:
    """Write one file, for any number of images."""
    from astromorph.export.html_map.html_map import export_map

    side = Settings().export_settings.map_thumbnail_size
    export_map(run_files(folder), side, max_one_file=10**9, with_evaluation=False)


def step_map_files(folder: Path, cores: int) -> None:
    from astromorph.export.html_map.html_map import export_map

    side = Settings().export_settings.map_thumbnail_size
    export_map(run_files(folder), side, max_one_file=0, with_evaluation=False)


def step_gallery(folder: Path, cores: int) -> None:
    from astromorph.export.gallery.gallery import export_gallery

    settings = Settings()
    export_gallery(
        run_files(folder),
        folder / "none.csv",
        settings.data_settings,
        settings.export_settings,
        settings.evaluation_settings.label,
        settings.seed,
    )


# In the order of a run: later ones read what earlier ones wrote.
STEPS: dict[str, Callable[[Path, int], None]] = {
    "analyse": step_analyse,
    "csv": step_csv,
    "parquet": step_parquet,
    "fits": step_fits,
    "votable": step_votable,
    "tensorboard": step_tensorboard,
    "map": step_map,
    "map and files": step_map_files,
    "gallery": step_gallery,
}
MAKE = "make"
# The output of each step.
OUTPUTS = {
    "analyse": "analysis.parquet",
    "csv": "export/embeddings.csv",
    "parquet": "export/embeddings.parquet",
    "fits": "export/embeddings.fits",
    "votable": "export/embeddings.vot",
    "tensorboard": "export/tensorboard",
    "map": "export/map.html",
    "map and files": "export/map_files",
    "gallery": "export/gallery",
}
PAGES = {"map": "export/map.html", "map and files": "export/map.html"}


def megabytes(path: Path) -> float:
    """The size of a file, or of all files in a folder."""
    files = [p for p in path.rglob("*") if p.is_file()] if path.is_dir() else [path]
    return sum(p.stat().st_size for p in files) / 1e6


def seconds_to_open(page: Path) -> float | None:
    """Seconds until the map is ready in Chromium; None without it or after minutes."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None or importlib.util.find_spec("playwright") is None:
        return None
    from playwright.sync_api import TimeoutError as TooLate
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium, args=["--no-sandbox"]
        )
        tab = browser.new_page()
        began = time.monotonic()
        tab.goto(page.as_uri())
        taken = None
        with contextlib.suppress(TooLate):
            tab.wait_for_selector(READY, timeout=120_000)
            taken = time.monotonic() - began
        browser.close()
    return taken


def measure_step(step: str, folder: Path, cores: int) -> dict[str, Any]:
    """Time, memory and output size of a step in its own process, including start-up."""
    command = [sys.executable, __file__, "--step", step, "--folder", str(folder)]
    began = time.monotonic()
    done = subprocess.run(
        [*command, "--cores", str(cores)], stdout=subprocess.PIPE, text=True, check=True
    )
    seconds = time.monotonic() - began
    opens = seconds_to_open(folder / PAGES[step]) if step in PAGES else None
    written = megabytes(folder / OUTPUTS[step])
    found = {"seconds": seconds, "written_mb": written, "opens": opens}
    printed: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found | printed


def run_one(step: str, folder: Path, cores: int) -> None:
    """Run one step in this process and print its CPU time and peak memory."""
    STEPS[step](folder, cores)
    used = resource.getrusage(resource.RUSAGE_SELF)
    cpu = used.ru_utime + used.ru_stime
    print(json.dumps({"cpu_seconds": cpu, "peak_mb": used.ru_maxrss * 1024 / 1e6}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--images", type=int, nargs="+", default=[1000, 10_000, 100_000]
    )
    parser.add_argument(
        "--length", type=int, default=512, help="length of an embedding"
    )
    parser.add_argument("--side", type=int, default=64, help="pixels of an image")
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=list(STEPS))
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--step", choices=[*STEPS, MAKE], help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help="keep the files here")
    options = parser.parse_args()
    if options.step == MAKE:
        make(options.folder, options.images[0], options.length, options.side)
        return
    if options.step:
        run_one(options.step, options.folder, options.cores)
        return
    print(f"load before: {os.getloadavg()[0]:.1f}")
    print(f"{'images':>8} {'step':<14} {'seconds':>8} {'of CPU':>8} {'peak MB':>8}"
          f" {'written MB':>10} {'opens in s':>10} {'load':>5}")  # fmt: skip
    taken: dict[str, list[float]] = {step: [] for step in options.steps}
    for images in options.images:
        with tempfile.TemporaryDirectory() as temporary:
            folder = options.folder / str(images) if options.folder else Path(temporary)
            # In a separate process: children start with the peak memory of this one.
            command = [sys.executable, __file__, "--step", MAKE, "--folder"]
            command += [str(folder), "--images", str(images)]
            command += ["--length", str(options.length), "--side", str(options.side)]
            subprocess.run(command, check=True)
            for step in options.steps:
                found = measure_step(step, folder, options.cores)
                taken[step].append(found["seconds"])
                opens = "" if found["opens"] is None else f"{found['opens']:.1f}"
                print(
                    f"{images:>8} {step:<14} {found['seconds']:>8.1f} "
                    f"{found['cpu_seconds']:>8.1f} {found['peak_mb']:>8.0f} "
                    f"{found['written_mb']:>10.1f} {opens:>10} "
                    f"{os.getloadavg()[0]:>5.1f}",
                    flush=True,
                )
    for step, seconds in taken.items():
        pairs = zip(
            options.images, options.images[1:], seconds, seconds[1:], strict=False
        )
        grown = [math.log(b / a) / math.log(n / m) for m, n, a, b in pairs]
        print(f"exponents of {step}:", ", ".join(f"{g:.2f}" for g in grown))


if __name__ == "__main__":
    main()
