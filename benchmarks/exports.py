"""Time and memory of each export from a thousand to a hundred thousand images.

    python benchmarks/exports.py [--rows 1000 10000 100000] [--length 512]

Facts, analysis, embeddings and images (of 16 by 16 pixels) are made up. Each export
runs in a process of its own. It prints seconds, the peak of memory, and the size of
what was written.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from astromorph import artefacts
from astromorph.analysis_file import Analysis, write_analysis
from astromorph.artefacts import CATALOGUE_COLUMNS, SPLIT_COLUMNS, Embeddings
from astromorph.tensor_file import SHARD_FORMAT, SHARD_VERSION, save_tensors

SIDE, SHARD, NEIGHBOURS = 16, 16_384, 12
EXPORTS = ("csv", "parquet", "fits", "votable", "tensorboard")
CHILD = """
import importlib, sys, time
from pathlib import Path
from astromorph.settings import Settings
from astromorph.table_rows import Inputs
form = sys.argv[1]
export = getattr(importlib.import_module(f"astromorph.export_{form}"), f"export_{form}")
embeddings = tuple(sorted(Path("embeddings").iterdir()))
inputs = Inputs("catalogue.csv", "split.csv", embeddings, "analysis.parquet")
more = (sorted(Path("tensors").iterdir()),) if form == "tensorboard" else ()
start = time.perf_counter()
export(Settings(), inputs, *more, f"out/{form}")
taken = time.perf_counter() - start
# Of this program alone: getrusage would count what its parent was when it forked.
lines = open("/proc/self/status").read().splitlines()
print(next(int(l.split()[1]) / 1024 for l in lines if l.startswith("VmHWM")), taken)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[10**3, 10**4, 10**5])
    parser.add_argument("--length", type=int, default=512, help="of an embedding")
    parser.add_argument("--folder", type=Path, help="to work in; else a temporary one")
    options = parser.parse_args()
    print(f"{'rows':>8} {'export':12} {'seconds':>8} {'MB peak':>8} {'MB file':>8}")
    for number in options.rows:
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            make(Path(folder), number, options.length)
            for form in EXPORTS:
                measure(Path(folder), form, number)


def measure(folder: Path, form: str, number: int) -> None:
    """One export in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", CHILD, form],
        cwd=folder, check=True, capture_output=True, text=True,
    )  # fmt: skip
    memory, seconds = map(float, done.stdout.split())
    out = folder / "out" / form
    files = [p for p in (out, *out.rglob("*")) if p.is_file()]
    size = sum(p.stat().st_size for p in files) / 1e6
    print(f"{number:8} {form:12} {seconds:8.1f} {memory:8.0f} {size:8.1f}", flush=True)


def make(folder: Path, number: int, length: int) -> None:
    """A made-up run, up to its analysis."""
    draw = np.random.default_rng(0)
    ids = tuple(f"{k:016x}" for k in range(number))
    facts = (
        {
            "image_id": ids[k], "path": f"/data/survey/field_{k:07d}.fits",
            "status": "ok", "hdu": 0, "shape": "64x64", "dtype": "float32",
            "width": 64, "height": 64, "ra_deg": k * 1e-3, "dec_deg": k * -1e-4,
            "pixel_scale_arcsec": 1.8, "object": f"J{k:07d}", "telescope": "VLA",
            "channels": 1, "file_bytes": 20_160, "label": "ab"[k % 2],
            "redshift": f"{k * 1e-6:.6f}",
        }
        for k in range(number)
    )  # fmt: skip
    columns = (*CATALOGUE_COLUMNS, "label", "redshift")
    artefacts.write_csv(folder / "catalogue.csv", columns, facts)
    fates = ({"image_id": i, "status": "ok", "subset": "train"} for i in ids)
    artefacts.write_csv(folder / "split.csv", SPLIT_COLUMNS, fates)
    write_analysis(folder / "analysis.parquet", analysis(ids, draw))
    for start in range(0, number, SHARD):
        some, name = ids[start : start + SHARD], f"{start // SHARD:05d}"
        vectors = draw.normal(size=(len(some), length)).astype(np.float32)
        path = folder / "embeddings" / f"{name}.parquet"
        artefacts.write_embeddings(path, Embeddings(some, vectors))
        save_tensors(folder / "tensors" / f"{name}.pt", shard(some, draw))


def analysis(ids: tuple[str, ...], draw: np.random.Generator) -> Analysis:
    """Findings about the images, drawn by lot."""
    number = len(ids)
    near = draw.integers(0, number, (number, NEIGHBOURS)).tolist()
    clusters = draw.integers(-1, 12, (3, number)).astype(np.int32)
    return Analysis(
        image_ids=ids,
        cluster=clusters[0],
        kmeans=clusters[1],
        hdbscan=clusters[2],
        map=draw.normal(size=(number, 2)).astype(np.float32),
        pca=draw.normal(size=(number, 2)).astype(np.float32),
        outlier_score=draw.random(number).astype(np.float32),
        outlier_rank=(1 + draw.permutation(number)).astype(np.int32),
        roles=("odd", *("",) * (number - 1)),
        neighbours=tuple(tuple(ids[k] for k in row) for row in near),
        distances=draw.random((number, NEIGHBOURS)).astype(np.float32),
        duplicates=((),) * number,
    )


def shard(ids: tuple[str, ...], draw: np.random.Generator) -> dict[str, object]:
    """Images of a shard, of noise."""
    number = len(ids)
    pixels = draw.random((number, 1, SIDE, SIDE), np.float32)
    return {
        "format": SHARD_FORMAT, "format_version": SHARD_VERSION, "channels": 1,
        "images": pixels.astype(np.float16), "image_ids": list(ids),
        "shapes": np.full((number, 2), SIDE, np.int32), "rows": np.arange(number),
        "valid": np.full(number * SIDE**2 // 8, 255, np.uint8), "statistics": {},
        "settings": "{}",
    }  # fmt: skip


if __name__ == "__main__":
    main()
