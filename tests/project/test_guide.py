"""The guide: it builds without a warning, and its programs run."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PROGRAMS = sorted((DOCS / "examples").glob("*.py"))
SAYS = {
    "checkpoints": "goes on after epoch 2",
    "images": "median pixel, as the workflow: ",
    "notebook": "0.0000  ",
    "own_augmentation": "loss ",
    "own_loss": "loss ",
    "own_metrics": "tensorboard --logdir runs",
    "own_network": "24 embeddings of length 64",
    "own_optimizer": "loss ",
    "start_and_lessons": "lesson loss ",
    "workflow_model": "own.csv has 24 rows",
    "several_devices": "2 processes, loss ",
    "tutorial": "The oddest image is ",
}


def test_every_program_is_run_and_shown():
    """None is forgotten here, or in a page."""
    assert {program.stem for program in PROGRAMS} == set(SAYS)
    pages = "".join(page.read_text() for page in DOCS.rglob("*.md"))
    for program in PROGRAMS:
        assert f"examples/{program.name}" in pages


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda path: path.stem)
def test_programs_run_as_they_stand(program, tmp_path):
    """In an empty folder; what they print is what they say."""
    command = [sys.executable, str(program)]
    if program.stem == "several_devices":
        launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
        command[1:1] = launcher
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=300,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert SAYS[program.stem] in done.stdout


def test_the_tutorials_program_takes_a_run_without_labels(tmp_path):
    """What the tutorial's own steps leave behind: a plain list, a table."""
    folder = tmp_path / "results"
    (folder / "export").mkdir(parents=True)
    (folder / "evaluation.json").write_text('{"verdict": {"sentence": "fine"}}')
    rows = ["path,emb_0,emb_1", "a.fits,1,0", "b.fits,1,0.1", "c.fits,-1,0"]
    (folder / "export" / "embeddings.csv").write_text("\n".join(rows))
    command = [sys.executable, str(DOCS / "examples" / "tutorial.py"), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "The oddest image is" in done.stdout


def test_the_reference_names_everything_public():
    """What `astromorph` offers is explained where people look for it."""
    import astromorph

    page = (DOCS / "api.md").read_text()
    missing = [n for n in astromorph.__all__ if f"astromorph.{n}" not in page]
    assert not missing


def test_the_guide_builds_without_a_warning(tmp_path):
    """Every link, every name, every program that is shown."""
    command = [sys.executable, "-m", "sphinx", "-W", "-q", "-b", "html"]
    done = subprocess.run(
        [*command, "-d", str(tmp_path / "trees"), str(DOCS), str(tmp_path / "html")],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "html" / "settings.html").read_text()
    assert "simulated_images" in page
    assert "an integer, at least 16, at most 1,024" in page
    for figure in ("method", "views", "schedules", "evaluation"):
        drawn = tmp_path / "html" / "_images" / f"{figure}.png"
        assert drawn.stat().st_size > 10_000
    reference = (tmp_path / "html" / "api.html").read_text()
    for name in ("representation_size", "start_from_sky", "AugmentationSettings"):
        assert name in reference
    method = (tmp_path / "html" / "training.html").read_text()
    assert method.count('<math display="block"') == 3
    for page in (tmp_path / "html").rglob("*.html"):
        text = page.read_text()
        assert not re.search(r"(src|href)=\"(https?:)?//[^\"]*\\.(js|css)", text), page
