"""Options of subcommands that cannot be used: one message, which says what to do."""

import argparse
from pathlib import Path

import pytest
from finished_run import catalogue_rows, write_run

from astromorph.cli.commands import read_settings
from astromorph.cli.main import main
from astromorph.errors import AstromorphError


def fails(caplog, *arguments: str) -> str:
    """The last message of a command that fails."""
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    assert ended.value.code == 1
    return caplog.records[-1].getMessage()


@pytest.fixture(autouse=True)
def empty(tmp_path, monkeypatch) -> Path:
    """The present folder, without results."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--at", "1", "2", "--unlike", "a.fits"], "--unlike: it needs --to"),
        (["--to", "a.fits", "--radius", "3"], "--radius: it needs --at"),
        (["--list", "a.csv", "--output", "a.png"], "--output: it needs --to"),
        (["--at", "1", "2", "--output", "a.png"], "--output: it needs --to"),
    ],
)
def test_options_of_another_search_are_refused(arguments, message, caplog):
    """They would have no effect."""
    assert fails(caplog, "similar", *arguments) == f"{message}; leave it out"
    assert not Path("a.png").exists()


@pytest.mark.parametrize(
    ("position", "message"),
    [
        (["361", "2"], "--at: found the right ascension 361; allowed are 0 to 360"),
        (["1", "91"], "--at: found the declination 91; allowed are -90 to 90"),
        (["x", "2"], "--at: found the right ascension 'x'"),
    ],
)
def test_a_position_outside_of_the_sky_is_refused(empty, position, message, caplog):
    """The message names the coordinate and what is allowed."""
    write_run(empty / "results", catalogue_rows(3))
    assert fails(caplog, "similar", "--at", *position).startswith(message)


@pytest.mark.parametrize(
    "arguments",
    [
        ["similar", "--to", "a.fits"],
        ["similar", "--at", "1", "2"],
        ["rank", "--marks", "marks.csv"],
        ["send", "--to", "topcat"],
    ],
)
def test_commands_for_finished_runs_name_the_missing_file(arguments, caplog):
    """And how to make it, or where else to look."""
    message = fails(caplog, *arguments)
    assert message.startswith("results/")
    assert "no such file" in message and "astromorph run" in message


def test_the_status_of_a_folder_without_settings_is_explained(empty, caplog):
    """The message names the folder and the command that prepares one."""
    message = fails(caplog, "status")
    assert message.startswith(f"{empty}: there are no settings")
    assert "astromorph init DIR" in message


def test_a_model_without_a_run_is_exported_into_a_named_folder(caplog):
    """There is no results folder to write it to."""
    message = fails(caplog, "export", "model", "-n", "other.pt")
    assert message == "--output: name the folder to write the model to"


@pytest.mark.parametrize(
    ("text", "found"),
    [("{", "not JSON"), ("[]", "found []"), ("null", "found None"), ("3", "found 3"),
     ('[["epochs", 3]]', "found [['epochs', 3]]"), ('""', "found ''")],
)  # fmt: skip
def test_settings_on_the_command_line_are_an_object(text, found):
    """Nothing else is taken for one, not even what is empty."""
    options = argparse.Namespace(config_file=None, settings=text, results="results")
    with pytest.raises(AstromorphError) as error:
        read_settings(options)
    assert str(error.value).startswith(f"--settings: {found}")
    assert "such as '{\"epochs\": 3}'" in str(error.value)


def test_settings_on_the_command_line_override_those_of_the_file(empty):
    """And options override both."""
    (empty / "s.yaml").write_text("epochs: 2\nseed: 5\nmarks: a.csv\n")
    options = argparse.Namespace(
        config_file="s.yaml",
        settings='{"epochs": 3, "marks": "b.csv"}',
        results="results",
        marks="c.csv",
    )
    settings = read_settings(options)
    assert (settings.epochs, settings.seed, settings.marks) == (3, 5, "c.csv")
