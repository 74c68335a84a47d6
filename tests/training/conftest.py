"""A run whose next step is training."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import command_line
import pytest
from command_line import Command

from astromorph.artefacts.run_files import RunFiles


@pytest.fixture(scope="session")
def split_run(prepared, sky, settings, tmp_path_factory) -> RunFiles:
    """The tensors of two shards, and the split of their 28 images."""
    folder = tmp_path_factory.mktemp("split_run")
    files = RunFiles.of_run(folder / "results", shards=2)
    files.all_tensors[0].parent.mkdir(parents=True)
    for path in (files.catalogue, *files.all_tensors, *files.all_contents):
        path.symlink_to(next(prepared.rglob(path.name)))
    command = ["split", f"--datafile={sky}"]
    command += [f"--results={files.results}", f"--shards={len(files.shards)}"]
    command += ["--settings", json.dumps(settings.model_dump(mode="json"))]
    done = command_line.run(command, folder)
    assert done.returncode == 0, done.stderr
    return files


@pytest.fixture(scope="session")
def start_training(split_run) -> Callable[..., Command]:
    """A function that starts `astromorph train` in a copy of that run."""

    def start(folder: Path, **settings) -> Command:
        if not (folder / "results").exists():
            shutil.copytree(split_run.results, folder / "results", symlinks=True)
        command = ["train", "--threads=1"]
        command += ["--results=results", f"--shards={len(split_run.shards)}"]
        command += ["--settings", json.dumps({"network_name": "amm", **settings})]
        (folder / "log").write_text("")
        return Command(command, folder, folder / "output", folder / "log")

    return start
