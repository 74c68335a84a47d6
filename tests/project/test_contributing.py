"""The examples of CONTRIBUTING.md, applied to a copy of the project."""

import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from finished_run import catalogue_rows, write_run

from astromorph import SkyAugmentation

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
# "In `FILE`, before `LINE`:" or "A new file `FILE`:", and the block that follows.
EXAMPLE = re.compile(
    r"^(?:In `([^`\n]+)`, (before|after|in place of) `([^`\n]+)`"
    r"|A new file `([^`\n]+)`):\n\n```\w+\n(.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
CHECKS = """
import sys
import torch
from astromorph import ByolTrainer, SkyAugmentation
from astromorph.cli.main import main
from astromorph.models.encoders import build_network
from astromorph.settings.loading import parse
from astromorph.settings.sections import AugmentationSettings

folder = sys.argv[1]
torch.set_num_threads(1)
settings = parse({"network_name": "tiny"}, "test")
images = torch.rand(8, 1, 32, 32, generator=torch.Generator().manual_seed(0))
network = build_network(settings.network_name, settings.network_settings, 1)
trainer = ByolTrainer(network)
trainer.train_model(images, epochs=1, batch_size=4)
assert trainer(images).shape == (8, 32)

def view(**strengths):
    generator = torch.Generator().manual_seed(1)
    return SkyAugmentation(AugmentationSettings(**strengths), generator)(images)

torch.save(view(), f"{folder}/views.pt")
assert not torch.equal(view(), view(gradient=0.3))
options = ["--results", f"{folder}/results", "--shards", "2"]
main(["cluster_sizes", *options])
main(["export", "jsonl", *options])
"""


def apply(text: str, folder: Path) -> int:
    """Make the changes that a document describes; return their number."""
    number = 0
    for name, how, line, new, block in EXAMPLE.findall(text):
        number += 1
        if new:
            (folder / new).write_text(block)
            continue
        lines = (folder / name).read_text().splitlines(keepends=True)
        (k,) = (k for k, one in enumerate(lines) if one.strip().startswith(line))
        indent = lines[k][: len(lines[k]) - len(lines[k].lstrip())]
        start, stop = {"before": (k, k), "after": (k + 1, k + 1)}.get(how, (k, k + 1))
        lines[start:stop] = [textwrap.indent(block, indent)]
        if how == "before" and block.startswith(("@", "class", "def")):
            lines.insert(stop + 1, "\n" if indent else "\n\n")
        (folder / name).write_text("".join(lines))
    return number


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """A copy of the project with all examples."""
    folder = tmp_path_factory.mktemp("project")
    leave_out = shutil.ignore_patterns("__pycache__", "workflow_files")
    for name in ("astromorph", "workflow", "envs"):
        shutil.copytree(ROOT / name, folder / name, ignore=leave_out)
    for name in ("Snakefile", "pyproject.toml"):
        shutil.copy(ROOT / name, folder)
    assert apply((ROOT / "CONTRIBUTING.md").read_text(), folder) == 22
    return folder


def python(project: Path, folder: Path, *command: str) -> str:
    environment = os.environ | {"PYTHONPATH": str(project)}
    done = subprocess.run(
        [sys.executable, *command],
        cwd=folder, env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_examples_work(project, tmp_path):
    """The network trains, the views have a slope, the step and the export write."""
    files = write_run(tmp_path / "results", catalogue_rows(12), shard_sizes=(6, 6))
    python(project, tmp_path, "-c", CHECKS, str(tmp_path))
    first, second = (torch.Generator().manual_seed(seed) for seed in (0, 1))
    views = SkyAugmentation(generator=second)(torch.rand(8, 1, 32, 32, generator=first))
    assert torch.equal(torch.load(tmp_path / "views.pt"), views)
    sizes = (files.results / "cluster_sizes.csv").read_text().split()
    assert sizes[0] == "cluster,images"
    assert sum(int(row.partition(",")[2]) for row in sizes[1:]) == 12
    lines = files.table("jsonl").read_text().splitlines()
    assert [json.loads(line)["path"] for line in lines][:2] == [
        "fits/000.fits", "fits/001.fits"
    ]  # fmt: skip
    record = json.loads(files.record("cluster_sizes").read_text())
    assert "cluster_sizes.csv" in json.dumps(record)


def test_the_workflow_knows_the_step_and_the_export(project, tmp_path):
    """Both are rules with descriptions, and part of a run."""
    (tmp_path / "list.txt").write_text("a.fits\n")
    tables = "export_settings={tables: [jsonl]}"
    output = python(
        project, tmp_path, "-m", "snakemake", "-s", str(project / "Snakefile"), "-n",
        "--configfile", str(ROOT / "config" / "config.yaml"),
        "--config", "datafile=list.txt", tables,
    )  # fmt: skip
    jobs = re.findall(r"^rule (\w+):$", output, re.MULTILINE)
    assert {"cluster_sizes", "export_jsonl"} <= set(jobs)


def test_the_examples_follow_the_rules_for_code(project):
    """They pass the linter, the formatter and the rules of imports."""
    subprocess.run(
        [sys.executable, "-m", "ruff", "check", "astromorph"], cwd=project, check=True
    )
    subprocess.run(
        [sys.executable, "-m", "ruff", "format", "--check", "astromorph"],
        cwd=project, check=True,
    )  # fmt: skip
