"""The guide builds without warnings; its programs run and have correct types."""

import os
import re
import subprocess
import sys
from pathlib import Path

import command_line
import numpy as np
import pytest
from astropy.table import Table
from finished_run import write_random_model

from astromorph.artefacts.model_file import save_model
from astromorph.artefacts.run_files import RunFiles
from astromorph.byol.build import build_byol, make_model_file
from astromorph.export.model.model import export_model
from astromorph.settings.loading import parse
from astromorph.settings.steps import train_step_settings
from astromorph.sky.simulate import simulate

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(page for page in DOCS.rglob("*.md") if "_build" not in page.parts)
PROGRAMS = sorted((DOCS / "examples").glob("*.py"))
# Regular expressions of a line that each program prints at or near its end.
OUTPUT = {
    "checkpoints": r"resuming after epoch 2",
    "embed_with_onnx": r"2 embeddings of length 128",
    "images": r"median pixel, prepared: 0\.\d\d to 0\.\d\d",
    "notebook": r"0\.0000  \S+\.fits  \w+",
    "own_augmentation": r"loss \d\.\d+",
    "own_loss": r"loss \d\.\d+",
    "own_metrics": r"tensorboard --logdir runs",
    "own_network": r"24 embeddings of length 64",
    "own_optimizer": r"loss \d\.\d+",
    "start_and_auxiliary_task": r"auxiliary loss \d\.\d+",
    "workflow_model": r"own\.csv has 24 rows",
    "several_devices": r"2 processes, loss \d\.\d+",
    "tutorial": r"The most unusual image is \S+\.fits",
}
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
BLOCKS = [
    pytest.param(match[1], id=f"{page.stem}-{k}")
    for page in PAGES
    for k, match in enumerate(BLOCK.finditer(page.read_text()))
]


def test_every_program_is_run_and_shown():
    """Each has its expected output in this module and is shown on a page."""
    assert {program.stem for program in PROGRAMS} == set(OUTPUT)
    pages = "".join(page.read_text() for page in PAGES)
    for program in PROGRAMS:
        assert f"examples/{program.name}" in pages


def check_types(*paths: Path) -> subprocess.CompletedProcess[str]:
    """Run mypy on programs with the configuration of `make lint`, to use its cache."""
    command = [sys.executable, "-m", "mypy", *map(str, paths)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


@pytest.mark.slow
def test_programs_and_blocks_have_correct_types(tmp_path):
    """According to mypy, which detects a wrong type of a setting in this test."""
    blocks = []
    for k, block in enumerate(BLOCKS):
        blocks.append(tmp_path / f"block_{k}.py")
        blocks[-1].write_text(block.values[0])
    done = check_types(*PROGRAMS, *blocks)
    assert re.search(r"^(Found|Success)", done.stdout, re.MULTILINE), done.stderr
    assert not wrong_settings(done.stdout)
    wrong = tmp_path / "wrong.py"
    wrong.write_text(
        "from astromorph.settings.sections import AugmentationSettings\n"
        "AugmentationSettings(rotation=0.5)\n"
    )
    done = check_types(wrong)
    assert len(wrong_settings(done.stdout)) == 1


def wrong_settings(report: str) -> list[str]:
    """Lines of mypy about a value that a group of settings does not accept."""
    pattern = r'(Unexpected keyword )?[Aa]rgument .* (to|for) "\w*Settings"'
    return [line for line in report.splitlines() if re.search(pattern, line)]


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda path: path.stem)
def test_programs_set_no_setting_without_a_check(program):
    """`model_copy` and `model_construct` of pydantic accept values of any type."""
    assert not re.search(r"\.model_(copy|construct)\(", program.read_text())


def test_pages_have_blocks_and_programs():
    """The parametrised tests of this module have something to run."""
    assert len(BLOCKS) >= 2
    assert len(PROGRAMS) >= 12


@pytest.mark.parametrize("block", BLOCKS)
def test_python_blocks_of_the_pages_run(block, tmp_path, monkeypatch):
    """In a folder with the table and the model that they use."""
    monkeypatch.chdir(tmp_path)
    export = tmp_path / "results" / "export"
    model = tmp_path / "runs" / "layer2-seed1" / "results" / "model" / "model.pt"
    for folder in (export, model.parent):
        folder.mkdir(parents=True)
    table = Table({"embedding": np.ones((3, 4), np.float32)})
    table.write(export / "embeddings.fits")
    table.write(export / "embeddings.vot", format="votable")
    settings = train_step_settings(parse({"network_name": "amm"}, "test"))
    byol = build_byol(settings, in_channels=1)
    save_model(model, make_model_file(byol, settings, 1, "{}", ["0"]))
    exec(compile(block, "block of a page", "exec"), {"__name__": "block"})


@pytest.mark.slow
@pytest.mark.parametrize("program", PROGRAMS, ids=lambda path: path.stem)
def test_programs_run(program, tmp_path):
    """Unchanged, in an empty folder, with the expected output.

    None replaces the results of a run, whose folder a reader may be in.
    """
    if program.stem == "several_devices":
        launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
        done = subprocess.run(
            [sys.executable, *launcher, str(program)],
            cwd=tmp_path, capture_output=True, text=True, timeout=300,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )  # fmt: skip
    else:
        needs_model = program.stem == "embed_with_onnx"
        arguments = exported_model(tmp_path) if needs_model else []
        done = command_line.run(arguments, tmp_path, program)
    assert done.returncode == 0, done.stderr
    assert re.search(rf"^.*{OUTPUT[program.stem]}", done.stdout, re.MULTILINE)
    assert not (tmp_path / "results").exists()


def exported_model(folder: Path) -> list[str]:
    """Write a model and two images; the arguments of the program that needs them."""
    simulate(folder / "fits", 2, seed=0)
    write_random_model(folder / "model.pt", parse({"network_name": "amm"}, "test"))
    files = RunFiles.of_run(folder / "none", named_model=folder / "model.pt")
    export_model(files, folder / "shared", has_run=False)
    return ["shared", *map(str, sorted((folder / "fits").glob("*.fits")))]


def test_the_tutorial_reads_a_run_without_labels(tmp_path):
    """The table has no column `label` if the file list is a plain text list."""
    folder = tmp_path / "results"
    (folder / "export").mkdir(parents=True)
    (folder / "evaluation.json").write_text('{"verdict": {"sentence": "fine"}}')
    rows = [
        "image_id,path,outlier_rank,neighbour_ids,emb_0",
        "1e5,a.fits,3,2e5 3e5,1",
        "2e5,b.fits,1,3e5 1e5,-1",
        "3e5,c.fits,2,2e5,0",
    ]
    (folder / "export" / "embeddings.csv").write_text("\n".join(rows))
    command = [sys.executable, str(DOCS / "examples" / "tutorial.py"), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "The most unusual image is b.fits" in done.stdout
    assert "similar to it are ['c.fits', 'a.fits']" in done.stdout
    assert "label" not in done.stdout


def test_the_reference_lists_every_public_name():
    """docs/api.md contains each name of `astromorph.__all__`."""
    import astromorph

    page = (DOCS / "api.md").read_text()
    missing = [n for n in astromorph.__all__ if f"astromorph.{n}" not in page]
    assert not missing


@pytest.mark.slow
def test_the_guide_builds_without_a_warning(tmp_path):
    """With all links and figures; pages load no scripts or styles from other sites."""
    program = tmp_path / "program.py"
    program.write_text("from sphinx.cmd.build import main\nraise SystemExit(main())\n")
    folders = [tmp_path / "trees", DOCS, tmp_path / "html"]
    arguments = ["-W", "-q", "-b", "html", "-d", *map(str, folders)]
    done = command_line.run(arguments, ROOT, program)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "html" / "settings.html").read_text()
    assert "simulated_images" in page
    assert "an integer, at least 16, at most 1,024" in page
    for figure in ("method", "morphologies", "views", "schedules", "evaluation"):
        drawn = tmp_path / "html" / "_images" / f"{figure}.png"
        assert drawn.stat().st_size > 10_000
    reference = (tmp_path / "html" / "api.html").read_text()
    for name in ("representation_size", "start_from_sky", "AugmentationSettings"):
        assert name in reference
    method = (tmp_path / "html" / "training.html").read_text()
    assert method.count('<math display="block"') == 3
    pages = list((tmp_path / "html").rglob("*.html"))
    assert len(pages) > len(PAGES)
    for page in pages:
        assert not loaded_from_elsewhere(page.read_text()), page


def loaded_from_elsewhere(page: str) -> list[str]:
    """Addresses of scripts and styles on other machines that an HTML page loads."""
    pattern = r"<(?:script|link)\b[^>]*\b(?:src|href)=[\"']((?:https?:)?//[^\"']+)"
    return [
        address
        for address in re.findall(pattern, page)
        if re.search(r"\.(js|css)\b", address)
    ]


def test_scripts_from_elsewhere_are_recognised():
    """With either kind of quotes, without a protocol, and with a version."""
    page = """
    <script src="https://example.org/a.js"></script>
    <link rel="stylesheet" href='//example.org/b.css?v=1'>
    <script src="_static/own.js"></script> <a href="https://example.org/c.js">c</a>
    """
    found = loaded_from_elsewhere(page)
    assert found == ["https://example.org/a.js", "//example.org/b.css?v=1"]
