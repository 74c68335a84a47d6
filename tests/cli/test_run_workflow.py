"""`astromorph run`: the command of Snakemake that it becomes."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from astromorph.cli import run_workflow
from astromorph.cli.main import main
from astromorph.cli.run_workflow import snakemake_command
from astromorph.cli.workflow import snakefile, workflow_files

START = [sys.executable, "-m", "snakemake"]
ALL_CORES = ["--cores", "all"]
PACKAGED = ["--snakefile", snakefile()]
BRIEF = run_workflow.BRIEF
PROFILE = ["--workflow-profile", str(workflow_files() / "profiles" / "default")]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> Path:
    """The present folder, with no profile of the user."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SNAKEMAKE_PROFILE", raising=False)
    return tmp_path


def add(*names: str, text: str = "") -> None:
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(text)


@pytest.mark.parametrize("name", run_workflow.SNAKEFILES)
def test_the_workflow_of_the_folder_comes_first(name):
    """Snakemake finds it itself."""
    add(name)
    assert snakemake_command([]) == [*START, *ALL_CORES, *BRIEF]


def test_without_one_the_workflow_of_the_package_runs():
    """With the settings in either place, and the profile of the package."""
    add("config.yaml")
    settings = ["--configfile", str(Path("config.yaml").absolute())]
    expected = [*START, *PACKAGED, *settings, *PROFILE, *ALL_CORES, "-n"]
    assert snakemake_command(["-n"]) == expected
    add("config/config.yaml")
    assert snakemake_command([]) == [*START, *PACKAGED, *PROFILE, *ALL_CORES, *BRIEF]
    add("profiles/default/config.yaml")
    assert snakemake_command([]) == [*START, *PACKAGED, *ALL_CORES, *BRIEF]


def test_given_settings_and_folders_are_respected(folder):
    """`--configfile` replaces the search; `--directory` is where it looks."""
    own = ["--configfile", "own.yaml"]
    added = [*PACKAGED, *PROFILE, *ALL_CORES]
    assert snakemake_command(own) == [*START, *added, *own, *BRIEF]
    add("other/config.yaml")
    command = snakemake_command(["-d", "other"])
    assert str(folder / "other" / "config.yaml") in command


@pytest.mark.parametrize(
    "options",
    [["--cores", "2"], ["-c2"], ["--cores=2"], ["-j", "3"], ["--jobs", "3"],
     ["--profile", "slurm"], ["--executor", "slurm"], ["-c", "2", "target"]],
)  # fmt: skip
def test_cores_are_only_added_if_nothing_says_how_many(options):
    """The options are passed on in their order."""
    add("Snakefile")
    assert snakemake_command(options) == [*START, *options, *BRIEF]


@pytest.mark.parametrize(
    "options",
    [["-n"], ["--dry-run"], ["-np"], ["--printshellcmds"], ["--verbose"], ["-q"],
     ["--quiet", "host"], ["--quiet=all"], ["--", "target"], ["--unlock"]],
)  # fmt: skip
def test_what_snakemake_writes_is_shown_if_it_is_asked_for(options):
    """In a dry run, with more details, or with the user's own choice."""
    add("Snakefile")
    assert snakemake_command(options) == [*START, *ALL_CORES, *options]


@pytest.mark.parametrize(
    "options", [["--report"], ["--report", "a.html"], ["--report=a.zip", "target"]]
)
def test_a_report_has_the_style_of_the_package(options):
    """Large pictures could not be seen completely without it; Snakemake says more."""
    add("Snakefile")
    style = workflow_files() / "workflow" / "report" / "style.css"
    assert style.is_file()
    added = ["--report-stylesheet", str(style)]
    assert snakemake_command(options) == [*START, *ALL_CORES, *added, *options]
    given = [*options, "--report-stylesheet", "own.css"]
    assert snakemake_command(given) == [*START, *ALL_CORES, *given]


def test_a_profile_may_set_the_cores():
    """Options on the command line would override it."""
    add("Snakefile")
    add("profiles/default/config.yaml", text="# cores\nrerun-incomplete: true\n")
    assert snakemake_command([]) == [*START, *ALL_CORES, *BRIEF]
    add("profiles/default/config.v8+.yaml", text="cores: 4\n")
    assert snakemake_command([]) == [*START, *BRIEF]


def test_a_folder_without_settings_is_explained(folder, caplog):
    """The message says how to prepare one."""
    with pytest.raises(SystemExit) as ended:
        main(["run", "-n"])
    assert ended.value.code == 1
    assert f"{folder}: there are no settings" in caplog.text
    assert "astromorph init DIR" in caplog.text


@pytest.mark.parametrize("options", [[], ["--configfile", "own.yaml"], ["-d", "other"]])
def test_invalid_yaml_is_explained_with_its_line(options, caplog, monkeypatch):
    """Snakemake names neither the file nor the line."""
    monkeypatch.delattr(os, "execv")
    name = "own.yaml" if "own.yaml" in options else "config/config.yaml"
    add(name if "-d" not in options else "other/config/config.yaml", text="a: 1\nb: [1")
    with pytest.raises(SystemExit) as ended:
        main(["run", *options])
    assert ended.value.code == 1
    assert f"{name}: this is not valid YAML" in caplog.text
    assert "line 2" in caplog.text


def test_all_options_reach_snakemake(monkeypatch):
    """Also those that other commands of astromorph have."""
    add("Snakefile")
    found = []
    monkeypatch.setattr(os, "execv", lambda path, command: found.append(command))
    options = ["-n", "--config", "epochs=3", "--settings", "-q", "a", "--cores", "1"]
    main(["run", *options])
    assert found == [[*START, *options]]


def test_help_is_about_this_command(capsys, monkeypatch):
    """Snakemake's own help has hundreds of lines."""
    monkeypatch.delattr(os, "execv")
    main(["run", "--help"])
    assert capsys.readouterr().out.startswith("usage: astromorph run [--cores N]")


SLEEP = """
rule sleep:
    output: "a"
    shell: "sleep 100"
"""


def sleeps(pid: int) -> bool:
    """Whether a descendant of a process is the program `sleep`.

    Before it starts, Ctrl-C would not end the shell that starts it.
    """
    names = []
    for child in psutil.Process(pid).children(recursive=True):
        with contextlib.suppress(psutil.Error):  # it has just ended
            names.append(child.name())
    return "sleep" in names


@pytest.mark.slow
def test_exit_code_and_interruption_are_those_of_snakemake(folder):
    """A missing target fails; Ctrl-C ends the run and its jobs."""
    add("Snakefile", text=SLEEP)
    command = [sys.executable, "-m", "astromorph", "run", "--cores", "1"]
    assert subprocess.run([*command, "absent"], capture_output=True).returncode == 1
    process = subprocess.Popen(command, start_new_session=True, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 60
    while not sleeps(process.pid) and time.monotonic() < deadline:
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    _, errors = process.communicate(timeout=60)
    assert process.returncode not in (0, None)
    assert b"Traceback" not in errors
    assert not Path("a").exists()
