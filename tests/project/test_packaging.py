"""What is said in two places is said alike."""

import importlib.metadata
import re
import tomllib
from pathlib import Path

import yaml
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CONDA_NAMES = {"torch": "pytorch"}


def requirements(lines: list[str]) -> dict[str, Requirement]:
    return {r.name.lower(): r for r in map(Requirement, lines)}


def test_the_conda_environment_agrees_with_the_project():
    """Same packages, same ranges, same Python."""
    needed = requirements(PROJECT["dependencies"])
    needed = {CONDA_NAMES.get(n, n): str(r.specifier) for n, r in needed.items()}
    needed["python"] = PROJECT["requires-python"]
    environment = yaml.safe_load((ROOT / "envs" / "astromorph.yaml").read_text())
    packages = environment["dependencies"]
    by_pip = [name for p in packages if isinstance(p, dict) for name in p["pip"]]
    there = requirements([p for p in packages if isinstance(p, str)] + by_pip)
    assert there.pop("pip")
    assert {n: str(r.specifier) for n, r in there.items()} == needed


def test_the_constraints_pin_all_that_the_project_asks_for():
    """Each requirement has one exact release within its range."""
    pins = {}
    for line in (ROOT / "constraints.txt").read_text().split():
        assert re.fullmatch(r"[\w.-]+==[\w.]+", line), line
        name, _, release = line.partition("==")
        pins[name.lower().replace("_", "-")] = Version(release)
    lines = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["dev"]]
    for name, requirement in requirements(lines).items():
        assert pins[name] in requirement.specifier, name


def test_the_installed_package_is_this_one():
    """Version and console script are those of pyproject.toml."""
    import astromorph

    assert astromorph.__version__ == PROJECT["version"]
    scripts = importlib.metadata.entry_points(group="console_scripts")
    assert scripts["astromorph"].value == PROJECT["scripts"]["astromorph"]
