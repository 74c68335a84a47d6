"""Helpers for the rules of the workflow, tested without Snakemake."""

import json
import os
import zipfile
from pathlib import Path

import pytest

from astromorph.artefacts.run_files import RunFiles
from astromorph.cli.execute import step_code
from astromorph.cli.steps import STEPS
from astromorph.cli.workflow import (
    MAX_REPORTED_BYTES,
    check_config_files,
    check_model,
    closing_errors,
    plan_workflow,
    results_folder,
)
from astromorph.errors import AstromorphError
from astromorph.progress import INTERRUPTED
from astromorph.settings.steps import PARTS


@pytest.fixture
def listed(tmp_path, monkeypatch):
    """A working folder with a list of five files in shards of two."""
    monkeypatch.chdir(tmp_path)
    lines = ["path,label,group", *(f"{k}.fits,a,g" for k in range(5))]
    (tmp_path / "list.csv").write_text("\n".join(lines) + "\n")
    return {"datafile": "list.csv", "preprocess_settings": {"shard_size": 2}}


def test_a_name_that_is_set_twice_is_refused(tmp_path):
    """Snakemake would use the last one only; files of other kinds are skipped."""
    twice = "epochs: 3\nepochs: 4\n"
    texts = {"a.yaml": twice, "b.yaml": "__use_yte__: true\n" + twice}
    texts |= {"c.json": '{\t"epochs": 3}', "d.yaml": "epochs: 3\n"}
    paths = [tmp_path / name for name in texts]
    for path, text in zip(paths, texts.values(), strict=True):
        path.write_text(text)
    check_config_files([*map(str, paths[1:]), tmp_path / "absent.yaml"])
    with pytest.raises(AstromorphError, match=r"a\.yaml: `epochs` is set in line 1"):
        check_config_files(paths)


STOPPED = "training stopped by Ctrl-C in epoch 2 of 9; run the same command again"
ENDED = "interrupted; run the same command again to continue"


@pytest.mark.parametrize(
    ("by_user", "errors", "lines"),
    [
        (True, {}, [ENDED]),
        (True, {"train": STOPPED}, [f"interrupted: train: {STOPPED} (train.log)"]),
        (False, {"train": STOPPED}, [f"interrupted: train: {STOPPED} (train.log)"]),
        (True, {"infer": INTERRUPTED, "evaluate": ""}, [ENDED]),
        (
            True,
            {"infer": INTERRUPTED, "split": "no"},
            ["failed: split: no (split.log)"],
        ),
        (
            False,
            {"infer": ""},
            ["failed: infer: killed before it could log a reason (infer.log)"],
        ),
    ],
)
def test_an_interrupted_run_does_not_say_that_it_failed(
    tmp_path, monkeypatch, by_user, errors, lines
):
    """It says how to continue. A step that failed at the same time is named."""
    monkeypatch.chdir(tmp_path)
    text = "Terminating processes on user request, this might ...\n" * by_user
    for number, (rule, error) in enumerate(errors.items()):
        Path(f"{rule}.log").write_text(f"10:00:00 ERROR {error}\n" if error else "")
        text += (
            f"Error in rule {rule}:\n    jobid: {number}\n    log: {rule}.log (see)\n"
        )
    Path("snakemake.log").write_text(text)
    assert closing_errors(["snakemake.log"]) == lines


class Wildcards(dict):
    """As Snakemake gives them to functions."""


def test_the_plan_has_shards_files_and_cores(listed):
    """Shards have the names of their files; `core_limit` limits the cores."""
    plan = plan_workflow(listed, 6)
    assert tuple(plan.shards) == plan.files.shards == ("00000", "00001", "00002")
    assert plan.number_of_images == 5
    assert plan.cores == 6
    assert plan_workflow(listed, None).cores == 8
    assert plan_workflow(listed | {"core_limit": 3}, 6).cores == 3
    assert plan.has_own_model
    assert not plan_workflow(listed | {"trained_network_name": "a.pt"}, 1).has_own_model


def test_only_the_cells_that_decide_the_split_change_its_digest(listed, tmp_path):
    """A label changes the digest of the list; a group changes both."""
    before = plan_workflow(listed, 1)
    path = tmp_path / "list.csv"
    text = path.read_text()
    for old, new, split_changes in ((",a,", ",b,", False), (",g\n", ",h\n", True)):
        path.write_text(text.replace(old, new, 1))
        after = plan_workflow(listed, 1)
        assert after.list_state.rows != before.list_state.rows
        assert (after.list_state.groups != before.list_state.groups) == split_changes


@pytest.mark.parametrize("name", STEPS)
def test_each_step_gets_its_own_settings_and_code(listed, name):
    """`settings` contains the names of its part and no others."""
    plan = plan_workflow(listed, 1)
    wildcards = Wildcards(shard="00000") if STEPS[name].per_shard else Wildcards()
    params = plan.params(name, plan.files.analysis)
    values = json.loads(params["settings"](Wildcards()))
    part = PARTS[STEPS[name].part] if STEPS[name].part else ()
    assert set(values) <= {name.partition(".")[0] for name in part}
    inputs = json.loads(params["inputs"](wildcards))
    assert inputs["code"] == step_code(STEPS[name])
    local = ["copies/results/analysis.parquet"]
    assert params["results"](Wildcards(), local) == "copies/results"


def test_resources_follow_the_shard_and_the_attempt(listed, tmp_path):
    """The job of a shard is smaller than that of all images; a retry gets more."""
    lines = "".join(f"{k}.fits\n" for k in range(40_000))
    (tmp_path / "long.txt").write_text(lines)
    plan = plan_workflow({"datafile": "long.txt"}, 1)
    memory = plan.resources("preprocess")["mem_mb"]
    one, every = Wildcards(shard="00000"), Wildcards()
    assert memory(one, 1) < memory(every, 1)
    assert memory(one, 2) == 2 * memory(one, 1)
    minutes = plan.resources("infer")["runtime"]
    assert minutes(one, 1) < minutes(every, 1)


def test_braces_are_refused_in_a_model_and_omit_a_list(listed, tmp_path):
    """Snakemake would interpret them as wildcards."""
    with pytest.raises(
        AstromorphError, match="the workflow does not allow braces in it"
    ):
        plan_workflow(listed | {"trained_network_name": "m{1}.pt"}, 1)
    assert plan_workflow(listed, 1).declared_list == ["list.csv"]
    (tmp_path / "{list}.csv").write_text((tmp_path / "list.csv").read_text())
    plan = plan_workflow(listed | {"datafile": "{list}.csv"}, 1)
    assert plan.declared_list == []


def test_large_tables_are_not_reported(listed):
    """Five rows fit, unless each is larger than a fifth of the limit."""
    plan = plan_workflow(listed, 1)
    assert plan.is_reported(MAX_REPORTED_BYTES // 5)
    assert not plan.is_reported(MAX_REPORTED_BYTES // 5 + 1)


@pytest.mark.parametrize(
    "path", ["model/model.pt", "catalogue.csv", "export/tables/deep/a.csv"]
)
@pytest.mark.parametrize("folder", ["results", "prefix/results", "/tmp/fs/run/results"])
def test_the_results_folder_is_that_of_the_job(path, folder):
    """Even if a storage provider or a module puts the files elsewhere."""
    declared = RunFiles.of_run("results").results / path
    function = results_folder(declared.relative_to("results"))
    assert function(Wildcards(), [f"{folder}/{path}"]) == folder


def test_a_replaced_file_changes_the_inputs_of_its_step(listed, tmp_path):
    """Start weights are an input of training, a named model one of inference."""
    path = tmp_path / "weights.pt"
    settings = listed | {
        "network_settings": {"weights": "weights.pt"},
        "trained_network_name": "weights.pt",
    }
    seen = {"train": set(), "infer": set(), "split": set()}
    for text in ("", "one", "another"):
        if text:
            path.write_text(text)
        plan = plan_workflow(settings, 1)
        for step, values in seen.items():
            params = plan.params(step, plan.files.analysis)
            values.add(params["inputs"](Wildcards(shard="00000")))
    assert [len(values) for values in seen.values()] == [3, 3, 1]


def test_native_sizes_are_read_from_the_list(listed, tmp_path):
    """The first headers determine the memory for images that keep their size."""
    import numpy as np
    from astropy.io import fits

    for k in range(5):
        fits.PrimaryHDU(np.ones((900, 900), np.int16)).writeto(tmp_path / f"{k}.fits")
    sizes = {"preprocess_settings": {"size": "native"}}
    large = plan_workflow({"datafile": "list.csv", **sizes}, 1)
    small = plan_workflow({"datafile": "list.csv"}, 1)
    memory = [
        plan.resources("train")["mem_mb"](Wildcards(), 1) for plan in (small, large)
    ]
    assert memory[1] > memory[0]


def test_an_output_elsewhere_is_refused():
    """A module statement that gives one rule other outputs would split the run."""
    function = results_folder(Path("model/model.pt"))
    with pytest.raises(ValueError, match=r"found m/x\.pt; .* end in model/model\.pt"):
        function(None, ["m/x.pt"])


def test_a_pipe_as_the_list_of_a_workflow_is_refused(tmp_path):
    """Every job reads the list; without a message, each would wait for ever."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(AstromorphError, match=r"pipe: .* read only once.*to a file"):
        plan_workflow({"datafile": str(tmp_path / "pipe")}, 1)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "no such file"),
        (b"weights", "not a model file"),
        (b"PK", "not a model file"),
        ("zip", "not a model file"),
    ],
)
def test_a_model_that_cannot_be_used_is_named_at_the_start(listed, content, words):
    """Before any image is prepared."""
    if content == "zip":
        with zipfile.ZipFile("my.pt", "w") as file:
            file.writestr("archive/data.pkl", b"other")
    elif content is not None:
        Path("my.pt").write_bytes(content)
    plan = plan_workflow(listed | {"trained_network_name": "my.pt"}, 1)
    with pytest.raises(AstromorphError, match=f"my.pt: .*{words}.*; give a model"):
        check_model(plan)


def test_a_written_model_passes(listed):
    """The check knows the format that `train` writes."""
    from astromorph.artefacts.model_file import MODEL_FORMAT, MODEL_VERSION
    from astromorph.artefacts.tensor_shard import save_values

    values = {"format": MODEL_FORMAT, "format_version": MODEL_VERSION}
    save_values("my.pt", values)
    check_model(plan_workflow(listed | {"trained_network_name": "my.pt"}, 1))
    check_model(plan_workflow(listed, 1))
