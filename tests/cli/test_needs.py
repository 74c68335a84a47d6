"""What a job asks a cluster for grows with its work."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from astromorph.cli.resources import (
    LONGEST,
    MAX_MB,
    MAX_OTHER_MINUTES,
    WITH_TORCH,
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
    "gallery",
    "report",
    "export",
)


@pytest.mark.parametrize("step", STEPS)
def test_more_images_never_need_less(step):
    """Memory and time rise, or stay where a limit holds them."""
    settings = parse({}, "test")
    found = [resources_for(step, settings, 10**n) for n in range(8)]
    assert [n.mem_mb for n in found] == sorted(n.mem_mb for n in found)
    longest = LONGEST if step == "train" else MAX_OTHER_MINUTES
    assert all(n.at(4).minutes <= longest for n in found)
    assert all(n.mem_mb % 100 == 0 for n in found)


def test_memory_follows_the_tensors():
    """A shard of larger images needs more; preprocessing holds two copies at most."""
    small, large = parse({}, "test"), parse({"preprocess_settings": {"size": 256}}, "t")
    for step in ("preprocess", "infer", "train"):
        less, more = (resources_for(step, rules, 4096) for rules in (small, large))
        tensors = 4096 * 256**2 * 2 / 1e6
        assert more.mem_mb - less.mem_mb > 0.9 * tensors
    most = resources_for("train", large, 10**7).mem_mb
    assert MAX_MB < most < 1.5 * MAX_MB


def test_time_follows_the_samples_and_the_cores():
    """Twice the epochs take twice as long, four cores a quarter."""
    rules = [parse({"epochs": n}, "test") for n in (100, 200)]
    once, twice = (resources_for("train", r, 1000, cores=1).minutes - 10 for r in rules)
    assert twice == pytest.approx(2 * once, abs=2)
    four = resources_for("train", rules[0], 1000, cores=4).minutes - 10
    assert four == pytest.approx(once / 4, abs=2)


def test_a_later_attempt_gets_more():
    """As many times as much, up to the longest job."""
    first = Resources(1500, 600, LONGEST)
    assert first.at(1) == first
    assert first.at(2) == Resources(3000, 1200, LONGEST)
    assert first.at(3) == Resources(4500, LONGEST, LONGEST)


@pytest.mark.parametrize(("size", "images"), [(512, 16384), (1024, 8192)])
def test_what_begins_anew_is_given_the_time_that_it_takes(size, images):
    """Training goes on in its next attempt; a shard of large images does not."""
    rules = parse({"preprocess_settings": {"size": size}}, "test")
    infer, train = (resources_for(step, rules, images) for step in ("infer", "train"))
    assert infer.minutes > 1.5 * LONGEST
    assert infer.at(2).minutes == 2 * infer.minutes
    assert train.minutes == train.at(4).minutes == LONGEST


def test_images_that_keep_their_size_need_what_that_size_needs():
    """Tensors and time follow their side; in a batch large ones count as several."""
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
    """Eight views are embedded one after the other."""
    one = parse({"inference_settings": {"symmetry": "none"}}, "test")
    eight = parse({}, "test")
    alone, turned = (resources_for("infer", rules, 16384) for rules in (one, eight))
    assert alone.mem_mb == turned.mem_mb > WITH_TORCH
    assert turned.minutes > 4 * (alone.minutes - 10)


def test_what_the_guide_sets_grows_and_a_number_does_not(tmp_path):
    """Its profile, with a training that fails each time it is tried."""
    guide = (Path(__file__).parents[2] / "docs" / "slurm.md").read_text()
    (profile,) = re.findall(r"```yaml\n(set-resources:.*?)```", guide, re.S)
    said = 'echo "{resources.mem_mb} {resources.runtime}" >> said; false'
    (tmp_path / "Snakefile").write_text(
        f"rule train:\n    output: 'a'\n    shell: {said!r}\n"
    )
    command = [sys.executable, "-m", "snakemake", "--profile=p", "--cores=1"]
    (tmp_path / "p").mkdir()
    plain = re.sub(r"attempt \* ", "", profile)
    for text, times in ((profile, (1, 2)), (plain, (1, 1))):
        (tmp_path / "p" / "config.yaml").write_text(f"retries: 1\n{text}")
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 1, done.stderr
        wanted = [f"{64000 * k} {1440 * k}" for k in times]
        assert (tmp_path / "said").read_text().splitlines() == wanted
        (tmp_path / "said").unlink()
