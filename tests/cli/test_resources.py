"""The resources that a job requests from a cluster grow with its input."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from astromorph.cli.resources import (
    BASE_WITH_TORCH_MB,
    MAX_IMAGES_MB,
    MAX_OTHER_MINUTES,
    MAX_TRAINING_MINUTES,
    Resources,
    resources_for,
)
from astromorph.settings.loading import parse

STEPS = (
    "validate",
    "preprocess",
    "split",
    "train",
    "infer",
    "evaluate",
    "analyse",
    "rank",
    "gallery",
    "report",
    "export",
)


@pytest.mark.parametrize("step", STEPS)
def test_more_images_never_need_less(step):
    """Memory and time increase up to their bounds."""
    settings = parse({}, "test")
    found = [resources_for(step, settings, 10**n) for n in range(8)]
    assert [n.mem_mb for n in found] == sorted(n.mem_mb for n in found)
    max_minutes = MAX_TRAINING_MINUTES if step == "train" else MAX_OTHER_MINUTES
    assert all(n.at(4).minutes <= max_minutes for n in found)
    assert all(n.mem_mb % 100 == 0 for n in found)


def test_memory_follows_the_tensors():
    """A shard of larger images needs more; preprocessing has at most two copies."""
    small, large = parse({}, "test"), parse({"preprocess_settings": {"size": 256}}, "t")
    for step in ("preprocess", "infer", "train"):
        less, more = (resources_for(step, rules, 4096) for rules in (small, large))
        tensors = 4096 * 256**2 * 2 / 1e6
        assert more.mem_mb - less.mem_mb > 0.9 * tensors
    maximum = resources_for("train", large, 10**7).mem_mb
    assert MAX_IMAGES_MB < maximum < 1.5 * MAX_IMAGES_MB


def test_time_follows_the_samples_and_the_cores():
    """Twice the epochs take twice as long, four cores a quarter."""
    rules = [parse({"epochs": n}, "test") for n in (100, 200)]
    once, twice = (resources_for("train", r, 1000, cores=1).minutes - 10 for r in rules)
    assert twice == pytest.approx(2 * once, abs=2)
    four = resources_for("train", rules[0], 1000, cores=4).minutes - 10
    assert four == pytest.approx(once / 4, abs=2)


def test_a_later_attempt_gets_more():
    """The second twice as much, up to the maximum time."""
    first = Resources(1500, 600, MAX_TRAINING_MINUTES)
    assert first.at(1) == first
    assert first.at(2) == Resources(3000, 1200, MAX_TRAINING_MINUTES)
    assert first.at(3) == Resources(4500, MAX_TRAINING_MINUTES, MAX_TRAINING_MINUTES)


@pytest.mark.parametrize(("size", "images"), [(512, 16384), (1024, 8192)])
def test_steps_without_checkpoints_request_enough_time(size, images):
    """Training continues in its next attempt; a shard of large images does not."""
    rules = parse({"preprocess_settings": {"size": size}}, "test")
    infer, train = (resources_for(step, rules, images) for step in ("infer", "train"))
    assert infer.minutes > 1.5 * MAX_TRAINING_MINUTES
    assert infer.at(2).minutes == 2 * infer.minutes
    assert train.minutes == train.at(4).minutes == MAX_TRAINING_MINUTES


def test_resources_depend_on_the_size_of_images_that_keep_it():
    """Tensors and time grow with their side; batches of large images are smaller."""
    native = parse({"preprocess_settings": {"size": "native"}}, "test")
    for side, images in ((128, 16384), (512, 4096), (1000, 4096)):
        fixed = parse({"preprocess_settings": {"size": min(side, 1024)}}, "test")
        for step in ("preprocess", "infer", "train"):
            found = resources_for(step, native, images, native_side=side)
            same = resources_for(step, fixed, images)
            assert found.minutes == same.minutes
            assert found.mem_mb <= same.mem_mb
            assert found.mem_mb > images * side**2 * 2 / 1e6
    unknown = resources_for("preprocess", native, 4096)
    assert unknown == resources_for("preprocess", native, 4096, native_side=512)
    batch = resources_for("train", native, 10, native_side=512).mem_mb
    assert batch < 1.1 * resources_for("train", native, 10, native_side=128).mem_mb


def test_the_symmetry_costs_time_not_memory():
    """Eight orientations are embedded one after the other."""
    one = parse({"inference_settings": {"symmetry": "none"}}, "test")
    eight = parse({}, "test")
    one_view, eight_views = (
        resources_for("infer", rules, 16384) for rules in (one, eight)
    )
    assert one_view.mem_mb == eight_views.mem_mb > BASE_WITH_TORCH_MB
    assert eight_views.minutes > 4 * (one_view.minutes - 10)


def test_resources_in_the_profile_of_the_guide_grow_with_attempts(tmp_path):
    """Training that fails in each attempt requests more; plain numbers do not grow."""
    guide = (Path(__file__).parents[2] / "docs" / "slurm.md").read_text()
    (profile,) = re.findall(r"```yaml\n(set-resources:.*?)```", guide, re.S)
    command = 'echo "{resources.mem_mb} {resources.runtime}" >> requested; false'
    (tmp_path / "Snakefile").write_text(
        f"rule train:\n    output: 'a'\n    shell: {command!r}\n"
    )
    snakemake = [sys.executable, "-m", "snakemake", "--profile=p", "--cores=1"]
    (tmp_path / "p").mkdir()
    plain = re.sub(r"attempt \* ", "", profile)
    for text, times in ((profile, (1, 2)), (plain, (1, 1))):
        (tmp_path / "p" / "config.yaml").write_text(f"retries: 1\n{text}")
        done = subprocess.run(snakemake, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 1, done.stderr
        expected = [f"{64000 * k} {1440 * k}" for k in times]
        assert (tmp_path / "requested").read_text().splitlines() == expected
        (tmp_path / "requested").unlink()
