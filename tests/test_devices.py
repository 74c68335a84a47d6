"""Where training runs, in which precision, and how batches get there."""

import itertools
import json
from types import SimpleNamespace

import pytest
import torch

from astromorph import devices
from astromorph.datasets.tensor_datasets import CachedDataset, MappedDataset, gather
from astromorph.devices import choose_precision, fits_on_device, prefetch_to_device

CPU = torch.device("cpu")


def test_the_precision_is_the_faster_one(monkeypatch):
    """`auto` measures; the others are obeyed."""
    for pays, dtype in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr(
            devices, "bfloat16_is_faster", lambda device, pays=pays: pays
        )
        assert choose_precision("auto", CPU).dtype == dtype
        assert choose_precision("float32", CPU).dtype == torch.float32
        assert choose_precision("bfloat16", CPU).dtype == torch.bfloat16
    with pytest.raises(ValueError, match="found 'half'; allowed are auto, float32"):
        choose_precision("half", CPU)


@pytest.mark.parametrize(
    ("bfloat16_seconds", "faster"),
    [(0.5, True), (0.79, True), (0.81, False), (2.0, False)],
)
def test_bfloat16_is_faster_where_the_clock_says_so(
    monkeypatch, bfloat16_seconds, faster
):
    """Passes in float32 take a second; no random number is drawn on the way."""
    clock = itertools.cycle([0.0, 1.0, 0.0, bfloat16_seconds])
    monkeypatch.setattr(devices, "time", SimpleNamespace(perf_counter=clock.__next__))
    before = torch.random.get_rng_state()
    assert devices._is_faster(CPU) is faster
    assert torch.equal(torch.random.get_rng_state(), before)


def test_what_was_measured_is_remembered(tmp_path, monkeypatch):
    """A busy machine gives the same result; damaged or no memory does no harm."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    memory = tmp_path / "astromorph" / "bfloat16.json"
    for said in (True, False):
        memory.unlink(missing_ok=True)
        monkeypatch.setattr(devices, "_is_faster", lambda device, said=said: said)
        assert devices.bfloat16_is_faster(CPU) is said
        monkeypatch.setattr(devices, "_is_faster", lambda device, said=said: not said)
        assert devices.bfloat16_is_faster(CPU) is said
    (name,) = json.loads(memory.read_text())
    assert f"torch {torch.__version__}" in name
    memory.write_text("half a fi")
    assert devices.bfloat16_is_faster(CPU) is True
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/nowhere")
    assert devices.bfloat16_is_faster(CPU) is True


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_batches_come_in_order(device):
    """On the CPU at once, elsewhere made ahead by a thread."""
    parts = [torch.tensor([k, k + 1]) for k in range(0, 20, 2)]
    made = prefetch_to_device(lambda k: k.float(), parts, torch.device(device))
    found = list(made)
    assert [k.tolist() for k, _ in found] == [part.tolist() for part in parts]
    assert all(images.device.type == device for _, images in found)


def test_an_error_while_making_a_batch_arrives():
    """It is not lost in the thread."""

    def broken(indices):
        raise OSError("disk gone")

    with pytest.raises(OSError, match="disk gone"):
        list(prefetch_to_device(broken, [torch.tensor([0])] * 4, torch.device("meta")))
    assert not fits_on_device(torch.ones(2), CPU)


def test_images_stay_in_their_files_where_memory_is_small(prepared):
    """Batches are the same as from memory, in any order."""
    tensors = [prepared / f"0000{k}.pt" for k in range(2)]
    positions = {"00000": [3, 1, 15], "00001": [0, 11]}
    whole, ids, _ = gather(tensors, positions, 3)
    mapped, same, _ = gather(tensors, positions, 3, most_bytes=0)
    assert isinstance(whole, CachedDataset)
    assert isinstance(mapped, MappedDataset)
    assert ids == same
    assert (len(mapped), mapped.channels) == (len(whole), whole.channels) == (5, 3)
    for order in ([0, 1, 2, 3, 4], [4, 0, 3, 3, 1], [2]):
        chosen = torch.tensor(order)
        assert torch.equal(mapped.batch(chosen), whole.batch(chosen))
    assert torch.equal(mapped[3], whole[3])
    part = mapped.subset([4, 2])
    assert torch.equal(part.batch(torch.tensor([1])), whole.batch(torch.tensor([2])))
    assert [len(k) for k in mapped.batches(3)] == [len(k) for k in whole.batches(3)]


def test_memory_is_what_machine_and_job_leave(tmp_path, monkeypatch):
    """Control groups count, also those further up; a missing limit does not."""
    free = devices.available_memory()
    assert 1e8 < free < 1e14
    group = tmp_path / "slurm" / "job"
    group.mkdir(parents=True)
    for folder, most in ((group, "max"), (group.parent, "5000")):
        (folder / "memory.max").write_text(f"{most}\n")
        (folder / "memory.current").write_text("2000\n")
    (tmp_path / "own").write_text("0::/slurm/job\n")
    monkeypatch.setattr(devices, "GROUPS", tmp_path)
    monkeypatch.setattr(devices, "OF_PROCESS", tmp_path / "own")
    assert devices.available_memory() == 3000
    (group.parent / "memory.current").write_text("6000\n")
    assert devices.available_memory() == 0
    monkeypatch.setattr(devices, "OF_PROCESS", tmp_path / "none")
    assert devices.available_memory() > 1e8
