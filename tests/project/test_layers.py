"""The folders of the package, and which of them may import which.

`FOLDERS` is the map: data flow down the table, imports only go up it.
"""

import ast
import functools
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "astromorph"
FOLDERS = (
    # folder, whether it may import torch, whether it may import astropy
    ("", True, False),  # errors, checks, files, locks, devices: used everywhere
    ("system", False, False),  # files, processes, logs, temporary folders
    ("settings", False, False),  # every setting, and which step depends on it
    ("artefacts", True, False),  # the files that steps exchange
    ("filelist", False, False),  # the list of images
    ("fits", False, True),  # from bytes to an image, its facts and its position
    ("pages", False, False),  # shared parts of HTML pages
    ("preprocessing", False, False),  # from an image to a tensor
    ("catalogue", False, False),  # the steps `validate` and `split`
    ("sky", False, False),  # simulated images
    ("models", True, False),  # encoders
    ("datasets", True, False),  # images for PyTorch
    ("byol", True, False),  # the method
    ("training", True, False),  # the step `train`
    ("embedding", True, False),  # the steps `infer` and `evaluate`
    ("analysis", True, False),  # the step `analyse`
    ("export", True, True),  # tables, map, galleries, TensorBoard
    ("ranking", False, False),  # the step `rank`
    ("cli", False, False),  # the command line
)
LEVEL = {folder: level for level, (folder, _, _) in enumerate(FOLDERS)}
# Modules at the top of the package that may import all folders: the entry point, and
# compatibility with version 0.1, which only the command line and the package import.
ABOVE_ALL = {"__main__": "cli", "compat": "export"}
MAX_MODULES = 12  # in one folder
MODULES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts): path
    for path in sorted(PACKAGE.rglob("*.py"))
    if path.name != "__init__.py"
}


def folder_of(module: str) -> str:
    return module.split(".")[0] if "." in module else ""


def level_of(module: str) -> int:
    return LEVEL[ABOVE_ALL.get(module, folder_of(module))]


@functools.cache
def tree(module: str) -> ast.Module:
    return ast.parse(MODULES[module].read_text(encoding="utf-8"))


def imports(module: str) -> set[str]:
    """Full names of all imports anywhere in a module."""
    names: set[str] = set()
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
            names.add(str(node.module))
    return names


@functools.cache
def own_imports(module: str) -> set[str]:
    names = {name.removeprefix("astromorph.") for name in imports(module)}
    return names & set(MODULES)


def test_every_folder_is_in_the_table():
    """A new folder must be added to it."""
    assert {folder_of(module) for module in MODULES} == set(LEVEL)


def test_no_folder_is_too_full():
    """A folder with too many modules must be divided."""
    count: dict[Path, int] = {}
    for path in MODULES.values():
        count[path.parent] = count.get(path.parent, 0) + 1
    assert not {path: n for path, n in count.items() if n > MAX_MODULES}


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_from_folders_above_it_in_the_table(module):
    """Dependencies have one direction; within a folder, modules may use each other."""
    level = level_of(module)
    assert not {name for name in own_imports(module) if level_of(name) > level}


def test_there_are_no_circular_imports():
    """Each module can be read after those that it imports."""
    done: set[str] = set()
    left = dict.fromkeys(MODULES)
    while ready := [name for name in left if own_imports(name) - {name} <= done]:
        done.update(ready)
        for name in ready:
            del left[name]
    assert not left


@pytest.mark.parametrize("module", MODULES)
def test_torch_and_astropy_stay_in_their_folders(module):
    """Small steps start quickly without torch; FITS keywords are in one folder."""
    _, torch, astropy = FOLDERS[level_of(module)]
    names = imports(module)
    if not torch:
        assert not {n for n in names if n.split(".")[0] in {"torch", "torchvision"}}
    if not astropy:
        allowed = ("astropy.visualization",)
        found = {n for n in names if n.startswith("astropy.")}
        assert not {name for name in found if not name.startswith(allowed)}


@pytest.mark.parametrize("module", MODULES)
def test_only_the_command_line_exits_and_nothing_asserts(module):
    """Only `logs` configures logging, and only `workers` starts pools of processes."""
    may_exit = module == "cli.main"
    for node in ast.walk(tree(module)):
        assert not isinstance(node, ast.Assert), f"line {node.lineno}"
        if isinstance(node, ast.Attribute) and not may_exit:
            assert node.attr not in {"exit", "_exit"}, node.lineno
        if isinstance(node, ast.Name) and not may_exit:
            assert node.id not in {"SystemExit", "exit", "quit"}, node.lineno
        if isinstance(node, ast.Attribute) and module != "system.logs":
            assert node.attr != "basicConfig", node.lineno
        if isinstance(node, ast.Name) and module != "system.workers":
            assert node.id != "ProcessPoolExecutor", node.lineno


def python(code: str) -> None:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "code",
    [
        "import astromorph, astromorph.cli.main",
        """
from astromorph.cli.main import main
try: main(['--help'])
except SystemExit: 0
""",
        """
import astromorph.catalogue.validate, astromorph.catalogue.split
import astromorph.preprocessing.preprocess, astromorph.sky.simulate
import astromorph.preprocessing.preparation
import astromorph.export.tables.csv, astromorph.export.tables.fits
import astromorph.export.tables.votable, astromorph.cli.pipeline
import astromorph.export.report
""",
    ],
)
def test_small_steps_do_not_import_torch(code):
    """`--help` and the steps without tensors do not need torch."""
    python(f"{code}\nimport sys; assert 'torch' not in sys.modules, 'torch'")


def test_help_imports_nothing_that_only_commands_need():
    """It is there at once: numpy, pydantic and the steps are imported on use."""
    python("""
import sys
from astromorph.cli.main import main, parser
main([])
main(["--version"])
parser().parse_args(["train", "-c", "settings.toml"])
slow = {"numpy", "pydantic", "yaml", "pandas", "astropy", "torch"}
assert not slow & set(sys.modules), slow & set(sys.modules)
""")


def test_short_lists_and_settings_are_read_without_numpy(tmp_path):
    """Importing it takes a third of the time in which a step starts."""
    (tmp_path / "list.csv").write_text("path\na.fits\nb.fits\na.fits\n")
    python(f"""
import sys
from astromorph.cli import commands, execute
from astromorph.filelist.entries import read_filelist
assert len(list(read_filelist({str(tmp_path / "list.csv")!r}))) == 3
assert "numpy" not in sys.modules
""")


def test_every_command_of_the_parser_exists():
    """They are imported by name when they are called."""
    from astromorph.cli import commands

    names = {
        node.args[0].value
        for node in ast.walk(tree("cli.main"))
        if isinstance(node, ast.Call)
        if isinstance(node.func, ast.Name) and node.func.id == "_command"
        if isinstance(node.args[0], ast.Constant)
    }
    assert names >= {"init", "run_workflow", "train", "infer", "status"}
    assert not [name for name in names if not callable(getattr(commands, name, None))]


def test_the_training_loop_only_needs_torch():
    """Its benchmark runs on machines that only have torch and torchvision."""
    python("""
import sys
for name in ("pydantic", "yaml", "astropy", "tqdm", "sklearn", "pandas", "pyarrow",
             "psutil", "jinja2", "snakemake", "scipy"):
    sys.modules[name] = None
import torch
import astromorph.training.trainer, astromorph.models.encoders
import astromorph.embedding.embed
""")


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
    """`import astromorph` is fast; each public name is the documented object."""
    import astromorph

    for name in set(astromorph.__all__) - {"__version__", "FilelistDataset"}:
        assert getattr(astromorph, name).__name__ == name
    assert astromorph.__version__[0].isdigit()
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        astromorph.nothing  # noqa: B018
