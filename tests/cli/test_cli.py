"""The command line: without Snakemake, with clear messages."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import command_line
import pytest
import torch

from astromorph.cli import main as cli
from astromorph.cli.steps import STEPS
from astromorph.sky.simulate import simulate

pytestmark = pytest.mark.slow

# Every step of the table has a subcommand, `export_csv` as `export csv`.
SUBCOMMANDS = [
    *(
        ["init"],
        ["run"],
        ["simulate"],
        ["similar"],
        ["export"],
        ["report"],
        ["convert"],
        ["completion"],
    ),
    *(name.split("_") for name in STEPS),
]
CLOSING = ["images", "verdict", "map", "home page", "next"]  # lines of a run
SETTINGS = """
datafile = "fits/filelist.csv"
network_name = "n_layer_resnet"
epochs = 1
batch_size = 8
export_to_csv = true

[network_settings]
last_layer = "layer1"

[training_settings]
simulated_images = 20

[data_settings]
stacksize = 3

[byol_settings]
representation_size = 16

[preprocess_settings]
size = 32
shard_size = 16

[analysis_settings]
map = "pca"  # each process would compile UMAP
"""


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command line in a folder."""
    return command_line.run(list(arguments), folder)


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> tuple[Path, str]:
    """A folder in which `astromorph train -c settings.toml` ran, and its log."""
    folder = tmp_path_factory.mktemp("cli")
    simulate(folder / "fits", 20, seed=3)
    (folder / "settings.toml").write_text(SETTINGS)
    command = [sys.executable, "-m", "astromorph", "train", "-c", "settings.toml"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder, done.stderr


@pytest.mark.parametrize("step", SUBCOMMANDS, ids=" ".join)
def test_every_step_explains_itself(step, capsys):
    """`astromorph STEP --help` prints its options and succeeds."""
    code: object = 0
    try:
        cli.main([*step, "--help"])
    except SystemExit as ended:
        code = ended.code
    assert code == 0
    assert f"astromorph {' '.join(step)}" in capsys.readouterr().out


def test_without_arguments_the_help_is_printed(capsys):
    """A new user who only types the name sees the commands."""
    cli.main([])
    assert "init" in capsys.readouterr().out.partition("steps:")[2]


def test_the_version_is_printed(capsys):
    """The same as that of the package."""
    import astromorph

    cli.main(["--version"])
    assert capsys.readouterr().out == f"astromorph {astromorph.__version__}\n"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("astromorph tr", {"train"}),
        ("astromorph export ta", set()),
        ("astromorph export t", {"tensorboard"}),
        ("astromorph similar --files", {"--files-per-image"}),
    ],
)
def test_a_shell_completes_commands_and_options(tmp_path, line, expected):
    """Without the names of version 0.1; the script comes from `completion`."""
    variables = {
        "_ARGCOMPLETE": "1",
        "_ARGCOMPLETE_IFS": "\n",
        "_ARGCOMPLETE_STDOUT_FILENAME": str(tmp_path / "words"),
        "COMP_LINE": line,
        "COMP_POINT": str(len(line)),
    }
    command = [sys.executable, "-m", "astromorph"]
    subprocess.run(command, env=os.environ | variables, check=True)
    assert set((tmp_path / "words").read_text().split()) == expected


def test_train_writes_a_model_and_logs_its_path(trained):
    """All steps up to the model run, and the log names the file."""
    folder, log = trained
    assert "the model was written to results/model/model.pt" in log
    assert (folder / "results/model/model.pt").exists()
    assert (folder / "results/model/history.csv").exists()
    assert (folder / "results/validation.html").exists()
    assert "open results/validation.html: what the listed files contain" in log
    last = [line.partition(" INFO ")[2] for line in log.splitlines()[-5:]]
    assert [line[:9].strip() for line in last] == [
        *("images", "training", "model", "files", "next"),
    ]
    assert last[0].endswith("20 used (18 for training, 2 for testing), 0 rejected")
    assert "run `astromorph infer` with the same options" in last[4]


def test_infer_embeds_with_the_model_and_reuses_the_tensors(trained):
    """`infer -c -n` writes the CSV and the projector without preprocessing again."""
    folder, _ = trained
    done = run(folder, "infer", "-c", "settings.toml", "-n", "results/model/model.pt")
    assert done.returncode == 0, done.stderr
    assert "preprocess: up to date for 2 of 2 shards" in done.stderr
    with open(folder / "results/export/embeddings.csv", newline="") as file:
        table = list(csv.DictReader(file))
    assert len(table) == 20
    assert "emb_15" in table[0]
    assert "emb_16" not in table[0]
    assert (folder / "results/export/tensorboard/sprite.png").exists()
    last = [line.partition(" INFO ")[2] for line in done.stderr.splitlines()[-5:]]
    assert [line[:9].strip() for line in last] == CLOSING
    assert (folder / "results/index.html").exists()


def test_a_replaced_image_is_read_again(trained, tmp_path):
    """Tensors are not reused if one of their files has changed."""
    import os
    import shutil

    folder = tmp_path / "copy"
    shutil.copytree(trained[0], folder)
    for path in (folder / "fits").iterdir():
        original = trained[0] / "fits" / path.name
        os.utime(path, ns=(original.stat().st_atime_ns, original.stat().st_mtime_ns))
    shutil.copyfile(folder / "fits/sky_000001.fits", folder / "fits/sky_000000.fits")
    model = "results/model/model.pt"
    done = run(folder, "infer", "-c", "settings.toml", "-n", model)
    assert done.returncode == 0, done.stderr
    assert "preprocess: up to date for 1 of 2 shards" in done.stderr


def test_options_override_the_settings_file(trained):
    """`-d` and `-n` replace `datafile` and `trained_network_name` of the settings."""
    folder, _ = trained
    few = folder / "few.txt"
    few.write_text("fits/sky_000000.fits\nfits/sky_000001.fits\nfits/sky_000002.fits\n")
    done = run(
        folder, "train", "-c", "settings.toml", "-d", "few.txt",
        "-n", "other/own.pt", "--results", "other",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "few.txt: 3 files: 3 ok" in done.stderr
    assert "the model was written to other/own.pt" in done.stderr
    assert (folder / "other/own.pt").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "there is no such file list"),
        ("", "names no file"),
        ("# only a comment\n", "names no file"),
        ("absent.fits\nother.fits\n", "2 of 2 listed files cannot be used"),
        ("fits/sky_000000.fits\nabsent.fits\n", "1 of 2 listed files cannot be used"),
    ],
)
def test_a_list_without_images_ends_in_one_message(trained, content, message):
    """Missing, empty or unusable lists: exit code 1, the reason, no traceback."""
    folder, _ = trained
    (folder / "list.txt").unlink(missing_ok=True)
    if content is not None:
        (folder / "list.txt").write_text(content)
    arguments = ["-c", "settings.toml", "-d", "list.txt", "--results", "bad"]
    done = run(folder, "train", *arguments)
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_all_images_of_nan_stop_before_training(trained):
    """Unusable pixels in all files also stop the run, with counts and reasons."""
    import numpy as np
    from astropy.io import fits

    folder, _ = trained
    for name in ("a", "b"):
        data = np.full((30, 30), np.nan, np.float32)
        fits.PrimaryHDU(data).writeto(folder / f"{name}.fits", overwrite=True)
    (folder / "nan.txt").write_text("a.fits\nb.fits\n")
    arguments = ["-c", "settings.toml", "-d", "nan.txt", "--results", "nan"]
    done = run(folder, "train", *arguments)
    assert done.returncode == 1
    assert "2 of 2 listed files cannot be used" in done.stderr
    assert "2 times: all pixels are NaN" in done.stderr


def test_the_error_of_an_unknown_setting_suggests_a_similar_name(trained):
    """A typo in settings.toml is refused before anything runs."""
    folder, _ = trained
    (folder / "typo.toml").write_text('datafile = "x"\nbatchsize = 3\n')
    done = run(folder, "train", "-c", "typo.toml")
    assert done.returncode == 1
    assert "typo.toml: `batchsize` is not a setting; did you mean" in done.stderr


def test_a_model_for_other_channels_is_an_error(trained, tmp_path):
    """The message gives the number of channels of the model and of the images."""
    folder, _ = trained
    values = torch.load(folder / "results/model/model.pt", weights_only=True)
    values["settings"]["data_settings"]["stacksize"] = 1
    values["settings"]["network_settings"]["channels"] = "joint"
    torch.save(values, tmp_path / "other.pt")
    model = str(tmp_path / "other.pt")
    done = run(folder, "infer", "-c", "settings.toml", "-n", model)
    assert done.returncode == 1
    expected = "expects images with 3 channels, but the first image of"
    assert expected in done.stderr
    assert "ok" not in done.stderr  # of `validate`: nothing ran before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format_version": 99}, "found format version 99"),
        ({"format": "astromorph-tensors"}, "expected 'astromorph-model'"),
        ({"settings": {"network_name": "vgg"}}, "its network cannot be built"),
    ],
)
def test_a_model_of_another_version_is_an_error(trained, tmp_path, change, message):
    """Format and settings are checked before any image is read."""
    folder, _ = trained
    values = torch.load(folder / "results/model/model.pt", weights_only=True)
    torch.save(values | change, tmp_path / "other.pt")
    model = str(tmp_path / "other.pt")
    done = run(folder, "infer", "-c", "settings.toml", "-n", model)
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_a_pickled_model_is_refused(trained, tmp_path):
    """A model file that contains objects is not unpickled."""
    folder, _ = trained
    torch.save(torch.nn.Linear(2, 2), tmp_path / "pickled.pt")
    model = str(tmp_path / "pickled.pt")
    done = run(folder, "infer", "-c", "settings.toml", "-n", model)
    assert done.returncode == 1
    assert "pickled objects" in done.stderr


def test_unusual_head_sizes_cause_warnings(trained):
    """A projection that is not smaller, a hidden layer that is not larger."""
    folder, _ = trained
    text = SETTINGS.replace(
        "representation_size = 16",
        "representation_size = 16\nprojection_size = 16\nprojection_hidden_size = 8",
    )
    (folder / "heads.toml").write_text(text)
    done = run(folder, "train", "-c", "heads.toml", "--results", "heads")
    assert done.returncode == 0, done.stderr
    assert "`byol_settings.projection_size` is 16, not smaller" in done.stderr
    assert "`byol_settings.projection_hidden_size` is 8, not larger" in done.stderr
    assert "UserWarning" not in done.stderr
