"""The workflow as a module of another one, from a folder and from a git repository."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from astromorph.sky.simulate import simulate

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
IN_FOLDER = repr(str(ROOT / "workflow" / "Snakefile"))
# A host that does not exist: git is told to use a folder instead.
IN_GIT = "github('owner/astromorph', path='workflow/Snakefile', {}, host='git.invalid')"
CONFIG = {"datafile": "fits/filelist.csv", "preprocess_settings": {"size": 16}}
HANDLERS = """
onstart: astromorph.onstart()
onsuccess: astromorph.onsuccess()
onerror: astromorph.onerror()
"""


def git(folder: Path, *command: str) -> None:
    names = ("-c", "user.name=a", "-c", "user.email=a@b.invalid")
    subprocess.run(
        ["git", *names, *command], cwd=folder, check=True, capture_output=True
    )


@pytest.fixture(scope="module")
def host(tmp_path_factory) -> Path:
    """A folder with a bare repository of the workflow, without the package."""
    clone = tmp_path_factory.mktemp("clone")
    for name in ("workflow", "envs"):
        shutil.copytree(ROOT / name, clone / name)
    git(clone, "init", "--quiet", "--initial-branch", "main")
    git(clone, "add", "--all")
    git(clone, "commit", "--quiet", "--message", "workflow")
    git(clone, "tag", "v1")
    host = tmp_path_factory.mktemp("host")
    git(host, "clone", "--quiet", "--bare", str(clone), "owner/astromorph")
    return host


@pytest.fixture
def snakemake(tmp_path, host):
    """A function that runs Snakemake in a folder with images; it returns what it says.

    Its Snakefile uses a source as a module, with further lines of the statement.
    """
    simulate(tmp_path / "fits", 8, seed=1)
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.file://{host}/.insteadOf",
        "GIT_CONFIG_VALUE_0": "https://git.invalid/",
    }

    def run(source: str, lines: str, *options: str, config=CONFIG, use="*") -> str:
        (tmp_path / "Snakefile").write_text(
            f"module astromorph:\n    snakefile: {source}\n    config: {config}\n"
            f"{lines}\nuse rule * from astromorph as {use}\n{HANDLERS}"
        )
        done = subprocess.run(
            [sys.executable, "-m", "snakemake", "--cores", "1", *options],
            cwd=tmp_path, env=environment, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    return run


def results_folders(output: str) -> set[str]:
    """The folders in which steps work, of a dry run that prints commands."""
    folders = re.findall(r"--results (\S+)", output)
    assert len(folders) >= 7
    return set(folders)


@pytest.mark.parametrize(
    ("source", "lines", "results"),
    [
        (IN_FOLDER, "    prefix: 'sky'", "sky/results"),
        (IN_FOLDER, "    replace_prefix: {'results/': 'a/b/'}", "a/b"),
        (IN_GIT.format("branch='main'"), "", "results"),
    ],
    ids=["folder with prefix", "folder with another prefix", "git"],
)
def test_a_module_writes_to_its_own_folder(snakemake, source, lines, results):
    """Steps receive the folder of the outputs of their rule."""
    output = snakemake(source, lines, "-n", "-p", f"{results}/export/map.html")
    assert results_folders(output) == {results}


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_a_module_from_git_with_a_prefix_runs(snakemake, tmp_path):
    """Its jobs use the installed package; what is up to date is known from records."""
    source, prefix = IN_GIT.format("tag='v1'"), "    prefix: 'sky'"
    targets = ["sky/results/split.csv", "sky/results/tensors/00000.pt"]
    snakemake(source, prefix, *targets, use="sky_*")
    results = tmp_path / "sky" / "results"
    assert (results / "split.csv").read_text().count("\n") == 9
    assert (results / "tensors" / "00000.pt").stat().st_size > 8 * 16 * 16 * 2
    assert not (tmp_path / "results").exists()

    shutil.rmtree(tmp_path / ".snakemake")
    output = snakemake(source, prefix, *targets, use="sky_*")
    assert "Nothing to be done" in output
    changed = CONFIG | {"split_settings": {"test_fraction": 0.3}}
    output = snakemake(source, prefix, "-n", *targets, config=changed, use="sky_*")
    assert "split is run again: its results are older than the settings" in output
    assert "rule sky_split:" in output
    assert "rule sky_preprocess:" not in output


def test_without_the_package_the_message_says_what_to_install(tmp_path):
    """A workflow from a git repository is not beside the package."""
    (tmp_path / "astromorph.py").write_text("raise ModuleNotFoundError('astromorph')")
    shutil.copytree(ROOT / "workflow", tmp_path / "workflow")
    config = ROOT / "config" / "config.yaml"
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", "-n", "--configfile", str(config)],
        cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 1
    output = done.stdout + done.stderr
    assert "the package astromorph cannot be imported" in output
    assert "install the version of this workflow" in output
