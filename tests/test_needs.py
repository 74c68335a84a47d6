"""What a job asks a cluster for grows with its work."""

import pytest

from astromorph.needs import LONGEST, MOST_MB, WITH_TORCH, Needs, needs_of
from astromorph.settings import parse

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
    found = [needs_of(step, settings, 10**n) for n in range(8)]
    assert [n.mem_mb for n in found] == sorted(n.mem_mb for n in found)
    assert all(n.minutes <= LONGEST for n in found)
    assert all(n.mem_mb % 100 == 0 for n in found)


def test_memory_follows_the_tensors():
    """A shard of larger images needs more; preprocessing holds two copies at most."""
    small, large = parse({}, "test"), parse({"preprocess_settings": {"size": 256}}, "t")
    for step in ("preprocess", "infer", "train"):
        less, more = (needs_of(step, rules, 4096) for rules in (small, large))
        tensors = 4096 * 256**2 * 2 / 1e6
        assert more.mem_mb - less.mem_mb > 0.9 * tensors
    most = needs_of("train", large, 10**7).mem_mb
    assert MOST_MB < most < 1.5 * MOST_MB


def test_time_follows_the_samples_and_the_cores():
    """Twice the epochs take twice as long, four cores a quarter."""
    rules = [parse({"epochs": n}, "test") for n in (100, 200)]
    once, twice = (needs_of("train", r, 1000, cores=1).minutes - 10 for r in rules)
    assert twice == pytest.approx(2 * once, abs=2)
    four = needs_of("train", rules[0], 1000, cores=4).minutes - 10
    assert four == pytest.approx(once / 4, abs=2)


def test_a_later_attempt_gets_more():
    """As many times as much, up to the longest job."""
    first = Needs(1500, 600)
    assert first.at(1) == first
    assert first.at(2) == Needs(3000, 1200)
    assert first.at(3) == Needs(4500, LONGEST)


def test_the_symmetry_costs_time_not_memory():
    """Eight views are embedded one after the other."""
    one = parse({"inference_settings": {"symmetry": "none"}}, "test")
    eight = parse({}, "test")
    alone, turned = (needs_of("infer", rules, 16384) for rules in (one, eight))
    assert alone.mem_mb == turned.mem_mb > WITH_TORCH
    assert turned.minutes > 4 * (alone.minutes - 10)
