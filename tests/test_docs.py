"""What the documents say is what the code does."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

from astromorph.settings import Settings, names, parse

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"```(\w+)\n(.*?)```", re.DOTALL)


def blocks(kind: str) -> list[str]:
    return [text for found, text in BLOCK.findall(README) if found == kind]


def documented() -> dict[str, str]:
    """Every setting in config/README.md, with the default that stands there."""
    found, section = {}, ""
    for line in (ROOT / "config" / "README.md").read_text().splitlines():
        if title := re.match(r"## `(\w+)`", line):
            section = f"{title[1]}."
        if row := re.match(r"\| `(\w+)` \| ([^|]+) \|", line):
            found[section + row[1]] = row[2].strip()
    return found


def test_every_setting_is_documented_with_its_default():
    """config/README.md lists all names and no others, with true defaults."""
    values = Settings().model_dump(mode="json")
    expected = {}
    for name in names():
        section, _, key = name.partition(".")
        if key or not isinstance(values[section], dict):
            expected[name] = values[section][key] if key else values[section]
    found = documented()
    assert {name: yaml.safe_load(text) for name, text in found.items()} == expected


@pytest.mark.parametrize("name", ["config.yaml", "sample.yaml"])
def test_shipped_settings_are_valid(name):
    """Files in config/ pass the settings model and name a file list."""
    values = yaml.safe_load((ROOT / "config" / name).read_text())
    assert parse(values, name).datafile


@pytest.mark.parametrize("text", blocks("toml"))
def test_settings_in_the_readme_are_valid(text):
    """TOML in the README passes the settings model."""
    assert parse(tomllib.loads(text), "README.md").datafile


@pytest.mark.parametrize("text", blocks("python"))
def test_programs_in_the_readme_run(text, tmp_path, monkeypatch):
    """Each Python example is a whole program, run beside a finished `train`."""
    from astromorph.pipeline import run_train
    from astromorph.simulate import simulate

    monkeypatch.chdir(tmp_path)
    simulate("fits", 16, seed=1)
    settings = {"datafile": "fits/filelist.csv", "network_name": "amm", "epochs": 1}
    run_train(parse(settings, "test"), "results", "test", processes=1)
    exec(compile(text, "README.md", "exec"), {"__name__": "__main__"})


def test_files_named_in_the_readme_exist():
    """Paths of the repository that the README links to are there."""
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / target).exists(), target
