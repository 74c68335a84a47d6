"""The workflow and the command line write the same files."""

import re
import shutil
from pathlib import Path

import command_line
import pytest
from finished_workflow import BASE, ROOT, finished_workflow

from astromorph.artefacts.records import all_records
from astromorph.artefacts.run_files import RunFiles
from astromorph.cli.steps import STEPS, targets
from astromorph.settings.loading import parse

pytestmark = pytest.mark.slow
# Three shards, every export, thumbnails of the map in a folder.
FILES = RunFiles.of_run("results", shards=3)
# Files that only Snakemake writes.
WORKFLOW_ONLY = re.compile(
    r"results/(logs|benchmarks)/.*|results/.*\.snakemake_timestamp"
)


@pytest.fixture(scope="module")
def both(tmp_path_factory) -> tuple[Path, Path]:
    """A folder in which the workflow ran, and one in which the command line ran."""
    by_rules = finished_workflow(tmp_path_factory)
    by_commands = tmp_path_factory.mktemp("command")
    for name in ("fits", "config"):  # with their times
        shutil.copytree(by_rules / name, by_commands / name)
    options = ["-c", "config/config.yaml"]
    for command in (["train"], ["infer", "-n", str(FILES.own_model)]):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("SOURCE_DATE_EPOCH", "0")
            done = command_line.run([*command, *options], by_commands)
        assert done.returncode == 0, done.stdout + done.stderr
    return by_rules, by_commands


def written(folder: Path) -> set[str]:
    """Names of all files of a run, without time, machine and process."""
    paths = [p for p in (folder / "results").rglob("*") if p.is_file()]
    names = {str(path.relative_to(folder)) for path in paths}
    return {re.sub(r"(tfevents)\..*\.(\d+)$", r"\1.\2", name) for name in names}


def test_both_write_the_same_files(both):
    """Except logs and benchmarks."""
    by_rules, by_commands = (written(folder) for folder in both)
    by_rules = {name for name in by_rules if not WORKFLOW_ONLY.fullmatch(name)}
    assert by_commands == by_rules
    for name in ("export/map_files/pictures-0.js", "export/gallery/index.html"):
        assert f"results/{name}" in by_rules


@pytest.mark.parametrize(
    "path",
    [
        FILES.catalogue,
        *FILES.all_tensors,
        *FILES.all_contents,
        FILES.split,
        FILES.history,
        *FILES.all_embeddings,
        FILES.evaluation,
        FILES.analysis,
        FILES.table("csv"),
        FILES.table("parquet"),
        FILES.table("fits"),
        FILES.table("vot"),
        FILES.projector / "tensors.tsv",
        FILES.projector / "metadata.tsv",
        FILES.gallery / "sheets.csv",
    ],
    ids=str,
)
def test_both_write_the_same_bytes(both, path):
    """Embeddings and tables are computed in the same way."""
    by_rules, by_commands = ((folder / path).read_bytes() for folder in both)
    assert by_rules == by_commands


def test_both_record_the_same_inputs(both):
    """Except file times, so that each can continue the work of the other."""
    by_rules, by_commands = [
        all_records(RunFiles.of_run(folder / "results")) for folder in both
    ]
    assert len(by_rules) == len(by_commands) > 15
    for one, other in zip(by_rules, by_commands, strict=True):
        assert (one.step, one.job) == (other.step, other.job)
        assert set(one.made_from.differences(other.made_from)) <= {"files"}


def test_all_targets_exist(both):
    """The workflow and the command line write all targets of a run."""
    asked = targets(parse(BASE, "test"), FILES)
    assert len(asked) == len(set(asked)) > 15
    for folder in both:
        assert [path for path in asked if not (folder / path).exists()] == []


def test_targets_follow_the_settings():
    """Each optional export can be switched off; a given model is not trained."""
    everything = targets(parse({}, "test"), FILES)
    for values, left_out in (
        ({"export_to_csv": False}, {FILES.table("csv")}),
        (
            {"export_settings": {"tables": ["fits"]}},
            {FILES.table("parquet"), FILES.table("vot")},
        ),
        ({"export_settings": {"map": False}}, {FILES.map}),
        ({"export_settings": {"gallery": False}}, {FILES.gallery}),
        (
            {"evaluation_settings": {"images": 0}},
            {FILES.evaluation, FILES.evaluation_page},
        ),
        (
            {"trained_network_name": "other.pt"},
            {FILES.own_model, FILES.history, FILES.scalars, FILES.history_figure},
        ),
    ):
        found = targets(parse(values, "test"), FILES)
        assert set(everything) - set(found) == left_out
        assert set(found) <= set(everything)


def test_a_file_of_marks_adds_the_ranking():
    """Without it, the step is not part of a run."""
    without, ranked = (
        set(targets(parse(values, "test"), FILES))
        for values in ({}, {"marks": "m.csv"})
    )
    assert without < ranked
    assert ranked - without == {
        FILES.ranking, FILES.ranking_page, FILES.ranking_sheets
    }  # fmt: skip


def test_every_step_is_a_rule(tmp_path):
    """The table of steps and the rules have the same names; rules have docstrings."""
    (tmp_path / "list.txt").write_text("a.fits\n")
    config = ["--configfile", str(ROOT / "config" / "config.yaml"), "--config"]
    done = command_line.run(
        ["-s", str(ROOT / "Snakefile"), "--list", *config, "datafile=list.txt"],
        tmp_path, "snakemake",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    listed = dict(line.split(" ", 1) for line in done.stdout.splitlines())
    assert set(listed) == {*STEPS, "all", "everything"}
    for text in listed.values():
        assert re.fullmatch(r"\([A-Z].*\.\)", text), listed
