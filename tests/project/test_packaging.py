"""Dependencies, versions and public names agree wherever they are listed."""

import ast
import importlib.metadata
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CONDA_NAMES = {"torch": "pytorch"}
PUBLIC_NAMES = ast.parse((ROOT / "astromorph" / "__init__.py").read_text())


def requirements(lines: list[str]) -> dict[str, Requirement]:
    return {r.name.lower(): r for r in map(Requirement, lines)}


def imported_distributions(*folders: str) -> dict[str, str]:
    """Distributions that modules in these folders import, each with one such module."""
    distributions = importlib.metadata.packages_distributions()
    found = {}
    for path in (path for folder in folders for path in (ROOT / folder).rglob("*.py")):
        names: set[str] = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                names.add(node.module.partition(".")[0])
        for name in names - sys.stdlib_module_names:
            # A name without a distribution is a file of the project.
            for distribution in distributions.get(name, []):
                found[distribution.lower().replace("_", "-")] = str(path)
    return found


def test_each_imported_package_is_a_dependency():
    """No import relies on an indirect dependency."""
    extra = PROJECT["optional-dependencies"]["model-export"]
    lines = [*PROJECT["dependencies"], *extra]
    declared = requirements(lines).keys() | {"astromorph"}
    found = imported_distributions("astromorph", "workflow")
    assert len(found) > 10
    assert not {k: path for k, path in found.items() if k not in declared}


def test_tests_and_documentation_import_declared_packages():
    """They are dependencies of the package or of the extra `dev`."""
    lines = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["dev"]]
    declared = requirements(lines).keys() | {"astromorph"}
    found = imported_distributions("tests", "benchmarks", "docs")
    assert len(found) > 10
    assert not {k: path for k, path in found.items() if k not in declared}


def test_developers_have_what_the_export_of_models_needs():
    """The extra `dev` contains the extra `model-export`, in the same versions."""
    extras = PROJECT["optional-dependencies"]
    assert set(extras["model-export"]) < set(extras["dev"])
    from astromorph.export.model.model import PACKAGES

    assert set(requirements(extras["model-export"])) == set(PACKAGES)


def test_the_conda_environment_agrees_with_the_project():
    """Packages, version ranges and Python version are the same."""
    needed = requirements(PROJECT["dependencies"])
    needed = {CONDA_NAMES.get(n, n): str(r.specifier) for n, r in needed.items()}
    needed["python"] = PROJECT["requires-python"]
    environment = yaml.safe_load((ROOT / "envs" / "astromorph.yaml").read_text())
    packages = environment["dependencies"]
    there = requirements(packages)
    assert {n: str(r.specifier) for n, r in there.items()} == needed


def pins(path: str) -> dict[str, Version]:
    """The release of each package in a list of constraints."""
    found = {}
    for line in (ROOT / path).read_text().split():
        assert re.fullmatch(r"[\w.-]+==[\w.]+", line), line
        name, _, release = line.partition("==")
        found[name.lower().replace("_", "-")] = Version(release)
    return found


@pytest.mark.parametrize(
    "path", ["constraints.txt", "constraints/oldest.txt", "constraints/newest.txt"]
)
def test_the_constraints_pin_all_requirements(path):
    """Each requirement has one exact release within its range."""
    pinned = pins(path)
    lines = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["dev"]]
    for name, requirement in requirements(lines).items():
        assert pinned[name] in requirement.specifier, name


def test_the_oldest_constraints_are_the_lower_bounds():
    """Each dependency was tested in the oldest release that is allowed."""
    pinned = pins("constraints/oldest.txt")
    for name, requirement in requirements(PROJECT["dependencies"]).items():
        lowest = [
            Version(s.version) for s in requirement.specifier if s.operator == ">="
        ]
        assert lowest == [pinned[name]], name


def test_the_metadata_for_citations_agree_with_the_project():
    """Name, version, licence, summary and keywords are those of pyproject.toml."""
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    codemeta = json.loads((ROOT / "codemeta.json").read_text())
    for metadata in (citation, codemeta):
        assert metadata["version"] == PROJECT["version"]
        assert metadata["keywords"] == PROJECT["keywords"]
        assert metadata["license"].endswith(PROJECT["license"])
    assert citation["title"] == codemeta["name"] == PROJECT["name"]
    assert citation["abstract"].rstrip(".") == codemeta["description"]
    assert codemeta["description"] == PROJECT["description"]
    authors = [author["name"] for author in PROJECT["authors"]]
    assert [author["name"] for author in citation["authors"]] == authors
    assert [author["name"] for author in codemeta["author"]] == authors
    changelog = (ROOT / "CHANGELOG.md").read_text()
    newest = re.search(r"^## \[([\d.]+)\]", changelog, re.MULTILINE)
    assert newest is not None
    assert newest[1] == PROJECT["version"]


def test_the_hosted_checks_run_each_supported_python():
    """They call the same script as everyone, with each version of the classifiers."""
    hosted = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())
    job = hosted["jobs"]["checks"]
    assert job["steps"][-1]["run"].endswith(".ci/run")
    names = (name.rpartition(" :: ")[2] for name in PROJECT["classifiers"])
    versions = [name for name in names if re.fullmatch(r"3\.\d+", name)]
    assert job["strategy"]["matrix"]["python"] == versions


def test_hooks_before_a_commit_use_tools_of_the_project():
    """They are in the extra `dev`, so that nothing else is downloaded."""
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    (repository,) = hooks["repos"]
    assert repository["repo"] == "local"
    tools = {hook["entry"].split()[0] for hook in repository["hooks"]}
    assert {"mypy", "ruff", "snakefmt"} == tools
    assert tools < set(requirements(PROJECT["optional-dependencies"]["dev"]))


def test_the_installed_package_is_this_one():
    """Version and console script are those of pyproject.toml."""
    import astromorph

    assert astromorph.__version__ == PROJECT["version"]
    scripts = importlib.metadata.entry_points(group="console_scripts")
    assert scripts["astromorph"].value == PROJECT["scripts"]["astromorph"]


def test_the_package_contains_the_whole_workflow():
    """Each file of the workflow is package data, through links that are in git once."""
    text = (ROOT / "pyproject.toml").read_text()
    package = ROOT / "astromorph"
    patterns = tomllib.loads(text)["tool"]["setuptools"]["package-data"]["astromorph"]
    packaged = {file.resolve() for name in patterns for file in package.glob(name)}
    for link in (package / "workflow_files").iterdir():
        assert link.readlink() == Path("../..") / link.name
    needed = [ROOT / "config" / "README.md", ROOT / "profiles/default/config.yaml"]
    needed.append(ROOT / "config" / "settings.schema.json")
    for folder, ending in (("workflow", "*"), ("envs", "*.yaml"), ("slurm", "*.yaml")):
        needed += [path for path in (ROOT / folder).rglob(ending) if path.is_file()]
    assert len(needed) > 25
    assert not set(needed) - packaged


def test_editors_see_the_public_names_that_load():
    """`astromorph/__init__.py` lists each name for type checkers and for loading."""
    import astromorph

    for_types = {
        alias.asname: node.module.removeprefix("astromorph.")
        for node in ast.walk(PUBLIC_NAMES)
        if isinstance(node, ast.ImportFrom)
        if node.module and node.module.startswith("astromorph.")
        for alias in node.names
        if alias.name == alias.asname
    }
    assert for_types == astromorph._MODULES
    assert astromorph.__all__ == sorted([*for_types, "__version__"])


def test_importing_the_package_imports_only_a_module_without_imports():
    """It sets the folders for caches, and does not import numpy, torch or pydantic."""
    code = """
import sys
before = set(sys.modules)
import astromorph
print(*sorted(set(sys.modules) - before - {"astromorph"}))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    own = {name for name in done.stdout.split() if name.startswith("astromorph.")}
    assert own == {"astromorph.system", "astromorph.system.cache_folders"}
    names = {name.partition(".")[0] for name in done.stdout.split()} - {"astromorph"}
    small = {
        "__future__",
        "_typing",
        "collections",
        "contextlib",
        "importlib",
        "typing",
    }
    assert names <= small


@pytest.mark.slow
def test_type_checkers_see_public_names_with_their_types(tmp_path):
    """`ByolTrainer` is a class, not Any; an unknown name is an error."""
    program = tmp_path / "program.py"
    program.write_text("""
import astromorph
reveal_type(astromorph.ByolTrainer)
reveal_type(astromorph.FilelistDataset)
reveal_type(astromorph.split_images)
reveal_type(astromorph.__version__)
astromorph.Nothing
""")
    done = subprocess.run(
        [sys.executable, "-m", "mypy", program],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    trainer, dataset, split, version, missing, *_ = done.stdout.splitlines()
    assert trainer.endswith('-> astromorph.training.trainer.ByolTrainer"')
    assert dataset.endswith('.datasets.fits_images.FitsFilelistDataset"')
    assert 'Revealed type is "def (' in split
    assert version.endswith('"str"')
    assert 'has no attribute "Nothing"' in missing
