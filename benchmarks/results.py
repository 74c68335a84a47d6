"""Time and memory of what makes results of embeddings: `analyse` and the exports.

Made-up embeddings of 512 dimensions, a mixture of clusters, go through each step in a
process of its own. Another step joins as a function in `STEPS`.

    python benchmarks/results.py --images 1000 10000 100000
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from astromorph import artefacts
from astromorph.artefacts import CATALOGUE_COLUMNS, SPLIT_COLUMNS, Embeddings
from astromorph.settings import Settings

LENGTH, LATENT, KINDS = 512, 16, 12
ROWS_OF_A_SHARD = 16_384


def make(folder: Path, images: int) -> None:
    """Catalogue, split and embeddings of images that do not exist."""
    draw = np.random.default_rng(0)
    centres = 2 * draw.standard_normal((KINDS, LATENT))
    axes = draw.standard_normal((LATENT, LENGTH)) * np.linspace(1, 0.2, LATENT)[:, None]
    kinds = draw.integers(KINDS, size=images)
    ids = [f"{k:016x}" for k in range(images)]
    for shard, start in enumerate(range(0, images, ROWS_OF_A_SHARD)):
        rows = slice(start, min(start + ROWS_OF_A_SHARD, images))
        latent = centres[kinds[rows]] + draw.standard_normal((len(ids[rows]), LATENT))
        vectors = latent @ axes + 0.3 * draw.standard_normal((len(latent), LENGTH))
        artefacts.write_embeddings(
            folder / "embeddings" / f"{shard:05d}.parquet",
            Embeddings(tuple(ids[rows]), vectors.astype(np.float32)),
        )
    facts = {"status": "ok", "width": "64", "height": "64", "file_bytes": "20000"}
    artefacts.write_csv(
        folder / "catalogue.csv",
        (*CATALOGUE_COLUMNS, "label"),
        (
            facts
            | {
                "image_id": ids[k],
                "path": f"images/{k:07d}.fits",
                "object": f"MADE UP {k}",
                "ra_deg": 360 * k / images,
                "dec_deg": 0.0,
                "label": f"kind {kinds[k]}",
            }
            for k in range(images)
        ),
    )
    artefacts.write_csv(
        folder / "split.csv",
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


def embeddings_of(folder: Path) -> list[Path]:
    return sorted((folder / "embeddings").glob("*.parquet"))


def step_analyse(folder: Path, cores: int) -> None:
    from astromorph.analyse import analyse

    analyse(
        Settings(),
        folder / "catalogue.csv",
        folder / "split.csv",
        embeddings_of(folder),
        folder / "analysis.parquet",
        folder / "analysis.json",
        folder / "analysis.html",
        cores,
    )


def step_csv(folder: Path, cores: int) -> None:
    from astromorph.export_csv import export_csv

    export_csv(
        folder / "catalogue.csv",
        folder / "split.csv",
        embeddings_of(folder),
        folder / "export" / "embeddings.csv",
    )


# In the order of a run: later ones read what earlier ones wrote.
STEPS: dict[str, Callable[[Path, int], None]] = {
    "analyse": step_analyse,
    "csv": step_csv,
}


def measured(step: str, folder: Path, cores: int) -> dict[str, float]:
    """Seconds and megabytes of a step in its own process, its start included."""
    command = [sys.executable, __file__, "--step", step, "--folder", str(folder)]
    began = time.monotonic()
    done = subprocess.run(
        [*command, "--cores", str(cores)], stdout=subprocess.PIPE, text=True, check=True
    )
    return {"seconds": time.monotonic() - began, **json.loads(done.stdout)}


def run_one(step: str, folder: Path, cores: int) -> None:
    """One step in this process; prints its peak memory."""
    STEPS[step](folder, cores)
    used = resource.getrusage(resource.RUSAGE_SELF)
    cpu = used.ru_utime + used.ru_stime
    print(json.dumps({"cpu_seconds": cpu, "peak_mb": used.ru_maxrss * 1024 / 1e6}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--images", type=int, nargs="+", default=[1000, 10_000, 100_000]
    )
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=list(STEPS))
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--step", choices=STEPS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help="keep the files here")
    options = parser.parse_args()
    if options.step:
        run_one(options.step, options.folder, options.cores)
        return
    print(f"load before: {os.getloadavg()[0]:.1f}")
    print(f"{'images':>8} {'step':<14} {'seconds':>8} {'of CPU':>8} {'peak MB':>8}")
    for images in options.images:
        with tempfile.TemporaryDirectory() as temporary:
            folder = options.folder / str(images) if options.folder else Path(temporary)
            make(folder, images)
            for step in options.steps:
                found = measured(step, folder, options.cores)
                print(
                    f"{images:>8} {step:<14} {found['seconds']:>8.1f} "
                    f"{found['cpu_seconds']:>8.1f} {found['peak_mb']:>8.0f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
