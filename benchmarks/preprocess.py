"""Compare the speed of `validate` and `preprocess` with reading files by astropy.

    python benchmarks/preprocess.py [--number 5000] [--rounds 5]
    python benchmarks/preprocess.py --memory 1000 10000 100000

All steps are run on the same cached files of 128 by 128 pixels, float32. They
alternate, and ratios are those of medians, so that other work on the machine affects
all of them equally. With `--memory`, it prints the peak memory of one process for lists
of each length, and its ratio to that for the first list.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import Executor, ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
from astropy.io import fits

from astromorph.artefacts.run_files import RunFiles
from astromorph.catalogue.validate import validate
from astromorph.filelist.shards import Shard
from astromorph.fits.facts import ImageFacts
from astromorph.fits.image import write_image
from astromorph.preprocessing.preprocess import preprocess
from astromorph.settings.sections import Settings

SETTINGS = Settings()
SIDE = 128
MAX_SHORT = 1000  # files of the shorter list, at most
MAX_FILES = 1000  # different files; longer lists contain hard links to them
CHILD = """
import resource, sys, time
from astromorph.artefacts.run_files import RunFiles
from astromorph.settings.sections import Settings
step, datafile, folder = sys.argv[1:]
settings, files = Settings(), RunFiles.of_run(folder)
data = settings.data_settings
start = time.perf_counter()
if step == "validate":
    from astromorph.catalogue.validate import validate
    validate(
        datafile, files, data, settings.validate_settings, settings.preprocess_settings
    )
else:
    from astromorph.filelist.entries import read_filelist
    from astromorph.filelist.shards import plan_shards
    from astromorph.preprocessing.preprocess import preprocess
    for shard in plan_shards(read_filelist(datafile)):
        preprocess(datafile, shard, files, data, settings.preprocess_settings)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(f"{peak:.0f} {time.perf_counter() - start:.1f}")
"""


def write_files(folder: Path, number: int) -> Path:
    """Write images of a source with headers of radio images, and their list."""
    rng = np.random.default_rng(0)
    y, x = np.indices((SIDE, SIDE))
    for k in range(number):
        centre, width = rng.uniform(40, 88, 2), rng.uniform(3, 12)
        source = np.exp(-((y - centre[0]) ** 2 + (x - centre[1]) ** 2) / width**2)
        pixels = (rng.normal(0, 1, (SIDE, SIDE)) + 50 * source).astype(np.float32)
        facts = ImageFacts(
            hdu=0, shape=pixels.shape, dtype="float32", width=SIDE, height=SIDE,
            ra_deg=float(rng.uniform(0, 360)), dec_deg=float(rng.uniform(-80, 80)),
            pixel_scale_arcsec=1.8, object_name=f"B {k}", telescope="VLA",
            unit="Jy/beam", rest_frequency_hz=1.4e9,
        )  # fmt: skip
        write_image(folder / f"{k}.fits", pixels, facts, 5.4)
    datafile = folder / "list.txt"
    datafile.write_text("".join(f"{k}.fits\n" for k in range(number)))
    return datafile


def read_bare(paths: list[Path]) -> None:
    """Open each file with astropy and read its header and pixels."""
    for path in paths:
        with fits.open(path, memmap=False) as file:
            file[0].header["NAXIS1"], file[0].data.sum()


def seconds(work: Callable[..., object], *arguments: object) -> float:
    """Wall time of one call in seconds."""
    start = time.perf_counter()
    work(*arguments)
    return time.perf_counter() - start


def run_validate(datafile: Path, files: RunFiles, processes: int) -> None:
    """Validate a list with the default settings."""
    data, rules = SETTINGS.data_settings, SETTINGS.validate_settings
    preprocessing = SETTINGS.preprocess_settings
    validate(datafile, files, data, rules, preprocessing, processes)


def run_preprocess(datafile: Path, rows: tuple[int, int], folder: Path) -> None:
    """Preprocess some rows of a list with the default settings."""
    data, preprocessing = SETTINGS.data_settings, SETTINGS.preprocess_settings
    shard = Shard(f"{rows[0]:05d}", *rows)
    preprocess(datafile, shard, RunFiles(folder), data, preprocessing)


def preprocess_in_two(
    datafile: Path, number: int, folder: Path, pool: Executor
) -> None:
    """Preprocess a list in two processes, half of it in each."""
    half = number // 2
    jobs = [
        pool.submit(run_preprocess, datafile, rows, folder)
        for rows in ((0, half), (half, number))
    ]
    for job in jobs:
        job.result()


def read_bare_in_two(paths: list[Path], pool: Executor) -> None:
    """Read the files with astropy in two processes, to measure the machine's limit."""
    for job in [pool.submit(read_bare, paths[k::2]) for k in range(2)]:
        job.result()


def validate_seconds(
    lists: tuple[Path, Path], files: RunFiles, processes: int
) -> float:
    """Seconds to validate the longer list minus those for the shorter one.

    The difference excludes constant costs, such as starting processes and the sample.
    """
    short, long = (
        seconds(run_validate, datafile, files, processes) for datafile in lists
    )
    return long - short


def speed(folder: Path, number: int, rounds: int) -> None:
    """Print the ratios."""
    datafile = write_files(folder, number)
    paths = [folder / f"{k}.fits" for k in range(number)]
    files = RunFiles(folder)
    n_short = min(MAX_SHORT, number // 2)
    short = folder / "short.txt"
    short.write_text("".join(f"{k}.fits\n" for k in range(n_short)))
    lists = (short, datafile)
    times: dict[str, list[float]] = {}
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        preprocess_in_two(datafile, 8, folder, pool)  # imports the modules in both
        works: dict[str, Callable[[], float]] = {
            "bare read": lambda: seconds(read_bare, paths),
            "bare read, 2 processes": lambda: seconds(read_bare_in_two, paths, pool),
            "validate": lambda: (
                validate_seconds(lists, files, 1) * number / (number - n_short)
            ),
            "validate, 2 processes": lambda: (
                validate_seconds(lists, files, 2) * number / (number - n_short)
            ),
            "preprocess": lambda: seconds(
                run_preprocess, datafile, (0, number), folder
            ),
            "preprocess, 2 processes": lambda: seconds(
                preprocess_in_two, datafile, number, folder, pool
            ),
        }
        for _ in range(rounds + 1):
            for name, work in works.items():
                times.setdefault(name, []).append(work())
    medians = {name: statistics.median(values[1:]) for name, values in times.items()}
    print(f"{number} files, median of {rounds} rounds")
    print("| step | files/s | time over bare read | over one process |")
    print("|---|---|---|---|")
    for name, median in medians.items():
        one = medians[name.partition(",")[0]]
        speed_up = f"{one / median:.2f} times faster" if "," in name else ""
        ratio = median / medians["bare read"]
        print(f"| {name} | {number / median:.0f} | {ratio:.2f} | {speed_up} |")


def memory(folder: Path, numbers: list[int]) -> None:
    """Print the peak memory of one process for lists of growing length."""
    files = min(MAX_FILES, max(numbers))
    write_files(folder, files)
    first: dict[str, float] = {}
    print("| files | step | peak MB | ratio | s |\n|---|---|---|---|---|")
    for number in numbers:
        for k in range(files, number):
            link = folder / f"{k}.fits"
            if not link.exists():
                os.link(folder / f"{k % files}.fits", link)
        datafile = folder / "list.txt"
        datafile.write_text("".join(f"{k}.fits\n" for k in range(number)))
        for step in ("validate", "preprocess"):
            command = [sys.executable, "-c", CHILD, step, datafile, folder]
            done = subprocess.run(
                [str(part) for part in command],
                capture_output=True, text=True, check=True,
            )  # fmt: skip
            peak, wall = done.stdout.split()
            ratio = float(peak) / first.setdefault(step, float(peak))
            print(f"| {number} | {step} | {peak} | {ratio:.2f} | {wall} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--number", type=int, default=5000, help="files, 8 or more")
    parser.add_argument("--rounds", type=int, default=5, help="repetitions")
    parser.add_argument("--memory", type=int, nargs="+", metavar="FILES")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        if options.memory:
            memory(Path(name), options.memory)
        else:
            speed(Path(name), options.number, options.rounds)


if __name__ == "__main__":
    main()
