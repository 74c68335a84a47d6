"""The documents agree with the program: settings, commands, files and columns."""

import json
import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from astromorph.artefacts import analysis_table
from astromorph.artefacts.column_types import ANALYSED
from astromorph.artefacts.columns import (
    CATALOGUE_COLUMNS,
    CONTENTS_COLUMNS,
    EXPORT_COLUMNS,
    GALLERY_COLUMNS,
    HISTORY_COLUMNS,
    SPLIT_COLUMNS,
)
from astromorph.cli.main import parser
from astromorph.errors import AstromorphError
from astromorph.settings import loading
from astromorph.settings.sections import Settings

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
WAYS_IN = ROOT / "docs" / "ways-in.md"
YOUR_IMAGES = ROOT / "docs" / "your-images.md"
CONFIG_README = ROOT / "config" / "README.md"
FILES = ROOT / "docs" / "files.md"
DOCUMENTS = (README, CONFIG_README, FILES, WAYS_IN, YOUR_IMAGES)
CONFIGURATIONS = (
    "config/config.yaml",
    "config/sample.yaml",
    ".test/config/config.yaml",
)
SCHEMA = json.loads((ROOT / "config" / "settings.schema.json").read_text())
COLUMNS = {
    "results/catalogue.csv": CATALOGUE_COLUMNS,
    "results/split.csv": SPLIT_COLUMNS,
    "results/tensors/{shard}.csv": CONTENTS_COLUMNS,
    "results/model/history.csv": HISTORY_COLUMNS,
    "results/analysis.parquet": analysis_table.ANALYSIS_COLUMNS,
    "results/export/embeddings.csv": (
        *EXPORT_COLUMNS,
        *(column.name for column in ANALYSED),
    ),
    "results/export/gallery/sheets.csv": GALLERY_COLUMNS,
}


def blocks(document: Path, language: str) -> list[str]:
    """The fenced blocks of one language, without their indentation."""
    pattern = rf"^( *)```{language}\n(.*?)^\1```$"
    found = re.findall(pattern, document.read_text(), re.MULTILINE | re.DOTALL)
    return [re.sub(rf"^{indent}", "", text, flags=re.M) for indent, text in found]


def table_rows(document: Path) -> list[tuple[str, list[str]]]:
    """Cells of each table row and the heading above it, without header rows."""
    heading, found, in_table = "", [], False
    for line in document.read_text().splitlines():
        if line.startswith("#"):
            heading = line.lstrip("# ").strip("`")
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("|---"):
            in_table = True
        elif not line.startswith("|"):
            in_table = False
        elif in_table:
            found.append((heading, cells))
    return found


def documented_defaults() -> dict[str, Any]:
    """Default of each setting according to config/README.md."""
    found = {}
    for heading, (name, default, *_) in table_rows(CONFIG_README):
        section = "" if heading == "General" else f"{heading}."
        found[section + name.strip("`")] = yaml.safe_load(default.strip("`"))
    return found


def true_defaults() -> dict[str, Any]:
    """Default of each setting in the program, without the sections."""
    everything = Settings().model_dump(mode="json")
    found = {}
    for name in loading.setting_names():
        section, _, key = name.partition(".")
        value = everything[section][key] if key else everything[section]
        if not isinstance(value, dict):
            found[name] = value
    return found


def shown_commands(program: str) -> list[list[str]]:
    """Arguments of each command of a program in the bash blocks of the documents."""
    lines = [
        line.split("#")[0].strip()
        for document in DOCUMENTS
        for block in blocks(document, "bash")
        for line in block.splitlines()
    ]
    return [shlex.split(line)[1:] for line in lines if line.startswith(f"{program} ")]


def test_each_setting_is_documented_with_its_true_default():
    """config/README.md lists exactly the existing settings, with their defaults."""
    assert documented_defaults() == true_defaults()


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_each_configuration_is_valid(name):
    """The configurations of the project only contain known settings."""
    path = ROOT / name
    parsed = loading.parse(loading.load(path), name)
    assert loading.required_datafile(parsed, name)


def is_allowed_by_schema(values: dict[str, Any]) -> bool:
    return bool(jsonschema.Draft202012Validator(SCHEMA).is_valid(values))


def test_the_schema_describes_all_settings_and_defaults():
    """Editors accept the configurations of the project, and know all names."""
    for name in CONFIGURATIONS:
        assert is_allowed_by_schema(loading.load(ROOT / name)), name
    assert is_allowed_by_schema(Settings().model_dump(mode="json"))
    for name in loading.setting_names():
        section, _, key = name.partition(".")
        where = SCHEMA["properties"][section]
        if key:
            reference = where["anyOf"][0]["$ref"].rpartition("/")[2]
            where = SCHEMA["$defs"][reference]["properties"][key]
            assert where["default"] == true_defaults()[name]
        assert len(where["description"]) > 10, name


@pytest.mark.parametrize(
    ("text", "allowed"),
    [
        ("epochs:", True),
        ("data_settings:", True),
        ("preprocess_settings: {size: native}", True),
        ("preprocess_settings: {size: 2000}", False),
        ("data_settings: {planes: 'sum 10:20'}", True),
        ("data_settings: {planes: 'median'}", False),
        ("augmentation_settings: {scale: [0.5, 2]}", True),
        ("augmentation_settings: {scale: [2, 0.5]}", False),
        ("network_name: resnet50", True),
        ("network_name: resnet51", False),
        ("epoch: 3", False),
        ("byol_settings: {epochs: 3}", False),
    ],
)
def test_the_schema_and_the_program_allow_the_same(text, allowed):
    """A value that an editor marks is one that stops a run."""
    values = yaml.safe_load(text)
    assert is_allowed_by_schema(values) == allowed
    if allowed:
        loading.parse(values, "test")
    else:
        with pytest.raises(AstromorphError):
            loading.parse(values, "test")


@pytest.mark.parametrize("document", [WAYS_IN, CONFIG_README])
def test_settings_examples_are_valid(document):
    """Each TOML and YAML block of the documents parses as settings."""
    toml = [tomllib.loads(text) for text in blocks(document, "toml")]
    plain = [yaml.safe_load(text) for text in blocks(document, "yaml")]
    assert toml
    assert plain
    for values in toml + plain:
        loading.parse(values, document.name)


def test_both_formats_of_the_example_are_equal():
    """The YAML and the TOML example of config/README.md give equal settings."""
    (toml,), (plain,) = blocks(CONFIG_README, "toml"), blocks(CONFIG_README, "yaml")
    assert tomllib.loads(toml) == yaml.safe_load(plain)


def test_the_defaults_in_the_readme_are_true():
    """The README's short table of settings agrees with the program."""
    true = true_defaults()
    rows = [
        cells for heading, cells in table_rows(README) if heading.startswith("The sett")
    ]
    assert len(rows) > 5
    for name, default, _ in rows:
        value = true[name.strip("`")]
        words = {"none": None, "of the network": None, "0.6 to 1.6": [0.6, 1.6]}
        plain = default.strip("`")
        quoted = default.startswith("`")
        shown = plain if quoted else words.get(plain, yaml.safe_load(plain))
        assert shown == value, name


@pytest.mark.parametrize(
    "block", blocks(WAYS_IN, "python"), ids=["trainer", "own loop"]
)
def test_python_examples_run(block, tmp_path, monkeypatch):
    """Each program of the overview ends with an embedding per image."""
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "example"}
    exec(compile(block, str(WAYS_IN), "exec"), names)
    assert len(names["embeddings"]) == len(names["images"])
    assert names["embeddings"].isfinite().all()


def test_commands_are_valid():
    """The command line knows each `astromorph` command that a document shows."""
    commands = shown_commands("astromorph")
    assert len(commands) >= 2
    for arguments in commands:
        parser().parse_args(arguments)


def test_overrides_are_valid():
    """Each `--config` that a document shows names valid settings."""
    shown = [c for c in shown_commands("snakemake") if "--config" in c]
    assert len(shown) >= 2
    for arguments in shown:
        name, _, value = arguments[arguments.index("--config") + 1].partition("=")
        loading.parse({name: yaml.safe_load(value)}, "documents")


def test_make_targets_exist():
    """The Makefile has each target that the README names."""
    makefile = (ROOT / "Makefile").read_text()
    targets = {arguments[0] for arguments in shown_commands("make")}
    assert targets >= {"run", "setup", "test"}
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)


def test_result_files_are_those_of_a_run():
    """docs/files.md, which lists all files, contains those in the README."""
    listed = FILES.read_text().replace("{ending}", "").replace("{job}", "")
    rows = [
        cells[0].strip("`")
        for heading, cells in table_rows(README)
        if heading.startswith("Where the results")
    ]
    assert len(rows) > 5
    for name in rows:
        stem = re.sub(r"embeddings\.\w+$", "embeddings.", name)
        assert f"`{stem}`" in listed or f"`{stem}/" in listed, name


@pytest.mark.parametrize("table", COLUMNS)
def test_columns_are_documented(table):
    """docs/files.md names the columns of each table, in their order."""
    named = [
        cells[0].strip("`") for heading, cells in table_rows(FILES) if heading == table
    ]
    assert named == list(COLUMNS[table])


@pytest.mark.parametrize("document", DOCUMENTS)
def test_linked_files_exist(document):
    """Every relative link of a document leads to a file; Sphinx checks anchors."""
    targets = re.findall(r"\]\(([^)\s]+)\)", document.read_text())
    assert targets
    for target in targets:
        if not target.startswith(("https://", "#")):
            assert (document.parent / target.partition("#")[0]).exists(), target
