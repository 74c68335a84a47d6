"""The states of results: up to date, older than an input, interrupted, missing."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from astromorph.artefacts.run_files import RunFiles
from astromorph.cli import execute as executing
from astromorph.cli import status
from astromorph.cli.execute import execute
from astromorph.cli.main import main
from astromorph.cli.steps import STEPS, Job, previous_steps, wanted_steps
from astromorph.errors import AstromorphError
from astromorph.filelist.list_state import ListState
from astromorph.settings.loading import parse
from astromorph.settings.steps import part_of

SETTINGS = {
    "datafile": "list.csv",
    "preprocess_settings": {"shard_size": 2},
    "network_settings": {"weights": "weights.pt"},
    "evaluation_settings": {
        "references": [
            {"name": "photos", "network": "resnet18", "weights": "photographs.pt"}
        ]
    },
    "marks": "marks.csv",
}
# For each kind of change: the change, and the steps that it makes out of date itself.
LATER = {
    "report_history", "infer", "evaluate", "analyse", "export_csv", "export_parquet",
    "export_fits", "export_votable", "export_tensorboard", "export_map",
    "export_gallery", "rank", "report_settings", "report_home",
}  # fmt: skip
TRAINED = {"train"} | LATER
PREPARED = {"preprocess", "split"} | TRAINED
EXPORTS = {name for name in LATER if name.startswith("export_")}
TABLES = {"export_parquet", "export_fits", "export_votable"}


def fake(step):
    """A step that writes the names of its outputs and does nothing else."""

    def run(job):
        for path in step.outputs(job.files, job.shard.name if job.shard else ""):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(str(path))

    return replace(step, run=run)


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A finished run of fake steps on five files in three shards."""
    monkeypatch.chdir(tmp_path)
    for name in (
        "0.fits",
        "1.fits",
        "2.fits",
        "3.fits",
        "4.fits",
        "weights.pt",
        "photographs.pt",
        "marks.csv",
    ):
        Path(name).write_text(name)
    rows = "".join(f"{k}.fits,a,g\n" for k in range(5))
    Path("list.csv").write_text("path,label,group\n" + rows)
    bring_up_to_date(SETTINGS)
    return tmp_path


def planned(values):
    settings = parse(values, "test")
    state = ListState(settings.datafile, settings.preprocess_settings.shard_size)
    model = settings.trained_network_name
    return settings, RunFiles.of_run("results", len(state.shards), model), state


def bring_up_to_date(values):
    settings, files, state = planned(values)
    evaluates = STEPS["evaluate"].is_wanted(settings)
    for step in wanted_steps(settings):
        for shard in state.shards.values() if step.per_shard else [None]:
            execute(fake(step), Job(settings, files, "", 1, shard, evaluates))


def states(values=SETTINGS):
    return status.job_states(*planned(values))


def outdated(values=SETTINGS):
    """Step and state of those that are not up to date."""
    return {s.step: s.state for s in states(values) if not s.is_up_to_date}


def test_a_finished_run_is_up_to_date(run):
    """All jobs of all steps; the outputs are the targets."""
    assert outdated() == {}
    files = planned(SETTINGS)[1]
    outputs = [path for state in states() for path in state.outputs]
    assert len(outputs) == len(set(outputs)) > 20
    assert all(path.exists() for path in outputs)
    assert status.left_over(states(), files, trains=True) == []


def replace_file(name):
    Path(name).write_text("another content")


def edit_list(old, new):
    path = Path("list.csv")
    path.write_text(path.read_text().replace(old, new))


@pytest.mark.parametrize(
    ("change", "steps", "state"),
    [
        ({"learning_rate": 0.5}, TRAINED, "settings"),
        ({"seed": 5}, {"split"} | TRAINED, "settings"),
        ({"preprocess_settings": {"shard_size": 2, "size": 32}},
         {"validate"} | PREPARED, "settings"),
        ({"inference_settings": {"batch_size": 3}},
         LATER - {"report_history"}, "settings"),
        ({"evaluation_settings": SETTINGS["evaluation_settings"] | {"images": 99}},
         {"evaluate", "export_map", "report_settings", "report_home"}, "settings"),
        ({"analysis_settings": {"components": 3}},
         {"analyse", "rank", "report_settings", "report_home"} | EXPORTS, "settings"),
        ({"export_settings": {"csv_separator": "semicolon"}},
         {"export_csv", "report_settings", "report_home"}, "settings"),
        ({"export_settings": {"thumbnail_size": 16}},
         {"export_tensorboard", "report_settings", "report_home"}, "settings"),
        ({"core_limit": 1}, set(), ""),
        (lambda: edit_list("0.fits,a", "0.fits,b"),
         {"validate", "evaluate", "analyse", "rank", "report_home"} | EXPORTS,
         "file list"),
        (lambda: edit_list("0.fits,a,g", "0.fits,a,h"),
         {"validate", "split"} | TRAINED, "file list"),
        (lambda: replace_file("3.fits"), {"validate"} | PREPARED, "files"),
        (lambda: replace_file("weights.pt"), TRAINED, "files"),
        (lambda: replace_file("photographs.pt"),
         {"evaluate", "export_map", "report_home"}, "files"),
        (lambda: replace_file("marks.csv"), {"rank", "report_home"}, "files"),
        (lambda: os.utime("marks.csv", (0, 0)), set(), ""),
        (lambda: Path("4.fits").unlink(), {"validate"} | PREPARED, "files"),
        (lambda: os.utime("list.csv", (0, 0)), set(), ""),
    ],
)  # fmt: skip
def test_a_change_outdates_the_steps_that_depend_on_it(run, change, steps, state):
    """And no others; the state says what they are older than."""
    values = SETTINGS
    if callable(change):
        change()
    else:
        values = SETTINGS | change
    found = outdated(values)
    assert set(found) == steps
    assert set(found.values()) <= {f"older than the {state}"}
    bring_up_to_date(values)
    assert outdated(values) == {}


def test_a_replaced_image_outdates_its_shard_only(run):
    """Of `preprocess`; all images are trained on."""
    replace_file("3.fits")
    jobs = {s.job for s in states() if s.step == "preprocess" and not s.is_up_to_date}
    assert jobs == {"00001"}


@pytest.mark.parametrize("name", STEPS)
def test_edited_code_outdates_its_step_and_those_after_it(run, monkeypatch, name):
    """The digest of its code is an input of each step."""
    old, code = executing.code_digest, STEPS[name].code
    monkeypatch.setattr(
        executing, "code_digest", lambda module: old(module) + "x" * (module == code)
    )
    found = outdated()
    assert name in found
    assert set(found.values()) == {"older than the code"}
    expected, before = {s.name for s in STEPS.values() if s.code == code}, None
    while before != expected:
        before = set(expected)
        expected |= {s.name for s in STEPS.values() if before & set(s.after)}
    assert set(found) == expected


@pytest.mark.parametrize("name", STEPS)
def test_an_interrupted_step_is_outdated(run, name):
    """Without one of its outputs, with an incomplete one, and without a record."""
    step, files = STEPS[name], planned(SETTINGS)[1]
    job = "00001" if step.per_shard else ""
    outputs = step.outputs(files, job)
    for path in outputs:
        text = path.read_text()
        path.write_text("")
        assert outdated() == {name: status.CHANGED_OUTPUT}
        path.unlink()
        assert set(outdated()) == {name}
        path.write_text(text)
        assert outdated() == {}
    files.record(name, job or name).unlink()
    assert outdated() == {name: status.WITHOUT_RECORD}
    for path in outputs:
        path.unlink()
    assert outdated() == {name: status.MISSING}


def test_a_failed_step_leaves_no_record(run):
    """Its old outputs count as outdated from the moment in which it starts."""

    def fail(job):
        raise AstromorphError("disk full")

    settings, files, _ = planned(SETTINGS)
    with pytest.raises(AstromorphError, match="disk full"):
        execute(replace(STEPS["split"], run=fail), Job(settings, files))
    assert set(outdated()) == {"split"}


def test_going_back_to_old_settings_does_not_bring_back_their_record(run):
    """A is finished, B is interrupted; then A is not up to date."""

    def killed(job):
        job.files.model.write_text("made with other settings")
        raise KeyboardInterrupt

    settings, files, _ = planned(SETTINGS | {"learning_rate": 0.5})
    with pytest.raises(KeyboardInterrupt):
        execute(replace(STEPS["train"], run=killed), Job(settings, files))
    assert set(outdated()) == {"train"}


def test_a_named_model_replaces_training(run):
    """Its file is an input; the training in the folder is not part of the run."""
    values = SETTINGS | {"trained_network_name": "weights.pt"}
    assert set(outdated(values)) == LATER - {"report_history"}
    bring_up_to_date(values)
    assert outdated(values) == {}
    replace_file("weights.pt")
    assert set(outdated(values)) == LATER - {"report_history"}


def test_the_own_model_can_be_named(run):
    """The model that the run has trained is the same under its name."""
    values = SETTINGS | {"trained_network_name": "results/model/model.pt"}
    assert outdated(values) == {}


def test_only_what_a_target_needs_is_selected(run):
    """The command line may name some of the results."""
    replace_file("3.fits")
    names = {s.step for s in status.needed(states(), [Path("results/split.csv")])}
    assert names == {"preprocess", "split"}
    assert len(status.needed(states(), None)) == len(states())


def test_what_is_not_part_of_the_run_is_listed(run):
    """An export that is no longer wanted, and a shard of a longer list."""
    Path("list.csv").write_text("path,label,group\n0.fits,a,g\n")
    values = SETTINGS | {"export_settings": {"tables": []}}
    paths = status.left_over(states(values), planned(values)[1], trains=True)
    assert {path.name for path in paths} == {
        "embeddings.parquet", "embeddings.fits", "embeddings.vot",
        "00001.pt", "00001.csv", "00001.parquet",
        "00002.pt", "00002.csv", "00002.parquet",
    }  # fmt: skip


def test_the_command_prints_a_row_for_each_step(run, capsys):
    """With the digests that pages show, and the dates."""
    settings = "datafile: list.csv\npreprocess_settings: {shard_size: 2}\n"
    settings += "network_settings: {weights: weights.pt}\nmarks: marks.csv\n"
    settings += "evaluation_settings: {references: [{name: photos, "
    settings += "network: resnet18, weights: photographs.pt}]}\n"
    Path("config").mkdir()
    Path("config/config.yaml").write_text(settings)
    main(["status"])
    text = capsys.readouterr().out
    assert text.count("up to date") == len(STEPS) + 1
    assert states()[0].record.made_from.settings in text
    replace_file("3.fits")
    main(["status"])
    text = capsys.readouterr().out
    assert "2 of 3 up to date, 1 of 3 older than the files" in text
    assert "Run the same command" in text
    assert "checkpoints" not in text
    for path in STEPS["train"].outputs(planned(SETTINGS)[1], ""):
        path.unlink()
    checkpoint = Path("results/model/checkpoints/0123-6/step-000000007.pt")
    checkpoint.parent.mkdir(parents=True)
    checkpoint.write_text("")
    main(["status"])
    text = capsys.readouterr().out
    assert "checkpoints in results/model/checkpoints: training with" in text


def test_the_command_reads_the_settings_that_run_reads(
    tmp_path, monkeypatch, caplog, capsys
):
    """`config.yaml`, if there is no folder `config`; without any, it says so."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main(["status"])
    assert ended.value.code == 1
    assert f"{tmp_path}: there are no settings (config/config.yaml or" in caplog.text
    assert "`astromorph init DIR --images FOLDER`" in caplog.text
    Path("config.yaml").write_text("datafile: other.csv\n")
    with pytest.raises(SystemExit):
        main(["status"])
    assert "other.csv" in caplog.text
    Path("other.csv").write_text("path\na.fits\n")
    main(["status"])
    text = capsys.readouterr().out
    assert "There are no results yet; `astromorph run`" in text


def test_two_processes_do_not_execute_the_same_job(run):
    """The second one says which process is at work."""
    settings, files, _ = planned(SETTINGS)

    def again(job):
        execute(fake(STEPS["split"]), job)

    with pytest.raises(AstromorphError, match="the step `split` is running"):
        execute(replace(STEPS["split"], run=again), Job(settings, files))


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"marks": "marks.csv"},
        {"export_to_csv": False, "export_settings": {"map": False}},
        {"export_settings": {"tables": ["fits"], "gallery": False}},
        {"trained_network_name": "model.pt"},
    ],
)
def test_the_home_page_knows_the_same_steps_from_its_own_settings(values):
    """Otherwise it would be made again in each run."""
    settings = parse({"datafile": "list.csv", **values}, "test")
    files = RunFiles.of_run("results", 1, settings.trained_network_name)
    own = parse(part_of(settings, "report_home"), "test")
    step = STEPS["report_home"]
    expected, found = (
        [previous.name for previous in previous_steps(step, Job(some, files, "test"))]
        for some in (settings, own)
    )
    assert found == expected
