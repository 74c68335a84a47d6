"""Every benchmark and every script of the guide runs as a user would start it.

Sizes are as small as the scripts allow: what is checked is that they run and that each
row that they promise is printed with numbers, not what the numbers are.
"""

import json
import os
import re
import shutil
from pathlib import Path

import command_line
import numpy as np
import pytest
import torch
from finished_workflow import finished_workflow, snakemake
from PIL import Image

from astromorph.byol.build import load_model
from astromorph.byol.start_weights import WEIGHTS_FORMAT
from astromorph.cli.steps import STEPS
from astromorph.settings.loading import setting_names
from astromorph.sky.simulate import simulate

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted([*ROOT.glob("benchmarks/*.py"), *ROOT.glob("docs/*.py")])
QUICK_STEPS = ROOT / "tests" / "workflow" / "quick_steps"
SPHINX = ROOT / "docs" / "conf.py"  # read by Sphinx, see tests/project/test_guide.py
NUMBER = re.compile(r"-?\d[\d,]*(\.\d+)?(e-?\d+)?")
QUICK_TRAINING = {
    "network_name": "amm", "epochs": 1, "batch_size": 16,
    "network_settings": {"weights": "random"},
    "training_settings": {"simulated_images": 0},
    "preprocess_settings": {"size": 32},
    "analysis_settings": {"map": "pca"},
    "evaluation_settings": {"images": 20},
}  # fmt: skip


@pytest.fixture
def script(tmp_path):
    """A function that runs a script in an empty folder and returns its output."""

    def run(
        path: str, *arguments: str | Path | int, seconds: int = 500, forks: bool = True
    ) -> str:
        done = command_line.run(
            list(map(str, arguments)), tmp_path, ROOT / path, seconds, forks
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def table_rows(output: str) -> dict[str, list[str]]:
    """The other cells of each row of Markdown tables, by the first cell.

    Heads and rulers are left out.
    """
    rows, head = {}, ""
    for line in output.splitlines():
        cells = [cell.strip() for cell in line.strip("| ").split("|")]
        if line.startswith("|---"):
            del rows[head]
        elif line.startswith("|"):
            head = cells[0]
            rows[head] = cells[1:]
    return rows


def numbers(text: str) -> list[float]:
    """All numbers in a text."""
    return [float(m[0].replace(",", "")) for m in NUMBER.finditer(text)]


def test_every_script_has_a_test():
    """A new script in benchmarks/ or docs/ is run by a test of this module."""
    started = set(re.findall(r"script\(\s*\"([^\"]+)\"", Path(__file__).read_text()))
    expected = {str(p.relative_to(ROOT)) for p in SCRIPTS if p != SPHINX}
    assert len(expected) >= 12
    assert started == expected


@pytest.mark.slow
@pytest.mark.parametrize(
    "path", [p for p in SCRIPTS if p != SPHINX], ids=lambda p: p.stem
)
def test_every_script_explains_itself(path, tmp_path):
    """`--help` only prints a description, and succeeds."""
    done = command_line.run(["--help"], tmp_path, path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"usage: {path.name}")
    assert len(done.stdout.split("options:")[0].split()) > 12
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_channels(script, tmp_path):
    """Two sets, four networks, three balanced accuracies each."""
    simulate(tmp_path / "sky", 8, seed=0)
    output = script("benchmarks/channels.py", tmp_path / "sky", "--images", 18)
    titles = [line for line in output.splitlines() if not line.startswith(" ")]
    rows = [line for line in output.splitlines() if line.startswith(" ")]
    assert titles == ["coloured: 18 images", "alerts: 18 images"]
    assert len(rows) == 8
    for row in rows:
        *name, knn, whitened, linear = row.split()
        assert name[0] in ("sky,", "untrained,")
        assert name[1] in ("joint", "separate")
        assert all(0 < float(score) <= 1 for score in (knn, whitened, linear))


def test_structure(script):
    """Both ways of counting imports, and the ratio of two checkouts."""
    rows = table_rows(script("benchmarks/structure.py", ROOT, ROOT))
    assert len(rows) == 15
    for name, cells in rows.items():
        first, second, ratio = numbers(" ".join(cells))
        assert first == second > 0, name
        assert ratio == 1, name
    modules = [p for p in (ROOT / "astromorph").rglob("*.py") if p.stem != "__init__"]
    assert numbers(rows["modules"][0]) == [len(modules)]


def test_structure_of_a_known_package(script, tmp_path):
    """Levels, lengths and both counts of imports of five modules, in a flat layout."""
    package = tmp_path / "old" / "astromorph"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text('"""All."""\n')
    (package / "a.py").write_text("X = 1\n")
    (package / "b.py").write_text("from astromorph import a\n")
    (package / "c.py").write_text("from astromorph.b import x\n")
    (package / "types.py").write_text("import math\n")
    (package / "train.py").write_text(
        "from typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    from astromorph.types import T\n"
        'def f():\n    """Text.\n\n    More.\n    """\n    import astromorph.c\n'
        "    return 1  # fmt: skip\n"
    )
    rows = table_rows(script("benchmarks/structure.py", tmp_path / "old"))
    figures = {name: numbers(cells[0])[0] for name, cells in rows.items()}
    assert figures["modules"] == figures["modules in the largest folder"] == 5
    assert figures["import levels"] == 4
    assert figures["lines of a function, median"] == 3
    assert figures["TYPE_CHECKING blocks"] == figures["functions"] == 1
    assert figures["`# fmt: skip` comments"] == 1
    assert figures["modules that the step `train` imports"] == 3
    assert figures["modules that the step `train` imports, TYPE_CHECKING included"] == 4


def test_robustness(script):
    """Thirty damaged files; each is counted with its result."""
    head, limits, *results = script(
        "benchmarks/robustness.py", "--number", 30
    ).splitlines()
    assert head.startswith("30 damaged files of ")
    assert len(re.findall(r"\d\.\d\d of the limit", limits)) == 2
    assert sum(int(line.split()[0]) for line in results) == 30


@pytest.mark.slow
def test_preprocess(script):
    """Speeds and ratios of the steps, then memory for two lengths."""
    rows = table_rows(script("benchmarks/preprocess.py", "--number", 16, "--rounds", 1))
    steps = ("bare read", "validate", "preprocess")
    assert list(rows) == [n for s in steps for n in (s, f"{s}, 2 processes")]
    for name, cells in rows.items():
        expected = 3 if "2 processes" in name else 2
        assert len(numbers(" ".join(cells))) == expected, name
    output = script("benchmarks/preprocess.py", "--memory", 10, 20)
    lines = [line.split("|")[1:-1] for line in output.splitlines()[2:]]
    assert [(int(n), step.strip()) for n, step, *_ in lines] == [
        (n, step) for n in (10, 20) for step in ("validate", "preprocess")
    ]
    assert all(
        float(peak) > 20 and float(ratio) > 0.5 for _, _, peak, ratio, _ in lines
    )


@pytest.mark.slow
def test_scale(script):
    """All steps for two numbers of rows, with the exponent of growth."""
    output = script("benchmarks/scale.py", "--rows", 40, 80)
    rows = table_rows(output)
    steps = ["plan", "dry run", "validate", "preprocess", "split", "infer", "csv"]
    assert list(rows) == [*steps, "board"]
    for name, (small, large, exponent) in rows.items():
        assert len(numbers(small)) == len(numbers(large)) == 2, name
        assert len(numbers(exponent)) == 1, name
    assert re.search(r"^jobs: \d+, \d+$", output, re.MULTILINE)


@pytest.mark.slow
def test_scale_of_training(script):
    """Few images, then all, from memory and from mapped files, with both ratios."""
    head, *lines = script("benchmarks/scale.py", "--train", 100).splitlines()
    assert head.startswith("100 images of 64 by 64")
    assert [line.split(":")[0].split() for line in lines] == [
        ["20", "from", "memory"], ["100", "from", "memory"], ["100", "from", "mapped"]
    ]  # fmt: skip
    for line in lines:
        assert re.search(r"\d of the images beyond 20, \d+\.\d times the time$", line)


@pytest.mark.slow
def test_results(script):
    """Every step; for two numbers of images, with the exponent of growth."""
    sizes = ("--length", 8, "--side", 8)
    output = script("benchmarks/results.py", "--images", 60, *sizes)
    steps = re.findall(r"^exponents of (.+): $", output, re.MULTILINE)
    assert {"analyse", "csv", "fits", "map", "map and files", "gallery"} <= set(steps)
    for step in steps:
        (row,) = re.findall(rf"^ +60 {step} +(\d.*)$", output, re.MULTILINE)
        assert len(numbers(row)) >= 5, row
    # So few images that UMAP, which takes long to start, is not used.
    growing = ("--images", 10, 15, *sizes, "--steps", "analyse")
    output = script("benchmarks/results.py", *growing)
    for number in (10, 15):
        (row,) = re.findall(rf"^ +{number} analyse +(\d.*)$", output, re.MULTILINE)
        assert len(numbers(row)) >= 5, row
    assert re.search(r"^exponents of analyse: -?\d+\.\d\d$", output, re.MULTILINE)


@pytest.mark.slow
@pytest.mark.browser
def test_map_points(script):
    """A row for each number of images, with the data in the page and beside it."""
    options = ("--images", 60, 300, "--one-file", 100)
    output = script("benchmarks/map_points.py", *options)
    rows = [numbers(line) for line in output.splitlines()[1:]]
    assert [row[0] for row in rows] == [60, 300]
    assert {len(row) for row in rows} == {14}
    assert rows[0][4] == 0 < rows[1][4]


@pytest.mark.slow
def test_quality(script):
    """A row for each network that the evaluation compares."""
    settings = json.dumps(QUICK_TRAINING)
    chosen = ("--number", 70, "--seeds", 0, "--settings", settings)
    splits = ("--splits", 2, "--test-images", 14)
    output = script("benchmarks/quality.py", "sky", *chosen, *splits)
    networks = re.findall(r"^\| default \| (\w+) \|(.*)\|", output, re.MULTILINE)
    assert {name for name, _ in networks} >= {"trained", "untrained", "pixels"}
    for name, cells in networks:
        assert len(numbers(cells)) >= 7, name
    accuracy = re.search(r"^default, 2 splits .*: accuracy (\S+) ± ", output, re.M)
    assert 0.3 < float(accuracy[1]) <= 1


@pytest.mark.slow
def test_label_free(script, tmp_path_factory, tmp_path):
    """Correlations of nine measures for the networks of a run and for a file."""
    finished = finished_workflow(tmp_path_factory)
    network = load_model(finished / "results" / "model" / "model.pt")[0].encoder
    torch.save(network[0].state_dict(), tmp_path / "mine.pt")
    chosen = ("--weights", "mine.pt", "--json", "values.json")
    output = script("benchmarks/label_free.py", finished / "results", *chosen)
    (networks,) = json.loads((tmp_path / "values.json").read_text()).values()
    expected = {"trained", "sky", "untrained", "mine.pt", "random 1", "pixels"}
    assert expected <= set(networks)
    assert networks["sky"]["score"] > networks["random 1"]["score"]
    rows = table_rows(output)
    assert len(rows) == 9
    for name, cells in rows.items():
        assert -1 <= numbers(cells[-1])[0] <= 1, name


def test_lidar_is_the_rank_of_what_distinguishes_images(monkeypatch):
    """Three directions differ between images; views differ in all directions alike."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    from label_free import intrinsic_dimension, lidar

    rng = np.random.default_rng(0)
    images = np.zeros((400, 1, 16))
    images[..., :3] = 10 * rng.normal(size=(400, 1, 3))
    views = images + 0.1 * rng.normal(size=(400, 8, 16))
    assert 2.9 < lidar(views) < 3.1
    on_a_plane = rng.uniform(0.5, 1, (1000, 3)) @ rng.normal(size=(3, 20))
    assert 1.7 < intrinsic_dimension(on_a_plane) < 2.3  # without its length, of three


@pytest.mark.slow
def test_gpu(script, tmp_path):
    """On the CPU, all measurements succeed, and results are equal bit for bit."""
    output = script(
        "benchmarks/gpu.py", *("--device", "cpu", "--size", 32, "--batch", 8),
        *("--steps", 1, "--rounds", 1, "--layer", "amm", "--json", "gpu.json"),
    )  # fmt: skip
    assert output.startswith("nothing is missing; torch ")
    rows = table_rows(output)
    results = json.loads((tmp_path / "gpu.json").read_text())["results"]
    assert set(rows) == set(results)
    for precision in ("float32", "bfloat16"):
        assert results[f"training, {precision}, images/s"] > 0
        pair = f"training, {precision} / bare step, {precision}, channels last"
        assert results[pair] > 0
    assert results["two processes, images/s"] > 0
    assert results["two processes have equal weights"] == "yes"
    equal = {name: r for name, r in results.items() if name.startswith("equal weights")}
    assert len(equal) == 8
    assert set(equal.values()) == {"yes"}
    for name in ("views", "embeddings", "loss", "gradients"):
        assert results[f"{name}, relative difference from CPU"] == 0


@pytest.mark.slow
def test_train(script):
    """Training and inference of the package and of the bare network, with ratios."""
    output = script(
        "benchmarks/train.py",
        *("--size", 32, "--batch", 8, "--steps", 1, "--rounds", 1, "--layer", "amm"),
    )
    for table in ("training", "inference"):
        part = output.partition(f"| {table} |")[2].split("\n\n")[0]
        rows = dict(
            re.findall(r"^\| (bare network|ours) \|(.*)\|$", part, re.MULTILINE)
        )
        assert set(rows) == {"bare network", "ours"}, table
        for name, cells in rows.items():
            assert len(numbers(cells)) >= 2, name
            assert numbers(cells)[0] > 0, name
    parts = table_rows(output)
    for name in ("both views", "network", "optimizer", "moving average"):
        assert numbers(parts[name][0])[0] > 0, name


@pytest.mark.slow
def test_train_sky(script, tmp_path):
    """The start weights of one network are written in a file that can be read."""
    output = script(
        "benchmarks/train_sky.py",
        *("--images", 40, "--samples", 256, "--networks", "amm", "--processes", 1),
        *("--output", "weights"),
    )
    assert output.startswith("40 images drawn in ")
    assert "amm: step 2 of 2, loss " in output
    values = torch.load(tmp_path / "weights" / "amm.pt", weights_only=True)
    assert (values["format"], values["images"]) == (WEIGHTS_FORMAT, 40)
    assert "wrote weights/amm.pt; `SKY_DIGESTS` needs " in output


@pytest.mark.slow
def test_ranking(script, tmp_path):
    """Each method after each number of marks, for labelled files and the simulation."""
    simulate(tmp_path / "radio", 110, seed=1)
    lines = (tmp_path / "radio" / "filelist.csv").read_text().splitlines()[1:]
    names = {"ring": "Hybrid", "jets": "FRI"}
    with open(tmp_path / "radio" / "labels.csv", "w") as file:
        file.write("filename,label,confidence\n")
        for line in lines:
            path, label = line.split(",")
            file.write(f"{path},{names.get(label, label)},confident\n")
    output = script(
        "benchmarks/ranking.py",
        "--radio",
        tmp_path / "radio",
        "--sky",
        110,
        "--seeds",
        1,
    )
    rows = [line.strip("| ").split(" | ") for line in output.splitlines()[2:]]
    assert len(rows) == 3 * 8
    for row in rows:
        assert len(row) == 7
        assert len(numbers(row[-1])) == 2 or row[-1] == "-"
    assert {row[0] for row in rows} == {
        "radio galaxies: Hybrid", "radio galaxies: FRI", "simulated sky: a kind of 1 %"
    }  # fmt: skip


@pytest.mark.slow
@pytest.mark.skipif(
    not any(map(shutil.which, ("gcc", "cc", "clang"))), reason="needs a C compiler"
)
def test_faults(script):
    """The disk is full at one call of each job; the script fails at any problem.

    The environment variable ASTROMORPH_FAULTS is the number of calls of each job that
    fail, 0 for all, which takes an hour.
    """
    sample = int(os.environ.get("ASTROMORPH_FAULTS", "1"))
    output = script("benchmarks/faults.py", "--sample", sample, seconds=7200)
    rows = table_rows(output)
    assert {name.split()[0] for name in rows} == set(STEPS)
    for name, (failures, found, _) in rows.items():
        assert int(failures) >= 1, name
        assert int(found) == 0, name


@pytest.mark.slow
def test_kills(script, monkeypatch):
    """One killed run, which the same command completes.

    The workflow runs four times, here with steps that only write digests. They are real
    processes, which the script finds and kills.
    """
    monkeypatch.setenv("PYTHONPATH", str(QUICK_STEPS))
    chosen = ("--trials", 1, "--images", 12)
    output = script("benchmarks/kills.py", *chosen, forks=False)
    (cells,) = [cells for name, cells in table_rows(output).items() if name == "0"]
    assert cells[-1] == "yes"
    assert "1 of 1 identical" in output


@pytest.mark.slow
def test_guide(script):
    """A row for each chosen recipe, and for the two untrained networks."""
    rows = table_rows(
        script(
            "benchmarks/guide.py",
            *("--images", 35, "--epochs", 1, "--labelled-images", 24),
        )
    )
    assert list(rows)[:3] == [
        "random weights, untrained",
        "sky weights, untrained",
        "default",
    ]
    assert len(rows) == 11
    for name, cells in rows.items():
        assert len(numbers(" ".join(cells))) == (3 if "untrained" in name else 5), name


@pytest.mark.slow
def test_figures(script, tmp_path):
    """Each figure of the guide is written to the given folder."""
    script("docs/figures.py", "drawn")
    names = {path.name for path in (tmp_path / "drawn").iterdir()}
    figures = ("method", "morphologies", "views", "schedules", "evaluation")
    assert names == {f"{name}.png" for name in figures}
    for name in names:
        with Image.open(tmp_path / "drawn" / name) as picture:
            assert min(picture.size) > 200, name


def test_settings_schema(script, tmp_path):
    """The schema in config/ is that of the present settings."""
    script("docs/settings_schema.py", "schema.json")
    current = (tmp_path / "schema.json").read_text()
    assert current == (ROOT / "config" / "settings.schema.json").read_text()


def test_versions(script):
    """Each list of constraints is installed with a Python that the project supports."""
    output = script("benchmarks/versions.py", "--dry-run", "--folder", "environments")
    lists = re.findall(
        r"^(\w+) \S+ -m pip .* --constraint (\S+) ", output, re.MULTILINE
    )
    assert [name for name, _ in lists] == ["oldest", "current", "newest"]
    for _, path in lists:
        assert (ROOT / path).is_file()
    tests = re.findall(r"^\w+ \S+ -m pytest .*$", output, re.MULTILINE)
    assert len(tests) == 3


def test_settings_page(script, tmp_path):
    """The page has an entry for each setting."""
    script("docs/settings_page.py", "settings.md")
    page = (tmp_path / "settings.md").read_text()
    names = {name.rpartition(".")[2] for name in setting_names()}
    sections = {name for name in names if f"\n## `{name}`\n" in page}
    assert len(sections) > 5
    assert {f"**`{name}`**" for name in names - sections} == set(
        re.findall(r"^\*\*`\w+`\*\*", page, re.MULTILINE)
    )


@pytest.mark.slow
@pytest.mark.browser
@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs Chromium")
def test_screenshots(script, tmp_path, tmp_path_factory):
    """Pictures of a small run, each below the size limit of the repository."""
    run = tmp_path / "run"
    shutil.copytree(finished_workflow(tmp_path_factory), run, symlinks=True)
    done = snakemake(run, "--report", "report.html")
    assert done.returncode == 0, done.stderr
    output = script("docs/screenshots.py", "run", "--output", "pictures")
    for name in ("home", "map", "report", "gallery"):
        assert f"{name}.png" in output
        path = tmp_path / "pictures" / f"{name}.png"
        with Image.open(path) as picture:
            assert min(picture.size) > 200, name
        assert path.stat().st_size < 300_000
