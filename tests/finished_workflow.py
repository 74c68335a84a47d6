"""A finished run of the workflow with short training, and Snakemake in its folder."""

import fcntl
import os
import re
import shutil
from pathlib import Path

import command_line
import numpy as np
import pytest
import yaml
from astropy.io import fits

from astromorph.sky.simulate import simulate

ROOT = Path(__file__).parents[1]
BASE = {
    "datafile": "fits/filelist.csv",
    "network_name": "amm",
    "epochs": 2,
    "batch_size": 16,
    "core_limit": 1,  # so that sums have one order, in which the results are compared
    "preprocess_settings": {"size": 32, "shard_size": 16},
    "byol_settings": {"representation_size": 12},
    "training_settings": {"simulated_images": 20},
    "split_settings": {"test_fraction": 0.2},
    "inference_settings": {"symmetry": "none", "batch_size": 8},
    "export_settings": {
        "thumbnail_size": 16, "gallery_images": 6,
        "map_one_file": 30,  # so that the pictures of the map are in a folder
    },
}  # fmt: skip


def snakemake(
    folder: Path,
    *options: str,
    snakefile: Path = ROOT / "Snakefile",
    packages: Path | None = None,
):
    """Run Snakemake in a folder that has its own config/config.yaml.

    `packages` is a folder of packages that come before the installed ones.
    """
    arguments = ["-s", str(snakefile), *options]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(packages or ""))
        return command_line.run(arguments, folder, "snakemake", timeout=500)


def configure(folder: Path, changes: dict) -> None:
    """Write config/config.yaml: `BASE`, its sections merged with the changes."""
    settings = dict(BASE)
    for name, value in changes.items():
        old = settings.get(name)
        settings[name] = {**old, **value} if isinstance(old, dict) else value
    (folder / "config").mkdir(exist_ok=True)
    (folder / "config" / "config.yaml").write_text(yaml.safe_dump(settings))


def finished_workflow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the workflow ran on 40 good and 5 bad files.

    The first process of pytest that needs it makes it. It is to be copied, not changed.
    """
    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent  # of all processes
    folder = base / "finished workflow"
    with open(base / "finished workflow.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "results" / "index.html").exists():
            shutil.rmtree(folder, ignore_errors=True)
            _make(folder)
    return folder


def _make(folder: Path) -> None:
    filelist = simulate(folder / "fits", 40, seed=2)
    with open(filelist, "a") as file:
        file.write("absent.fits,lost\nnot.fits,text\n.,folder\n")
        file.write("nan.fits,nan\nsky_000001.fits,again\n")
    (folder / "fits" / "not.fits").write_text("this is no FITS file")
    _write_nan(folder / "fits" / "nan.fits")
    configure(folder, {})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOURCE_DATE_EPOCH", "0")
        done = snakemake(folder, "--cores", "2")
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stderr.splitlines()
    assert [line[:9].strip() for line in lines[-5:]] == [
        *("images", "verdict", "map", "home page", "next"),
    ]
    assert lines[-2].endswith("results/index.html")
    # Snakemake's own messages, and progress in lines without control characters.
    assert "rule train:" in done.stderr
    assert re.search(r"^\S+ train: epoch 2 of 2: train loss", done.stderr, re.M)
    assert "open results/validation.html: what the listed files" in done.stderr
    assert not set(done.stderr) & set("\r\x1b")


def _write_nan(path: Path) -> None:
    fits.PrimaryHDU(np.full((20, 20), np.nan, np.float32)).writeto(path)
