"""The layers: who imports whom, and who may know what."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "astromorph"
LAYERS = [
    {"errors"},
    {"moved", "old_settings", "old_parts", "ranges", "images"},
    {"trouble"},
    {
        "settings",
        "provenance",
        "artefacts",
        "metrics",
        "progress",
        "morphology",
        "sky_objects",
        "pictures",
        "picture_sheets",
        "map_columns",
        "memory",
        "failures",
        "layout",
        "palette",
        "repeated",
    },
    {"space", "neighbours", "clusters", "pages", "map_plot"},
    {"flat_map"},
    {"sky", "presets"},
    {"needs", "analysis_file", "table_columns", "strip"},
    {"gallery_choice", "plot_history"},
    {"gallery_map"},
    {"analyse"},
    {
        "tensor_file",
        "tile_decoder",
        "gzip_tiles",
        "filelist",
        "duplicates",
        "fits_header",
        "cells",
        "stratified",
    },
    {"sources", "table_rows"},
    {"fits_file", "summary"},
    {"celestial"},
    {"planes"},
    {"fits_facts"},
    {"fits_image"},
    {"background", "resample", "simulate"},
    {"scale_bars", "gallery_files"},
    {"preprocess"},
    {"reference", "sky_lessons"},
    {"validation_page"},
    {"validate"},
    {"split", "shards"},
    {"networks", "augment"},
    {
        "cache",
        "byol",
        "optimise",
        "devices",
        "distributed",
        "history",
        "prepared",
    },
    {"batching", "models", "fits_dataset"},
    {"items"},
    {"datasets", "checkpoint"},
    {
        "teacher",
        "thumbnails",
        "initial_weights",
        "embed",
        "convert",
        "training_summary",
    },
    {"contact_sheet", "gallery_pictures", "model_facts"},
    {"learner", "batch_norm", "trainer_data", "trainer_parts", "trainer_state"},
    {"trainer_steps"},
    {"map_picture"},
    {"trainer"},
    {"resume"},
    {"train", "infer"},
    {
        "evaluate",
        "similar",
        "export_csv",
        "export_parquet",
        "export_fits",
        "export_votable",
        "export_map",
        "export_tensorboard",
        "export_gallery",
        "settings_page",
    },
    {"pipeline"},
    {"commands"},
    {"arguments"},
    {"cli"},
    {"__main__"},
]
LAYER = {module: k for k, layer in enumerate(LAYERS) for module in layer}
# Layer 5 and up, where torch may be imported.
TORCH = {
    "cache", "datasets", "augment", "networks", "byol", "optimise", "checkpoint",
    "trainer", "train", "infer", "evaluate", "devices", "distributed", "history",
    "initial_weights", "teacher", "embed", "learner", "prepared",
    "batching", "models", "fits_dataset", "convert", "resume",
    "similar", "gallery_pictures",
    "images", "items", "old_parts", "batch_norm",
    "trainer_data", "trainer_parts", "trainer_state", "trainer_steps",
    "training_summary",
}  # fmt: skip
# The last two write tables: their keywords and types are the formats' own.
FITS = {
    "fits_file", "fits_facts", "fits_image", "celestial", "tile_decoder", "gzip_tiles",
    "export_fits", "export_votable",
}  # fmt: skip
MODULES = sorted(p.stem for p in PACKAGE.glob("*.py") if p.stem != "__init__")


def tree(module: str) -> ast.Module:
    return ast.parse((PACKAGE / f"{module}.py").read_text(encoding="utf-8"))


def imports(module: str) -> set[str]:
    """Full names of what a module imports, anywhere in its text."""
    names: set[str] = set()
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def test_every_module_has_a_layer():
    """A new module is given its place here."""
    assert set(MODULES) == set(LAYER)


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_from_lower_layers_only(module):
    """Data flows one way."""
    own = {n.split(".")[1] for n in imports(module) if n.startswith("astromorph.")}
    too_high = {name for name in own & set(LAYER) if LAYER[name] >= LAYER[module]}
    assert not too_high


@pytest.mark.parametrize("module", MODULES)
def test_only_some_modules_import_torch(module):
    """Small steps start at once because torch stays away from them."""
    heavy = {n for n in imports(module) if n.split(".")[0] in {"torch", "torchvision"}}
    assert not heavy or module in TORCH


@pytest.mark.parametrize("module", MODULES)
def test_only_some_modules_know_fits(module):
    """Keywords, HDUs and world coordinates are known in few modules."""
    knows = module in FITS
    names = {n for n in imports(module) if "astropy" in n}
    assert knows or all(n.startswith("astropy.visualization") or n == "astropy"
                        for n in names)  # fmt: skip


@pytest.mark.parametrize("module", MODULES)
def test_only_the_command_line_exits_and_nothing_asserts(module):
    """No other module ends the process or configures logging."""
    for node in ast.walk(tree(module)):
        assert not isinstance(node, ast.Assert), f"line {node.lineno}"
        if isinstance(node, ast.Attribute) and module != "cli":
            assert node.attr not in {"exit", "_exit", "basicConfig"}, node.lineno
        if isinstance(node, ast.Name) and module != "cli":
            assert node.id not in {"SystemExit", "exit", "quit"}, node.lineno


@pytest.mark.parametrize(
    "code",
    [
        "import astromorph, astromorph.cli.main",
        "from astromorph.cli.main import main\ntry: main(['--help'])\nexcept SystemExit: 0",
        "import astromorph.catalogue.validate, astromorph.catalogue.split, astromorph.export.tables.csv",
        "import astromorph.preprocessing.preprocess, astromorph.export.tables.fits, astromorph.export.tables.votable",
        "import astromorph.cli.pipeline, astromorph.sky.simulate",
    ],
)
def test_small_steps_do_not_import_torch(code):
    """`--help` and the steps without tensors leave torch alone."""
    code += "\nimport sys; assert 'torch' not in sys.modules, 'torch'"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_training_loop_needs_torch_alone():
    """Its benchmark runs on machines that have torch and torchvision, no more."""
    code = """
import sys
for name in ("pydantic", "yaml", "astropy", "tqdm", "sklearn", "pandas", "pyarrow",
             "psutil", "jinja2", "snakemake", "scipy"):
    sys.modules[name] = None
import torch
import astromorph.training.trainer, astromorph.models.encoders, astromorph.embedding.embed
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_snakefile_imports_no_torch(tmp_path):
    """Every cluster job and every lint parses it."""
    (tmp_path / "torch.py").write_text("raise SystemExit('torch was imported')")
    (tmp_path / "list.txt").write_text("a.fits\n")
    config = str(ROOT / "config" / "config.yaml")
    command = [sys.executable, "-m", "snakemake", "-s", str(ROOT / "Snakefile"), "-n"]
    done = subprocess.run(
        [*command, "--configfile", config, "--config", "datafile=list.txt"],
        cwd=tmp_path, capture_output=True, text=True,
        env={"PATH": "/usr/bin", "HOME": str(tmp_path), "PYTHONPATH": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "export_tensorboard" in done.stdout


def test_public_names_load_on_use():
    """`import astromorph` costs nothing; each public name is there when asked for."""
    import astromorph

    for name in astromorph.__all__:
        assert getattr(astromorph, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        astromorph.nothing  # noqa: B018
