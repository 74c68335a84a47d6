"""Measure time and memory of each step from ten thousand to a million images.

    python benchmarks/scale.py [--rows 10000 100000 1000000]
    python benchmarks/scale.py --train 100000

The first command simulates up to a thousand files of 16 by 16 pixels, repeats them in
the list as hard links, and runs all steps except training, each in a separate process.
It prints seconds, peak memory, and the exponent by which the time grows from one number
of rows to the next: 1 means twice the time for twice the rows. `plan` is the work of
every Snakemake process before its first job; `dry run` is all of `snakemake -n`.

The second command trains for one epoch on simulated images of 64 by 64 pixels, once
from memory and once from memory-mapped files, and prints the ratio of the private
memory of the process to the size of the images.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from astromorph.filelist.entries import read_filelist
from astromorph.filelist.shards import plan_shards
from astromorph.sky.draw import Telescope, draw
from astromorph.sky.morphologies import KINDS

ROOT = Path(__file__).resolve().parents[1]
FILES, SIDE = 1000, 16
SETTINGS = {
    "network_name": "amm",
    "preprocess_settings": {"size": SIDE},
    "byol_settings": {"representation_size": 32},
    "network_settings": {"weights": "random"},
    "inference_settings": {"symmetry": "none", "batch_size": 4096},
    "evaluation_settings": {"images": 0},
}
STEPS = ("plan", "dry run", "validate", "preprocess", "split", "infer", "csv", "board")
WAYS = ("memory", "mapped")  # where training reads its images from
# Runs one step in a separate process, for all shards one after the other.
CHILD = """
import json, sys, time
from astromorph.artefacts.run_files import RunFiles
from astromorph.filelist.entries import read_filelist
from astromorph.filelist.shards import plan_shards
from astromorph.settings.loading import parse
step, datafile, settings = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
rules = parse(settings | {"datafile": datafile}, "benchmark")
shards = []
if step != "plan":
    shards = list(plan_shards(read_filelist(datafile)))
def every(pattern):
    return [pattern.format(shard.name) for shard in shards]
tensors = every("tensors/{}.pt")
files = RunFiles.of_run(".", shards=len(shards))
embeddings = every("embeddings/{}.parquet")
if step in ("csv", "board"):
    from astromorph.artefacts.run_files import RunFiles
    files = RunFiles.of_run(".", len(shards))
start = time.perf_counter()
if step == "plan":
    from astromorph.filelist.shards import ShardStates
    shards = list(plan_shards(read_filelist(datafile)))
    ShardStates(datafile, shards).list_digest()
elif step == "validate":
    from astromorph.catalogue.validate import validate
    validate(
        datafile, files, rules.data_settings, rules.validate_settings,
        rules.preprocess_settings,
    )
elif step == "preprocess":
    from astromorph.preprocessing.preprocess import preprocess
    for shard in shards:
        preprocess(
            datafile, shard, files, rules.data_settings, rules.preprocess_settings
        )
elif step == "split":
    from astromorph.catalogue.split import split
    split(datafile, files, rules.split_settings, rules.validate_settings, rules.seed)
elif step == "infer":
    from pathlib import Path
    from astromorph.artefacts.run_files import RunFiles
    from astromorph.embedding.infer import infer
    start = time.perf_counter()
    files = RunFiles(Path(), tuple(s.name for s in shards), Path("model.pt"))
    for name in files.shards:
        infer(files, name, rules.inference_settings, 1)
elif step == "csv":
    from astromorph.export.tables.csv import export_csv
    export_csv(files, "comma")
elif step == "board":
    from astromorph.export.tensorboard import export_tensorboard
    export_tensorboard(files, 48)
taken = time.perf_counter() - start
if step == "infer":  # the analysis is measured by benchmarks/results.py; here made up
    import numpy as np
    from astromorph.artefacts.analysis_table import Analysis, write_analysis
    from astromorph.artefacts.embeddings import read_embeddings
    ids = tuple(k for path in embeddings for k in read_embeddings(path).image_ids)
    n = len(ids)
    none, places = np.zeros(n, np.int32), np.zeros((n, 2), np.float32)
    write_analysis("analysis.parquet", Analysis(
        ids, none, none, none, places, places, places[:, 0],
        np.arange(1, n + 1, dtype=np.int32), ("",) * n, ((),) * n, places[:, :0],
        ((),) * n))
# The peak of this program; getrusage would include that of its parent when it forked.
lines = open("/proc/self/status").read().splitlines()
print(next(int(l.split()[1]) / 1024 for l in lines if l.startswith("VmHWM")), taken)
"""
MODEL = """
import json, sys
from astromorph.byol.build import seeded_byol
from astromorph.artefacts.model_file import ModelFile, save_model
from astromorph.provenance import canonical_json
from astromorph.settings.loading import parse
from astromorph.settings.steps import part_of, train_step_settings
rules = parse(json.loads(sys.argv[2]), "benchmark")
tensor_settings = canonical_json(part_of(rules, "preprocess"))
state = seeded_byol(train_step_settings(rules), 1).state_dict()
train_settings = part_of(rules, "train")
save_model(sys.argv[1], ModelFile(state, train_settings, 1, tensor_settings, ""))
"""
TRAIN = """
import json, sys, threading, time
from pathlib import Path
import torch
from astromorph.datasets import tensor_datasets as datasets
from astromorph.artefacts.run_files import RunFiles
from astromorph.settings.loading import parse
from astromorph.settings.steps import train_step_settings
from astromorph.training import train
peak = [0, 0]
def own():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(l.split()[1]) for l in lines if l.startswith("RssAnon")) / 1024
def look():
    while True:
        peak[0] = max(peak[0], own())
        time.sleep(0.05)
if sys.argv[1] == "mapped":
    assert callable(datasets.available_memory)  # otherwise the next line has no effect
    datasets.available_memory = lambda: 0  # as in a job with little memory
rules = parse(json.loads(sys.argv[2]), "benchmark")
before = own()
threading.Thread(target=look, daemon=True).start()
start = time.perf_counter()
# A folder for each way: otherwise the second would resume from the first's checkpoint.
folder = Path(sys.argv[1])
folder.mkdir()
for name in ("tensors", "split.csv"):
    (folder / name).symlink_to(Path(name).resolve())
files = RunFiles.of_run(folder, shards=int(sys.argv[3]))
train.train(train_step_settings(rules), files, 2)
print(peak[0] - before, time.perf_counter() - start)
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, nargs="+", default=[10**4, 10**5, 10**6])
    parser.add_argument("--train", type=int, metavar="IMAGES", help="100 or more")
    parser.add_argument("--ways", choices=WAYS, nargs="+", default=WAYS)
    parser.add_argument(
        "--folder", type=Path, help="working folder; by default a temporary one"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        if options.train:
            training(Path(folder), options.train, options.ways)
        else:
            steps(Path(folder), options.rows)


def steps(folder: Path, sizes: list[int]) -> None:
    """Run all steps for each number of rows, then print the table."""
    originals = simulated_files(folder / "files", SIDE, min(FILES, max(sizes)))
    table: dict[str, list[tuple[float, float]]] = {step: [] for step in STEPS}
    jobs = []
    for number in sizes:
        work = folder / str(number)
        (work / "config").mkdir(parents=True)
        datafile = linked_list(originals, work / "fits", number)
        save_random_model(work / "model.pt")
        for step in STEPS:
            if step == "dry run":
                found, planned = dry_run(work, datafile)
                jobs.append(planned)
            else:
                found = child(work, CHILD, step, str(datafile), json.dumps(SETTINGS))
            table[step].append(found)
            said = f"{number:>9,} {step:<11}{found[1]:9.1f} s{found[0]:9.0f} MB"
            print(said, flush=True)
    show(sizes, table)
    print("jobs:", ", ".join(map(str, jobs)))


def show(sizes: list[int], table: dict[str, list[tuple[float, float]]]) -> None:
    """Print a row per step: seconds, MB, and exponents of growth."""
    print("\n| step |", " | ".join(f"{n:,} rows" for n in sizes), "| exponent |")
    print("|---" * (len(sizes) + 2) + "|")
    for step, found in table.items():
        cells = [f"{seconds:.1f} s, {memory:.0f} MB" for memory, seconds in found]
        pairs = zip(sizes, sizes[1:], found, found[1:], strict=False)
        grown = [math.log(b[1] / a[1]) / math.log(n / m) for m, n, a, b in pairs]
        exponents = ", ".join(f"{g:.2f}" for g in grown)
        print(f"| {step} | {' | '.join(cells)} | {exponents} |")


def child(folder: Path, program: str, *arguments: str) -> tuple[float, float]:
    """Run a program that prints its peak memory in MB and its time in seconds."""
    for name in ("tensors", "embeddings"):
        (folder / name).mkdir(exist_ok=True)
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], cwd=folder, text=True,
        stdout=subprocess.PIPE, check=True,
    )  # fmt: skip
    memory, seconds = map(float, done.stdout.split()[-2:])
    return memory, seconds


def dry_run(folder: Path, datafile: Path) -> tuple[tuple[float, float], int]:
    """Peak memory and time of `snakemake -n`, and the number of jobs that it plans."""
    settings = SETTINGS | {"datafile": str(datafile)}
    (folder / "config" / "config.yaml").write_text(json.dumps(settings))
    snakefile = str(ROOT / "Snakefile")
    command = [sys.executable, "-m", "snakemake", "-s", snakefile, "-n"]
    start = time.perf_counter()
    with (
        tempfile.TemporaryFile("w+") as output,
        subprocess.Popen(command, cwd=folder, stdout=output) as run,
    ):
        _, code, usage = os.wait4(run.pid, 0)
        output.seek(0)
        text = output.read()
    if code:
        raise SystemExit(text)
    lines = text.splitlines()
    jobs = next(line.split()[1] for line in lines if line.startswith("total"))
    return (usage.ru_maxrss / 1024, time.perf_counter() - start), int(jobs)


def simulated_files(folder: Path, side: int, number: int) -> list[Path]:
    """Write the files that all lists link to."""
    from astropy.io import fits

    folder.mkdir()
    rng = np.random.default_rng(0)
    kinds = list(KINDS)
    paths = [folder / f"{k}.fits" for k in range(number)]
    for k, path in enumerate(paths):
        seen = Telescope(2.0, 30.0)
        pixels = draw(kinds[k % len(kinds)], (side, side), rng, seen).pixels
        fits.PrimaryHDU(pixels).writeto(path)
    return paths


def linked_list(originals: list[Path], folder: Path, number: int) -> Path:
    """Write a list with a number of names, a thousand in each folder."""
    names = []
    for k in range(number):
        place = folder / f"{k // 1000:04d}"
        if k % 1000 == 0:
            place.mkdir(parents=True)
        os.link(originals[k % len(originals)], place / f"{k:07d}.fits")
        names.append(f"fits/{place.name}/{k:07d}.fits\n")
    datafile = folder.parent / "list.txt"
    datafile.write_text("".join(names))
    return datafile


def save_random_model(path: Path) -> None:
    """Write a model file with random weights, which take the same time to embed."""
    command = [sys.executable, "-c", MODEL, str(path), json.dumps(SETTINGS)]
    subprocess.run(command, check=True)


def training(folder: Path, number: int, ways: Sequence[str]) -> None:
    """Train for one epoch on few images, then on all images in each way."""
    settings = {
        "network_name": "amm", "epochs": 1, "batch_size": 256,
        "training_settings": {"simulated_images": 0, "precision": "float32"},
    }  # fmt: skip
    originals = simulated_files(folder / "files", 64, min(FILES, number))
    few = max(20, number // 50)
    for images in (few, number):
        work = folder / str(images)
        work.mkdir()
        datafile = linked_list(originals, work / "fits", images)
        for step in ("preprocess", "split"):
            child(work, CHILD, step, str(datafile), json.dumps(settings))
    size = (number - few) * 64 * 64 * 2 / 2**20
    shards = plan_shards(read_filelist(datafile))
    print(
        f"{number:,} images of 64 by 64, float16: {size:.0f} MB beyond {few:,} of them"
    )
    least = base = 0.0
    for images, way in ((few, "memory"), *((number, way) for way in ways)):
        count = sum(shard.start < images for shard in shards)
        memory, seconds = child(
            folder / str(images), TRAIN, way, json.dumps(settings), str(count)
        )
        least = least or memory
        base = base or seconds
        print(
            f"{images:>9,} from {way}: {seconds:.1f} s, {memory:.0f} MB of its own; "
            f"{(memory - least) / size:.2f} of the images beyond {few:,}, "
            f"{seconds / base:.1f} times the time"
        )


if __name__ == "__main__":
    main()
