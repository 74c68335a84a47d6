"""The workflow as users run it: its results, and the steps that a change reruns."""

import ast
import contextlib
import csv
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from finished_workflow import BASE, ROOT, configure, finished_workflow, snakemake

from astromorph.artefacts.column_types import ANALYSED
from astromorph.cli.run_workflow import BRIEF
from astromorph.cli.workflow import SHELL_PREFIX

pytestmark = pytest.mark.slow

TABLES = {"export_csv", "export_parquet", "export_fits", "export_votable"}
EXPORTS = {*TABLES, "export_map", "export_tensorboard", "export_gallery"}
# These pages depend on all settings, and on all results.
LISTED = {"report_settings", "report_home"}
AFTER_INFER = {"infer", "evaluate", "analyse"} | EXPORTS | LISTED
TRAINED = {"train", "report_history"} | AFTER_INFER
RULE_OF = {
    "results/catalogue.csv": "validate",
    "results/split.csv": "split",
    "results/model/model.pt": "train",
    "results/analysis.parquet": "analyse",
    "results/export/embeddings.csv": "export_csv",
    "results/export/embeddings.parquet": "export_parquet",
    "results/export/embeddings.fits": "export_fits",
    "results/export/embeddings.vot": "export_votable",
    "results/export/map.html": "export_map",
    "results/export/map_files": "export_map",
    "results/export/tensorboard": "export_tensorboard",
    "results/export/gallery": "export_gallery",
    "results/model/history.png": "report_history",
    "results/report/settings.html": "report_settings",
    "results/index.html": "report_home",
}


def planned(folder: Path, **options: Path | None) -> set[str]:
    """The rules that `snakemake --summary` plans to run again."""
    done = snakemake(folder, "--summary", **options)
    assert done.returncode == 0, done.stderr
    lines = [line.split("\t") for line in done.stdout.splitlines()]
    header, rows = lines[0], lines[1:]
    assert len(rows) > 10
    rules = set()
    for cells in rows:
        row = dict(zip(header, cells, strict=True))
        if row["plan"] != "no update":
            name = row["output_file"]
            rules.add(RULE_OF.get(name) or rule_by_folder(name))
    return rules


def rule_by_folder(name: str) -> str:
    """The rule of a file that belongs to a shard or is next to another file."""
    folder = Path(name).parent.name
    others = {"tensors": "preprocess", "embeddings": "infer", "model": "train"}
    return others.get(folder) or {
        "results/validation.html": "validate",
        "results/evaluation.html": "evaluate",
        "results/evaluation.json": "evaluate",
        "results/analysis.html": "analyse",
        "results/analysis.json": "analyse",
        "results/tensorboard/train": "train",
    }.get(name, name)


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A folder in which the workflow ran on 40 good and 5 bad files."""
    return shutil.copytree(
        finished_workflow(tmp_path_factory),
        tmp_path_factory.mktemp("run with a space") / "run",
        symlinks=True,
    )


@pytest.fixture
def run(finished):
    """The finished run; its settings are restored afterwards."""
    yield finished
    configure(finished, {})


def rows(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_every_listed_file_has_a_row_and_bad_ones_a_reason(run):
    """The catalogue and the split contain the status of each listed file."""
    catalogue = rows(run / "results/catalogue.csv")
    split = rows(run / "results/split.csv")
    assert len(catalogue) == len(split) == 45
    assert [r["image_id"] for r in catalogue] == [r["image_id"] for r in split]
    reasons = {Path(r["path"]).name: r["reason"] for r in split if r["reason"]}
    assert "no such file" in reasons["absent.fits"]
    assert "not a FITS file" in reasons["not.fits"]
    assert "folder" in reasons["fits"]
    assert "NaN" in reasons["nan.fits"]
    assert {r["subset"] for r in split if r["status"] == "rejected"} == {"none"}
    assert sum(r["subset"] != "none" for r in split) == 41


def test_the_table_contains_facts_list_columns_and_embeddings(run):
    """embeddings.csv: a row per usable image, facts, label, emb_0 to emb_11."""
    table = rows(run / "results/export/embeddings.csv")
    assert len(table) == 41
    facts = ["image_id", "path", "object", "ra_deg", "dec_deg", "rest_frequency_hz"]
    analysed = [column.name for column in ANALYSED]
    embedding = [f"emb_{k}" for k in range(12)]
    assert list(table[0]) == [*facts, "label", *analysed, *embedding]
    assert {r["cluster"] for r in table} >= {"0"}
    assert table[0]["object"] == "SKY 000000"
    assert table[0]["label"] == "disk"
    assert len({r["image_id"] for r in table}) == 41
    first, again = table[1], table[40]
    assert again["label"] == "again"
    # Rounding depends on the size of the batch on some processors.
    np.testing.assert_allclose(
        *([float(row[f"emb_{k}"]) for k in range(12)] for row in (first, again)),
        rtol=1e-5,
        atol=1e-6,
    )


def test_every_format_of_the_table_is_written(run):
    """Parquet, FITS and VOTable have the same rows as the CSV."""
    from astropy.table import Table

    ids = [r["image_id"] for r in rows(run / "results/export/embeddings.csv")]
    for ending, form in (("parquet", "parquet"), ("fits", "fits"), ("vot", "votable")):
        path = run / f"results/export/embeddings.{ending}"
        if form == "parquet":
            found = pq.read_table(path).column("image_id").to_pylist()
        else:
            found = list(Table.read(path, format=form)["image_id"])
        assert found == ids


def test_the_projector_folder_is_complete(run):
    """Points, metadata and thumbnails agree in number, and the config names them."""
    from PIL import Image

    folder = run / "results/export/tensorboard"
    config = (folder / "projector_config.pbtxt").read_text()
    assert len((folder / "tensors.tsv").read_text().splitlines()) == 41
    assert len((folder / "map.tsv").read_text().splitlines()) == 41
    metadata = (folder / "metadata.tsv").read_text().splitlines()
    assert len(metadata) == 42
    assert metadata[1].split("\t")[0] == "disk"
    with Image.open(folder / "sprite.png") as sheet:
        assert sheet.size == (7 * 16, 7 * 16)
    assert "single_image_dim: 16" in config


def test_history_has_a_row_per_epoch(run):
    """history.csv contains a training and a test loss for each epoch."""
    history = rows(run / "results/model/history.csv")
    assert [r["epoch"] for r in history] == ["1", "2"]
    assert all(0 < float(r["train_loss"]) < 8 for r in history)
    assert all(0 < float(r["test_loss"]) < 8 for r in history)


def test_a_second_run_does_nothing(run):
    """Neither the summary nor a run finds anything to do."""
    assert planned(run) == set()
    done = snakemake(run, "--cores", "2")
    assert done.returncode == 0
    assert "Nothing to be done" in done.stdout + done.stderr
    assert "count as up to date" not in done.stdout + done.stderr


def test_both_snakefiles_have_a_default_target(run):
    """workflow/Snakefile, which the workflow catalogue expects, has nothing to do."""
    done = snakemake(run, "-n", snakefile=ROOT / "workflow" / "Snakefile")
    assert done.returncode == 0, done.stderr
    configure(run, {"epochs": 3})
    done = snakemake(run, "-n", snakefile=ROOT / "workflow" / "Snakefile")
    assert "train" in done.stdout


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"inference_settings": {"symmetry": "d4"}}, AFTER_INFER),
        ({"inference_settings": {"batch_size": 9}}, AFTER_INFER),
        (
            {"evaluation_settings": {"images": 30}},
            {"evaluate", "export_map"} | LISTED,
        ),
        (
            {"evaluation_settings": {"label": "other"}},
            {"validate", "evaluate", "analyse"} | EXPORTS | LISTED,
        ),
        ({"analysis_settings": {"neighbours": 5}}, {"analyse"} | EXPORTS | LISTED),
        ({"export_settings": {"csv_separator": "semicolon"}}, {"export_csv"} | LISTED),
        ({"export_settings": {"tables": ["fits"]}}, LISTED),
        ({"export_settings": {"map_thumbnail_size": 20}}, {"export_map"} | LISTED),
        (
            {"export_settings": {"thumbnail_size": 20}},
            {"export_tensorboard"} | LISTED,
        ),
        ({"export_settings": {"gallery_images": 7}}, {"export_gallery"} | LISTED),
        ({"export_settings": {"gallery": False}}, {"export_map"} | LISTED),
        ({"epochs": 16, "batch_size": 2}, TRAINED),
        ({"learning_rate": 0.99, "gamma": 0.001}, TRAINED),
        ({"training_settings": {"simulated_images": 21}}, TRAINED),
        ({"data_settings": {"stacksize": 3}}, TRAINED),
        ({"split_settings": {"test_fraction": 0.3}}, TRAINED | {"split"}),
        (
            {"preprocess_settings": {"size": 33}},
            TRAINED | {"validate", "preprocess", "split"},
        ),
        (
            {"validate_settings": {"on_duplicate": "drop"}},
            TRAINED | {"validate", "split"},
        ),
        (
            {"data_settings": {"header_columns": ["DATE"]}},
            {"validate", "evaluate", "analyse"} | EXPORTS | LISTED,
        ),
        ({"core_limit": 2}, set()),
        ({"export_to_csv": False}, {"report_home"}),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else None,
)
def test_a_change_reruns_its_step_and_what_follows(run, changes, expected):
    """Nothing before the step that a setting belongs to is planned again."""
    configure(run, changes)
    assert planned(run) == expected


def test_swapped_values_of_two_training_settings_retrain(run):
    """Snakemake does not store the names of params; the canonical string does."""
    configure(run, {"epochs": BASE["batch_size"], "batch_size": BASE["epochs"]})
    assert planned(run) == TRAINED


def test_reordered_keys_and_a_touched_list_rerun_nothing(run):
    """Only the content of settings and list counts, not order or time."""
    path = run / "config" / "config.yaml"
    settings = dict(reversed(list(yaml.safe_load(path.read_text()).items())))
    path.write_text(yaml.safe_dump(settings, sort_keys=False))
    (run / "fits" / "filelist.csv").touch()
    assert planned(run) == set()


@pytest.fixture
def copy(run, tmp_path) -> Path:
    """A copy of the finished run, to be changed."""
    copy = tmp_path / "copy"
    shutil.copytree(run, copy, symlinks=True)
    return copy


@pytest.fixture
def sources(tmp_path) -> Path:
    """A copy of the workflow and the package, to be edited."""
    for name in ("workflow", "astromorph", "envs"):
        # Compiled modules are copied too, except those that are being written.
        ignored = shutil.ignore_patterns("*.pyc.*")
        shutil.copytree(ROOT / name, tmp_path / "source" / name, ignore=ignored)
    return Path(shutil.copy(ROOT / "Snakefile", tmp_path / "source"))


def preprocessed_again(folder: Path) -> set[str]:
    """The shards that a dry run would prepare again."""
    done = snakemake(folder, "-n", "--cores", "1")
    text = done.stdout + done.stderr
    assert done.returncode == 0, text
    shards, rule = set(), ""
    for line in text.splitlines():
        if line.startswith("rule "):
            rule = line.split()[1].rstrip(":")
        elif "wildcards:" in line and rule == "preprocess":
            shards.add(line.split("=")[-1])
    return shards


def test_an_appended_row_reruns_only_its_shard(copy):
    """The shards before it keep their tensors."""
    with open(copy / "fits" / "filelist.csv", "a") as file:
        file.write("sky_000002.fits,new\n")
    assert preprocessed_again(copy) == {"00002"}
    assert planned(copy) == TRAINED | {"validate", "preprocess", "split"}


def test_a_removed_row_reruns_its_shard_and_later_ones(copy):
    """Later rows move up."""
    path = copy / "fits" / "filelist.csv"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:25] + lines[26:]))
    assert preprocessed_again(copy) == {"00001", "00002"}


def test_a_replaced_image_reruns_only_its_shard(copy):
    """Another file with the same name is detected by its size and time."""
    fits = copy / "fits"
    shutil.copy(fits / "sky_000003.fits", fits / "sky_000020.fits")
    assert preprocessed_again(copy) == {"00001"}
    assert planned(copy) == TRAINED | {"validate", "preprocess", "split"}


def test_a_missing_image_reruns_its_shard(copy):
    """It becomes a row with a reason."""
    (copy / "fits" / "sky_000002.fits").unlink()
    assert preprocessed_again(copy) == {"00000"}


SAVES = """
import signal, sys, time
from pathlib import Path
def save(*_):
    time.sleep(1)
    Path("saved").touch()
    sys.exit(1)
signal.signal(signal.SIGTERM, save)
signal.signal(signal.SIGUSR1, save)
signal.signal(signal.SIGHUP, save)
Path("ready").touch()
time.sleep(60)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP])
def test_the_shell_waits_for_a_step_that_gets_a_signal(tmp_path, number):
    """A cluster also signals the shell, and kills all children when it ends."""
    (tmp_path / "step.py").write_text(SAVES)
    command = ["bash", "-c", f"{SHELL_PREFIX}{shlex.quote(sys.executable)} step.py"]
    process = subprocess.Popen(command, cwd=tmp_path, start_new_session=True)
    while not (tmp_path / "ready").exists():
        assert process.poll() is None
        time.sleep(0.05)
    os.killpg(process.pid, number)
    assert process.wait(30) == 1
    assert (tmp_path / "saved").exists()


def test_no_command_grows_with_the_number_of_shards(run, tmp_path):
    """Hundreds of shards are planned; a command has their number, not their files."""
    path = tmp_path / "list.txt"
    number = 500
    path.write_text("".join(f"{k}.fits\n" for k in range(2 * number)))
    configure(run, {"datafile": str(path), "preprocess_settings": {"shard_size": 2}})
    done = snakemake(run, "-n", "-p")
    assert done.returncode == 0, done.stderr
    commands = [
        line
        for line in (done.stdout + done.stderr).splitlines()
        if "python -m astromorph" in line
    ]
    assert len(commands) > 2 * number
    assert max(len(line) for line in commands) < 3000
    assert any("astromorph train" in c and f"--shards {number}" in c for c in commands)


def test_replaced_weights_retrain(copy):
    """A file given in the settings is identified by its size and time, not its name."""
    weights = copy / "start.pt"
    configure(copy, {"network_settings": {"weights": "start.pt"}})
    for content, expected in ((b"one", TRAINED), (b"other", TRAINED)):
        weights.write_bytes(content)
        assert planned(copy) == expected
        done = snakemake(copy, "--touch", "--cores", "1")
        assert done.returncode == 0, done.stderr
        assert planned(copy) == set()


def test_a_missing_list_is_named_and_can_be_restored(copy):
    """The error names it; after it is restored, there is nothing to do."""
    path = copy / "fits" / "filelist.csv"
    path.rename(copy / "away.csv")
    done = snakemake(copy, "--cores", "1")
    assert done.returncode != 0
    assert "fits/filelist.csv: there is no such file list" in done.stderr
    assert "Traceback" not in done.stderr
    (copy / "away.csv").rename(path)
    assert planned(copy) == set()


def test_touched_sources_and_comments_rerun_nothing(run, sources):
    """Only the statements of the code count, not its time, comments or version."""
    for path in sources.parent.rglob("*.py"):
        tree = ast.parse(path.read_text())
        path.write_text(f"# A comment.\n{ast.unparse(tree)}\n")
    for path in sources.parent.rglob("*.smk"):
        path.touch()
    assert planned(run, snakefile=sources) == set()


def append(sources: Path, module: str, text: str = "EDITED = 1") -> None:
    """Add a statement to the end of a module in a copy of the package."""
    with open(sources.parent / "astromorph" / module, "a") as file:
        file.write(f"\n\n{text}\n")


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        ("byol/byol.py", TRAINED),
        ("export/tables/csv.py", {"export_csv", "report_home"}),
        ("fits/image.py", TRAINED | {"validate", "preprocess", "split"}),
    ],
)
def test_an_edit_reruns_the_steps_that_use_it(run, sources, module, expected):
    """Edits of the loss, of one export, and of reading images."""
    append(sources, module)
    assert planned(run, snakefile=sources) == expected


def release(folder: Path, versions: dict[str, str]) -> None:
    """Write the metadata that pip installs for packages of these versions."""
    for name, version in versions.items():
        facts = folder / f"{name}-{version}.dist-info" / "METADATA"
        facts.parent.mkdir(parents=True)
        facts.write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")


def test_an_upgraded_package_reruns_the_steps_that_it_changed(run, sources, tmp_path):
    """New versions alone rerun nothing; changed steps are rerun."""
    packages, code = tmp_path / "packages", sources.parent / "astromorph"
    release(packages, {"astromorph": "9.0", "torch": "99.0", "numpy": "99.0"})
    asked = [sys.executable, "-c", "import astromorph; print(astromorph.__version__)"]
    environment = os.environ | {"PYTHONPATH": f"{packages}{os.pathsep}{code.parent}"}
    said = subprocess.check_output(asked, env=environment, cwd=run, text=True)
    assert said == "9.0\n"
    with open(sources.parent / "envs" / "astromorph.yaml", "a") as file:
        file.write("  - numpy>=99\n")
    assert planned(run, snakefile=sources, packages=packages) == set()
    for module in ("cli/main.py", "export/tables/votable.py"):
        append(sources, module)
    found = planned(run, snakefile=sources, packages=packages)
    assert found == {"export_votable", "report_home"}


def test_results_are_compared_without_the_records_of_snakemake(copy):
    """Nothing reruns; after a change the same steps rerun as with its records."""
    shutil.rmtree(copy / ".snakemake")
    done = snakemake(copy, "-n")
    assert "Nothing to be done" in done.stdout + done.stderr
    configure(copy, {"epochs": 3})
    done = snakemake(copy, "-n")
    text = done.stdout + done.stderr
    assert "train is run again: its results are older than the settings" in text
    assert planned(copy) == TRAINED


# Replaces inference: the process is killed, as if it used too much memory.
KILLED = """
def infer(*arguments, **options):
    import os, signal
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_the_last_results_survive_a_rerun_that_is_killed(copy, sources):
    """They have a second name until they are replaced; the log explains the kill."""
    model, table = copy / "results/model", copy / "results/embeddings"
    shutil.copy(copy / "results/model/model.pt", copy / "kept.pt")
    changes = {
        "trained_network_name": "kept.pt",
        "inference_settings": {"symmetry": "d4"},
        # Few of the steps after inference, which are not tested here.
        "evaluation_settings": {"images": 0},
        "analysis_settings": {"map": "pca"},
        "export_settings": {"tables": [], "map": False, "gallery": False},
    }
    configure(copy, changes)
    before = (table / "00001.parquet").read_bytes()
    append(sources, "embedding/infer.py", KILLED)
    done = snakemake(copy, "--cores", "1", snakefile=sources)
    assert done.returncode != 0
    assert "killed, most likely out of memory" in done.stderr
    assert (
        "failed: infer: killed before it could log a reason (results/logs/infer/"
        in done.stderr
    )
    left = [p.name for p in table.glob("*.parquet")]
    assert len(left) == 2
    assert (table / ".last" / "00001.parquet").read_bytes() == before
    assert (model / ".last" / "model.pt").exists()
    names = [f"results/embeddings/0000{k}.parquet" for k in range(3)]
    done = snakemake(copy, "--cores", "2", *names)
    assert done.returncode == 0, done.stderr
    assert (table / "00001.parquet").read_bytes() != before
    following = {"analyse", "export_csv", "export_tensorboard", "report_home"}
    assert planned(copy) - {"report_settings"} == following


def test_a_step_that_fails_is_named(copy):
    """Its error is the last line and appears once; its files are not waited for."""
    configure(copy, {"validate_settings": {"on_bad": "fail"}})
    # As `astromorph run` calls it.
    done = snakemake(copy, "--cores", "1", "results/catalogue.csv", *BRIEF)
    assert done.returncode != 0
    first, *reasons, page = done.stderr[done.stderr.index("failed: ") :].splitlines()
    error = re.fullmatch(r"failed: validate: (.*) \(results/logs/validate/.*\)", first)
    assert done.stderr.count(error[1]) == 1
    assert len(reasons) == 3 and all(" times: " in reason for reason in reasons)
    # The outputs of the failed step are gone; the page that says why is not.
    page = copy / page.partition(" shows")[0]
    assert page == copy / "results/logs/validate/validation.html"
    assert "this is not a FITS file" in page.read_text()
    assert not (copy / "results" / "validation.html").exists()
    assert "Select jobs" not in done.stderr
    assert "missing files" not in done.stderr
    log = max((copy / ".snakemake" / "log").iterdir(), key=os.path.getmtime)
    assert "Error in rule validate" in log.read_text()


def test_a_corrected_label_retrains_nothing(copy):
    """Training does not use labels."""
    path = copy / "fits" / "filelist.csv"
    path.write_text(path.read_text().replace("again", "once more"))
    steps = {"validate", "evaluate", "analyse", "report_home"}
    assert planned(copy) == steps | EXPORTS


def test_a_trained_network_is_used_without_training(copy):
    """With `trained_network_name` the model is an input and no rule trains."""
    configure(copy, {"trained_network_name": "results/model/model.pt", "epochs": 99})
    assert planned(copy) == {"report_home"}  # no history among the results it links
    kept = Path(shutil.copy(copy / "results/model/model.pt", copy / "kept.pt"))
    configure(copy, {"trained_network_name": "kept.pt", "epochs": 99})
    assert planned(copy) == AFTER_INFER
    assert snakemake(copy, "--touch", "--cores", "1").returncode == 0
    assert planned(copy) == set()
    before = kept.stat().st_mtime_ns - 10**12
    os.utime(kept, ns=(before, before))
    assert planned(copy) == AFTER_INFER  # another one, though an older one


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epoch": 3}, "`epoch` is not a setting; did you mean `epochs`?"),
        ({"batch_size": 1}, "`batch_size`: found 1"),
        ({"datafile": "none.txt"}, "there is no such file list"),
        ({"datafile": "fits"}, "this is a folder, not a file list"),
        ({"datafile": None}, "`datafile` is not set"),
        (
            {"trained_network_name": "m{1}.pt"},
            "the workflow does not allow braces in it",
        ),
    ],
)
def test_wrong_settings_end_in_one_clear_message(run, changes, message):
    """Snakemake stops before any job, with a message of the package, no traceback."""
    configure(run, changes)
    done = snakemake(run, "-n")
    assert done.returncode != 0
    assert message in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr


def test_the_report_contains_all_pages_figures_and_tables(run):
    """Each item has a category, a name and a caption that explains it."""
    done = snakemake(run, "--report", "report.html")
    assert done.returncode == 0, done.stderr
    items = reported(run / "report.html")
    found = {(Path(name).name, item["category"]) for name, item in items.items()}
    assert found >= {
        ("catalogue.csv", "Data"),
        ("validation.html", "Data"),
        ("split.csv", "Data"),
        ("history.csv", "Training"),
        ("history.png", "Training"),
        ("evaluation.html", "Evaluation"),
        ("analysis.html", "Analysis"),
        ("map_clusters.png", "Map"),
        ("cluster_00.png", "Galleries"),
        ("outliers.png", "Galleries"),
        ("views.png", "Galleries"),
        ("embeddings.csv", "Tables"),
        ("settings.html", "Settings"),
    }
    for name, item in items.items():
        assert item["labels"], name
        assert len(item["caption"]) > 60, name


def test_large_tables_are_not_in_the_report(run, sources):
    """Only tables that are too large for the report are omitted."""
    append(sources, "cli/workflow.py", "MAX_REPORTED_BYTES = 10_000")
    done = snakemake(run, "--report", "small.html", snakefile=sources)
    assert done.returncode == 0, done.stderr
    names = {Path(name).name for name in reported(run / "small.html")}
    assert not {"catalogue.csv", "embeddings.csv"} & names
    assert {"split.csv", "validation.html", "outliers.png"} <= names


@pytest.mark.browser
def test_the_report_opens_in_a_browser(run):
    """Every item is listed and opens, to its beginning, without network requests."""
    style = str(ROOT / "workflow" / "report" / "style.css")
    snakemake(run, "--report", "report.html", "--report-stylesheet", style)
    items = reported(run / "report.html")
    with browser() as page:
        page.goto((run / "report.html").as_uri())
        page.wait_for_selector("#app a")
        for category in {item["category"] for item in items.values()}:
            page.evaluate("app.setView({navbarMode: 'menu'})")
            page.get_by_text(category, exact=True).first.click()
            page.wait_for_selector("tbody tr")
            rows = page.locator("tbody tr")
            own = [i for i in items.values() if i["category"] == category]
            assert rows.count() == len(own)
            for k in range(rows.count()):
                opens(page, rows.nth(k).locator("a").first)


def opens(page, link) -> None:
    """Check that a click on the eye opens a page, a picture or a table."""
    if link.get_attribute("download"):
        assert link.get_attribute("href").startswith("data:text/csv")
        return
    link.click()
    page.wait_for_function(
        "() => { const f = document.querySelector('iframe');"
        " const i = [...document.querySelectorAll('img')].pop();"
        " return f || (i && i.complete && i.naturalWidth > 100); }"
    )
    picture = page.locator("img").last
    if not page.locator("iframe").count():
        beginning = picture.evaluate(
            "i => { i.closest('.overflow-auto').scrollTo(0, 0);"
            " const a = i.getBoundingClientRect(); return Math.min(a.left, a.top) }"
        )
        assert beginning >= 0
    else:
        body = page.frame_locator("iframe").locator("body")
        body.locator("h1").wait_for()
        assert len(body.inner_text()) > 200


@pytest.mark.browser
def test_the_gallery_page_shows_all_sheets(run):
    """Every picture loads without a server."""
    folder = run / "results" / "export" / "gallery"
    with browser() as page:
        page.goto((folder / "index.html").as_uri())
        for image in page.locator("img").all():
            image.scroll_into_view_if_needed()
        page.wait_for_function(
            "() => [...document.images].every(i => i.complete && i.naturalWidth > 100)"
        )
        assert page.locator("img").count() == len(list(folder.glob("*.png")))


@contextlib.contextmanager
def browser():
    """A page in Chromium; console errors and requests to other machines fail."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("Chromium is not on this machine")
    sync_api = pytest.importorskip("playwright.sync_api")
    wrong: list[str] = []
    with sync_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(
            executable_path=chromium, args=["--no-sandbox"]
        )
        page = opened.new_page()
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on(
            "console", lambda m: wrong.append(m.text) if m.type == "error" else None
        )
        page.on("request", lambda r: wrong.extend(outside(r.url)))
        yield page
        opened.close()
    assert not wrong


def outside(url: str) -> list[str]:
    return [] if url.startswith(("file:", "data:", "blob:", "about:")) else [url]


def reported(report: Path) -> dict[str, dict]:
    """The items of a report by path, each with its category."""
    text = report.read_text()
    decoder = json.JSONDecoder()
    results, categories = (
        decoder.raw_decode(
            text, re.search(rf'id="{name}">\s*var {name} = ', text).end()
        )[0]
        for name in ("results", "categories")
    )
    for category, parts in categories.items():
        for paths in parts.values():
            for path in paths:
                results[path]["category"] = category
    return results
